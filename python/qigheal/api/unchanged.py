"""What was worked out from files that have not changed since is not worked out again.

Kept per process. The files are told by their names, sizes and times of change, which costs one listing of the
store; nothing here knows what is in them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")
Mark = frozenset[tuple[str, int, int]]

RECORDED: Final = (".qigh", ".journal", "baseline.json", "monitor.json")
JUDGED: Final = ("ledger.db", "ledger.db-wal")
BRAKED: Final = (*JUDGED, "healer.json")
MOST: Final = 32
"""Answers that are kept, the newest: a client may ask for as many windows as there are numbers."""


class Unchanged:
    """Answers of one store, by a key of the caller's."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._kept: dict[Hashable, tuple[Mark | None, Any]] = {}
        self._failed: dict[str, tuple[float, Exception]] = {}
        self._locks: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)

    def mark(self, endings: tuple[str, ...]) -> Mark | None:
        """The state of the files whose names end so; None where the folder cannot be listed."""
        found = []
        try:
            with os.scandir(self._store) as entries:
                for entry in entries:
                    if entry.name.endswith(endings):
                        try:
                            known = entry.stat()
                        except FileNotFoundError:
                            continue
                        if not known.st_size and entry.name.endswith("-wal"):
                            continue  # reading alone makes it
                        found.append((entry.name, known.st_size, known.st_mtime_ns))
        except OSError:
            return None
        return frozenset(found)

    def get(self, key: tuple[str, Hashable], endings: tuple[str, ...], make: Callable[[], T]) -> T:
        """What `make` gave when the files were as they are. Requests that come meanwhile wait for it.

        `make` may read files that change while it reads: the mark was taken before, so the next asks anew. What it
        raises is raised for those who waited for it, too, and not kept for others.
        """
        came = time.monotonic()
        with self._locks[key[0]]:
            at, failure = self._failed.pop(key[0], (came, None))
            if failure is not None and at > came:
                self._failed[key[0]] = (at, failure)
                raise failure.with_traceback(None)
            mark = self.mark(endings)
            known = self._kept.get(key)
            if known is not None and mark is not None and known[0] == mark:
                return cast(T, known[1])
            try:
                made = make()
            except Exception as error:
                self._failed[key[0]] = (time.monotonic(), error)
                raise
            self._kept.pop(key, None)
            while len(self._kept) >= MOST:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[key] = (mark, made)
            return made
