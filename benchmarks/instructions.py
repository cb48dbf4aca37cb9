"""Instructions of one call, counted by valgrind's callgrind: figures that a busy machine cannot blur.

    python -m benchmarks.instructions [--json] [--functions]

One process runs each piece of work n times and then 2n times; the difference over n is one call without
all that happens once. `os.getppid` marks where one count ends and the next begins: callgrind writes its
counts whenever libc's function of that name is entered. What the kernel does is not counted. Counts
depend on the interpreter's build and on the extensions' compiler; on one machine they repeat to a few
instructions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from qigcore import _recorder

CALLS = 2000
MARK = "getppid"

NOTHING = "nothing"

SCRIPT = """
import gc, json, os, sys
import numpy as np
from prometheus_client import CollectorRegistry, Gauge, Histogram
from benchmarks import workloads
from qigcore.geometry import distance
from qigheal import GeometricHealthMonitor

def works():
    basin, other = np.random.default_rng(0).dirichlet(np.full(64, 2.0), 2)
    numbers = basin.tolist()
    monitor = GeometricHealthMonitor(code_hash="")
    record, capture = monitor.record, monitor.capture
    state = {"phi": 0.75, "kappa_eff": 64.0, "basin_coords": basin, "avg_latency_ms": 5.0}
    gauge = Gauge("phi", "Integration", registry=CollectorRegistry()).set
    observe = Histogram("latency", "Latency", registry=CollectorRegistry()).observe
    return {
        "nothing": lambda: None,
        "record": lambda: record(0.75, 64.0, basin, 0.0, 5.0, 100.0),
        "record, the basin a list": lambda: record(0.75, 64.0, numbers, 0.0, 5.0, 100.0),
        "capture": lambda: capture(state),
        "distance": lambda: distance(basin, other),
        "detector": workloads.detector_update_basin(),
        "Gauge.set": lambda: gauge(0.75),
        "Histogram.observe": lambda: observe(0.75),
    }

def repeat(work, times):
    loop = range(times)
    os.getppid()
    for _ in loop:
        work()

def main(calls):
    todo = works()
    print(json.dumps(list(todo)))
    for work in todo.values():
        repeat(work, 400)  # past the lesson, and past the interpreter's own warming up
    gc.disable()
    for work in todo.values():
        repeat(work, calls)
        repeat(work, 2 * calls)
    os.getppid()

main(int(sys.argv[1]))
"""


class CallgrindError(RuntimeError):
    """valgrind is missing, or did not count what it should."""


def count(calls: int = CALLS) -> dict[str, Counter[str]]:
    """Instructions of one call of each piece of work, by function; their sum is the whole.

    The loop, and calling a Python function in it, are taken off. Raises CallgrindError.
    """
    if shutil.which("valgrind") is None:
        raise CallgrindError("expected valgrind on PATH; install it: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        argv = [
            *("valgrind", "--tool=callgrind", f"--dump-before={MARK}", "--compress-strings=no"),
            f"--callgrind-out-file={folder}/out",
            *(sys.executable, "-c", SCRIPT, str(calls)),
        ]
        environment = {
            **os.environ,
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",  # its idle threads spin, and would be counted
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise CallgrindError(f"valgrind ended with {done.returncode}: {done.stderr[-2000:]}")
        names = json.loads(done.stdout)
        # out.1 ends where the first warming up begins; then two counts of each work.
        first = len(names) + 2
        wanted = [Path(folder, f"out.{first + i}") for i in range(2 * len(names))]
        if not wanted[-1].exists():
            raise CallgrindError(f"expected callgrind to write {wanted[-1].name} on entering {MARK}()")
        dumps = [_self_costs(path) for path in wanted]
    counts: dict[str, Counter[str]] = {}
    for i, name in enumerate(names):
        each = dumps[2 * i + 1]
        each.subtract(dumps[2 * i])
        if name != NOTHING:
            each.subtract({function: n * calls for function, n in counts[NOTHING].items()})
        counts[name] = Counter({function: round(n / calls) for function, n in each.items() if n >= calls / 2})
    del counts[NOTHING]
    return counts


def _self_costs(path: Path) -> Counter[str]:
    """Instructions by function, without those of the functions it called, from a file that callgrind wrote."""
    costs: Counter[str] = Counter()
    function, callee = "", False
    for line in path.read_text().splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            callee = True  # the next line is the cost of what was called
        elif line[:1] in set("+-*0123456789"):
            if not callee:
                costs[function] += int(line.split()[1])
            callee = False
    return costs


def run() -> dict[str, Any]:
    """The counts, and what they hold for."""
    counts = count()
    gauge = counts["Gauge.set"].total()
    return {
        "build": build(),
        "works": [
            {
                "work": name,
                "instructions": found.total(),
                "ratio": found.total() / gauge,
                "functions": dict(found.most_common()),
            }
            for name, found in counts.items()
        ],
    }


def build() -> str:
    """What the counts depend on: the interpreter, the compiler of the extensions, the processor's vectors."""
    found = re.search(rb"GCC: \([^)]*\) (\d+)", Path(_recorder.__file__).read_bytes())
    compiler = f"GCC {found[1].decode()}" if found else "another compiler"
    cpu = Path("/proc/cpuinfo")
    vectors = "AVX2" if cpu.exists() and " avx2 " in cpu.read_text() else "no AVX2"
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, {compiler}, {platform.machine()}, {vectors}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--functions", action="store_true", help="also how many each function takes")
    asked = parser.parse_args()
    found = run()
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(found["build"])
    for work in found["works"]:
        print(f"{work['work']:30} {work['instructions']:8,} instructions {work['ratio']:6.2f}x Gauge.set")
        for function, n in work["functions"].items() if asked.functions else ():
            print(f"    {n:8,} {function}")


if __name__ == "__main__":
    main()
