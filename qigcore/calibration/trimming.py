"""Which rows of a learning window to leave out, and whether the window holds one state at all.

A window may hold single far-out snapshots, and stretches that belong to another state: an incident, or
what came before or after a change. Both are looked for per signal: single rows by their distance from
the median in robust scales, stretches by the means of blocks of neighbouring rows. More than a fifth is
never left out: then the window holds no one state, and which part is the healthy one is not ours to say.

Scales that the fault itself cannot widen: the noise of a row comes from differences between
neighbours, which a stretch touches at its two ends only; the noise of a block from that and its
autocorrelation, or from the spread of the blocks where that is wider, as with a season or slow noise.

Measured, on seeds that nothing was chosen by, on basins of 64 components (Dirichlet, c = 500), Φ, κ,
lognormal latencies (σ = 0.5) and rare errors. Of 1,000 windows of 100 and of 300 independent rows and 200
of 2,000 none lost a row. With an autocorrelation of 0.9, 3.5 % of the windows of 100 are called unsteady
and 0.04 % of rows are left out; of 300, 0.006 % of rows, and of 2,000 none. An incident of a tenth, 0.4 rad
or ten times the latency, is found in each of 200 windows of 300 and of 2,000 independent rows, at a loss
of 0.02 % of the others. With an autocorrelation of 0.9 it is found in 2,000 by the basin always and by
latency in half of the windows, but hardly ever in 300, which are worth sixteen independent rows. Nothing
is lost of normal or lognormal values, and so nothing of their spread; of Student's t with 5 degrees of
freedom, 1.2 % of the standard deviation.
These figures are from when up to 5 % of single far-out rows were left out; now fewer are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore._detectors import gram
from qigcore.calibration.medians import median
from qigcore.rows import FloatArray

BoolArray = npt.NDArray[np.bool_]

LARGEST_SHARE = 0.2
"""More than this part of the rows is never left out."""

FAR = 7.0
"""Robust scales from the median at which a single row is far out; wider by 1 + 20/n, for the scale is
itself an estimate. What the narrowest band of a baseline would hold is never far out."""

APART = 6.0
"""Scales at which the mean of a block stands apart; wider by 1 + 4/blocks where the blocks gave the scale."""

TWO_STATES = 4.0
"""Scales of a row between the means of two parts of a window that are not one state."""

BLOCK = 10
"""Rows of a short block; with a twentieth of the window, the long one, the two lengths looked at."""

SCATTERED = 0.002
FEW = 2
"""More far-out rows than this part, and than so few, outside of stretches, belong to the state: what comes back in
the window comes back after it, and limits that were learned without it would alarm each time. Kept, and said."""

FEWEST = 30
"""Fewer usable values of a signal are not judged."""

FLOORS = {"phi": 0.0025, "kappa": 0.005, "latency": 0.1, "errors": 0.02, "basin_drift": 0.005, "memory": 0.05}
"""Smallest scale of a row: half the floors of a baseline's bands. κ's also grows with its median, by 0.5 %;
latency's is of its logarithm, errors' of the square root of the rate."""

_TO_SD = 1.482602218505602  # sd of a normal law for each unit of its median absolute deviation


class Trimmed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """keep: bool, shape [n], the rows to learn from; all True where `steady` is False.

    reasons: one sentence for each stretch or kind of row left out, or kept for being too many; or why the
        window is not one state.
    steady: whether the window holds one state, but for at most a fifth of its rows.
    """

    keep: BoolArray
    reasons: tuple[str, ...]
    steady: bool


def trim(amplitudes: FloatArray, scalars: Mapping[str, FloatArray] | None = None) -> Trimmed:
    """The rows of a learning window that belong to its one state.

    amplitudes: shape [n, dim], unit vectors in the order of time; rows with a NaN are not judged by
        their basin. dim may be 0: nothing is judged by basins then.
    scalars: name → values, shape [n], NaN where unusable; each fluctuates about a level when healthy
        (memory growth, not memory). "latency" is judged on its logarithm, "errors" on its square root.

    A stretch shorter than half a block of ten is seen only where its single rows are far out. Two states
    that alternate, half of the time each, are taken for one with a wide spread.

    Raises ValueError for shapes that do not fit.
    """
    basins = np.asarray(amplitudes, dtype=float)
    if basins.ndim != 2:
        raise ValueError(f"amplitudes: expected shape [n, dim], got {list(basins.shape)}")
    n = len(basins)
    signals = {"basin": basins} if basins.shape[1] else {}
    for name, given in (scalars or {}).items():
        values = np.asarray(given, dtype=float)
        if values.shape != (n,):
            raise ValueError(
                f"scalars[{name!r}]: expected one value for each of {n} rows, got shape {list(values.shape)}"
            )
        signals[name] = _levelled(name, values)[:, None]
    away = np.zeros(n, dtype=bool)
    reasons: list[str] = []
    for name, rows in signals.items():
        usable = np.flatnonzero(np.isfinite(rows).all(axis=1))
        if len(usable) < FEWEST:
            continue
        judged = _Signal(name, rows[usable])
        single, stretches = judged.far(), judged.stretches()
        rest = ~single
        for first, last in stretches:
            rest[first:last] = False
        if judged.two_states(rest):
            return _unsteady(n, f"two parts of it differ in {_word(name)}")
        for first, last in stretches:
            single[first:last] = False
            away[usable[first] : usable[last - 1] + 1] = True
            place = f"rows {usable[first]} to {usable[last - 1]}"
            reasons.append(f"{_counted(last - first)} left out ({place}): {_word(name)} stood apart")
        if single.sum() > max(SCATTERED * len(usable), FEW):
            reasons.append(
                f"{_counted(int(single.sum()))} of {_word(name)} far out, but too many for a mishap: kept"
            )
        elif single.any():
            away[usable[single]] = True
            reasons.append(f"{_counted(int(single.sum()))} left out, each by itself: {_word(name)} far out")
    if away.sum() > LARGEST_SHARE * n:  # of the rows of all signals together
        return _unsteady(n, f"{away.mean():.0%} of it differ from the rest; {'; '.join(reasons)}")
    return Trimmed(keep=~away, reasons=tuple(reasons), steady=True)


def _unsteady(n: int, why: str) -> Trimmed:
    reason = f"the learning window is not one state: {why}; mark a period that is healthy throughout"
    return Trimmed(keep=np.ones(n, dtype=bool), reasons=(reason,), steady=False)


def _counted(count: int) -> str:
    return f"{count} snapshot{'s' if count != 1 else ''}"


def _word(name: str) -> str:
    return {"basin": "the basin", "phi": "Φ", "kappa": "κ", "basin_drift": "drift"}.get(name, name)


def _levelled(name: str, values: FloatArray) -> FloatArray:
    """The scale on which healthy values are nearest to normal; infinite ones become NaN."""
    values = np.where(np.isfinite(values), values, np.nan)
    if name == "latency":
        return np.log(np.maximum(values, 0.05))  # below 0.05 ms is the resolution of a clock
    if name == "errors":
        return np.sqrt(np.maximum(values, 0.0))
    return values


def _mad(values: FloatArray) -> float:
    return _TO_SD * float(median(np.abs(values - median(values))))


class _Signal:
    """One signal's usable rows, shape [n, d] with d = 1 for a scalar, as deviations from the median."""

    def __init__(self, name: str, rows: FloatArray) -> None:
        centre = median(rows)
        rows = rows - centre
        self.bounded = rows  # until the scale that bounds them is known
        self.scalar = rows.shape[1] == 1
        self.floor = FLOORS.get(name, 1e-9) if self.scalar else 1e-6
        if name == "kappa":
            self.floor = max(self.floor, 0.005 * abs(float(centre[0])))
        self.sizes = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        self.limit = self._limit()
        shrunk = np.minimum(1.0, self.limit / np.maximum(self.sizes, 1e-300))
        self.bounded *= shrunk[:, None]
        self._noise()

    def _limit(self) -> float:
        """Distance from the median at which a row is far out. Of a scalar, the wider side decides."""
        if not self.scalar:
            middle = float(median(self.sizes))
            scale = max(_mad(self.sizes), 0.02 * middle, self.floor)
            return middle + FAR * (1.0 + 20.0 / len(self.sizes)) * scale
        values = self.bounded[:, 0]
        sides = [side for side in (values[values > 0.0], -values[values < 0.0]) if len(side)]
        others = np.concatenate(sides) if sides else values[:0]
        # A scale per side, so that a long tail is no fault; where most rows are one value, that of the others.
        if not 0 < len(others) < 0.5 * len(values):
            scale, told = max((float(median(side)) for side in sides), default=0.0), len(values)
        else:
            scale, told = float(median(others)), len(others)
        return FAR * (1.0 + 20.0 / told) * max(_TO_SD * scale, self.floor)

    def _noise(self) -> None:
        """Variance of a row, summed over components, and its autocorrelation at lag 1, from differences.

        E‖x(t+h) − x(t)‖² = 2σ²(1 − ρ^h): the ratio of lag 2 to lag 1 gives ρ of a first-order
        autoregression, and lag 1 then σ². Medians of the squares, so that jumps do not count.
        """
        self.sparse = self.scalar and bool(np.mean(self.bounded[:, 0] == 0.0) > 0.5)
        if self.sparse:
            self.power = max(float(np.mean(self.bounded**2)), self.floor**2)
            self.rho = 0.0
        else:
            one, two = self._change(1), self._change(2)
            self.rho = min(max(two / one - 1.0, 0.0), 0.98) if one > 0.0 else 0.0
            floor = self.floor**2 * self.bounded.shape[1]
            self.power = max(one / (2.0 * (1.0 - self.rho)), floor)
        # Satterthwaite's degrees of freedom of ‖x‖²: fewer where components move together.
        cross = gram(self.bounded)
        squares = float(np.einsum("ij,ij->", cross, cross))
        self.freedom = float(np.trace(cross)) ** 2 / squares if squares > 0.0 else 1.0

    def _change(self, lag: int) -> float:
        """Median squared change over a lag, brought to the scale of a mean by χ²₁ for scalars."""
        steps = self.bounded[lag:] - self.bounded[:-lag]
        middle = float(median(np.einsum("ij,ij->i", steps, steps)))
        return middle * _TO_SD**2 if self.scalar else middle

    def far(self) -> BoolArray:
        found: BoolArray = self.sizes > self.limit
        return found

    def spread_of_mean(self, count: int, rho: float) -> float:
        """Variance of the mean of `count` neighbours: that of a first-order autoregression."""
        lags = np.arange(1, count)
        both = 1.0 + 2.0 * float(np.sum((1.0 - lags / count) * rho**lags))
        return self.power * both / count

    def two_states(self, among: BoolArray) -> bool:
        """Whether some split of the rows `among` leaves two parts, each over a fifth, with means far apart.

        Far means along the line between them, in scales of a row, and beyond three times what noise
        would put between two such means, its autocorrelation taken two standard errors larger.
        """
        rows = self.bounded[among]
        n = len(rows)
        if n < FEWEST:
            return False
        sums = np.cumsum(rows, axis=0)
        cuts = np.arange(int(LARGEST_SHARE * n) + 1, n - int(LARGEST_SHARE * n), max(1, n // 100))
        gaps = sums[cuts - 1] / cuts[:, None] - (sums[-1] - sums[cuts - 1]) / (n - cuts)[:, None]
        squares = np.einsum("ij,ij->i", gaps, gaps)
        best = int(np.argmax(squares * cuts * (n - cuts)))
        cut, square = int(cuts[best]), float(squares[best])
        if square <= 0.0:
            return False
        unsure = 2.0 * math.sqrt((1.0 - self.rho**2) / (n * self.freedom))
        rho = min(self.rho + unsure, 0.98)
        more = (1.0 - self.rho) / (1.0 - rho)  # of the power, which followed from changes and ρ
        noise = more * (self.spread_of_mean(cut, rho) + self.spread_of_mean(n - cut, rho))
        along = np.einsum("ij,j->i", rows, gaps[best] / math.sqrt(square))
        within = _mad(along[1:] - along[:-1]) ** 2 / (2.0 * (1.0 - rho))
        return square > TWO_STATES**2 * max(within, self.floor**2) + 9.0 * noise

    def stretches(self) -> list[tuple[int, int]]:
        """Half-open ranges of rows that stand apart, disjoint and in order."""
        n = len(self.bounded)
        short = min(BLOCK, max(5, n // 10))
        found = np.zeros(n, dtype=bool)
        for length in {short, max(short, n // 20)}:
            blocks = self._apart(length)
            for first, last in _runs(blocks):
                begin, end = self._edges(first * length, min(last * length, n), length)
                found[begin:end] = True
        return _runs(found)

    def _apart(self, length: int) -> BoolArray:
        """Which blocks of `length` rows stand apart; the last block takes the rows that are left over."""
        count = len(self.bounded) // length
        starts = np.arange(count) * length
        sizes = np.diff(np.append(starts, len(self.bounded)))
        means = np.add.reduceat(self.bounded, starts, axis=0) / sizes[:, None]
        noise = self.spread_of_mean(length, self.rho)
        if self.scalar:
            values = means[:, 0] - median(means[:, 0])
            own = math.sqrt(noise)
            offsets = np.abs(values)
        else:
            # Wilson & Hilferty (1931): the cube root of χ²/ν is normal with variance 2/(9ν).
            centred = means - median(means)
            values = (np.einsum("ij,ij->i", centred, centred) / noise) ** (1.0 / 3.0)
            own = math.sqrt(2.0 / (9.0 * self.freedom))
            offsets = values - max(float(median(values)), 1.0)
        among = _mad(values) * (1.0 + 4.0 / count)
        # The mean of a few rare values is skewed: one more of them is no stretch.
        apart: BoolArray = offsets > APART * (1.5 if self.sparse else 1.0) * max(own, among)
        return apart

    def _edges(self, first: int, last: int, length: int) -> tuple[int, int]:
        """The stretch around the blocks [first, last) that fits best.

        Rows are projected on the way from the rest to the stretch, 0 to 1; of all ranges within a block
        of those found, the one with the largest sum of projection − ½ is the most likely under two
        normal laws of one spread.
        """
        step = self.bounded[first:last].mean(axis=0)
        begin, end = max(0, first - length), min(len(self.bounded), last + length)
        gain = np.einsum("ij,j->i", self.bounded[begin:end], step) / float(np.sum(step * step)) - 0.5
        sums = np.concatenate(([0.0], np.cumsum(gain)))
        lowest = np.minimum.accumulate(sums)
        stop = int(np.argmax(sums - lowest))
        start = int(np.argmin(sums[: stop + 1]))
        return begin + start, begin + stop


def _runs(marked: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Half-open ranges of neighbouring True values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marked.astype(np.int8), [0]))))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]
