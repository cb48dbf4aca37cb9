"""What serving the routes loads into a service: nothing that heals, and no thread until one listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.web.serving import FRAMEWORKS
from tests.web.stores import judge, ledger, patch, recorded

PROBE = """
import json, sys, threading
from pathlib import Path
framework = sys.argv[1]
if framework == "fastapi":
    import fastapi
else:
    import flask
import numpy, msgspec
before = set(sys.modules)
from qigheal.api import Access, Api
from qigheal.api.exchange import Request
from qigheal.api.routes import ROUTES
api = Api(Path(sys.argv[2]), access=Access(environ={}, read="r", heal="r", review="r"), host=Path("/"))
if framework == "fastapi":
    from qigheal.integrations.fastapi_routes import router
    router(api)
else:
    from qigheal.integrations.flask_routes import blueprint
    blueprint(api)
answered = {}
for route in ROUTES:
    if route.name not in ("stream", "take_snapshot"):
        request = Request(params={"id": sys.argv[3], "file": "x"}, authorization=(b"Bearer r",), method=route.method)
        answered[route.name] = api.answer(route.name, request).status
print(json.dumps([sorted(set(sys.modules) - before), answered, threading.active_count()]))
"""
HEAVY = {"numba", "scipy", "libcst", "cmaes", "tomlkit", "random", "statistics", "typer", "rich", "sklearn"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_serving_loads_nothing_that_heals(store: Path, framework: str) -> None:
    recorded(store)
    judge(ledger(store), patch())
    done = subprocess.run(
        [sys.executable, "-c", PROBE, framework, str(store), patch().fingerprint],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: Any
    loaded, answered, threads = json.loads(done.stdout)
    served = {
        name: status for name, status in answered.items() if name not in ("dashboard", "widget", "asset")
    }
    assert {name: status for name, status in served.items() if status != 200} == {"job": 404, "review": 422}
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    assert not [
        name for name in loaded if name.startswith(("qigheal.healing.strategies", "qigheal.healing.judge"))
    ]
    assert "qigheal.healing.engine" not in loaded
    assert threads == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_the_framework_the_extra_is_named(framework: str) -> None:
    code = f"import sys; sys.modules['{framework}'] = None; import qigheal.integrations.{framework}_routes"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"qigheal[{framework}]" in done.stderr
