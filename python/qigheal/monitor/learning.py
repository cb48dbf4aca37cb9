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


class Lesson:
    """The first `wanted` good snapshots (nothing repaired) that a ring records from now on.

    They are copied out of the ring at row numbers that follow from the rows alone, so that what is
    learned does not depend on when anybody looks. `due` is the number of rows at which to collect.
    """

    def __init__(self, recorder: Recorder, wanted: int) -> None:
        self._recorder = recorder
        self._missing = wanted
        self._next = recorder.total
        self._parts: list[tuple[Array, FloatArray]] = []

    @property
    def due(self) -> int:
        return self._next + min(self._missing, self._recorder.capacity)

    @property
    def complete(self) -> bool:
        return self._missing == 0

    def collect(self) -> None:
        """Copy the good rows up to `due`, which moves on by those that are still missing."""
        due = self.due
        _, heads, basins = self._recorder.rows(self._next, due)
        good = heads["repaired"] == 0
        if not good.all():  # a request waits: no second copy without need
            heads, basins = heads[good], basins[good]
        self._parts.append((heads, basins))
        self._next = due
        self._missing -= len(heads)

    def batch(self) -> Batch:
        heads, basins = zip(*self._parts, strict=True)
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

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class Learner:
    """Owns the baseline, the rules that follow from it, and the reference that drift is measured from.

    rules, baseline: what is judged by now. facts: what a person should know of how it came about, by
    topic. lock: held while they change, never while a disk is waited for; hold it to see all of them
    at one moment.
    """

    def __init__(self, recorder: Recorder, settings: MonitorSettings) -> None:
        self._recorder = recorder
        self._settings = settings
        self._file: BaselineFile | None = None
        self._pending: bool | None = None  # a baseline is to be saved; True: over the one that lies there
        self.lesson: Lesson | None = Lesson(recorder, settings.learn_after)
        self.facts: dict[str, str] = {}
        self.baseline: Baseline | None = None
        self.rules: RuleSet = rules_for(settings, None)
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: a thread of the parent may have held the locks."""
        self.lock = threading.RLock()
        self._file_lock = threading.RLock()

    def share(self, folder: Path) -> None:
        """Take up the baseline that lies in the history's folder, and leave there what is learned."""
        self._file = BaselineFile(folder)
        self.settle()

    def learn(self) -> None:
        """Learn from the lesson once it is complete; cheap when there is nothing to do, and no disk is asked."""
        if self.lesson is None or not self.lesson.complete:
            return
        with self.lock:
            lesson = self.lesson
            if lesson is None:  # another thread was faster
                return
            try:
                self._judge_by(self.learned_from(lesson.batch()), pending=False)
            except QigcoreError as error:
                self.lesson = None
                self.facts["lesson"] = f"no baseline could be learned: {error}; set_baseline() tries again"

    def settle(self) -> None:
        """Agree with the other processes: leave in the folder what was learned, or take up what lies there.

        Where two have learned, the first one's counts for all; where the file was replaced, the new one.
        """
        self.learn()
        if self._file is None:
            return
        with self._file_lock:
            self._save()
            if not self._file.changed():
                return
            try:
                self._judge_by(self._file.read())
            except BaselineError as error:
                self.facts["file"] = f"{error}; the monitor goes on without it"
            else:
                self.facts.pop("file", None)

    def adopt(self, baseline: Baseline) -> None:
        """Judge by `baseline` from now on, and have all others do so.

        Raises BaselineError when it is of another geometry or dimension.
        """
        with self._file_lock:
            self._judge_by(baseline, pending=True)
            self._save()

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

    def _judge_by(self, baseline: Baseline, pending: bool | None = None) -> None:
        rules = rules_for(self._settings, baseline)
        with self.lock:
            self._recorder.set_reference(baseline.point)
            self.rules, self.baseline, self._pending = rules, baseline, pending
            self.facts.pop("lesson", None)
            self.lesson = None  # last: who finds no lesson finds all the rest done

    def _save(self) -> None:
        if self._file is None or self._pending is None or self.baseline is None:
            return
        try:
            self.baseline.save(self._file.path, replace=self._pending)
        except FileExistsError:
            pass  # another process was first: what it left is read next, or was found broken before
        except OSError as error:
            self.facts["file"] = f"{self._file.path}: the baseline could not be saved: {error.strerror}"
            return
        else:
            self.facts.pop("file", None)
        self._pending = None
