"""Trends from the order of values alone: outliers and skewed noise count no more than any other value.

Its names are reached through `qigcore.trends`, which loads it at their first use.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore._ranks import concordance, lagged_products, pair_slopes
from qigcore._streams import least_squares
from qigcore.timeto import ENOUGH

FloatArray = npt.NDArray[np.float64]
Correction = Literal["none", "hamed-rao", "ar1"]

MOST = 2048
"""Points whose pairs are all looked at: 2.1 million slopes, 17 MB while they are held."""

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


class TheilSen(msgspec.Struct, frozen=True):
    """A straight line through a series by the median of the slopes of all pairs.

    slope: change per snapshot, in the metric's unit; NaN under 2 usable values.
    low, high: its 95 % interval; infinite where too few pairs can bound it (under 5 values), NaN under 2.
    intercept: the line's value at the first place of the series: median value − slope · median place.
    count, skipped: how many values were usable, and how many were not finite.
    block: usable values that one point stands for; above 1 for more than 2,048 of them.
    """

    slope: float
    low: float
    high: float
    intercept: float
    count: int
    skipped: int
    block: int


class MannKendall(msgspec.Struct, frozen=True):
    """A test of whether later values tend to be higher, or lower, than earlier ones.

    s: pairs that rise less pairs that fall.
    variance: of s where there is no trend, corrected for ties and by `factor`.
    z, p: standardised with continuity correction, and two-sided; NaN under 3 usable values.
    direction: at the 5 % level; `unknown` under 10 usable values, where s is far from normal.
    count, skipped: how many values were usable, and how many were not finite.
    factor: by how much autocorrelation widens the variance; 1 where it is not corrected.
    block: usable values that one point stands for; above 1 for more than 2,048 of them.
    """

    s: int
    variance: float
    z: float
    p: float
    direction: Literal["rising", "falling", "none", "unknown"]
    count: int
    skipped: int
    factor: float
    block: int


class _Points(NamedTuple):
    places: FloatArray
    values: FloatArray
    usable: int
    skipped: int
    block: int


def theil_sen(values: npt.ArrayLike, correction: Correction = "none") -> TheilSen:
    """Theil–Sen slope per snapshot with its 95 % interval.

    values: array-like, shape=[n], oldest first, one per snapshot. Values that are not finite are skipped
        and counted, and keep their place in time. More than 2,048 usable ones are taken as the medians
        of k consecutive ones at their mean place, k = ⌈usable / 2048⌉; up to k − 1 of the oldest are left out.
    correction: how the interval minds autocorrelation; see `mann_kendall`. With "none" it is Sen's, which
        holds 95 % for independent noise only.

    Source: Sen, J. Am. Stat. Assoc. 63, 1968: the estimate in section 2, the interval in section 4 with the
    variance of section 5 (ties). Raises ValueError for what is no series, or for another correction.
    """
    _known(correction)
    points = _points(values)
    n = len(points.values)
    tail = (points.usable, points.skipped, points.block)
    if n < 2:
        return TheilSen(math.nan, math.nan, math.nan, math.nan, *tail)
    slope, slopes = _median_slope(points)
    factor = _factor(points, slope, correction)
    reach = Z95 * math.sqrt(_tied_variance(points.values) * factor)
    first, last = round((len(slopes) - reach) / 2.0) - 1, round((len(slopes) + reach) / 2.0)
    held = [k for k in (first, last) if 0 <= k < len(slopes)]
    slopes.partition(held or [0])
    return TheilSen(
        slope,
        float(slopes[first]) if first >= 0 else -math.inf,
        float(slopes[last]) if last < len(slopes) else math.inf,
        float(np.median(points.values)) - slope * float(np.median(points.places)),
        *tail,
    )


def mann_kendall(values: npt.ArrayLike, correction: Correction = "hamed-rao") -> MannKendall:
    """Mann–Kendall test for a monotone trend, with ties and autocorrelation minded.

    values: array-like, shape=[n], oldest first, one per snapshot; skipped, counted and, above 2,048 usable
        ones, gathered as in `theil_sen`. Only their order counts: neighbours across a gap are neighbours.
    correction: by what the variance of independent values is multiplied.
        "hamed-rao"  Hamed and Rao, J. Hydrol. 204, 1998, equation 21 with the autocorrelation of
                     the ranks of the values less their Theil–Sen line, at the lags where it is significant at 5 %.
                     Never by less than 1: what looks negatively correlated in short series is mostly chance.
        "ar1"        Yue and Wang, Water Resour. Manag. 18, 2004: count / effective count for a first-order
                     autoregression, whose coefficient is that of `qigcore.trends.slope`.
        "none"       1

    Flat normal AR(1) series called rising or falling, nominal 5 % (2,000 simulated each, 400 of 200 values):

        n     ρ = 0, 0.5, 0.9: "none"    "hamed-rao"       "ar1"
        20    5, 22, 54 %                5, 20, 44 %       3, 7, 13 %
        50    4, 23, 62 %                4, 16, 40 %       4, 6, 10 %
        200   5, 26, 58 %                4, 15, 27 %       5, 6, 4 %

    "hamed-rao" helps little in short series, whose significant lags are few; take "ar1" where noise may be
    strongly correlated.
    Raises ValueError for what is no series, or for another correction.
    """
    _known(correction)
    points = _points(values)
    n = len(points.values)
    tail = (points.usable, points.skipped)
    s = concordance(points.values)
    variance = _tied_variance(points.values)
    if n < 3:
        return MannKendall(s, variance, math.nan, math.nan, "unknown", *tail, 1.0, points.block)
    factor = 1.0 if correction == "none" else _factor(points, _median_slope(points)[0], correction)
    variance *= factor
    z = (s - math.copysign(1.0, s)) / math.sqrt(variance) if s else 0.0
    p = math.erfc(abs(z) / math.sqrt(2.0))
    direction: Literal["rising", "falling", "none", "unknown"] = "unknown"
    if n >= ENOUGH:
        direction = "none" if abs(z) <= Z95 else "rising" if s > 0 else "falling"
    return MannKendall(s, variance, z, p, direction, *tail, factor, points.block)


def _known(correction: str) -> None:
    if correction not in ("none", "hamed-rao", "ar1"):
        raise ValueError(f"correction: expected 'hamed-rao', 'ar1' or 'none', got {correction!r}")


def _points(values: npt.ArrayLike) -> _Points:
    series = np.asarray(values, np.float64)
    if series.ndim != 1:
        raise ValueError(f"values: expected one series, shape [n], got shape {list(series.shape)}")
    usable = np.isfinite(series)
    places = np.flatnonzero(usable).astype(np.float64)
    kept = np.ascontiguousarray(series[usable])
    count = len(kept)
    block = max(1, -(-count // MOST))
    if block > 1:
        whole = count - count % block
        kept = np.median(kept[count - whole :].reshape(-1, block), axis=1)
        places = places[count - whole :].reshape(-1, block).mean(axis=1)
    return _Points(places, kept, count, len(series) - count, block)


def _median_slope(points: _Points) -> tuple[float, FloatArray]:
    """The median of the slopes of all pairs, and those slopes in some order."""
    largest = float(np.abs(points.values).max())
    shrink = 0.25 if largest > 1e307 else 1.0  # so that no difference overflows
    slopes = pair_slopes(points.places, points.values * shrink)
    if shrink != 1.0:
        with np.errstate(over="ignore"):  # a slope from one end of the range to the other in a step
            slopes /= shrink
    half = len(slopes) // 2
    if len(slopes) % 2:
        slopes.partition(half)
        return float(slopes[half]), slopes
    slopes.partition((half - 1, half))
    low, high = float(slopes[half - 1]), float(slopes[half])
    return low / 2.0 + high / 2.0 if abs(low) > 1e307 or abs(high) > 1e307 else (low + high) / 2.0, slopes


def _tied_variance(values: FloatArray) -> float:
    """Of S for independent values: Kendall, Rank Correlation Methods, section 4.9 (ties in one series)."""
    n = len(values)
    ties = [int(t) for t in np.unique(values, return_counts=True)[1] if t > 1]
    return (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18.0


def _factor(points: _Points, slope: float, correction: Correction) -> float:
    n = len(points.values)
    if correction == "none" or n < ENOUGH:
        return 1.0
    if correction == "ar1":
        return n / least_squares(points.values)[7]
    _, where, ties = np.unique(points.values - slope * points.places, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2.0)[where] - (n + 1) / 2.0
    products = lagged_products(np.ascontiguousarray(ranks, np.float64))
    if not products[0] > 0.0:
        return 1.0
    lags = np.arange(1, n)
    correlation = products[1:] / products[0]
    correlation[np.abs(correlation) <= Z95 / math.sqrt(n)] = 0.0
    weights = (n - lags) * (n - lags - 1.0) * (n - lags - 2.0)
    return max(1.0, 1.0 + 2.0 * float(weights @ correlation) / (n * (n - 1.0) * (n - 2.0)))
