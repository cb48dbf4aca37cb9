"""AlertWatch: looks at a store again and again, and hands over what people have to know.

It may run in every worker of a service and in the sidecar at once: one of them, elected by a lock in the store,
speaks. Nothing here blocks the host, raises into it, or outlives `close`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from qigcore.forks import Forks
from qigheal.alerts import events, words
from qigheal.alerts.delivery import Courier
from qigheal.alerts.keeping import Keeper
from qigheal.alerts.records import Alert, AlertError, AlertSettings, Said
from qigheal.alerts.seeing import look
from qigheal.alerts.sinks import Log, Sink

log = logging.getLogger("qigheal.alerts")

CLOSING_S = 1.0


class AlertWatch:
    """Alerts for the service that writes `store`.

    sinks: where they go; the log alone by default. service: its name in the messages; default the name of the folder
    that holds the store. dashboard: an address that messages point to. losses: snapshots that this process could not
    write, such as `lambda: monitor.losses`. every_s: seconds between looks, when `settings` says nothing else.

    `start()` looks in a thread, `look()` once, now. After a fork the child has none of it until it starts its own.
    Raises AlertError for sinks that are none.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        sinks: Sequence[Sink] | None = None,
        *,
        every_s: float | None = None,
        service: str | None = None,
        dashboard: str = "",
        losses: Callable[[], int] | None = None,
        settings: AlertSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = settings or AlertSettings()
        if every_s is not None:
            settings = replace(settings, every_s=every_s)
        self.store = Path(store).absolute()
        self.settings = settings
        self.service = service or _named(self.store)
        self.dashboard = dashboard
        self._losses = losses
        self._clock = clock
        self._sinks = _unique((Log(),) if sinks is None else tuple(sinks))
        self._keeper = Keeper(self.store)
        self._told: set[str] = set()
        self._begin()
        _forks.watch(self)

    def _begin(self) -> None:
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun: float | None = None  # when it first looked
        self._couriers = {
            name: Courier(name, sink, self._keeper, self.settings, self._clock, self._stop)
            for name, sink in self._sinks.items()
        }

    @property
    def leading(self) -> bool:
        """Whether this process is the one that alerts."""
        return self._keeper.held

    @property
    def pending(self) -> dict[str, int]:
        """Alerts that wait to be delivered, by sink, where this process is the one that alerts."""
        return {name: len(self._keeper.said.outbox.get(name, ())) for name in self._sinks}

    def start(self) -> None:
        """Look now and then every `every_s` seconds, in a thread. A second call does nothing."""
        if self._thread is not None:
            return
        if self._stop.is_set():
            self._begin()
        self._thread = threading.Thread(target=self._run, name="qigheal-alerts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the threads, and what is being sent; lets another process alert. Returns within about a second.

        What was not delivered is sent by whoever alerts next.
        """
        self._stop.set()
        until = time.monotonic() + CLOSING_S
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSING_S)
        for courier in self._couriers.values():
            courier.join(until - time.monotonic())
        self._thread = None
        self._keeper.release(CLOSING_S)

    def __enter__(self) -> AlertWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> tuple[Alert, ...]:
        """One look: what is to be told goes to the sinks, each in a thread of its own; returns it.

        Nothing where another process alerts. Never raises.
        """
        with self._looking:
            try:
                return self._look()
            except Exception as error:
                if self._once(f"looking for alerts failed: {type(error).__name__}"):
                    log.exception("looking for alerts failed; this is a mistake in qigheal")
                return ()

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is being delivered, at most so long; whether all of it was."""
        until = time.monotonic() + timeout_s
        idle = [courier.idle.wait(max(0.0, until - time.monotonic())) for courier in self._couriers.values()]
        return all(idle) and not any(self.pending.values())

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self.settings.every_s)

    def _look(self) -> tuple[Alert, ...]:
        try:
            if not self._keeper.elected():
                return ()
        except OSError as error:
            self._once(
                f"{self.store}: alerts are not sent, since the store cannot be written: {error.strerror}"
            )
            return ()
        said = self._keeper.said
        seen = look(self.store, said, self._losses() if self._losses is not None else 0)
        for problem in seen.problems:
            self._once(problem)
        now = self._clock()
        self._begun = now if self._begun is None else min(now, self._begun)
        scene = events.Scene(self.service, self.store, self.dashboard, now, self._begun, self.settings)
        compared, alerts = events.compare(said, seen, scene)
        told: list[Alert] = []

        def with_alerts(now: Said) -> Said:
            # Couriers have taken from the outbox meanwhile: only that part is theirs.
            now = replace(compared, outbox=now.outbox, undelivered=now.undelivered)
            now, out = events.limited(now, alerts, scene)
            told.extend(out)
            return self._queued(now, out)

        self._keeper.change(with_alerts)
        for courier in self._couriers.values():
            courier.wake()
        return tuple(told)

    def _queued(self, said: Said, alerts: list[Alert]) -> Said:
        outbox = {name: said.outbox.get(name, ()) for name in self._sinks}
        undelivered = {name: said.undelivered.get(name, 0) for name in self._sinks}
        gone = sum(len(waiting) for name, waiting in said.outbox.items() if name not in self._sinks)
        if gone:
            self._once(f"{gone} alerts waited for places that are not configured any more, and are dropped")
        for name, waiting in outbox.items():
            full = (*waiting, *alerts)
            outbox[name] = full[-self.settings.queue :]
            undelivered[name] += len(full) - len(outbox[name])
        return replace(said, outbox=outbox, undelivered=undelivered)

    def _once(self, problem: str) -> bool:
        """Log a problem the first time that it is met."""
        problem = words.one_line(problem)
        if problem in self._told:
            return False
        if len(self._told) > 100:
            self._told.clear()
        self._told.add(problem)
        log.warning("%s", problem)
        return True

    def _after_fork(self) -> None:
        self._keeper.after_fork()
        self._begin()


def _named(store: Path) -> str:
    """A store is mostly the hidden folder of a service's own."""
    name = store.parent.name if store.name.startswith(".") else store.name
    return name or "service"


def _unique(sinks: tuple[Sink, ...]) -> dict[str, Sink]:
    found: dict[str, Sink] = {}
    for sink in sinks:
        if not isinstance(sink, Sink):
            raise AlertError(f"expected sinks such as Webhook(...), got a {type(sink).__name__}")
        name, number = sink.name, 1
        while name in found:
            number += 1
            name = f"{sink.name} #{number}"
        found[name] = sink
    return found


_forks: Final = Forks(AlertWatch._after_fork)
