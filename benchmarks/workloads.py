"""The work that is measured, defined once: `peers` times it beside others, `bench_*` follows it over commits.

Each function prepares what one piece of work needs and returns a call that does it once. Data is
drawn with fixed seeds and shared, so that all candidates work on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt

from qigcore import geometry
from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector
from qigcore.recorder import Recorder
from qigcore.rows import HEAD, Batch
from qigheal import GeometricHealthMonitor

Work = Callable[[], object]
Floats = npt.NDArray[np.float64]

DIM = 64
ROWS = 1000


@cache
def states() -> Floats:
    """Unrelated basins, shape [1000, 64]."""
    return np.random.default_rng(0).dirichlet(np.full(DIM, 2.0), ROWS)


@cache
def healthy() -> tuple[Floats, list[float], list[float]]:
    """A steady service's basins, shape [1000, 64], Φ and κ."""
    rng = np.random.default_rng(1)
    basins = rng.dirichlet(np.full(DIM, 200.0), ROWS)
    return basins, rng.normal(0.75, 0.01, ROWS).tolist(), rng.normal(64.0, 1.0, ROWS).tolist()


def monitor(recorded: int = ROWS) -> GeometricHealthMonitor:
    """One that has learned (if 300 are recorded) and is well."""
    made = GeometricHealthMonitor(code_hash="")
    basins, phi, kappa = healthy()
    rows = cycle(zip(phi, kappa, list(basins), strict=True))
    for integration, coupling, basin in islice(rows, recorded):
        made.record(integration, coupling, basin, 0.0, 5.0, 100.0)
    made.check_health()
    return made


def record() -> Work:
    call, basin = monitor(0).record, states()[0]
    return lambda: call(0.75, 64.0, basin, 0.0, 5.0, 100.0)


def capture() -> Work:
    call = monitor(0).capture
    state = {"phi": 0.75, "kappa_eff": 64.0, "basin_coords": states()[0], "avg_latency_ms": 5.0}
    return lambda: call(state)


def record_and_check() -> Work:
    """One more snapshot, and the verdict after it."""
    made = monitor()
    call, check, basins = made.record, made.check_health, cycle(list(healthy()[0]))

    def work() -> object:
        call(0.75, 64.0, next(basins), 0.0, 5.0, 100.0)
        return check()

    return work


def distance() -> Work:
    call, p, q = geometry.distance, states()[0], states()[1]
    return lambda: call(p, q)


def rows_to_one() -> Work:
    call, rows, q = geometry.distances, states(), states()[0].copy()
    return lambda: call(rows, q)


def check_health(recorded: int = ROWS) -> Work:
    check: Work = monitor(recorded).check_health
    return check


def check_health_critical() -> Work:
    """The verdict on a service whose Φ is low since its last 200 snapshots: findings, their beginning, components."""
    made = monitor()
    for basin in healthy()[0][:200]:
        made.record(0.5, 64.0, basin, 0.0, 5.0, 100.0)
    return made.check_health


def get_trend(metric: str = "basin_drift", window: int = 50) -> Work:
    trend = monitor().get_trend
    return lambda: trend(metric, window)


@cache
def baseline() -> Baseline:
    """Learned from 2,000 snapshots with all five figures."""
    rng = np.random.default_rng(2)
    heads = np.zeros(2000, HEAD)
    heads["timestamp"] = 60.0 * np.arange(2000)
    heads["phi"] = rng.normal(0.75, 0.01, 2000)
    heads["kappa_eff"] = rng.normal(64.0, 1.0, 2000)
    heads["avg_latency_ms"] = rng.lognormal(1.6, 0.3, 2000)
    heads["error_rate"] = rng.binomial(1000, 0.004, 2000) / 1000
    basins = rng.dirichlet(np.full(DIM, 200.0), 2000)
    return Baseline.learn(Batch.of_rows(heads, basins, ("",)), created=0.0)


def detector_update() -> Work:
    """One more snapshot: 64 components and five figures."""
    recorder = Recorder(capacity=ROWS)
    basins, phi, kappa = healthy()
    for integration, coupling, basin in zip(phi, kappa, basins, strict=True):
        recorder.record(integration, coupling, basin, 0.004, 5.0, 100.0)
    update = ChangeDetector(baseline(), 1e12).update
    snapshots = cycle([recorder.snapshot(i) for i in range(ROWS)])
    return lambda: update(next(snapshots)) is None


def detector_update_basin() -> Work:
    """One more basin, without figures."""
    update, basins = ChangeDetector(baseline(), 1e12).update, cycle(list(healthy()[0]))
    return lambda: update(next(basins)) is None


def detector_feed() -> Work:
    """1,000 recorded rows with their figures."""
    feed = ChangeDetector(baseline(), 1e12).feed
    basins, phi, kappa = healthy()
    heads = np.zeros(ROWS, HEAD)
    heads["phi"], heads["kappa_eff"], heads["error_rate"], heads["avg_latency_ms"] = phi, kappa, 0.004, 5.0
    return lambda: feed(basins, heads)


def detector_construct() -> Work:
    learned = baseline()
    return lambda: ChangeDetector(learned)
