"""Processes that fork after the monitor was made: every acknowledged row is kept once, whoever recorded it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from qigcore.history import History
from qigcore.rows import Batch

APP = """
import itertools, os
import numpy as np
from qigheal import GeometricHealthMonitor

monitor = GeometricHealthMonitor(dim=8, history="store", code_hash="")
numbers = itertools.count()

def record(name):
    monitor.capture(phi=0.75, kappa_eff=64.0, basin_coords=np.ones(8), module_name=name)

for i in range(3):
    record(f"parent {i}")

def app(environ, start_response):
    number = next(numbers)
    record(f"{os.getpid()} {number}")
    report = monitor.check_health()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {number} {report.snapshots} {report.severity}".encode()]
"""


def ask(port: int) -> tuple[int, int, int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        pid, number, snapshots, severity = connection.getresponse().read().decode().split()
    finally:
        connection.close()
    return int(pid), int(number), int(snapshots), severity


@pytest.mark.parametrize("kind", [["--worker-class", "sync"], ["--threads", "4"]], ids=["sync", "threads"])
def test_gunicorn_with_preload(tmp_path: Path, kind: list[str]) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "gunicorn.conf.py").write_text(
        "control_socket_disable = True"
    )  # it would lie in the user's home
    acknowledged: dict[int, set[int]] = defaultdict(set)
    # The socket is made here: who connects before the server is up waits in its queue.
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "log").open("wb") as log:
        port, descriptor = listening.getsockname()[1], listening.fileno()
        command = [
            sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", *kind, "--bind", f"fd://{descriptor}",
            "app:app",
        ]  # fmt: skip
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, pass_fds=[descriptor])
        try:
            for _ in range(5000):
                pid, number, snapshots, severity = ask(port)
                acknowledged[pid].add(number)
                assert severity == "normal"
                # What the parent recorded before the fork is in each child's ring, beside its own rows.
                assert snapshots >= 3 + len(acknowledged[pid])
                if len(acknowledged) == 2 and min(map(len, acknowledged.values())) >= 10:
                    break
        finally:
            server.terminate()
            server.wait(60)
    assert server.returncode == 0, (tmp_path / "log").read_text()
    assert len(acknowledged) == 2
    with History.read_only(tmp_path / "store") as history:
        rows = Batch.concat(history.scan(), 8)
        pids = {segment.pid for segment in history.segments()}
    answered = [f"{pid} {number}" for pid, numbers in acknowledged.items() for number in numbers]
    assert sorted(rows.module_name) == sorted([*answered, "parent 0", "parent 1", "parent 2"])
    assert pids >= set(acknowledged)


FORKING = """
import os, sys, threading
import numpy as np
from qigheal import GeometricHealthMonitor

host = GeometricHealthMonitor(
    history=sys.argv[1], dim=8, code_hash="", flush_every_s=0.01, history_size=50_000, learn_after=100
)

def record(name):
    host.capture(phi=0.75, kappa_eff=64.0, basin_coords=np.ones(8), module_name=name)

def serve():
    while not ended.is_set():
        record("parent")
        host.check_health()
        own.append(1)
        paused.wait(0.0005)

own, ended, paused = [], threading.Event(), threading.Event()
threads = [threading.Thread(target=serve) for _ in range(3)]
for thread in threads:
    thread.start()
children = []
for k in range(12):
    child = os.fork()
    if not child:
        try:
            for _ in range(5):
                record(f"child {k}")
            host.check_health()
            host.close()
        finally:
            os._exit(host.losses)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
ended.set()
for thread in threads:
    thread.join()
host.close()
assert host.losses == 0
print(len(own))
"""


def test_forks_while_threads_record_and_write(tmp_path: Path) -> None:
    # The child inherits locks that threads of the parent held, amid learning or amid a write.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with History.read_only(tmp_path / "store") as history:
        names = Counter(Batch.concat(history.scan(), 8).module_name)
    assert names == {"parent": int(done.stdout), **{f"child {k}": 5 for k in range(12)}}
