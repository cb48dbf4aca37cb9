"""What a store on disk says now: health, trends and the newest snapshots, of all processes that write it.

The command line, the HTTP routes, the alerts and the sidecar's metrics all look here, so that they say the
same. Nothing is written, and nothing of healing is known here: changes and phases stand in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from qigcore.baseline import Baseline
from qigcore.history import Damage, History, SegmentInfo
from qigcore.rows import METRICS, Batch
from qigcore.rules import MIN_SNAPSHOTS
from qigcore.trends import Trend
from qigheal.changes import found_in, with_change
from qigheal.health import assess, remeasure, rules_for, trend_of
from qigheal.records import HealthReport
from qigheal.settings import MonitorSettings

BASELINE = "baseline.json"
LOOKED_AT = 1000
"""Snapshots that a report is made from."""


class Read(NamedTuple):
    """Snapshots in time order, drift measured from the baseline, and what else one reading found."""

    batch: Batch
    total: int  # snapshots in the store
    segments: tuple[SegmentInfo, ...]
    damage: Damage


class Standing:
    """One store, read anew whenever it is asked.

    Raises HistoryError where there is no such folder, BaselineError for an unusable baseline.
    """

    def __init__(self, store: Path) -> None:
        self.store = store

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
        """The service's health; `read`: what was read for it already, `LOOKED_AT` snapshots or more."""
        found = self.last() if read is None else read
        baseline, settings = self.baseline, self.settings
        batch = found.batch
        rules = rules_for(settings, baseline)
        report = assess(batch.heads(), batch.basin_coords, rules, baseline, found.total)
        if baseline is None or found.total < MIN_SNAPSHOTS:
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
