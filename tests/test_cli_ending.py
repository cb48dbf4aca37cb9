"""How a command ends by a signal: unwound, with the shell's exit code, wherever the signal finds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

BEGIN = """
import os, signal, sys, time
from qigheal.cli import ending
ending.on_signals()

def told():
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):  # by now Python has called the handler, in here
        pass

"""

PLACES = {
    "the open": "told()",
    "__del__": "class Kept:\n    def __del__(self):\n        told()\nkept = Kept(); del kept",
    "a weak reference": "import weakref\nclass Kept: pass\n"
    "kept = Kept(); ref = weakref.ref(kept, lambda _: told()); del kept",
    "a generator thrown away": "def each():\n    try:\n        yield 1\n    finally:\n        told()\nnext(each())",
    "__del__, and once more there": "class Kept:\n    def __del__(self):\n        told()\n"
    "class Slow:\n    def __del__(self):\n        time.sleep(0.1)\n"
    "kept, slow = Kept(), Slow(); del kept; del slow",
}


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_it_wherever_it_is(place: str, name: str, code: int) -> None:
    body = textwrap.indent(PLACES[place] + "\ntime.sleep(60)\n", "    ")
    script = f"{BEGIN.format(name=name)}try:\n{body}finally:\n    print('unwound')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "unwound\n", "")
