from __future__ import annotations

import asyncio
import threading
import time
from collections import UserDict
from typing import Any

import pytest

from qigheal.integrations.web.hoststate import HostState, Source

LONG_S = 60.0


def read(given: Any, timeout_s: float = LONG_S, loop: Any = None) -> tuple[dict[str, Any], str]:
    return Source("telemetry", lambda: given).read(timeout_s, loop)


async def later() -> dict[str, float]:
    return {"phi": 0.5}


class Async:
    async def __call__(self) -> dict[str, float]:
        return {"phi": 0.5}


@pytest.mark.parametrize(
    "given",
    [
        {"phi": 0.5},
        UserDict(phi=0.5),
        lambda: {"phi": 0.5},
        later,
        lambda: later(),  # noqa: PLW0108  # a plain function that gives a coroutine
        Async(),
        {"phi": 0.5, "kappa_eff": None, "other": 7},
    ],
)
def test_mappings_and_callables_of_all_kinds(given: Any) -> None:
    assert read(given) == ({"phi": 0.5}, "")


def test_async_telemetry_runs_in_the_applications_loop() -> None:
    seen = []

    async def telemetry() -> dict[str, float]:
        seen.append(asyncio.get_running_loop())
        return {"phi": 0.5}

    async def run() -> None:
        loop = asyncio.get_running_loop()
        found = await asyncio.to_thread(read, telemetry, LONG_S, loop)
        assert found == ({"phi": 0.5}, "")
        assert seen == [loop]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "telemetry: not there"),
        (7, "telemetry: expected a mapping, or a callable that gives one, got int"),
        (lambda: [1], "telemetry: expected a mapping, or a callable that gives one, got list"),
        (lambda: 1 / 0, "telemetry: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_is_said(given: Any, problem: str) -> None:
    assert read(given) == ({}, problem)


def test_a_callable_that_exits_ends_nothing() -> None:
    def leaves() -> None:
        raise SystemExit(3)

    assert read(leaves) == ({}, "telemetry: SystemExit: 3")


def test_what_an_error_says_is_one_bounded_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    def loud() -> None:
        raise ValueError("a\nWARNING b\x0b" + "x" * 10_000)

    def mute() -> None:
        raise Mute

    _, problem = read(loud)
    assert problem.startswith("telemetry: ValueError: a WARNING b x")
    assert len(problem) < 400
    assert read(mute) == ({}, "telemetry: Mute")


def test_one_that_hangs_is_waited_for_so_long_and_not_called_again_meanwhile() -> None:
    let_go, over, calls = threading.Event(), threading.Event(), []

    def hangs() -> dict[str, float]:
        calls.append(1)
        let_go.wait(LONG_S)
        over.set()
        return {"phi": 0.5}

    source = Source("telemetry", lambda: hangs)
    assert source.read(0.05, None) == ({}, "telemetry: no answer within 0.05 s")
    assert source.read(0.05, None) == ({}, "telemetry: RuntimeError: the call before has not ended yet")
    assert len(calls) == 1
    let_go.set()
    assert over.wait(LONG_S)
    until = time.monotonic() + LONG_S
    while (found := source.read(LONG_S, None))[1] and time.monotonic() < until:
        pass  # it has returned, and its thread is about to take that down
    assert found == ({"phi": 0.5}, "")


def test_one_thread_makes_all_calls_and_ends_when_it_is_not_needed() -> None:
    callers = []

    def telemetry() -> dict[str, float]:
        callers.append(threading.current_thread())
        return {"phi": 0.5}

    source = Source("telemetry", lambda: telemetry)
    for _ in range(3):
        assert source.read(LONG_S, None) == ({"phi": 0.5}, "")
    assert len(set(callers)) == 1
    source.abandon()
    callers[0].join(LONG_S)
    assert not callers[0].is_alive()
    assert source.read(LONG_S, None) == ({"phi": 0.5}, "")
    source.abandon()


def test_an_async_one_that_hangs_is_cancelled() -> None:
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(1)
            raise

    assert read(hangs, 0.05) == ({}, "telemetry: no answer within 0.05 s")
    assert ended == [1]


def test_a_loop_that_has_ended_is_said() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert read(later, LONG_S, loop) == (
        {},
        "telemetry: RuntimeError: the application's event loop has ended",
    )


def test_nobody_waits_for_what_was_abandoned() -> None:
    called, let_go = threading.Event(), threading.Event()

    def hangs() -> None:
        called.set()
        let_go.wait(LONG_S)

    source = Source("telemetry", lambda: hangs)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(source.read(LONG_S, None)))
    reader.start()
    assert called.wait(LONG_S)
    while reader.is_alive():  # the call may have begun before its result is waited for
        source.abandon()
        reader.join(0.01)
    let_go.set()
    assert found == [({}, "telemetry: not waited for, as self-healing was closed")]


def test_later_sources_win_and_all_problems_are_told() -> None:
    given = HostState(
        Source("a", lambda: {"phi": 0.1, "kappa_eff": 1.0}),
        Source("b", lambda: {"phi": 0.2}),
        Source("c", lambda: None),
        Source("d", lambda: None, optional=True),
        timeout_s=LONG_S,
    )
    found = given.read(None)
    assert found.state == {"phi": 0.2, "kappa_eff": 1.0}
    assert found.problems == ("c: not there",)
