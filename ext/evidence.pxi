"""What one detector holds: its tables, the evidence so far, the last rows; included by `_detectors.pyx`."""


cdef class _Evidence:
    """The state of one detector; `qigcore.detectors.ChangeDetector` makes it and answers its events.

    Tables come as one mapping, arrays padded by `padded`: basin [dim], center, memory (or None), spread, reach,
    bands (or None), scaling, inverse, bounds [2, m], weight (m), charts [4] and their limits, longest, directions [4],
    direction_weight, figures (a list of tuples), figure_whitener
    [figures, figures] and figure_limits [4], sure (the limit of the wealth), season (offsets
    [bins, m + figures], or None) with its period and beginning, slots, and
    what the way back needs: evidence, rows, quiet.
    """

    cdef readonly Py_ssize_t dim
    cdef readonly int64_t rows  # seen so far
    cdef readonly int64_t skipped  # of those, without a usable state
    cdef readonly bint alarmed
    cdef readonly bint confirmed
    cdef readonly double statistic  # the charts' largest part of its limit, after the last row
    cdef readonly double wealth
    cdef int _kind
    cdef Py_ssize_t _m, _wide
    cdef int _figures
    cdef list _kept
    cdef object _ring_rows, _ring_times
    cdef double* _basin
    cdef double* _center
    cdef double* _expected
    cdef double* _memory
    cdef double* _spread
    cdef double* _reach
    cdef double* _bands
    cdef double* _scaling
    cdef double* _inverse
    cdef double* _bounds
    cdef double* _shares
    cdef double* _weight
    cdef double* _copy
    cdef double* _scratch
    cdef double* _deviation
    cdef double* _residual
    cdef double* _x
    cdef double* _score
    cdef double* _means
    cdef double* _own
    cdef double* _season
    cdef double* _shift
    cdef double* _sum
    cdef double _squares[CHARTS]
    cdef double _weights[CHARTS]
    cdef double _limits[CHARTS]
    cdef double _scales[CHARTS]
    cdef double _directions[CHARTS]
    cdef double _direction_weight
    cdef double _stakes[STAKES]
    cdef double _along[CHARTS][STAKES]
    cdef double _bet[FIGURES][2][STAKES]
    # The figures' own averages: of their scores, whitened
    cdef double[FIGURES][FIGURES] _round
    cdef double[CHARTS][FIGURES] _averages
    cdef double _lengths[CHARTS]
    cdef double _bounds_of_figures[CHARTS]
    cdef double _vector, _figural  # the largest part of its limit that any of the one and the other is
    cdef double _parts[3]  # wealth of the components, the figures, the directions
    cdef Figure _figure[FIGURES]
    cdef double _sure, _period, _begin, _longest
    cdef Py_ssize_t _bins
    cdef bint _follows, _busy
    # The way back
    cdef double _evidence, _needed, _quiet_mean, _quiet_sd, _noise, _learned_rows
    cdef int64_t _clean
    cdef double _age
    # The last rows
    cdef float* _ring
    cdef double* _times
    cdef Py_ssize_t _slots

    def __cinit__(self, dict tables, *args, **kwargs):
        cdef Py_ssize_t i, j
        self._kept = kept = []
        self.dim = tables["dim"]
        self._kind = SIMPLEX if tables["geometry"] == "simplex" else SPHERE
        self._m = m = padded(self.dim)
        _fitting(tables, m)
        self._basin = _doubles(kept, tables["basin"])
        self._center = _doubles(kept, tables["center"])
        self._expected = _doubles(kept, tables["center"])
        self._memory = NULL if tables["memory"] is None else _doubles(kept, tables["memory"])
        self._spread = _doubles(kept, tables["spread"])
        self._reach = _doubles(kept, tables["reach"])
        self._bands = NULL if tables["bands"] is None else _doubles(kept, tables["bands"])
        self._scaling = _doubles(kept, tables["scaling"])
        self._inverse = _doubles(kept, tables["inverse"])
        self._bounds = _doubles(kept, tables["bounds"])
        self._shares = _doubles(kept, 1.0 / (1.0 + np.asarray(tables["bounds"])))
        self._weight = _doubles(kept, tables["weight"])
        figures = tables["figures"]
        self._figures = len(figures)
        for i, (offset, flag, is_log, floor_, center, scale, memory, up, down, weight) in enumerate(figures):
            self._figure[i].offset = offset
            self._figure[i].flag = flag
            self._figure[i].log = is_log
            self._figure[i].floor = floor_
            self._figure[i].center = center
            self._figure[i].inverse = 1.0 / scale
            self._figure[i].memory = memory
            self._figure[i].spread = sqrt(1.0 - <double>memory * <double>memory)
            self._figure[i].up = up
            self._figure[i].down = down
            self._figure[i].weight = weight
        for i, row in enumerate(tables["figure_whitener"]):
            for j in range(self._figures):
                self._round[i][j] = row[j]
        self._wide = self._m + ROWS  # the figures stand behind the components
        self._copy = _doubles(kept, np.zeros(m))
        self._scratch = _doubles(kept, np.zeros(m))
        self._deviation = _doubles(kept, np.zeros(m))
        self._residual = _doubles(kept, np.zeros(m))
        self._x = _doubles(kept, np.zeros(self._wide))
        self._score = _doubles(kept, np.zeros(m))
        self._means = _doubles(kept, np.zeros(CHARTS * m))
        self._own = _doubles(kept, np.zeros(2 * STAKES * m))
        self._shift = _doubles(kept, np.zeros(self._wide))
        self._sum = _doubles(kept, np.zeros(self._wide))
        for i in range(CHARTS):
            self._weights[i] = tables["charts"][i]
            self._scales[i] = (2.0 - self._weights[i]) / self._weights[i]
            self._limits[i] = tables["limits"][i]
            self._directions[i] = tables["directions"][i]
            self._bounds_of_figures[i] = tables["figure_limits"][i]
        for i in range(STAKES):
            self._stakes[i] = tables["stakes"][i]
        self._longest = tables["longest"]
        self._direction_weight = tables["direction_weight"]
        self._sure = tables["sure"]
        self._season = NULL
        self._bins = 0
        if tables["season"] is not None:
            offsets, self._period, self._begin = tables["season"]
            self._bins = len(offsets)
            self._season = _doubles(kept, offsets)
        self._needed = tables["evidence"]
        self._learned_rows = tables["rows"]
        self._quiet_mean, self._quiet_sd = tables["quiet"]
        self._slots = tables["slots"]
        ring = np.full((self._slots, self._m + FIGURES), np.nan, np.float32)
        times = np.full(self._slots, np.nan)
        self._ring_rows = ring
        self._ring_times = times
        self._ring = <float*>cnp.PyArray_DATA(ring)
        self._times = <double*>cnp.PyArray_DATA(times)
        self._cleared()
        self.rows = 0
        self._forgotten()

    cdef void _forgotten(self) noexcept nogil:
        """No row is known to come before the next one."""
        cdef int i
        self._follows = False
        for i in range(self._figures):
            self._figure[i].follows = False

    cdef void _cleared(self) noexcept nogil:
        """All evidence so far is dropped; what the next row follows is not."""
        self.alarmed = self.confirmed = False
        self.statistic = self.wealth = self._vector = self._figural = 0.0
        memset(self._averages, 0, sizeof(self._averages))
        memset(self._lengths, 0, sizeof(self._lengths))
        memset(self._means, 0, CHARTS * self._m * sizeof(double))
        memset(self._own, 0, 2 * STAKES * self._m * sizeof(double))
        memset(self._squares, 0, sizeof(self._squares))
        memset(self._along, 0, sizeof(self._along))
        memset(self._bet, 0, sizeof(self._bet))
        memset(self._parts, 0, sizeof(self._parts))
        self._evidence = 0.0
        self._clean = 0

    cdef double _hour(self, double at, Py_ssize_t* low, Py_ssize_t* high) noexcept nogil:
        """The two bins whose centres a time lies between, and how far it is from the first to the second."""
        cdef double place = at - self._begin
        place = (place - floor(place / self._period) * self._period) / self._period * self._bins - 0.5
        if place < 0.0:
            place += self._bins
        low[0] = <Py_ssize_t>place
        place -= low[0]
        low[0] %= self._bins
        high[0] = low[0] + 1 if low[0] + 1 < self._bins else 0
        return place

    cdef void _expect(self, double at) noexcept nogil:
        """The season's part of what is expected at a time; none where that is not known."""
        cdef Py_ssize_t i, low, high, width = self._m + FIGURES
        cdef double part
        if not isfinite(at):
            memcpy(self._expected, self._center, self._m * sizeof(double))
            return
        part = self._hour(at, &low, &high)
        for i in range(self._m):
            self._expected[i] = (
                self._center[i]
                + (1.0 - part) * self._season[low * width + i]
                + part * self._season[high * width + i]
            )

    cdef double _seasonal(self, int which, double at) noexcept nogil:
        cdef Py_ssize_t low, high, width = self._m + FIGURES
        cdef double part
        if self._bins == 0 or not isfinite(at):
            return 0.0
        part = self._hour(at, &low, &high)
        return (
            (1.0 - part) * self._season[low * width + self._m + which]
            + part * self._season[high * width + self._m + which]
        )

    cdef void _chart_figures(self, const double* scores) noexcept nogil:
        """Take the scores of all figures of one row into their averages."""
        cdef double[FIGURES] whole
        cdef double total, now
        cdef int i, j, k
        for i in range(self._figures):
            total = 0.0
            for j in range(i + 1):
                total += self._round[i][j] * scores[j]
            whole[i] = total
        self._figural = 0.0
        for k in range(1, CHARTS):
            total = 0.0
            for i in range(self._figures):
                now = (1.0 - self._weights[k]) * self._averages[k][i] + self._weights[k] * whole[i]
                self._averages[k][i] = now
                total += now * now
            self._lengths[k] = total
            self._figural = max(self._figural, total * self._scales[k] / self._bounds_of_figures[k])
