"""What a change detector says of a change: the records, and how onset, components and figures are told apart."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from qigcore.calibration.record import Calibration
from qigcore.rows import FloatArray

NAMED = 8
"""Components that an alarm names at most."""


class Share(msgspec.Struct, frozen=True):
    """One component that moved: its part of what all have moved beyond noise, and by how many of its sd."""

    index: int
    share: float  # 0 to 1
    shift: float  # mean deviation of the amplitude since the onset, in its sd


class Moved(msgspec.Struct, frozen=True):
    """One figure that moved: its mean since the onset less that in health, in its sd (of latency, of its logarithm)."""

    metric: str  # key of rows.METRICS
    shift: float


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    row: of the alarm, counted from the detector's first. timestamp: its time, None where none was told.
    kind: "bounded" when the bets have confirmed it and their assumption was found to hold on held-out rows,
        else "nominal". severity: "warning", and "critical" once the bets have confirmed it.
    test: "average" (which `weight`) or "bets". statistic: its value over its limit.
    onset: the row with which the change most likely began (maximum likelihood over the last 512 rows).
    components: those that moved beyond noise, most first. metrics: the figures that did.
    """

    row: int
    timestamp: float | None
    kind: Literal["bounded", "nominal"]
    severity: Literal["warning", "critical"]
    test: Literal["average", "bets"]
    statistic: float
    weight: float | None
    onset: int
    onset_timestamp: float | None
    components: tuple[Share, ...]
    metrics: tuple[Moved, ...]

    @property
    def delay(self) -> int:
        """Snapshots from the likely onset to the alarm, both counted."""
        return self.row - self.onset + 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What one row brought about: a new alarm, its confirmation by the bets, or the end of the change.

    alarm: the alarm as it then stood.
    """

    kind: Literal["alarm", "confirmed", "recovered"]
    row: int
    timestamp: float | None
    alarm: Alarm


def mean_of(rows: FloatArray) -> FloatArray:
    """Column means of the finite values, NaN where there are none."""
    finite = np.isfinite(rows)
    counts = finite.sum(axis=0)
    total = np.where(finite, rows, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0))


def onset(rows: FloatArray, learned: float, memory: float) -> int:
    """Where a shift of unknown size began, by maximum likelihood for rows of unit covariance.

    A shift μ shows as μ in the first row and as (1 − memory)·μ in each later one; its estimate from k rows is
    held against the noise of those and of what it is measured from, 1/`learned`. Rows without any usable
    value say nothing.
    """
    filled = np.nan_to_num(rows[::-1])
    sums = (1.0 - memory) * np.cumsum(filled, axis=0) + memory * filled
    counts = np.maximum(np.cumsum(np.isfinite(rows[::-1]).any(axis=1)), 1)
    weight = (1.0 - memory) ** 2 * counts + 1.0 - (1.0 - memory) ** 2
    against_noise = np.einsum("ij,ij->i", sums, sums) / (weight * (1.0 + counts / learned))
    return len(rows) - 1 - int(np.argmax(against_noise))


def shares(deviations: FloatArray, learned: Calibration, least: int) -> tuple[Share, ...]:
    """The components whose mean deviation is beyond 3.5 of its standard errors, most first.

    One of 64 that have not moved is in 1 of 30 alarms. least: so many are named in any case, 0 or 1.
    """
    good = np.isfinite(deviations).all(axis=1)
    n = int(good.sum())
    if not n:
        return ()
    scale = np.array(learned.scale)
    memory = np.array(learned.memory) if learned.memory else np.zeros(len(scale))
    mean = deviations[good].mean(axis=0)
    error = scale * scale * (1.0 / n / (1.0 - memory) ** 2 + 1.0 / learned.support)
    beyond = np.maximum(mean * mean - error, 0.0)
    total = float(beyond.sum())
    if total == 0.0:
        return ()
    sd = scale / np.sqrt(1.0 - memory * memory)
    order = np.argsort(-beyond, kind="stable")[:NAMED]
    strong = mean * mean > 3.5**2 * error
    return tuple(
        Share(index=int(i), share=float(beyond[i] / total), shift=float(mean[i] / sd[i]))
        for rank, i in enumerate(order)
        if beyond[i] > 0.0 and (strong[i] or rank < least)
    )


def moved(deviations: FloatArray, scores: FloatArray, learned: Calibration) -> tuple[Moved, ...]:
    """The figures whose mean score is beyond 3.5 of its standard errors, most first."""
    made = []
    for column, (metric, signal) in enumerate(learned.signals.items()):
        values = scores[:, column]
        values = values[np.isfinite(values)]
        seen = deviations[:, column]
        seen = seen[np.isfinite(seen)]
        if len(values) and abs(values.mean()) * math.sqrt(len(values)) > 3.5:
            sd = signal.scale / math.sqrt(1.0 - signal.memory**2)
            made.append(Moved(metric=metric, shift=float(seen.mean() / sd)))
    return tuple(sorted(made, key=lambda moved: -abs(moved.shift)))
