"""When the flusher's thread comes round by itself, so that no request has to wake it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qigheal import GeometricHealthMonitor


def monitor(history: Path, history_size: int) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(
        history=history, dim=8, history_size=history_size, learn_after=50, code_hash="", flush_every_s=5.0
    )


def feed(host: GeometricHealthMonitor, n: int) -> None:
    for basin in np.random.default_rng(1).dirichlet(np.full(8, 300.0), n):
        host.record(0.75, 64.0, basin)


def test_a_host_whose_rows_are_written_in_time_wakes_nobody(tmp_path: Path) -> None:
    # Waking a thread costs a request tens of microseconds: it would make the slowest in a thousand.
    host = monitor(tmp_path, 200)
    woken: list[int] = []
    assert host._flusher is not None
    host._flusher.wake = lambda: woken.append(len(host.snapshots))  # type: ignore[method-assign]
    for _ in range(20):
        feed(host, 90)
        host.flush()
    assert woken == [1, 50]  # it starts the thread, and there is something to learn from
    feed(host, 101)
    assert len(woken) == 3  # half a ring unwritten
    host.close()


def test_the_thread_comes_round_before_half_the_ring_is_filled(tmp_path: Path) -> None:
    host = monitor(tmp_path, 1000)
    assert (flusher := host._flusher) is not None
    assert flusher._pause(0, 5.0) == 5.0
    assert flusher._pause(10, 5.0) == 5.0  # a slow host
    assert flusher._pause(1000, 0.5) == pytest.approx(0.125)  # 2,000 a second: 250 rows later
    assert flusher._pause(1000, 1e-6) == 0.005
    host.close()
