"""Intervals that healthy means lie in: what the bounded tests may take for granted, and no more.

A bet on a signal wins on average only where the signal's mean is beyond its bound. The bound is therefore
not the learned mean but the upper end of a confidence interval of it, jointly for all signals.
"""

from __future__ import annotations

import math

import numpy as np

from qigcore._detectors import lagged, moving
from qigcore.calibration.memory import coefficients, residuals
from qigcore.calibration.record import CLIP, WEIGHTS, Signal
from qigcore.calibration.tails import normal_isf, scaled_chi2_isf
from qigcore.rows import FloatArray

ALPHA = 0.05
"""Probability that any of the bounds is wrong at all, when the window is of the healthy state."""

HIGHEST = 0.9
"""A bound of the mean of z: beyond, a bet could hardly win, and the signal says nothing."""


def clipped(residual: FloatArray, scale: FloatArray | float) -> FloatArray:
    """z in [−1, 1]."""
    z = residual / (CLIP * np.asarray(scale))
    return np.clip(z, -1.0, 1.0, out=z)


def mean_bounds(z: FloatArray, signals: int, hours: int = 1) -> tuple[FloatArray, FloatArray]:
    """Upper bounds of the means of z and of −z, per column of [n, k], at level ALPHA over 2·`signals` bounds.

    hours: of a season, each of whose means rests on as much smaller a part of the rows; 1 without one.
    """
    n = len(z)
    mean = z.mean(axis=0)
    lag, power = lagged(z, mean, mean)
    power += np.square(z[-1] - mean)
    rho = np.clip(np.divide(lag, power, out=np.zeros_like(lag), where=power > 0.0), 0.0, 0.9)
    rho = np.where(rho > 2.0 / math.sqrt(n), rho, 0.0)
    error = np.sqrt(power / n / max(n - 1, 1) * (1.0 + rho) / (1.0 - rho))
    # A signal that hardly ever leaves one value may do so more often than was seen: rule of three.
    reach = normal_isf(ALPHA / (2 * signals)) * error * math.sqrt(hours) + 3.0 / n
    return np.clip(mean + reach, 0.0, HIGHEST), np.clip(-mean + reach, 0.0, HIGHEST)


def signal_of(
    values: FloatArray, *, floor_sd: float, log: bool, floor: float, signals: int, hours: int = 1
) -> Signal:
    """What the bounded tests need of one figure. values: shape [n], finite, in order of time, on its tested scale."""
    center = float(values.mean())
    deviations = (values - center)[:, None]
    memory = coefficients(deviations)
    left = residuals(deviations, memory)
    scale = max(float(left.std(ddof=1)), floor_sd)
    up, down = mean_bounds(clipped(left, scale), signals, hours)
    return Signal(
        center=center,
        scale=scale,
        memory=float(memory[0]),
        up=float(up[0]),
        down=float(down[0]),
        log=log,
        floor=floor,
    )


def direction_bounds(rows: FloatArray, trace: float, trace2: float, support: float) -> tuple[float, ...]:
    """Bounds of the mean of the bet along each moving average but the first.

    rows: whitened by what they did not teach, shape [n, k]. support: rows that each mean rests on. Whatever the
    direction, its mean is at most the length of the error of the learned mean, which has a scaled χ² law; to
    which comes what clipping a skewed row adds, as far as it was seen.
    """
    n = len(rows)
    wrong = math.sqrt(scaled_chi2_isf(trace, 2.0 * trace2, ALPHA) / support) / CLIP
    made = []
    for weight in WEIGHTS[1:]:
        _, along = moving(rows, weight)
        z = np.clip(along[1:] / CLIP, -1.0, 1.0)
        seen = max(float(z.mean()), 0.0) + 2.0 * float(z.std()) / math.sqrt(n)
        made.append(min(wrong + seen, HIGHEST))
    return tuple(made)
