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
from qigcore.estimators import ClassEstimator, EmbeddingEstimator, EventEstimator, StateEstimator
from qigcore.recorder import Recorder
from qigcore.rows import HEAD, Batch
from qigcore.trends import mann_kendall
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


def mean_and_variance(rows: int = 1_000_000) -> Work:
    """Fréchet mean and variance of many rows, 512 MB of a million."""
    rng = np.random.default_rng(2)
    many = np.empty((rows, DIM))
    for start in range(0, rows, 50_000):  # drawn piece by piece: one call would hold them twice
        many[start : start + 50_000] = rng.dirichlet(np.full(DIM, 200.0), min(50_000, rows - start))
    return lambda: geometry.frechet_variance(many, geometry.frechet_mean(many))


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


def get_trend_degrading(window: int = 50) -> Work:
    """The trend of a Φ that falls: it says when it is at its limit too."""
    made = monitor()
    for i, basin in enumerate(healthy()[0][:window]):
        made.record(0.75 - 0.001 * i, 64.0, basin, 0.0, 5.0, 100.0)
    return lambda: made.get_trend("phi", window)


def rank_trend(values: int = ROWS) -> Work:
    """Mann–Kendall with the correction of Hamed and Rao, which has a Theil–Sen slope in it."""
    series = np.random.default_rng(2).normal(size=values)
    return lambda: mann_kendall(series)


@cache
def embeddings() -> npt.NDArray[np.float32]:
    """Around 64 directions, shape [1000, 384], float32."""
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(DIM, 384))
    return (directions[rng.integers(0, DIM, ROWS)] + rng.normal(size=(ROWS, 384))).astype(np.float32)


@cache
def fitted() -> EmbeddingEstimator:
    return EmbeddingEstimator.fit(embeddings())


def embedding_update() -> Work:
    update, rows = fitted().update, cycle(list(embeddings()))
    return lambda: update(next(rows))


def class_update(classes: int = 10) -> Work:
    update = ClassEstimator(classes).update
    rows = cycle(list(np.random.default_rng(3).dirichlet(np.full(classes, 0.1), 100)))
    return lambda: update(next(rows))


def logits_update(classes: int = 1000) -> Work:
    update = ClassEstimator(classes, inputs="logits").update
    rows = cycle(list(np.random.default_rng(4).normal(0.0, 3.0, (100, classes))))
    return lambda: update(next(rows))


def event_update() -> Work:
    update, names = EventEstimator().update, cycle([f"/route/{i}" for i in range(100)])
    return lambda: update(next(names))


def state_update(components: int = DIM) -> Work:
    """Every fiftieth renews the figures of the covariance."""
    update = StateEstimator(components).update
    rows = cycle(list(np.random.default_rng(5).normal(size=(100, components))))
    return lambda: update(next(rows))


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
