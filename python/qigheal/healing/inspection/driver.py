"""Runs a program as `python -m MODULE` or `python FILE` would, with an instrument beside it.

This text runs inside the sandbox, in the host's interpreter (Python 3.9 and later), never in qigheal's.
"""

import json
import os
import runpy
import sys
from typing import Any

LONGEST = 500_000
"""Characters of evidence that are passed on; an instrument keeps below it by naming the most important."""


def main(text: str) -> None:
    task, dumps, write = json.loads(text), json.dumps, os.write  # before the program can replace them
    # A descriptor of its own: the program may close or redirect its standard output.
    out = os.dup(1)
    root = os.getcwd()
    scope: dict[str, Any] = {"__name__": "instrument"}
    exec(compile(task["instrument"], "<instrument>", "exec"), scope)  # noqa: S102
    sys.argv = [task["program"], *sys.argv[1:]]
    if task["how"] == "path":
        sys.path[0] = os.path.dirname(os.path.abspath(task["program"]))
    report = scope["start"](root, task["options"])
    try:
        if task["how"] == "module":
            runpy.run_module(task["program"], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(task["program"], run_name="__main__")
    finally:
        evidence = dumps(report())
        if len(evidence) <= LONGEST:
            line = ("\nqigheal-evidence " + evidence + "\n").encode()
            while line:
                line = line[write(out, line) :]
