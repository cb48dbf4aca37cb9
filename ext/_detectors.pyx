# cython: embedsignature.format=clinic
"""The loops of the sequential tests, a row at a time: moving averages, bets, and the way back to health.

What is tested, with which limits, and what an alarm says is decided in `qigcore.detectors`; the arithmetic
on components stands in `detect.h`. Nothing here knows a baseline's file or a clock.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY, NAN, fabs, floor, isfinite, log, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from numeric cimport BASIN, SIMPLEX, SPHERE, Head, apart, measured, taken

import numpy as np

from qigcore.errors import DetectorBusy, InvalidBasin
from qigcore import rows as _rows

cnp.import_array()

cdef extern from "detect.h" nogil:
    enum:
        ROWS "QIG_ROWS"
    void residual_of "qig_residual"(
        const double* unit, double scale, const double* expected, const double* memory, const double* spread,
        const double* reach, int follows, double* deviation, double* residual, Py_ssize_t n
    ) noexcept
    void whitened "qig_whitened"(const double* bands, const double* residual, double* x, Py_ssize_t m) noexcept
    double dot "qig_dot"(const double* a, const double* b, Py_ssize_t m) noexcept
    double averaged "qig_averaged"(
        double* mean, const double* x, double weight, double step, Py_ssize_t m
    ) noexcept
    double bets "qig_bets"(
        const double* residual, const double* inverse, const double* bounds, const double* shares,
        const double* weight, const double* stake, int stakes, double* wealth, double* score, Py_ssize_t m
    ) noexcept

cdef cnp.dtype HEAD_TYPE = _rows.HEAD

cdef enum:
    CHARTS = 4  # the first one is of single rows
    STAKES = 4
    FIGURES = 5
    CLIP = 3  # qigcore.calibration.record.CLIP
    LONGEST = 100  # rows that the estimate of a shift forgets over
    ENOUGH = 50  # rows of an estimate that may say that there is no shift

# What `step` reports.
cdef enum Event:
    FAST = 1
    SURE = 2
    RECOVERED = 4

MOST_FIGURES = FIGURES
EVENTS = {"fast": FAST, "sure": SURE, "recovered": RECOVERED}

cdef struct Figure:
    Py_ssize_t offset  # in a row; −1: the drift, which is measured here
    int flag
    bint log
    double floor, center, inverse, memory, spread, up, down
    double weight
    double before
    bint follows


cdef double* _doubles(list kept, values) except NULL:
    """A copy of the values that lives as long as `kept` does: two tables may be one array."""
    array = np.array(values, dtype=np.float64, order="C")
    kept.append(array)
    return <double*>cnp.PyArray_DATA(array)


def _fitting(dict tables, Py_ssize_t m):
    """Raise ValueError for a table of another size than the loops read: they ask for none."""
    dim, season = tables["dim"], tables["season"]
    sizes = {name: m for name in ("center", "memory", "spread", "reach", "scaling", "inverse", "weight")}
    sizes |= {name: CHARTS for name in ("charts", "limits", "directions", "figure_limits")}
    sizes |= {"basin": dim, "bounds": 2 * m, "stakes": STAKES, "bands": ROWS * sum(range(ROWS, m + 1, ROWS))}
    for name, size in sizes.items():
        if tables[name] is not None and np.size(tables[name]) != size:
            raise ValueError(f"{name}: expected {size} values, got {np.size(tables[name])}")
    if season is not None and (np.ndim(season[0]) != 2 or np.shape(season[0])[1] != m + FIGURES):
        raise ValueError(f"season: expected offsets of shape [bins, {m + FIGURES}], got {np.shape(season[0])}")
    k = len(tables["figures"])
    if np.shape(tables["figure_whitener"]) != (k, k):
        raise ValueError(f"figure_whitener: expected shape [{k}, {k}], got {np.shape(tables['figure_whitener'])}")
    if dim < 1 or tables["slots"] < 1 or len(tables["figures"]) > FIGURES:
        raise ValueError(f"expected at least one component, one slot, and at most {FIGURES} figures")


def padded(Py_ssize_t dim):
    """Components with the padding that the loops ask for."""
    return (dim + ROWS - 1) // ROWS * ROWS


def banded(matrix):
    """A lower triangular matrix [m, m], m a multiple of the padding, in the order in which it is read."""
    m = len(matrix)
    parts = [matrix[first : first + ROWS, : first + ROWS].T.ravel() for first in range(0, m, ROWS)]
    return np.concatenate(parts)


include "learned.pxi"
include "evidence.pxi"
include "recovery.pxi"


cdef class Core(_Recovering):
    """The state of one detector, a row at a time; `qigcore.detectors.ChangeDetector` makes it and answers its events."""

    cdef int _step(self, const double* basin, const Head* head) noexcept nogil:
        """Take one row; returns the events it brings about. `head` NULL: the state is all that is known."""
        cdef double at = NAN if head == NULL else head.timestamp
        cdef double scale = 0.0, drift = NAN, length, step, along, z, value, now, gain, total
        cdef const double* unit = NULL
        cdef double* mean
        cdef Figure* figure
        cdef Py_ssize_t m = self._m, slot = self.rows % self._slots, i
        cdef float* kept = self._ring + slot * (m + FIGURES)
        cdef bint whole
        cdef double[FIGURES] scores
        cdef int k, s, present
        cdef int event = 0
        self.rows += 1
        self._times[slot] = at
        if basin != NULL and (head == NULL or measured(head, BASIN)):
            unit = taken(basin, self._copy, self._scratch, self.dim, self._kind, &scale)
        whole = unit != NULL
        if not whole:
            self.skipped += 1
            self._follows = False
            for i in range(m):
                kept[i] = NAN
        else:
            drift = apart(unit, scale, self._basin, 1.0, self.dim, self._kind)
            if self._bins:
                self._expect(at)
            residual_of(
                unit, scale, self._expected, self._memory, self._spread, self._reach, self._follows,
                self._deviation, self._residual, self.dim,
            )
            self._follows = True
            for i in range(m):
                kept[i] = <float>self._deviation[i]
            if self._bands != NULL:
                whitened(self._bands, self._residual, self._x, m)
            else:
                for i in range(m):
                    self._x[i] = self._residual[i] * self._scaling[i]
            length = dot(self._x, self._x, m)
            # One row alone moves no average further than the longest of normal ones would.
            step = 1.0 if length <= self._longest else sqrt(self._longest / length)
            self._squares[0] = length
            self._vector = length / self._limits[0]
            self._parts[2] = 0.0
            for k in range(1, CHARTS):
                mean = self._means + k * m
                if not self.confirmed:
                    if self._squares[k] > 0.0:
                        along = dot(mean, self._x, m) / (sqrt(self._squares[k]) * CLIP)
                        along = min(max(along, -1.0), 1.0)
                        gain = (along - self._directions[k]) / (1.0 + self._directions[k])
                        for s in range(STAKES):
                            self._along[k][s] = (self._along[k][s] + 1.0) * (1.0 + self._stakes[s] * gain)
                    for s in range(STAKES):
                        self._parts[2] += self._along[k][s]
                self._squares[k] = averaged(mean, self._x, self._weights[k], step, m)
                self._vector = max(self._vector, self._squares[k] * self._scales[k] / self._limits[k])
            self._parts[2] *= self._direction_weight
            if not self.confirmed:
                self._parts[0] = bets(
                    self._residual, self._inverse, self._bounds, self._shares, self._weight, self._stakes,
                    STAKES, self._own, self._score, m,
                )
        total = 0.0
        present = 0
        for k in range(self._figures):
            figure = &self._figure[k]
            value = drift if figure.offset < 0 else NAN
            if figure.offset >= 0 and head != NULL and measured(head, figure.flag):
                value = (<const double*>(<const char*>head + figure.offset))[0]
            if figure.log and isfinite(value):
                value = log(max(value, 0.0) + figure.floor)
            kept[m + k] = NAN
            if isfinite(value):
                value -= figure.center + self._seasonal(k, at)
                kept[m + k] = <float>min(max(value, -1e30), 1e30)
                now = value - figure.memory * figure.before if figure.follows else value * figure.spread
                figure.before = value
                figure.follows = True
                now *= figure.inverse
                self._x[m + k] = min(max(now, -6.0), 6.0)
                z = min(max(now / CLIP, -1.0), 1.0)
                scores[k] = CLIP * z
                present += 1
                if not self.confirmed:
                    for s in range(STAKES):
                        gain = (z - figure.up) / (1.0 + figure.up)
                        self._bet[k][0][s] = (self._bet[k][0][s] + 1.0) * (1.0 + self._stakes[s] * gain)
                        gain = (-z - figure.down) / (1.0 + figure.down)
                        self._bet[k][1][s] = (self._bet[k][1][s] + 1.0) * (1.0 + self._stakes[s] * gain)
            else:
                figure.follows = False
                self._x[m + k] = NAN
                if figure.offset >= 0 and head != NULL:
                    whole = False
            for s in range(STAKES):
                total += (self._bet[k][0][s] + self._bet[k][1][s]) * figure.weight
        self._parts[1] = total
        if present and present == self._figures:
            self._chart_figures(scores)
        self.statistic = max(self._vector, self._figural)
        if not self.confirmed:
            self.wealth = self._parts[0] + self._parts[1] + self._parts[2]
        if not self.alarmed:
            if self.statistic > 1.0:
                event |= FAST
            if self.wealth >= self._sure:
                event |= SURE
            if event:
                self.alarmed = True
                self.confirmed = (event & SURE) != 0
            return event
        if not self.confirmed and self.wealth >= self._sure:
            self.confirmed = True
            event |= SURE
        if whole and self._back():
            self._cleared()
            event |= RECOVERED
        return event

    def charts(self):
        """Each moving average's squared length over its limit, after the last row that it took; shape [7].

        Those of the state, of each weight; then those of the figures, of each weight but the first.
        """
        state = [self._squares[k] * self._scales[k] / self._limits[k] for k in range(CHARTS)]
        figures = [self._lengths[k] * self._scales[k] / self._bounds_of_figures[k] for k in range(1, CHARTS)]
        return np.array(state + figures)

    cdef int _alone(self) except -1:
        """Raise DetectorBusy while another thread's rows are being taken: `feed` lets go of the GIL."""
        if self._busy:
            raise DetectorBusy(
                "another thread is feeding this detector; let one thread have it, or put a lock around its calls"
            )
        return 0

    def reset(self):
        """Forget all evidence and every row; `rows` and `skipped` count from 0 again."""
        self._alone()
        self._cleared()
        self._forgotten()
        self.rows = self.skipped = 0

    def interrupted(self):
        """The next row does not follow the last one: rows between them were lost."""
        self._alone()
        self._forgotten()

    def recent(self):
        """The last rows, oldest first: deviations [k, components + figures] and times [k]; NaN where unusable."""
        cdef Py_ssize_t n = min(self.rows, <int64_t>self._slots)
        order = np.arange(self.rows - n, self.rows) % self._slots
        taken = self._ring_rows[order].astype(np.float64)
        columns = np.r_[np.arange(self.dim), self._m + np.arange(self._figures)]
        return taken[:, columns], self._ring_times[order]

    def feed(self, basins, heads=None, Py_ssize_t start=0, trace=None):
        """Take rows from `start` on until one brings an event; returns (rows taken, event).

        basins: shape [n, dim]; heads: shape [n] of `qigcore.rows.HEAD`, or None. trace: float64 [n, 2] to be
        filled with the charts' statistic and the wealth after each row, or None.

        What the event means is for the caller to answer. Raises InvalidBasin and ValueError for other shapes,
        DetectorBusy while another thread's rows are being taken.
        """
        cdef cnp.ndarray states = np.require(basins, np.float64, "CA")
        cdef cnp.ndarray figures = None
        cdef const Head* head = NULL
        cdef const double* row
        cdef double[:, ::1] out
        cdef double* told = NULL
        cdef Py_ssize_t n, i
        cdef int event = 0
        if states.ndim != 2 or states.shape[1] != self.dim:
            raise InvalidBasin(
                f"rows: expected shape [n, {self.dim}] as the baseline has, got {list((<object>states).shape)}"
            )
        n = cnp.PyArray_DIM(states, 0)
        if heads is not None:
            rows = np.asarray(heads)
            if rows.dtype != HEAD_TYPE or rows.ndim != 1 or len(rows) != n:
                raise ValueError(f"heads: expected {n} rows of qigcore.rows.HEAD, got {rows.shape} of {rows.dtype}")
            figures = np.require(rows, HEAD_TYPE, "CA")
            head = <const Head*>cnp.PyArray_DATA(figures)
        if trace is not None:
            out = trace
            if out.shape[0] != n or out.shape[1] != 2:
                raise ValueError(f"trace: expected float64 of shape [{n}, 2], got [{out.shape[0]}, {out.shape[1]}]")
            if n:
                told = &out[0, 0]
        row = <const double*>cnp.PyArray_DATA(states)
        i = start = max(start, <Py_ssize_t>0)
        self._alone()
        self._busy = True
        with nogil:
            while i < n and event == 0:
                event = self._step(row + i * self.dim, NULL if head == NULL else head + i)
                if told != NULL:
                    told[2 * i] = self.statistic
                    told[2 * i + 1] = self.wealth
                i += 1
        self._busy = False
        return max(i - start, <Py_ssize_t>0), event

    def update(self, row):
        """Take one snapshot; returns the alarm that it brings about, or None.

        row: a `GeometricSnapshot`, or a basin alone, array-like, shape=[dim]. A basin that is no state of the
        geometry, and every flagged value, is skipped and counted. Raises InvalidBasin for another shape,
        DetectorBusy while another thread's rows are being taken.
        """
        cdef Head head
        cdef cnp.ndarray basin
        cdef int event
        if _plain(row, self.dim):
            self._alone()
            event = self._step(<const double*>cnp.PyArray_DATA(<cnp.ndarray>row), NULL)
        elif hasattr(row, "basin_coords"):
            memset(&head, 0, sizeof(head))
            head.timestamp = row.timestamp
            head.phi = row.phi
            head.kappa_eff = row.kappa_eff
            head.error_rate = row.error_rate
            head.avg_latency_ms = row.avg_latency_ms
            head.memory_mb = row.memory_mb
            for name in row.repaired:
                head.repaired |= <int>_rows.BIT[name]
            basin = _state(row.basin_coords, self.dim)
            self._alone()
            event = self._step(<const double*>cnp.PyArray_DATA(basin), &head)
        else:
            basin = _state(row, self.dim)
            self._alone()
            event = self._step(<const double*>cnp.PyArray_DATA(basin), NULL)
        if not event:
            return None
        self._busy = True
        try:
            return self._respond(event)
        finally:
            self._busy = False

    def _respond(self, event):
        """What `update` returns for an event; the class above answers."""
        return event


cdef inline bint _plain(object row, Py_ssize_t dim):
    """Whether the components can be read where they stand."""
    return (
        cnp.PyArray_CheckExact(row)
        and cnp.PyArray_TYPE(<cnp.ndarray>row) == cnp.NPY_DOUBLE
        and cnp.PyArray_NDIM(<cnp.ndarray>row) == 1
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>row)
        and cnp.PyArray_DIM(<cnp.ndarray>row, 0) == dim
    )


cdef cnp.ndarray _state(values, Py_ssize_t dim):
    if _plain(values, dim):
        return values
    try:
        array = np.require(values, np.float64, "CA")
    except (TypeError, ValueError) as error:
        raise InvalidBasin(f"row: expected {dim} numbers, got {type(values).__name__}: {error}") from None
    if array.ndim != 1 or array.shape[0] != dim:
        raise InvalidBasin(f"row: expected {dim} components as the baseline has, got shape {list(array.shape)}")
    return array
