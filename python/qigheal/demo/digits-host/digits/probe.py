"""Measures the model offline, on recorded requests.

For each line on standard input, `{"batch": 7, "seed": 123}`, one line on standard output: what the
service would report for that batch of requests. Ends when the input ends.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from digits.data import load
from digits.model import configured


def run(questions: Iterable[str], answers: TextIO) -> None:
    """Answer questions in turn, each before the next one is read."""
    recorded = load()
    model = configured(recorded)
    for line in questions:
        question = json.loads(line)
        images = recorded.requests[recorded.draw(question["seed"], question["batch"])]
        started = time.perf_counter()
        response = model.respond(images)
        answer = {
            "batch": question["batch"],
            "phi": response.phi,
            "kappa_eff": response.kappa,
            "basin_coords": response.basin.tolist(),
            "error_rate": 0.0,
            "avg_latency_ms": 1000 * (time.perf_counter() - started),
            "output_digest": hashlib.sha256(response.labels.tobytes()).hexdigest(),
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    run(sys.stdin, sys.stdout)
