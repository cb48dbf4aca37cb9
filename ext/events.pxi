"""One category per request, as a histogram that forgets; included by `_estimators.pyx`."""


def mixed(uint64_t value):
    """SplitMix64's output function (Steele, Lea & Flood 2014, Figure 16): 64 bits, each depending on all."""
    return _mixed(value)


cdef inline uint64_t _mixed(uint64_t z) noexcept nogil:
    z = z + <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


def hashed_bin(str text, uint64_t seed, Py_ssize_t dim) -> int:
    """The bin of a category: see `qigcore.estimators.events`. UnicodeEncodeError for lone surrogates."""
    return _hashed_bin(text, seed, dim)


cdef Py_ssize_t _hashed_bin(str text, uint64_t seed, Py_ssize_t dim) except -1:
    cdef Py_ssize_t size, i
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    cdef uint64_t found = <uint64_t>0xCBF29CE484222325
    for i in range(size):
        found = (found ^ <unsigned char>data[i]) * <uint64_t>0x100000001B3
    return <Py_ssize_t>(((_mixed(found ^ _mixed(seed)) >> 32) * <uint64_t>dim) >> 32)


@cython.final
cdef class Events(Kernel):
    """Categories, as text. bins: category → bin, the last for any else; or None: all are hashed."""

    cdef dict _bins
    cdef Py_ssize_t _other
    cdef uint64_t _seed
    cdef double _most

    def __cinit__(self, bins, Py_ssize_t used, Py_ssize_t dim, int64_t memory, uint64_t seed, on_invalid):
        self._prepare(dim, memory, on_invalid)
        self._bins = bins
        self._other = dim - 1
        self._seed = seed
        self._most = log(used)

    cdef int _absorb(self, object x) except -1:
        cdef double* basin = <double*>cnp.PyArray_DATA(self._basin)
        cdef Py_ssize_t chosen, i
        cdef double gain, moved
        if not PyUnicode_CheckExact(x):  # a subclass may hash and compare as it likes
            raise InvalidBasin(f"event: expected text, got {type(x).__name__}; name the category with str()")
        try:
            chosen = _hashed_bin(x, self._seed, self.dim) if self._bins is None else self._bins.get(x, self._other)
        except UnicodeEncodeError:
            raise InvalidBasin("event: expected text that UTF-8 can write, got a lone surrogate") from None
        gain = self._step()
        for i in range(self.dim):
            moved = basin[i] - gain * basin[i]
            basin[i] = moved if moved >= NOTHING else 0.0
        basin[chosen] += gain
        self._phi = _concentration(_entropy(basin, self.dim), self._most)
        return 0
