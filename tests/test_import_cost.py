"""What `import qigheal` costs a service that already uses numpy: little, and never Numba."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.footprint import monitor_mb

PROBE = """
import json, sys, resource
import numpy
before = set(sys.modules)
import qigheal
from qigheal import GeometricHealthMonitor
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_serving_imports_nothing_heavy() -> None:
    loaded = json.loads(run(PROBE))
    heavy = {
        "numba",
        "llvmlite",
        "scipy",
        "sklearn",
        "libcst",
        "tomlkit",
        "cmaes",
        "typer",
        "rich",
        "matplotlib",
    }
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_serving_imports_no_healing() -> None:
    loaded = json.loads(run(PROBE))
    assert not [name for name in loaded if name.startswith("qigheal.healing.")]


def test_serving_loads_no_rank_tests() -> None:
    assert not {"qigcore.ranktrends", "qigcore._ranks"} & set(json.loads(run(PROBE)))
    from qigcore import ranktrends, trends

    assert trends.theil_sen is ranktrends.theil_sen
    with pytest.raises(AttributeError, match="no attribute 'theil_zen'"):
        getattr(trends, "theil_zen")  # noqa: B009  (mypy knows that it is not there)


def test_memory_over_numpy() -> None:
    # The import alone is part of what a monitor with its 1,000 snapshots takes.
    taken = monitor_mb()
    assert 1 <= taken <= 10, f"{taken} MB over numpy"
