"""How long a person waits for the first line of a command, beside what its libraries take to be loaded.

    python -m benchmarks.startup [--json] [--runs N]

Each figure is taken in a fresh interpreter whose modules are compiled and in the page cache, the commands and
the peer in turn; a ratio is the median of each round's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from qigheal import GeometricHealthMonitor

MAIN = "from qigheal.cli import main; main()"
PEER = "import numpy, typer, rich; print()"
COMMANDS = {
    "status": ("status",),
    "status_json": ("status", "--json"),
    "trends": ("trends",),
    "help": ("--help",),
}


def filled(store: Path) -> Path:
    """A store of 1,000 snapshots with what was learned from its first."""
    basins = np.random.default_rng(0).dirichlet(np.full(64, 200.0), 1000)
    with GeometricHealthMonitor(history=str(store), code_hash="") as monitor:
        for basin in basins:
            monitor.record(0.75, 64.0, basin, 0.0, 5.0, 100.0)
        monitor.check_health()
    return store


def first_line_ms(code: str, *arguments: str) -> float:
    """Milliseconds from the start of an interpreter to its first line on standard output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its modules compiled
    started = time.perf_counter_ns()
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        taken = (time.perf_counter_ns() - started) / 1e6
        child.stdout.read()
    assert line
    return taken


def run(store: Path, runs: int, names: tuple[str, ...] = tuple(COMMANDS)) -> dict[str, float]:
    """Milliseconds of each command and of the peer, medians; and the ratio of each to the peer."""
    rounds: dict[str, list[float]] = {name: [] for name in ("peer", *names)}
    for _ in range(runs + 1):
        rounds["peer"].append(first_line_ms(PEER))
        for name in names:
            place = () if name == "help" else ("--store", str(store))
            rounds[name].append(first_line_ms(MAIN, *COMMANDS[name], *place))
    found = {f"{name}_ms": statistics.median(taken[1:]) for name, taken in rounds.items()}
    for name in names:
        pairs = zip(rounds[name][1:], rounds["peer"][1:], strict=True)
        found[f"{name}_ratio"] = statistics.median(taken / peer for taken, peer in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--runs", type=int, default=15, help="rounds (default 15)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(filled(Path(folder) / "store"), asked.runs)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name, figure in found.items():
        print(f"{name:20} {figure:8.2f}")


if __name__ == "__main__":
    main()
