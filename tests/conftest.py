"""Hypothesis draws the same examples in every run and leaves no folder behind; signals are as in a terminal."""

import signal
import threading

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")


def _stay(number: int, frame: object) -> None:
    """What a run that is to outlive its terminal does about a signal."""


# `nohup make test &` ignores both, and children inherit that: those that tests end by one would never
# end. A handler of one's own is not inherited.
if threading.current_thread() is threading.main_thread():
    for _ignored in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(_ignored) is signal.SIG_IGN:
            signal.signal(_ignored, _stay)
