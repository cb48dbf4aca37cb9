"""The way back to health after an alarm; included by `_detectors.pyx`."""


cdef class _Recovering(_Evidence):
    """Whether the change is over, as `_back` says."""

    cdef bint _back(self) noexcept nogil:
        """Whether the rows since some moment tell for health and against the shift, and nothing else is wrong.

        Where the shift stands out from the noise of its estimate: CUSUM of the log likelihood ratio of health
        against it, its length drawn in by that noise; and the mean since the sum last left 0 must be quiet.
        Where it does not: the estimate goes on with each row, until it is no longer than noise.
        """
        cdef Py_ssize_t i, wide = self._wide
        cdef double* x = self._x
        cdef double power, length, keep, gain, k
        for i in range(self._m, wide):
            if not isfinite(x[i]):
                x[i] = 0.0
        power = dot(self._shift, self._shift, wide)
        length = power - (self._quiet_mean + self._quiet_sd) * self._noise
        if length < 0.5 * power:
            self._averaged_in()
            return self._age >= ENOUGH and power <= self._quiet_mean * (self._noise + 1.0 / self._learned_rows)
        keep = length / power
        gain = keep * (0.5 * length - dot(self._shift, x, wide))
        gain = min(max(gain, -3.5), 3.5)
        if self._evidence + gain <= 0.0:
            self._averaged_in()
            return False
        self._evidence += gain
        self._clean += 1
        for i in range(wide):
            self._sum[i] += x[i]
        if self._evidence < self._needed or self._clean < 5:
            return False
        k = <double>self._clean
        if dot(self._sum, self._sum, wide) / k <= (self._quiet_mean + 4.0 * self._quiet_sd) * (
            1.0 + k / self._learned_rows
        ):
            return True
        # Not the shift any more, but not health either: begin again with what there is now.
        for i in range(wide):
            self._shift[i] = self._sum[i] / k
        self._age = k
        self._noise = 1.0 / k
        self._restarted()
        return False

    cdef void _restarted(self) noexcept nogil:
        self._evidence = 0.0
        self._clean = 0
        memset(self._sum, 0, self._wide * sizeof(double))

    cdef void _averaged_in(self) noexcept nogil:
        """What is wrong now is learned as it goes on: from this row and all since the evidence last was 0.

        All of them: to learn only from rows that do not tell for health would overstate the shift.
        """
        cdef double n = self._clean + 1.0
        cdef double weight
        cdef Py_ssize_t i
        self._age = min(self._age + n, max(<double>LONGEST, n))
        weight = n / self._age
        self._noise = (1.0 - weight) ** 2 * self._noise + weight * weight / n
        for i in range(self._wide):
            self._shift[i] += ((self._sum[i] + self._x[i]) / n - self._shift[i]) * weight
        self._restarted()

    def shifted(self, mean, rows, noise):
        """Tell the alarmed detector by what the state has moved.

        mean: of the whitened rows, shape [components + figures], estimated from so many `rows`, with `noise`
        times their covariance as its own.
        """
        cdef Py_ssize_t i
        cdef const double[::1] given = np.ascontiguousarray(mean, dtype=np.float64)
        if given.shape[0] != self.dim + self._figures:
            raise ValueError(f"mean: expected {self.dim + self._figures} values, got {given.shape[0]}")
        memset(self._shift, 0, self._wide * sizeof(double))
        for i in range(self.dim):
            self._shift[i] = given[i]
        for i in range(self._figures):
            self._shift[self._m + i] = given[self.dim + i]
        self._age = min(max(<double>rows, 1.0), <double>LONGEST)
        self._noise = noise
        self._restarted()
