"""How often something may be done, counted by all workers together in one small file of the store.

The file is held for microseconds under a lock of the kernel, which a worker that dies lets go of. Where it cannot
be had (a read-only store, no store yet, a lock that is stuck), this process counts by itself: a limit
that is looser for a while is better than routes that fail. So it does where the count cannot be written, as
on a full disk.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = "web-limits.json"
WINDOW_S: Final = 60.0
MOST_KEYS: Final = 1000
"""Client addresses that are remembered; the longest quiet ones are forgotten first."""

MOST_BYTES: Final = 1_000_000
LOCK_S: Final = 0.2

Times = dict[str, list[float]]


class Limits:
    """Counts of the last minute, by key. clock: seconds that all processes of this machine share."""

    def __init__(self, store: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = store / FILE
        self._clock = clock
        self._own: Times = {}
        self._lock = threading.Lock()

    def wait(self, key: str, most: int) -> float:
        """Seconds until `key` may be noted again without passing `most` a minute; 0: now."""
        if most <= 0:
            return WINDOW_S
        if not self._own and not self._path.exists():
            return 0.0
        with self._opened() as times:
            return self._left(times, key, most)

    def note(self, key: str, most: int | None = None) -> float:
        """Count `key` once, unless that would pass `most` a minute: then gives the seconds to wait, else 0."""
        with self._opened() as times:
            if most is not None and (left := self._left(times, key, most)) > 0:
                return left
            times.setdefault(key, []).append(self._clock())
            if most is None:  # guesses beyond those that count are all alike
                del times[key][:-100]
            return 0.0

    def _left(self, times: Times, key: str, most: int) -> float:
        known = times.get(key, [])
        return (
            max(0.0, known[-most] + WINDOW_S - self._clock()) if 0 < most <= len(known) else float(most <= 0)
        )

    @contextmanager
    def _opened(self) -> Iterator[Times]:
        with self._lock:
            descriptor = self._locked()
            if descriptor is None:
                yield self._tidy(self._own)
                return
            try:
                before = self._read(descriptor)
                times = self._tidy(_both(_decoded(before), self._own))
                yield times
                data = msgspec.json.encode(times)
                kept = data == before or _written(descriptor, data, before)
                self._own = {} if kept else times
            finally:
                os.close(descriptor)

    def _locked(self) -> int | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return None
        until = time.monotonic() + LOCK_S
        while True:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                return descriptor
            except OSError:
                if time.monotonic() > until:
                    os.close(descriptor)
                    return None
                time.sleep(0.002)

    @staticmethod
    def _read(descriptor: int) -> bytes:
        try:
            return os.pread(descriptor, MOST_BYTES, 0)
        except OSError:
            return b""

    def _tidy(self, times: Times) -> Times:
        """Without what is over a minute old, or from before a reboot, when the clock began anew."""
        now = self._clock()
        kept = {key: [t for t in known if now - WINDOW_S < t <= now] for key, known in times.items()}
        newest = sorted((known[-1], key) for key, known in kept.items() if known)[-MOST_KEYS:]
        times.clear()
        times.update({key: kept[key] for _, key in newest})
        return times


def _written(descriptor: int, data: bytes, before: bytes) -> bool:
    """Whether all of `data` is in the file now; else `before` is there still, whose room is taken already."""
    for content in (data, before):
        with suppress(OSError):
            if os.pwrite(descriptor, content, 0) == len(content):
                os.ftruncate(descriptor, len(content))
                return content is data
    return False


def _both(counted: Times, own: Times) -> Times:
    """What either counted; what both hold was counted once."""
    return {
        key: sorted((Counter(counted.get(key, ())) | Counter(own.get(key, ()))).elements())
        for key in counted.keys() | own.keys()
    }


def _decoded(data: bytes) -> Times:
    try:
        return msgspec.json.decode(data, type=Times)
    except (ValueError, RecursionError):
        return {}  # new, or cut short by a power loss: counting begins anew
