"""The healing loop as a child of the process that serves: its lock, its command, and when it is started again.

Whoever gets the lock of `STORE/healer.lock` starts the loop and hands the lock down, which lasts as long as the
child. No room of healing is imported here, for this runs in the process that serves.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from qigcore.regular import locked, open_regular
from qigheal.inherited import COMMAND, for_healer

LOCK: Final = "healer.lock"
HELD: Final = "QIGHEAL_HEALER_LOCK"
"""Tells the child the number of the descriptor that holds the lock."""

LOG: Final = "healer.log"
"""What a loop writes that a service started, in the store."""

SAID_BY: Final = "qigheal: "
"""How the command line begins what went wrong."""

STEADY_S: Final = 60.0
"""A loop that lived for so long could start; one that ended sooner could not, and is tried ever more seldom."""

LONGEST_S: Final = 3600.0
MOST_REASON: Final = 500


def command(host: Path, store: Path, every: str) -> tuple[str, ...]:
    """The loop's command line; every: a length of time as `heal --every` takes it."""
    return (*COMMAND, "heal", str(host), "--store", str(store), "--every", every)


def taken(store: Path) -> int | None:
    """The healer's lock of a store, as a descriptor to hand down and then close; None while another holds it.

    Raises OSError where it cannot be opened, or is no regular file.
    """
    return locked(store / LOCK)


def begin(
    argv: Sequence[str], lock: int, *, output: IO[bytes] | None = None, own_session: bool = False
) -> subprocess.Popen[bytes]:
    """Start it with the lock, without this process's secrets; it ends when this process has ended.

    lock: what `taken` gave; the caller closes it, the child's holds on. output: where it writes, else where this
    process does. own_session: a signal to this process's group is not meant for it.
    """
    return subprocess.Popen(
        (*argv, "--with-parent", str(os.getpid())),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(lock,),
        env={**for_healer(), HELD: str(lock)},
        start_new_session=own_session,
    )


class Pauses:
    """How long a loop that ended is not started again: `first_s`, and twice as long each time while it cannot start.

    Never longer than an hour, unless `first_s` is. clock: seconds that only go forward.
    """

    def __init__(self, first_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.first_s = first_s
        self._clock = clock
        self._begun = clock()
        self._failures = 0

    def began(self) -> None:
        self._begun = self._clock()

    def steady(self) -> bool:
        """Whether the one that began last has lived for long enough to be one that could start."""
        return self._clock() - self._begun >= STEADY_S

    def ended(self) -> float:
        """Seconds to wait now that it has ended, or could not be started."""
        self._failures = 1 if self.steady() else self._failures + 1
        longest = max(LONGEST_S, self.first_s)
        return min(longest, self.first_s * 2.0 ** min(self._failures - 1, 30))


def reason(log: Path, after: int) -> str:
    """The last line that a loop wrote to its log behind byte `after`, in one printable line; "" where there is none."""
    return _printable(_last_line(log, after).removeprefix(SAID_BY))


def complaint(log: Path, after: int = 0) -> str:
    """The last line of a log behind byte `after`, if it says what went wrong; else ""."""
    last = _last_line(log, after)
    return _printable(last.removeprefix(SAID_BY)) if last.startswith(SAID_BY) else ""


def _last_line(log: Path, after: int) -> str:
    try:
        with os.fdopen(open_regular(log, os.O_RDONLY), "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(after, end - 10_000))
            lines = file.read(10_000).decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MOST_REASON]
