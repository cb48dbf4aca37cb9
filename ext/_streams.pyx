"""Loops over one metric's recent values; the records they fill stand in `qigcore.trends`.

Precision policy. Values are taken relative to the first usable one and scaled by a power of two, so
that a constant series has slope 0 exactly and nothing overflows; places are taken about their mean, and
the squares of the residuals about the line, in passes of their own, never as differences of raw moments.
"""

cimport numpy as cnp
from libc.math cimport INFINITY, NAN, copysign, exp, fabs, frexp, isfinite, ldexp, sqrt

import numpy as np

from qigcore.errors import InvalidLimit

cnp.import_array()


cdef struct Series:
    const char* data
    Py_ssize_t stride
    Py_ssize_t n
    bint toward  # whether the line is drawn through the distances from `target`
    double target


cdef enum:
    TOLD = 10  # usable values, less 1 pairs of neighbours, below which no autocorrelation can be told

    FREE = 5  # degrees of freedom below which the wander of a series cannot be told
    LONG = 40  # values from which on the wander of a series is measured over 3 steps, and not over 1

cdef double FEWEST = 3.0  # effective values: one degree of freedom is left beside level and slope


cdef struct Line:
    double slope
    double error  # corrected for autocorrelation
    double independent  # not corrected
    double correlation  # at lag 1 of the residuals, bias-corrected
    double effective
    double quantile  # standard errors in half of a 95 % interval
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


cdef struct Outside:
    double first  # the largest, descending
    double second
    double third


cdef inline double _without(Outside* outside, double square, Py_ssize_t largest) noexcept nogil:
    """What to add to a sum of squares without the 1 or 3 largest: the square, or the one it displaces.

    Taking them off the whole sum would leave nothing but rounding beside a step that is large enough.
    """
    cdef double least
    if largest == 1:
        least = outside.first
        if square <= least:
            return square
        outside.first = square
        return least
    least = outside.third
    if square <= least:
        return square
    if square <= outside.second:
        outside.third = square
        return least
    outside.third = outside.second
    if square <= outside.first:
        outside.second = square
        return least
    outside.second = outside.first
    outside.first = square
    return least


cdef void _fit(const Series* series, Line* line) noexcept nogil:
    """Fills in all but the recent mean."""
    cdef double origin = 0.0
    cdef double largest = 0.0
    cdef double middle = 0.0
    cdef double mean = 0.0
    cdef double across = 0.0
    cdef double along = 0.0
    cdef double left = 0.0
    cdef double aside = 0.0
    cdef double products = 0.0
    cdef double wander = 0.0
    cdef double first = NAN  # the residuals one, two and three places before
    cdef double second = NAN
    cdef double third = NAN
    cdef double value, x, y, step, shrink, grow, positive, variance, t
    cdef Outside outside
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t pairs = 0
    cdef Py_ssize_t steps = 0
    cdef Py_ssize_t i, lag
    cdef int exponent
    line.slope = line.error = line.independent = line.mean = line.middle = line.level_error = NAN
    line.correlation = line.effective = line.quantile = NAN
    outside.first = outside.second = outside.third = 0.0
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
            x = i - middle
            y = value * shrink - origin
            mean += y
            aside += x
            across += x * x
            along += x * y
    mean /= count
    line.mean = (mean + origin) * grow
    if count >= 2:
        along = (along - mean * aside) / across  # aside is 0 but for the rounding of `middle`
        line.slope = along * grow
    if count < 3:
        return
    lag = 3 if count >= LONG else 1
    for i in range(series.n):
        value = _seen(series, i)
        y = value * shrink - origin - mean - along * (i - middle)  # not finite where the value is not
        if isfinite(value):
            left += y * y
            if isfinite(first):
                products += first * y
                pairs += 1
            step = y - (third if lag == 3 else first)
            if isfinite(step):
                steps += 1
                wander += _without(&outside, step * step, lag)
        else:
            y = NAN
        third = second
        second = first
        first = y
    variance = left / (count - 2) / across
    line.independent = sqrt(variance) * grow
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
    if steps - lag - 1 >= FREE:
        # What a random walk of such steps would do, which no AR(1) series goes beyond.
        wander *= 1.2 * (<double>count * count + 1.0) / (lag * (steps - lag - 1) * count * (<double>count * count - 1.0))
        variance = max(variance, wander)
        t = _quantile(count - 2.0)
        if t * t * variance < line.quantile * line.quantile * left / across:
            left = min(left, variance * across)
            line.quantile = t * sqrt(variance * across / left)
    line.error = sqrt(left / across) * grow
    line.level_error = sqrt(left / line.effective) * grow


cdef struct Crossing:
    int course  # index into COURSES
    double eta
    double low
    double high
    double level


COURSES = ("reaches", "passed", "away", "noise", "unknown")


cdef double _earliest(double slope, double error, double level_error, double way, double now) noexcept nogil:
    """Steps until the line may first be at the limit, where its slope is inside its noise."""
    cdef double closed_by = (error - slope) * (error + slope)
    cdef double product = slope * way
    cdef double constant = (way - level_error) * (way + level_error)
    cdef double root
    if constant - (closed_by * now + 2.0 * product) * now <= 0.0:
        return 0.0
    if closed_by > 0.0:
        # `now` lies between the two roots; the later one, by the form that does not cancel
        root = sqrt(product * product + closed_by * constant)
        root = constant / (root + product) if product > 0.0 else (root - product) / closed_by
        return max(root - now, 0.0)
    return constant / (2.0 * product) - now if product > 0.0 else INFINITY


cdef void _cross(const Line* line, double limit, Py_ssize_t n, Crossing* found) noexcept nogil:
    """Where the line is at the limit, from the newest place on; `qigcore.timeto` says what comes out.

    All places u, from the mean place on, with |way − slope u| ≤ sqrt(level_error² + error² u²).
    """
    cdef double now = n - 1 - line.middle
    cdef double slope = line.slope
    cdef double error = line.quantile * line.error
    cdef double level_error = line.quantile * line.level_error
    cdef double way = limit - line.mean
    cdef double scale, open_by, far, near
    found.level = line.mean + slope * now
    found.eta = found.low = found.high = NAN
    found.course = 4
    if line.count < TOLD:
        return
    scale = max(max(fabs(slope), error), max(level_error, fabs(way)))
    if scale > 0.0:  # the four are squared
        scale = ldexp(1.0, -_exponent(scale))
        slope *= scale
        error *= scale
        level_error *= scale
        way *= scale
    if fabs(slope) <= error:
        found.course = 3
        found.low = _earliest(slope, error, level_error, way, now)
        found.high = INFINITY
        return
    open_by = (slope - error) * (slope + error)
    far = slope * way
    far += copysign(sqrt(error * error * way * way + open_by * level_error * level_error), far)
    # The nearer root by the product of both: a difference would cancel.
    near = (way - level_error) * (way + level_error) / far - now if far != 0.0 else -now
    far = far / open_by - now
    found.eta = way / slope - now
    found.low = min(near, far)
    found.high = max(near, far)
    if found.eta >= 0.0:
        found.course = 0
        found.low = max(found.low, 0.0)
    elif found.eta >= 1 - n:
        found.course = 1
    else:
        found.course = 2
        found.eta = found.low = found.high = NAN


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
    uncorrected for autocorrelation, autocorrelation at lag 1, effective number of values, standard
    errors in half of a 95 % interval). The mean needs 1 usable value, the slope 2, the
    errors 3, the autocorrelation 10 and 9 pairs of neighbours; NaN otherwise. An unknown autocorrelation
    counts as 0.
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
    )


def crossing(values, double limit, double interval, timestamps=None):
    """When the line that `least_squares` draws is at `limit`.

    interval : seconds between places, NaN if unknown; timestamps : float64, shape=[n], instead of it.

    Returns the fields of `qigcore.timeto.TimeTo`, in their order.
    """
    cdef Series series, times
    cdef Line line
    cdef Crossing found
    cdef cnp.ndarray clock
    cdef cnp.ndarray array
    if not isfinite(limit):
        raise InvalidLimit(f"limit: expected a finite number, got {limit!r}")
    array = _series(values, None, &series)
    if timestamps is not None:
        clock = _series(timestamps, None, &times)
        if times.n != series.n:
            raise ValueError(f"timestamps: expected one for each of {series.n} values, got {times.n}")
        if times.n > 1:
            interval = (_at(&times, times.n - 1) - _at(&times, 0)) / (times.n - 1)
        if not (times.n > 1 and isfinite(interval) and interval > 0.0):
            interval = NAN
    _fit(&series, &line)
    _cross(&line, limit, series.n, &found)
    return (
        COURSES[found.course],
        found.eta,
        found.low,
        found.high,
        limit,
        found.level,
        found.eta * interval,
        found.low * interval,
        found.high * interval,
        line.count,
        series.n - line.count,
    )
