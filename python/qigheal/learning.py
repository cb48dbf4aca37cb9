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
        self._parts.append((heads[good], basins[good]))
        self._next = due
        self._missing -= int(good.sum())

    def batch(self) -> Batch:
        heads, basins = zip(*self._parts, strict=True)
        return Batch.of_rows(np.concatenate(heads), np.concatenate(basins), self._recorder.names)


class BaselineFile:
    """`baseline.json` in the history's folder, shared by all processes that record into it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether there is a file that this process has neither read nor written."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def read(self) -> Baseline:
        """Raises BaselineError; the file is not `changed` any more either way."""
        self._seen = self._stamp()
        return Baseline.load(self.path)

    def write(self, baseline: Baseline, *, replace: bool) -> None:
        """Raises OSError; FileExistsError when another process was first and `replace` is False."""
        baseline.save(self.path, replace=replace)
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class Learner:
    """Owns the baseline, the rules that follow from it, and the reference that drift is measured from.

    rules, baseline: what is judged by now. facts: what a person should know of how it came about, by
    topic. lock: held while they change; hold it to see all of them at one moment.
    """

    def __init__(self, recorder: Recorder, settings: MonitorSettings) -> None:
        self._recorder = recorder
        self._settings = settings
        self._file: BaselineFile | None = None
        self.lock = threading.RLock()
        self.lesson: Lesson | None = Lesson(recorder, settings.learn_after)
        self.facts: dict[str, str] = {}
        self.baseline: Baseline | None = None
        self.rules: RuleSet = rules_for(settings, None)

    def share(self, folder: Path) -> None:
        """Take up the baseline that lies in the history's folder, and leave there what is learned."""
        self._file = BaselineFile(folder)
        self.refresh()

    def adopt(self, baseline: Baseline, *, replace: bool) -> None:
        """Judge by `baseline` from now on, and leave it in the folder.

        Without `replace`, one that lies there already is taken instead: all processes judge by the
        same. Raises BaselineError when `baseline` is of another geometry or dimension.
        """
        with self.lock:
            self._judge_by(baseline)
            if self._file is None:
                return
            try:
                self._file.write(baseline, replace=replace)
            except FileExistsError:
                self.refresh()
            except OSError as error:
                self.facts["file"] = f"{self._file.path}: the baseline could not be saved: {error.strerror}"
            else:
                self.facts.pop("file", None)

    def refresh(self) -> None:
        """Take up the file in the folder if another process has written a new one."""
        with self.lock:
            if self._file is None or not self._file.changed():
                return
            try:
                self._judge_by(self._file.read())
            except BaselineError as error:
                self.facts["file"] = f"{error}; the monitor goes on without it"
            else:
                self.facts.pop("file", None)

    def learn(self) -> None:
        """Learn from the lesson once it is complete; cheap when there is nothing to do."""
        if self.lesson is None or not self.lesson.complete:
            return
        with self.lock:
            lesson, self.lesson = self.lesson, None
            if lesson is None:  # another thread was faster
                return
            try:
                self.adopt(self.learned_from(lesson.batch()), replace=False)
            except QigcoreError as error:
                self.facts["lesson"] = f"no baseline could be learned: {error}; set_baseline() tries again"

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

    def after_fork(self) -> None:
        """In a child: a thread of the parent may have held the lock."""
        self.lock = threading.RLock()

    def _judge_by(self, baseline: Baseline) -> None:
        rules = rules_for(self._settings, baseline)
        self._recorder.set_reference(baseline.point)
        self.rules, self.baseline, self.lesson = rules, baseline, None
        self.facts.pop("lesson", None)
