"""What a service that uses numpy already pays for qigheal: time to import it, and memory.

    python -m benchmarks.footprint [--json] [--runs N]

Each figure is taken in a fresh interpreter whose modules are compiled and in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

IMPORT = """
import time
import numpy
start = time.perf_counter_ns()
from qigheal import GeometricHealthMonitor
print((time.perf_counter_ns() - start) / 1e6)
"""

HEAVY = """
import time
import numpy
start = time.perf_counter_ns()
import {name}
print((time.perf_counter_ns() - start) / 1e6)
"""

MEMORY = """
import numpy as np
import resource
def mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 1e6
basins = np.random.default_rng(0).dirichlet(np.full(64, 200.0), 1000)
before = mb()
from qigheal import GeometricHealthMonitor
{then}
print(mb() - before)
"""

FILLED = """
monitor = GeometricHealthMonitor(code_hash="")
for basin in basins:
    monitor.record(0.75, 64.0, basin, 0.0, 5.0, 100.0)
assert monitor.check_health().healthy
"""


def _ran(code: str) -> float:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a service has its modules compiled
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout)


def import_ms(runs: int = 5) -> float:
    """Milliseconds to import the monitor after numpy, the median of `runs`."""
    _ran(IMPORT)  # leaves compiled modules behind
    return statistics.median(_ran(IMPORT) for _ in range(runs))


def import_mb(runs: int = 3) -> float:
    """Megabytes of resident memory that the import adds, the median of `runs`."""
    return statistics.median(_ran(MEMORY.format(then="")) for _ in range(runs))


def monitor_mb(runs: int = 3) -> float:
    """The same of the import and a monitor that holds 1,000 snapshots and has judged them."""
    return statistics.median(_ran(MEMORY.format(then=FILLED)) for _ in range(runs))


def run(runs: int) -> dict[str, float | None]:
    """All figures; `prometheus_client_ms` stands beside, None where it is not installed."""
    try:
        peer = statistics.median(_ran(HEAVY.format(name="prometheus_client")) for _ in range(runs))
    except subprocess.CalledProcessError:
        peer = None
    return {
        "import_ms": import_ms(runs),
        "prometheus_client_ms": peer,
        "import_mb": import_mb(min(runs, 5)),
        "monitor_mb": monitor_mb(min(runs, 5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--runs", type=int, default=15, help="interpreters per figure (default 15)")
    asked = parser.parse_args()
    found = run(asked.runs)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name, figure in found.items():
        print(f"{name:24} {'absent' if figure is None else f'{figure:8.1f}'}")


if __name__ == "__main__":
    main()
