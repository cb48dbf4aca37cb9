"""Measures a patch against the unpatched code: the same requests to both, side by side.

The parent owns order, clock and requests. Pairs come in blocks of two, ABBA or BAAB by lot, so that a
machine that grows slower meanwhile weighs on both sides alike; a third process, unpatched like the
first, answers one request of each block and shows what chance alone does (A/A). And all three are
started anew every few pairs: identical code in two processes differs, for as long as they live, by
where hash seed, allocator and linker happened to put things (numpy programs: up to 40 % in one process
of four), and no number of pairs within one process averages that away. A patch whose effect takes longer
than that makes every start as much longer: an effect that one start alone shows may be that start's luck.
Source of the last: Kalibera and Jones, Rigorous benchmarking in reasonable time (ISMM 2013).

What the numbers mean is the judge's business. Nothing that goes wrong in a patch, a probe or a
sandbox leaves here as an exception: it makes the trial incomplete and stands in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from qigheal.errors import PatchError, ProbeError, QighealError
from qigheal.healing.inspection.conduct import Conduct, objections
from qigheal.healing.loosening import loosened
from qigheal.healing.swallowing import silencers, swallowers
from qigheal.host import Manifest, refusals
from qigheal.host.refusals import Refusing, not_left_to_the_healer, refused_text
from qigheal.records import Answer, Diagnosis, FileChange, HealingPatch, Pair, Trial
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench, Probe
    from qigheal.repo import Repo

log = logging.getLogger("qigheal")

REFUSED_RIGHTLY = "requests that fail may be refused rightly: no text tells a refusal from a mistake"

TESTS_SHOWN = 4000
"""Characters kept of the output of failing tests: their end."""

WATCHED = 6
"""Answers during which both sides are watched for what they do beyond computing."""

Side = Literal["before", "after", "control"]
SIDES: tuple[Side, ...] = ("before", "after", "control")
WHOSE = {"before": "unpatched code", "after": "patched code", "control": "unpatched code, second process"}


class TrialRun:
    """A trial at work: a context manager that holds the probe processes.

    Entering checks what the patch touches, that it applies and compiles, and runs the host's tests on
    it; nothing is measured when that fails. `measure` adds pairs; `trial` is the record so far.
    """

    def __init__(
        self,
        patch: HealingPatch,
        diagnosis: Diagnosis,
        bench: Bench,
        repo: Repo,
        settings: HealSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        refusing: Refusing = refusals,
    ) -> None:
        self._bench = bench
        self._refusing = refusing
        self._trusted = refusing is not refusals  # what people committed may do whatever it does
        self._repo = repo
        self._settings = settings
        self._clock = clock
        self._rounds = 0
        self._left = 0  # pairs until the processes are started anew
        self._asked = 0  # trial requests used up, warm-up included
        self._stack = contextlib.ExitStack()
        self._probes: dict[Side, Probe] = {}
        self._asking: Side | Literal[""] = ""
        seed = hashlib.blake2b(f"{settings.seed} {patch.fingerprint}".encode(), digest_size=6).digest()
        self.trial = Trial(
            patch=patch,
            target=diagnosis.target,
            observed=diagnosis.observed,
            named=diagnosis.metrics,
            sandbox_level=bench.level,
            seed=int.from_bytes(seed),
        )

    def __enter__(self) -> TrialRun:
        began = self._clock()
        with self._recorded():
            loosens: tuple[str, ...] = ()
            refused = refused_for(self.trial.patch, self._bench.manifest, self._repo, self._refusing)
            if not refused and not self._trusted:
                refused, loosens = self._read()
            self.trial = replace(self.trial, refusals=refused, loosens=loosens)
            if not refused:
                self._run_tests()
            if self._open and not self._trusted:
                self._watch_conduct()
        self.trial = replace(self.trial, seconds=self.trial.seconds + self._clock() - began)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def measure(self, pairs: int) -> Trial:
        """Measure `pairs` more (rounded up to whole blocks), and give the trial with all of them.

        Stops early where more would change nothing: at the most pairs that are allowed, and when the
        trial is refused or incomplete.
        """
        began = self._clock()
        most = self._settings.pairs_allowed(self.trial.patch.batches_needed)
        wanted = min(len(self.trial.pairs) + pairs + pairs % 2, most)
        while len(self.trial.pairs) < wanted and self._open:
            with self._recorded():
                if not self._probes:
                    self._start()
                self._measure_block()
                if self._left <= 0:
                    self._finish()
        self.trial = replace(self.trial, seconds=self.trial.seconds + self._clock() - began)
        return self.trial

    @property
    def _open(self) -> bool:
        trial = self.trial
        return not (trial.refusals or trial.problems or trial.tests_passed is False)

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Whatever fails inside becomes a problem of the trial, and ends its processes."""
        try:
            yield
        except (QighealError, OSError) as error:
            if self._open:
                broken = self._asking if isinstance(error, ProbeError) else ""
                what = f"{WHOSE[broken]}: {error}" if broken else str(error) or type(error).__name__
                self.trial = replace(self.trial, problems=(what,), failed_side=broken)
            self._stop()

    def _read(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the patch does that hides errors, where they are to be healed; and what it takes away that refuses.

        A patch of tier `safe` turns what was declared, bounds or adds a cache, or takes a commit back: the last may
        silence rightly. It is not refused for it, and a person decides.
        """
        patch = self.trial.patch
        errors = "errors" in (*self.trial.named, *patch.heals)
        if not errors and patch.tier != "safe":
            return (), ()
        tree = self._repo.apply(patch.base, patch.diff)
        changes = self._repo.changes(patch.base, tree)

        def text(commit: str, path: str | None) -> str:
            if path is None or not path.endswith(".py"):
                return ""
            return self._repo.read(commit, path).decode("utf-8", "replace")

        hiding, silent = [], []
        texts: dict[str, tuple[str, str]] = {}
        for change in changes:
            before, after = text(patch.base, change.old_path), text(tree, change.new_path)
            texts[change.path] = before, after
            if errors and (change.new_path or "").endswith(".py"):
                hiding += [f"{change.path}:{line}: {what}" for line, what in swallowers(before, after)]
                silent += [f"{change.path}:{line}: {what}" for line, what in silencers(before, after)]
        loosens: tuple[str, ...] = ()
        if patch.tier == "safe":
            heals_errors = "errors" in patch.heals
            loosens = (
                loosened(texts, errors=heals_errors) or tuple(silent) or (REFUSED_RIGHTLY,) * heals_errors
            )
            if patch.strategy == "revert":
                loosens += not_left_to_the_healer(self._bench.manifest, texts)
        else:
            hiding += silent
        return tuple(f"{what}; to hide an error is not to heal it" for what in hiding), loosens

    def _run_tests(self) -> None:
        done = self._bench.run_tests(self.trial.patch.diff)
        if done is None:
            return
        output = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if done.killed_for:
            output += f"\n(killed for {done.killed_for} after {done.wall_s:.0f} s)"
        passed = done.returncode == 0 and not done.killed_for
        self.trial = replace(self.trial, tests_passed=passed, tests_output=output[-TESTS_SHOWN:])
        if not passed:
            self.trial = replace(self.trial, tests_fail_anyway=self._fail_anyway())

    def _fail_anyway(self) -> bool:
        """Whether the tests fail without the patch too: then they say nothing about it."""
        done = self._bench.run_tests()
        return done is not None and (done.returncode != 0 or bool(done.killed_for))

    def _watch_conduct(self) -> None:
        """Refuse a patch that makes the program do what it did not, such as open a socket."""
        requests = self._bench.search_requests(WATCHED)
        try:
            before = self._bench.inspect("audit", requests, Conduct, slower=2)
        except ProbeError as error:
            log.info("conduct is not watched: %s", error)  # no Python program, or it fails by itself
            return
        self._asking = "after"
        after = self._bench.inspect("audit", requests, Conduct, diff=self.trial.patch.diff, slower=2)
        self._asking = ""
        self.trial = replace(self.trial, refusals=objections(before, after))

    def _start(self) -> None:
        """A round begins: fresh processes, and answers that are thrown away until they are warm."""
        for side in SIDES:
            self._asking = side
            diff = self.trial.patch.diff if side == "after" else None
            self._probes[side] = self._stack.enter_context(self._bench.probe(diff))
        self._left = self._settings.round_length(self.trial.patch.batches_needed)
        self._rounds += 1
        for request in self._requests(self._settings.warmup):
            for side in SIDES:
                self._ask(side, request)

    def _measure_block(self) -> None:
        """Two pairs, ABBA or BAAB, and the control before or after them."""
        block = len(self.trial.control)
        lot = hashlib.blake2b(f"{self.trial.seed} {block}".encode(), digest_size=1).digest()[0]
        first, second = self._requests(2)
        outer: Side = "before" if lot & 1 else "after"
        inner: Side = "after" if lot & 1 else "before"
        controlled = first if lot & 2 else second
        control = self._ask("control", controlled) if controlled == first else None
        order = ((outer, first), (inner, first), (inner, second), (outer, second))
        answers = {(side, request): self._ask(side, request) for side, request in order}
        control = control or self._ask("control", controlled)
        round_ = self._rounds - 1
        pairs = [
            paired(block, answers["before", asked], answers["after", asked], round_)
            for asked in (first, second)
        ]
        against = paired(block, answers["before", controlled], control, round_)
        self.trial = replace(
            self.trial, pairs=(*self.trial.pairs, *pairs), control=(*self.trial.control, against)
        )
        self._left -= 2

    def _requests(self, count: int) -> list[tuple[int, int]]:
        asked = self._bench.trial_requests(count, self._asked)
        self._asked += count
        return asked

    def _ask(self, side: Side, request: tuple[int, int]) -> Answer:
        self._asking = side
        answer = self._probes[side].ask(*request)
        target = self.trial.target
        if len(answer.basin) != len(target.basin):
            raise ProbeError(
                f"basin_coords: expected {len(target.basin)} numbers like the baseline, got {len(answer.basin)}; "
                "probe and service must report the same state"
            )
        if target.geometry == "simplex" and min(answer.basin) < 0.0:
            raise ProbeError(
                f"basin_coords: expected weights of at least 0, got {min(answer.basin):g}; "
                "signed states need geometry='sphere'"
            )
        return answer

    def _finish(self) -> None:
        """A round ends: a probe that has more to say than it was asked shows it now."""
        for side in SIDES:
            self._asking = side
            self._probes[side].finish()
        self._stop()

    def _stop(self) -> None:
        self._asking = ""
        self._probes = {}
        with contextlib.suppress(QighealError, OSError):
            self._stack.close()


def paired(block: int, before: Answer, after: Answer, round_: int) -> Pair:
    """The pair of two answers, with what comes of comparing them request by request in place of the digests.

    Of requests that both answered without an error: one that fails on one side alone is counted as an error.
    """
    told, others = before.output_digests, after.output_digests
    answered, changed = None, 0
    if told is not None and others is not None and len(told) == len(others):
        both = [pair for pair in zip(told, others, strict=True) if None not in pair]
        answered, changed = len(both), sum(one != other for one, other in both)
    elif told is not None:
        answered = changed = len(told) - told.count(None)
    return Pair(
        block=block,
        before=replace(before, output_digests=None),
        after=replace(after, output_digests=None),
        round=round_,
        answered=answered,
        changed=changed,
    )


def refused_for(
    patch: HealingPatch, manifest: Manifest, repo: Repo, refusing: Refusing = refusals
) -> tuple[str, ...]:
    """What a patch may not do, or why it does not apply or compile; nothing of it is run to find out."""
    try:
        tree = repo.apply(patch.base, patch.diff)
    except PatchError as error:
        return (str(error),)
    changes = repo.changes(patch.base, tree)
    found = refusing(manifest, changes, repo.entries(patch.base))
    # Most diffs hold no such character, and then no file need be read.
    if not found and refusing is refusals and refused_text(b"", patch.diff.encode("utf-8", "replace")):
        found = _refused_texts(patch.base, tree, changes, repo)
    if found or manifest.probe.interpreter is not None:
        return found  # another Python may know another grammar
    broken = (
        _does_not_compile(change.new_path, repo.read(tree, change.new_path))
        for change in changes
        if change.new_path is not None and change.new_path.endswith(".py")
    )
    return tuple(reason for reason in broken if reason)


def _refused_texts(base: str, tree: str, changes: Sequence[FileChange], repo: Repo) -> tuple[str, ...]:
    found = []
    for change in changes:
        if change.new_path is not None:
            before = b"" if change.old_path is None else repo.read(base, change.old_path)
            if (reason := refused_text(before, repo.read(tree, change.new_path))) is not None:
                found.append(f"{change.new_path}: {reason}")
    return tuple(found)


def _does_not_compile(path: str, source: bytes) -> str:
    """Why a Python file does not compile, an empty string when it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 0}: does not compile: {error.msg}"
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        return f"{path}: does not compile: {error or type(error).__name__}"
    return ""
