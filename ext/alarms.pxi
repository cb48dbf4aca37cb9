"""Telling others of rows: an alarm at a row number, and an observer of each; included by `_recorder.pyx`."""


cdef class _Watched(_Ring):
    """A ring that calls its observers, in the thread that recorded."""

    cdef public object each_row
    cdef int64_t _alarm_at
    cdef object _alarm

    cdef int _announce(self) except -1:
        if self.total >= self._alarm_at:
            self._ring_alarm()
        callback = self.each_row
        if callback is not None and not _went_well(callback):
            self.each_row = None
        return 0

    cdef int _ring_alarm(self) except -1:
        callback = self._alarm
        self._alarm = None
        self._alarm_at = INT64_MAX
        # Whatever ends the callback, and a signal handler may end it anywhere, whoever waits is not forgotten.
        try:
            if not _went_well(callback):
                self._snooze(callback)
        except BaseException:
            self._snooze(callback)
            raise
        return 0

    cdef void _snooze(self, object callback) noexcept:
        if self._alarm is None:  # else it has set the next one before it failed
            self._alarm = callback
            self._alarm_at = self.total + max(self.capacity // 4, 1)

    def on_total(self, total, callback):
        """Calls `callback()` once, from the thread that records row number `total` − 1, or the next if that has been.

        One alarm is kept; a new one replaces it, and None for the callback clears it. A callback that
        fails (an Exception) is reported to `sys.unraisablehook`, and the host's request goes on; other
        exceptions, such as KeyboardInterrupt, reach the host. Either way it is called again a quarter of
        a ring later. An Exception that a signal handler raises amid the callback counts as the callback's.
        """
        self._alarm = callback
        self._alarm_at = INT64_MAX if callback is None else total

    def put_off(self, total):
        """Lets the pending alarm ring later, at row number `total` − 1; never sooner, and never a new one.

        Unlike `on_total` it is for other threads than those that record: an alarm that rings is left alone.
        """
        cdef int64_t later = total
        if self._alarm is not None and later > self._alarm_at:
            self._alarm_at = later


cdef bint _went_well(object callback) except -1:
    """Calls an observer; its failure must not reach the host's request."""
    try:
        callback()
    except Exception as error:
        PyErr_SetObject(type(error), error)
        PyErr_WriteUnraisable(callback)
        return False
    return True
