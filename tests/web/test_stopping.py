"""Servers that are told to stop while streams are open: the streams end, also those that nobody reads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from qigcore.history import History
from tests.web.stores import append, recorded

PATIENCE = 60.0
UVICORN = """
import sys
from pathlib import Path
import uvicorn
from qigheal.api import Access
from qigheal.integrations.fastapi_routes import standalone
app = standalone(Path(sys.argv[1]), access=Access(environ={}, read="r"))
uvicorn.run(app, fd=int(sys.argv[2]), log_level="error")
"""
HOST = """
from pathlib import Path
import flask
from qigheal.api import Access, Api
from qigheal.integrations.flask_routes import blueprint
app = flask.Flask("host")
app.register_blueprint(blueprint(Api(Path({store!r}), access=Access(environ={{}}, read="r"))))
"""
HEADERS = {"Authorization": "Bearer r"}


@contextmanager
def started(listening: socket.socket, *command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    server = subprocess.Popen(
        [sys.executable, *command],
        pass_fds=[listening.fileno()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), *filter(None, sys.path), os.getcwd()])},
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    try:
        yield server
    finally:
        server.kill()
        server.communicate()


def test_a_client_that_does_not_read_holds_nothing_up(store: Path, tmp_path: Path) -> None:
    recorded(store)
    with socket.socket() as listening, socket.socket() as stalled:
        for end, option in ((listening, socket.SO_SNDBUF), (stalled, socket.SO_RCVBUF)):
            end.setsockopt(socket.SOL_SOCKET, option, 4096)  # so that little fills them
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with started(listening, "-c", UVICORN, str(store), str(listening.fileno()), cwd=tmp_path) as server:
            stalled.connect(("127.0.0.1", port))
            stalled.sendall(
                b"GET /api/self-healing/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer r\r\n\r\n"
            )
            stalled.settimeout(PATIENCE)
            assert stalled.recv(12) == b"HTTP/1.1 200"
            url = f"http://127.0.0.1:{port}/api/self-healing/stream"
            with (
                httpx.Client(timeout=PATIENCE) as browser,
                browser.stream("GET", url, headers=HEADERS) as reading,
            ):
                lines = reading.iter_lines()
                assert next(lines) == "event: health"
                with History(store) as history:
                    told = 0
                    for turn in range(5):
                        append(history, time.time() + 0.1 * turn + 0.001 * np.arange(100))
                        for _ in range(100):  # told to both, as long as a stream lives
                            told += any(line == "event: snapshot" for line in lines)
                    assert told >= 100
                server.send_signal(signal.SIGTERM)
                assert not any(line == "event: snapshot" for line in lines)  # to its end
            assert server.wait(PATIENCE) in (0, -signal.SIGTERM)
            assert server.stderr is not None
            assert server.stderr.read() == ""


def test_a_server_of_threads_stops_with_a_stream_open(store: Path, tmp_path: Path) -> None:
    recorded(store)
    (tmp_path / "threaded_host.py").write_text(HOST.format(store=str(store)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/self-healing/stream"
        command = [
            "-m",
            "gunicorn",
            "threaded_host:app",
            f"--bind=fd://{listening.fileno()}",
            "--threads=4",
            "--graceful-timeout=600",
            "--log-level=error",
            "--no-control-socket",
        ]
        with (
            started(listening, *command, cwd=tmp_path) as server,
            httpx.stream("GET", url, headers=HEADERS, timeout=PATIENCE) as reading,
        ):
            lines = reading.iter_lines()
            assert next(lines) == "event: health"
            server.send_signal(signal.SIGTERM)
            assert not any(line == "event: snapshot" for line in lines)
            assert server.wait(PATIENCE) == 0
