"""Run lengths and delays from alarms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from scipy.stats import chi2

from benchmarks.detection.streams import Rows


class Detector(Protocol):
    """Something that has learned a healthy service, in its state right after learning."""

    def alarms(self, rows: Rows) -> Iterator[int]:
        """Rows at which it alarms, in order. It is restarted after each alarm, as if it had just learned."""


def from_first(first: Callable[[Rows, int], int | None], rows: Rows) -> Iterator[int]:
    """The alarms of a detector that can only say where the first one is, in rows[at:][:some] from a fresh start.

    first: takes those rows and `at`.
    A frequent alarm is looked for in a short stretch first: a long one would be gone through again and again.
    """
    at = 0
    while at < len(rows):
        size = 8192
        while (found := first(rows[at : at + size], at)) is None:
            if at + size >= len(rows):
                return
            size *= 8
        yield at + found
        at += found + 1


def run_length(rows: int, alarms: int) -> tuple[float, float, float]:
    """Mean rows between alarms, and its exact 95 % interval where alarms come as a Poisson process.

    The censored exponential estimate: total rows over alarms (Epstein & Sobel 1953); its interval is that of
    the Poisson mean (Garwood 1936). Without an alarm: (inf, the lower end, inf).
    """
    low = rows / (0.5 * float(chi2.ppf(0.975, 2 * alarms + 2)))
    if not alarms:
        return math.inf, low, math.inf
    return rows / alarms, low, rows / (0.5 * float(chi2.ppf(0.025, 2 * alarms)))


def dispersion(alarms: Sequence[int]) -> float:
    """Variance over mean of the alarms in equally long streams: 1 for a Poisson process of one rate.

    Above 1, detectors that learned from different samples differ in rate, and the interval of `run_length`,
    which takes them as one, is too narrow by about the root of it. NaN where there is nothing to say.
    """
    counts = np.asarray(alarms, dtype=float)
    if len(counts) < 2 or counts.mean() == 0.0:
        return math.nan
    return float(counts.var(ddof=1) / counts.mean())


def delay(detector: Detector, rows: Rows, change: int) -> tuple[float, int]:
    """(rows until the alarm, 1 for the first changed row, inf without one; alarms before the change)."""
    early = 0
    for at in detector.alarms(rows):
        if at >= change:
            return float(at - change + 1), early
        early += 1
    return math.inf, early


def quantiles(delays: Iterable[float]) -> tuple[float, float, float]:
    """(median, 10 %, 90 %), each a delay that occurred, so that unseen changes count as inf."""
    ordered = np.sort(np.fromiter(delays, dtype=float))
    if not len(ordered):
        return math.nan, math.nan, math.nan
    rank = [min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1) for q in (0.5, 0.1, 0.9)]
    return float(ordered[rank[0]]), float(ordered[rank[1]]), float(ordered[rank[2]])


def tuned(
    mean_run: Callable[[float], float], low: float, high: float, target: float, steps: int = 16
) -> float:
    """A limit between low and high whose mean run length is the target, by bisection of its logarithm.

    mean_run rises with the limit. Returns an end where the target lies beyond it.
    """
    a, b = math.log(low), math.log(high)
    for _ in range(steps):
        middle = 0.5 * (a + b)
        found = mean_run(math.exp(middle))
        if abs(found / target - 1.0) < 0.03:
            return math.exp(middle)
        a, b = (middle, b) if found < target else (a, middle)
    return math.exp(0.5 * (a + b))
