"""A learning window as arrays, whatever it came as; and what of it is one state, its season taken off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore.calibration.medians import median
from qigcore.calibration.season import DAY, Season, find
from qigcore.calibration.trimming import trim
from qigcore.errors import TooLittleData
from qigcore.rows import METRICS, REGIMES, Batch, FloatArray

BoolArray = npt.NDArray[np.bool_]


class Window(msgspec.Struct, frozen=True, eq=False):
    """basins [n, dim] and the columns [n] by metric (and "regime"), NaN where flagged; times [n], or empty where
    none were told; the newest code hash."""

    basins: FloatArray
    columns: dict[str, FloatArray]
    times: FloatArray
    code_hash: str

    @classmethod
    def of(cls, window: Batch | Sequence[Any] | FloatArray) -> Self:
        """From a batch, a sequence of `GeometricSnapshot`, or basins alone. Drift is left out: it is measured anew.

        Raises TooLittleData for another shape.
        """
        if isinstance(window, Batch):
            return cls._of_batch(window)
        if len(window) and hasattr(window[0], "basin_coords"):
            return cls._of_snapshots(window)
        basins = np.asarray(window, dtype=float)
        if basins.ndim != 2:
            raise TooLittleData(
                f"expected snapshots or basins of shape [n, dim], got shape {list(basins.shape)}"
            )
        return cls(basins, {}, np.empty(0), "")

    @classmethod
    def _of_batch(cls, batch: Batch) -> Self:
        code_hash = ""
        if len(batch) and "code" in batch.columns:
            code_hash = batch.names[int(batch.code[-1])]
        wanted = {**METRICS, "regime": "regime"}
        del wanted["basin_drift"]
        columns = {
            name: np.where(batch.good("phi" if column == "regime" else column), batch.columns[column], np.nan)
            for name, column in wanted.items()
            if column in batch.columns
        }
        basins = np.where(batch.good("basin_coords")[:, None], batch.basin_coords, np.nan)
        return cls(basins, columns, batch.columns.get("timestamp", np.empty(0)), code_hash)

    @classmethod
    def _of_snapshots(cls, window: Sequence[Any] | FloatArray) -> Self:
        def listed(column: str, flag: str) -> FloatArray:
            return np.array(
                [np.nan if flag in each.repaired else getattr(each, column) for each in window], dtype=float
            )

        basins = np.array(
            [
                np.full_like(each.basin_coords, np.nan)
                if "basin_coords" in each.repaired
                else each.basin_coords
                for each in window
            ]
        )
        columns = {name: listed(column, column) for name, column in METRICS.items() if name != "basin_drift"}
        columns["regime"] = np.array(
            [np.nan if "phi" in each.repaired else REGIMES.index(each.regime) for each in window]
        )
        times = np.array([each.timestamp for each in window], dtype=float)
        return cls(basins, columns, times, window[-1].code_hash)

    def only(self, keep: BoolArray) -> Self:
        """The rows to keep."""
        return type(self)(
            self.basins[keep],
            {name: values[keep] for name, values in self.columns.items()},
            self.times[keep] if len(self.times) else self.times,
            self.code_hash,
        )

    @property
    def interval_s(self) -> float | None:
        """Time between snapshots, seconds: the median, or the mean where most come in one tick of the clock.

        None where the times do not tell.
        """
        times = self.times[np.isfinite(self.times)]
        if len(times) < 2:
            return None
        interval = float(median(np.diff(times))) or float(times[-1] - times[0]) / (len(times) - 1)
        return interval if 0.0 < interval < math.inf else None


class Settled(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """keep: bool [n], the rows of the one state. reasons: why others are left out, or what is wrong with the window.

    steady: whether the window holds one state. season: of the amplitudes' components and then of `figures`.
    """

    keep: BoolArray
    reasons: tuple[str, ...]
    steady: bool
    season: Season | None
    figures: tuple[str, ...]


def levelled(metric: str, values: FloatArray) -> tuple[FloatArray, float]:
    """(A figure on the scale on which it is tested, what was added before its logarithm was taken).

    Latency by its logarithm, the rest as they are.
    """
    if metric != "latency":
        return values, 0.0
    usable = values[np.isfinite(values)]
    floor = 0.05 * max(float(median(usable)) if len(usable) else 0.0, 1e-6)
    return np.log(np.maximum(values, 0.0) + floor), floor  # never below 0, but for a clock that was set back


def settled(amplitudes: FloatArray, figures: dict[str, FloatArray], times: FloatArray) -> Settled:
    """What of a window is one state, and its season.

    amplitudes: [n, dim], NaN where unusable. figures: by metric, [n], as reported. times: [n], Unix seconds, or empty.

    The season comes first, since a trough is no incident; once more without the rows that were left out.
    """
    n, dim = amplitudes.shape
    names = tuple(figures)
    signals = np.column_stack([amplitudes, *(levelled(name, figures[name])[0] for name in names)])
    season = _season(times, signals, n)
    flat = signals if season is None else signals - np.nan_to_num(season.at(times))
    plain = {name: flat[:, dim + i] for i, name in enumerate(names)}
    if "latency" in plain:
        plain["latency"] = np.exp(plain["latency"])
    found = trim(flat[:, :dim], plain)
    if season is not None and not found.keep.all():
        season = _season(times[found.keep], signals[found.keep], int(found.keep.sum()))
    return Settled(keep=found.keep, reasons=found.reasons, steady=found.steady, season=season, figures=names)


def _season(times: FloatArray, signals: FloatArray, n: int) -> Season | None:
    if len(times) != n or not n or not np.nanmax(times) - np.nanmin(times) >= 2 * DAY:
        return None
    return find(times, signals)
