"""The ring buffer as it is read, and the table of names beside it; included by `_recorder.pyx`."""

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        PyTypeObject* subtype, cnp.dtype steals, int ndim, cnp.npy_intp* shape, cnp.npy_intp* strides,
        void* data, int flags, PyObject* parent,
    )

# column → (its place in a row, its bit in `repaired`)
cdef dict FIGURES = {
    name: (HEAD_TYPE.fields[name][1], _rows.BIT.get(name, 0))
    for name in HEAD_TYPE.names if HEAD_TYPE.fields[name][0].kind == "f"
}


@cython.final
cdef class _Names:
    """Texts and their numbers; number 0 is ""."""

    cdef list table
    cdef dict _numbers

    def __cinit__(self):
        self.table = [""]
        self._numbers = {"": 0}

    cdef int number(self, str name, Py_ssize_t last) except -2:
        """The number of a name, which joins the table if there is room up to `last`; −1 where there is none."""
        number = self._numbers.get(name)
        if number is None:
            if len(name) > LONGEST_NAME:
                return -1
            # A lone surrogate could not be written to disk.
            clean = name.encode("utf-8", "replace").decode()
            number = self._numbers.get(clean)
            if number is None:
                if len(self.table) > last:
                    return -1
                number = len(self.table)
                self.table.append(clean)
                self._numbers[clean] = number
        return number


# Arrays of numbers are no GC objects: between counting rows and copying them no Python code runs.

cdef cnp.ndarray _heads_of(const Head* ring, Py_ssize_t slots, int64_t first, Py_ssize_t n):
    # Bytes seen as rows, because numpy spends half a microsecond on allocating a structured array.
    cdef cnp.npy_intp size = n * sizeof(Head)
    cdef cnp.ndarray room = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_UINT8)
    _unroll(<char*>cnp.PyArray_DATA(room), <const char*>ring, sizeof(Head), slots, first, n)
    size = n
    Py_INCREF(HEAD_TYPE)
    made = PyArray_NewFromDescr(
        <PyTypeObject*>cnp.ndarray, HEAD_TYPE, 1, &size, NULL,
        cnp.PyArray_DATA(room), cnp.NPY_ARRAY_CARRAY, NULL,
    )
    cnp.set_array_base(made, room)
    return made


cdef cnp.ndarray _basins_of(
    const double* ring, Py_ssize_t dim, Py_ssize_t slots, int64_t first, Py_ssize_t n
):
    cdef cnp.npy_intp[2] shape
    shape[0] = n
    shape[1] = dim
    cdef cnp.ndarray made = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_DOUBLE)
    _unroll(<char*>cnp.PyArray_DATA(made), <const char*>ring, dim * sizeof(double), slots, first, n)
    return made


cdef cnp.ndarray _series_of(
    const Head* ring, Py_ssize_t offset, int flag, Py_ssize_t slots, int64_t first, Py_ssize_t n
):
    """One figure of n rows, float64; NaN where it was repaired."""
    cdef cnp.npy_intp size = n
    cdef cnp.ndarray made = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
    cdef double* out = <double*>cnp.PyArray_DATA(made)
    cdef Py_ssize_t slot = first % slots
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = (<const double*>(<const char*>(ring + slot) + offset))[0] if measured(ring + slot, flag) else NAN
        slot += 1
        if slot == slots:
            slot = 0
    return made


cdef void _unroll(
    char* out, const char* ring, Py_ssize_t width, Py_ssize_t slots, int64_t first, Py_ssize_t n
) noexcept:
    cdef Py_ssize_t slot = first % slots
    cdef Py_ssize_t straight = min(n, slots - slot)
    memcpy(out, ring + slot * width, straight * width)
    memcpy(out + straight * width, ring, (n - straight) * width)


cdef class _Ring:
    """The last rows, and how they are read; `Recorder` writes them."""

    cdef readonly Py_ssize_t dim
    cdef readonly Py_ssize_t capacity
    cdef readonly int64_t total
    cdef Py_ssize_t _slots  # one more than capacity: a row under construction is never one of the live rows
    cdef Py_ssize_t _slot
    cdef Head* _heads
    cdef double* _basins
    cdef _Names _names
    cdef object _kept  # the arrays that the pointers lead into

    @property
    def names(self):
        """The table that `code` and `module` of rows point into; names[0] is ""."""
        return tuple(self._names.table)

    def heads(self, count):
        """The newest rows without their basins: min(count, total, capacity) of them, oldest first, a copy."""
        cdef Py_ssize_t n = min(<int64_t>max(count, 0), self.total, <int64_t>self.capacity)
        return _heads_of(self._heads, self._slots, self.total - n, n)

    def basins(self, count):
        """The newest basins as reported: shape [min(count, total, capacity), dim], oldest first, a copy."""
        cdef Py_ssize_t n = min(<int64_t>max(count, 0), self.total, <int64_t>self.capacity)
        return _basins_of(self._basins, self.dim, self._slots, self.total - n, n)

    def series(self, str column not None, Py_ssize_t count):
        """One figure of the newest rows: shape [min(count, total, capacity)], oldest first, a copy.

        column: a float column of `qigcore.rows.HEAD`. NaN where it was repaired, or not reported.
        Raises ValueError for another column.
        """
        cdef Py_ssize_t n = min(<int64_t>max(count, <Py_ssize_t>0), self.total, <int64_t>self.capacity)
        found = FIGURES.get(column)
        if found is None:
            raise ValueError(f"column: expected one of {', '.join(FIGURES)}, got {column!r}")
        return _series_of(self._heads, found[0], found[1], self._slots, self.total - n, n)

    def rows(self, first, last):
        """Rows number `first` to `last` − 1, as far as the ring holds them.

        Returns (number of the first row returned, heads [n], basins [n, dim]): copies of one moment.
        """
        cdef int64_t oldest = self.total - min(self.total, <int64_t>self.capacity)
        cdef int64_t start = min(max(<int64_t>first, oldest), self.total)
        cdef int64_t stop = max(min(<int64_t>last, self.total), start)
        cdef Py_ssize_t n = stop - start
        heads = _heads_of(self._heads, self._slots, start, n)
        return start, heads, _basins_of(self._basins, self.dim, self._slots, start, n)

    def snapshot(self, number):
        """The snapshot in row `number`, counted from the first ever recorded.

        Raises IndexError where the ring does not hold it (any more).
        """
        cdef int64_t oldest = self.total - min(self.total, <int64_t>self.capacity)
        if not oldest <= number < self.total:
            raise IndexError(f"row {number}: the ring holds rows {oldest} to {self.total - 1}")
        return self._read(<int64_t>number % self._slots)

    cdef GeometricSnapshot _read(self, Py_ssize_t slot):
        return _snapshot_of(self._heads + slot, self._basins + slot * self.dim, self.dim, self._names.table)
