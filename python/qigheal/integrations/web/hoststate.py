"""Where the state of a web host is read: its telemetry and its metrics, mappings or callables that give them.

Callables are the host's own code: a plain one runs in a thread of its own, an async one in the application's loop
where there is one, and neither is waited for longer than a time limit. What they give is looked at key by key and
never changed. Nothing is recorded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from queue import SimpleQueue
from typing import Any, NamedTuple

NEEDED = ("phi", "kappa_eff", "basin_coords")
MEASURED = ("error_rate", "avg_latency_ms", "memory_mb")
OPTIONAL = ("confidence", "surprise", "agency", "module_name")
MOST_SAID = 300
KEYS = (*NEEDED, *MEASURED, *OPTIONAL)


class Found(NamedTuple):
    """What the host says of itself now, by the keys of `capture`, and what was not to be had, in words."""

    state: dict[str, Any]
    problems: tuple[str, ...]


class Source:
    """One mapping of the host, or a callable that gives it: `find` says where it is now, None where it is not.

    optional: whether its absence is nothing to tell.
    """

    def __init__(self, name: str, find: Callable[[], Any], *, optional: bool = False) -> None:
        self.name = name
        self._absent = "" if optional else f"{name}: not there"
        self._find = find
        self._calls: _Caller | None = None
        self._waited: Future[Any] | None = None

    def read(self, timeout_s: float, loop: asyncio.AbstractEventLoop | None) -> tuple[dict[str, Any], str]:
        """Its values, and what is wrong: "" when nothing is. Never raises."""
        try:
            found = self._find()
            if found is None:
                return {}, self._absent
            if callable(found) and not isinstance(found, Mapping):
                found = self._call(found, timeout_s, loop)
            if not isinstance(found, Mapping):
                return (
                    {},
                    f"{self.name}: expected a mapping, or a callable that gives one, got {type(found).__name__}",
                )
            # Key by key: the host may be changing it meanwhile, and may have put in much more.
            return {key: value for key in KEYS if (value := found.get(key)) is not None}, ""
        except TimeoutError:
            return {}, f"{self.name}: no answer within {timeout_s:g} s"
        except CancelledError:
            return {}, f"{self.name}: not waited for, as self-healing was closed"
        except BaseException as error:  # the host's code may raise anything, and this thread is ours
            return {}, f"{self.name}: {said(error)}"

    def abandon(self) -> None:
        """Have whoever waits for an answer wait no longer."""
        waited = self._waited
        if waited is not None:
            waited.cancel()
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.end()

    def after_fork(self) -> None:
        self._calls = self._waited = None

    def _caller(self) -> _Caller:
        if self._calls is None:
            self._calls = _Caller()
        return self._calls

    def _call(
        self, function: Callable[[], Any], timeout_s: float, loop: asyncio.AbstractEventLoop | None
    ) -> Any:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  # an object whose call is async
        ):
            return self._await(function, timeout_s, loop)
        waited: Future[Any] = Future()
        self._caller().call(function, waited)
        found = self._result(waited, timeout_s)
        if inspect.isawaitable(found):  # a plain function that hands on a coroutine
            given = found

            async def awaited() -> Any:
                return await given

            return self._await(awaited, timeout_s, loop)
        return found

    def _await(
        self, function: Callable[[], Any], timeout_s: float, loop: asyncio.AbstractEventLoop | None
    ) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(function(), timeout_s)

        if loop is None:
            return asyncio.run(bounded())
        if loop.is_closed() or not loop.is_running():
            raise RuntimeError("the application's event loop has ended")
        return self._result(asyncio.run_coroutine_threadsafe(bounded(), loop), timeout_s)

    def _result(self, waited: Future[Any], timeout_s: float) -> Any:
        self._waited = waited
        try:
            return waited.result(timeout_s)
        finally:
            self._waited = None
            waited.cancel()


def said(error: BaseException) -> str:
    """What went wrong in code that is not ours, as one line of bounded length."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own words are code of the host's, too
        text = ""
    kind = type(error).__name__
    return f"{kind}: {text[:MOST_SAID]}" if text else kind


class _Caller:
    """One daemon thread that calls what it is handed, one after another.

    A thread for each call would take a stack, and memory of the allocator's, anew every time.
    """

    def __init__(self) -> None:
        self._handed: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._busy = threading.Event()
        threading.Thread(target=self._run, name="qigheal-telemetry", daemon=True).start()

    def call(self, function: Callable[[], Any], waited: Future[Any]) -> None:
        """Have it called. Raises RuntimeError while the call before has not ended."""
        if self._busy.is_set():
            raise RuntimeError("the call before has not ended yet")
        self._busy.set()
        self._handed.put((function, waited))

    def end(self) -> None:
        """Let the thread end, once what it is in has."""
        self._handed.put(None)

    def _run(self) -> None:
        while (handed := self._handed.get()) is not None:
            function, waited = handed
            try:
                found, failed = function(), None
            except BaseException as error:
                found, failed = None, error
            self._busy.clear()  # before whoever waits can call again
            with contextlib.suppress(InvalidStateError):  # nobody waits any longer
                if failed is None:
                    waited.set_result(found)
                else:
                    waited.set_exception(failed)
            # Until the next call nothing of the host's is kept alive from here.
            del handed, function, waited, found, failed


class HostState:
    """All sources of one host; a later one wins over an earlier one."""

    def __init__(self, *sources: Source, timeout_s: float) -> None:
        self._sources = sources
        self._timeout_s = timeout_s

    def read(self, loop: asyncio.AbstractEventLoop | None) -> Found:
        state: dict[str, Any] = {}
        problems = []
        for source in self._sources:
            values, problem = source.read(self._timeout_s, loop)
            state.update(values)
            if problem:
                problems.append(problem)
        return Found(state, tuple(problems))

    def abandon(self) -> None:
        for source in self._sources:
            source.abandon()

    def after_fork(self) -> None:
        for source in self._sources:
            source.after_fork()
