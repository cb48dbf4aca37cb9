"""What one row foretells of the next: AR(1) coefficients, and the residuals they leave.

Taking the forecast off makes residuals that are nearly independent, and keeps a test of them as sharp as the
series allows: a shift of the mean shows whole in the first row and in part in each later one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from qigcore._detectors import gram, lagged
from qigcore.rows import FloatArray

STEADIEST = 0.98
"""Coefficients are kept below: beyond, a series wanders for longer than any window shows."""

SURE = 3.0
"""Standard errors by which autocorrelation must exceed 0 before it is reckoned with."""


ALLOWED = 2.5
"""Standard errors of the coefficients that limits allow for."""


class Estimated(NamedTuple):
    """coefficients: AR(1), of each column about its mean, shape [k]; all 0 where there is no sign of any.

    error: standard error of their mean; 0 for none. What single columns are off by besides is as often too much
        as too little, and hardly shows in their sum.
    """

    coefficients: FloatArray
    error: float


def coefficients(deviations: FloatArray) -> FloatArray:
    """The coefficients that `estimated` finds, shape [k]."""
    return estimated(deviations).coefficients


def estimated(deviations: FloatArray) -> Estimated:
    """What each row foretells of the next.

    deviations: shape [n, k], in order of time, finite. By least squares, Kendall's (1954) bias (1 + 3ρ)/n taken
    off. A single column's estimate is off by 1/√n, so that columns are drawn towards their common mean as far as
    their scatter is what such errors make (James and Stein; Efron and Morris 1975).
    """
    n, k = deviations.shape
    center = deviations.mean(axis=0)
    cross = gram(deviations, center) if n >= 10 else np.zeros((k, k))
    power = np.diagonal(cross)
    live = power > 0.0
    if not live.any():
        return Estimated(np.zeros(k), 0.0)
    # The rows but the last, and but the first, each about their own mean.
    before = center + (center - deviations[-1]) / (n - 1)
    after = center + (center - deviations[0]) / (n - 1)
    lag, least = lagged(deviations, before, after)
    found = np.zeros(k)
    ratio = lag[live] / np.maximum(least[live], 1e-300)
    found[live] = np.clip((ratio + 1.0 / n) / (1.0 - 3.0 / n), -STEADIEST, STEADIEST)
    values = found[live]
    mean = float(values.mean())
    # Columns that go together tell less than as many single ones.
    shrink = np.zeros(k)
    shrink[live] = 1.0 / np.sqrt(power[live])
    cross *= shrink
    cross *= shrink[:, None]
    together = len(values) ** 2 / float(np.einsum("ij,ij->", cross, cross))
    variance = max(1.0 - mean * mean, 1e-3) / n
    scatter = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    some = abs(mean) > SURE * math.sqrt(variance / together)
    differing = scatter > variance * (1.0 + SURE * math.sqrt(2.0 / together))
    if not some and not differing:
        return Estimated(np.zeros(k), 0.0)
    keep = max(0.0, 1.0 - variance / scatter) if scatter > 0.0 else 0.0
    if len(values) < 4:
        keep = 1.0
    found[live] = np.clip(mean + keep * (values - mean), -STEADIEST, STEADIEST)
    return Estimated(found, math.sqrt(variance / together))


def swelling(weight: float, memory: float, error: float) -> float:
    """Variance of a moving average of AR(1) residuals over that of independent ones, the coefficient off by `error`.

    Residuals of x_t = ρx_{t−1} + ε with ρ̂ = ρ − δ are correlated at lag k by δρ^{k−1}, to first order in δ.
    """
    keep = 1.0 - weight
    return 1.0 + 2.0 * error * keep / (1.0 - keep * max(memory, 0.0))


def residuals(deviations: FloatArray, memory: FloatArray) -> FloatArray:
    """deviations[t] − memory·deviations[t−1], shape [n, k]; the first row has √(1 − memory²) in place of that."""
    if not memory.any():
        return deviations
    left = deviations.copy()
    left[1:] -= memory * deviations[:-1]
    left[0] *= np.sqrt(1.0 - memory * memory)
    return left
