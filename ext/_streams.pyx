"""Loops over one metric's recent values; the records they fill stand in `qigcore.trends`.

Precision policy. Values are taken relative to the first usable one and scaled by a power of two, so
that a constant series has slope 0 exactly and nothing overflows; sums of squares are taken about the
means, in a second and third pass, never as differences of raw moments.
"""

cimport numpy as cnp
from libc.math cimport NAN, fabs, frexp, isfinite, ldexp, sqrt

import numpy as np

cnp.import_array()


cdef struct Series:
    const char* data
    Py_ssize_t stride
    Py_ssize_t n
    bint toward  # whether the line is drawn through the distances from `target`
    double target


cdef struct Line:
    double slope
    double error
    double mean
    double recent
    Py_ssize_t count


cdef inline double _at(const Series* series, Py_ssize_t i) noexcept nogil:
    return (<const double*>(series.data + i * series.stride))[0]


cdef inline double _seen(const Series* series, Py_ssize_t i) noexcept nogil:
    """What the line is drawn through; not finite where it cannot be used."""
    return fabs(_at(series, i) - series.target) if series.toward else _at(series, i)


cdef inline int _exponent(double largest) noexcept nogil:
    """That of the power of two which values are divided by; it and its inverse are finite."""
    cdef int exponent = 0
    if largest > 0.0:
        frexp(largest, &exponent)
    return max(min(exponent, 1000), -1000)


cdef double _recent_mean(const Series* series, Py_ssize_t recent) noexcept nogil:
    """Mean of the last `recent` usable values as they are, whatever the line is drawn through."""
    cdef double origin = 0.0
    cdef double largest = 0.0
    cdef double total = 0.0
    cdef double value, shrink
    cdef Py_ssize_t late = 0
    cdef Py_ssize_t first = series.n
    cdef int exponent
    while first > 0 and late < recent:
        first -= 1
        value = _at(series, first)
        if isfinite(value):
            late += 1
            origin = value
            largest = max(largest, fabs(value))
    if late == 0:
        return NAN
    exponent = _exponent(largest)
    shrink = ldexp(1.0, -exponent)
    origin *= shrink
    for first in range(first, series.n):
        value = _at(series, first)
        if isfinite(value):
            total += value * shrink - origin
    return (total / late + origin) * ldexp(1.0, exponent)


cdef void _fit(const Series* series, Line* line) noexcept nogil:
    """Fills in all but the recent mean."""
    cdef double origin = 0.0
    cdef double largest = 0.0
    cdef double middle = 0.0
    cdef double mean = 0.0
    cdef double across = 0.0
    cdef double along = 0.0
    cdef double left = 0.0
    cdef double value, x, y, shrink, grow
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    cdef int exponent
    line.slope = line.error = line.mean = NAN
    for i in range(series.n):
        value = _seen(series, i)
        if isfinite(value):
            if count == 0:
                origin = value
            count += 1
            middle += i
            largest = max(largest, fabs(value))
    line.count = count
    if count == 0:
        return
    middle /= count
    exponent = _exponent(largest)
    shrink = ldexp(1.0, -exponent)
    grow = ldexp(1.0, exponent)
    origin *= shrink
    for i in range(series.n):
        value = _seen(series, i)
        if isfinite(value):
            mean += value * shrink - origin
    mean /= count
    line.mean = (mean + origin) * grow
    if count >= 2:
        for i in range(series.n):
            value = _seen(series, i)
            if isfinite(value):
                x = i - middle
                across += x * x
                along += x * (value * shrink - origin - mean)
        along /= across
        line.slope = along * grow
    if count >= 3:
        for i in range(series.n):
            value = _seen(series, i)
            if isfinite(value):
                y = value * shrink - origin - mean - along * (i - middle)
                left += y * y
        line.error = sqrt(left / (count - 2) / across) * grow


def least_squares(values, Py_ssize_t recent, target=None):
    """Straight line through the usable values of a series, and the mean of the last `recent` of them.

    values : array-like, shape=[n]; float64 arrays are read in place, at any stride. Values that are
    not finite keep their place in the series but are skipped.
    target : float or None. With one, the line is drawn through the distances |value − target|; the
    recent mean is that of the values themselves.

    Returns (slope per step, its standard error, mean, recent mean, usable values, skipped values).
    Slope needs 2 usable values, its error 3, the means 1; NaN otherwise.
    """
    cdef cnp.ndarray array
    cdef Series series
    cdef Line line
    if (
        cnp.PyArray_CheckExact(values)
        and cnp.PyArray_TYPE(<cnp.ndarray>values) == cnp.NPY_DOUBLE
        and cnp.PyArray_NDIM(<cnp.ndarray>values) == 1
        and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>values)
    ):
        array = values
    else:
        array = np.require(values, np.float64, ("C", "A"))
        if cnp.PyArray_NDIM(array) != 1:
            shape = list((<object>array).shape)
            raise ValueError(f"values: expected one series, shape [n], got shape {shape}")
    series.data = <const char*>cnp.PyArray_DATA(array)
    series.stride = cnp.PyArray_STRIDE(array, 0)
    series.n = cnp.PyArray_DIM(array, 0)
    series.toward = target is not None
    series.target = 0.0 if target is None else target
    _fit(&series, &line)
    line.recent = _recent_mean(&series, recent)
    return line.slope, line.error, line.mean, line.recent, line.count, series.n - line.count
