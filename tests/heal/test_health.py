"""Reports: what a person reads, what the healer reads, and that both come from the same rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore import geometry
from qigcore.baseline import Baseline
from qigcore.constants import KAPPA_STAR
from qigcore.errors import BaselineError, InvalidBasin
from qigcore.recorder import Recorder
from qigcore.rows import BIT, HEAD, Array, Batch, FloatArray
from qigcore.rules import RuleSet, absolute_rules
from qigheal.health import assess, remeasure, replay, rules_for, trend_of
from qigheal.records import SEVERITIES, HealthReport
from qigheal.settings import MonitorSettings

DIM = 16
SETTINGS = MonitorSettings(dim=DIM)
ABSOLUTE = rules_for(SETTINGS, None)


def heads(n: int = 20, **columns: object) -> Array:
    rows = np.zeros(n, HEAD)
    rows["timestamp"] = 1000.0 + np.arange(n)
    for name, value in {"phi": 0.75, "kappa_eff": 64.0, "regime": 1, **columns}.items():
        rows[name] = value
    return rows


def report(n: int = 20, rules: RuleSet = ABSOLUTE, **columns: object) -> HealthReport:
    return assess(heads(n, **columns), None, rules, None, n)


def states(n: int, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.full(DIM, 300.0), n)


def batch(n: int = 300, basins: FloatArray | None = None, **columns: object) -> Batch:
    rng = np.random.default_rng(2)
    noisy = {"phi": 0.75 + rng.normal(0, 0.01, n), "kappa_eff": 66 + rng.normal(0, 2, n)}
    return Batch.of_rows(heads(n, **{**noisy, **columns}), states(n) if basins is None else basins, ("",))


def test_a_service_that_always_failed_is_not_healthy() -> None:
    learned = Baseline.learn(batch(error_rate=1.0))
    found = assess(heads(error_rate=1.0), None, rules_for(SETTINGS, learned), learned, 300)
    assert (found.healthy, found.severity) == (False, "warning")
    assert found.issues == ("error rate: 100.0 > 5 % (100.0 % while healthy was learned)",)
    assert assess(heads(error_rate=0.0), None, rules_for(SETTINGS, learned), learned, 300).healthy


def test_a_healthy_report() -> None:
    found = report()
    assert (found.healthy, found.severity, found.issues, found.findings) == (True, "normal", (), ())
    assert (found.state, found.snapshots, found.notes) == ("absolute", 20, ())
    assert found["healthy"] is True
    assert set(found.metrics) == {
        "phi", "kappa", "basin_drift", "error_rate", "latency_ms", "memory_mb", "breakdown_count",
    }  # fmt: skip
    assert found.metrics["phi"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("columns", "issue"),
    [
        ({"phi": 0.55}, "Φ degraded: 0.550 < 0.65"),
        ({"phi": 0.70}, "Φ low: 0.700 < 0.715"),
        ({"phi": 0.64999}, "Φ degraded: 0.64999 < 0.65"),
        ({"kappa_eff": 7.8}, "κ off: 7.80 < 54.21"),
        ({"kappa_eff": 80.0}, "κ off: 80.00 > 74.21"),
        ({"basin_drift": 2.3}, "basin drift: 2.300 > 2 rad"),
        ({"basin_drift": 1.5}, "basin drift rising: 1.500 > 1.4 rad"),
        ({"error_rate": 0.08}, "error rate: 8.0 > 5 %"),
        ({"avg_latency_ms": 2500.0}, "latency: 2500.0 > 2000 ms"),
        ({"avg_latency_ms": 2345678.9}, "latency: 2345679 > 2000 ms"),
        ({"avg_latency_ms": 1e300}, "latency: 1e+300 > 2000 ms"),
        ({"kappa_eff": -1.7e307}, "κ off: -1.7e+307 < 54.21"),
        ({"memory_mb": 12.0 * np.arange(20)}, "memory growing: 12.0 > 10 MB per snapshot"),
        ({"regime": 2}, "regime breakdown: 10 > 3 of the last 10 snapshots"),
        ({"repaired": BIT["phi"]}, "unmeasurable, values repaired: 10 > 3 of the last 10 snapshots"),
    ],
)
def test_messages_give_the_value_and_the_limit(columns: dict[str, object], issue: str) -> None:
    found = report(**columns)
    assert found.issues == (issue,)
    assert not found.healthy


def test_limits_of_millions_keep_their_zeros() -> None:
    rules = absolute_rules(latency_max_ms=2e6)
    assert report(rules=rules, avg_latency_ms=3e6).issues == ("latency: 3000000 > 2000000 ms",)
    assert report(rules=rules, avg_latency_ms=2e6 + 0.01).issues == ("latency: 2000000.01 > 2000000 ms",)


def test_one_finding_a_kind_the_most_severe_and_worst_first() -> None:
    found = report(phi=0.5, avg_latency_ms=3000.0, error_rate=0.5)
    assert [(each.kind, each.severity) for each in found.findings] == [
        ("phi_low", "critical"),
        ("errors", "critical"),
        ("latency", "warning"),
    ]
    assert found.severity == "critical"
    assert found.issues == tuple(each.message for each in found.findings)


def test_a_finding_says_since_when() -> None:
    (finding,) = report(40, error_rate=[0.0] * 30 + [0.2] * 10).findings
    assert (finding.since, finding.snapshots, finding.limit) == (1030.0, 10, 0.05)
    (again,) = report(40, error_rate=[0.2] * 12 + [0.0] * 18 + [0.2] * 10).findings
    assert again.since == 1030.0


def test_under_ten_snapshots_it_is_learning_and_healthy() -> None:
    found = report(9, phi=0.1)
    assert (found.healthy, found.state) == (True, "learning")
    assert found.notes == ("learning: 9 of the 10 snapshots needed to judge",)
    empty = assess(np.empty(0, HEAD), None, ABSOLUTE, None, 0)
    assert empty.healthy
    assert math.isnan(empty.metrics["phi"])
    assert empty.metrics["breakdown_count"] == 0


def test_drift_names_the_components_that_moved() -> None:
    baseline = Baseline.learn(batch())
    moved = states(20, seed=9)
    moved[:, 3] *= 3.0
    moved[:, 11] *= 0.4
    moved[-1] = 1.0  # repaired, and thus left out of the mean
    rules = rules_for(SETTINGS, baseline)
    live = remeasure(batch(20, basins=moved, repaired=[0] * 19 + [BIT["basin_coords"]]), baseline)
    found = assess(live.heads(), live.basin_coords, rules, baseline, 20)
    (finding,) = [each for each in found.findings if each.kind == "drift"]
    assert finding.severity == "critical"
    assert [share.index for share in finding.components[:2]] == [3, 11]
    assert len(finding.components) == 5
    shares = [share.share for share in finding.components]
    assert shares == sorted(shares, reverse=True)
    assert 0.9 < sum(shares) <= 1.0
    assert finding.message.startswith("basin drift: ")
    assert "components 3, 11" in finding.message
    mean = geometry.frechet_mean(moved[9:19])
    expected = geometry.contributions(baseline.point, mean**2)
    assert shares[0] == pytest.approx(expected[3])


def test_components_of_states_without_a_mean_are_those_of_the_newest() -> None:
    settings = MonitorSettings(dim=2, geometry="sphere", basin_drift_max=1.0)
    east = np.tile([1.0, 0.0], (40, 1))
    baseline = Baseline.learn(Batch.of_rows(heads(40), east, ("",)), geometry="sphere")
    around = np.array([[-1.0, 0.0], [1.0, 0.0]] * 9 + [[0.0, -1.0], [0.0, 1.0]])
    live = remeasure(Batch.of_rows(heads(20), around, ("",)), baseline)
    found = assess(live.heads(), live.basin_coords, rules_for(settings, baseline), baseline, 20)
    assert {share.index for share in found.findings[0].components} == {0, 1}


def test_remeasure_trusts_no_stored_drift() -> None:
    stored = batch(30, basin_drift=9.0)
    baseline = Baseline.learn(batch())
    drift = remeasure(stored, baseline).basin_drift
    assert drift[4] == geometry.distance(stored.basin_coords[4], baseline.point)
    assert (stored.basin_drift == 9.0).all()
    with pytest.raises(InvalidBasin):
        remeasure(batch(3, basins=np.ones((3, DIM + 1))), baseline)


def test_a_baseline_of_another_space_is_refused() -> None:
    baseline = Baseline.learn(batch())
    with pytest.raises(BaselineError, match="simplex with 64 components"):
        rules_for(MonitorSettings(), baseline)
    with pytest.raises(BaselineError, match="sphere"):
        rules_for(MonitorSettings(dim=DIM, geometry="sphere"), baseline)


def test_settings_move_the_absolute_limits() -> None:
    rules = rules_for(
        MonitorSettings(
            phi_min=0.5, basin_drift_max=1.0, kappa_tolerance=60.0, error_rate_max=0.5, latency_max_ms=10.0,
            memory_growth_max_mb=1.0,
        ),
        None,
    )  # fmt: skip
    assert report(rules=rules, phi=0.6, kappa_eff=7.8, error_rate=0.4).healthy
    assert report(
        rules=rules, avg_latency_ms=11.0, basin_drift=1.1, memory_mb=2.0 * np.arange(20)
    ).issues == (
        "basin drift: 1.100 > 1 rad",
        "latency: 11.0 > 10 ms",
        "memory growing: 2.0 > 1 MB per snapshot",
    )


def record_all(recorder: Recorder, rows: Array, basins: FloatArray) -> None:
    for row, basin in zip(rows, basins, strict=True):
        phi = math.nan if row["repaired"] & BIT["phi"] else row["phi"]
        state = np.zeros(DIM) if row["repaired"] & BIT["basin_coords"] else basin
        recorder.record(
            phi, row["kappa_eff"], state, row["error_rate"], row["avg_latency_ms"], row["memory_mb"]
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 120), st.integers(14, 40))
def test_service_and_healer_agree_on_the_last_rows(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.random(n) < 0.06) % 2
    rows = heads(n, phi=np.clip(0.75 - 0.2 * level + rng.normal(0, 0.02, n), 0, 1))
    rows["kappa_eff"] = 66 + 20 * level + rng.normal(0, 2, n)
    rows["repaired"] = np.where(rng.random(n) < 0.1, rng.choice([BIT["phi"], BIT["basin_coords"]], n), 0)
    basins = states(n, seed)
    basins[:, 5] *= 1 + 3 * level
    baseline = Baseline.learn(batch())
    rules = rules_for(SETTINGS, baseline)

    ring = Recorder(dim=DIM, capacity=max(30, k))
    ring.set_reference(baseline.point)
    record_all(ring, rows, basins)
    first, kept_heads, kept_basins = ring.rows(0, n)
    stored = Batch.of_rows(kept_heads, kept_basins, ring.names)
    stored.columns["basin_drift"] = np.full(n - first, 99.0)
    healer = remeasure(stored, baseline)

    service = assess(ring.heads(k), ring.basins(14), rules, baseline, n)
    same = assess(healer.heads()[-k:], healer.basin_coords[-k:], rules, baseline, n)
    assert service.severity == same.severity == SEVERITIES[replay(healer, rules)[-1]]
    assert [(f.kind, f.severity, f.since, f.snapshots) for f in service.findings] == [
        (f.kind, f.severity, f.since, f.snapshots) for f in same.findings
    ]
    for ours, theirs in zip(service.findings, same.findings, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=1e-12)
        assert ours.components == theirs.components
    assert assess(ring.heads(k), ring.basins(14), rules, baseline, n) == service


def trending(metric_values: Any, column: str, **more: object) -> Batch:
    n = len(metric_values)
    return Batch.of_rows(heads(n, **{column: metric_values, **more}), states(n), ("",))


def test_trends_know_which_way_is_better() -> None:
    up = np.linspace(0.0, 0.5, 50)
    assert trend_of(trending(up, "phi"), "phi").direction == "improving"
    for metric, column in (
        ("basin_drift", "basin_drift"),
        ("latency", "avg_latency_ms"),
        ("errors", "error_rate"),
        ("memory", "memory_mb"),
    ):
        assert trend_of(trending(up, column), metric).direction == "degrading"
        assert trend_of(trending(up[::-1], column), metric).direction == "improving"
    assert trend_of(trending(np.full(50, 0.7), "phi"), "phi").direction == "stable"
    assert trend_of(trending(up[:5], "phi"), "phi").direction == "unknown"
    with pytest.raises(ValueError, match="expected one of phi, kappa"):
        trend_of(trending(up, "phi"), "regime")


def test_kappa_is_better_the_nearer_to_its_band() -> None:
    rising = trending(np.linspace(40.0, KAPPA_STAR, 50), "kappa_eff")
    assert trend_of(rising, "kappa").direction == "improving"
    steady = Baseline.learn(batch(kappa_eff=20.0))
    assert trend_of(rising, "kappa", steady).direction == "degrading"
    # A baseline of basins alone knows no κ.
    assert trend_of(rising, "kappa", Baseline.learn(states(40))).direction == "improving"


def test_trends_leave_repaired_values_out() -> None:
    values = np.full(50, 0.7)
    values[40:] = 0.0
    flagged = trending(values, "phi", repaired=[0] * 40 + [BIT["phi"]] * 10)
    found = trend_of(flagged, "phi")
    assert (found.direction, found.snapshots, found.recent_avg) == ("stable", 40, pytest.approx(0.7))
