"""The loops behind `qigcore.geometry`: distances, amplitudes and means of basins.

Each function converts its arguments, runs C loops without the GIL where there are many rows, and
returns new float64 arrays. No state, and nothing about monitoring.

Precision policy. That of sums.h, states.h and means.h.
"""

cimport numpy as cnp
from libc.math cimport INFINITY, cos, isfinite, sin, sqrt
from libc.stdlib cimport free, malloc

from numeric cimport GROUP, SIMPLEX, SPHERE, WIDE, apart, measured_rows, prepared, squares_of

import numpy as np

from qigcore.errors import InvalidBasin

cnp.import_array()

cdef enum:
    ON_STACK = 256  # components for which distance() needs no allocation
    TURNS = 10_000  # slow only for states near the edge of a half sphere

cdef double CLOSE = 1e-9  # radians of gradient at which a stalled mean counts as found

cdef double ENOUGH = 1e-17  # radians of gradient expected after a step, at which no pass is spent to look

cdef extern from "means.h" nogil:
    ctypedef struct Pass "QigPass":
        double* sum
        double* part
        double* scratch
        Py_ssize_t refused
        int antipode
    void one_pass "qig_pass"(
        const double* rows, const double* shares, Py_ssize_t n, Py_ssize_t dim, int geometry,
        const double* mean, Pass* made
    ) noexcept

INSTRUCTIONS = "avx2" if WIDE else "plain"


cdef int _kind(object geometry) except -1:
    if geometry == "simplex":
        return SIMPLEX
    if geometry == "sphere":
        return SPHERE
    raise ValueError(f"geometry: expected 'simplex' or 'sphere', got {geometry!r}")


cdef inline bint _plain(object values, int ndim):
    return (
        cnp.PyArray_CheckExact(values)
        and cnp.PyArray_TYPE(<cnp.ndarray>values) == cnp.NPY_DOUBLE
        and cnp.PyArray_NDIM(<cnp.ndarray>values) == ndim
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>values)
    )


cdef cnp.ndarray _array(object values, str name, int ndim):
    """float64, C-contiguous, of `ndim` dimensions; booleans, strings and complex numbers are refused."""
    if _plain(values, ndim):
        return values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise InvalidBasin(f"{name}: expected an array of numbers, got {kind}: {error}") from None
    if array.dtype.kind not in "fiu" and array.size:
        raise InvalidBasin(f"{name}: expected real numbers, got an array of {array.dtype}")
    if array.ndim != ndim:
        wanted = "rows of components, shape [n, dim]" if ndim == 2 else "components, shape [dim]"
        raise InvalidBasin(f"{name}: expected {wanted}, got shape {list(array.shape)}")
    return np.require(array, np.float64, ("C", "A"))


cdef object _refusal(const double* basin, Py_ssize_t n, int geometry, str name):
    """The error for a basin that `prepared` refused."""
    cdef Py_ssize_t i
    for i in range(n):
        if not isfinite(basin[i]):
            return InvalidBasin(f"{name}: expected finite components, got {basin[i]!r} at position {i}")
        if geometry == SIMPLEX and basin[i] < 0.0:
            return InvalidBasin(
                f"{name}: expected non-negative weights, got {basin[i]!r} at position {i}; "
                f"signed states belong to geometry='sphere'"
            )
    if n == 0:
        return InvalidBasin(f"{name}: expected at least one component, got none")
    return InvalidBasin(f"{name}: expected at least one component other than 0, got zeros only")


cdef int _same_length(Py_ssize_t n, Py_ssize_t m, str names) except -1:
    if n != m:
        raise InvalidBasin(f"{names}: expected as many components in both, got {n} and {m}")
    return 0


def unit(basin, str geometry, str name):
    """One state as a new unit vector, shape [dim]; errors call it `name`."""
    return _amplitude(basin, _kind(geometry), name)


cdef cnp.ndarray _amplitude(object basin, int geometry, str name):
    cdef cnp.ndarray values = _array(basin, name, 1)
    cdef Py_ssize_t n = cnp.PyArray_DIM(values, 0)
    cdef cnp.ndarray made = np.empty(n)
    cdef const double* source = <const double*>cnp.PyArray_DATA(values)
    cdef double* out = <double*>cnp.PyArray_DATA(made)
    if not _normalised(source, out, n, geometry):
        raise _refusal(source, n, geometry, name)
    return made


cdef bint _normalised(const double* basin, double* out, Py_ssize_t n, int geometry) noexcept nogil:
    cdef double scale
    cdef Py_ssize_t i
    cdef const double* vector = prepared(basin, out, n, geometry, &scale)
    if vector == NULL:
        return False
    for i in range(n):
        out[i] = vector[i] * scale
    return True


def distance(p, q, str geometry="simplex") -> float:
    """Radians between two states, from 0 to π.

    Parameters
    ----------
    p, q : array-like, shape=[dim]
        States at any positive scale: non-negative weights (`"simplex"`) or signed vectors (`"sphere"`).
    geometry : {"simplex", "sphere"}

    Returns
    -------
    float
        `"simplex"`: 2·arccos Σ√(pᵢqᵢ) of the normalised weights, the Fisher–Rao distance of two
        categorical distributions (Rao 1945; Amari & Nagaoka 2000, §2.2), computed as
        4·asin(‖a − b‖/2) of the amplitudes a = √(p/Σp). `"sphere"`: the angle, computed as
        2·atan2(‖a − b‖, ‖a + b‖). The absolute error is at most 2e-15 either way.

    Raises
    ------
    InvalidBasin
        A component is not finite, a weight is negative, all are zero, or the lengths differ.
    """
    cdef int kind = _kind(geometry)
    cdef double[2 * ON_STACK] stack
    cdef cnp.ndarray a = _array(p, "p", 1)
    cdef cnp.ndarray b = _array(q, "q", 1)
    cdef Py_ssize_t n = cnp.PyArray_DIM(a, 0)
    cdef double* scratch = stack
    cdef const double* first
    cdef const double* second = NULL
    cdef double scale_a = 0.0
    cdef double scale_b = 0.0
    cdef double radians = 0.0
    _same_length(n, cnp.PyArray_DIM(b, 0), "p and q")
    if n > ON_STACK:
        scratch = <double*>malloc(2 * n * sizeof(double))
        if scratch == NULL:
            raise MemoryError
    first = prepared(<const double*>cnp.PyArray_DATA(a), scratch, n, kind, &scale_a)
    if first != NULL:
        second = prepared(<const double*>cnp.PyArray_DATA(b), scratch + n, n, kind, &scale_b)
        if second != NULL:
            radians = apart(first, scale_a, second, scale_b, n, kind)
    if scratch != stack:
        free(scratch)
    if first == NULL:
        raise _refusal(<const double*>cnp.PyArray_DATA(a), n, kind, "p")
    if second == NULL:
        raise _refusal(<const double*>cnp.PyArray_DATA(b), n, kind, "q")
    return radians


def distances(rows, q, str geometry="simplex"):
    """Radians from each row to one state.

    Parameters
    ----------
    rows : array-like, shape=[n, dim]
    q : array-like, shape=[dim]
        States at any positive scale, as for `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[n]
        float64, each in [0, π].

    Raises
    ------
    InvalidBasin
        As for `distance`; the message names the row.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray states = _array(rows, "rows", 2)
    cdef cnp.ndarray b = _amplitude(q, kind, "q")
    cdef Py_ssize_t n = cnp.PyArray_DIM(states, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(states, 1)
    cdef cnp.ndarray result = np.empty(n)
    cdef cnp.ndarray room = np.empty(GROUP * dim)
    cdef const double* source = <const double*>cnp.PyArray_DATA(states)
    cdef const double* target = <const double*>cnp.PyArray_DATA(b)
    cdef double* out = <double*>cnp.PyArray_DATA(result)
    cdef double* scratch = <double*>cnp.PyArray_DATA(room)
    cdef Py_ssize_t done
    _same_length(dim, cnp.PyArray_DIM(b, 0), "rows and q")
    with nogil:
        done = measured_rows(source, False, n, dim, target, kind, out, scratch)
    if done < n:
        raise _refusal(source + done * dim, dim, kind, f"rows[{done}]")
    return result


def distance_matrix(rows, str geometry="simplex"):
    """Radians between every two rows.

    Parameters
    ----------
    rows : array-like, shape=[n, dim]
        States at any positive scale, as for `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[n, n]
        float64, symmetric, zero on the diagonal.

    Raises
    ------
    InvalidBasin
        As for `distance`; the message names the row.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray units = amplitudes(_array(rows, "rows", 2), geometry)
    cdef Py_ssize_t n = cnp.PyArray_DIM(units, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(units, 1)
    cdef cnp.ndarray result = np.zeros((n, n))
    cdef const double* unit = <const double*>cnp.PyArray_DATA(units)
    cdef double* out = <double*>cnp.PyArray_DATA(result)
    cdef Py_ssize_t i, j
    with nogil:
        for i in range(n):
            measured_rows(unit, True, i, dim, unit + i * dim, kind, out + i * n, NULL)
            for j in range(i):
                out[j * n + i] = out[i * n + j]
    return result


def amplitudes(rows, str geometry="simplex"):
    """States as unit vectors.

    Parameters
    ----------
    rows : array-like, shape=[n, dim] or [dim]
        States at any positive scale, as for `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, of the shape of `rows`
        float64; `"simplex"`: √(p/Σp), non-negative; `"sphere"`: x/‖x‖.

    Raises
    ------
    InvalidBasin
        As for `distance`; the message names the row.
    """
    cdef int kind = _kind(geometry)
    if not _plain(rows, 2) and np.ndim(rows) == 1:
        return _amplitude(rows, kind, "rows")
    cdef cnp.ndarray states = _array(rows, "rows", 2)
    cdef Py_ssize_t n = cnp.PyArray_DIM(states, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(states, 1)
    cdef cnp.ndarray result = np.empty((n, dim))
    cdef const double* source = <const double*>cnp.PyArray_DATA(states)
    cdef double* out = <double*>cnp.PyArray_DATA(result)
    cdef Py_ssize_t i
    cdef Py_ssize_t refused = -1
    with nogil:
        for i in range(n):
            if not _normalised(source + i * dim, out + i * dim, dim, kind):
                refused = i
                break
    if refused >= 0:
        raise _refusal(source + refused * dim, dim, kind, f"rows[{refused}]")
    return result


def karcher(rows, shares, str geometry):
    """The Karcher mean of states, or None where they have no single one.

    rows : array-like, shape=[n, dim], states at any positive scale, n at least 1
    shares : ndarray, shape=[n], float64, C-contiguous, non-negative and summing to 1; None for equal ones

    Gradient steps m ← exp_m(Σ wᵢ log_m(xᵢ)) from the normalised mean, until a step no longer shortens
    the gradient, or would, at the rate of the last, leave none that counts. Raises as `amplitudes`.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray states = _array(rows, "rows", 2)
    cdef cnp.ndarray weights
    cdef const double* share = NULL
    if shares is not None:
        weights = shares
        share = <const double*>cnp.PyArray_DATA(weights)
    cdef Py_ssize_t n = cnp.PyArray_DIM(states, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(states, 1)
    cdef cnp.ndarray mean = np.zeros(dim)
    cdef cnp.ndarray room = np.empty((2 + GROUP) * dim)
    cdef double* centre = <double*>cnp.PyArray_DATA(mean)
    cdef double* step = <double*>cnp.PyArray_DATA(room)
    cdef const double* source = <const double*>cnp.PyArray_DATA(states)
    cdef double length = 0.0
    cdef double before = INFINITY
    cdef double scale
    cdef Py_ssize_t i
    cdef int turn
    cdef Pass made
    cdef bint last = False
    made.sum = step
    made.part = step + dim
    made.scratch = step + 2 * dim
    with nogil:
        one_pass(source, share, n, dim, kind, NULL, &made)
    if made.refused >= 0:
        raise _refusal(source + made.refused * dim, dim, kind, f"rows[{made.refused}]")
    scale = sqrt(squares_of(step, dim))
    if scale < 1e-9:
        return None
    with nogil:
        for i in range(dim):
            centre[i] = step[i] / scale
        for turn in range(TURNS):
            one_pass(source, share, n, dim, kind, centre, &made)
            if made.antipode:
                length = -1.0
                break
            length = sqrt(squares_of(step, dim))
            if length < 1e-16 or before <= length < CLOSE:
                break
            last = length < CLOSE and length * (length / before) < ENOUGH
            before = length
            for i in range(dim):
                centre[i] = cos(length) * centre[i] + sin(length) / length * step[i]
            scale = sqrt(squares_of(centre, dim))
            for i in range(dim):
                centre[i] /= scale
            if last:
                break
    return mean if 0.0 <= length < CLOSE else None
