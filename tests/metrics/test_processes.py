"""Several processes write one store: their sum is right, the dead leave no figures, and counters never go back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qigcore.history import History
from qigcore.rows import HEAD, Array
from qigheal.integrations.prometheus import HealthCollector
from tests.metrics.scraped import scrape

WRITER = """
import sys
import numpy as np
from qigheal import GeometricHealthMonitor
monitor = GeometricHealthMonitor(history=sys.argv[1])
for line in sys.stdin:
    count, phi, memory = line.split()
    for _ in range(int(count)):
        monitor.record(float(phi), 64.0, np.ones(64), 0.0, 5.0, float(memory))
    monitor.flush()
    print(count, flush=True)
monitor.close()
"""


class Writer:
    """A process that records as it is told, and answers when the rows are in the store."""

    def __init__(self, store: Path) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-c", WRITER, str(store)]
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def record(self, count: int, phi: float = 0.77, memory: float = 100.0) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count} {phi} {memory}\n")
        assert self.process.stdout.readline().strip() == str(count)

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.send_signal(signal.SIGKILL)
        with self.process:
            pass  # closes its input, and waits


@contextmanager
def writers(store: Path, count: int) -> Iterator[list[Writer]]:
    made = [Writer(store) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.end()


def test_sums_means_and_no_ghosts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with writers(store, 3) as (one, two, three):
        one.record(10, phi=0.70)
        collector = HealthCollector(store)
        assert scrape(collector)["geometric_health_snapshots_total"] == 0, "what was there before it began"
        one.record(5, phi=0.70)
        two.record(20, phi=0.80, memory=200.0)
        three.record(300, phi=0.90, memory=400.0)
        found = scrape(collector)
        assert found["geometric_health_snapshots_total"] == 325
        assert found["geometric_health_history_snapshots"] == 335
        assert found["geometric_health_writers"] == 3
        assert found["geometric_health_phi"] == pytest.approx(0.80, abs=1e-3)
        assert found["geometric_health_memory_bytes"] == pytest.approx(700e6, rel=1e-3)
        three.record(1, phi=0.90, memory=400.0)
        three.end(kill=True)

        found = scrape(collector)
        assert found["geometric_health_snapshots_total"] == 326, (
            "the last row of the killed one is in the store"
        )
        assert found["geometric_health_history_snapshots"] == 336
        assert found["geometric_health_writers"] == 2
        assert found["geometric_health_phi"] == pytest.approx(0.75, abs=1e-3), "of a process that is gone"
        assert found["geometric_health_memory_bytes"] == pytest.approx(300e6, rel=1e-3)
        assert found["geometric_health_snapshots_lost_total"] == 0

        one.end(kill=True)
        two.end()
        found = scrape(collector)
        assert found["geometric_health_writers"] == 0
        assert "geometric_health_phi" not in found
        assert "geometric_health_status|normal" not in found, "nobody says how a service is that is gone"
        assert found["geometric_health_snapshots_total"] == 326
        assert found["geometric_health_snapshot_age_seconds"] >= 0

    with writers(store, 1) as (again,):
        again.record(7)
        found = scrape(collector)
        assert found["geometric_health_snapshots_total"] == 333, "went back, or counted anew"
        assert found["geometric_health_writers"] == 1
        assert found["geometric_health_phi"] == pytest.approx(0.77, abs=1e-3)
        assert scrape(HealthCollector(store))["geometric_health_snapshots_total"] == 0, (
            "a restart begins at 0"
        )


def rows(times: Array, phi: float) -> tuple[Array, Array]:
    heads = np.zeros(len(times), HEAD)
    heads["timestamp"] = times
    heads["phi"] = phi
    return heads, np.ones((len(times), 64))


def test_retention_and_compaction_take_nothing_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    now = time.time()
    collector = HealthCollector(store)
    for segment in range(4):
        with History(store) as history:
            history.append_rows(*rows(now - 1000 + 100 * segment + np.arange(50), 0.7), ("",))
        assert scrape(collector)["geometric_health_snapshots_total"] == 50 * (segment + 1)
    with History(store) as history:
        assert history.compact(grace_s=0).made == 1
        found = scrape(collector)
        assert found["geometric_health_snapshots_total"] == 200, "rows counted again under another name"
        assert found["geometric_health_history_snapshots"] == 200
        history.append_rows(*rows(now + np.arange(3), 0.7), ("",))
        assert scrape(collector)["geometric_health_snapshots_total"] == 203
        assert history.expire(keep_s=0).segments == 1
        found = scrape(collector)
        assert found["geometric_health_snapshots_total"] == 203
        assert found["geometric_health_history_snapshots"] == 3


def test_a_process_that_is_silent_has_no_figures_after_a_while(tmp_path: Path) -> None:
    clock = [1_700_000_000.0]
    store = tmp_path / "store"
    with History(store) as quick, History(store) as slow:
        quick.append_rows(*rows(clock[0] - np.arange(10)[::-1], 0.9), ("",))
        slow.append_rows(*rows(clock[0] - 60.0 * np.arange(10)[::-1], 0.7), ("",))
        collector = HealthCollector(store, clock=lambda: clock[0])
        assert scrape(collector)["geometric_health_phi"] == pytest.approx(0.8, abs=1e-3)
        clock[0] += 61  # five of the quick one's intervals, a minute at least
        found = scrape(collector)
        assert found["geometric_health_phi"] == pytest.approx(0.7, abs=1e-3)
        assert found["geometric_health_writers"] == 1
        assert found["geometric_health_snapshot_age_seconds"] == pytest.approx(61)
        clock[0] += 300
        found = scrape(collector)
        assert "geometric_health_phi" not in found
        assert found["geometric_health_writers"] == 0
        assert found["geometric_health_snapshot_age_seconds"] == pytest.approx(361)
        quick.append_rows(*rows(clock[0] + np.arange(1), 0.6), ("",))
        assert scrape(collector)["geometric_health_phi"] == pytest.approx(0.6, abs=1e-3)


def test_a_young_process_of_a_slow_service_is_not_silent(tmp_path: Path) -> None:
    clock = [1_700_000_000.0]
    store = tmp_path / "store"
    with History(store) as before:
        before.append_rows(*rows(clock[0] - 3600.0 * np.arange(10)[::-1], 0.9), ("",))
    with History(store) as young:
        young.append_rows(*rows(clock[0] + np.arange(1), 0.7), ("",))
        collector = HealthCollector(store, clock=lambda: clock[0])
        clock[0] += 3600
        assert scrape(collector)["geometric_health_phi"] == pytest.approx(0.7, abs=1e-3)
        clock[0] += 5 * 3600
        assert scrape(collector)["geometric_health_writers"] == 0
