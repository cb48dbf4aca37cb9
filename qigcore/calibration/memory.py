"""What one row foretells of the next: AR(1) coefficients, and the residuals they leave.

Taking the forecast off makes residuals that are nearly independent, and keeps a test of them as sharp as the
series allows: a shift of the mean shows whole in the first row and in part in each later one.
"""

from __future__ import annotations

import math

import numpy as np

from qigcore.rows import FloatArray

STEADIEST = 0.98
"""Coefficients are kept below: beyond, a series wanders for longer than any window shows."""

SURE = 3.0
"""Standard errors by which autocorrelation must exceed 0 before it is reckoned with."""


def coefficients(deviations: FloatArray) -> FloatArray:
    """AR(1) coefficient of each column about its mean, shape [k]; all 0 where there is no sign of any.

    deviations: shape [n, k], in order of time, finite. Kendall's (1954) bias (1 + 3ρ)/n is taken off. A single
    column's estimate is off by 1/√n, so that columns are drawn towards their common mean as far as their
    scatter is what such errors make (James and Stein; Efron and Morris 1975).
    """
    n, k = deviations.shape
    centred = deviations - deviations.mean(axis=0)
    power = np.einsum("ij,ij->j", centred, centred)
    lag = np.einsum("ij,ij->j", centred[1:], centred[:-1])
    live = power > 0.0
    if n < 10 or not live.any():
        return np.zeros(k)
    found = np.zeros(k)
    found[live] = (lag[live] / power[live] + 1.0 / n) / (1.0 - 3.0 / n)
    found = np.clip(found, -STEADIEST, STEADIEST)
    values = found[live]
    mean = float(values.mean())
    # Columns that go together tell less than as many single ones.
    correlation = centred[:, live] / np.sqrt(power[live])
    gram = correlation.T @ correlation
    together = len(values) ** 2 / float(np.sum(gram * gram))
    variance = max(1.0 - mean * mean, 1e-3) / n
    scatter = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
    some = abs(mean) > SURE * math.sqrt(variance / together)
    differing = scatter > variance * (1.0 + SURE * math.sqrt(2.0 / together))
    if not some and not differing:
        return np.zeros(k)
    keep = max(0.0, 1.0 - variance / scatter) if scatter > 0.0 else 0.0
    if len(values) < 4:
        keep = 1.0
    found[live] = np.clip(mean + keep * (values - mean), -STEADIEST, STEADIEST)
    return found


def residuals(deviations: FloatArray, memory: FloatArray) -> FloatArray:
    """deviations[t] − memory·deviations[t−1], shape [n, k]; the first row has √(1 − memory²) in place of that."""
    if not memory.any():
        return deviations
    left = deviations.copy()
    left[1:] -= memory * deviations[:-1]
    left[0] *= np.sqrt(1.0 - memory * memory)
    return left
