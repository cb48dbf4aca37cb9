"""Hands the rows of the ring to the change detector, each once and in order.

Whoever looks at health hands over what is new, and so does the thread that writes the history: what is found
depends on the rows alone and not on who looks when, as long as somebody does before the ring turns over.
Nothing is judged here; no thread is started.
"""

from __future__ import annotations

import threading

from qigcore.baseline import Baseline
from qigcore.detectors import Alarm, ChangeDetector
from qigcore.recorder import Recorder
from qigheal.changes import detector_for
from qigheal.monitor.learning import PATIENCE_S, Learner
from qigheal.settings import MonitorSettings

CHUNK = 256
"""Rows copied out of the ring at a time."""


class Watcher:
    """Owns the detector of the learner's present baseline.

    found: the change in force and the snapshots since its alarm, replaced in one step. missed: rows that the
    ring overwrote before they were looked at. told: what is to be known of the detector, "" for nothing.
    """

    def __init__(self, recorder: Recorder, learner: Learner, settings: MonitorSettings) -> None:
        self._recorder = recorder
        self._learner = learner
        self._settings = settings
        self._baseline: Baseline | None = None
        self._detector: ChangeDetector | None = None
        self._next = 0
        self.found: tuple[Alarm | None, int] = (None, 0)
        self.missed = 0
        self.told = ""
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: a thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        self._looking = False

    def catch_up(self) -> None:
        """Look at all rows so far. Another thread that is at it is waited for, so that what is found is of all rows.

        A signal handler that interrupted this very thread amid it gets what was found before.
        """
        if self._next == self._recorder.total and self._baseline is self._learner.baseline:
            return
        if not self._lock.acquire(timeout=PATIENCE_S):
            return
        try:
            if self._looking:  # in this thread: the lock is had
                return
            self._looking = True
            try:
                self._take_up()
                self._look()
            finally:
                self._looking = False
        finally:
            self._lock.release()

    def _take_up(self) -> None:
        """Begin anew where the baseline is another."""
        baseline = self._learner.baseline
        if baseline is self._baseline:
            return
        self._baseline, self._next = baseline, self._learner.since
        self.found = (None, 0)
        self._detector, self.told = None, ""
        if baseline is not None:
            self._detector, self.told = detector_for(baseline, self._settings)

    def _look(self) -> None:
        recorder, detector = self._recorder, self._detector
        total = recorder.total
        if detector is None:
            self._next = total
            return
        while self._next < total:
            first, heads, basins = recorder.rows(self._next, min(total, self._next + CHUNK))
            if first > self._next:
                self.missed += first - self._next
                detector.interrupted()
            detector.taken(basins, heads)
            self._next = first + len(heads)
        current = detector.current
        self.found = (current, 0 if current is None else detector.rows - 1 - current.row)
