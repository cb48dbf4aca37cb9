"""The process that heals, of which there is one for all workers of a store: who starts it, and when.

Each worker looks now and then; `qigheal.healerchild` says how it is started. It lowers its own priority. Nothing is
started while another process holds the lock, such as a sidecar. No room of healing is imported here, for this runs in
the process that serves.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from pathlib import Path

from qigcore.regular import open_regular
from qigheal import healerchild
from qigheal.healerchild import LOG, STEADY_S, Pauses, taken

log = logging.getLogger("qigheal")

MOST_LOG_BYTES = 1_000_000


class Healer:
    """Looks now and then whether a healer works for `store`, and starts one for `host` if none does.

    every_s: seconds between its passes; also how long one that ended is not started again, and twice as long each
        time, up to an hour, while it ends at once.
    command: what is run, for tests; by default `python -m qigheal heal`.

    Attributes: note (why there is none of this process's making, or why the last one ended; "" when all is well).
    """

    def __init__(
        self, store: Path, host: Path, every_s: float, *, command: tuple[str, ...] | None = None
    ) -> None:
        self.note = ""
        self._store = store
        self._command = command or healerchild.command(host, store, f"{every_s:g}s")
        self._child: subprocess.Popen[bytes] | None = None
        self._pauses = Pauses(every_s)
        self._log_begin = 0
        self._next_read = float("-inf")
        self._not_before = float("-inf")

    def look(self) -> None:
        """Never raises: a service without a healer serves on."""
        child = self._child
        if child is not None:
            if child.poll() is None:
                if self._pauses.steady() and time.monotonic() >= self._next_read:
                    self._next_read = time.monotonic() + STEADY_S
                    why = healerchild.complaint(self._store / LOG, self._log_begin)
                    self._tell(f"the healer cannot work: {why}" if why else "")
                return
            self._child = None
            why = healerchild.reason(self._store / LOG, self._log_begin)
            said = f": {why}" if why else ""
            self._put_off(f"the healer ended with {child.returncode}{said}; see {self._store / LOG}")
        if time.monotonic() < self._not_before:
            return
        try:
            self._start()
        except OSError as error:
            self._pauses.began()
            self._put_off(f"the healer could not be started: {error}")

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
            writable = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            with os.fdopen(open_regular(self._store / LOG, writable), "ab") as said:
                if said.tell() > MOST_LOG_BYTES:
                    said.truncate(0)
                self._log_begin = said.seek(0, os.SEEK_END)
                self._child = healerchild.begin(self._command, lock, output=said)
            self._next_read = float("-inf")
            self._pauses.began()  # the note stays until it is seen that this one lives
        finally:
            os.close(lock)  # the child's holds on

    def _put_off(self, note: str) -> None:
        self._not_before = time.monotonic() + self._pauses.ended()
        self._tell(note)

    def _tell(self, note: str) -> None:
        """The same note is logged once, however often it is tried in vain."""
        if note and note != self.note:
            log.warning("%s", note)
        self.note = note
