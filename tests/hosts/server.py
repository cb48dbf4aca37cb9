"""Real servers in processes of their own, on a free port of the loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hosts.serving import PATIENCE_S, until

TOKEN = "read-token"  # noqa: S105


class Server:
    """One server; `pids` are those of its workers that have answered."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.pids: set[int] = set()

    def get(self, path: str) -> tuple[int, Any]:
        """Over a connection of its own, so that any worker may answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(
                "GET", path, headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"}
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            status, found = self.get("/items/1")
        except OSError:
            return False
        if status == 200:
            self.pids.add(found["pid"])
        return status == 200

    def all_up(self, workers: int) -> bool:
        return self.up() and len(self.pids) >= workers


@contextmanager
def serving(command: list[str], folder: Path, workers: int, **environ: str) -> Iterator[Server]:
    """`command` with {port} filled in, until the block ends; then it is told to end, and has to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    given: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "QIGHEAL_STORE": str(folder / "store"),
        "QIGHEAL_READ_TOKEN": TOKEN,
        **environ,
    }
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [part.format(port=port) for part in command], cwd=folder, env=given, stdout=said, stderr=said
        )
    server = Server(process, port, log)
    try:
        until(lambda: server.all_up(workers), f"{workers} workers, {log.read_text()}")
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def uvicorn(workers: int) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "uvicorn",
            "tests.hosts.service:app",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
        *("--workers", str(workers), "--log-level", "warning", "--timeout-keep-alive", "3600"),
    ]


def gunicorn(workers: int, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "tests.hosts.service:flask_app", "--bind", "127.0.0.1:{port}"),
        *("--workers", str(workers), "--log-level", "warning", "--graceful-timeout", "5", *options),
    ]
