"""The figures of a store, for a sidecar: all processes that write it, summed up, and its ledger.

A process counts while it holds its segment and its newest snapshot is no older than `judged.PATIENCE` of its
own intervals: what a killed or silent one reported last is nobody's present figure.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError, QigcoreError
from qigcore.history import History
from qigcore.rows import Batch
from qigcore.rules import LOOK_BACK, RuleSet, absolute_rules
from qigheal.health import remeasure, rules_for
from qigheal.integrations.metrics.judged import (
    Judged,
    interval_s,
    patience_s,
    tell_figures,
    tell_health,
    tell_limits,
)
from qigheal.integrations.metrics.reading import Parts, Reading
from qigheal.integrations.metrics.tail import Tail, told_of
from qigheal.standing import Read, Standing

if TYPE_CHECKING:
    from qigheal.integrations.metrics.healed import HealingFigures


class StoreFigures:
    """What a store on disk says. Counters of rows begin with this object, those of healing with the ledger.

    A store that is not there yet, or unusable, is told by `qigheal_scrape_errors`. Safe for several threads.
    """

    def __init__(self, store: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self.store = Path(store)
        self._clock = clock
        self._lock = threading.Lock()
        self._parts = Parts()
        self._standing = Standing(self.store)
        self._judged = Judged()
        self._tail: Tail | None = None
        self._healing: HealingFigures | None = None
        self._present = False  # whether a process records
        self._read: Read | None = None  # the newest snapshots, while one does
        self._rows = 0
        self._checks = 0
        self._judging: tuple[Baseline | None, RuleSet] = (None, absolute_rules())
        self._before = Batch.empty()  # the rows that went before those to come, as they are stored
        self._awaited = not self.store.is_dir()
        if not self._awaited:
            with self._parts.part("history", Reading()):
                self._tail = self._begun()

    def _begun(self) -> Tail:
        if self._awaited:  # made since: all of it is new
            return Tail(self.store, whole=True)
        tail = Tail(self.store)
        with History.read_only(self.store) as history:
            self._before = history.last(LOOK_BACK)
        self._judged.begin_after(self._before.heads())
        return tail

    def read(self) -> Reading:
        """The figures as they are now. Never raises."""
        reading, parts = Reading(), self._parts
        with self._lock:
            self._present, self._read = False, None
            with parts.part("history", reading):
                self._tell_history(reading)
            with parts.part("health", reading):
                self._tell_health(reading)
            with parts.part("ledger", reading):
                self._tell_healing(reading)
            reading.put("geometric_health_checks_total", self._checks)
        return reading

    def _rules(self) -> RuleSet:
        return rules_for(self._standing.settings, self._standing.baseline)

    def _tell_history(self, reading: Reading) -> None:
        """The history's own figures. Raises HistoryError, after all of them, where some of it is damaged."""
        if self._tail is None:
            self._tail = self._begun()
        tail = self._tail
        with suppress(QigcoreError):  # the health's part says so; until then by what was last known
            self._judge_by(self._standing.baseline, self._rules())
        baseline, rules = self._judging
        for batch in tail.new():
            self._rows += len(batch)
            rows = batch if baseline is None else remeasure(batch, baseline)
            self._judged.take(rows.heads(), rules)
            self._before = _last_of(self._before, batch)
        infos = [each.info for each in tail.found]
        now = self._clock()
        intervals = [interval_s(info.rows, info.first, info.last) for info in infos]
        known = [interval for interval in intervals if interval is not None]
        usual = float(np.median(known)) if known else 0.0  # for a process that has just begun a segment
        writing = [
            latest.since(oldest)
            for each, own in zip(tail.found, intervals, strict=True)
            if each.info.alive and (latest := tail.latest.get(each.path)) is not None
            if each.info.last >= (oldest := now - patience_s(own, usual))
        ]
        reading.put("geometric_health_snapshots_total", self._rows)
        for field, count in self._judged.invalid.items():  # rows have no flag for the other fields
            reading.put("geometric_health_invalid_snapshots_total", count, field)
        reading.put("geometric_health_snapshots_lost_total", tail.missing)
        reading.put("geometric_health_history_bytes", sum(info.bytes for info in infos))
        reading.put("geometric_health_history_snapshots", sum(info.rows for info in infos))
        times = [info.last for info in infos if not np.isnan(info.last)]
        if times:
            reading.put("geometric_health_snapshot_age_seconds", max(0.0, now - max(times)))
        tell_figures(reading, writing)
        self._present = bool(writing)
        damage = tail.damage()
        if self._present:
            with suppress(QigcoreError):  # as above
                self._read = self._standing.last()
                damage = damage or told_of(self._read.damage)
        if damage:
            raise HistoryError(f"{self.store}: some of it cannot be read: {damage}")

    def _judge_by(self, baseline: Baseline | None, rules: RuleSet) -> None:
        """What holds from now on. Rows that went before were measured from what held then."""
        if (baseline, rules) == self._judging:
            return
        if baseline is not None and len(self._before):
            self._judged.begin_after(remeasure(self._before, baseline).heads())
        self._judging = baseline, rules

    def _tell_health(self, reading: Reading) -> None:
        if not self.store.is_dir():
            return  # the history's part says so
        rules = self._rules()
        if self._present:
            report = self._standing.report(self._read)
            self._checks += 1
            self._judged.report(report)
            tell_health(reading, report, rules)
        else:
            tell_limits(reading, rules)
        self._judged.tell(reading)

    def _tell_healing(self, reading: Reading) -> None:
        if not self.store.is_dir():
            return
        if self._healing is None:
            from qigheal.integrations.metrics.healed import HealingFigures  # never in a process that serves

            self._healing = HealingFigures(self.store)
        self._healing.tell(reading, self._clock())


def _last_of(before: Batch, batch: Batch) -> Batch:
    """The last rows of both, without their names, of which there is no end."""
    parts = [part.take(slice(max(0, len(part) - LOOK_BACK), None)) for part in (before, batch) if len(part)]
    heads = np.concatenate([part.heads() for part in parts])[-LOOK_BACK:]
    basins = np.concatenate([part.basin_coords for part in parts])[-LOOK_BACK:]
    return Batch.of_rows(heads, basins, ("",))
