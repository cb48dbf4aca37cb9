"""The figures of a monitor, for the process that serves. Nothing of healing is known here, and nothing is cached."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qigcore.rows import Array
from qigcore.rules import LOOK_BACK, RuleSet
from qigheal.health import rules_for
from qigheal.integrations.metrics.judged import (
    Judged,
    Latest,
    interval_s,
    patience_s,
    tell_figures,
    tell_health,
    tell_limits,
)
from qigheal.integrations.metrics.reading import Parts, Reading
from qigheal.records import HealthReport

if TYPE_CHECKING:
    from qigheal.monitor import GeometricHealthMonitor

OURS = (".qigh", ".journal")
CHUNK = 4096
"""Rows copied out of the ring at a time."""

RECENT = 100
"""Rows by which the present interval between snapshots is told."""


class ServiceFigures:
    """What this process records. Counters of rows begin with the monitor, those of alarms with this object.

    Rows that leave the ring between two looks are not looked at for alarms. Safe for several threads.
    """

    def __init__(self, monitor: GeometricHealthMonitor, *, clock: Callable[[], float] = time.time) -> None:
        self._monitor = monitor
        self._clock = clock
        self._lock = threading.Lock()
        self._parts = Parts()
        self._judged = Judged()
        self._latest = Latest()
        self._rules: RuleSet | None = None
        self._checks = 0
        self._next = monitor.snapshots.total
        heads = self._before(self._next, LOOK_BACK)
        self._judged.begin_after(heads)
        self._latest.note(heads)

    def _before(self, number: int, count: int) -> Array:
        """Heads of the `count` rows before row `number`, shape [n], as far as they are held."""
        first, heads = self._monitor.snapshots.since(max(0, number - count), count)
        return heads[: max(0, number - first)]

    def read(self) -> Reading:
        """The figures as they are now. Never raises."""
        reading, parts = Reading(), self._parts
        with self._lock:
            with parts.part("history", reading):
                self._tell_history(reading)
            with parts.part("health", reading):
                self._tell_health(reading)
            reading.put("geometric_health_checks_total", self._checks)
        return reading

    def _tell_history(self, reading: Reading) -> None:
        monitor = self._monitor
        reading.put("geometric_health_snapshots_total", monitor.snapshots.total)
        reading.put_all("geometric_health_invalid_snapshots_total", monitor.invalid)
        reading.put("geometric_health_snapshots_lost_total", monitor.losses)
        if monitor.history is not None:
            with os.scandir(monitor.history.path) as entries:
                sizes = [
                    each.stat().st_size for each in entries if each.name.endswith(OURS) and each.is_file()
                ]
            reading.put("geometric_health_history_bytes", sum(sizes))

    def _tell_health(self, reading: Reading) -> None:
        monitor = self._monitor
        report = monitor.check_health()
        self._checks += 1
        rules = rules_for(monitor.settings, monitor.baseline)
        if rules != self._rules:  # the ring's drift was measured anew, by what was learned
            self._rules = rules
            self._judged.begin_after(self._before(self._next, LOOK_BACK))
        total = monitor.snapshots.total
        while self._next < total:
            first, heads = monitor.snapshots.since(self._next, CHUNK)
            self._next = first + len(heads)
            self._latest.note(heads)
            self._judged.take(heads, rules)
        self._judged.report(report)
        self._judged.tell(reading)
        self._tell_present(reading, report, rules)

    def _tell_present(self, reading: Reading, report: HealthReport, rules: RuleSet) -> None:
        """What holds only while snapshots come."""
        times = self._before(self._monitor.snapshots.total, RECENT)["timestamp"]
        now, figures = self._clock(), []
        if len(times):
            last = float(times[-1])
            reading.put("geometric_health_snapshot_age_seconds", max(0.0, now - last))
            oldest = now - patience_s(interval_s(len(times), float(times[0]), last))
            figures = [self._latest.since(oldest)] if last >= oldest else []
        tell_figures(reading, figures)
        if figures:
            tell_health(reading, report, rules)
        else:
            tell_limits(reading, rules)
