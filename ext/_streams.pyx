"""Loops over one metric's recent values; the records they fill stand in `qigcore.trends`.

Precision policy. Values are taken relative to the first usable one and scaled by a power of two, so
that a constant series has slope 0 exactly and nothing overflows; sums of squares are taken about the
means, in a second and third pass, never as differences of raw moments.
"""

cimport numpy as cnp
from libc.math cimport NAN, fabs, frexp, isfinite, ldexp, sqrt

import numpy as np

cnp.import_array()


cdef inline double _at(const char* data, Py_ssize_t stride, Py_ssize_t i) noexcept nogil:
    return (<const double*>(data + i * stride))[0]


def least_squares(values, Py_ssize_t recent):
    """Straight line through the usable values of a series, and the mean of the last `recent` of them.

    values : array-like, shape=[n]; float64 arrays are read in place, at any stride. Values that are
    not finite keep their place in the series but are skipped.

    Returns (slope per step, its standard error, mean, recent mean, usable values, skipped values).
    Slope needs 2 usable values, its error 3, the means 1; NaN otherwise.
    """
    cdef cnp.ndarray series
    cdef const char* data
    cdef Py_ssize_t stride, n, i
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t late = 0
    cdef double origin = 0.0
    cdef double largest = 0.0
    cdef double middle = 0.0
    cdef double mean = 0.0
    cdef double ending = 0.0
    cdef double across = 0.0
    cdef double along = 0.0
    cdef double left = 0.0
    cdef double slope = NAN
    cdef double error = NAN
    cdef double value, x, y, shrink, grow
    cdef int exponent = 0
    if (
        cnp.PyArray_CheckExact(values)
        and cnp.PyArray_TYPE(<cnp.ndarray>values) == cnp.NPY_DOUBLE
        and cnp.PyArray_NDIM(<cnp.ndarray>values) == 1
        and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>values)
    ):
        series = values
    else:
        series = np.require(values, np.float64, ("C", "A"))
        if cnp.PyArray_NDIM(series) != 1:
            shape = list((<object>series).shape)
            raise ValueError(f"values: expected one series, shape [n], got shape {shape}")
    data = <const char*>cnp.PyArray_DATA(series)
    stride = cnp.PyArray_STRIDE(series, 0)
    n = cnp.PyArray_DIM(series, 0)
    for i in range(n):
        value = _at(data, stride, i)
        if isfinite(value):
            if count == 0:
                origin = value
            count += 1
            middle += (i - middle) / count
            largest = max(largest, fabs(value))
    if count == 0:
        return NAN, NAN, NAN, NAN, 0, n
    if largest > 0.0:
        frexp(largest, &exponent)
        exponent = min(exponent, 1000)  # both factors below stay finite
        exponent = max(exponent, -1000)
    shrink = ldexp(1.0, -exponent)
    grow = ldexp(1.0, exponent)
    origin *= shrink
    for i in range(n):
        value = _at(data, stride, i)
        if isfinite(value):
            mean += value * shrink - origin
    mean /= count
    for i in range(n - 1, -1, -1):
        value = _at(data, stride, i)
        if late == recent:
            break
        if isfinite(value):
            late += 1
            ending += value * shrink - origin
    if late:
        ending /= late
    if count >= 2:
        for i in range(n):
            value = _at(data, stride, i)
            if isfinite(value):
                x = i - middle
                across += x * x
                along += x * (value * shrink - origin - mean)
        slope = along / across
    if count >= 3:
        for i in range(n):
            value = _at(data, stride, i)
            if isfinite(value):
                y = value * shrink - origin - mean - slope * (i - middle)
                left += y * y
        error = sqrt(left / (count - 2) / across) * grow
    return (
        slope * grow, error, (mean + origin) * grow, (ending + origin) * grow if late else NAN,
        count, n - count,
    )
