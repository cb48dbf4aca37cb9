# cython: embedsignature.format=clinic
"""The running part of `qigcore.estimators`: one request in, one reading out, in microseconds.

A kernel holds exponential averages and what it was constructed with; it reads no files, fits nothing
but sums for `qigcore.estimators.fitting`, and knows no monitor. Arguments are converted first, which may
run the host's code; what follows is C under the GIL, so no other thread sees half of an update.

Precision policy. Averages move by a + g·(x − a), which keeps shares non-negative, keeps their sum at 1
to a few times 2^-53 however long it runs, and forgets its rounding as it forgets requests. Shares below
1e-300 become 0: denormal numbers would slow each later request. Entropies are taken of normalised
shares (of logits as ln Σe − Σe·x/Σe, without a logarithm per class) and never below 0. exp and log are
the C library's: their last bit may differ between machines. Embeddings: see products.h.
"""

cimport cython
cimport numpy as cnp
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from libc.math cimport INFINITY, exp, fabs, isfinite, log
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from collections import namedtuple

import numpy as np

from qigcore.errors import InvalidBasin

cnp.import_array()

cdef extern from "stdlib.h" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef extern from "products.h" nogil:
    enum:
        COLUMNS "QIG_COLUMNS"
    bint WIDE "qig_wide"
    void products "qig_products"(
        const float* x, const float* columns, Py_ssize_t n, Py_ssize_t blocks, double* out
    ) noexcept
    bint unit_of_floats "qig_unit_of_floats"(const float* x, float* unit, Py_ssize_t n) noexcept
    bint unit_of_doubles "qig_unit_of_doubles"(const double* x, float* unit, Py_ssize_t n) noexcept

INSTRUCTIONS = "avx2" if WIDE else "plain"

cdef double NOTHING = 1e-300
cdef double LARGEST = 1e100  # of a state's component: its square, summed, stays far from overflow

Reading = namedtuple("Reading", ("phi", "kappa", "basin"), module="qigcore._estimators")
Readings = namedtuple("Readings", ("phi", "kappa", "basin"), module="qigcore._estimators")
cdef object make = tuple.__new__


# --- figures of one distribution ---------------------------------------------------------------------


cdef double _entropy(const double* weights, Py_ssize_t n) noexcept nogil:
    """Nats, of non-negative weights at any scale at which their sum is finite; 0 where all are 0."""
    cdef double total = 0.0
    cdef double found = 0.0
    cdef double share
    cdef Py_ssize_t i
    for i in range(n):
        total += weights[i]
    if not total > 0.0:
        return 0.0
    for i in range(n):
        share = weights[i] / total
        if share > 0.0:
            found -= share * log(share)
    return max(found, 0.0)


cdef inline double _concentration(double entropy, double most) noexcept nogil:
    return min(max(1.0 - entropy / most, 0.0), 1.0)


cdef double _softmax(double* values, Py_ssize_t n) noexcept nogil:
    """Turns logits into probabilities; returns the entropy, or −1 for a NaN, +∞ or nothing above −∞."""
    cdef double largest = -INFINITY
    cdef double total = 0.0
    cdef double along = 0.0
    cdef double share, below
    cdef Py_ssize_t i
    for i in range(n):
        if not values[i] < INFINITY:
            return -1.0
        largest = max(largest, values[i])
    if largest == -INFINITY:
        return -1.0
    for i in range(n):
        below = values[i] - largest
        share = exp(below)
        if share > 0.0:
            along += share * below
        total += share
        values[i] = share
    for i in range(n):
        values[i] /= total
    return max(log(total) - along / total, 0.0)


cdef double _normalise(double* values, Py_ssize_t n) noexcept nogil:
    """Turns weights into probabilities; returns the entropy, or −1 for what are no weights."""
    cdef double largest = 0.0
    cdef double total = 0.0
    cdef Py_ssize_t i
    for i in range(n):
        if not 0.0 <= values[i] < INFINITY:
            return -1.0
        largest = max(largest, values[i])
    if largest == 0.0:
        return -1.0
    for i in range(n):
        values[i] /= largest  # first, so that the sum of huge or denormal weights is an ordinary number
        total += values[i]
    for i in range(n):
        values[i] /= total
    return _entropy(values, n)


def entropy(weights) -> float:
    """H = −Σ p ln p in nats of p = weights/Σ weights (Shannon 1948, §6). weights: array-like, shape=[n].

    In [0, ln n]. Raises InvalidBasin for weights that are negative, not finite, or all 0.
    """
    cdef cnp.ndarray values = np.array(_numbers(weights, -1), np.float64)
    cdef double found = _normalise(<double*>cnp.PyArray_DATA(values), cnp.PyArray_DIM(values, 0))
    if found < 0.0:
        raise InvalidBasin(f"weights: {_wanted('weights')}")
    return found


# --- arguments ---------------------------------------------------------------------------------------


cdef str _wanted(str what):
    return {
        "weights": "expected finite, non-negative numbers that are not all 0",
        "logits": "expected logits below +∞, at least one above −∞, and no NaN",
        "embedding": "expected finite components that are not all 0",
        "state": f"expected finite components of at most {LARGEST:g} in size, not all 0",
    }[what]


cdef cnp.ndarray _numbers(object values, Py_ssize_t n):
    """float32 or float64, C-contiguous, shape [n] (any length where n < 0); raises InvalidBasin otherwise."""
    cdef cnp.ndarray array
    if not (
        cnp.PyArray_CheckExact(values)
        and cnp.PyArray_TYPE(<cnp.ndarray>values) in (cnp.NPY_DOUBLE, cnp.NPY_FLOAT)
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>values)
    ):
        values = _odd_numbers(values)
    array = values
    if cnp.PyArray_NDIM(array) != 1 or (n >= 0 and cnp.PyArray_DIM(array, 0) != n):
        shape = list((<object>array).shape)
        raise InvalidBasin(f"expected numbers of shape [{n if n >= 0 else 'n'}], got shape {shape}")
    return array


cdef object _odd_numbers(object values):
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise InvalidBasin(f"expected real numbers, got an array of {array.dtype}")
        if array is not values and np.ma.is_masked(values):
            raise InvalidBasin("expected an array without masked values; fill or leave them out")
        with np.errstate(all="ignore"):  # a longdouble beyond float64 becomes ∞, which is refused in its turn
            return np.require(array, np.float32 if array.dtype == np.float32 else np.float64, ("C", "A"))
    except InvalidBasin:
        raise
    except Exception as error:  # a host's object may raise anything while it is converted
        raise InvalidBasin(
            f"expected an array of numbers, got {type(values).__name__} ({type(error).__name__})"
        ) from None


# --- what every estimator keeps ----------------------------------------------------------------------


cdef class Kernel:
    """Exponential averages over requests; subclasses say what one request contributes.

    count: requests taken in; skipped: those that could not be used; neither counts the other.
    """

    cdef readonly Py_ssize_t dim
    cdef readonly int64_t count
    cdef readonly int64_t skipped
    cdef bint _raises
    cdef int64_t _memory
    cdef double _gain
    cdef int64_t _seen  # requests that the averages rest on, those behind a given start included
    cdef double _phi
    cdef cnp.ndarray _basin
    cdef cnp.ndarray _share

    cdef int _prepare(self, Py_ssize_t dim, int64_t memory, on_invalid) except -1:
        if on_invalid not in ("nan", "raise"):
            raise ValueError(f"on_invalid: expected 'nan' or 'raise', got {on_invalid!r}")
        self.dim = dim
        self._memory = memory
        self._gain = 2.0 / (memory + 1.0)
        self._raises = on_invalid == "raise"
        self._basin = np.zeros(dim)
        self._share = np.zeros(dim)
        return 0

    cdef double _take(self, object x) except? -1.0:
        """Fills `_share` and returns Φ of one request; raises InvalidBasin. May run the host's code first."""
        raise NotImplementedError

    cdef double _step(self) noexcept:
        """The weight of the request that is taken in now."""
        self.count += 1
        self._seen += 1
        return max(1.0 / self._seen, self._gain)

    cdef int _absorb(self, object x) except -1:
        cdef double phi = self._take(x)
        cdef double* basin = <double*>cnp.PyArray_DATA(self._basin)
        cdef const double* share = <const double*>cnp.PyArray_DATA(self._share)
        cdef double gain = self._step()
        cdef double moved
        cdef Py_ssize_t i
        for i in range(self.dim):
            moved = basin[i] + gain * (share[i] - basin[i])
            basin[i] = moved if moved >= NOTHING else 0.0
        self._phi += gain * (phi - self._phi)
        return 0

    cdef double _kappa_now(self) noexcept:
        return exp(_entropy(<const double*>cnp.PyArray_DATA(self._basin), self.dim))

    cdef object _reading(self):
        cdef cnp.npy_intp shape = self.dim
        cdef cnp.ndarray basin = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_DOUBLE, 0)
        memcpy(cnp.PyArray_DATA(basin), cnp.PyArray_DATA(self._basin), self.dim * sizeof(double))
        return make(Reading, (self._phi, self._kappa_now(), basin))

    @property
    def ready(self) -> bool:
        """Whether the averages rest on as many requests as they reach back."""
        return self._seen >= self._memory

    def update(self, x, /):
        """Take one request in; the reading after it."""
        try:
            self._absorb(x)
        except InvalidBasin:
            self.skipped += 1
            if self._raises:
                raise
            return make(Reading, (np.nan, np.nan, np.full(self.dim, np.nan)))
        return self._reading()

    def update_many(self, rows, /):
        """As `update` for each row in order: the same bits, in arrays."""
        cdef Py_ssize_t i
        rows = rows if hasattr(rows, "__len__") else list(rows)
        phi, kappa, basin = np.empty(len(rows)), np.empty(len(rows)), np.empty((len(rows), self.dim))
        for i, row in enumerate(rows):
            phi[i], kappa[i], basin[i] = self.update(row)
        return make(Readings, (phi, kappa, basin))


# --- classes -----------------------------------------------------------------------------------------


@cython.final
cdef class Classes(Kernel):
    """Probabilities, or logits, of `len(bins)` classes; bins: int32 [classes], the bin of each."""

    cdef cnp.ndarray _bins
    cdef cnp.ndarray _values
    cdef Py_ssize_t _n
    cdef bint _logits
    cdef double _most

    def __cinit__(self, bins, Py_ssize_t dim, int64_t memory, bint logits, on_invalid):
        self._prepare(dim, memory, on_invalid)
        self._bins = np.require(bins, np.int32, "C")
        self._n = len(bins)
        self._values = np.empty(self._n)
        self._logits = logits
        self._most = log(self._n)

    cdef double _take(self, object x) except? -1.0:
        cdef cnp.ndarray given = _numbers(x, self._n)
        cdef double* values = <double*>cnp.PyArray_DATA(self._values)
        cdef double* share = <double*>cnp.PyArray_DATA(self._share)
        cdef const int32_t* bins = <const int32_t*>cnp.PyArray_DATA(self._bins)
        cdef double found
        cdef Py_ssize_t i
        if cnp.PyArray_TYPE(given) == cnp.NPY_FLOAT:
            for i in range(self._n):
                values[i] = (<const float*>cnp.PyArray_DATA(given))[i]
        else:
            memcpy(values, cnp.PyArray_DATA(given), self._n * sizeof(double))
        found = _softmax(values, self._n) if self._logits else _normalise(values, self._n)
        if found < 0.0:
            raise InvalidBasin("classes: " + _wanted("logits" if self._logits else "weights"))
        memset(share, 0, self.dim * sizeof(double))
        for i in range(self._n):
            share[bins[i]] += values[i]
        return _concentration(found, self._most)


include "centroids.pxi"
include "events.pxi"
include "covariance.pxi"
