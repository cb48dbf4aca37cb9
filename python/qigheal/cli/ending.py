"""How a command ends when it is told to: SIGTERM and SIGHUP unwind it, as Ctrl-C does, wherever it is."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Final

OF_SIGNAL: Final = 128  # the shell's exit codes of a process that a signal ended begin here
SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
AGAIN_S: Final = 0.01


class Ended(SystemExit):
    """A signal told the process to end."""


def on_signals() -> None:
    """Have SIGTERM and SIGHUP raise SystemExit in the main thread, with 128 and the signal's number.

    What is under way is wound up, and no process or folder of it stays behind. A SIGHUP that is ignored, as
    under nohup, stays so. An exception that is raised while the collector is at work (in `__del__`, in a callback
    of a weak reference, in a generator that is thrown away) goes nowhere; then it is raised once more
    a moment later. Takes SIGALRM for that. To be called once, in the main thread.
    """
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    before = sys.unraisablehook

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if not isinstance(error, Ended):
            before(unraisable)
            return
        code = error.code

        def again(number: int, frame: FrameType | None) -> None:
            raise Ended(code)

        # Not here: this hook is called where nothing can be raised. A signal of its own comes after.
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    sys.unraisablehook = lost


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(OF_SIGNAL + number)
