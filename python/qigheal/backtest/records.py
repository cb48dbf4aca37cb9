"""What a replay is asked, and what it says. Times are Unix seconds, durations seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from qigcore.detectors import Alarm
from qigcore.history import Damage
from qigheal.settings import MonitorSettings

LIMITS = (
    "phi_min",
    "basin_drift_max",
    "kappa_tolerance",
    "error_rate_max",
    "latency_max_ms",
    "memory_growth_max_mb",
)
"""Fields of MonitorSettings that the rules know."""

BEFORE_LEARNING = ("phi_min", "kappa_tolerance", "memory_growth_max_mb")
"""Those of them that have no effect once a baseline is learned: its bands take their place."""


class ByChange(msgspec.Struct, frozen=True, kw_only=True, tag="changes"):
    """Alarms by `qigcore.detectors.ChangeDetector` at one false-alarm rate, stated one way or the other."""

    false_alarm_every: str | float | None = None
    average_run_length: float | None = None

    @property
    def name(self) -> str:
        if self.false_alarm_every is not None:
            return f"changes, one in {self.false_alarm_every}"
        length = 1e4 if self.average_run_length is None else self.average_run_length
        return f"changes, one in {length:,.0f} snapshots"


class ByRules(msgspec.Struct, frozen=True, kw_only=True, tag="rules"):
    """Alarms by the rules: the time in which any of them fires.

    rules: "learned" with the baseline's bands, "absolute" as before one is learned. The other fields are those
    of `MonitorSettings`; None: as the service has it.
    """

    rules: Literal["learned", "absolute"] = "learned"
    phi_min: float | None = None
    basin_drift_max: float | None = None
    kappa_tolerance: float | None = None
    error_rate_max: float | None = None
    latency_max_ms: float | None = None
    memory_growth_max_mb: float | None = None

    def __post_init__(self) -> None:
        idle = [name for name in BEFORE_LEARNING if getattr(self, name) is not None]
        if self.rules == "learned" and idle:
            raise ValueError(
                f"{idle[0]}: has no effect on learned rules, where the baseline's band takes its place; "
                f'expected rules="absolute" with it'
            )

    @property
    def changed(self) -> dict[str, float]:
        """Limits that differ from the service's."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    @property
    def name(self) -> str:
        return f"{self.rules} rules" + "".join(f", {name} {value:g}" for name, value in self.changed.items())

    def applied(self, settings: MonitorSettings) -> MonitorSettings:
        """The service's settings with these limits. Raises InvalidLimit for one that makes no sense."""
        return msgspec.structs.replace(settings, **self.changed)


Variant = ByChange | ByRules


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a person knows of. end: None where only its beginning is known."""

    start: float
    end: float | None = None
    label: str = ""


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm: of the detector, or an unbroken time in which rules fired.

    row: counted from the first replayed snapshot. severity: the worst it came to. critical_at, ended_at: None
    where it did not. marks: positions of the events it falls to; none: a false alarm, as far as is known.
    alarm: the detector's, as it stood when it was raised. findings: kinds of the rules that fired first, and
    of those that made it critical.
    """

    row: int
    timestamp: float
    severity: Literal["warning", "critical"]
    critical_at: float | None = None
    ended_at: float | None = None
    marks: tuple[int, ...] = ()
    alarm: Alarm | None = None
    findings: tuple[str, ...] = ()


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What one event met with.

    state: "detected", an alarm was raised for it; "already", none was, for one was in force when it began;
        "missed"; "unseen", no snapshot lies in its time.
    delay_snapshots: from its first snapshot to that of the alarm, both counted. delay_s: from its start.
    critical_s: from its start until an alarm became critical, also one that was in force before.
    """

    mark: int
    state: Literal["detected", "already", "missed", "unseen"]
    delay_snapshots: int | None = None
    delay_s: float | None = None
    critical_s: float | None = None


class FalseAlarms(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms outside of the marked events, and the rate they tell of.

    snapshots, seconds: in which one could have been raised: outside of events, and with no alarm in force.
    low, high of a rate: exact 95 % interval of a Poisson count (Garwood 1936), as `poisson.interval`.
    expected: alarms by the stated rate; None for rules, which state none. ratio: seen over stated.
    verdict: "more" or "fewer" than stated, "agrees", or "too short": the interval holds the stated rate, and
        also three times that.
    """

    count: int
    critical: int
    snapshots: int
    seconds: float
    per_day: float | None  # None: no time was watched
    per_day_low: float | None
    per_day_high: float | None
    expected: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: Literal["more", "fewer", "agrees", "too short"] | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting would have done.

    alarms, critical: raised, and of those that came to be critical. run_length: stated snapshots between two
    false alarms. detections: one for each mark. raised: the first 1,000; unlisted: how many more.
    in_alarm_snapshots: after which an alarm was in force; in_alarm: that time. lasts: one is, at the end.
    """

    variant: Variant
    name: str
    run_length: float | None
    alarms: int
    critical: int
    in_alarm_snapshots: int
    in_alarm_s: float
    lasts: bool
    false: FalseAlarms
    detections: tuple[Detection, ...]
    raised: tuple[Raised, ...]
    unlisted: int


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the history that the baseline was learned from; none of it is replayed."""

    start: float
    end: float
    snapshots: int


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """A replay.

    first, last: times of snapshots, None where there is none. watched: the time between snapshots but for
        gaps, which are ten times the healthy interval or longer. interval_s: the one that stated rates count
        with. writers: processes whose rows were merged into one stream; None where that is not known.
    kind, doubts: what the baseline's own check said of the detector's assumptions; kind None: no detector.
    """

    snapshots: int
    first: float | None
    last: float | None
    watched_s: float
    gaps: int
    interval_s: float | None
    writers: int | None
    learned: Learned | None
    kind: Literal["bounded", "nominal"] | None
    doubts: tuple[str, ...]
    within_s: float
    marks: tuple[Mark, ...]
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]
    damage: Damage | None = None
