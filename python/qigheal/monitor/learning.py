"""How a monitor comes by what it judges by: the first good snapshots, and the file of the result.

What a baseline contains is `qigcore.baseline`'s to say, what follows from it `qigheal.health`'s.
No thread is started here.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from qigcore.baseline import Baseline
from qigcore.errors import BaselineError, QigcoreError
from qigcore.recorder import Recorder
from qigcore.rows import Array, Batch, FloatArray
from qigcore.rules import RuleSet
from qigheal.health import rules_for
from qigheal.settings import MonitorSettings

FILE = "baseline.json"


STRIDE = 32
"""Rows between two looks at least, where only a few good ones are missing: each look costs a request microseconds."""

PATIENCE_S = 0.5
"""How long one waits for another thread that learns or settles: a handler may have stopped it to wait for this one."""


class Lesson:
    """The first `wanted` good snapshots (nothing repaired) that a ring records from now on.

    They are copied out of the ring before it overwrites them. Which ones they are follows from the rows
    alone and not from when somebody looks, unless the ring turns over before anybody does: then those
    that it still holds count. `due` is the number of rows at which to collect at the latest; `ripe`
    says whether it could be complete, or has to be collected before.

    Takes no lock: signal handlers and threads may collect amid one another. What was collected is
    replaced in one step, and only by more.
    """

    def __init__(self, recorder: Recorder, wanted: int) -> None:
        self._recorder = recorder
        self._most = max(recorder.capacity // 2, 1)  # of the ring: the rest is time for other threads' rows
        self._stride = min(max(STRIDE, recorder.capacity // 8), self._most)
        # The next row, good rows missing, and those there are.
        self._state: tuple[int, int, tuple[tuple[Array, FloatArray], ...]] = (recorder.total, wanted, ())

    @property
    def due(self) -> int:
        following, missing, _ = self._state
        return following + min(max(missing, self._stride), self._most)

    @property
    def ripe(self) -> bool:
        following, missing, _ = self._state
        return self._recorder.total >= following + min(missing, self._most)

    @property
    def complete(self) -> bool:
        return self._state[1] == 0

    @property
    def following(self) -> int:
        """The number of the row after those that were looked at."""
        return self._state[0]

    def collect(self) -> None:
        """Copy the good rows that there are by now, as many as are missing."""
        following, missing, parts = self._state
        total = self._recorder.total
        while missing and following < total:
            first, heads, basins = self._recorder.rows(
                following, min(total, following + max(missing, self._stride))
            )
            following = first + len(heads)
            good = heads["repaired"] == 0
            if not good.all():  # a request waits: no second copy without need
                heads, basins = heads[good], basins[good]
            if len(heads):
                parts = (*parts, (heads[:missing], basins[:missing]))
                missing -= len(parts[-1][0])
        if following > self._state[0]:
            self._state = following, missing, parts

    def batch(self) -> Batch:
        heads, basins = zip(*self._state[2], strict=True)
        return Batch.of_rows(np.concatenate(heads), np.concatenate(basins), self._recorder.names)


class BaselineFile:
    """`baseline.json` in the history's folder, shared by all processes that record into it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether there is a file that was not read yet."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def read(self) -> Baseline:
        """Raises BaselineError; the file is not `changed` any more either way."""
        self._seen = self._stamp()
        return Baseline.load(self.path)

    def read_again(self) -> None:
        """Count the file as not read."""
        self._seen = None

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class Learner:
    """Owns the baseline, the rules that follow from it, and the reference that drift is measured from.

    judged: what is judged by now, a pair (rules, baseline) that is replaced together with the reference:
    whoever finds the same one before and after copying rows has rows that belong to it. since: number of the
    first row after those that the baseline was learned from. facts: what a person should know of how it came
    about, by topic.

    A signal handler may stop a thread anywhere and wait there for others (`close` does). So no lock is
    waited for without end: what `learn` and `settle` cannot have within `PATIENCE_S` is left to the next
    round.
    """

    def __init__(self, recorder: Recorder, settings: MonitorSettings) -> None:
        self._recorder = recorder
        self._settings = settings
        self._file: BaselineFile | None = None
        # What is to be saved, and whether over the file that lies there; one object, for `_saved` to be it.
        self._pending: tuple[Baseline, bool] | None = None
        self._saved: tuple[Baseline, bool] | None = None
        self._at_first: tuple[RuleSet, Baseline | None] = (rules_for(settings, None), None)
        self.lesson: Lesson | None = Lesson(recorder, settings.learn_after)
        self.facts: dict[str, str] = {}
        self.since = 0
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: a thread of the parent may have held the locks."""
        self._lock = (
            threading.RLock()
        )  # while judged, pending and lesson change, never while a disk is waited for
        self._file_lock = threading.RLock()
        self._settling_in = 0  # the thread that settles now

    @property
    def judged(self) -> tuple[RuleSet, Baseline | None]:
        return self._recorder.mark or self._at_first

    @property
    def baseline(self) -> Baseline | None:
        return self.judged[1]

    def share(self, folder: Path) -> None:
        """Take up the baseline that lies in the history's folder, and leave there what is learned."""
        self._file = BaselineFile(folder)
        self.settle()

    def learn(self) -> None:
        """Learn from the lesson once it is complete; cheap when there is nothing to do, and no disk is asked."""
        lesson = self.lesson
        if lesson is None:
            return
        if lesson.ripe:
            lesson.collect()
        if not lesson.complete or not self._lock.acquire(timeout=PATIENCE_S):
            return
        try:
            if self.lesson is None:  # another thread was faster
                return
            try:
                self._judge_by(self.learned_from(lesson.batch()), lesson.following, pending=False)
            except QigcoreError as error:
                self.lesson = None
                self.facts["lesson"] = f"no baseline could be learned: {error}; set_baseline() tries again"
        finally:
            self._lock.release()

    def settle(self) -> None:
        """Agree with the other processes: leave in the folder what was learned, or take up what lies there.

        Where two have learned, the first one's counts for all; where the file was replaced, the new one.
        """
        self.learn()
        if self._file is None or self._settling_in == threading.get_ident():
            return  # a signal handler amid it: what it interrupted goes on afterwards
        if not self._file_lock.acquire(timeout=PATIENCE_S):
            return  # another thread is at it
        try:
            self._settling_in = threading.get_ident()
            before = self.baseline
            self._save(self._file)
            if self._file.changed():
                self._take_up(self._file, before)
        finally:
            self._settling_in = 0
            self._file_lock.release()

    def adopt(self, baseline: Baseline) -> None:
        """Judge by `baseline` from now on, and have all others do so.

        Raises BaselineError when it is of another geometry or dimension.
        """
        with self._lock:
            self._judge_by(baseline, self._recorder.total, pending=True)
        if self._file is not None:
            self.settle()

    def learned_from(self, batch: Batch) -> Baseline:
        """Raises TooLittleData, or InvalidBasin for states that have no mean."""
        settings = self._settings
        return Baseline.learn(
            batch,
            geometry=settings.geometry,
            drift_ceiling=settings.basin_drift_max,
            phi_min=settings.phi_min,
            kappa_tolerance=settings.kappa_tolerance,
            error_rate_max=settings.error_rate_max,
            latency_max_ms=settings.latency_max_ms,
        )

    def _judge_by(self, baseline: Baseline, since: int, pending: bool | None = None) -> None:
        """Under the lock."""
        rules = rules_for(self._settings, baseline)
        self._pending = None if pending is None else (baseline, pending)
        self.since = since
        self._recorder.set_reference(baseline.point, (rules, baseline))
        self.facts.pop("lesson", None)
        self.lesson = None  # last: who finds no lesson finds all the rest done

    def _take_up(self, file: BaselineFile, before: Baseline | None) -> None:
        try:
            found = file.read()
        except BaselineError as error:
            self.facts["file"] = f"{error}; the monitor goes on without it"
            return
        taken = False
        if self._lock.acquire(timeout=PATIENCE_S):
            try:
                if self.baseline is before:  # else somebody has learned or set one since
                    self._judge_by(found, self._recorder.total)
                    taken = True
            except BaselineError as error:
                self.facts["file"] = f"{error}; the monitor goes on without it"
                return
            finally:
                self._lock.release()
        if taken:
            self.facts.pop("file", None)
        else:
            file.read_again()

    def _save(self, file: BaselineFile) -> None:
        pending = self._pending
        if pending is None or pending is self._saved:
            return
        baseline, replace = pending
        try:
            baseline.save(file.path, replace=replace)
        except FileExistsError:
            pass  # another process was first: what it left is read next, or was found broken before
        except OSError as error:
            self.facts["file"] = f"{file.path}: the baseline could not be saved: {error.strerror}"
            return
        else:
            self.facts.pop("file", None)
        self._saved = pending
