"""Copies out of a ring buffer, and the table of names beside it; included by `_recorder.pyx`."""

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        PyTypeObject* subtype, cnp.dtype steals, int ndim, cnp.npy_intp* shape, cnp.npy_intp* strides,
        void* data, int flags, PyObject* parent,
    )

cdef enum:
    LAST_NAME = 65535  # Head.code and Head.module are 16 bits wide


@cython.final
cdef class _Names:
    """Texts and their numbers; number 0 is ""."""

    cdef list table
    cdef dict _numbers

    def __cinit__(self):
        self.table = [""]
        self._numbers = {"": 0}

    cdef int number(self, str name) except -2:
        """The number of a name, which joins the table if there is room; −1 where there is none."""
        number = self._numbers.get(name)
        if number is None:
            # A lone surrogate could not be written to disk.
            clean = name.encode("utf-8", "replace").decode()
            number = self._numbers.get(clean)
            if number is None:
                if len(self.table) > LAST_NAME:
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


cdef void _unroll(
    char* out, const char* ring, Py_ssize_t width, Py_ssize_t slots, int64_t first, Py_ssize_t n
) noexcept:
    cdef Py_ssize_t slot = first % slots
    cdef Py_ssize_t straight = min(n, slots - slot)
    memcpy(out, ring + slot * width, straight * width)
    memcpy(out + straight * width, ring, (n - straight) * width)
