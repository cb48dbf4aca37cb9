"""One setting at work on a stream: what it raises, and what is counted of that. State between batches lives here.

A `Watch` turns rows into a level for each and the turns between levels; a `Tally` counts them against the
marked events, the same way for the detector and for the rules.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore.baseline import Baseline
from qigcore.detectors import Alarm, ChangeDetector
from qigcore.rows import HEAD, Array, Batch, FloatArray
from qigcore.rules import LOOK_BACK, RuleSet, evaluate, severities
from qigheal.backtest.poisson import judged
from qigheal.backtest.records import ByChange, Detection, Outcome, Raised, Variant

LISTED = 1000
"""Alarms of one setting that are kept; the rest are counted."""

Levels = npt.NDArray[np.uint8]


class Turn(NamedTuple):
    """At a row of the batch: an alarm begins, becomes critical, or ends."""

    row: int
    kind: Literal["raised", "critical", "ended"]
    alarm: Alarm | None = None
    findings: tuple[str, ...] = ()


class Watch(Protocol):
    """Rows in, levels out: 0 no alarm, 1 a warning, 2 critical, after each row."""

    run_length: float | None
    evidence: FloatArray

    def take(self, batch: Batch, heads: Array) -> tuple[Levels, list[Turn]]: ...


class ChangeWatch:
    """The detector. evidence: after each row of the last batch, its largest statistic as a part of its limit."""

    def __init__(self, variant: ByChange, baseline: Baseline, interval_s: float | None) -> None:
        self._detector = ChangeDetector(
            baseline,
            variant.average_run_length,
            false_alarm_every=variant.false_alarm_every,
            interval_s=interval_s,
        )
        self.run_length: float | None = self._detector.average_run_length
        self.evidence = np.empty(0)
        self._level = 0

    def take(self, batch: Batch, heads: Array) -> tuple[Levels, list[Turn]]:
        detector = self._detector
        before = detector.rows
        trace = np.empty((len(heads), 2))
        events = detector.taken(batch.basin_coords, heads, trace)
        self.evidence = np.maximum(trace[:, 0], trace[:, 1] / detector.sure)
        levels = np.full(len(heads), self._level, np.uint8)
        turns = []
        for event in events:
            row = event.row - before
            if event.kind == "recovered":
                self._level = 0
                turns.append(Turn(row, "ended"))
            else:
                critical = event.alarm.severity == "critical"
                self._level = 2 if critical else 1
                if event.kind == "alarm":
                    turns.append(Turn(row, "raised", event.alarm))
                if critical:
                    turns.append(Turn(row, "critical"))
            levels[row:] = self._level
        return levels, turns


class RuleWatch:
    """The rules, as the service and the healer evaluate them: a finding lasts five clean snapshots."""

    run_length: float | None = None

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._before = np.zeros(0, HEAD)
        self._level = 0
        self._named = 0
        self.evidence = np.empty(0)

    def take(self, batch: Batch, heads: Array) -> tuple[Levels, list[Turn]]:
        known = len(self._before)
        joined = np.concatenate([self._before, heads])
        levels = severities(joined, self._rules)[known:]
        last = np.concatenate([[np.uint8(self._level)], levels[:-1]])
        turns = []
        for row in np.flatnonzero(levels != last).tolist():
            now, then = int(levels[row]), int(last[row])
            kinds: tuple[str, ...] = ()
            if now > then and self._named < 2 * LISTED:
                self._named += 1
                upto = known + row + 1
                fired = evaluate(joined[max(upto - LOOK_BACK, 0) : upto], self._rules)
                kinds = tuple(dict.fromkeys(each.rule.kind for each in fired))
            if now == 0:
                turns.append(Turn(row, "ended"))
            elif then == 0:
                turns.append(Turn(row, "raised", findings=kinds))
            if now == 2:
                turns.append(Turn(row, "critical", findings=kinds))
        self._level = int(levels[-1])
        # A position is judged by the 14 rows up to it, so 13 have to come along.
        self._before = joined[max(len(joined) - (LOOK_BACK - 1), 0) :]
        return levels, turns


class Slice(NamedTuple):
    """What all settings share of one batch.

    times: Unix seconds. steps: microseconds since the row before, 0 where that is a gap; whole numbers, so
    that sums do not depend on how rows are cut into batches. outside: of all events. near: the events with
    rows here, with those rows. base: rows before this batch. firsts: of each event, its first row so far.
    """

    times: FloatArray
    steps: npt.NDArray[np.int64]
    outside: npt.NDArray[np.bool_]
    near: tuple[tuple[int, npt.NDArray[np.bool_]], ...]
    base: int
    firsts: list[int | None]

    def since(self, mark: int) -> int:
        """The first row of an event that is near, counted from the first row of all."""
        first = self.firsts[mark]
        return self.base if first is None else first


class Tally:
    """Counts of one setting. marks: starts of the events."""

    def __init__(self, variant: Variant, watch: Watch, marks: list[float]) -> None:
        self.variant = variant
        self.watch = watch
        self._starts = marks
        self._found: list[dict[str, Any]] = [{} for _ in marks]
        self._level = 0
        self._open: Raised | None = None
        self._raised: list[Raised] = []
        self._alarms = self._critical = self._false = self._false_critical = 0
        self._alarm_rows = self._alarm_us = self._exposed_rows = self._exposed_us = 0

    def take(self, batch: Batch, heads: Array, part: Slice) -> Levels:
        levels, turns = self.watch.take(batch, heads)
        before = np.concatenate([[np.uint8(self._level)], levels[:-1]])
        exposed = part.outside & (before == 0)
        self._exposed_rows += int(exposed.sum())
        self._exposed_us += int(part.steps[exposed].sum())
        self._alarm_rows += int((levels > 0).sum())
        self._alarm_us += int(part.steps[before > 0].sum())
        for index, _ in part.near:
            first = part.since(index)
            if first >= part.base and before[first - part.base]:
                self._found[index]["already"] = True
        for turn in turns:
            self._turn(turn, part)
        self._level = int(levels[-1])
        return levels

    def _turn(self, turn: Turn, part: Slice) -> None:
        at = float(part.times[turn.row])
        if turn.kind == "raised":
            marks = tuple(index for index, rows in part.near if rows[turn.row])
            self._alarms += 1
            self._false += not marks
            for index in marks:
                self._found[index].setdefault("row", part.base + turn.row - part.since(index) + 1)
                self._found[index].setdefault("at", at)
            self._open = Raised(
                row=part.base + turn.row,
                timestamp=at,
                severity="warning",
                marks=marks,
                alarm=turn.alarm,
                findings=turn.findings,
            )
        now = self._open
        if turn.kind == "critical":
            for index, rows in part.near:
                if rows[turn.row]:
                    self._found[index].setdefault("critical", at)
        if turn.kind == "critical" and now is not None and now.critical_at is None:
            self._critical += 1
            self._false_critical += not now.marks
            for index in now.marks:
                self._found[index].setdefault("critical", at)
            found = tuple(dict.fromkeys(now.findings + turn.findings))
            self._open = msgspec.structs.replace(now, severity="critical", critical_at=at, findings=found)
        if turn.kind == "ended":
            self._close(at)

    def _close(self, at: float | None) -> None:
        if self._open is not None and len(self._raised) < LISTED:
            self._raised.append(
                self._open if at is None else msgspec.structs.replace(self._open, ended_at=at)
            )
        self._open = None

    def outcome(self, firsts: list[int | None]) -> Outcome:
        """What came of it; nothing is taken after this."""
        lasts = self._open is not None
        self._close(None)
        return Outcome(
            variant=self.variant,
            name=self.variant.name,
            run_length=self.watch.run_length,
            alarms=self._alarms,
            critical=self._critical,
            in_alarm_snapshots=self._alarm_rows,
            in_alarm_s=self._alarm_us / 1e6,
            lasts=lasts,
            false=judged(
                self._false,
                self._false_critical,
                self._exposed_rows,
                self._exposed_us / 1e6,
                self.watch.run_length,
            ),
            detections=tuple(self._detection(index, first) for index, first in enumerate(firsts)),
            raised=tuple(self._raised),
            unlisted=self._alarms - len(self._raised),
        )

    def _detection(self, index: int, first: int | None) -> Detection:
        found = self._found[index]
        if first is None:
            return Detection(mark=index, state="unseen")
        start = self._starts[index]
        critical = found["critical"] - start if "critical" in found else None
        if "at" not in found:
            state: Literal["already", "missed"] = "already" if "already" in found else "missed"
            return Detection(mark=index, state=state, critical_s=critical)
        return Detection(
            mark=index,
            state="detected",
            delay_snapshots=found["row"],
            delay_s=found["at"] - start,
            critical_s=critical,
        )
