"""What self-healing costs a host: imports, and time on each request beside a peer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench_web import asgi, asgi_turn, measure

IMPORTS = """
import asyncio, concurrent.futures, json, logging, sys, importlib
import numpy, {framework}
from qigheal import GeometricHealthMonitor
GeometricHealthMonitor()
app = {framework}.FastAPI() if "{framework}" == "fastapi" else {framework}.Flask("host")
if "{framework}" == "fastapi":
    import fastapi.responses, fastapi.security
before = set(sys.modules)
setup = importlib.import_module("qigheal.integrations.{framework}").setup_self_healing
setup(app, store={store!r}, telemetry=dict).close()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_a_host_loads_nothing_that_its_framework_has_not(framework: str, tmp_path: Path) -> None:
    code = IMPORTS.format(framework=framework, store=str(tmp_path / "store"))
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert f"qigheal.integrations.{framework}" in loaded
    heavy = {"numba", "libcst", "scipy", "typer", "rich", "random", "statistics", "tempfile", "pickle"}
    assert not heavy & set(loaded)
    assert not [
        name for name in loaded if name.startswith(("qigheal.healing", "qigheal.cli", "qigheal.alerts"))
    ]
    others = {name.split(".")[0] for name in loaded} - {"qigheal", "qigcore"}
    assert not others - sys.stdlib_module_names, others


@pytest.mark.alone
def test_measuring_costs_a_small_part_of_what_a_peer_costs() -> None:
    found = asyncio.run(measure(asgi(), asgi_turn, 40))
    ours, peer = found["qigheal"][1], found["prometheus-fastapi-instrumentator"][1]
    assert 0.0 < ours < 0.2 * peer
