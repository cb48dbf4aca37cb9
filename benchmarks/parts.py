"""Where the time of one `record` goes, part by part, measured.

    python -m benchmarks.parts [--json] [--rounds N]

Each part runs in a C loop of its own (`parts.pyx`, compiled into build/ with the extensions' flags),
calling is measured by a method that does nothing, and the whole by a loop around `record`. The parts
take turns, round after round; their sum is set against the whole. In a loop of its own a part overlaps
with itself, and in `record` with its neighbours: that, and what no part covers, is the difference.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import runpy
import statistics
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.timing import nothing, turn

ROOT = Path(__file__).resolve().parent.parent
COUNT = 10_000
WHOLE = "whole"

PARTS = {
    "call": "the call: six arguments in, a float out",
    "arguments": "validation: six objects to numbers",
    "copy": "copying the basin into the ring",
    "normalise": "normalising it, which also checks its components",
    "distance": "the distance from the reference",
    "clock": "the clock",
    "rest": "range checks, regime, the row's figures in the ring",
}


def described() -> Any:
    """The recorder's extension as setup.py describes it to setuptools."""
    os.chdir(ROOT)
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path("setup.py")
    modules = setup.call_args.kwargs["ext_modules"]
    return next(module for module in modules if module.name == "qigcore._recorder")


def built(model: Any) -> Any:
    """The module `parts`, compiled as the extension `model` is."""
    import Cython.Build
    from setuptools import Distribution, Extension

    others = [source for source in model.sources if Path(source).stem != "_recorder"]
    extension = Extension(
        "parts",
        ["benchmarks/parts.pyx", *others],
        include_dirs=model.include_dirs,
        define_macros=model.define_macros,
        extra_compile_args=model.extra_compile_args,
        depends=[*map(str, (ROOT / "ext").glob("*"))],
    )
    cythonize: Any = Cython.Build.cythonize
    compiled = cythonize([extension], build_dir="build/cython", include_path=["ext"], quiet=True)
    distribution = Distribution({"name": "parts", "ext_modules": compiled})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = "build/bench", "build/bench"
    distribution.run_command("build_ext")
    found = ROOT / command.get_outputs()[0]
    spec = importlib.util.spec_from_file_location("parts", found)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(rounds: int) -> dict[str, Any]:
    """Nanoseconds of each part, of their sum and of the whole: medians over the rounds."""
    with redirect_stdout(sys.stderr):  # where the compiler may say what it does
        model = described()
        module = built(model)
    rows = np.random.default_rng(0).dirichlet(np.full(64, 2.0), 4)
    parts = module.Parts(rows)
    called, recorder = module.Hollow().record, module.Recorder()
    record, basin = recorder.record, rows[0]
    given = (0.75, 64.0, basin, 0.0, 5.0, 100.0)
    again = (0.5, 65.0, rows[1].copy(), 0.01, 6.0, 101.0)
    taken: dict[str, list[float]] = {name: [] for name in (*PARTS, WHOLE)}
    for _ in range(rounds):
        empty = min(turn(nothing, COUNT) for _ in range(3))
        figures = {
            "call": turn(lambda: called(0.75, 64.0, basin, 0.0, 5.0, 100.0), COUNT) - empty,
            "arguments": parts.arguments([given, again], COUNT),
            "copy": parts.copying(COUNT),
            "normalise": parts.normalising(COUNT),
            "distance": parts.measuring(COUNT),
            "clock": parts.clock(COUNT),
            WHOLE: turn(lambda: record(0.75, 64.0, basin, 0.0, 5.0, 100.0), COUNT) - empty,
        }
        covered = sum(figures[name] for name in ("copy", "normalise", "distance", "clock"))
        figures["rest"] = parts.writing(recorder, COUNT) - covered
        for name, ns in figures.items():
            taken[name].append(ns)
    medians = {name: statistics.median(found) for name, found in taken.items()}
    whole = medians.pop(WHOLE)
    return {
        "parts": [
            {"part": PARTS[name], "ns": medians[name], "share": medians[name] / whole} for name in PARTS
        ],
        "sum_ns": sum(medians.values()),
        "whole_ns": whole,
        "flags": " ".join(model.extra_compile_args),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--rounds", type=int, default=151, help="turns of each part (default 151)")
    asked = parser.parse_args()
    found = run(asked.rounds)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for row in found["parts"]:
        print(f"{row['part']:70} {row['ns']:7.1f} ns {row['share']:6.1%}")
    print(f"{'sum':70} {found['sum_ns']:7.1f} ns {found['sum_ns'] / found['whole_ns']:6.1%}")
    print(f"{'record as a whole, called in a loop':70} {found['whole_ns']:7.1f} ns")


if __name__ == "__main__":
    main()
