"""Detectors of frouros, which run in another Python (`elsewhere`)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.peers import SHOWN, Candidate, Scalar
from benchmarks.detection.streams import Floats, Rows
from qigcore import geometry

WINDOW = 20
REFERENCE = 200
"""Learned rows that MMD compares with: it takes 0.1 ms a row with so many, in proportion with more."""

CHUNK = 200  # rows asked for at once: a change that is seen soon needs no more


class Beside:
    """The other Python. It ends when this object goes."""

    def __init__(self, python: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="frouros-")
        self._file = Path(self._folder.name) / "values.npy"
        self._child = subprocess.Popen(
            [python, "-I", str(Path(__file__).with_name("elsewhere.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Not weakref.finalize nor atexit: processes of a pool end without running them.
        Finalize(self, self._child.kill, exitpriority=2)
        Finalize(self, self._folder.cleanup, exitpriority=1)

    def ask(self, values: Floats, **question: Any) -> Any:
        np.save(self._file, values)
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("the Python of frouros was started without pipes")
        self._child.stdin.write(json.dumps({"file": str(self._file), **question}) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("the Python of frouros ended; what it said is on the standard error")
        return json.loads(answer)

    def ask_array(self, values: Floats, **question: Any) -> Floats:
        self.ask(values, **question)
        found: Floats = np.load(self._file)
        return found


@cache
def beside(python: str) -> Beside:
    """One for each process of ours. Raises ImportError where that Python has no frouros."""
    tried = subprocess.run(
        [python, "-I", "-c", "import frouros"], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        raise ImportError(f"{Path(python).name}: {tried.stderr.strip().splitlines()[-1]}")
    return Beside(python)


class PageHinkley:
    """On the drift, shown the learned rows first. It is not shown them again after an alarm."""

    def __init__(self, python: str, learned: Rows) -> None:
        self._python = beside(python)
        self._scalar = Scalar(learned, standardised=False)
        self._learned = self._scalar.of(learned[-SHOWN:])

    def alarms(self, rows: Rows) -> Iterator[int]:
        series = np.concatenate([self._learned, self._scalar.of(rows)])
        for at in self._python.ask(series, do="page_hinkley"):
            if at >= len(self._learned):
                yield at - len(self._learned)


class Discrepancy:
    """MMD of the amplitudes of the last rows against learned ones; it has no limit of its own."""

    def __init__(self, python: str, learned: Rows, limit: float = np.inf) -> None:
        self._python = beside(python)
        self._limit = limit
        reference = geometry.amplitudes(learned.basins[-REFERENCE:])
        self._which = self._python.ask(reference, do="learn", window=WINDOW)

    def statistic(self, rows: Rows) -> Floats:
        """Of each row and those before it, shape [n]; NaN where they do not fill the window."""
        found = self._python.ask_array(geometry.amplitudes(rows.basins), do="trace", which=self._which)
        found[: WINDOW - 1] = np.nan
        return found

    def alarms(self, rows: Rows) -> Iterator[int]:
        empty = 0  # the window holds nothing from before this row
        for at in range(0, len(rows), CHUNK):
            first = max(0, at - WINDOW + 1)
            statistic = self.statistic(rows[first : at + CHUNK])[at - first :]
            for alarm in exceedances(statistic, self._limit, max(0, empty + WINDOW - 1 - at)):
                yield at + alarm
                empty = at + alarm + 1


def exceedances(statistic: Floats, limit: float, at: int = WINDOW - 1) -> Iterator[int]:
    """Alarms from row `at` on; after each, the window is filled anew."""
    while at < len(statistic):
        over = statistic[at:] > limit
        if not over.any():
            return
        at += int(over.argmax())
        yield at
        at += WINDOW


class FromFrouros:
    """Makes one of the two detectors in the Python at `python`; can be sent to another process."""

    def __init__(self, kind: type, python: str) -> None:
        self.kind = kind
        self.python = python

    def __call__(self, learned: Rows, *knob: float) -> Any:
        if not self.python:
            raise ImportError("name its Python with --frouros-python")
        return self.kind(self.python, learned, *knob)


def candidates(python: str) -> tuple[Candidate, ...]:
    """python: the path of one that has frouros; empty for none, which the report then says."""
    return (
        Candidate(
            "frouros PageHinkley", FromFrouros(PageHinkley, python), 60.0, note="default, on the drift"
        ),
        Candidate(
            "frouros MMD, tuned",
            FromFrouros(Discrepancy, python),
            150.0,
            (1e-4, 1.0),
            note=f"amplitudes, window {WINDOW}, {REFERENCE} reference rows, limit by bisection",
        ),
    )
