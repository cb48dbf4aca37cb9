"""The frozen records that the stages hand to one another.

    HealthReport → Diagnosis → HealingPatch → Trial → Verdict → Change → Outcome

Only data and what follows from it by arithmetic; no I/O, no clock, no git. Every record encodes to
JSON by msgspec as it stands, which is how the ledger keeps it. Fields are only appended, with
defaults, so that a ledger of an earlier version stays readable.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from qigcore.fitness import Fitness

Severity = Literal["normal", "warning", "critical"]
Tier = Literal["safe", "guarded", "review"]
TIERS: tuple[Tier, ...] = ("safe", "guarded", "review")  # each is stricter than the one before
SEVERITIES: tuple[Severity, ...] = ("normal", "warning", "critical")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of the records: frozen, keyword-only."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


class Share(Record, frozen=True):
    """One component of a basin and its part of the squared distance moved, 0 to 1."""

    index: int
    share: float


class Finding(Record, frozen=True):
    """One thing that is wrong, in typed form; `message` is the same for a person."""

    kind: str  # phi_low phi_high kappa_off drift breakdown errors latency memory unmeasurable change silent
    metric: str  # a key of qigcore.rows.METRICS, or "measurement"
    value: float
    limit: float
    severity: Severity
    message: str
    # What has lasted longer than the snapshots looked at (a service looks at its last 10,000 at most) began
    # earlier than `since` and has lasted more than `snapshots`.
    since: float | None = None  # Unix seconds of the first snapshot of the present run of it
    snapshots: int = 0  # how many snapshots it has lasted
    components: tuple[Share, ...] = ()


class Departure(Record, frozen=True):
    """A departure from the learned state that the sequential tests have found, as long as it lasts.

    kind: "bounded" when its false-alarm rate is guaranteed under the assumption that docs/detection.md
    states, else "nominal". confirmed: whether the slower, bounded tests have found it too.
    """

    kind: Literal["bounded", "nominal"]
    confirmed: bool
    since: float | None  # Unix seconds of its likely onset
    found: float | None  # and of the alarm
    snapshots: int  # since the alarm
    components: tuple[Share, ...]  # those that moved beyond noise, most first
    metrics: dict[str, float]  # figures that moved, by how many of their sd
    statistic: float  # at the alarm, over its limit


class HealthReport(Record, frozen=True):
    """What `check_health()` says. `report["healthy"]` reads a field as `report.healthy` does."""

    healthy: bool
    severity: Severity
    issues: tuple[str, ...]
    findings: tuple[Finding, ...]
    metrics: dict[str, float]
    state: Literal["learning", "absolute", "learned"]  # which limits were applied
    snapshots: int  # recorded so far
    notes: tuple[str, ...] = ()  # facts that are no fault, such as "host never met Φ ≥ 0.65"
    change: Departure | None = None  # what the sequential tests have found and is not over
    last_at: float | None = None  # Unix seconds of the newest snapshot, where a store was read

    def __getitem__(self, name: str) -> Any:
        if name in self.__struct_fields__:
            return getattr(self, name)
        raise KeyError(f"{name!r}: a health report has {', '.join(self.__struct_fields__)}")


class BandOf(Record, frozen=True):
    """The healthy range of one metric, as the stages need it."""

    mean: float
    sd: float
    low: float
    high: float
    autocorrelation: float = 0.0  # of neighbouring snapshots, as the baseline learned it

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def excess(self, value: float) -> float:
        """How far outside the band, in half-widths beyond its edge; 0 inside."""
        return max(0.0, abs(value - (self.low + self.high) / 2) / self.half_width - 1.0)


class Target(Record, frozen=True):
    """Healthy, as far as a trial can measure it: what strategies aim at and the judge scores against.

    `bands` has the keys of `qigcore.rows.METRICS` that the baseline learned (constant signals other than
    errors are missing); `basin` is the baseline's Fréchet mean as a unit amplitude vector, length dim;
    `drift_limit` in radians.
    """

    geometry: Literal["simplex", "sphere"]
    basin: tuple[float, ...]
    drift_limit: float
    bands: dict[str, BandOf]


class Diagnosis(Record, frozen=True):
    """What is wrong with a service, read from its history."""

    metrics: tuple[str, ...]  # keys of METRICS, worst first; ("measurement",) when nothing else
    findings: tuple[Finding, ...]
    severity: Severity
    target: Target
    observed: dict[str, float]  # means of the last window, by metric
    code_hash: str  # of the snapshots judged
    healthy_code_hash: str  # of the last healthy snapshots before them, "" when unknown
    since: float | None
    snapshots: int  # how many were judged


class HealingPatch(Record, frozen=True):
    """A proposed change to the host's repository.

    `diff` is a unified diff as `git diff` prints it, against commit `base`. `heals` are the metrics
    it claims to heal; `price` and `prices` are metrics that it may make worse within their healthy bands.
    """

    strategy: str
    tier: Tier
    base: str
    diff: str
    rationale: str
    heals: tuple[str, ...]
    batches_needed: int = 10
    same_output: bool = False  # claims that outputs do not change: the judge then compares digests
    price: str | None = None
    parameters: dict[str, float] = {}
    searched: int = 0  # probe batches that the strategy spent to find it
    other_output: bool = False  # people's commits, which may change what is put out: no digest is compared
    evidence: dict[str, Any] = {}  # what it was found from, such as a profile: kept with the proof alone
    found_s: float | None = None  # seconds that its strategy took to propose it; None: nobody measured it
    prices: tuple[str, ...] = ()

    @property
    def paid(self) -> frozenset[str]:
        """The metrics that it may make worse within their healthy bands; what it heals is none of them."""
        return frozenset({self.price or "", *self.prices} - {"", *self.heals})

    @property
    def fingerprint(self) -> str:
        """16 hex digits naming the change: the diff without line numbers and index lines, and its base."""
        import hashlib  # 3.6 MB of OpenSSL, which the serving process never needs

        kept = [
            "@@" if line.startswith("@@") else line.rstrip()
            for line in self.diff.splitlines()
            if not line.startswith("index ")
        ]
        return hashlib.sha256("\n".join([self.base, *kept]).encode()).hexdigest()[:16]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths that the diff names, old and new, without repeats."""
        found: dict[str, None] = {}
        for line in self.diff.splitlines():
            for marker in ("--- a/", "+++ b/", "rename from ", "rename to "):
                if line.startswith(marker):
                    found[line.removeprefix(marker).rstrip("\t")] = None
        return tuple(found)


class FileChange(Record, frozen=True):
    """What a patch does to one path. A rename is a deletion and an addition.

    `status` is git's letter: A added, D deleted, M modified, T another type. Modes are git's octal
    ones, "000000" where there is no file; `added` and `deleted` count lines, 0 for binary content.
    """

    status: str
    old_path: str | None
    new_path: str | None
    old_mode: str
    new_mode: str
    added: int
    deleted: int
    binary: bool = False

    @property
    def path(self) -> str:
        return self.new_path or self.old_path or ""


class Answer(Record, frozen=True):
    """One batch, measured. What the probe reported of itself, and what the parent measured of it."""

    batch: int
    phi: float
    kappa_eff: float
    basin: tuple[float, ...]  # as reported, not normalised
    error_rate: float
    avg_latency_ms: float  # as reported; never used for a verdict
    wall_ms: float  # the parent's clock, question to answer
    cpu_ms: float  # the probe's process tree, by the kernel's clock
    rss_mb: float  # resident set of the tree after the answer
    output_digest: str | None = None
    waited_ms: float = 0.0  # of wall_ms: ready to run, while other programs had the processors
    # For each request of the batch, in order; None in it: it failed. A trial keeps what comes of comparing them.
    output_digests: tuple[str | None, ...] | None = None


class Pair(Record, frozen=True):
    """The same requests answered by both sides.

    `block` counts ABBA blocks of two pairs, `round` the fresh starts of the probe processes.
    """

    block: int
    before: Answer
    after: Answer
    round: int = 0
    answered: int | None = None  # requests that both answered without an error; None: not told of each
    changed: int = 0  # of these, how many came out otherwise


class Trial(Record, frozen=True):
    """Everything the judge may know: pure data, enough to judge again offline."""

    patch: HealingPatch
    target: Target
    observed: dict[str, float]  # the diagnosis' means: how bad it was in the live service
    pairs: tuple[Pair, ...] = ()
    control: tuple[Pair, ...] = ()  # A/A: unpatched against unpatched
    tests_passed: bool | None = None  # None: not run (the host names no tests)
    tests_output: str = ""
    problems: tuple[str, ...] = ()  # why the trial is incomplete
    refusals: tuple[str, ...] = ()  # what the patch touches and may not, or why it does not apply
    sandbox_level: str = "none"
    seed: int = 0
    seconds: float = 0.0
    named: tuple[str, ...] = ()  # the metrics that the diagnosis names
    failed_side: Literal["", "before", "after", "control"] = ""  # whose probe broke the trial off
    loosens: tuple[str, ...] = ()  # what the patch takes away that may have refused requests rightly
    tests_fail_anyway: bool = False  # the tests fail without the patch too


class Guard(Record, frozen=True):
    """A non-inferiority test of one metric. Bounds are of the degradation, in the margin's unit."""

    metric: str
    margin: float
    estimate: float
    low: float  # lower 99.9 % bound, Holm-corrected over the guards
    high: float  # upper 97.5 % bound
    result: Literal["pass", "worse", "inconclusive"]
    # The smallest true degradation that a trial of this size and noise shows to be one (its lower bound, as
    # strict as `high`, above 0) in four cases of five. None: it shows none, or no noise to tell it from.
    detectable: float | None = None


class Verdict(Record, frozen=True):
    """The judge's word on one trial."""

    decision: Literal["improved", "equivalent", "worse", "inconclusive", "refused"]
    accepted: bool
    fitness: Fitness | None
    guards: tuple[Guard, ...]
    vetoes: tuple[str, ...]
    pairs: int
    sandbox_level: str
    reason: str  # one sentence for a person
    detectable: float | None = None  # smallest true score that such a trial accepts in four cases of five
    needs_person: tuple[str, ...] = ()  # why nothing but a person may merge it, whatever its strategy

    def tier(self, proposed: Tier) -> Tier:
        """How far a patch may go that its strategy proposed as `proposed`: `safe` ends where a person is needed."""
        return "review" if proposed == "safe" and self.needs_person else proposed


class Evaluation(Record, frozen=True):
    """What a diff, or one commit against another, came to when it was judged; nothing of it was applied.

    `before` and `after` are what the trial measured: means by metric, of drift the distance from the
    baseline to the mean basin in radians, of latency the median in ms, of memory the resident MB.
    """

    patch: HealingPatch  # what was judged, against commit `patch.base`
    verdict: Verdict
    named: tuple[str, ...] = ()  # the metrics that were found unwell before it
    healthy: str = ""  # commit whose probe taught what healthy is; "": a store's baseline
    head: str = ""  # the commit compared with the base; "": a submitted diff
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    unmeasured: tuple[str, ...] = ()  # paths that `head` changed, and that were measured as in the base
    notes: tuple[str, ...] = ()  # what a reader of the verdict should know besides
    seconds: float = 0.0
    bundle: str = ""  # file of the proof in the store, and its SHA-256; "": none was kept
    proof: str = ""
    outputs_differ: int | None = None  # of the pairs, by `output_digest`; None: the probe reports none


ChangeState = Literal[
    "opening",  # about to create its branch
    "open",  # branch exists, waits for a review
    "approved",
    "rejected",
    "merging",  # about to move the target branch
    "merged",  # on the target branch, not yet deployed
    "watching",  # deployed; the live service is being judged
    "confirmed",
    "unconfirmed",  # no live snapshots came in time
    "contested",  # worse, but other commits lie on top (alert, never a revert), or people decided about it
    "superseded",  # the target moved on before the merge: measured again, as another change
    "reverting",  # about to move the target branch back
    "reverted",  # off the target branch, not yet deployed
    "rolled_back",
]

FINAL_STATES: frozenset[str] = frozenset(
    {"rejected", "confirmed", "unconfirmed", "contested", "superseded", "rolled_back"}
)


class Change(Record, frozen=True):
    """A patch on its way through the forge. Its id is the patch's fingerprint."""

    id: str
    state: ChangeState
    patch: HealingPatch
    verdict: Verdict | None  # None: put through by an operator's logged override
    branch: str
    target: str  # branch that it is to be merged into
    opened_at: float  # Unix seconds; also the date of its commits, so that redoing gives the same ones
    head: str = ""  # commit on `branch`
    merge_commit: str = ""
    merge_parent: str = ""  # the target branch's tip just before the merge
    merged_at: float = 0.0
    revert_commit: str = ""
    reverted_at: float = 0.0
    reviewer: str = ""
    reason: str = ""  # why it is in this state, for a person
    ledger_head: str = ""  # head of the hash chain when it was merged
    before: dict[str, float] = {}  # live means before the merge, by metric


class Outcome(Record, frozen=True):
    """What the watch saw after a merge."""

    state: Literal["waiting", "confirmed", "worse", "unconfirmed", "contested"]
    snapshots: int  # live snapshots of the merged code that were judged
    observed: dict[str, float]
    reason: str
    within_snapshots: int | None = None  # how many it took until the state was certain


class Reason(Record, frozen=True):
    """Why a strategy brought nothing about. `text` is one printable line, and data: it may quote a host's code."""

    strategy: str
    text: str
    patch: str = ""  # fingerprint of the proposal that it is about; "": why there is none, or no other


class HealResult(Record, frozen=True):
    """What one pass of the engine did, from the check to the last outcome."""

    triggered: bool
    message: str
    health: HealthReport | None = None
    diagnosis: Diagnosis | None = None
    patches: tuple[HealingPatch, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    changes: tuple[Change, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    reasons: tuple[Reason, ...] = ()  # by strategy, in the order in which they were asked
