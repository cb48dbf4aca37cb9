"""Carries rows from a ring to a history in a thread of its own, so that no request waits for a disk.

What goes wrong with the history stays here: it is counted and told, and the host goes on. Rows that
could not be written stay in the ring and are tried again; those that leave the ring unwritten are lost,
and counted. Nothing here judges a row.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from qigcore.history import History
from qigcore.recorder import Recorder

CHUNK = 4096
"""Rows copied out of the ring at a time: 2.4 MB at 64 components."""

SHORTEST_S = 0.005
"""Between two rounds, however fast the host records."""

PATIENCE_S = 10.0
"""How long `close` waits for a disk that does not answer."""


class Flusher:
    """Writes to `history` what `recorder` holds and the history does not.

    The thread comes round at least every `every_s`, and sooner at the pace at which the ring fills, so
    that the host need not wake it: that costs a request tens of microseconds.

    owned: whether `close` closes the history; it flushes it otherwise. chores: called in the thread
    after each round, and by `close`.

    Attributes: written (rows of the ring up to this number are written or lost), losses (rows that left
    the ring unwritten), failures (writes that failed), failure (why the last one did; "" when it went
    well).
    """

    def __init__(
        self,
        recorder: Recorder,
        history: History,
        *,
        owned: bool,
        every_s: float,
        chores: Callable[[], None],
    ) -> None:
        self.history = history
        self._recorder = recorder
        self._owned = owned
        self._every_s = every_s
        self._chores = chores
        self._closed = False
        self._begin()
        atexit.register(self.close)
        self._finalizer: Any = None
        if (process := sys.modules.get("multiprocessing.process")) and process.parent_process():
            self._close_with_child()

    def _begin(self) -> None:
        self.losses = 0
        self.failures = 0
        self.failure = ""
        self.written = self._recorder.total
        self._lock = threading.RLock()
        self._writing_in = 0  # the thread that writes now
        self._ending = False  # a call of `close` came from within that thread's writing
        self._thread: threading.Thread | None = None
        # A SimpleQueue may be put to by a signal handler that interrupts another put.
        self._calls: SimpleQueue[bool] = SimpleQueue()

    def after_fork(self) -> None:
        """In a child: the rows so far are the parent's to write, its thread and lock are not ours."""
        self._begin()
        if util := sys.modules.get("multiprocessing.util"):  # this may be a child of its making
            util.register_after_fork(self, Flusher._close_with_child)

    def _close_with_child(self) -> None:
        """Close when a child of multiprocessing ends, which before Python 3.13 runs no exit handlers."""
        from multiprocessing.util import Finalize  # loaded in such a child, which is the only place for it

        self._finalizer = Finalize(None, self.close, exitpriority=-1)

    def wake(self) -> None:
        """Have the thread write soon; the first call starts it. Never waits."""
        if self._closed:
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="qigheal-flusher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is going down
                self._failed(error)
                return
            self._thread = thread
        self._calls.put(False)

    def flush(self) -> None:
        """Write all rows so far, in this thread; not those recorded meanwhile. Never raises; see `failure`."""
        with self._lock:
            # A signal handler that records while its own thread writes would write the same rows.
            if self._writing_in or self._closed:
                return
            self._writing_in = threading.get_ident()
            try:
                with self._counted():
                    self._write()
                    self.failure = ""
            finally:
                self._writing_in = 0
        if self._ending:
            self.close()

    def close(self) -> None:
        """Write what is left, end the thread, and let go of the history. Never raises.

        Rows recorded while the last ones are written count as losses.
        In a signal handler that interrupted a write of the same thread it is put off until that is done.
        """
        if self._writing_in == threading.get_ident():  # to wait for that write would be to wait for ever
            self._ending = True
            return
        atexit.unregister(self.close)
        if self._finalizer is not None:
            self._finalizer.cancel()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._calls.put(True)
            thread.join(PATIENCE_S)
        if not self._lock.acquire(timeout=PATIENCE_S):
            self._failed(
                TimeoutError(f"{self.history.path}: the disk did not answer within {PATIENCE_S:g} s")
            )
            return
        try:
            if self._closed:
                return
            self.flush()
            with self._counted():
                self._chores()
            self._closed = True
            self.losses += self._recorder.total - self.written
            with self._counted():
                if self._owned:
                    self.history.close()
                else:
                    self.history.flush()
        finally:
            self._lock.release()

    def _run(self) -> None:
        calls, ended, pause = self._calls, False, self._every_s
        while not ended:
            since, before = time.monotonic(), self.written
            with suppress(Empty):
                ended = calls.get(timeout=pause)
                while not ended:  # one round serves all calls so far: the last may come behind many
                    ended = calls.get_nowait()
            self.flush()
            with self._counted():
                self._chores()
            pause = self._pause(self.written - before, time.monotonic() - since)
            if self.written > before and not self.failure and self._behind():
                pause = 0.0

    def _behind(self) -> bool:
        """Whether the host records so fast that a quarter of the ring is unwritten again."""
        return self._recorder.total - self.written > self._recorder.capacity // 4

    def _pause(self, rows: int, seconds: float) -> float:
        """How long until a quarter of the ring is filled, at the pace of `rows` in `seconds`."""
        if rows <= 0:
            return self._every_s
        return min(self._every_s, max(SHORTEST_S, seconds * self._recorder.capacity / (4 * rows)))

    def _write(self) -> None:
        recorder = self._recorder
        total = recorder.total  # once: a host at full speed records on as fast as this writes
        while self.written < total:
            first, heads, basins = recorder.rows(self.written, min(total, self.written + CHUNK))
            self.losses += first - self.written
            self.written = first
            if len(heads):
                self.history.append_rows(heads, basins, recorder.names)
                self.written += len(heads)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, it is not the host's to handle
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.failure = str(error) or type(error).__name__
