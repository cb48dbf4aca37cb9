"""Runs `sending` in a process of its own, and ends it when its time is up or nobody waits for it any more.

What hangs for ever in a thread, such as the look-up of a name, cannot be ended; a process can. The order goes by a
pipe: other users see command lines and environments.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from qigheal.errors import QighealError

PROGRAM: Final = Path(__file__).with_name("sending.py")
NAP_S: Final = 0.1
SLACK_S: Final = 2.0
"""Beyond the deadline, for the program to start and to say what went wrong."""


class SendFailed(QighealError):
    """An alert did not reach its place. again: whether another attempt may do; after: seconds to wait for it."""

    def __init__(self, why: str, *, again: bool = True, after: float | None = None) -> None:
        self.again = again
        self.after = after
        super().__init__(why)


class _Answer(msgspec.Struct):
    sent: bool
    again: bool
    after: float | None
    why: str


def run(order: dict[str, Any], deadline_s: float, stop: threading.Event) -> str:
    """Send, and return what is to be known of it besides, mostly "". Raises SendFailed, also when stopped."""
    if not sys.executable:
        raise SendFailed("this process knows no Python interpreter that could send it")
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
    except OSError as error:
        raise SendFailed(f"no process could be started for it: {error.strerror}") from None
    given = msgspec.json.encode({**order, "timeout_s": deadline_s})
    try:
        said = _talk(process, given, time.monotonic() + deadline_s + SLACK_S, stop)
    finally:
        process.kill()
        with process:  # closes the pipes and waits
            pass
    try:
        answer = msgspec.json.decode(said, type=_Answer)
    except msgspec.MsgspecError:
        raise SendFailed("the sending process ended without an answer") from None
    if not answer.sent:
        raise SendFailed(answer.why, again=answer.again, after=answer.after)
    return answer.why


def _talk(process: subprocess.Popen[bytes], given: bytes, until: float, stop: threading.Event) -> bytes:
    first: bytes | None = given
    while True:
        if stop.is_set():
            raise SendFailed("stopped while it was being sent")
        with contextlib.suppress(subprocess.TimeoutExpired):
            said, _ = process.communicate(first, timeout=NAP_S)
            return said
        first = None  # communicate goes on with what it was given first
        if time.monotonic() > until:
            raise SendFailed("no answer in time")
