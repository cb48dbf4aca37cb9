"""One signed state per request, and its streaming covariance; included by `_estimators.pyx`."""


@cython.final
cdef class States(Kernel):
    """A signed state vector of `len(bins)` components, and its streaming covariance.

    figures: callable (covariance [n, n], mean [n], effective samples) → (Φ, κ); called at the first
    request and then at each one whose number is a multiple of `refresh`.
    """

    cdef cnp.ndarray _bins
    cdef cnp.ndarray _given
    cdef cnp.ndarray _gaps
    cdef cnp.ndarray _mean
    cdef cnp.ndarray _covariance
    cdef double _kappa
    cdef double _spread  # Σ w² of the weights that the averages rest on
    cdef int64_t _refresh
    cdef object _figures
    cdef Py_ssize_t _n

    def __cinit__(self, bins, Py_ssize_t dim, int64_t memory, Py_ssize_t refresh, figures, on_invalid):
        self._prepare(dim, memory, on_invalid)
        self._n = len(bins)
        self._bins = np.require(bins, np.int32, "C")
        self._given, self._gaps, self._mean = np.empty(self._n), np.empty(self._n), np.zeros(self._n)
        self._covariance = np.zeros((self._n, self._n))
        self._refresh = refresh
        self._figures = figures

    @property
    def covariance(self):
        """Of the averaged requests, a copy, float64 [n, n]."""
        return self._covariance.copy()

    @property
    def mean(self):
        """Of the averaged requests, a copy, float64 [n]."""
        return self._mean.copy()

    @property
    def samples(self) -> float:
        """(Σw)²/Σw² of the weights: independent requests that would tell the mean as well."""
        return 1.0 / self._spread if self._spread > 0.0 else 0.0

    cdef double _take(self, object x) except? -1.0:
        cdef cnp.ndarray given = _numbers(x, self._n)
        cdef double* values = <double*>cnp.PyArray_DATA(self._given)
        cdef double* share = <double*>cnp.PyArray_DATA(self._share)
        cdef const int32_t* bins = <const int32_t*>cnp.PyArray_DATA(self._bins)
        cdef double total = 0.0
        cdef double largest = 0.0
        cdef Py_ssize_t i
        for i in range(self._n):
            values[i] = (
                (<const float*>cnp.PyArray_DATA(given))[i]
                if cnp.PyArray_TYPE(given) == cnp.NPY_FLOAT
                else (<const double*>cnp.PyArray_DATA(given))[i]
            )
            if not fabs(values[i]) <= LARGEST:
                raise InvalidBasin("state: " + _wanted("state"))
            largest = max(largest, fabs(values[i]))
        if largest == 0.0:
            raise InvalidBasin("state: " + _wanted("state"))
        for i in range(self._n):
            total += (values[i] / largest) * (values[i] / largest)
        memset(share, 0, self.dim * sizeof(double))
        for i in range(self._n):
            share[bins[i]] += (values[i] / largest) * (values[i] / largest) / total
        return self._phi

    cdef int _absorb(self, object x) except -1:
        cdef const double* values = <const double*>cnp.PyArray_DATA(self._given)
        cdef double* gaps = <double*>cnp.PyArray_DATA(self._gaps)
        cdef double* mean = <double*>cnp.PyArray_DATA(self._mean)
        cdef double* covariance = <double*>cnp.PyArray_DATA(self._covariance)
        cdef double gain, keep
        cdef Py_ssize_t i, j
        Kernel._absorb(self, x)
        # West 1979, in its exponential form: C ← (1 − g)·(C + g·δδᵀ), of δ = x − mean before the step.
        gain = max(1.0 / self._seen, self._gain)
        keep = 1.0 - gain
        self._spread = keep * keep * self._spread + gain * gain
        for i in range(self._n):
            gaps[i] = values[i] - mean[i]
            mean[i] += gain * gaps[i]
        for i in range(self._n):
            for j in range(self._n):
                covariance[i * self._n + j] = keep * (covariance[i * self._n + j] + gain * (gaps[i] * gaps[j]))
        if self.count == 1 or self.count % self._refresh == 0:
            self._phi, self._kappa = self._figures(self.covariance, self.mean, self.samples)
        return 0

    cdef double _kappa_now(self) noexcept:
        return self._kappa
