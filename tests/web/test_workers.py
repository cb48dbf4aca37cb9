"""Several workers of one service: all of their snapshots are in one answer, whichever of them answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.web.serving import READ

APP = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
import numpy as np
from fastapi import FastAPI
from qigheal import GeometricHealthMonitor
from qigheal.api import Access, Api
from qigheal.integrations.fastapi_routes import router

store = Path(os.environ["QIGHEAL_STORE"])

def made():
    monitor = GeometricHealthMonitor(history=store, false_alarm_every=None, flush_every_s=0.05)
    api = Api(store, monitor=monitor, access=Access(environ={}, read="read-Φ"))

    @asynccontextmanager
    async def lifespan(app):
        yield
        api.close()
        monitor.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(router(api))

    @app.post("/work")
    def work():
        monitor.record(0.75, 64.0, np.ones(64))
        return os.getpid()

    return app
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_one_answer_has_the_snapshots_of_all(store: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "served.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "served:made", "--factory", "--log-level", "error"]
        server = subprocess.Popen(
            [*command, "--workers", str(workers), "--fd", str(listening.fileno())],
            pass_fds=[listening.fileno()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "QIGHEAL_STORE": str(store)},
        )
    headers = {b"Authorization": b"Bearer " + READ.encode()}
    try:
        asked: list[int] = []
        while len(set(asked)) < workers:  # until each has worked; every request on a connection of its own
            asked.append(httpx.post(f"{url}/work", timeout=60).json())
        while True:  # the others write within a moment
            page = httpx.get(
                f"{url}/api/self-healing/snapshots?limit=1000", headers=headers, timeout=60
            ).json()
            if len(page["snapshots"]) == len(asked):
                break
            assert len(page["snapshots"]) < len(asked)
            time.sleep(0.05)
        assert httpx.get(f"{url}/api/self-healing/health", headers=headers).json()["snapshots"] == len(asked)
        with httpx.stream("GET", f"{url}/api/self-healing/stream", headers=headers, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: health"
            httpx.post(f"{url}/work", timeout=60)
            assert next(line for line in lines if line == "event: snapshot")
            server.send_signal(signal.SIGTERM)
            assert not [line for line in lines if line.startswith("error")]  # it ends, and nothing hangs
        assert server.wait(60) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()
