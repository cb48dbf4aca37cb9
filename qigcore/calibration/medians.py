"""The median, as numpy has it, without what numpy loads for it."""

from __future__ import annotations

import numpy as np

from qigcore.rows import FloatArray


def median(values: FloatArray) -> FloatArray:
    """Median along the first axis, shape values.shape[1:]; NaN where there is one, and of nothing.

    values: shape [n, …]. `numpy.median` imports `numpy.ma` at its first call: a megabyte and some milliseconds,
    which would be a request's.
    """
    n = len(values)
    if n == 0:
        return np.full(values.shape[1:], np.nan)
    half = n // 2
    places = [half, n - 1] if n % 2 else [half - 1, half, n - 1]
    ordered = np.partition(values, places, axis=0)
    middle = ordered[half] if n % 2 else (ordered[half - 1] + ordered[half]) / 2.0
    # A NaN is sorted behind all numbers.
    return np.asarray(np.where(np.isnan(ordered[-1]), np.nan, middle))
