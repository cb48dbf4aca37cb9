"""From a run length to limits: of the squared moving averages, and of the bets' wealth.

The budget is one alarm in A healthy snapshots, for all charts together. A fifth of it is the bets', which
keep to theirs with much to spare; the rest is shared equally by the moving averages. What they exceed by
chance is bounded by the sum of what each does (Boole), which holds for any dependence between them.
"""

from __future__ import annotations

import math

from qigcore.calibration.record import WEIGHTS, Calibration, Tail
from qigcore.calibration.tails import scaled_chi2_isf

BETS_SHARE = 0.2


SURE = 2.0
"""Standard errors of the learned mean length that limits allow for."""


def chart_moments(learned: Calibration, weight: float) -> tuple[float, float, float]:
    """Mean, variance and skewness of ‖average‖²·(2 − w)/w in health.

    For an average of rows with covariance C about a mean that rests on n rows: the mean is tr C·(1 + 1/(n·s)),
    s = w/(2 − w); the variance 2·tr C²·(1 + 1/(n·s))², and what single rows have of it beyond normal ones, by the
    weights' fourth powers; the third central moment 8·tr C³·(1 + 1/(n·s))³. tr C³ is not learned: it is that of
    lognormal eigenvalues with the learned tr C and tr C².
    """
    s = weight / (2.0 - weight)
    fourth = 1.0 if weight == 1.0 else weight**4 / (1.0 - (1.0 - weight) ** 4) / s**2
    swell = learned.inflation[WEIGHTS.index(weight)] + 1.0 / (learned.support * s)
    swell *= 1.0 + SURE * math.sqrt(2.0 * learned.trace2 / learned.rows) / learned.trace
    variance = 2.0 * learned.trace2 * swell * swell + learned.excess4 * fourth
    dim = len(learned.center)
    third = learned.trace**3 / dim**2 * (learned.trace2 * dim / learned.trace**2) ** 3
    return learned.trace * swell, variance, 8.0 * third * swell**3 / variance**1.5


def chart_limits(learned: Calibration, rate: float) -> tuple[float, ...]:
    """Limits of ‖average‖²·(2 − w)/w, one for each of WEIGHTS, exceeded by chance in `rate` of snapshots at most.

    rate: of all charts together, 0 to 1. That of single rows is no lower than their measured tail continued.
    """
    each = min(rate / len(WEIGHTS), 0.5)
    limits = []
    for weight in WEIGHTS:
        mean, variance, skewness = chart_moments(learned, weight)
        limits.append(scaled_chi2_isf(mean, variance, each, skewness))
    if learned.tail is not None:
        limits[0] = max(limits[0], _continued(learned.tail, each))
    return tuple(limits)


def longest_step(learned: Calibration, rate: float) -> float:
    """Squared length beyond which a row is shortened before it moves an average: what normal rows exceed in
    `rate` of cases. One of an outlier's length would lift the average of weight 0.3 over its limit by itself."""
    mean, half = learned.trace * (1.0 + 1.0 / learned.rows), learned.trace2 * (1.0 + 1.0 / learned.rows) ** 2
    return scaled_chi2_isf(mean, 2.0 * half, min(rate / len(WEIGHTS), 0.5))


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
