# cython: embedsignature.format=clinic
"""The ring that `record()` writes to, and the snapshots read from it.

`record()` runs inside the served process, once per request. In the usual case (floats, and a float64
array) it makes no Python object but the float it returns, and runs no Python code. Arguments are
converted first, which may run the host's code; then the row is written by C alone: under the GIL no
row is ever half written, whichever threads record.

Nothing here decides what is healthy, reads files or starts threads.
"""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport (
    PyErr_Clear, PyErr_ExceptionMatches, PyErr_Occurred, PyErr_SetObject, PyErr_WriteUnraisable,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsDouble, PyLong_CheckExact
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY, NAN, isfinite
from libc.stdint cimport INT64_MAX, int64_t, uint16_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from numeric cimport (
    AGENCY, BASIN, CONFIDENCE, ERRORS, KAPPA, LATENCY, MEMORY, PHI, SIMPLEX, SPHERE, SURPRISE,
    GROUP, Head, apart, measured, measured_rows, prepared, taken,
)

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
import sys

import numpy as np

from qigcore.errors import InvalidBasin, InvalidLimit, InvalidSnapshot
from qigcore import constants as _constants
from qigcore import rows as _rows

cnp.import_array()

cdef cnp.dtype HEAD_TYPE = _rows.HEAD
if sizeof(Head) != HEAD_TYPE.itemsize:
    raise ImportError("qigcore._recorder was built for another layout of rows; rebuild the extensions")
cdef tuple REGIME_NAMES = _rows.REGIMES
cdef tuple FIELD_NAMES = _rows.REPAIRABLE
cdef enum:
    FIELDS = 9
    ATTEMPTS = 0x3FFF  # the 14 that decide on health
    LAST_NAME = 65535  # Head.code and Head.module are 16 bits wide
    # A host that names a module per request (a mistake) may not fill memory with them.
    LAST_MODULE = 4096
    LONGEST_NAME = 256


include "reported.pxi"
include "snapshot.pxi"
include "ring.pxi"
include "alarms.pxi"


@cython.final
cdef class Recorder(_Watched):
    """A ring of the last `capacity` snapshots, written by `record()` and `capture()`.

    Parameters
    ----------
    dim : int
        Components of a basin.
    capacity : int
        Snapshots held; each takes 88 + 8·dim bytes.
    geometry : {"simplex", "sphere"}
        How drift is measured, see `qigcore.geometry`.
    linear_below, breakdown_from : float
        Bounds of the regimes: Φ < linear_below is `linear`, Φ ≥ breakdown_from is `breakdown`.
    on_invalid : {"repair", "raise"}
        What happens to unusable values. `"repair"`: the field holds its last good value (before any: 0,
        and a uniform basin), Φ and error_rate outside [0, 1] are clipped, and the field is flagged.
        `"raise"`: InvalidSnapshot, and nothing is stored. Booleans and text are no numbers.
    code_hash, module_name : str
        Stored with every row; `capture` may name another module, and `code_hash` may be set.

    Attributes
    ----------
    total : int
        Rows ever recorded. Row numbers count from 0 and never repeat.
    each_row : callable or None
        Called with no arguments after every row. If it fails, the error goes to `sys.unraisablehook`
        and it is switched off; the host's request goes on.
    mark : object
        What `set_reference` was told with the reference; None before.
    """

    cdef readonly str geometry
    cdef readonly str on_invalid
    cdef readonly double linear_below
    cdef readonly double breakdown_from
    cdef double* _scratch
    cdef double* _reference
    cdef bint _referenced
    cdef bint _refuses
    cdef int _kind
    cdef Sample _good
    cdef uint16_t _code
    cdef uint16_t _module
    cdef int64_t[FIELDS + 2] _invalid  # by bit; then timestamp and module_name
    cdef readonly object mark
    cdef unsigned int _attempts  # the newest ones as bits, the last one lowest; 1: refused
    cdef int64_t _refused
    cdef int64_t _refusing_from
    cdef double _refusing_since

    def __cinit__(
        self, dim=_constants.BASIN_DIM, capacity=1000, geometry="simplex", linear_below=_constants.LINEAR_BELOW,
        breakdown_from=_constants.BREAKDOWN_FROM, on_invalid="repair", code_hash="", module_name="",
    ):
        if geometry not in ("simplex", "sphere"):
            raise InvalidLimit(f"geometry: expected 'simplex' or 'sphere', got {geometry!r}")
        if on_invalid not in ("repair", "raise"):
            raise InvalidLimit(f"on_invalid: expected 'repair' or 'raise', got {on_invalid!r}")
        if dim < 1 or capacity < 1:
            raise InvalidLimit(f"dim and capacity: expected at least 1, got {dim!r} and {capacity!r}")
        if not 0.0 <= linear_below <= breakdown_from <= 1.0:
            raise InvalidLimit(
                f"linear_below, breakdown_from: expected 0 <= linear_below <= breakdown_from <= 1, "
                f"got {linear_below!r} and {breakdown_from!r}"
            )
        self.dim = dim
        self.capacity = capacity
        self.geometry = geometry
        self.on_invalid = on_invalid
        self.linear_below = linear_below
        self.breakdown_from = breakdown_from
        self._refuses = on_invalid == "raise"
        self._kind = SIMPLEX if geometry == "simplex" else SPHERE
        self._slots = self.capacity + 1
        heads = np.zeros(self._slots, HEAD_TYPE)
        basins = np.zeros((self._slots, self.dim))
        room = np.zeros((GROUP + 1, self.dim))
        self._heads = <Head*>cnp.PyArray_DATA(heads)
        self._basins = <double*>cnp.PyArray_DATA(basins)
        self._scratch = <double*>cnp.PyArray_DATA(room)
        self._reference = self._scratch + GROUP * self.dim
        self._good.confidence = self._good.surprise = self._good.agency = NAN
        self._alarm_at = INT64_MAX
        self._names = _Names()
        self._code = self._named("code_hash", code_hash)
        self._module = self._named("module_name", module_name)
        self._kept = (heads, basins, room)

    def record(self, phi, kappa_eff, basin, error_rate=0.0, avg_latency_ms=0.0, memory_mb=0.0):
        """Stores one snapshot and returns its drift from the reference in radians.

        The first good basin is the reference until `set_reference` names another.

        Parameters
        ----------
        phi : float
            Integration Φ, 0 to 1.
        kappa_eff : float
            Coupling κ, finite.
        basin : array-like, shape=[dim]
            The state at any positive scale; fastest as a C-contiguous float64 array.
        error_rate : float
            Fraction of requests, 0 to 1.
        avg_latency_ms, memory_mb : float
            Finite and not negative.

        Raises
        ------
        InvalidSnapshot
            A value is unusable, under `on_invalid="raise"` only.
        """
        cdef Sample sample
        cdef int flags
        sample.phi = _number(phi)
        sample.kappa_eff = _number(kappa_eff)
        sample.error_rate = _number(error_rate)
        sample.avg_latency_ms = _number(avg_latency_ms)
        sample.memory_mb = _number(memory_mb)
        sample.timestamp = NAN
        sample.given = 0
        sample.module = self._module
        components = basin if _plain(basin, self.dim) else _components(basin, self.dim)
        flags = self._write(&sample, _doubles(components))
        if flags and self._refuses:
            given = (phi, kappa_eff, basin, error_rate, avg_latency_ms, memory_mb)
            raise _refusal(flags, given, self.dim, self._kind)
        if self.total >= self._alarm_at or self.each_row is not None:
            self._announce()
        return sample.drift

    def capture(self, state=None, /, **fields):
        """Stores one snapshot given as a mapping, as keywords, or both (keywords win), and returns it.

        Keys: phi, kappa_eff and basin_coords are needed; confidence, surprise, agency (None: not
        reported), error_rate, avg_latency_ms, memory_mb, module_name and timestamp (Unix seconds, a
        datetime or ISO 8601; None: now) are optional; others are ignored. Values and errors are
        those of `record`.
        """
        cdef Sample sample
        cdef dict given
        cdef int flags
        if type(state) is dict and not fields:
            given = state
        else:
            given = _gathered(state, fields)
        basin = _field(given, "basin_coords", NOTHING)
        phi = _field(given, "phi", NOTHING)
        kappa_eff = _field(given, "kappa_eff", NOTHING)
        error_rate = _field(given, "error_rate", 0.0)
        avg_latency_ms = _field(given, "avg_latency_ms", 0.0)
        memory_mb = _field(given, "memory_mb", 0.0)
        confidence = _field(given, "confidence", None)
        surprise = _field(given, "surprise", None)
        agency = _field(given, "agency", None)
        timestamp = _field(given, "timestamp", None)
        module_name = _field(given, "module_name", None)
        sample.phi = _number(phi)
        sample.kappa_eff = _number(kappa_eff)
        sample.error_rate = _number(error_rate)
        sample.avg_latency_ms = _number(avg_latency_ms)
        sample.memory_mb = _number(memory_mb)
        sample.confidence = _number(confidence)
        sample.surprise = _number(surprise)
        sample.agency = _number(agency)
        sample.given = (
            (CONFIDENCE if confidence is not None else 0)
            | (SURPRISE if surprise is not None else 0)
            | (AGENCY if agency is not None else 0)
        )
        sample.timestamp = NAN if timestamp is None else _moment(timestamp)
        if timestamp is not None and sample.timestamp != sample.timestamp:
            self._invalid[FIELDS] += 1
            if self._refuses:
                self._refuse()
                raise InvalidSnapshot("timestamp", TIMESTAMPS, _seen(timestamp))
        sample.module = self._module if module_name is None else self._module_number(module_name)
        components = basin if _plain(basin, self.dim) else _components(basin, self.dim)
        flags = self._write(&sample, _doubles(components))
        if flags and self._refuses:
            values = (
                phi, kappa_eff, basin, error_rate, avg_latency_ms, memory_mb, confidence, surprise, agency
            )
            raise _refusal(flags, values, self.dim, self._kind)
        snapshot = self._read(self._slot - 1 if self._slot else self._slots - 1)
        if self.total >= self._alarm_at or self.each_row is not None:
            self._announce()
        return snapshot

    cdef int _write(self, Sample* sample, const double* basin) noexcept:
        """Checks, repairs and stores one row, and returns the flags of what was unusable.

        Under on_invalid="raise" any flag means that nothing was stored.
        """
        cdef double* components = self._basins + self._slot * self.dim
        cdef Head* row = self._heads + self._slot
        cdef const double* amplitude = NULL
        cdef double scale = 0.0
        cdef int flags = 0
        cdef Py_ssize_t i
        # Copied before it is looked at: another thread may be changing the host's array.
        if basin != NULL:
            amplitude = taken(basin, components, self._scratch, self.dim, self._kind, &scale)
        if amplitude == NULL:
            flags |= BASIN
        if not 0.0 <= sample.phi <= 1.0:
            flags |= PHI
        if not isfinite(sample.kappa_eff):
            flags |= KAPPA
        if not 0.0 <= sample.error_rate <= 1.0:
            flags |= ERRORS
        if not 0.0 <= sample.avg_latency_ms < INFINITY:
            flags |= LATENCY
        if not 0.0 <= sample.memory_mb < INFINITY:
            flags |= MEMORY
        row.confidence = row.surprise = row.agency = NAN
        if sample.given:
            if sample.given & CONFIDENCE:
                flags |= 0 if isfinite(sample.confidence) else CONFIDENCE
            if sample.given & SURPRISE:
                flags |= 0 if isfinite(sample.surprise) else SURPRISE
            if sample.given & AGENCY:
                flags |= 0 if isfinite(sample.agency) else AGENCY
        if flags:
            for i in range(FIELDS):
                self._invalid[i] += flags >> i & 1
            if self._refuses:
                self._refuse()
                return flags
            if flags & BASIN:
                amplitude = self._last_basin(components, &scale)
        if sample.given & CONFIDENCE:
            row.confidence = _held(sample.confidence, flags & CONFIDENCE, &self._good.confidence)
        if sample.given & SURPRISE:
            row.surprise = _held(sample.surprise, flags & SURPRISE, &self._good.surprise)
        if sample.given & AGENCY:
            row.agency = _held(sample.agency, flags & AGENCY, &self._good.agency)
        row.timestamp = sample.timestamp if sample.timestamp == sample.timestamp else _now()
        row.phi = _clipped(sample.phi, flags & PHI, &self._good.phi)
        row.kappa_eff = _held(sample.kappa_eff, flags & KAPPA, &self._good.kappa_eff)
        row.error_rate = _clipped(sample.error_rate, flags & ERRORS, &self._good.error_rate)
        row.avg_latency_ms = _held(sample.avg_latency_ms, flags & LATENCY, &self._good.avg_latency_ms)
        row.memory_mb = _held(sample.memory_mb, flags & MEMORY, &self._good.memory_mb)
        row.basin_drift = self._drift(amplitude, scale, not flags & BASIN)
        row.repaired = flags
        row.regime = 0 if row.phi < self.linear_below else 1 if row.phi < self.breakdown_from else 2
        row.reserved = 0
        row.code = self._code
        row.module = sample.module
        sample.drift = row.basin_drift
        self.total += 1
        self._attempts <<= 1
        self._slot += 1
        if self._slot == self._slots:
            self._slot = 0
        return flags

    cdef const double* _last_basin(self, double* components, double* scale) noexcept:
        """Fills in the last good basin, which the row before holds even where it was repaired itself."""
        cdef Py_ssize_t before = self._slot - 1 if self._slot else self._slots - 1
        cdef Py_ssize_t i
        if self.total:
            memcpy(components, self._basins + before * self.dim, self.dim * sizeof(double))
        else:
            for i in range(self.dim):
                components[i] = 1.0 / self.dim
        return prepared(components, self._scratch, self.dim, self._kind, scale)

    cdef double _drift(self, const double* amplitude, double scale, bint good) noexcept:
        """Radians from the reference; the first good state becomes the reference."""
        cdef Py_ssize_t i
        if self._referenced:
            return apart(amplitude, scale, self._reference, 1.0, self.dim, self._kind)
        if good:
            for i in range(self.dim):
                self._reference[i] = amplitude[i] * scale
            self._referenced = True
        return 0.0

    cdef uint16_t _named(self, str field, object name) except? 0:
        if not isinstance(name, str):
            raise InvalidLimit(f"{field}: expected text, got {_seen(name)}")
        cdef int number = self._names.number(str.__str__(name), LAST_NAME)
        if number < 0:
            raise InvalidLimit(f"{field}: expected at most {LONGEST_NAME} characters, got {len(name)}")
        return number

    cdef uint16_t _module_number(self, object name) except? 0:
        cdef int number = self._names.number(str.__str__(name), LAST_MODULE) if isinstance(name, str) else -1
        if number >= 0:
            return number
        self._invalid[FIELDS + 1] += 1
        if self._refuses:
            self._refuse()
            raise InvalidSnapshot("module_name", MODULES, _seen(name))
        return self._module

    cdef void _refuse(self) noexcept:
        if not self._attempts & ATTEMPTS:
            self._refusing_since = _now()
            self._refusing_from = self.total + self._refused
        self._attempts = self._attempts << 1 | 1
        self._refused += 1

    @property
    def code_hash(self):
        """The code hash that rows are stored with; may be set, for rows that other code produced."""
        return self._names.table[self._code]

    @code_hash.setter
    def code_hash(self, value):
        self._code = max(self._names.number(_text("code_hash", value), LAST_NAME), 0)

    @property
    def invalid(self):
        """How often each field was unusable, as a dict of those that ever were."""
        labels = (*FIELD_NAMES, "timestamp", "module_name")
        return {name: self._invalid[i] for i, name in enumerate(labels) if self._invalid[i]}

    @property
    def unflagged(self):
        """How many timestamps and module names were unusable: rows have no flag for these two."""
        return self._invalid[FIELDS] + self._invalid[FIELDS + 1]

    @property
    def refusals(self):
        """What was refused under on_invalid="raise", which no row tells of; None where nothing was lately.

        (the last 14 attempts to record as bits, the newest lowest, 1 for a refused one; attempts ever;
        Unix seconds of the first refusal after 14 attempts without; attempts from it on)
        """
        cdef int64_t attempts = self.total + self._refused
        if not self._attempts & ATTEMPTS:
            return None
        return self._attempts & ATTEMPTS, attempts, self._refusing_since, attempts - self._refusing_from

    @property
    def reference(self):
        """The amplitude (unit vector, shape [dim]) that drift is measured from, or None before any."""
        cdef cnp.ndarray made = np.empty(self.dim)
        if not self._referenced:
            return None
        memcpy(cnp.PyArray_DATA(made), self._reference, self.dim * sizeof(double))
        return made

    def set_reference(self, basin, mark=None):
        """Measures drift from `basin` on, and again for every row still in the ring.

        basin : array-like, shape=[dim], or None
            A state at any positive scale. None: the oldest good one in the ring, or else the next.
        mark : object
            Becomes `mark` in the same moment as drift is measured anew: whoever finds the same mark
            before and after copying rows has rows measured from the reference that belongs to it.

        Raises InvalidBasin if it is no state of this geometry and dim.
        """
        cdef cnp.ndarray components
        cdef const double* amplitude = NULL
        cdef double scale = 0.0
        cdef double[GROUP] drifts
        cdef double* held
        cdef int64_t number
        cdef Py_ssize_t slot, rows, i
        if basin is not None:
            converted = _components(basin, self.dim)
            if converted is not None:
                components = converted
                amplitude = prepared(
                    <const double*>cnp.PyArray_DATA(components), self._scratch, self.dim, self._kind, &scale
                )
            if amplitude == NULL:
                raise InvalidBasin(
                    f"basin: expected {self.dim} finite components that are a state of the {self.geometry}, "
                    f"got {_seen(basin)}"
                )
            for i in range(self.dim):
                self._reference[i] = amplitude[i] * scale
        self._referenced = basin is not None
        number = self.total - min(self.total, self.capacity)
        while number < self.total:
            slot = number % self._slots
            held = self._basins + slot * self.dim
            if self._referenced:
                rows = min(GROUP, self.total - number, self._slots - slot)
                measured_rows(held, False, rows, self.dim, self._reference, self._kind, drifts, self._scratch)
            else:
                rows = 1
                amplitude = prepared(held, self._scratch, self.dim, self._kind, &scale)
                drifts[0] = self._drift(amplitude, scale, not self._heads[slot].repaired & BASIN)
            for i in range(rows):
                self._heads[slot + i].basin_drift = drifts[i]
            number += rows
        self.mark = mark


QIG_RENAME(GeometricSnapshot, b"qigcore.recorder.GeometricSnapshot")
QIG_RENAME(Recorder, b"qigcore.recorder.Recorder")
