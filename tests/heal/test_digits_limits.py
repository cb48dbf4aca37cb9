"""The limits learned of the demo's service: a change of traffic is seen, and 100,000 healthy batches are quiet.

A batch of the service is the mean of what its requests are each; so the requests are answered once, and
batches are drawn by counting.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from qigcore import geometry
from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector
from qigcore.rows import HEAD, Batch
from qigcore.rules import learned_rules, severities
from qigheal.demo.repository import make_host

BATCH = 256


class Digits:
    """What each recorded request makes of Φ, κ and the basin, and batches of them."""

    def __init__(self, basins: np.ndarray, phi: np.ndarray, kappa: np.ndarray, labels: np.ndarray) -> None:
        self.labels = labels
        self.figures = np.column_stack([phi, kappa, basins])

    def batches(self, n: int, seed: int, only: tuple[int, ...] = tuple(range(10))) -> Batch:
        rng = np.random.default_rng(seed)
        chosen = self.figures[np.isin(self.labels, only)]
        means = np.empty((n, chosen.shape[1]))
        for start in range(0, n, 5000):
            size = min(5000, n - start)
            counts = rng.multinomial(BATCH, np.full(len(chosen), 1 / len(chosen)), size)
            means[start : start + size] = counts @ chosen / BATCH
        heads = np.zeros(n, HEAD)
        heads["timestamp"] = 60.0 * np.arange(n)
        heads["phi"], heads["kappa_eff"] = means[:, 0], means[:, 1]
        heads["regime"] = 1
        return Batch.of_rows(heads, np.ascontiguousarray(means[:, 2:]), ("",))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    host = make_host(tmp_path_factory.mktemp("digits") / "host")
    sys.path.insert(0, str(host.path))
    try:
        from digits.data import load
        from digits.model import configured

        recorded = load(host.path / "data" / "digits.npz")
        model = configured(recorded, host.path / "config" / "model.toml")
        single = [model.respond(image[None]) for image in recorded.requests]
    finally:
        sys.path.remove(str(host.path))
        for name in [name for name in sys.modules if name.split(".")[0] == "digits"]:
            del sys.modules[name]
    basins = np.array([each.basin for each in single])
    phi = np.array([each.phi for each in single])
    return Digits(basins, phi, np.array([each.kappa for each in single]), recorded.request_labels)


def remeasured(batch: Batch, baseline: Baseline) -> np.ndarray:
    heads = batch.heads()
    heads["basin_drift"] = geometry.distances(batch.basin_coords, baseline.point)
    return heads


def test_batches_drawn_by_counting_are_the_services(digits: Digits) -> None:
    batch = digits.batches(2000, 1)
    assert batch.phi.mean() == pytest.approx(0.772, abs=0.01)
    assert batch.kappa_eff.mean() == pytest.approx(66.8, abs=2.0)


@pytest.mark.parametrize("learned", [300, 2000])
def test_drift_limits_see_other_traffic_and_no_healthy_batch(digits: Digits, learned: int) -> None:
    baseline = Baseline.learn(digits.batches(learned, 2))
    # Learned from so few, a band's edge is itself off by 3·sd/√(2n): the rule on the mean of ten minds it not.
    drift = [rule for rule in learned_rules(baseline).rules if rule.kind == "drift"]
    assert all(rule.limit < math.pi for rule in drift)
    rules = learned_rules(baseline)
    only_drift = type(rules)(rules=tuple(drift), state="learned")
    healthy = remeasured(digits.batches(100_000, 3), baseline)
    assert severities(healthy, only_drift).max() == 0
    changed = remeasured(digits.batches(30, 4, only=(1, 7)), baseline)
    assert severities(np.concatenate([healthy[:20], changed]), only_drift)[20 + 9 :].min() == 2


def test_detectors_see_other_traffic_at_once_and_keep_their_rate(digits: Digits) -> None:
    """Run length of 20,000: of 100,000 healthy batches 5 alarms are the budget; 12 would be 1 in 200 by chance."""
    baseline = Baseline.learn(digits.batches(2000, 2))
    assert baseline.calibration is not None
    assert baseline.calibration.kind == "bounded", baseline.calibration.doubts
    detector = ChangeDetector(baseline, average_run_length=20_000)
    healthy = digits.batches(100_000, 3)
    alarms = [event for event in detector.scan(healthy) if event.kind == "alarm"]
    assert len(alarms) <= 12
    detector.reset()
    events = detector.scan(Batch.concat([healthy.take(slice(0, 200)), digits.batches(20, 4, only=(1, 7))]))
    first = next(event for event in events if event.kind == "alarm")
    assert first.row == 200
    assert {"phi", "kappa", "basin_drift"} & {moved.metric for moved in first.alarm.metrics}
    # No request for a 0: the state moves little, and no figure out of its band.
    slight = Batch.concat([healthy.take(slice(0, 200)), digits.batches(400, 5, only=tuple(range(1, 10)))])
    detector.reset()
    assert next(event.row for event in detector.scan(slight) if event.kind == "alarm") < 215
