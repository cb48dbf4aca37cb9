"""From a run length to limits: of the squared moving averages, and of the bets' wealth.

The budget is one alarm in A healthy snapshots, for all charts together. A fifth of it is the bets', which
keep to theirs with much to spare; the rest is shared equally by the moving averages. What they exceed by
chance is bounded by the sum of what each does (Boole), which holds for any dependence between them.
"""

from __future__ import annotations

import math

from qigcore.calibration.record import WEIGHTS, Calibration, Spread, Tail
from qigcore.calibration.tails import scaled_chi2_isf

BETS_SHARE = 0.2


SURE = 2.0
"""Standard errors of the learned mean length that limits allow for."""


def chart_moments(
    learned: Calibration, spread: Spread, dim: int, weight: float
) -> tuple[float, float, float]:
    """Mean, variance and skewness of ‖average‖²·(2 − w)/w in health, of rows of `dim` components.

    For an average of rows with covariance C about a mean that rests on n rows: the mean is tr C·(1 + 1/(n·s)),
    s = w/(2 − w); the variance 2·tr C²·(1 + 1/(n·s))², and what single rows have of it beyond normal ones, by the
    weights' fourth powers; the third central moment 8·tr C³·(1 + 1/(n·s))³. tr C³ is not learned: it is that of
    lognormal eigenvalues with the learned tr C and tr C².
    """
    s = weight / (2.0 - weight)
    fourth = 1.0 if weight == 1.0 else weight**4 / (1.0 - (1.0 - weight) ** 4) / s**2
    swell = spread.inflation[WEIGHTS.index(weight)] + 1.0 / (learned.support * s)
    swell *= 1.0 + SURE * math.sqrt(2.0 * spread.trace2 / learned.rows) / spread.trace
    variance = 2.0 * spread.trace2 * swell * swell + spread.excess4 * fourth
    third = spread.trace**3 / dim**2 * (spread.trace2 * dim / spread.trace**2) ** 3
    return spread.trace * swell, variance, 8.0 * third * swell**3 / variance**1.5


def _each(learned: Calibration, rate: float) -> float:
    """The part of the budget that one chart has."""
    charts = len(WEIGHTS) + (len(WEIGHTS) - 1 if learned.figures is not None else 0)
    return min(rate / charts, 0.5)


def _limit(moments: tuple[float, float, float], rate: float) -> float:
    mean, variance, skewness = moments
    return scaled_chi2_isf(mean, variance, rate, skewness)


def chart_limits(learned: Calibration, rate: float) -> tuple[float, ...]:
    """Limits of ‖average‖²·(2 − w)/w of the amplitudes, one for each of WEIGHTS.

    rate: part of healthy snapshots, 0 to 1, in which any chart at all may be beyond its limit by chance. That of
    single rows is no lower than their measured tail continued.
    """
    each, dim = _each(learned, rate), len(learned.center)
    limits = [_limit(chart_moments(learned, learned.spread, dim, weight), each) for weight in WEIGHTS]
    if learned.tail is not None:
        limits[0] = max(limits[0], _continued(learned.tail, each))
    return tuple(limits)


def figure_limits(learned: Calibration, rate: float) -> tuple[float, ...]:
    """The same of the figures' averages; infinite for single rows, whose scores are clipped, and for no figures."""
    if learned.figures is None:
        return (math.inf,) * len(WEIGHTS)
    each, dim = _each(learned, rate), len(learned.signals)
    averages = [_limit(chart_moments(learned, learned.figures, dim, weight), each) for weight in WEIGHTS[1:]]
    return (math.inf, *averages)


def longest_step(learned: Calibration, rate: float) -> float:
    """Squared length beyond which a row is shortened before it moves an average: what normal rows exceed in
    `rate` of cases. One of an outlier's length would lift the average of weight 0.3 over its limit by itself."""
    mean, half = learned.trace * (1.0 + 1.0 / learned.rows), learned.trace2 * (1.0 + 1.0 / learned.rows) ** 2
    return scaled_chi2_isf(mean, 2.0 * half, _each(learned, rate))


def _continued(tail: Tail, rate: float) -> float:
    folds = math.log(max(tail.share / rate, 1.0))
    if tail.shape == 0.0:
        return tail.start + tail.scale * folds
    return tail.start + tail.scale / tail.shape * math.expm1(tail.shape * folds)


def bets_limit(run_length: float) -> float:
    """Wealth at which the bounded tests alarm: Shiryaev–Roberts sums of bets that do not win on average reach
    it once in as many snapshots at most (Shin, Ramdas and Rinaldo 2022, arXiv 2203.03532, theorem 2.4)."""
    return run_length / BETS_SHARE


def chart_rate(run_length: float) -> float:
    """Part of healthy snapshots that may exceed a limit of the moving averages."""
    return (1.0 - BETS_SHARE) / run_length
