# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The parts of `record`, each in a C loop; compiled and called by `benchmarks.parts`.

The recorder's source is included, so that what is timed are its own functions and no copy of them;
the directives above are those that setup.py builds it with. All results are nanoseconds a turn.
"""

include "../ext/_recorder.pyx"

from posix.time cimport CLOCK_MONOTONIC


# What the loops compute ends here, so that no compiler leaves it out.
cdef double sink = 0.0

cdef enum:
    SOURCES = 4  # rows that take turns as input
    SLOTS = 1001  # rows that are written to, as many as a ring of 1,000 has


@cython.final
cdef class Hollow:
    """Has a method that takes what `record` takes, does nothing, and returns a float as `record` does."""

    cdef double answer

    def record(self, phi, kappa_eff, basin, error_rate=0.0, avg_latency_ms=0.0, memory_mb=0.0):
        return self.answer


cdef double _nanoseconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec * 1e9 + <double>now.tv_nsec


cdef class Parts:
    """Loops over `rows`, shape [at least 4, dim], float64 and C-contiguous; reference: rows[0]."""

    cdef object _kept
    cdef double* _rows
    cdef double* _slots
    cdef double* _scratch
    cdef double* _reference
    cdef Py_ssize_t _dim

    def __cinit__(self, rows):
        slots, room = np.zeros((SLOTS, rows.shape[1])), np.zeros((2, rows.shape[1]))
        self._kept = (rows, slots, room)
        self._dim = rows.shape[1]
        self._rows = <double*>cnp.PyArray_DATA(rows)
        self._slots = <double*>cnp.PyArray_DATA(slots)
        self._scratch = <double*>cnp.PyArray_DATA(room)
        self._reference = self._scratch + self._dim
        cdef double scale = 0.0
        cdef const double* amplitude = prepared(self._rows, self._scratch, self._dim, SIMPLEX, &scale)
        cdef Py_ssize_t i
        for i in range(self._dim):
            self._reference[i] = amplitude[i] * scale

    cdef const double* _row(self, Py_ssize_t turn) noexcept nogil:
        return self._rows + (turn % SOURCES) * self._dim

    def arguments(self, list calls, Py_ssize_t count):
        """Five numbers out of their objects, and whether the basin can be read where it stands."""
        global sink
        cdef double began = _nanoseconds()
        cdef double total = 0.0
        cdef Py_ssize_t i
        cdef tuple given
        for i in range(count):
            given = <tuple>calls[i & 1]
            total += _number(given[0]) + _number(given[1]) + _number(given[3])
            total += _number(given[4]) + _number(given[5])
            total += <int>_plain(given[2], self._dim)
        sink += total
        return (_nanoseconds() - began) / count

    def copying(self, Py_ssize_t count):
        """The basin, into a slot of the ring."""
        cdef double began = _nanoseconds()
        cdef Py_ssize_t i, slot = 0
        for i in range(count):
            memcpy(self._slots + slot * self._dim, self._row(i), self._dim * sizeof(double))
            slot = slot + 1 if slot + 1 < SLOTS else 0
        return (_nanoseconds() - began) / count

    def normalising(self, Py_ssize_t count):
        """Roots, their sum (which is also the check of all components), and its root."""
        global sink
        cdef double began = _nanoseconds()
        cdef double total = 0.0
        cdef double scale = 0.0
        cdef Py_ssize_t i
        for i in range(count):
            prepared(self._row(i), self._scratch, self._dim, SIMPLEX, &scale)
            total += scale
        sink += total
        return (_nanoseconds() - began) / count

    def measuring(self, Py_ssize_t count):
        """The distance from the reference of what is normalised already."""
        global sink
        cdef double began = _nanoseconds()
        cdef double total = 0.0
        cdef Py_ssize_t i
        for i in range(count):
            total += apart(self._row(i), 1.0 + 1e-9 * (i & 1), self._reference, 1.0, self._dim, SIMPLEX)
        sink += total
        return (_nanoseconds() - began) / count

    def clock(self, Py_ssize_t count):
        """The time of day in whole microseconds."""
        global sink
        cdef double began = _nanoseconds()
        cdef double total = 0.0
        cdef Py_ssize_t i
        for i in range(count):
            total += _now()
        sink += total
        return (_nanoseconds() - began) / count

    def writing(self, Recorder recorder, Py_ssize_t count):
        """All that `record` does below its arguments: the four above, range checks, the row's figures."""
        global sink
        cdef Sample sample
        cdef double total = 0.0
        cdef double began
        cdef Py_ssize_t i
        sample.phi, sample.kappa_eff, sample.error_rate = 0.75, 64.0, 0.0
        sample.avg_latency_ms, sample.memory_mb = 5.0, 100.0
        sample.timestamp, sample.given, sample.module = NAN, 0, 0
        began = _nanoseconds()
        for i in range(count):
            total += recorder._write(&sample, self._row(i))
        sink += total + sample.drift
        return (_nanoseconds() - began) / count
