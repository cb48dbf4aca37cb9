"""Measures run lengths and delays of all detectors: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy is imported: each process has one core to itself

from benchmarks.detection import beside, peers, plan, report  # noqa: E402


def run(size: plan.Size, python: str, names: list[str], workers: int, quick: bool) -> dict[str, Any]:
    """Everything that the page is made of."""
    began = time.perf_counter()
    candidates = (*peers.CANDIDATES, *beside.candidates(python))
    streams = [stream for stream in plan.STREAMS if not names or stream.name in names]
    found: dict[str, Any] = {
        "machine": report.machine(),
        "versions": report.versions(python),
        "quick": quick,
        "size": {name: getattr(size, name) for name in size.__dataclass_fields__},
        "run_length": peers.RUN_LENGTH,
        "notes": {candidate.name: candidate.note for candidate in candidates},
        "streams": [],
    }
    with ProcessPoolExecutor(workers) as pool:
        prepared = [(stream, *_calibrating(pool, stream, candidates, size)) for stream in streams]
        judging = []
        for stream, tuning, levels in prepared:
            knobs = {name: job.result() for name, job in tuning.items() if job.exception() is None}
            _tell_of_faults(tuning)
            limits = {name: job.result() for name, job in levels.items() if job.result() is not None}
            jobs = [
                pool.submit(plan.judge, stream, number, size, candidates, knobs, limits)
                for number in range(size.worlds)
            ]
            judging.append((stream, knobs, limits, jobs))
        for stream, knobs, limits, jobs in judging:
            worlds = [job.result() for job in jobs]
            found["streams"].append(report.summary(stream, worlds, knobs, limits))
            print(f"{stream.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    found["seconds"] = time.perf_counter() - began
    return found


def _calibrating(pool: ProcessPoolExecutor, stream: plan.Stream, candidates: Any, size: plan.Size) -> Any:
    tuning = {
        candidate.name: pool.submit(plan.calibrated, stream, candidate, size)
        for candidate in candidates
        if candidate.knob is not None and (stream.slow or candidate.cost <= plan.SLOW)
    }
    levels = {change.name: pool.submit(plan.oracle_limit, stream, change, size) for change in stream.changes}
    return tuning, levels


def _tell_of_faults(tuning: dict[str, Any]) -> None:
    for job in tuning.values():
        fault = job.exception()
        if fault is not None and not isinstance(fault, ImportError):
            raise fault


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures within a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the page")
    parser.add_argument(
        "--out", type=Path, help="write the page there, for instance docs/detection-figures.md"
    )
    parser.add_argument("--raw", type=Path, help="keep the JSON document there")
    parser.add_argument(
        "--from", dest="kept", type=Path, help="make the page of a kept document; measure nothing"
    )
    parser.add_argument(
        "--frouros-python", default="", help="a Python that has frouros, which pins old numpy"
    )
    parser.add_argument("--streams", nargs="*", default=[], metavar="NAME", help="only these")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    asked = parser.parse_args()
    known = [stream.name for stream in plan.STREAMS]
    if unknown := set(asked.streams) - set(known):
        parser.error(f"--streams: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    if asked.kept:
        found = json.loads(asked.kept.read_text())
    else:
        size = plan.QUICK if asked.quick else plan.FULL
        found = run(size, asked.frouros_python, asked.streams, asked.workers, asked.quick)
    if asked.raw:
        asked.raw.write_text(json.dumps(found, indent=1) + "\n")
    if asked.out:
        asked.out.write_text(report.page(found))
    if asked.json:
        print(json.dumps(found, indent=1))
    elif not asked.out:
        print(report.page(found), end="")


if __name__ == "__main__":
    main()
