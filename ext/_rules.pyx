"""The loops that evaluate rules over rows of `qigcore.rows.HEAD`; the rules are made in `qigcore.rules`.

No limit is decided here, no message is written, and no row is changed.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport NAN, fabs, isnan
from libc.stdint cimport uint8_t, uint16_t

from numeric cimport BASIN, ERRORS, KAPPA, LATENCY, MEMORY, PHI, Head, measured

import numpy as np

from qigcore import rows as _rows

cnp.import_array()

cdef object HEAD = _rows.HEAD
cdef uint8_t BREAKDOWN = _rows.REGIMES.index("breakdown")


# The window of a statistic, and for how many snapshots a rule stays on after it last fired.
cdef enum:
    WINDOW = 10
    HALF = 5
    HOLD = 5

cdef enum Statistic:
    MEAN10
    LAST
    COUNT10
    GROWTH10
    REPAIRED10

STATISTICS = ("mean10", "last", "count10", "growth10", "repaired10")

cdef struct Rule:
    Statistic statistic
    Py_ssize_t offset
    bint byte_wide
    bint below
    int skip
    int count
    int severity
    double limit


cdef inline double read(const Rule* rule, const Head* row) noexcept nogil:
    """The rule's column of one row; NaN where the row is flagged in it."""
    cdef const char* place = <const char*> row + rule.offset
    if not measured(row, rule.skip):
        return NAN
    if rule.byte_wide:
        return (<const uint8_t*> place)[0]
    return (<const double*> place)[0]


cdef inline bint beyond(const Rule* rule, double value) noexcept nogil:
    return value < rule.limit if rule.below else value > rule.limit


cdef double half_slope(const double* values) noexcept nogil:
    """Least-squares slope of five values one step apart; NaN for fewer than three usable."""
    cdef double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0
    cdef double x, y
    cdef int i
    for i in range(HALF):
        if not isnan(values[i]):
            n += 1
            sx += i
            sy += values[i]
    if n < 3:
        return NAN
    for i in range(HALF):
        if not isnan(values[i]):
            # About the means: a leak of kilobytes must be seen on top of gigabytes.
            x = i - sx / n
            y = values[i] - sy / n
            sxx += x * x
            sxy += x * y
    return sxy / sxx


cdef double growth_of(const double* values) noexcept nogil:
    """The smaller of the slopes of both halves of ten values; 0 where they disagree in sign.

    One step, such as a cache filled once, moves one half only and is no growth.
    """
    cdef double first = half_slope(values)
    cdef double second = half_slope(values + HALF)
    if isnan(first) or isnan(second):
        return NAN
    if (first > 0) != (second > 0):
        return 0.0
    return first if fabs(first) < fabs(second) else second


cdef double statistic_at(const Rule* rule, const Head* window) noexcept nogil:
    """The rule's figure over the ten rows from `window` on; NaN when none of them is usable."""
    cdef double values[WINDOW]
    cdef double total = 0, value
    cdef int i, n = 0
    if rule.statistic == LAST:
        return read(rule, window + WINDOW - 1)
    if rule.statistic == REPAIRED10:
        for i in range(WINDOW):
            n += window[i].repaired != 0
        return n
    if rule.statistic == COUNT10:
        for i in range(WINDOW):
            n += beyond(rule, read(rule, window + i))
        return n
    if rule.statistic == GROWTH10:
        for i in range(WINDOW):
            values[i] = read(rule, window + i)
        return growth_of(values)
    for i in range(WINDOW):
        value = read(rule, window + i)
        if not isnan(value):
            total += value
            n += 1
    return total / n if n else NAN


cdef inline bint fires(const Rule* rule, double value) noexcept nogil:
    if rule.statistic == COUNT10 or rule.statistic == REPAIRED10:
        return value > rule.count
    return beyond(rule, value)  # NaN is beyond nothing


cdef cnp.ndarray rows_of(heads):
    """`heads` as one contiguous array of HEAD."""
    if not isinstance(heads, np.ndarray) or heads.ndim != 1:
        raise TypeError(f"heads: expected a one-dimensional array of qigcore.rows.HEAD, got {type(heads).__name__}")
    if heads.dtype is not HEAD and heads.dtype != HEAD:
        raise TypeError(f"heads: expected an array of qigcore.rows.HEAD, got one of {heads.dtype}")
    return np.ascontiguousarray(heads)


@cython.final
cdef class Program:
    """Rules in the form the loops read: (statistic, offset, byte_wide, below, skip, count, severity, limit) each."""

    cdef Rule* rules
    cdef Py_ssize_t size

    def __cinit__(self, rows):
        cdef Rule* rule
        self.size = len(rows)
        self.rules = <Rule*> PyMem_Malloc(max(self.size, 1) * sizeof(Rule))
        if not self.rules:
            raise MemoryError
        for i, row in enumerate(rows):
            rule = self.rules + <Py_ssize_t> i
            rule.statistic = <Statistic> <int> STATISTICS.index(row[0])
            rule.offset = row[1]
            if not 0 <= rule.offset <= <Py_ssize_t> (sizeof(Head) - (1 if row[2] else sizeof(double))):
                raise ValueError(f"offset: expected a place inside a row, got {row[1]}")
            rule.byte_wide, rule.below, rule.skip, rule.count, rule.severity, rule.limit = row[2:]

    def __dealloc__(self):
        PyMem_Free(self.rules)

    def last(self, heads):
        """[(rule, value, held, since)] of the rules that fire at any of the last five positions.

        value: the statistic at the newest firing position; held: at how many of the five it fires;
        since: the index of the first firing position of the present unbroken run.
        """
        cdef cnp.ndarray array = rows_of(heads)
        cdef const Head* rows = <const Head*> cnp.PyArray_DATA(array)
        cdef Py_ssize_t n = cnp.PyArray_DIM(array, 0)
        cdef Py_ssize_t i, k, since
        cdef int held
        cdef double value, newest
        cdef const Rule* rule
        found = []
        if n < WINDOW:
            return found
        for k in range(self.size):
            rule = self.rules + k
            held = 0
            since = n
            newest = NAN
            i = n - 1
            while i >= WINDOW - 1 and i > n - 1 - HOLD:
                value = statistic_at(rule, rows + i - WINDOW + 1)
                if fires(rule, value):
                    if not held:
                        newest = value
                    held += 1
                    since = i
                i -= 1
            if not held:
                continue
            while i >= WINDOW - 1 and since - i <= HOLD:
                if fires(rule, statistic_at(rule, rows + i - WINDOW + 1)):
                    since = i
                i -= 1
            found.append((k, newest, held, since))
        return found

    def severities(self, heads):
        """uint8[n]: 0 normal, 1 warning, 2 critical, as `last` would see it at every position."""
        cdef cnp.ndarray array = rows_of(heads)
        cdef const Head* rows = <const Head*> cnp.PyArray_DATA(array)
        cdef Py_ssize_t n = cnp.PyArray_DIM(array, 0)
        cdef Py_ssize_t i, k, until
        cdef const Rule* rule
        out = np.zeros(n, np.uint8)
        cdef uint8_t[::1] severity = out
        with nogil:
            for k in range(self.size):
                rule = self.rules + k
                until = 0
                for i in range(WINDOW - 1, n):
                    if fires(rule, statistic_at(rule, rows + i - WINDOW + 1)):
                        until = i + HOLD
                    if i < until and severity[i] < rule.severity:
                        severity[i] = rule.severity
        return out


cdef inline double mean_good(const Head* rows, Py_ssize_t n, const double* column, int flag) noexcept nogil:
    """Mean of the column that `column` starts, over the rows not flagged in it; NaN for none."""
    cdef double total = 0
    cdef Py_ssize_t i, used = 0
    for i in range(n):
        if measured(rows + i, flag):
            total += (<const double*> (<const char*> column + i * sizeof(Head)))[0]
            used += 1
    return total / used if used else NAN


def summary(heads):
    """(Φ, κ, drift, errors, latency, memory, breakdowns) of the last ten rows.

    Means with flagged values skipped, NaN when none is usable; breakdowns is a count.
    """
    cdef cnp.ndarray array = rows_of(heads)
    cdef Py_ssize_t n = min(cnp.PyArray_DIM(array, 0), <Py_ssize_t> WINDOW)
    cdef const Head* rows = <const Head*> cnp.PyArray_DATA(array) + (cnp.PyArray_DIM(array, 0) - n)
    cdef int breakdowns = 0
    cdef Py_ssize_t i
    for i in range(n):
        breakdowns += rows[i].regime == BREAKDOWN and measured(rows + i, PHI)
    return (
        mean_good(rows, n, &rows.phi, PHI),
        mean_good(rows, n, &rows.kappa_eff, KAPPA),
        mean_good(rows, n, &rows.basin_drift, BASIN),
        mean_good(rows, n, &rows.error_rate, ERRORS),
        mean_good(rows, n, &rows.avg_latency_ms, LATENCY),
        mean_good(rows, n, &rows.memory_mb, MEMORY),
        breakdowns,
    )


def growth(const double[::1] values not None):
    """The growth10 statistic at every position of `values` [n] (NaN: not usable); NaN before the tenth."""
    cdef Py_ssize_t i, n = values.shape[0]
    out = np.full(n, NAN)
    cdef double[::1] result = out
    for i in range(WINDOW - 1, n):
        result[i] = growth_of(&values[i - WINDOW + 1])
    return out
