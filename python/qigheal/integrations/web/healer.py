"""The process that heals, of which there is one for all workers of a store: who starts it, and when.

Whoever gets the lock of `STORE/healer.lock` starts `qigheal heal HOST --every` and hands the lock down: it lasts as
long as that process, which lowers its own priority. Nothing is started while another process holds it, such as a
sidecar. No room of healing is imported here, for this runs in the process that serves.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import threading
import time
from pathlib import Path

from qigheal.inherited import COMMAND, for_healer

log = logging.getLogger("qigheal")

LOCK = "healer.lock"
LOG = "healer.log"
HELD = "QIGHEAL_HEALER_LOCK"
"""Tells the child the number of the descriptor that holds the lock."""

MOST_LOG_BYTES = 1_000_000


class Healer:
    """Looks now and then whether a healer works for `store`, and starts one for `host` if none does.

    every_s: seconds between its passes; also how long one that failed is not started again.
    command: what is run, for tests; by default `python -m qigheal heal`.

    Attributes: note (why there is none of this process's making, or why the last one ended; "" when all is well).
    """

    def __init__(
        self, store: Path, host: Path, every_s: float, *, command: tuple[str, ...] | None = None
    ) -> None:
        self.note = ""
        self._store = store
        self._every_s = every_s
        self._command = command or (
            *(*COMMAND, "heal", str(host)),
            *("--store", str(store), "--every", f"{every_s:g}s"),
        )
        self._child: subprocess.Popen[bytes] | None = None
        self._not_before = float("-inf")

    def look(self) -> None:
        """Never raises: a service without a healer serves on."""
        child = self._child
        if child is not None:
            if child.poll() is None:
                return
            self._child = None
            self._not_before = time.monotonic() + self._every_s
            self._say(f"the healer ended with {child.returncode}; what it said stands in {self._store / LOG}")
        if time.monotonic() < self._not_before:
            return
        try:
            self._start()
        except OSError as error:
            self._not_before = time.monotonic() + self._every_s
            self._say(f"the healer could not be started: {error}")

    def close(self) -> None:
        """Have the child end; it winds up what is under way, and is not waited for."""
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            child.terminate()
            threading.Thread(target=child.wait, name="qigheal-reaper", daemon=True).start()

    def after_fork(self) -> None:
        """The child process of a worker is none of its own children's parent."""
        child, self._child = self._child, None
        if child is not None:
            child.returncode = 0  # else Popen warns of a process that still runs

    def _start(self) -> None:
        if (lock := taken(self._store)) is None:  # a healer works for this store already
            self.note = ""
            return
        try:
            path = self._store / LOG
            full = path.exists() and path.stat().st_size > MOST_LOG_BYTES
            with open(path, "wb" if full else "ab") as said:
                self._child = subprocess.Popen(
                    (*self._command, "--with-parent", str(os.getpid())),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    pass_fds=(lock,),
                    env={**for_healer(), HELD: str(lock)},
                )
            self.note = ""
        finally:
            os.close(lock)  # the child's holds on

    def _say(self, note: str) -> None:
        if note != self.note:
            log.warning("%s", note)
        self.note = note


def taken(store: Path) -> int | None:
    """The healer's lock of a store, as a descriptor to hand down and then close; None while another holds it."""
    lock = os.open(store / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock
