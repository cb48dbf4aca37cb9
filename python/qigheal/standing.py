"""What a store on disk says now: health, trends and the newest snapshots, of all processes that write it.

The command line, the HTTP routes, the alerts and the sidecar's metrics all look here, so that they say the
same. Nothing is written, and nothing of healing is known here: changes and phases stand in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from qigcore.baseline import Baseline
from qigcore.calibration.medians import median
from qigcore.durations import worded
from qigcore.history import Damage, History, SegmentInfo
from qigcore.history.files import segments_in
from qigcore.rows import METRICS, Batch, FloatArray
from qigcore.rules import MIN_SNAPSHOTS
from qigcore.trends import Trend
from qigheal.changes import found_in, with_change
from qigheal.health import assess, remeasure, rules_for, trend_of, with_finding
from qigheal.records import Finding, HealthReport
from qigheal.settings import MONITOR_FILE, MonitorSettings

BASELINE = "baseline.json"
LEDGER = "ledger.db"
LOOKED_AT = 1000
"""Snapshots that a report is made from."""

PATIENCE = 5
"""Usual intervals without a snapshot after which the last one says nothing of the present."""

LEAST_S = 60.0
"""Seconds until then at least: rows reach a store within five, and a start takes its time."""

GAPS = 200
"""Of so many newest snapshots, the median interval is the usual one."""


def is_store(folder: Path) -> bool:
    """Whether a service or a healer has left anything in a folder; True where that cannot be looked up."""
    if any((folder / name).exists() for name in (MONITOR_FILE, BASELINE, LEDGER)):
        return True
    try:
        return bool(segments_in(folder))
    except OSError:  # reading it says why, and what to do
        return True


class Read(NamedTuple):
    """Snapshots in time order, drift measured from the baseline, and what else one reading found."""

    batch: Batch
    total: int  # snapshots in the store
    segments: tuple[SegmentInfo, ...]
    damage: Damage


class Silence(NamedTuple):
    """No snapshot for longer than is usual. Unix seconds and seconds; `written`: a living process writes here."""

    last_at: float
    age_s: float
    patience_s: float
    written: bool


def silence(times: FloatArray, segments: Sequence[SegmentInfo], now: float) -> Silence | None:
    """The silence of a store; None while its newest snapshot is as young as is usual, or there is none.

    times: shape [n], Unix seconds in time order, the newest snapshots.
    """
    if not len(times):
        return None
    gaps = np.diff(times[-GAPS:])
    patience = max(LEAST_S, PATIENCE * float(median(gaps)) if len(gaps) else 0.0)
    last_at = float(times[-1])
    age = now - last_at
    if not age > patience:
        return None
    return Silence(last_at, age, patience, any(segment.alive for segment in segments))


def with_silence(report: HealthReport, found: Silence | None) -> HealthReport:
    """The report with the silence: a warning where nobody writes any more, else a note."""
    if found is None:
        return report
    age = worded(found.age_s)
    if found.written:
        note = f"the last snapshot is {age} old, though a living process writes here"
        return msgspec.structs.replace(report, notes=(*report.notes, note))
    finding = Finding(
        kind="silent",
        metric="measurement",
        value=found.age_s,
        limit=found.patience_s,
        severity="warning",
        message=f"silent: no process writes here, and the last snapshot is {age} old",
        since=found.last_at,
    )
    return with_finding(report, finding)


def unread(damage: Damage) -> str:
    """What of a store could not be read, in words; "" where all could."""
    lost = {name: count for name, count in msgspec.to_builtins(damage).items() if count}
    if not lost:
        return ""
    told = ", ".join(
        f"{name.replace('_', ' ')}: {count if isinstance(count, int) else '; '.join(count)}"
        for name, count in lost.items()
    )
    return f"parts of the store could not be read: {told}"


class Standing:
    """One store, read anew whenever it is asked. clock: Unix seconds, which tells how old a snapshot is.

    Raises HistoryError where there is no such folder, BaselineError for an unusable baseline.
    """

    def __init__(self, store: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock

    @property
    def baseline(self) -> Baseline | None:
        """What healthy is; None until the service has learned it."""
        path = self.store / BASELINE
        return Baseline.load(path) if path.exists() else None

    @property
    def settings(self) -> MonitorSettings:
        """Those that the service left in the store."""
        return MonitorSettings.load(self.store)

    def last(self, count: int = LOOKED_AT) -> Read:
        """The newest snapshots, at most `count`."""
        baseline = self.baseline
        with History.read_only(self.store) as history:
            batch = history.last(count)
            segments = history.segments()
            damage = history.damage
        if baseline is not None:
            batch = remeasure(batch, baseline)
        return Read(batch, sum(segment.rows for segment in segments), segments, damage)

    def report(self, read: Read | None = None) -> HealthReport:
        """The service's health; `read`: what was read for it already, `LOOKED_AT` snapshots or more.

        `last_at` is when its newest snapshot was, and `notes` say what of the store could not be read. Where
        no living process writes it and the newest snapshot is too old, it is "silent", which is a warning.
        """
        found = self.last() if read is None else read
        report, times = self.judged(found), found.batch.timestamp
        lost = unread(found.damage)
        report = msgspec.structs.replace(
            report,
            last_at=float(times[-1]) if len(times) else None,
            notes=(*report.notes, lost) if lost else report.notes,
        )
        return with_silence(report, silence(times, found.segments, self._clock()))

    def judged(self, found: Read) -> HealthReport:
        """What the snapshots themselves say, however old they are."""
        baseline, settings = self.baseline, self.settings
        batch = found.batch
        rules = rules_for(settings, baseline)
        total = found.total if len(batch) else 0  # of rows that cannot be read nothing is known
        report = assess(batch.heads(), batch.basin_coords, rules, baseline, total)
        if baseline is None or total < MIN_SNAPSHOTS:
            return report
        # The tests begin with the rows at hand: what a service has known for longer, they find at once.
        alarm, age, _ = found_in(batch, baseline, settings)
        return with_change(report, alarm, age)

    def trends(self, window: int = 50, metrics: Iterable[str] = METRICS) -> dict[str, Trend]:
        """Where each metric is heading over the last `window` snapshots."""
        baseline = self.baseline
        batch = self.last(window).batch
        rules = rules_for(self.settings, baseline)
        return {metric: trend_of(batch, metric, baseline, rules) for metric in metrics}
