from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from qigheal.integrations.web.ticking import Ticker
from tests.hosts.serving import PATIENCE_S, threads, until


@pytest.fixture
def made() -> Iterator[list[Ticker]]:
    tickers: list[Ticker] = []
    yield tickers
    for ticker in tickers:
        ticker.close()
    until(lambda: "qigheal-ticker" not in threads(), "the end of the threads")


def ticker(
    made: list[Ticker], work: Any, every_s: float = 0.01, *, serves: bool = True, **how: Any
) -> Ticker:
    made.append(Ticker(work, every_s, serves=lambda: serves, **how))
    return made[-1]


def test_it_works_again_and_again_until_it_is_closed(made: list[Ticker]) -> None:
    done: list[int] = []
    one = ticker(made, lambda: done.append(1))
    one.start()
    one.start()
    until(lambda: len(done) >= 3)
    one.close()
    assert one.ticks == len(done)
    assert "qigheal-ticker" not in threads()
    one.start()
    assert "qigheal-ticker" not in threads()


def test_slow_work_moves_no_later_moment(made: list[Ticker], monkeypatch: pytest.MonkeyPatch) -> None:
    now, at = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    took = iter([0.3, 0.0, 2.6, 0.0, 0.0])

    def work() -> None:
        at.append(now[0])
        now[0] += next(took)
        if len(at) == 5:
            one._end.set()

    one = ticker(made, work, 1.0)

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            now[0] += timeout or 0.0
            return self.is_set()

    one._end = Clock()
    one._run()
    steps = [b - a for a, b in pairwise(at)]
    assert steps == pytest.approx([1.0, 1.0, 3.0, 1.0])
    assert one.missed == 2
    assert 0.0 < at[0] <= 1.0


def test_workers_have_offsets_of_their_own(monkeypatch: pytest.MonkeyPatch, made: list[Ticker]) -> None:
    firsts: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            firsts.append(timeout or 0.0)
            return True

    for _ in range(8):
        one = ticker(made, lambda: None, 60.0)
        one._end = Clock()
        one._run()
    assert len(set(firsts)) == 8
    assert all(0.0 < first <= 60.0 for first in firsts)


def test_work_that_hangs_does_not_hold_the_end_up(made: list[Ticker]) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        let_go.wait(PATIENCE_S)

    one = ticker(made, hangs)
    one.start()
    assert begun.wait(PATIENCE_S)
    one.close()  # returns, though the work does not
    assert not let_go.is_set()
    let_go.set()


def _in_child(look: Any) -> int:
    """The exit code of a forked child that looks: 0 where it found what it should."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if look() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_worker_ticks_and_its_parent_no_longer(made: list[Ticker]) -> None:
    done: list[int] = []
    one = ticker(made, lambda: done.append(os.getpid()), serves=False)
    one.start()
    until(lambda: done)

    def look() -> bool:
        until(lambda: done[-1] == os.getpid(), "a tick in the child")
        return True

    assert _in_child(look) == 0
    assert one.idle


def test_a_process_that_serves_ticks_on_after_a_fork(made: list[Ticker]) -> None:
    one = ticker(made, lambda: None, serves=True)
    assert _in_child(lambda: True) == 0
    assert not one.idle


def test_what_was_closed_stays_closed_in_a_child(made: list[Ticker]) -> None:
    one = ticker(made, lambda: None)
    one.close()

    def look() -> bool:
        one.start()
        return one._thread is None

    assert _in_child(look) == 0


def test_a_child_of_multiprocessing_that_serves_nothing_is_idle(made: list[Ticker]) -> None:
    import multiprocessing

    one = ticker(made, lambda: None, serves=False)
    context = multiprocessing.get_context("fork")
    inbox = context.SimpleQueue()
    child = context.Process(target=lambda: inbox.put(one.idle))
    child.start()
    assert inbox.get() is True
    child.join()
