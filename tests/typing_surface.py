"""The types that users see, held by mypy: `make lint` checks this file; nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from qigcore.baseline import Baseline
from qigcore.detectors import Alarm, ChangeDetector, Event
from qigcore.estimators import EmbeddingEstimator, EventEstimator, Reading, Readings
from qigcore.fitness import Fitness
from qigcore.geometry import distance, distances
from qigcore.history import History
from qigcore.rows import Batch
from qigcore.trends import (
    MannKendall,
    Slope,
    TheilSen,
    TimeTo,
    Trend,
    mann_kendall,
    slope,
    theil_sen,
    time_to,
)
from qigheal import GeometricHealthMonitor, GeometricSnapshot, HealingPatch, HealthReport, SelfHealingEngine
from qigheal.records import Change, Evaluation, HealResult


def monitoring(basin: npt.NDArray[np.float64]) -> None:
    monitor = GeometricHealthMonitor(phi_min=0.6, history=".qigheal", geometry="sphere")
    assert_type(monitor.record(0.75, 64.0, basin), float)
    assert_type(monitor.capture({"phi": 0.75}), GeometricSnapshot)
    assert_type(monitor.check_health(), HealthReport)
    assert_type(monitor.check_health()["healthy"], Any)
    assert_type(monitor.get_trend("phi"), Trend)
    assert_type(monitor.get_trend("phi").reaches, TimeTo | None)
    assert_type(monitor.baseline, Baseline | None)
    assert_type(monitor.snapshots[0], GeometricSnapshot)


def numbers(rows: npt.NDArray[np.float64]) -> None:
    assert_type(distance(rows[0], rows[1]), float)
    assert_type(distances(rows, rows[0]), npt.NDArray[np.float64])
    assert_type(slope(rows[0]), Slope)
    assert_type(theil_sen(rows[0], "ar1"), TheilSen)
    assert_type(mann_kendall([1.0, 2.0]), MannKendall)
    assert_type(time_to(rows[0], 0.65, interval_s=60.0), TimeTo)
    assert_type(time_to(rows[0], 0.65).sentence("Φ"), str)
    with History.read_only(".qigheal") as history:
        assert_type(history.last(10), Batch)


def estimating(rows: npt.NDArray[np.float32]) -> None:
    estimator = EmbeddingEstimator.fit(rows, centroids=64)
    reading = estimator.update(rows[0])
    assert_type(reading, Reading)
    assert_type(reading.basin, npt.NDArray[np.float64])
    assert_type(estimator.update_many(rows), Readings)
    assert_type(estimator.definition.rows, npt.NDArray[np.float32])
    assert_type(EventEstimator.load("estimator.json"), EventEstimator)
    monitor = GeometricHealthMonitor(dim=estimator.dim, module_name=estimator.identity)
    assert_type(monitor.record(*reading, 0.0, 5.0, 100.0), float)


def detecting(baseline: Baseline, rows: npt.NDArray[np.float64]) -> None:
    detector = ChangeDetector(baseline, false_alarm_every="30d", interval_s=60.0)
    assert_type(detector.update(rows[0]), Alarm | None)
    assert_type(detector.run(rows), int | None)
    assert_type(detector.scan(rows), list[Event])
    assert_type(detector.current, Alarm | None)


async def healing() -> None:
    engine = SelfHealingEngine(host=".", fitness_threshold=0.7)
    assert_type(engine.check_and_heal(), HealResult)
    assert_type(await engine.acheck_and_heal(), HealResult)
    assert_type(engine.review("3f2a", approve=True, reviewer="Ada"), Change)
    evaluation = engine.evaluate("--- a/x\n+++ b/x\n", heals=("phi",), same_output=True)
    assert_type(evaluation, Evaluation)
    assert_type(evaluation.verdict.guards[0].detectable, float | None)
    assert_type(evaluation.verdict.detectable, float | None)
    result = engine.check_and_heal()
    assert_type(result.patches[0].evidence, dict[str, Any])
    assert_type(result.patches, tuple[HealingPatch, ...])
    fitness = result.verdicts[0].fitness
    assert_type(fitness, Fitness | None)
