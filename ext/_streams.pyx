"""Loops over one metric's recent values; the records they fill stand in `qigcore.trends`.

Precision policy. Values are taken relative to the first usable one and scaled by a power of two, so
that a constant series has slope 0 exactly and nothing overflows; sums of squares are taken about the
means, in a second and third pass, never as differences of raw moments.
"""

cimport numpy as cnp
from libc.math cimport NAN, exp, fabs, frexp, isfinite, ldexp, sqrt

import numpy as np

cnp.import_array()


cdef struct Series:
    const char* data
    Py_ssize_t stride
    Py_ssize_t n
    bint toward  # whether the line is drawn through the distances from `target`
    double target


cdef enum:
    TOLD = 10  # usable values, less 1 pairs of neighbours, below which no autocorrelation can be told

cdef double FEWEST = 3.0  # effective values: one degree of freedom is left beside level and slope


cdef struct Line:
    double slope
    double error  # corrected for autocorrelation
    double independent  # not corrected
    double correlation  # at lag 1 of the residuals, bias-corrected
    double effective
    double quantile  # Student's, 97.5 %, effective − 2 degrees of freedom
    double mean
    double middle  # mean place of the usable values
    double level_error  # of `mean`
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


cdef double _quantile(double freedom) noexcept nogil:
    """97.5 % quantile of Student's t for at least 1 degree of freedom, within 1e-6 of itself.

    z exp(Σ cₖ uᵏ) in u = 1/freedom; the coefficients are a minimax fit over 0 < u ≤ 1.
    """
    cdef double u = 1.0 / freedom
    cdef double power = -0.03835100471
    power = 0.1129341435 + u * power
    power = -0.01924907423 + u * power
    power = -0.2642287982 + u * power
    power = 0.1613162773 + u * power
    power = 0.7063192972 + u * power
    power = 1.210422667 + u * power
    return 1.959963984540054 * exp(u * power)


cdef void _fit(const Series* series, Line* line) noexcept nogil:
    """Fills in all but the recent mean."""
    cdef double origin = 0.0
    cdef double largest = 0.0
    cdef double middle = 0.0
    cdef double mean = 0.0
    cdef double across = 0.0
    cdef double along = 0.0
    cdef double left = 0.0
    cdef double products = 0.0
    cdef double before = 0.0
    cdef double value, x, y, shrink, grow, positive
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t pairs = 0
    cdef Py_ssize_t last = -2
    cdef Py_ssize_t i
    cdef int exponent
    line.slope = line.error = line.independent = line.mean = line.middle = line.level_error = NAN
    line.correlation = line.effective = line.quantile = NAN
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
    line.middle = middle
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
    if count < 3:
        return
    for i in range(series.n):
        value = _seen(series, i)
        if isfinite(value):
            y = value * shrink - origin - mean - along * (i - middle)
            left += y * y
            if i == last + 1:
                products += before * y
                pairs += 1
            before = y
            last = i
    line.independent = sqrt(left / (count - 2) / across) * grow
    line.effective = count
    if count >= TOLD and pairs >= TOLD - 1:
        # With count − 1 pairs the plain lag-1 estimate; where values are missing, as if they had been like the rest.
        line.correlation = products / left * (<double>(count - 1) / pairs) if left > 0.0 else 0.0
        if left > 0.0:  # residuals of 0 carry no correlation, and no bias of one
            line.correlation = max(min((count * line.correlation + 2.0) / (count - 4), 1.0), -1.0)
        positive = max(line.correlation, 0.0)
        line.effective = max(count * (1.0 - positive) / (1.0 + positive), FEWEST)
    line.quantile = _quantile(line.effective - 2.0)
    left /= line.effective - 2.0
    line.error = sqrt(left / across) * grow
    line.level_error = sqrt(left / line.effective) * grow


cdef cnp.ndarray _series(values, target, Series* series):
    """Describes the values to the loops; the array returned owns what `series` points to."""
    cdef cnp.ndarray array
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
    return array


def recent_line(values, Py_ssize_t recent, target=None):
    """Straight line through the usable values of a series, and the mean of the last `recent` of them.

    values : array-like, shape=[n]; float64 arrays are read in place, at any stride. Values that are
    not finite keep their place in the series but are skipped.
    target : float or None. With one, the line is drawn through the distances |value − target|; the
    recent mean is that of the values themselves.

    Returns (slope per step, its standard error, quantile, recent mean, usable values, autocorrelation);
    see `least_squares`.
    """
    cdef Series series
    cdef Line line
    cdef cnp.ndarray array = _series(values, target, &series)
    _fit(&series, &line)
    line.recent = _recent_mean(&series, recent)
    return line.slope, line.error, line.quantile, line.recent, line.count, line.correlation


def least_squares(values):
    """Straight line through the usable values of a series, as `recent_line` takes them, with all of its noise.

    Returns (slope per step, its standard error, mean, usable values, skipped values, standard error
    uncorrected for autocorrelation, autocorrelation at lag 1, effective number of values, 97.5 %
    quantile of Student's t at that number less 2, mean place of the usable values, standard error of
    the mean). The mean needs 1 usable value, the slope 2, their errors 3, the autocorrelation 10 and 9 pairs
    of neighbours; NaN otherwise. An unknown autocorrelation counts as 0.
    """
    cdef Series series
    cdef Line line
    cdef cnp.ndarray array = _series(values, None, &series)
    _fit(&series, &line)
    return (
        line.slope,
        line.error,
        line.mean,
        line.count,
        series.n - line.count,
        line.independent,
        line.correlation,
        line.effective,
        line.quantile,
        line.middle,
        line.level_error,
    )
