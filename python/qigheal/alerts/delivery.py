"""Takes the alerts of one sink to it, in order, again and again until they are delivered or too old.

Each sink has a thread of its own while something waits for it, so that one that hangs holds up no other. Where the
clock is that of alerts, an argument; waiting is by events, so that closing ends it at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from qigheal.alerts.child import SendFailed
from qigheal.alerts.keeping import Keeper
from qigheal.alerts.records import Alert, AlertSettings
from qigheal.alerts.sinks import Sink

log = logging.getLogger("qigheal.alerts")


class Courier:
    """Owns the thread of one sink. `name` is the sink's, made unique."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        keeper: Keeper,
        settings: AlertSettings,
        clock: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self.name = name
        self._sink = sink
        self._keeper = keeper
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.idle = threading.Event()
        self.idle.set()

    def wake(self) -> None:
        """Have the thread take what waits; starts it where there is none. Never waits."""
        with self._lock:
            if self._stop.is_set() or self._thread is not None or self._keeper.first(self.name) is None:
                return
            self.idle.clear()
            thread = threading.Thread(target=self._run, name=f"qigheal-alert-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is going down
                self.idle.set()
                log.warning("alerts to %s wait: %s", self.name, error)
                return
            self._thread = thread

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:  # so that what comes now is seen by this thread or wakes another
                    alert = self._keeper.first(self.name)
                    if alert is None:
                        self._thread = None
                        self.idle.set()
                        return
                self._take(alert)
        except Exception:
            log.exception("alerts to %s stop until the next one; this is a mistake in qigheal", self.name)
        with self._lock:
            self._thread = None
            self.idle.set()

    def _take(self, alert: Alert) -> None:
        """Try until it is delivered, refused for good, too old, or dropped from a full queue."""
        tries = 0
        while not self._stop.is_set():
            failed = self._attempt(alert)
            if self._stop.is_set() and failed is not None:
                return  # it stands in the file, for the next start
            if failed is None:
                self._keeper.done(self.name, alert, delivered=True)
                return
            if not failed.again or self._clock() - alert.at > self._settings.give_up_after_s:
                log.warning("an alert could not be delivered to %s and is given up: %s", self.name, failed)
                self._keeper.done(self.name, alert, delivered=False)
                return
            log.log(
                logging.WARNING if tries == 0 else logging.INFO,
                "an alert could not be delivered to %s and is tried again: %s",
                self.name,
                failed,
            )
            self._stop.wait(self._pause(tries, failed.after))
            tries += 1
            first = self._keeper.first(self.name)
            if first is None or first.key != alert.key:
                return

    def _attempt(self, alert: Alert) -> SendFailed | None:
        try:
            self._sink.send(alert, self._settings.deadline_s, self._stop)
        except SendFailed as failed:
            return failed
        except Exception as error:  # a sink of others; its words may quote an address
            return SendFailed(f"the sink raised {type(error).__name__}")
        return None

    def _pause(self, tries: int, after: float | None) -> float:
        """Seconds: doubled each time, half of it by lot, and no less than the server asked for."""
        full = min(self._settings.retry_most_s, self._settings.retry_first_s * 2.0 ** min(tries, 60))
        lot = int.from_bytes(os.urandom(4)) / 2**32  # the module random is not for a process that serves
        return max(after or 0.0, full * (0.5 + 0.5 * lot))
