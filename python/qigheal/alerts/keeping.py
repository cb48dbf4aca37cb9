"""Which process alerts for a store, and what was said: one lock and one file in the store.

    alerts.lock   flock-held by the process that alerts; the kernel lets go of it when the process ends
    alerts.json   `Said`, replaced whole

Only the holder of the lock writes the file. What is to be sent stands in it before it is sent, and is taken out
after: a process that is killed between sends it once more, and never not at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from qigcore.regular import locked, read_regular
from qigheal.alerts.records import Alert, Said

log = logging.getLogger("qigheal.alerts")

LOCK: Final = "alerts.lock"
STATE: Final = "alerts.json"
MOST_BYTES: Final = 16_000_000


class Keeper:
    """The lock and the file of one store. Safe for several threads; a child of a fork holds nothing.

    Where the file cannot be written, as on a full disk, what was said is kept in memory, and a restart may repeat
    some of it. `elected` raises OSError where the lock cannot be made.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.said = Said()
        self._handle: int | None = None
        self._unsaved = False
        self._lock = threading.RLock()

    @property
    def held(self) -> bool:
        return self._handle is not None

    def elected(self) -> bool:
        """Whether this process alerts: it holds the lock, or gets it now. Then `said` is what the file says."""
        with self._lock:
            if self._handle is not None:
                if self._same(self._handle):
                    return True
                self.release()  # the store was taken away, or is another one now
            if not self.store.is_dir():
                return False
            handle = locked(self.store / LOCK)
            if handle is None:
                return False
            self._handle = handle
            self.said = self._load()
            return True

    def change(self, made: Callable[[Said], Said]) -> None:
        """Replace what was said, in memory and in the file; does nothing where the lock is not held."""
        with self._lock:
            if self._handle is None:
                return
            before, self.said = self.said, made(self.said)
            if self.said == before and not self._unsaved:
                return
            try:
                self._save(self.said)
            except OSError as error:
                if not self._unsaved:
                    log.warning(
                        "%s: what was said cannot be kept: %s", self.store / STATE, error.strerror or error
                    )
                self._unsaved = True
            else:
                self._unsaved = False

    def first(self, sink: str) -> Alert | None:
        """The alert that is next for a sink."""
        with self._lock:
            waiting = self.said.outbox.get(sink, ()) if self._handle is not None else ()
            if not waiting:
                return None
            return replace(waiting[0], undelivered=self.said.undelivered.get(sink, 0))

    def done(self, sink: str, alert: Alert, *, delivered: bool) -> None:
        """Take an alert out: it was delivered, or is given up and counted."""

        def taken(said: Said) -> Said:
            left = tuple(each for each in said.outbox.get(sink, ()) if each.key != alert.key)
            lost = said.undelivered.get(sink, 0)
            lost = max(0, lost - alert.undelivered) if delivered else lost + 1
            return replace(
                said,
                outbox={**said.outbox, sink: left},
                undelivered={**said.undelivered, sink: lost},
            )

        self.change(taken)

    def release(self, timeout_s: float = -1.0) -> None:
        """Let another process alert. Where the disk does not answer in time, that is when this process ends."""
        if not self._lock.acquire(timeout=timeout_s):
            return
        try:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
        finally:
            self._lock.release()

    def after_fork(self) -> None:
        """In a child: the lock is the parent's, and must not outlive it here."""
        self._lock = threading.RLock()
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _same(self, handle: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(handle), os.stat(self.store / LOCK))
        return False

    def _give(self, handle: int) -> None:
        """What root makes here is its owner's: a service must be able to take over."""
        if os.geteuid() == 0:
            owner = self.store.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)

    def _load(self) -> Said:
        path = self.store / STATE
        try:
            said = msgspec.json.decode(read_regular(path, MOST_BYTES), type=Said)
        except FileNotFoundError:
            return Said()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s: what was said before cannot be read (%s); alerts begin anew", path, error)
            return Said()
        if said.version != 1:
            log.warning("%s: written by another version of qigheal; alerts begin anew", path)
            return Said()
        return said

    def _save(self, said: Said) -> None:
        scratch = self.store / f".{STATE}.{os.getpid()}.{os.urandom(4).hex()}"
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                self._give(handle)
                content = memoryview(msgspec.json.encode(said))
                while content:
                    content = content[os.write(handle, content) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(scratch, self.store / STATE)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise
