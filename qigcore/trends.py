"""Which way a metric is going, whether that is more than its noise, and when it reaches a limit.

Pure functions of the values handed in; which values are flagged is the caller's to know, and says
so by handing in NaN for them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy.typing as npt

from qigcore._streams import least_squares, recent_line
from qigcore.timeto import ENOUGH, TimeTo, time_to

if TYPE_CHECKING:
    from qigcore.ranktrends import Correction, MannKendall, TheilSen, mann_kendall, theil_sen

__all__ = [
    "ENOUGH",
    "RECENT",
    "Correction",
    "Direction",
    "MannKendall",
    "Slope",
    "TheilSen",
    "TimeTo",
    "Trend",
    "mann_kendall",
    "slope",
    "theil_sen",
    "time_to",
    "trend",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The rank tests, loaded at their first use: a process that serves asks for none of them."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from qigcore import ranktrends

        return getattr(ranktrends, name)


Direction = Literal["improving", "stable", "degrading", "unknown"]

RECENT = 10
"""Usable values that `recent_avg` is the mean of."""


class Slope(msgspec.Struct, frozen=True):
    """A straight line through a series by least squares.

    slope: change per snapshot, in the metric's unit; NaN under 2 usable values.
    stderr: its standard error, corrected for autocorrelation; NaN under 3.
    mean: of the usable values; NaN where there are none.
    count, skipped: how many values were usable, and how many were not finite.
    stderr_independent: the standard error for independent residuals; NaN under 3.
    autocorrelation: of the residuals at lag 1, corrected for its bias, −1 to 1; NaN where it is not known,
        which is under 10 usable values or 9 pairs of neighbours. It counts as 0 then.
    effective: independent values that would tell as much, from 3 to `count`; NaN under 3 usable ones.
    t: standard errors in half of the 95 % interval, which is slope ± t · stderr; the quantile of Student's t
        with effective − 2 degrees of freedom, or less where a random walk bounds it. NaN under 3.
    """

    slope: float
    stderr: float
    mean: float
    count: int
    skipped: int
    stderr_independent: float = math.nan
    autocorrelation: float = math.nan
    effective: float = math.nan
    t: float = math.nan


class Trend(msgspec.Struct, frozen=True, gc=False):
    """Where a metric is going.

    slope, stderr: per snapshot; of the values, or with `better="toward"` of their distance from the
        target (negative: approaching).
    recent_avg: mean of the last 10 usable values; NaN where there are none.
    snapshots: usable values that it rests on.
    autocorrelation: as in `Slope`, of what the slope is of.
    reaches: when it is at the limit that it is going to, if whoever asked knows one and it degrades.
    """

    direction: Direction
    slope: float
    stderr: float
    recent_avg: float
    snapshots: int
    autocorrelation: float = math.nan
    reaches: TimeTo | None = None


def slope(values: npt.ArrayLike) -> Slope:
    """Least-squares slope per snapshot.

    values: array-like, shape=[n], oldest first, one per snapshot. Values that are not finite are
    skipped and counted, and keep their place in time.

    The standard error is that of independent residuals with the number of values n replaced by the
    effective one, n_e = n (1 − r) / (1 + r), in the degrees of freedom (Santer et al., J. Geophys. Res. 105, 2000,
    section 4, equations 4 to 6), r the lag-1 autocorrelation of the residuals. The plain estimate of r is
    too low by (2 + 4 r) / n after a line was fitted (Kang, Shaman and Stine, Biometrika 73, 1986); that is undone.
    A negative r counts as 0, and n_e as at least 3.

    No stationary AR(1) series goes further than a random walk with its steps, whose slope has the variance
    1.2 σ² (n² + 1) / (n (n² − 1)), which tends to 6 σ² / 5 n (Durlauf and Phillips, Econometrica 56, 1988). With that,
    t of n − 2 degrees of freedom and the independent error as a floor, the interval is no wider: a step or a
    bend, which a line does not describe, would else be taken for autocorrelation however large it is. σ² is a
    third of the mean square of the residuals' differences over 3 steps, without the 3 largest (under 40
    values: over 1 step, without the largest).

    Chosen by simulation (20,000 flat normal AR(1) series each). Slopes that the interval puts off 0, nominal 5 %,
    and the median of stderr over the true spread; in brackets 2 errors of independent residuals:

        n     ρ = 0               ρ = 0.5             ρ = 0.9
        20    3.4 %  1.08 (6 %)   6.9 %  1.04 (26 %)  11.5 %  0.94 (61 %)
        50    3.8 %  1.04 (5 %)   5.4 %  1.02 (25 %)   7.6 %  1.13 (66 %)
        200   4.3 %  1.02 (5 %)   4.9 %  1.00 (25 %)   5.2 %  1.05 (65 %)

    What that costs: a step 10 of 50 values before the end that is 5 to 15 times the noise is often not told
    from the excursion of a correlated series. A change of level is for a change detector to find.
    """
    found, error, mean, count, skipped, independent, correlation, effective, t = least_squares(values)
    return Slope(found, error, mean, count, skipped, independent, correlation, effective, t)


def trend(
    values: npt.ArrayLike, better: Literal["up", "down", "toward"], target: float | None = None
) -> Trend:
    """The direction of a series: a slope whose 95 % interval, as in `slope`, holds 0 is `stable`.

    values: array-like, shape=[n], oldest first; values that are not finite are skipped. Under 10
        usable ones the direction is `unknown`.
    better: whether higher values are better, lower ones, or those nearer to `target`.
    target: needed for `"toward"`, in the metric's unit.
    """
    if better not in ("up", "down", "toward"):
        raise ValueError(f"better: expected 'up', 'down' or 'toward', got {better!r}")
    if better == "toward" and target is None:
        raise ValueError("target: expected a number for better='toward', got None")
    found, error, t, recent, count, correlation = recent_line(
        values, RECENT, target if better == "toward" else None
    )
    direction: Direction
    if count < ENOUGH:
        direction = "unknown"
    elif abs(found) <= t * error:
        direction = "stable"
    else:
        direction = "improving" if (found > 0.0) == (better == "up") else "degrading"
    return Trend(direction, found, error, recent, count, correlation)
