"""A thread that does one thing at even distances, in the processes that serve and in no others.

The moments lie on a grid from the start on, so that slow work moves no later moment; each process has an offset of
its own, so that several workers do not write at one time. What is done is `work`'s to say.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from qigcore.forks import Forks

PATIENCE_S = 0.9
"""How long `close` waits for work that is under way."""


class Ticker:
    """Calls `work` every `every_s` seconds from a daemon thread, between `start` and `close`.

    serves: whether requests have come to this process. A process that forked and serves none is the parent of
        the workers (gunicorn --preload), a forked child of multiprocessing that serves none computes something:
        neither ticks until a request comes. asleep: another reason not to tick before the first request.
    in_child: called in a forked child, before its ticker starts.

    Attributes: ticks (moments at which `work` was called), missed (moments that passed while it ran on or the
    process did not run).
    """

    def __init__(
        self,
        work: Callable[[], None],
        every_s: float,
        *,
        serves: Callable[[], bool],
        asleep: Callable[[], bool] = lambda: False,
        in_child: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._on_fork = in_child
        self._every_s = every_s
        self._serves = serves
        self._asleep = asleep
        self._forked = self._is_child = False
        self._thread: threading.Thread | None = None
        self._begin()
        _forks.watch(self)

    def _begin(self) -> None:
        self.ticks = self.missed = 0
        self._lock = threading.Lock()
        self._end = threading.Event()

    def start(self) -> None:
        """Begin, unless it has begun or was closed. The first moment comes within `every_s`, not before half of it."""
        with self._lock:
            if self._thread is not None or self._end.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="qigheal-ticker", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End within a second. Work that hangs is left behind in its thread, which dies with the process."""
        self._end.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE_S)

    @property
    def idle(self) -> bool:
        """Whether this process does not serve, as far as can be told."""
        if self._serves():
            return False
        if self._is_child and (loaded := sys.modules.get("multiprocessing.process")):
            return loaded.parent_process() is not None or self._asleep()
        return self._forked or self._asleep()

    def _run(self) -> None:
        every_s, end = self._every_s, self._end
        share = int.from_bytes(os.urandom(4), "big") / 2**32
        # Not soon: the parent of workers that are about to be forked has done so by then.
        due = time.monotonic() + every_s * (0.5 + 0.5 * share)
        while not end.wait(max(0.0, due - time.monotonic())):
            if not self.idle:
                self.ticks += 1
                self._work()
            due += every_s
            late = time.monotonic() - due
            if late > 0.0:
                passed = 1 + int(late / every_s)
                self.missed += passed
                due += passed * every_s

    def _in_parent(self) -> None:
        self._forked = True

    def _in_child(self) -> None:
        self._on_fork()
        begun = self._thread is not None and not self._end.is_set()
        ended = self._end.is_set()
        self._thread = None
        self._forked, self._is_child = False, True
        self._begin()
        if ended:
            self._end.set()
        elif begun:
            self.start()


_forks: Final = Forks(Ticker._in_child, Ticker._in_parent)
