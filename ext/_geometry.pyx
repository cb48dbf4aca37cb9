# cython: autotestdict=False
"""The loops behind `qigcore.geometry`: distances, geodesics and means of basins.

Each function converts its arguments, runs C loops without the GIL where there are many rows, and
returns new float64 arrays. No state, and nothing about monitoring.

Precision policy. Angles come from chords (‖a − b‖ and ‖a + b‖), never from the arccos of a dot
product. Points on a geodesic are built in the orthonormal frame of the chord's midpoint and its
direction, which is exact at the ends and the middle and stays stable up to (not including) antipodes.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY, M_PI, atan2, cos, fabs, isfinite, sin, sqrt
from libc.stdlib cimport free, malloc

from numeric cimport SIMPLEX, SPHERE, apart, gap, prepared, squares_of

import numpy as np

from qigcore.errors import InvalidBasin, TooLittleData

cnp.import_array()

cdef enum:
    ON_STACK = 256  # components for which distance() needs no allocation


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
        raise InvalidBasin(f"{name}: expected an array of numbers, got {type(values).__name__}: {error}") from None
    if array.dtype.kind not in "fiu" and array.size:
        raise InvalidBasin(f"{name}: expected real numbers, got an array of {array.dtype}")
    if array.ndim != ndim:
        raise InvalidBasin(
            f"{name}: expected {'rows of components, shape [n, dim]' if ndim == 2 else 'components, shape [dim]'}, "
            f"got shape {list(array.shape)}"
        )
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


cdef cnp.ndarray _amplitude(object basin, int geometry, str name):
    """A new unit vector, shape [dim]."""
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


@cython.binding(True)
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


@cython.binding(True)
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
    cdef cnp.ndarray room = np.empty(dim)
    cdef const double* source = <const double*>cnp.PyArray_DATA(states)
    cdef const double* target = <const double*>cnp.PyArray_DATA(b)
    cdef double* out = <double*>cnp.PyArray_DATA(result)
    cdef double* scratch = <double*>cnp.PyArray_DATA(room)
    cdef const double* vector
    cdef double scale = 0.0
    cdef Py_ssize_t i
    cdef Py_ssize_t refused = -1
    _same_length(dim, cnp.PyArray_DIM(b, 0), "rows and q")
    with nogil:
        for i in range(n):
            vector = prepared(source + i * dim, scratch, dim, kind, &scale)
            if vector == NULL:
                refused = i
                break
            out[i] = apart(vector, scale, target, 1.0, dim, kind)
    if refused >= 0:
        raise _refusal(source + refused * dim, dim, kind, f"rows[{refused}]")
    return result


@cython.binding(True)
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
            for j in range(i):
                out[i * n + j] = out[j * n + i] = apart(unit + i * dim, 1.0, unit + j * dim, 1.0, dim, kind)
    return result


@cython.binding(True)
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


@cython.binding(True)
def from_amplitudes(units, str geometry="simplex"):
    """States at scale 1 from amplitudes, the inverse of `amplitudes`.

    Parameters
    ----------
    units : array-like, shape=[n, dim] or [dim]
        Amplitudes, as every function here returns states.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, of the shape of `units`
        `"simplex"`: the squares, which are probabilities; `"sphere"`: a copy.
    """
    cdef int kind = _kind(geometry)
    values = _array(units, "units", 1 if np.ndim(units) == 1 else 2)
    return values * values if kind == SIMPLEX else values.copy()


cdef double _frame(
    const double* a, const double* b, double* middle, double* across, Py_ssize_t n
) noexcept nogil:
    """The angle from a to b, with unit vectors to the chord's midpoint and along the chord.

    The two are orthogonal because a and b have one length. Where the angle is 0, `across` is zero.
    −1 where a and b are antipodes, which have no midpoint.
    """
    cdef double near = sqrt(gap(a, 1.0, b, 1.0, 1.0, n))
    cdef double far = sqrt(gap(a, 1.0, b, 1.0, -1.0, n))
    cdef Py_ssize_t i
    if far < 1e-15:
        return -1.0
    for i in range(n):
        middle[i] = (a[i] + b[i]) / far
        across[i] = (b[i] - a[i]) / near if near > 0.0 else 0.0
    return 2.0 * atan2(near, far)


cdef object _antipodes(str names):
    return InvalidBasin(f"{names}: expected states with one shortest path between them, got antipodes")


cdef object _on_the_simplex(cnp.ndarray unit, str name):
    """Clears the −1e-16 that rounding leaves at the edge; refuses what really is outside."""
    if unit.min() < -1e-9:
        raise InvalidBasin(
            f"{name}: expected a vector short enough to stay on the simplex, got one that crosses its edge "
            f"at position {int(unit.argmin())}"
        )
    return np.maximum(unit, 0.0, out=unit)


@cython.binding(True)
def geodesic(p, q, double t, str geometry="simplex"):
    """The state a fraction t of the way from p to q along the shortest path.

    Parameters
    ----------
    p, q : array-like, shape=[dim]
        States at any positive scale, as for `distance`.
    t : float
        0 gives p, 1 gives q.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[dim]
        The amplitude, a unit vector.

    Raises
    ------
    InvalidBasin
        As for `distance`; and for antipodes of the sphere, which no single shortest path joins.
    ValueError
        t is outside [0, 1].
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray a = _amplitude(p, kind, "p")
    cdef cnp.ndarray b = _amplitude(q, kind, "q")
    cdef Py_ssize_t n = cnp.PyArray_DIM(a, 0)
    cdef cnp.ndarray middle = np.empty(n)
    cdef cnp.ndarray across = np.empty(n)
    cdef double angle
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"t: expected a fraction from 0 (p) to 1 (q), got {t!r}")
    _same_length(n, cnp.PyArray_DIM(b, 0), "p and q")
    angle = _frame(
        <const double*>cnp.PyArray_DATA(a), <const double*>cnp.PyArray_DATA(b),
        <double*>cnp.PyArray_DATA(middle), <double*>cnp.PyArray_DATA(across), n,
    )
    if angle < 0.0:
        raise _antipodes("p and q")
    point = cos((t - 0.5) * angle) * middle + sin((t - 0.5) * angle) * across
    return _on_the_simplex(point, "q") if kind == SIMPLEX else point


@cython.binding(True)
def log_map(p, q, str geometry="simplex"):
    """The tangent vector at p that leads to q.

    Parameters
    ----------
    p, q : array-like, shape=[dim]
        States at any positive scale, as for `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[dim]
        Orthogonal to the amplitude of p; its Euclidean length is `distance(p, q)`, in radians.

    Raises
    ------
    InvalidBasin
        As for `geodesic`.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray a = _amplitude(p, kind, "p")
    cdef cnp.ndarray b = _amplitude(q, kind, "q")
    cdef Py_ssize_t n = cnp.PyArray_DIM(a, 0)
    cdef cnp.ndarray middle = np.empty(n)
    cdef cnp.ndarray across = np.empty(n)
    cdef double angle, length
    _same_length(n, cnp.PyArray_DIM(b, 0), "p and q")
    angle = _frame(
        <const double*>cnp.PyArray_DATA(a), <const double*>cnp.PyArray_DATA(b),
        <double*>cnp.PyArray_DATA(middle), <double*>cnp.PyArray_DATA(across), n,
    )
    if angle < 0.0:
        raise _antipodes("p and q")
    length = 2.0 * angle if kind == SIMPLEX else angle
    return length * (sin(0.5 * angle) * middle + cos(0.5 * angle) * across)


@cython.binding(True)
def exp_map(p, v, str geometry="simplex"):
    """The state that the tangent vector v leads to from p, the inverse of `log_map`.

    Parameters
    ----------
    p : array-like, shape=[dim]
        A state at any positive scale, as for `distance`.
    v : array-like, shape=[dim]
        Orthogonal to the amplitude of p (within 1e-6 of its length); its length is the way to go, in
        radians of `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[dim]
        The amplitude, a unit vector.

    Raises
    ------
    InvalidBasin
        As for `distance`; v is not tangent at p, or leads off the simplex, which has an edge.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray a = _amplitude(p, kind, "p")
    cdef cnp.ndarray step = _array(v, "v", 1)
    cdef double length, along, angle
    _same_length(cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(step, 0), "p and v")
    largest = np.abs(step).max()
    if not largest < INFINITY:
        raise InvalidBasin(f"v: expected finite components, got {largest!r} at position {int(np.abs(step).argmax())}")
    if largest < 1e-300:
        return a
    unit = step / largest
    along = unit @ a
    length = np.linalg.norm(unit)
    if fabs(along) > 1e-6 * length:
        raise InvalidBasin(
            f"v: expected a tangent vector at p, orthogonal to its amplitude, got one at a cosine of "
            f"{along / length:.2g}; log_map(p, q) makes one"
        )
    unit -= along * a
    unit /= np.linalg.norm(unit)
    angle = length * largest * (0.5 if kind == SIMPLEX else 1.0)
    point = cos(angle) * a + sin(angle) * unit
    return _on_the_simplex(point, "v") if kind == SIMPLEX else point


cdef cnp.ndarray _shares(object weights, Py_ssize_t n):
    """Weights of rows, summing to 1."""
    cdef cnp.ndarray shares
    if weights is None:
        return np.full(n, 1.0 / n)
    shares = _array(weights, "weights", 1)
    if cnp.PyArray_DIM(shares, 0) != n:
        raise InvalidBasin(f"weights: expected one for each of {n} rows, got {cnp.PyArray_DIM(shares, 0)}")
    largest = shares.max()
    if not (shares.min() >= 0.0 and 0.0 < largest < INFINITY):
        raise InvalidBasin("weights: expected finite non-negative numbers, not all zero")
    shares = shares / largest
    return shares / shares.sum()


cdef double _pull(
    const double* unit, const double* share, const double* mean, double* pull, Py_ssize_t n, Py_ssize_t dim
) noexcept nogil:
    """The weighted mean of the rows' log maps at `mean`, and its length; −1 where a row is its antipode."""
    cdef double near, far, angle, weight
    cdef double back = 0.0
    cdef Py_ssize_t i, j
    cdef const double* row
    for j in range(dim):
        pull[j] = 0.0
    for i in range(n):
        if share[i] == 0.0:
            continue
        row = unit + i * dim
        near = sqrt(gap(row, 1.0, mean, 1.0, 1.0, dim))
        far = sqrt(gap(row, 1.0, mean, 1.0, -1.0, dim))
        if far < 1e-12:
            return -1.0
        # log = θ/sin θ · (row − cos θ · mean), with sin θ = near·far/2 and cos θ = 1 − near²/2
        angle = 2.0 * atan2(near, far)
        weight = share[i] * (angle / (0.5 * near * far) if near > 0.0 else 1.0)
        for j in range(dim):
            pull[j] += weight * (row[j] - mean[j])
        back += weight * 0.5 * near * near
    for j in range(dim):
        pull[j] += back * mean[j]
    return sqrt(squares_of(pull, dim))


@cython.binding(True)
def frechet_mean(rows, weights=None, str geometry="simplex"):
    """The Fréchet (Karcher) mean: the state with the least mean squared distance to the rows.

    Found by gradient steps m ← exp_m(Σ wᵢ log_m(xᵢ)) from the normalised mean of the amplitudes, until
    a step no longer shortens the gradient (Karcher 1977; Pennec 2006, "Intrinsic Statistics on
    Riemannian Manifolds", §4.3). On the simplex the mean is unique; on the sphere where the rows lie in
    an open half sphere.

    Parameters
    ----------
    rows : array-like, shape=[n, dim]
        States at any positive scale, as for `distance`.
    weights : array-like, shape=[n], optional
        Non-negative, at any scale; equal ones when left out.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[dim]
        The amplitude, a unit vector.

    Raises
    ------
    TooLittleData
        There are no rows.
    InvalidBasin
        As for `distance`; weights are unusable; or the rows surround the sphere, so that no one state
        is their mean.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray units = amplitudes(_array(rows, "rows", 2), geometry)
    cdef Py_ssize_t n = cnp.PyArray_DIM(units, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(units, 1)
    if n == 0:
        raise TooLittleData("rows: expected at least one row to take the mean of, got none")
    cdef cnp.ndarray shares = _shares(weights, n)
    cdef cnp.ndarray mean = np.ascontiguousarray(shares @ units)
    cdef cnp.ndarray pull = np.empty(dim)
    cdef double* centre = <double*>cnp.PyArray_DATA(mean)
    cdef double* step = <double*>cnp.PyArray_DATA(pull)
    cdef const double* unit = <const double*>cnp.PyArray_DATA(units)
    cdef const double* share = <const double*>cnp.PyArray_DATA(shares)
    cdef double length = 0.0
    cdef double before = INFINITY
    cdef double scale
    cdef Py_ssize_t i
    cdef int turn
    scale = sqrt(squares_of(centre, dim))
    if scale < 1e-9:
        raise _surrounding()
    with nogil:
        for i in range(dim):
            centre[i] /= scale
        for turn in range(1000):
            length = _pull(unit, share, centre, step, n, dim)
            if length < 0.0 or length >= before and length < 1e-9 or length < 1e-16:
                break
            before = length
            for i in range(dim):
                centre[i] = cos(length) * centre[i] + sin(length) / length * step[i]
            scale = sqrt(squares_of(centre, dim))
            for i in range(dim):
                centre[i] /= scale
    if not 0.0 <= length < 1e-9:
        raise _surrounding()
    return _on_the_simplex(mean, "rows") if kind == SIMPLEX else mean


cdef object _surrounding():
    return InvalidBasin("rows: expected states within one half of the sphere, got a set that has no single mean")


@cython.binding(True)
def frechet_variance(rows, mean=None, str geometry="simplex") -> float:
    """Mean squared distance of the rows to their Fréchet mean, in radians².

    Parameters
    ----------
    rows : array-like, shape=[n, dim]
        States at any positive scale, as for `distance`.
    mean : array-like, shape=[dim], optional
        An amplitude, as `frechet_mean` returns it; computed when left out.
    geometry : {"simplex", "sphere"}

    Raises
    ------
    TooLittleData, InvalidBasin
        As for `frechet_mean`.
    """
    rows = _array(rows, "rows", 2)
    if mean is None:
        mean = frechet_mean(rows, None, geometry)
    elif not len(rows):
        raise TooLittleData("rows: expected at least one row to take the variance of, got none")
    radians = distances(rows, from_amplitudes(mean, geometry), geometry)
    return float(np.mean(radians * radians))


@cython.binding(True)
def contributions(p, q, str geometry="simplex"):
    """Which components a distance comes from: their shares of the squared chord between the amplitudes.

    Parameters
    ----------
    p, q : array-like, shape=[dim]
        States at any positive scale, as for `distance`.
    geometry : {"simplex", "sphere"}

    Returns
    -------
    ndarray, shape=[dim]
        (aᵢ − bᵢ)²/‖a − b‖², non-negative and summing to 1; zeros where p and q are one state. The same
        for (p, q) and (q, p).

    Raises
    ------
    InvalidBasin
        As for `distance`.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray a = _amplitude(p, kind, "p")
    cdef cnp.ndarray b = _amplitude(q, kind, "q")
    _same_length(cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(b, 0), "p and q")
    steps = np.abs(a - b)
    largest = steps.max()
    if largest == 0.0:
        return steps
    squares = (steps / largest) ** 2
    return squares / squares.sum()
