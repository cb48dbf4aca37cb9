"""What a service holds: it records into a ring, and says whether the service is well.

`record` and `capture` are the ring's own methods, so that nothing of this module runs on the request
path. The monitor puts together the ring, what is judged by (`learning`) and the thread that writes to
a history (`flusher`). It judges nothing itself (`health` does) and repairs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Final, Literal, Self, TypedDict, Unpack

from qigcore.baseline import Baseline
from qigcore.constants import BASIN_DRIFT_MAX, PHI_MIN
from qigcore.errors import InvalidBasin, InvalidLimit
from qigcore.forks import Forks
from qigcore.history import History
from qigcore.recorder import Recorder
from qigcore.rows import Batch, FloatArray
from qigcore.rules import LOOK_BACK, MIN_SNAPSHOTS, REACH, UNMEASURABLE, evaluate
from qigcore.trends import Trend
from qigheal.changes import with_change
from qigheal.health import TEN, assess, column_of, direction_of, reaching, unseen
from qigheal.monitor.codehash import code_hash as code_hash_of
from qigheal.monitor.flusher import Flusher
from qigheal.monitor.keeping import Keeper
from qigheal.monitor.learning import Learner
from qigheal.monitor.ringview import RingView
from qigheal.monitor.watching import Watcher
from qigheal.records import HealthReport
from qigheal.settings import Geometry, MonitorSettings

UNFLAGGED = {
    "timestamp": "timestamp: {} were unusable; those snapshots have the time of their recording",
    "module_name": "module_name: {} were no text, too long, or too many different ones (a module per request?); "
    "those snapshots have the monitor's own",
}
"""What a row has no flag for, and what stands in its place."""


class Limits(TypedDict, total=False):
    """Fields of `MonitorSettings` that a monitor takes by keyword, beside those in its signature."""

    dim: int
    learn_after: int
    linear_below: float
    breakdown_from: float
    kappa_tolerance: float
    error_rate_max: float
    latency_max_ms: float
    memory_growth_max_mb: float
    on_invalid: Literal["repair", "raise"]
    flush_every_s: float
    keep_days: float | None
    keep_mb: float | None
    false_alarm_every: str | float | None


class GeometricHealthMonitor:
    """Records snapshots, learns what healthy looks like, and reports on the host's health.

    phi_min, basin_drift_max (radians), history_size and the keywords of `Limits`: see `MonitorSettings`.
    geometry: "simplex" for non-negative weights, "sphere" for signed states; never guessed.
    history: a folder, which the monitor opens and closes, or a `History`, which the caller closes.
        A thread of the monitor writes the rows at least every `flush_every_s`; under the history's
        durability="snapshot" they are on the disk before `record` returns. A disk that fails never
        reaches the host: see `losses`, and the notes of `check_health`. Hourly that thread removes what
        `keep_days` and `keep_mb` do not allow, of either kind of history.
    baseline: what healthy is, when that is known already; it is left in the history's folder. Without it
        the one that lies there is used, or one is learned from the first `learn_after` snapshots in which
        nothing was repaired, and left there if there is none.
    repo: where the commit that runs is looked up, once, unless `code_hash` or the environment variable
        QIGHEAL_CODE_HASH names it.
    module_name: stored with every row; `capture` may name another.

    Safe for several threads. After a fork, parent and child each write their own rows. A monitor with a
    history is closed by `close()`, by a `with` block, or when the interpreter ends.

    Attributes: settings, code_hash, snapshots (a sequence), and the methods of `qigcore.recorder.Recorder`
    record and capture.

    Raises InvalidLimit for a setting that makes no sense, BaselineError for a `baseline` of another
    geometry or dimension, HistoryError for a `history` that is of another one, or no folder.
    """

    def __init__(
        self,
        phi_min: float = PHI_MIN,
        basin_drift_max: float = BASIN_DRIFT_MAX,
        history_size: int = 1000,
        *,
        geometry: Geometry = "simplex",
        history: str | os.PathLike[str] | History | None = None,
        baseline: Baseline | None = None,
        repo: str | os.PathLike[str] = ".",
        code_hash: str | None = None,
        module_name: str = "",
        **limits: Unpack[Limits],
    ) -> None:
        self.settings = settings = MonitorSettings(
            phi_min=phi_min,
            basin_drift_max=basin_drift_max,
            history_size=history_size,
            geometry=geometry,
            **limits,
        )
        self.code_hash = code_hash_of(repo) if code_hash is None else code_hash
        self._recorder = recorder = Recorder(
            settings.dim,
            settings.history_size,
            settings.geometry,
            settings.linear_below,
            settings.breakdown_from,
            settings.on_invalid,
            self.code_hash,
            module_name,
        )
        self.record = recorder.record
        self.capture = recorder.capture
        self.snapshots = RingView(recorder)
        self._learner = Learner(recorder, settings)
        self._watcher = Watcher(recorder, self._learner, settings)
        self._flusher: Flusher | None = None
        self._keeper: Keeper | None = None
        self._half = settings.history_size // 2
        self._flush_due = 1
        if history is not None:
            self._open(history)
        if baseline is not None:
            self._learner.adopt(baseline)
        self._arm()
        _forks.watch(self)

    def _open(self, history: str | os.PathLike[str] | History) -> None:
        settings = self.settings
        owned = not isinstance(history, History)
        if not isinstance(history, History):
            history = History(history, dim=settings.dim, geometry=settings.geometry)
        elif (history.dim, history.geometry) != (settings.dim, settings.geometry):
            raise InvalidLimit(
                f"history: expected one of the {settings.geometry} with {settings.dim} components, as the "
                f"monitor records them, got one of the {history.geometry} with {history.dim}"
            )
        self._flusher = Flusher(
            self._recorder, history, owned=owned, every_s=settings.flush_every_s, chores=self._chores
        )
        self._keeper = Keeper(history, settings)
        if history.durability == "snapshot":
            self._recorder.each_row = self._flusher.flush
        folder = Path(history.path)
        self._learner.share(folder)
        try:
            settings.save(folder)
        except OSError as error:
            self._learner.facts["settings"] = (
                f"{folder}: the settings could not be left there: {error.strerror}"
            )

    @property
    def history(self) -> History | None:
        """The history that is written, if one was asked for."""
        return self._flusher.history if self._flusher is not None else None

    @property
    def baseline(self) -> Baseline | None:
        """What healthy is; None until it is learned."""
        self._learner.learn()
        return self._learner.baseline

    @property
    def baseline_basin(self) -> FloatArray | None:
        """The amplitudes that drift is measured from, shape [dim].

        The learned centre; before that the first good snapshot's, and None before any.
        """
        self._learner.learn()
        return self._recorder.reference

    @property
    def losses(self) -> int:
        """Snapshots that left the ring before they could be written to the history."""
        return self._flusher.losses if self._flusher is not None else 0

    @property
    def unwritten(self) -> str:
        """Why the last write to the history failed; "" when it went well, or there is no history."""
        return self._flusher.failure if self._flusher is not None else ""

    @property
    def invalid(self) -> dict[str, int]:
        """How often each field was reported unusable, by name."""
        return self._recorder.invalid

    def check_health(self) -> HealthReport:
        """The host's health after its last snapshots; see `qigheal.health.assess`.

        It follows from what was recorded alone: asking more often changes nothing.
        """
        recorder, learner = self._recorder, self._learner
        learner.learn()
        self._watcher.catch_up()
        # Without a lock: a signal handler may stop this thread here, and wait for those that would wait for it.
        while True:
            rules, baseline = judged = learner.judged
            total, count = recorder.total, LOOK_BACK
            heads = recorder.heads(count)
            fired = evaluate(heads, rules)
            # Only when something is wrong: how far back it began, in steps, for the ring may be large.
            while fired and count < min(recorder.capacity, REACH):
                count = min(count * 8, REACH)
                heads = recorder.heads(count)
                fired = evaluate(heads, rules)
                if len(heads) < count or all(each.since_index >= LOOK_BACK for each in fired):
                    break
            basins = recorder.basins(LOOK_BACK) if fired else None
            if learner.judged is judged:  # else the drift of these rows is another's
                break
        notes = baseline.notes if baseline is not None else ()
        watcher = self._watcher
        if learner.facts or self._flusher is not None or recorder.unflagged or watcher.told or watcher.missed:
            notes = (*notes, *self._troubles())
        report = assess(heads, basins, rules, baseline, total, notes, fired)
        if watcher.found[0] is not None and total >= MIN_SNAPSHOTS:
            report = with_change(report, *watcher.found)
        refusals = recorder.refusals
        return report if refusals is None else unseen(report, refusals)

    def get_trend(self, metric: str, window: int = 50) -> Trend:
        """Which way a metric went over the last `window` snapshots; see `qigheal.health.trend_of`.

        metric: phi, kappa, basin_drift, latency, errors or memory. Raises ValueError for another one.
        One that degrades says when it is at the limit in force, if that is one of the metric's values.
        Unknown while the host is unmeasurable because more than 3 of the last 10 snapshots were refused.
        """
        recorder = self._recorder
        self._learner.learn()  # first: it measures drift anew
        window = window if window < recorder.capacity else recorder.capacity
        values = recorder.series(column_of(metric), window)
        refusals = recorder.refusals
        if refusals is not None and (refusals[0] & TEN).bit_count() > UNMEASURABLE:
            values = values[:0]  # they are of the time before
        rules, baseline = self._learner.judged
        found = direction_of(values, metric, baseline)
        if found.direction != "degrading":
            return found
        times = recorder.series("timestamp", window)
        if len(times) > len(values):  # recorded since
            times = times[: len(values)]
        return reaching(found, values, metric, rules, times)

    def set_baseline(self) -> Baseline:
        """Declare what the ring holds now healthy: learn from it, and replace the file in the history's folder.

        Raises TooLittleData with fewer than 30 usable snapshots.
        """
        _, heads, basins = self._recorder.rows(0, self._recorder.total)
        learned = self._learner.learned_from(Batch.of_rows(heads, basins, self._recorder.names))
        self._learner.adopt(learned)
        return learned

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write what the ring holds as the JSON of the earlier modules; see `qigcore.history.earlier`.

        A file of that name is replaced in one step. Raises HistoryError.
        """
        from qigcore.history import earlier  # not for a process that only serves

        reference = self._recorder.reference
        if reference is not None and self.settings.geometry == "simplex":
            reference = reference * reference  # in the form that the snapshots' basins have
        limits = earlier.Limits(
            phi_min=self.settings.phi_min,
            basin_drift_max=self.settings.basin_drift_max,
            baseline_basin=None if reference is None else reference.tolist(),
            geometry=self.settings.geometry,
        )
        _, heads, basins = self._recorder.rows(0, self._recorder.total)
        earlier.save(path, [Batch.of_rows(heads, basins, self._recorder.names)], limits)

    def load_history(self, path: str | os.PathLike[str], without: Container[int] = ()) -> None:
        """Record the snapshots of such a file, with their times and code hashes, after those there are.

        without: places in the file, from 0, of snapshots that are passed over.

        They count as recorded: a history stores them, and a baseline is learned from them. The file's
        limits are not taken over; its reference is, until a baseline is learned. Load before the host
        records, since rows recorded meanwhile would get the file's code hashes.

        Raises HistoryError; under on_invalid="raise" also InvalidSnapshot.
        """
        from qigcore.history import earlier

        file = earlier.Earlier(path)
        if file.limits.baseline_basin is not None and self.baseline is None:
            try:
                self._recorder.set_reference(file.limits.baseline_basin, self._recorder.mark)
            except InvalidBasin as error:
                self._learner.facts["loaded"] = f"{path}: its baseline_basin was not taken over: {error}"
        try:
            for place, (code, fields) in enumerate(file.states()):
                if place not in without:
                    self._recorder.code_hash = code
                    self.capture(fields)
        finally:
            self._recorder.code_hash = self.code_hash

    def flush(self) -> None:
        """Write all snapshots so far to the history, if there is one. Never raises; see `check_health`."""
        if self._flusher is not None:
            self._flusher.flush()
            self._flushed()

    def close(self) -> None:
        """Write what is left and let go of the history. Recording and checking go on in memory."""
        self._recorder.each_row = None
        if self._flusher is not None:
            self._flusher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "learning" if self._learner.baseline is None else "learned"
        return f"<GeometricHealthMonitor {self._recorder.total} snapshots, {self.settings.geometry}, {state}>"

    def _troubles(self) -> list[str]:
        notes = list(self._learner.facts.values())
        notes += [text.format(self.invalid[name]) for name, text in UNFLAGGED.items() if name in self.invalid]
        if self._watcher.told:
            notes.append(self._watcher.told)
        if self._watcher.missed:
            notes.append(
                f"{self._watcher.missed} snapshots left the ring before they were looked at for changes"
            )
        flusher = self._flusher
        if flusher is not None and flusher.failure:
            notes.append(f"history: {flusher.failures} writes failed, the last: {flusher.failure}")
        if flusher is not None and flusher.losses:
            notes.append(f"history: {flusher.losses} snapshots left the ring before they could be written")
        keeper = self._keeper
        if keeper is not None and keeper.failure:
            notes.append(
                f"history: what is too old or too much was not removed {keeper.failures} times, the last: "
                f"{keeper.failure}"
            )
        return notes

    # One alarm of the ring serves both the lesson and the flusher.

    def _due(self) -> int | None:
        due = []
        lesson = self._learner.lesson
        if lesson is not None and not lesson.complete:
            due.append(lesson.due)
        if self._flusher is not None:
            due.append(self._flush_due)
        return min(due, default=None)

    def _arm(self) -> None:
        due = self._due()
        if due is not None:
            self._recorder.on_total(due, self._on_alarm)

    def _on_alarm(self) -> None:
        """Runs in the thread that records: it copies and wakes, and waits for nothing."""
        total = self._recorder.total
        lesson, complete = self._learner.lesson, False
        if lesson is not None and not lesson.complete and total >= lesson.due:
            lesson.collect()
            complete = lesson.complete
        if self._flusher is not None and (complete or total >= self._flush_due):
            self._flush_due = total + self._half
            self._flusher.wake()
        self._arm()

    def _chores(self) -> None:
        """Runs in the flusher's thread after each round."""
        self._flushed()
        if self._keeper is not None:
            self._keeper()

    def _flushed(self) -> None:
        """Settle what follows from a round of writing.

        An alarm costs the request that it rings in tens of microseconds: there is none as long as less
        than half a ring is unwritten.
        """
        if self._flusher is not None:
            self._flush_due = self._flusher.written + self._half
            due = self._due()
            if due is not None:
                self._recorder.put_off(due)
        self._learner.settle()
        self._watcher.catch_up()

    def _after_fork(self) -> None:
        self._learner.after_fork()
        self._watcher.after_fork()
        if self._flusher is not None:
            self._flusher.after_fork()
            self._flush_due = self._recorder.total + 1
        self._arm()


_forks: Final = Forks(GeometricHealthMonitor._after_fork)
