"""Residuals made round, and how the squared length of a moving average of them is spread in health.

The covariance of a few hundred rows of 64 components, inverted, is mostly noise. It is shrunk; and how rows
are spread under it is measured on rows that it was not learned from, fold by fold, so that what a small
window costs is in the limits.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from qigcore._detectors import gram, moving, squared_pairs, whiten, whitener_of
from qigcore.calibration.record import WEIGHTS, Spread, Tail
from qigcore.rows import FloatArray

FOLDS = 8

LARGEST_DIM = 256
"""Beyond so many components only their scales are learned: a covariance would need as many rows."""

TAIL_SHARE = 0.05
TAIL_ROWS = 20


class _Part(msgspec.Struct, frozen=True, eq=False):
    """A stretch of rows: their sum [k] and their Gram matrix [k, k], both of deviations from one centre."""

    rows: FloatArray
    total: FloatArray
    cross: FloatArray


def _parts(residuals: FloatArray, center: FloatArray, count: int) -> list[_Part]:
    """The rows in `count` stretches of time."""
    made = []
    for rows in np.array_split(residuals, count):
        made.append(_Part(rows, rows.sum(axis=0) - len(rows) * center, gram(rows, center)))
    return made


def shrunk(residuals: FloatArray, floor: float) -> FloatArray:
    """Covariance of rows [n, k] with the correlations drawn towards 0, after Schäfer and Strimmer (2005), §2.4.

    floor: least sd of a component.
    """
    center = residuals.mean(axis=0)
    return _shrunk(_parts(residuals, center, 1), center, floor)


def _shrunk(parts: list[_Part], center: FloatArray, floor: float) -> FloatArray:
    """`shrunk` of the rows of all parts together, which are about `center`."""
    n = sum(len(part.rows) for part in parts)
    cross = np.zeros_like(parts[0].cross)
    off = np.zeros_like(center)
    # The sums of those that belong: the whole less the one that does not would cancel.
    for part in parts:
        cross += part.cross
        off += part.total
    off /= n
    cross -= n * np.outer(off, off)
    sd = np.maximum(np.sqrt(np.maximum(np.diagonal(cross), 0.0) / (n - 1)), floor)
    inverse = 1.0 / sd
    correlation = cross * np.outer(inverse, inverse) / (n - 1)
    np.fill_diagonal(correlation, 0.0)
    power = float(np.einsum("ij,ij->", correlation, correlation))
    mean = center + off
    squares = 2.0 * math.fsum(squared_pairs(part.rows, mean, inverse) for part in parts)
    # No less than 1/n: rows of a few states only have correlations of 1, and no scatter of those.
    shrink = min(1.0, max(1.0 / n, (squares / n - power) / n / power)) if power > 0.0 else 1.0
    correlation *= 1.0 - shrink
    np.fill_diagonal(correlation, 1.0)
    correlation *= np.outer(sd, sd)
    return correlation


def whitener(residuals: FloatArray, center: FloatArray, floor: float) -> FloatArray:
    """Lower triangular W with W·Σ·Wᵀ = 1, shape [k, k].

    Amplitudes have unit length, so that they hardly vary along their mean; that direction is given the
    mean variance of the others, lest noise of second order in it be blown up.
    """
    return _rounded(shrunk(residuals, floor), center)


def _rounded(covariance: FloatArray, center: FloatArray) -> FloatArray:
    along = center / math.sqrt(float(np.sum(center * center)))
    return whitener_of(covariance + np.trace(covariance) / len(along) * np.outer(along, along))


def rounded(residuals: FloatArray, center: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """(`whitener` of all rows, each row whitened by what the other folds taught, shape [n, k], of mean 0).

    Folds are stretches of time. Each is multiplied out once, and the others' sums added up.
    """
    mean = residuals.mean(axis=0)
    parts = _parts(residuals, mean, FOLDS)
    made = np.empty_like(residuals)
    start = 0
    for part in parts:
        others = [each for each in parts if each is not part]
        stop = start + len(part.rows)
        whiten(part.rows, mean, _rounded(_shrunk(others, mean, floor), center), made[start:stop])
        start = stop
    made -= made.mean(axis=0)
    return _rounded(_shrunk(parts, mean, floor), center), made


def spread(rows: FloatArray, missing: float = 0.0) -> Spread:
    """Moments of the squared lengths of whitened rows [n, k] and of their moving averages.

    trace2 is the unbiased estimate of tr C² (Srivastava 2005, §2), kept between trace²/k and trace², as it is
    for k components; fold by fold and then averaged. Over all rows at once it would come out too small: what
    one fold has by chance, the whiteners of the others have learned to take off. A light tail is not reckoned
    with: limits come from the larger of the normal and the measured spread. missing: what the trace is short
    of by the least noise that a state is taken to have; it is added as independent noise of all components.
    """
    k = rows.shape[1]
    traces, squares = [], []
    for fold in np.array_split(rows, FOLDS):
        m, mean = len(fold), fold.mean(axis=0)
        cross = gram((fold - mean).T) if m < k else gram(fold, mean)  # of one spectrum either way
        total = float(np.trace(cross)) / (m - 1)
        power = float(np.einsum("ij,ij->", cross, cross)) / (m - 1) ** 2
        traces.append(total)
        squares.append((power - total * total / (m - 1)) * (m - 1) ** 2 / ((m - 2) * (m + 1)))
    trace, trace2 = float(np.mean(traces)), float(np.mean(squares))
    trace2 += missing * (2.0 * trace + missing) / k
    trace += missing
    trace2 = min(max(trace2, trace * trace / k), trace * trace)
    lengths = np.einsum("ij,ij->i", rows, rows)
    excess4 = max(float(lengths.var(ddof=1)) - 2.0 * trace2, 0.0)
    inflation = tuple(1.0 if w == 1.0 else _inflation(rows, w, trace, trace2, missing) for w in WEIGHTS)
    return Spread(trace, trace2, excess4, inflation, _tail(lengths))


def _inflation(rows: FloatArray, weight: float, trace: float, trace2: float, missing: float) -> float:
    """Variance of the moving average over that of independent rows, where it is larger by two standard errors."""
    n = len(rows)
    skip = int(3.0 / weight)
    if n < 4 * skip:
        return 1.0
    lengths, _ = moving(rows, weight)
    variance = weight / (2.0 - weight)
    ratio = (float(lengths[skip:].mean()) / (variance - 1.0 / n) + missing) / trace
    keep = (1.0 - weight) ** 2
    error = math.sqrt(2.0 * trace2 / trace**2 / (n - skip) * (1.0 + keep) / (1.0 - keep))
    return ratio if ratio > 1.0 + 2.0 * error else 1.0


def _tail(lengths: FloatArray) -> Tail | None:
    """The upper tail by peaks over a threshold: exponential unless the peaks are clearly heavier.

    The generalised Pareto shape by probability-weighted moments (Hosking and Wallis 1987, §4), kept where it
    exceeds twice its standard error of about 1/√m.
    """
    n = len(lengths)
    if n < 2 * TAIL_ROWS:
        return None
    share = max(TAIL_SHARE, TAIL_ROWS / n)
    ordered = np.sort(lengths)
    count = int(share * n)
    start = float(ordered[n - count - 1])
    peaks = ordered[n - count :] - start
    excess = float(peaks.mean())
    second = float(np.sum(peaks * (count - 1 - np.arange(count))) / (count * (count - 1)))
    shape = 2.0 - excess / (excess - 2.0 * second) if excess > 2.0 * second else 0.0
    shape = min(shape, 0.5) if shape > 2.0 / math.sqrt(count) else 0.0
    return Tail(start=start, share=count / n, scale=excess * (1.0 - shape), shape=shape)
