"""The rows that keep the others honest: one that always fires, and one that knows the change exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.detection.measure import from_first, tuned
from benchmarks.detection.streams import Changed, Floats, Rows


class AlwaysFires:
    """Sees every change at once, and its alarms say nothing."""

    def alarms(self, rows: Rows) -> Iterator[int]:
        yield from range(len(rows))


class Oracle:
    """The likelihood ratio of the very change at its likeliest time: for a sudden one Page's CUSUM (1954).

    Of all detectors with its run length, none has a smaller worst delay, where rows are independent and the
    change comes at once (Moustakides 1986, "Optimal stopping times for detecting changes in distributions").
    """

    def __init__(self, changed: Changed, limit: float, start: int) -> None:
        self._changed = changed
        self._limit = limit
        self._start = start

    def alarms(self, rows: Rows) -> Iterator[int]:
        def first(part: Rows, at: int) -> int | None:
            statistic = self._changed.statistic(part, self._start + at)
            over = np.zeros(0, bool) if statistic is None else statistic > self._limit
            return int(over.argmax()) if over.any() else None

        return from_first(first, rows)


def limit(statistics: Sequence[Floats], target: float) -> float:
    """The limit at which the mean time to the first exceedance is the target.

    statistics: each from a fresh start on healthy rows of its own; the estimate is the censored exponential.
    """
    highest = [np.maximum.accumulate(each) for each in statistics]

    def mean_run(level: float) -> float:
        times = [int(np.searchsorted(each, level, side="right")) for each in highest]
        alarms = sum(time < len(each) for time, each in zip(times, highest, strict=True))
        rows = sum(min(time + 1, len(each)) for time, each in zip(times, highest, strict=True))
        return rows / alarms if alarms else math.inf

    return tuned(mean_run, 0.1, 100.0, target)
