"""Real servers with several workers: each writes its own segment, and one answer has them all."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from qigheal.api import PREFIX
from qigheal.standing import Standing
from tests.hosts.server import Server, gunicorn, serving, uvicorn
from tests.hosts.serving import until


def worker(module_name: str) -> int:
    return int(module_name.split()[1])


def rows(store: Path) -> list[int]:
    """The writer of each row in a store."""
    return [worker(name) for name in Standing(store).last(100_000).batch.module_name]


def writers(server: Server) -> set[int]:
    """Processes whose snapshots are in one answer: each puts its own number into them."""
    status, found = server.get(f"{PREFIX}/snapshots?limit=1000")
    assert status == 200, found
    return {worker(each["module_name"]) for each in found["snapshots"]}


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        (uvicorn(1), 1),
        (uvicorn(4), 4),
        (gunicorn(2), 2),
        (gunicorn(3, "--preload", "--threads", "2"), 3),
    ],
    ids=["uvicorn-1", "uvicorn-4", "gunicorn-2", "gunicorn-preload"],
)
def test_all_workers_snapshots_are_in_one_answer(command: list[str], workers: int, tmp_path: Path) -> None:
    with serving(command, tmp_path, workers) as server:
        until(lambda: writers(server) >= server.pids, "snapshots of all workers")
        before = Counter(rows(tmp_path / "store"))
        enough = {pid: before[pid] + 5 for pid in server.pids}
        until(lambda: Counter(rows(tmp_path / "store")) >= Counter(enough), "more of them")
    after = Counter(rows(tmp_path / "store"))
    # The parent of preloaded workers may have ticked before it forked; once it has, it does not.
    assert not {pid for pid in after if pid not in server.pids and after[pid] > before[pid]}
    assert workers > 1 or set(after) == server.pids
    assert "Traceback" not in server.log.read_text()


def test_a_killed_worker_costs_no_more_than_what_was_not_flushed(tmp_path: Path) -> None:
    with serving(uvicorn(2), tmp_path, 2) as server:
        until(lambda: writers(server) >= server.pids, "snapshots of both")
        victim = min(server.pids)
        before = writers(server)
        assert victim in before
        stored = rows(tmp_path / "store").count(victim)
        os.kill(victim, signal.SIGKILL)
        server.pids.clear()
        until(lambda: server.all_up(2), "another worker in its place")
        until(lambda: writers(server) >= server.pids, "snapshots of the new one")
        assert rows(tmp_path / "store").count(victim) >= stored > 0
        assert server.get("/items/2")[0] == 200


def test_one_healer_for_all_workers_and_no_healing_in_them(tmp_path: Path) -> None:
    heavy = ("numba", "libcst", "scipy", "typer", "rich", "qigheal.cli")
    at_work = ("engine", "bench", "trial", "strategies", "judge", "forge", "watch", "measuring", "looping")

    def loaded(*paths: str) -> list[str]:
        found: set[str] = set()
        for path in 4 * paths:  # until both workers were asked
            server.get(f"{PREFIX}/{path}")
            found.update(server.get("/modules")[1])
        return sorted(found)

    with serving(uvicorn(2), tmp_path, 2, QIGHEAL_TEST_HOST=str(tmp_path)) as server:
        said = tmp_path / "store" / "healer.log"
        until(lambda: said.exists() and "expected a git repository" in said.read_text(), "a healer's word")
        until(lambda: writers(server) >= server.pids, "ticks of both")
        found = loaded("health", "trends", "state", "snapshots")
        assert not [name for name in found if name.startswith((*heavy, "qigheal.healing"))]
        # Changes and phases stand in the ledger, which has to be read.
        found = loaded("phase", "patches")
        working = tuple(f"qigheal.healing.{name}" for name in at_work)
        assert not [name for name in found if name.startswith((*heavy, *working))]
    with open(tmp_path / "store" / "healer.lock", "ab") as file:  # the healer ends with its parent
        fcntl.flock(file, fcntl.LOCK_EX)
