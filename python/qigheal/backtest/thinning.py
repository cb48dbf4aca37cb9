"""A series of any length for a picture: the extremes and the mean of each of a few thousand bins of time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from qigcore.rows import FloatArray

BINS = 4096
"""More than any picture has columns; a power of two, since neighbours are joined when the time outgrows them."""

FINEST_S = 2.0**-10


class Thinned:
    """Series over time, in bounded memory. Extremes survive thinning, so that a spike of one row is still drawn.

    Bins begin at the first row, all of one width, which doubles when a row lies beyond the last. Rows that
    are older than the first one count in the first bin. NaN are left out.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._start: float | None = None
        self._width = FINEST_S
        self._low = np.full((len(names), BINS), np.inf)
        self._high = np.full((len(names), BINS), -np.inf)
        self._sum = np.zeros((len(names), BINS))
        self._count = np.zeros((len(names), BINS), np.int64)

    def add(self, times: FloatArray, values: Mapping[str, FloatArray]) -> None:
        """times: Unix seconds [n]. values: by name, [n] each."""
        if not len(times):
            return
        if self._start is None:
            self._start = float(times[0])
        since = np.maximum(times - self._start, 0.0)
        furthest = float(since.max())
        while furthest >= self._width * BINS:
            self._join()
        bins = (since / self._width).astype(np.intp)
        for row, name in enumerate(self.names):
            series = values[name]
            good = np.isfinite(series)
            into, kept = bins[good], series[good]
            np.minimum.at(self._low[row], into, kept)
            np.maximum.at(self._high[row], into, kept)
            np.add.at(self._sum[row], into, kept)
            np.add.at(self._count[row], into, 1)

    def series(self, name: str) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """(times of the bins' middles, low, mean, high) of a name, with NaN between stretches without rows."""
        row = self.names.index(name)
        used = np.flatnonzero(self._count[row])
        times = (self._start or 0.0) + (used + 0.5) * self._width
        figures = (
            times,
            self._low[row][used],
            self._sum[row][used] / np.maximum(self._count[row][used], 1),
            self._high[row][used],
        )
        apart = np.diff(used)
        wide = np.flatnonzero(apart > 4 * max(int(np.median(apart)), 1)) + 1 if len(apart) else apart
        made = [np.insert(figure, wide, np.nan) for figure in figures]
        return made[0], made[1], made[2], made[3]

    def _join(self) -> None:
        self._width *= 2.0
        for kept, joined in ((self._low, np.minimum), (self._high, np.maximum)):
            filled = np.inf if joined is np.minimum else -np.inf
            kept[:, : BINS // 2] = joined(kept[:, ::2], kept[:, 1::2])
            kept[:, BINS // 2 :] = filled
        for counted in (self._sum, self._count):
            self._halve(counted)

    @staticmethod
    def _halve(counted: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> None:
        counted[:, : BINS // 2] = counted[:, ::2] + counted[:, 1::2]
        counted[:, BINS // 2 :] = 0
