"""Threads that record amid one another, and signal handlers amid that: nothing is forgotten, nobody waits for ever."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qigheal.monitor
from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector
from qigcore.history import History
from qigcore.recorder import Recorder
from qigcore.rows import Array, Batch, FloatArray
from qigheal import GeometricHealthMonitor
from qigheal.monitor import watching
from qigheal.monitor.learning import Learner, Lesson

DIM = 4
BASIN = np.array([1.0, 2.0, 3.0, 4.0])


def monitor(**options: Any) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(**{"dim": DIM, "code_hash": "", **options})


def feed(host: GeometricHealthMonitor, n: int, phi: float = 0.75) -> None:
    for i in range(n):
        host.record(phi, float(i), BASIN)


def elsewhere(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.fixture
def terminated() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGTERM does."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda call: signal.signal(signal.SIGTERM, lambda *_: call()) and None
    signal.signal(signal.SIGTERM, before)


# --- the lesson -------------------------------------------------------------------------------------


@pytest.mark.parametrize("meanwhile", [600, 20_000])
def test_rows_of_other_threads_during_an_alarm_cost_no_lesson(
    meanwhile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_value))
    host, collect, once = monitor(learn_after=300), Lesson.collect, [True]
    feed(host, 299)

    def slow(self: Lesson) -> None:
        if once:
            once.clear()
            elsewhere(lambda: feed(host, meanwhile, math.nan))
        collect(self)

    monkeypatch.setattr(Lesson, "collect", slow)
    feed(host, 200, math.nan)
    feed(host, 2000)
    assert not once
    assert host.baseline is not None
    assert reported == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_alarm_costs_no_lesson(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a signal handler that raises amid the callback; an Exception of its is taken for the callback's.
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    host, collect, passed, raised = monitor(learn_after=300, history_size=400), Lesson.collect, 0, []

    def interrupted(self: Lesson) -> None:
        if len(raised) < 3:
            raised.append(error)
            raise error
        collect(self)

    monkeypatch.setattr(Lesson, "collect", interrupted)
    for i in range(900):
        try:
            host.record(0.75, float(i), BASIN)
        except KeyboardInterrupt:
            passed += 1
    assert passed == (3 if error is KeyboardInterrupt else 0)
    assert host._learner.lesson is not None
    assert host._learner.lesson.complete  # though nobody asked
    assert host.baseline is not None


def test_what_is_learned_follows_from_the_rows_whoever_asks_when() -> None:
    rng = np.random.default_rng(3)
    phis = np.where(rng.random(900) < 0.4, math.nan, rng.normal(0.75, 0.01, 900))
    learned = []
    for every in (1, 7, 50, 10_000):
        host = monitor(learn_after=300, history_size=200)
        for i, phi in enumerate(phis):
            host.record(float(phi), float(i), BASIN)
            if i % every == 0:
                host.check_health()
        known = host.baseline
        assert known is not None
        learned.append((known.count, known.skipped, known.bands["phi"], known.bands["kappa"], known.basin))
    assert all(each == learned[0] for each in learned)
    kappas = np.flatnonzero(~np.isnan(phis))[:300]
    assert learned[0][:2] == (300, 0)
    assert learned[0][3].mean == pytest.approx(kappas.mean())


def test_a_lesson_one_row_short_does_not_ring_with_every_row() -> None:
    host = monitor(learn_after=300)
    feed(host, 299)
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name) if event == "call" else None)
    try:
        for _ in range(1000):
            host.record(math.nan, 64.0, BASIN)
    finally:
        sys.setprofile(None)
    assert 1 <= seen.count("_on_alarm") <= 10
    host.record(0.75, 64.0, BASIN)
    assert host.baseline is not None  # asked, it does not wait for the alarm


def test_a_lesson_skips_to_what_the_ring_still_holds() -> None:
    recorder = Recorder(DIM, 40)
    lesson = Lesson(recorder, 60)
    for i in range(100):
        recorder.record(0.5, float(i), BASIN)
    lesson.collect()
    assert not lesson.complete
    for i in range(100, 125):
        recorder.record(0.5, float(i), BASIN)
    lesson.collect()
    assert lesson.complete
    assert lesson.batch().kappa_eff.tolist() == list(range(60, 120))


def test_a_lesson_that_was_collected_meanwhile_is_not_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        """A ring that somebody else collects from after any copy."""

        capacity = 1000
        again = True

        def __init__(self, ring: Recorder) -> None:
            self.ring = ring

        @property
        def total(self) -> int:
            return self.ring.total

        names = ("",)

        def rows(self, first: int, last: int) -> tuple[int, Array, FloatArray]:
            found = self.ring.rows(first, last)
            if self.again:
                self.again = False
                for i in range(10):
                    self.ring.record(0.5, 100.0 + i, BASIN)
                lesson.collect()
            return found

    ring = Recorder(DIM, 1000)
    lesson = Lesson(Busy(ring), 30)  # type: ignore[arg-type]
    for i in range(20):
        ring.record(0.5, float(i), BASIN)
    lesson.collect()
    assert lesson.complete
    assert lesson.batch().kappa_eff.tolist() == [*range(20), *range(100, 110)]


# --- nobody waits for ever --------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["close", "flush"])
def test_a_handler_may_close_amid_a_check_while_the_thread_takes_up_a_baseline(
    call: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminated: Callable[[Callable[[], object]], None],
) -> None:
    host = monitor(history=tmp_path, flush_every_s=0.01, learn_after=50)
    feed(host, 60)
    known = host.baseline
    assert known is not None
    host.flush()
    real, entered, taken, finished = qigheal.monitor.assess, threading.Event(), Learner._take_up, []

    def take_up(self: Learner, *arguments: Any) -> None:
        entered.set()
        taken(self, *arguments)

    def assess(*arguments: Any) -> Any:
        if not finished:  # another process replaces the file, and the thread comes round
            known.save(tmp_path / "baseline.json", replace=True)
            assert entered.wait(20)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    def handle() -> None:
        started = time.monotonic()
        getattr(host, call)()
        finished.append(time.monotonic() - started)

    terminated(handle)
    monkeypatch.setattr(Learner, "_take_up", take_up)
    monkeypatch.setattr(qigheal.monitor, "assess", assess)
    assert host.check_health().state == "learned"
    assert len(finished) == 1
    assert finished[0] < 8  # of `close`'s own patience with a disk there are 10
    host.close()


@pytest.mark.parametrize("lock", ["_lock", "_file_lock"])
def test_settling_waits_for_no_thread_without_end(lock: str, tmp_path: Path) -> None:
    host = monitor(history=tmp_path, learn_after=50)
    feed(host, 60)
    known = Baseline.learn(np.tile(BASIN, (40, 1)) + np.random.default_rng(1).random((40, DIM)))
    known.save(tmp_path / "baseline.json")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:  # as a thread does that a handler has stopped
        with getattr(host._learner, lock):
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)
        host.flush()
        assert host.check_health().snapshots == 60
    finally:
        release.set()
        thread.join()
    host.flush()
    assert host.baseline == known  # what could not be had then is had in the next round
    host.close()


def test_a_handler_that_settles_amid_settling_does_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, save, saved = monitor(history=tmp_path, flush_every_s=5.0, learn_after=50), Baseline.save, []
    feed(host, 1)

    def interrupted(self: Baseline, path: Any, *, replace: bool = True) -> None:
        saved.append(threading.get_ident())
        host.flush()
        save(self, path, replace=replace)

    feed(host, 39)
    monkeypatch.setattr(Baseline, "save", interrupted)
    host.set_baseline()
    assert saved == [threading.get_ident()]
    host.close()
    assert (tmp_path / "baseline.json").exists()


def test_a_baseline_set_while_a_file_is_read_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = monitor(history=tmp_path, learn_after=50)
    feed(host, 60)
    host.flush()
    other = Baseline.learn(np.tile(BASIN, (40, 1)) + np.random.default_rng(1).random((40, DIM)))
    other.save(tmp_path / "baseline.json")
    load, once = Baseline.load, [True]

    def slow(path: Any) -> Baseline:
        found = load(path)
        if once:
            once.clear()
            elsewhere(host.set_baseline)
        return found

    monkeypatch.setattr(Baseline, "load", slow)
    host.flush()
    assert not once
    ours = host.baseline
    assert ours != other
    host.close()
    assert host.baseline == ours == load(tmp_path / "baseline.json")


class Racing(History):
    """A disk during whose writing the host records on, for as long as anybody writes."""

    host: GeometricHealthMonitor | None = None
    rounds = 0

    def append_rows(self, heads: Array, basins: FloatArray, names: Any) -> None:
        super().append_rows(heads, basins, names)
        self.rounds += 1
        if self.host is not None and self.rounds < 200:
            for _ in range(len(heads)):
                self.host.record(0.75, 64.0, BASIN)


@pytest.mark.parametrize("call", ["close", "flush"])
def test_what_is_recorded_while_the_last_rows_are_written_is_not_run_after(call: str, tmp_path: Path) -> None:
    disk = Racing(tmp_path, dim=DIM)
    host = monitor(history=disk, flush_every_s=5.0)
    feed(host, 1)
    elsewhere(host.flush)
    before, disk.rounds = len(host.snapshots), 0
    feed(host, 50)
    disk.host = host
    getattr(host, call)()
    # The thread may come round once, before or after.
    assert disk.rounds <= 4
    disk.host = None
    host.close()
    disk.close()
    assert before == 1
    with History.read_only(tmp_path) as history:
        assert len(Batch.concat(history.scan(), DIM)) + host.losses == host.check_health().snapshots
    if call == "close":
        assert host.losses > 0


def test_many_calls_do_not_keep_the_thread_from_its_end(tmp_path: Path) -> None:
    host = monitor(history=tmp_path, flush_every_s=5.0)
    flusher, release, rounds = host._flusher, threading.Event(), []
    assert flusher is not None

    def slow() -> None:
        rounds.append(1)
        release.wait(20)

    flusher._chores = slow
    for _ in range(500):
        flusher.wake()
    release.set()
    host.close()
    assert len(rounds) <= 5


def test_a_trend_is_unknown_while_snapshots_are_refused_and_any_window_is_allowed() -> None:
    host = monitor(on_invalid="raise")
    feed(host, 100)
    assert host.get_trend("phi", 10**30).direction == "stable"
    for _ in range(10):
        with pytest.raises(ValueError, match="phi"):
            host.record(math.nan, 64.0, BASIN)
    assert host.get_trend("phi").direction == "unknown"
    feed(host, 7)
    assert host.get_trend("phi").direction == "stable"


# --- the change detector ----------------------------------------------------------------------------


def varied(host: GeometricHealthMonitor, n: int, phi: float = 0.75) -> None:
    draw = np.random.default_rng(3)
    for _ in range(n):
        host.record(phi + draw.normal(0.0, 0.01), draw.normal(64.0, 1.0), draw.dirichlet(500.0 * BASIN))


def learned() -> GeometricHealthMonitor:
    host = monitor(learn_after=100)
    varied(host, 120)
    assert host.check_health().findings == ()
    return host


def test_what_another_thread_looks_at_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is of all that was recorded, though the history's thread looks at the last rows just then."""
    monkeypatch.setattr(watching, "PATIENCE_S", 60.0)
    host = learned()
    varied(host, 40, phi=0.60)
    entered, go_on = threading.Event(), threading.Event()
    taken = ChangeDetector.taken

    def slowly(self: ChangeDetector, *given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            assert go_on.wait(60.0)
        return taken(self, *given)

    monkeypatch.setattr(ChangeDetector, "taken", slowly)
    other = threading.Thread(target=host.check_health)
    other.start()
    assert entered.wait(60.0)
    threading.Timer(0.1, go_on.set).start()
    report = host.check_health()
    other.join()
    assert report.change is not None
    assert "change" in [finding.kind for finding in report.findings]


def test_a_handler_amid_the_look_gets_what_was_found_before(
    monkeypatch: pytest.MonkeyPatch, terminated: Callable[[Callable[[], object]], None]
) -> None:
    """It would wait for itself."""
    monkeypatch.setattr(watching, "PATIENCE_S", 3600.0)
    host = learned()
    varied(host, 20)
    taken, reports = ChangeDetector.taken, []

    def interrupted(self: ChangeDetector, *given: Any) -> Any:
        if not reports:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, *given)

    terminated(lambda: reports.append(host.check_health()))
    monkeypatch.setattr(ChangeDetector, "taken", interrupted)
    assert host.check_health().findings == ()
    assert len(reports) == 1
