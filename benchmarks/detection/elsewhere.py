"""frouros, which pins other versions of numpy and SciPy: it runs in a Python of its own, beside this process.

Run as a script by that Python, this file answers one JSON line for each on its standard input; arrays go by
.npy files in a folder that both know, and nothing of this repository is imported there. `beside.py` is the
other end.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import numpy as np


def page_hinkley(series: np.ndarray) -> list[int]:
    """The alarms of PageHinkley as it comes; it is reset after each."""
    from frouros.detectors.concept_drift import PageHinkley

    detector, alarms = PageHinkley(), []
    for at, value in enumerate(series.tolist()):
        detector.update(value=value)
        if detector.drift:
            alarms.append(at)
            detector.reset()
    return alarms


def discrepancy(reference: np.ndarray, window: int) -> Any:
    """A streaming MMD with a Gaussian kernel as wide as the median distance in the reference sample."""
    from frouros.detectors.data_drift import MMDStreaming
    from frouros.utils.kernels import rbf_kernel

    half = len(reference) // 2
    width = float(np.median(np.linalg.norm(reference[:half, None] - reference[None, half:], axis=2)))
    made = MMDStreaming(window_size=window, kernel=partial(rbf_kernel, sigma=width))
    made.fit(X=reference)
    return made


def trace(detector: Any, rows: np.ndarray) -> np.ndarray:
    """The statistic after each row, NaN while the window has never been full."""
    found = np.full(len(rows), np.nan)
    for at, row in enumerate(rows):
        result, _ = detector.update(value=row)
        if result is not None:
            found[at] = result.distance
    return found


def serve() -> None:
    """Answer until the input ends."""
    known: list[Any] = []
    for line in sys.stdin:
        asked = json.loads(line)
        values = np.load(asked["file"])
        answer: object = None
        if asked["do"] == "page_hinkley":
            answer = page_hinkley(values)
        elif asked["do"] == "learn":
            known.append(discrepancy(values, asked["window"]))
            answer = len(known) - 1
        else:
            np.save(asked["file"], trace(known[asked["which"]], values))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
