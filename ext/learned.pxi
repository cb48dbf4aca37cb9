"""Loops over a window that a baseline is learned from; included by `_detectors.pyx`.

They stand in for matrix products by BLAS, which takes megabytes at its first call and whose sums depend on
how many threads it has. What is learned is decided in `qigcore.calibration`; the arithmetic is in `gram.h`.
"""

cdef extern from "gram.h" nogil:
    enum:
        SPAN "QIG_SPAN"
        STRIP "QIG_STRIP"
    void gram_of "qig_gram"(
        const double* rows, const double* mean, Py_ssize_t n, Py_ssize_t k, double* packed, double* out
    ) noexcept
    double pairs_of "qig_pairs"(
        const double* rows, const double* mean, const double* inverse, Py_ssize_t n, Py_ssize_t k
    ) noexcept
    void lagged_of "qig_lagged"(
        const double* rows, const double* before, const double* after, Py_ssize_t n, Py_ssize_t k, double* lag,
        double* power
    ) noexcept
    Py_ssize_t cholesky_of "qig_cholesky"(
        const double* matrix, double* factor, Py_ssize_t k, Py_ssize_t m
    ) noexcept
    void inverted "qig_inverted"(const double* factor, double* inverse, Py_ssize_t k, Py_ssize_t m) noexcept


cdef cnp.ndarray _table(rows):
    """Rows as float64 [n, k], copied only where they lie otherwise; ValueError for another shape."""
    cdef cnp.ndarray table = np.require(rows, np.float64, "CA")
    if table.ndim != 2:
        raise ValueError(f"rows: expected shape [n, k], got {list((<object>table).shape)}")
    return table


cdef cnp.ndarray _per_column(str name, values, Py_ssize_t k):
    """One float64 per column, zeros for None; ValueError for another shape."""
    cdef cnp.ndarray each = np.zeros(k) if values is None else np.require(values, np.float64, "CA")
    if each.ndim != 1 or cnp.PyArray_DIM(each, 0) != k:
        raise ValueError(f"{name}: expected one value for each of {k} columns, got {list((<object>each).shape)}")
    return each


cdef const double* _data(cnp.ndarray array) noexcept nogil:
    return <const double*>cnp.PyArray_DATA(array)


cdef double* _room(cnp.ndarray array) noexcept nogil:
    return <double*>cnp.PyArray_DATA(array)


cdef Py_ssize_t _strips(Py_ssize_t k) noexcept:
    return (k + STRIP - 1) // STRIP * STRIP


def gram(rows, mean=None):
    """(rows − mean)ᵀ·(rows − mean), shape [k, k], exactly symmetric; mean: [k], or None for 0.

    rows: shape [n, k]. Any NaN or infinity comes out in its rows and columns. Raises ValueError for other shapes.
    """
    cdef cnp.ndarray given = _table(rows)
    cdef Py_ssize_t n = cnp.PyArray_DIM(given, 0), k = cnp.PyArray_DIM(given, 1), m = _strips(k)
    cdef cnp.ndarray about = _per_column("mean", mean, k)
    cdef cnp.ndarray packed = np.empty(SPAN * m), made = np.empty((m, m))
    cdef double* out = _room(made)
    cdef Py_ssize_t i, j
    with nogil:
        gram_of(_data(given), _data(about), n, k, _room(packed), out)
        for i in range(m):
            for j in range(i):
                out[i * m + j] = out[j * m + i]
    return made if m == k else np.ascontiguousarray(made[:k, :k])


def squared_pairs(rows, mean, inverse):
    """Σ over rows and over pairs of columns i < j of (sᵢ·sⱼ)², s = (row − mean)·inverse.

    rows: shape [n, k]; mean, inverse: [k]. Raises ValueError for other shapes.
    """
    cdef cnp.ndarray given = _table(rows)
    cdef Py_ssize_t n = cnp.PyArray_DIM(given, 0), k = cnp.PyArray_DIM(given, 1)
    cdef cnp.ndarray about = _per_column("mean", mean, k), times = _per_column("inverse", inverse, k)
    cdef double found
    with nogil:
        found = pairs_of(_data(given), _data(about), _data(times), n, k)
    return found


def lagged(rows, before, after):
    """Per column, Σ (x[t] − after)·(x[t−1] − before) and Σ (x[t−1] − before)² over t = 1 … n − 1; shapes [k].

    rows: shape [n, k], in order of time; before, after: [k]. Raises ValueError for other shapes.
    """
    cdef cnp.ndarray given = _table(rows)
    cdef Py_ssize_t n = cnp.PyArray_DIM(given, 0), k = cnp.PyArray_DIM(given, 1)
    cdef cnp.ndarray first = _per_column("before", before, k), second = _per_column("after", after, k)
    cdef cnp.ndarray lag = np.zeros(k), power = np.zeros(k)
    with nogil:
        lagged_of(_data(given), _data(first), _data(second), n, k, _room(lag), _room(power))
    return lag, power


def whitener_of(covariance):
    """The inverse W of the lower Cholesky factor, lower triangular with W·Σ·Wᵀ = 1, shape [k, k].

    covariance: Σ, shape [k, k], symmetric and positive definite; read on and below the diagonal. Raises
    ValueError for another shape, and for one that is not positive definite in float64.
    """
    cdef cnp.ndarray given = _table(covariance)
    cdef Py_ssize_t k = cnp.PyArray_DIM(given, 0), m = _strips(k), done
    if cnp.PyArray_DIM(given, 1) != k:
        raise ValueError(f"covariance: expected shape [k, k], got {list((<object>given).shape)}")
    if m != k:
        whole = np.zeros((m, m))
        whole[:k, :k] = given
        given = whole
    cdef cnp.ndarray factor = np.zeros((m, m)), made = np.zeros((m, m))
    with nogil:
        done = cholesky_of(_data(given), _room(factor), k, m)
        if done == k:
            inverted(_data(factor), _room(made), k, m)
    if done != k:
        raise ValueError(
            f"covariance: expected a positive definite matrix, got one whose first {done + 1} rows and columns "
            f"are not; shrink it, or raise the floor of its variances"
        )
    return made if m == k else np.ascontiguousarray(made[:k, :k])


def whiten(rows, mean, matrix, out=None):
    """W·(row − mean) for each row, in the order of additions that a detector has; shape [n, k].

    rows: shape [n, k]; mean: [k], or None for 0; matrix: W, lower triangular, [k, k]. out: C-contiguous float64 [n, k] to be
    filled, which may be `rows`. Raises ValueError for other shapes.
    """
    cdef cnp.ndarray given = _table(rows)
    cdef Py_ssize_t n = cnp.PyArray_DIM(given, 0), k = cnp.PyArray_DIM(given, 1), m = padded(k), t, i
    cdef cnp.ndarray about = _per_column("mean", mean, k)
    cdef double[:, ::1] made = np.empty((n, k)) if out is None else out
    if np.shape(matrix) != (k, k):
        raise ValueError(f"matrix: expected shape [{k}, {k}], got {list(np.shape(matrix))}")
    if made.shape[0] != n or made.shape[1] != k:
        raise ValueError(f"out: expected shape [{n}, {k}], got [{made.shape[0]}, {made.shape[1]}]")
    whole = np.zeros((m, m))
    whole[:k, :k] = matrix
    cdef cnp.ndarray bands = banded(whole) if k else np.empty(0)
    cdef cnp.ndarray row = np.zeros(m), white = np.zeros(m)
    cdef double* now = _room(row)
    cdef double* x = _room(white)
    cdef const double* source = _data(given)
    cdef const double* center = _data(about)
    if k:
        with nogil:
            for t in range(n):
                for i in range(k):
                    now[i] = source[t * k + i] - center[i]
                whitened(_data(bands), now, x, m)
                memcpy(&made[t, 0], x, k * sizeof(double))
    return np.asarray(made)


def moving(rows, double weight):
    """Squared lengths of the moving average after each row, and each row along the average before it.

    rows: shape [n, k]. Returns two arrays [n]; the second is x·m/‖m‖, 0 where there is no average yet.
    """
    cdef const double[:, ::1] given = np.ascontiguousarray(rows, dtype=np.float64)
    cdef Py_ssize_t n = given.shape[0], k = given.shape[1], m = padded(k), t
    lengths, along, mean, row = np.empty(n), np.zeros(n), np.zeros(m), np.zeros(m)
    cdef double[::1] out = lengths, beside = along
    cdef double* average = <double*>cnp.PyArray_DATA(mean)
    cdef double* now = <double*>cnp.PyArray_DATA(row)
    cdef double squared = 0.0
    if k == 0:
        return lengths, along
    with nogil:
        for t in range(n):
            memcpy(now, &given[t, 0], k * sizeof(double))
            if squared > 0.0:
                beside[t] = dot(average, now, m) / sqrt(squared)
            squared = averaged(average, now, weight, 1.0, m)
            out[t] = squared
    return lengths, along
