"""The live stream: one thread per process reads what all workers write, and hands it to every client.

The thread runs while somebody listens. A client has a bounded queue: one that does not keep up is dropped, and
nobody waits for it. The events are those of `records`; `serve` says what each document is.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np

from qigcore.history import History
from qigcore.rows import Batch
from qigheal.api.access import too_many
from qigheal.api.exchange import STRICT, encoded
from qigheal.api.reading import UNREADABLE, told
from qigheal.api.unchanged import JUDGED, Unchanged
from qigheal.health import remeasure
from qigheal.standing import LOOKED_AT, Standing

log = logging.getLogger("qigheal")

POLL_S: Final = 1.0
KEEP_ALIVE_S: Final = 15.0
LIFE_S: Final = 20.0
"""After which a stream ends, and the page opens the next one: most servers wait for open requests, 30 s by default,
before they stop, and few tell an application that they are about to."""

LOOK_S: Final = 1.0
"""Between two looks of a thread at whether its stream is to end."""

QUEUED: Final = 1000
"""Events that wait for one client; a page of the newest snapshots catches up faster than more of them."""

TOLD: Final = 100
"""Snapshots that are told of one round: more of them nobody sees, and a queue would overflow."""

LATE_S: Final = 60.0
"""Rows of other workers that come so late are still told."""

KEEP_ALIVE: Final = b": still here\n\n"
MEDIA: Final = "text/event-stream"
EVENTS: Final = (*STRICT, ("X-Accel-Buffering", "no"))
"""On the answer; a proxy that collects it before it passes it on would make it late."""

Event = Literal["snapshot", "health", "patches"]


class Documents(Protocol):
    """What the stream tells, worked out anew when asked."""

    def __call__(self, event: Event) -> object: ...


def written(event: Event, document: object) -> bytes:
    """One event. JSON holds no line end, so it is one line of data."""
    return b"event: " + event.encode() + b"\ndata: " + encoded(document) + b"\n\n"


class Client:
    """One listener's queue. wake: called by the reading thread whenever there is something to take.

    life_s: seconds after which it is over, whatever comes.
    """

    def __init__(self, wake: Callable[[], None], life_s: float = LIFE_S) -> None:
        self._wake = wake
        self._until = time.monotonic() + life_s
        self._waiting: deque[bytes] = deque()
        self.ended = False

    @property
    def over(self) -> bool:
        """Whether it is to be sent what it holds, and no more."""
        return self.ended or time.monotonic() >= self._until

    def put(self, event: bytes) -> None:
        if len(self._waiting) >= QUEUED:
            self.end()
            return
        self._waiting.append(event)
        self._wake()

    def take(self) -> bytes:
        """All that waits, empty when nothing does."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._waiting.popleft())
        return b"".join(taken)

    def end(self) -> None:
        self.ended = True
        self._wake()


class Stream:
    """The clients of one process. most: that listen at once, more get 429.

    flush: has this process's own monitor write what it holds. document: what each event tells.
    """

    def __init__(
        self,
        store: Path,
        document: Documents,
        *,
        flush: Callable[[], None] = lambda: None,
        most: int = 16,
        poll_s: float = POLL_S,
        keep_alive_s: float = KEEP_ALIVE_S,
        life_s: float = LIFE_S,
    ) -> None:
        self.keep_alive_s, self._life_s = keep_alive_s, life_s
        self._store, self._document, self._flush = store, document, flush
        self._most, self._poll_s = most, poll_s
        self._unchanged = Unchanged(store)
        self._clients: set[Client] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ready = threading.Event()

    def join(self, wake: Callable[[], None], most: int | None = None) -> Client:
        """A new client, which is told the service's health at once. most: fewer than those of the stream itself.

        Raises Refused: 429 when there are too many.
        """
        first = written("health", self._document("health"))
        client = Client(wake, self._life_s)
        client.put(first)
        most = self._most if most is None else min(most, self._most)
        with self._lock:
            if len(self._clients) >= most:
                raise too_many(f"{most} streams are open in this process", self.keep_alive_s)
            if self._closed:
                client.end()
                return client
            self._clients.add(client)
            if self._thread is None or not self._thread.is_alive():
                self._ready.clear()
                self._thread = threading.Thread(target=self._run, name="qigheal-stream", daemon=True)
                self._thread.start()
        self._ready.wait(5.0)  # what is recorded from now on is told
        return client

    def leave(self, client: Client) -> None:
        with self._lock:
            self._clients.discard(client)

    def listen(self, most: int | None = None, stopping: Callable[[], bool] = lambda: False) -> Listening:
        """What one client is sent, for a server that gives each a thread. Joins at once, not at the first step.

        most: as for `join`. stopping: whether the server is about to end, which is looked at every second.
        """
        return Listening(self, most, stopping)

    def close(self) -> None:
        """End every stream. The thread ends by itself, within a moment."""
        with self._lock:
            self._closed = True
            clients, self._clients = self._clients, set()
            thread = self._thread
        for client in clients:
            client.end()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _over(self) -> bool:
        """Whether nobody listens; the thread that is told so has ended for whoever comes then."""
        with self._lock:
            if self._clients and not self._closed:
                return False
            if self._thread is threading.current_thread():
                self._thread = None
            return True

    def _tell(self, event: bytes) -> None:
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.put(event)
            if client.ended:
                self.leave(client)

    def _run(self) -> None:
        try:
            self._read()
        except Exception:  # whatever it is: clients come back, and the service goes on
            log.exception("the live stream ended; this is a mistake in qigheal")
        finally:
            self._ready.set()
            with self._lock:
                clients = set(self._clients) if self._thread is threading.current_thread() else set()
            for client in clients:
                client.end()
                self.leave(client)

    def _read(self) -> None:
        ledger, flushed, rounds = self._unchanged.mark(JUDGED), 0.0, 0
        since, known = self._begin()
        fresh: deque[Batch] = deque()

        def stop() -> bool:
            nonlocal ledger, flushed, rounds
            rounds += 1
            if rounds > 1:  # asked again: one round was read
                self._ready.set()
                self._tell_rows(fresh)
            if self._over():
                return True
            if time.monotonic() - flushed >= self._poll_s:
                flushed = time.monotonic()
                self._flush()
                if (now := self._unchanged.mark(JUDGED)) != ledger:
                    ledger = now
                    self._tell(written("patches", self._document("patches")))
            return False

        while not self._over():
            rounds = 0
            # The folder may come, or come back.
            with suppress(*UNREADABLE), History.read_only(self._store) as history:
                for batch in history.follow(poll_s=self._poll_s, stop=stop, start=since):
                    if known and rounds <= 1:
                        continue  # what was there before anybody listened
                    since = max(since, math.nextafter(float(batch.timestamp.max()), math.inf))
                    fresh.append(batch)
                    while sum(map(len, fresh)) - len(fresh[0]) >= LOOKED_AT:
                        fresh.popleft()
                return
            self._ready.set()
            known = False
            time.sleep(min(self._poll_s, 0.2))

    def _tell_rows(self, fresh: deque[Batch]) -> None:
        """What one round of reading found, and what it makes of the service's health."""
        if not fresh:
            return
        rows = Batch.concat(fresh, fresh[0].basin_coords.shape[1])
        fresh.clear()
        if len(rows) > TOLD:
            rows = rows.take(np.linspace(len(rows) - 1, 0, TOLD).astype(int)[::-1])
        with suppress(*UNREADABLE):
            for snapshot in told(self._measured(rows), basins=False):
                self._tell(written("snapshot", snapshot))
        self._tell(written("health", self._document("health")))

    def _begin(self) -> tuple[float, bool]:
        """From which time on to follow, and whether anything is there: late rows are new, whatever their times."""
        with suppress(*UNREADABLE), History.read_only(self._store) as history:
            times = history.last(1).timestamp
            return min(time.time(), *times.tolist()) - LATE_S if len(times) else -math.inf, True
        return -math.inf, False

    def _measured(self, batch: Batch) -> Batch:
        """With drift from the baseline, if there is one to use."""
        with suppress(*UNREADABLE):
            baseline = Standing(self._store).baseline
            return batch if baseline is None else remeasure(batch, baseline)
        return batch


class Listening:
    """An iterator over one client's events. However it is given up, and even if it never began, the client leaves."""

    def __init__(
        self, stream: Stream, most: int | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._stream, self._stopping = stream, stopping
        self._something = threading.Event()
        self._client = stream.join(self._something.set, most)
        self._told = time.monotonic()
        self._last = False

    def __iter__(self) -> Listening:
        return self

    def __next__(self) -> bytes:
        look = min(LOOK_S, self._stream.keep_alive_s)
        while not self._last:
            self._last = self._client.over or self._stopping()
            if taken := self._client.take():
                return self._say(taken)
            if self._last:
                break
            woken = self._something.wait(look)
            self._something.clear()
            if not woken and time.monotonic() - self._told >= self._stream.keep_alive_s:
                return self._say(KEEP_ALIVE)
        self.close()
        raise StopIteration

    def _say(self, what: bytes) -> bytes:
        self._told = time.monotonic()
        return what

    def close(self) -> None:
        self._client.ended = True
        self._stream.leave(self._client)
