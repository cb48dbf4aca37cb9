"""One embedding per request as a soft assignment, and the sums of a fit; included by `_estimators.pyx`."""


@cython.final
cdef class Centroids:
    """Unit vectors, shape [k, n], float32, laid out for `products`: blocks of 64 columns, zeros at the end."""

    cdef readonly Py_ssize_t k
    cdef readonly Py_ssize_t n
    cdef Py_ssize_t _blocks
    cdef float* _columns
    cdef cnp.ndarray _unit
    cdef cnp.ndarray _cosines

    def __cinit__(self, rows):
        cdef Py_ssize_t i, j
        cdef const float[:, ::1] given = np.require(rows, np.float32, "C")
        cdef size_t size
        self.k = given.shape[0]
        self.n = given.shape[1]
        self._blocks = (self.k + COLUMNS - 1) // COLUMNS
        size = self._blocks * self.n * COLUMNS * sizeof(float)
        self._columns = <float*>aligned_alloc(64, size)
        if self._columns == NULL:
            raise MemoryError
        memset(self._columns, 0, size)
        for i in range(self.k):
            for j in range(self.n):
                self._columns[((i // COLUMNS) * self.n + j) * COLUMNS + i % COLUMNS] = given[i, j]
        self._unit = np.empty(self.n, np.float32)
        self._cosines = np.empty(self._blocks * COLUMNS)

    def __dealloc__(self):
        free(self._columns)

    cdef const double* _measure(self, const float* unit) noexcept:
        products(unit, self._columns, self.n, self._blocks, <double*>cnp.PyArray_DATA(self._cosines))
        return <const double*>cnp.PyArray_DATA(self._cosines)

    cdef double* _to(self, object x) except NULL:
        """Cosines of one embedding, in a buffer that the next call overwrites."""
        cdef cnp.ndarray given = _numbers(x, self.n)
        cdef float* unit = <float*>cnp.PyArray_DATA(self._unit)
        cdef bint usable
        if cnp.PyArray_TYPE(given) == cnp.NPY_FLOAT:
            usable = unit_of_floats(<const float*>cnp.PyArray_DATA(given), unit, self.n)
        else:
            usable = unit_of_doubles(<const double*>cnp.PyArray_DATA(given), unit, self.n)
        if not usable:
            raise InvalidBasin("embedding: " + _wanted("embedding"))
        return <double*>self._measure(unit)

    def cosines(self, const float[:, ::1] units):
        """Of unit rows, shape [m, n]; float64 [m, k]."""
        cdef Py_ssize_t i
        cdef const double* found
        cdef cnp.ndarray made = np.empty((units.shape[0], self.k))
        cdef double* out = <double*>cnp.PyArray_DATA(made)
        for i in range(units.shape[0]):
            found = self._measure(&units[i, 0])
            memcpy(out + i * self.k, found, self.k * sizeof(double))
        return made


@cython.final
cdef class Embeddings(Kernel):
    """One embedding as a soft assignment to centroids.

    centroids: `Centroids`; temperature: τ of exp(−d²/τ); start: the shares to begin with, float64 [k],
    with Φ `start_phi`, as if they were the average of `memory` requests.
    """

    cdef Centroids _centroids
    cdef double _sharpness
    cdef double _most

    def __cinit__(
        self, Centroids centroids, double temperature, int64_t memory, start, double start_phi, on_invalid
    ):
        self._prepare(centroids.k, memory, on_invalid)
        self._centroids = centroids
        self._sharpness = 2.0 / temperature
        self._most = log(centroids.k)
        self._basin = np.array(start, np.float64)
        self._phi = start_phi
        self._seen = memory

    cdef double _take(self, object x) except? -1.0:
        cdef const double* cosines = self._centroids._to(x)
        cdef double* share = <double*>cnp.PyArray_DATA(self._share)
        cdef double found
        cdef Py_ssize_t i
        for i in range(self.dim):
            share[i] = self._sharpness * cosines[i]  # −d²/τ = (2·cos − 2)/τ; what is common cancels
        found = _softmax(share, self.dim)
        if found < 0.0:  # another thread wrote to the embedding meanwhile: one NaN would stay in the averages
            raise InvalidBasin("embedding: " + _wanted("embedding"))
        return _concentration(found, self._most)


def unit_rows(rows):
    """Embeddings at length 1 in float32, shape [n, dim], and which of the rows those are, bool [n given]."""
    cdef cnp.ndarray given = np.require(rows, np.float32 if rows.dtype == np.float32 else np.float64, "C")
    cdef cnp.ndarray made = np.empty((len(given), given.shape[1]), np.float32)
    cdef cnp.ndarray usable = np.zeros(len(given), np.bool_)
    cdef Py_ssize_t n = given.shape[1]
    cdef Py_ssize_t i
    cdef bint narrow = cnp.PyArray_TYPE(given) == cnp.NPY_FLOAT
    cdef float* out = <float*>cnp.PyArray_DATA(made)
    cdef char* good = <char*>cnp.PyArray_DATA(usable)
    for i in range(len(given)):
        if narrow:
            good[i] = unit_of_floats(<const float*>cnp.PyArray_DATA(given) + i * n, out + i * n, n)
        else:
            good[i] = unit_of_doubles(<const double*>cnp.PyArray_DATA(given) + i * n, out + i * n, n)
    return made[usable], usable


def cluster_sums(const float[:, ::1] units, const int64_t[::1] labels, Py_ssize_t k):
    """Sums of the rows of each cluster, in the order of the rows, float64 [k, dim]."""
    cdef double[:, ::1] sums = np.zeros((k, units.shape[1]))
    cdef Py_ssize_t i, j
    for i in range(units.shape[0]):
        for j in range(units.shape[1]):
            sums[labels[i], j] += units[i, j]
    return np.asarray(sums)
