"""Holds a history to the age and the size that its settings allow, so that a service fills no disk.

What is removed, and in what order, is `History.expire`'s to say. No thread is started here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from qigcore.history import History
from qigheal.settings import MonitorSettings

EVERY_S = 3600.0
"""Between two looks. A segment covers a day or 64 MiB, so that looking more often would find nothing to do."""

AGAIN_S = 60.0
"""After a look that failed: a folder that is not there yet, or a disk that was away, is no reason to wait an hour."""


class Keeper:
    """Looks when it is called for the first time, and then every hour; after a failure sooner. Never raises.

    Attributes: failures (looks that failed), failure (why the last one did; "" when it went well).
    """

    def __init__(
        self, history: History, settings: MonitorSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._history = history
        self._keep_s = None if settings.keep_days is None else 86_400.0 * settings.keep_days
        self._keep_bytes = None if settings.keep_mb is None else settings.keep_mb * 1e6
        self._clock = clock
        self._next = float("-inf")
        self.failures = 0
        self.failure = ""

    def __call__(self) -> None:
        now = self._clock()
        if now < self._next or (self._keep_s is None and self._keep_bytes is None):
            return
        self._next = now + EVERY_S
        try:
            self._history.expire(keep_s=self._keep_s, keep_bytes=self._keep_bytes)
            self.failure = ""
        except Exception as error:  # whatever it is, it is not the host's to handle
            self._next = now + AGAIN_S
            self.failures += 1
            self.failure = str(error) or type(error).__name__
