"""The documents of the HTTP interface: what is answered, and the one that is taken.

Fields are only appended, with defaults, within one major version. Times are Unix seconds, drift is in radians,
shares and rates are fractions from 0 to 1. A figure that nobody reported, or that no number can say, is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from qigheal.records import Change, Departure, Finding, HealingPatch, Record, Severity, Verdict

Status = Literal["learning", "healthy", "warning", "critical"]
WRITTEN = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$(?!\n)"
TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$(?!\n)"
"""Without control characters (no argument of a program may hold a NUL), and a name that is not blank."""

JobState = Literal["running", "done", "failed"]


class Error(Record, frozen=True):
    """Every answer from 400 on."""

    error: str  # a word for programs: "unauthorized", "not_found", "busy", ...
    detail: str  # what was expected, what came, and the remedy


class Glance(Record, frozen=True):
    """`GET health` for whoever asks; the status code says the same: 200, 207 or 503."""

    status: Status
    severity: Severity


class Health(Glance, frozen=True):
    """`GET health` with the read token."""

    healthy: bool
    issues: tuple[str, ...]
    findings: tuple[Finding, ...]
    metrics: dict[str, float | None]
    limits: Literal["learning", "absolute", "learned"]  # which limits were applied
    snapshots: int  # recorded so far, by all processes
    last_at: float | None  # when the newest was recorded
    notes: tuple[str, ...] = ()
    change: Departure | None = None


class Snapshot(Record, frozen=True):
    """One recorded snapshot. `basin` only where it was asked for, as reported by the service."""

    timestamp: float
    phi: float
    kappa_eff: float
    basin_drift: float | None
    error_rate: float
    avg_latency_ms: float
    memory_mb: float
    regime: Literal["linear", "geometric", "breakdown"]
    confidence: float | None = None
    surprise: float | None = None
    agency: float | None = None
    code_hash: str = ""
    module_name: str = ""
    repaired: tuple[str, ...] = ()  # fields that were unusable and hold the last good value
    basin: tuple[float, ...] | None = None


class Snapshots(Record, frozen=True):
    """`GET snapshots`, oldest first."""

    snapshots: tuple[Snapshot, ...]
    next_since: float | None  # give it as `since` for the next page; null: there is none yet
    notes: tuple[str, ...] = ()  # what of the store could not be read
    next_skip: int = 0  # give it as `skip` beside `since`: so many of that time were told already


class TimeToLimit(Record, frozen=True):
    """When a metric that degrades is at its limit, seconds from the newest snapshot."""

    limit: float
    course: str
    seconds: float | None
    low: float | None
    high: float | None


class TrendOf(Record, frozen=True):
    """Where one metric is heading; the slope is per snapshot."""

    direction: Literal["improving", "stable", "degrading", "unknown"]
    slope: float | None
    stderr: float | None
    recent_avg: float | None
    snapshots: int
    reaches: TimeToLimit | None = None
    sentence: str = ""  # "Φ reaches 0.65 in about 3 h, 95 %: 2-6 h"


class Trends(Record, frozen=True):
    """`GET trends`: by metric, phi kappa basin_drift latency errors memory."""

    window: int
    trends: dict[str, TrendOf]
    notes: tuple[str, ...] = ()


class Range(Record, frozen=True):
    """The healthy range of one metric."""

    mean: float
    low: float
    high: float


class State(Record, frozen=True):
    """`GET state`: where the basin is beside where it is when healthy, component by component.

    baseline, current: shares that sum to 1 for the simplex, unit vectors for the sphere; null while there is
    nothing to compare. shares: each component's part of the squared distance between the two.
    """

    geometry: Literal["simplex", "sphere"]
    dim: int
    learned: bool
    learned_from: int  # snapshots
    phi_min: float
    drift_limit: float  # radians
    bands: dict[str, Range]
    distance: float | None
    baseline: tuple[float, ...] | None
    current: tuple[float, ...] | None
    shares: tuple[float, ...] | None
    notes: tuple[str, ...] = ()


class Job(Record, frozen=True):
    """Work that was begun in a process of its own. `result`: the document that it printed."""

    id: str
    kind: Literal["heal", "review"]
    state: JobState
    started_at: float
    ended_at: float | None = None
    message: str = ""  # what came of it, or why it failed, for a person
    result: Any = None


class Triggered(Record, frozen=True):
    """`POST heal`: 202 with the job, or 200 with `triggered` false and why."""

    triggered: bool
    message: str
    job: Job | None = None


class Judgement(Record, frozen=True):
    """One time that a patch was judged. `before`, `after`: what the trial measured, by metric."""

    kind: Literal["verdict", "evaluation"]
    at: float
    verdict: Verdict
    before: dict[str, float | None]
    after: dict[str, float | None]
    proof: str = ""  # file of the proof; "": none was kept, and `problem` says why
    problem: str = ""


class PatchSummary(Record, frozen=True):
    """One line of `GET patches`. `state` is the change's, or "measured" where none was opened."""

    id: str
    state: str
    strategy: str
    tier: Literal["safe", "guarded", "review"]
    files: tuple[str, ...]
    rationale: str
    at: float
    waits_for_review: bool
    fitness: float | None = None
    decision: str | None = None
    reviewer: str = ""
    reason: str = ""


class Patches(Record, frozen=True):
    """`GET patches`, newest first."""

    patches: tuple[PatchSummary, ...]
    notes: tuple[str, ...] = ()  # such as a ledger whose chain is broken


class PatchDetail(Record, frozen=True):
    """`GET patches/{id}`. A review names `fingerprint`, and is refused when the patch has become another."""

    id: str
    fingerprint: str
    waits_for_review: bool
    patch: HealingPatch
    change: Change | None
    judged: tuple[Judgement, ...]


class ReviewRequest(Record, frozen=True, forbid_unknown_fields=True):
    """The body of `POST patches/{id}/review`."""

    approve: bool
    fingerprint: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reviewer: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=WRITTEN)]
    reason: Annotated[str, msgspec.Meta(max_length=2000, pattern=TEXT)] = ""


class GateLine(Record, frozen=True):
    """One criterion of a gate."""

    gate: str
    name: str
    needed: str
    found: str
    met: bool
    advice: str = ""


class Phase(Record, frozen=True):
    """`GET phase`: the present phase, and what the next gate asks for."""

    phase: int
    means: str
    gate: str
    criteria: tuple[GateLine, ...]
    missing: tuple[GateLine, ...]
    since: float | None
    demotion: str
    breaker_open: bool
