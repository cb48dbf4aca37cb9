from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st

from qigcore.baseline import Baseline
from qigcore.rows import BIT, HEAD, METRICS, Batch
from qigcore.rules import RuleSet
from qigheal.healing.diagnosis import UNSEEN_ERRORS, diagnose, target_of
from qigheal.health import remeasure, rules_for
from qigheal.records import Diagnosis
from qigheal.settings import MonitorSettings

DIM = 8
CENTRE = np.array([8.0, 7, 6, 5, 4, 3, 2, 1])
GOOD, BAD, FIX = "a" * 40, "b" * 40, "c" * 40
FAULT: dict[str, Any] = {"phi": 0.3, "kappa_eff": 300.0}


def lived(count: int, code: str = GOOD, seed: int = 0, centre: Any = CENTRE, **changed: Any) -> Batch:
    """Snapshots of a healthy service, but for the columns given (a number, or an array of them)."""
    draw = np.random.default_rng([seed, count])
    heads = np.zeros(count, HEAD)
    heads["phi"] = 0.77
    heads["kappa_eff"] = 66.8
    heads["avg_latency_ms"] = 5.0
    heads["memory_mb"] = 100.0
    for name, value in changed.items():
        heads[name] = value
    spread = {"phi": 0.01, "kappa_eff": 2.0, "avg_latency_ms": 0.3, "memory_mb": 0.2, "error_rate": 0.0005}
    for name, sd in spread.items():
        heads[name] = np.abs(heads[name] + sd * draw.standard_normal(count))
    heads["code"] = 1
    basins = draw.dirichlet(np.asarray(centre) * 30, count)
    return Batch.of_rows(heads, basins, ("", code))


def in_time(*batches: Batch) -> Batch:
    batch = Batch.concat(batches, DIM)
    return Batch({**batch.columns, "timestamp": 1000.0 + np.arange(len(batch))}, batch.names)


BASELINE = Baseline.learn(lived(300, seed=99), created=0.0)
RULES: RuleSet = rules_for(MonitorSettings(dim=DIM), BASELINE)


def told(*batches: Batch, **options: int) -> Diagnosis | None:
    return diagnose(remeasure(in_time(*batches), BASELINE), BASELINE, RULES, **options)


def found(*batches: Batch, **options: int) -> Diagnosis:
    diagnosis = told(*batches, **options)
    assert diagnosis is not None
    return diagnosis


def test_a_bad_deploy() -> None:
    diagnosis = found(lived(200), lived(60, BAD, **FAULT))
    assert set(diagnosis.metrics) == {"phi", "kappa"}
    assert diagnosis.severity == "critical"
    assert diagnosis.code_hash == BAD
    assert diagnosis.healthy_code_hash == GOOD
    assert diagnosis.since == 1200.0
    assert diagnosis.snapshots == 50
    assert diagnosis.observed["phi"] == pytest.approx(0.3, abs=0.01)
    assert diagnosis.observed["kappa"] == pytest.approx(300.0, abs=2)
    assert diagnosis.observed["memory"] == pytest.approx(0.0, abs=0.05)
    assert diagnosis.target == target_of(BASELINE)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 13, 14, 300])
def test_a_healthy_service_has_no_diagnosis(count: int) -> None:
    assert told(lived(count)) is None


def test_a_healed_service_has_no_diagnosis() -> None:
    assert told(lived(200), lived(60, BAD, **FAULT), lived(40, FIX)) is None
    assert told(lived(200), lived(60, **FAULT), lived(40)) is None


@pytest.mark.parametrize("count", [1, 9])
def test_code_that_has_hardly_run_is_not_judged_by_what_ran_before(count: int) -> None:
    assert told(lived(60, **FAULT), lived(count, FIX)) is None
    assert told(lived(60), lived(count, BAD, **FAULT)) is None


def test_only_the_present_code_is_judged() -> None:
    # Two bad deploys in a row: of the first, nothing may enter the means.
    diagnosis = found(lived(100), lived(30, BAD, phi=0.1), lived(12, FIX, phi=0.5))
    assert diagnosis.observed["phi"] == pytest.approx(0.5, abs=0.02)
    assert diagnosis.code_hash == FIX
    assert diagnosis.healthy_code_hash == GOOD
    assert diagnosis.snapshots == 12


def test_workers_that_change_over_one_by_one() -> None:
    healthy, broken = lived(60, GOOD), lived(60, BAD, **FAULT)
    mixed = [each.take(slice(i, i + 1)) for i in range(60) for each in (healthy, broken)]
    for last in (mixed, mixed[:-1]):
        diagnosis = found(lived(100), *last)
        assert diagnosis.code_hash == BAD
        assert diagnosis.observed["phi"] == pytest.approx(0.3, abs=0.01)
        assert diagnosis.healthy_code_hash == GOOD


def test_an_old_code_deployed_again_is_judged_from_then_on() -> None:
    assert told(lived(100), lived(60, BAD, **FAULT), lived(20)) is None
    diagnosis = found(lived(30, phi=0.5), lived(60, BAD), lived(20, phi=0.3))
    assert diagnosis.code_hash == GOOD
    assert diagnosis.healthy_code_hash == BAD
    assert diagnosis.observed["phi"] == pytest.approx(0.3, abs=0.01)


def test_a_fault_without_a_deploy_was_healthy_with_the_same_code() -> None:
    diagnosis = found(lived(100), lived(40, **FAULT))
    assert diagnosis.code_hash == diagnosis.healthy_code_hash == GOOD
    assert diagnosis.since is not None
    assert 1100.0 <= diagnosis.since <= 1110.0
    assert diagnosis.observed["phi"] == pytest.approx(0.3, abs=0.01)


def test_no_healthy_code_is_known() -> None:
    assert found(lived(60, BAD, **FAULT)).healthy_code_hash == ""
    # Too short a life to say that it was healthy.
    assert found(lived(20), lived(60, BAD, **FAULT)).healthy_code_hash == ""


def test_the_last_healthy_code_lies_behind_several_bad_ones() -> None:
    bad = [lived(25, f"{i:040x}", **FAULT) for i in range(3)]
    assert found(lived(50, "d" * 40), lived(50, GOOD), *bad).healthy_code_hash == GOOD


def test_latency_alone() -> None:
    diagnosis = found(lived(100), lived(30, BAD, avg_latency_ms=50.0))
    assert diagnosis.metrics == ("latency",)
    assert diagnosis.severity == "warning"
    assert diagnosis.observed["latency"] == pytest.approx(50.0, abs=1)


def test_drift_names_the_components() -> None:
    moved = CENTRE.copy()
    moved[7] = 40.0
    diagnosis = found(lived(100), lived(30, BAD, centre=moved))
    assert diagnosis.metrics == ("basin_drift",)
    (finding,) = diagnosis.findings
    assert finding.components[0].index == 7


def test_memory_growth_is_in_megabytes_per_snapshot() -> None:
    diagnosis = found(lived(100), lived(40, BAD, memory_mb=100 + 5.0 * np.arange(40)))
    assert diagnosis.metrics == ("memory",)
    assert diagnosis.observed["memory"] == pytest.approx(5.0, abs=0.1)


def test_critical_before_warning_then_the_further_out() -> None:
    diagnosis = found(lived(100), lived(40, BAD, phi=0.6, kappa_eff=900.0, avg_latency_ms=500.0))
    out = {m: band.excess(diagnosis.observed[m]) for m, band in diagnosis.target.bands.items()}
    assert out["latency"] > out["kappa"] > out["phi"] > 1
    assert diagnosis.metrics == ("phi", "latency", "kappa")


def test_repaired_values_enter_no_mean() -> None:
    faulty = lived(40, BAD, **FAULT)
    faulty.columns["repaired"][::5] = BIT["phi"]
    faulty.columns["phi"][::5] = 0.77
    diagnosis = found(lived(100), faulty)
    assert diagnosis.metrics[0] == "phi"
    assert diagnosis.observed["phi"] == pytest.approx(0.3, abs=0.01)


def test_what_cannot_be_measured_is_said_and_is_no_metric() -> None:
    silent = lived(40, BAD)
    silent.columns["repaired"][:] = sum(BIT[name] for name in ("phi", "kappa_eff", "basin_coords"))
    diagnosis = found(lived(100), silent)
    assert diagnosis.metrics == ("measurement",)
    assert "phi" not in diagnosis.observed
    assert diagnosis.healthy_code_hash == GOOD
    assert [finding.kind for finding in diagnosis.findings] == ["unmeasurable"]


def test_the_window_bounds_the_means() -> None:
    faulty = lived(60, BAD, phi=np.where(np.arange(60) < 40, 0.1, 0.5))
    assert found(lived(100), faulty, window=20).observed["phi"] == pytest.approx(0.5, abs=0.01)
    assert found(lived(100), faulty, window=60).observed["phi"] == pytest.approx(0.7 / 3, abs=0.01)


def test_target_leaves_constant_signals_out() -> None:
    target = target_of(BASELINE)
    assert set(target.bands) == set(METRICS)
    steady = lived(300, seed=3)
    steady.columns["phi"][:] = 1.0
    steady.columns["memory_mb"][:] = 64.0
    learned = Baseline.learn(steady, created=0.0)
    assert learned.bands["phi"].constant
    assert learned.bands["memory"].constant  # no growth at all, which bounds what growth is healthy
    target = target_of(learned)
    assert set(target.bands) == set(METRICS) - {"phi"}
    assert target.basin == learned.basin
    assert target.drift_limit == learned.drift_limit
    band = target.bands["kappa"]
    assert (band.low, band.high) == (learned.bands["kappa"].low, learned.bands["kappa"].high)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_errors_that_never_moved_keep_the_band_that_the_service_is_told_by(rate: float) -> None:
    steady = lived(300, seed=3)
    steady.columns["error_rate"][:] = rate
    learned = Baseline.learn(steady, created=0.0)
    assert learned.bands["errors"].constant
    band = target_of(learned).bands["errors"]
    assert (band.low, band.high) == (learned.bands["errors"].low, learned.bands["errors"].high)
    assert band.sd > 0.0
    settings = MonitorSettings(dim=DIM)
    limits = [r.limit for r in rules_for(settings, learned).rules if r.metric == "errors"]
    if (
        learned.bands["errors"].high == 1.0
    ):  # nothing lies beyond the band then, and the ceiling is all there is
        assert limits == [settings.error_rate_max]
        return
    assert not limits or band.high in limits


def test_a_service_that_never_failed_is_diagnosed_with_a_band_for_its_errors() -> None:
    steady = lived(300, seed=3)
    steady.columns["error_rate"][:] = 0.0
    learned = Baseline.learn(steady, created=0.0)
    failing = remeasure(in_time(steady, lived(60, BAD, error_rate=0.05)), learned)
    diagnosis = diagnose(failing, learned, rules_for(MonitorSettings(dim=DIM), learned))
    assert diagnosis is not None
    assert diagnosis.metrics == ("errors",)
    band = diagnosis.target.bands["errors"]
    assert band.excess(diagnosis.observed["errors"]) > 1.0
    assert (band.mean, band.sd, band.low, band.high) == pytest.approx((0.0, 0.002, 0.0, 0.006))


def test_errors_of_which_nothing_was_learned_have_a_band_too() -> None:
    learned = Baseline.learn(lived(300, seed=3).basin_coords, created=0.0)
    assert set(learned.bands) == {"basin_drift"}
    assert target_of(learned).bands["errors"] == UNSEEN_ERRORS


@given(st.lists(st.tuples(st.sampled_from([GOOD, BAD, FIX]), st.booleans(), st.integers(1, 30)), max_size=6))
@checks(max_examples=60, deadline=None)
def test_any_history_is_judged_by_its_present_code(spans: list[tuple[str, bool, int]]) -> None:
    batches = [lived(count, code, **(FAULT if ill else {})) for code, ill, count in spans]
    diagnosis = told(*batches)
    if diagnosis is not None:
        assert diagnosis.code_hash in {code for code, ill, _ in spans if ill}
        assert diagnosis.code_hash in {code for code, _, count in spans[-5:]}
        assert diagnosis.healthy_code_hash in {"", *(code for code, ill, _ in spans if not ill)}
        assert diagnosis.metrics
        assert diagnosis.observed["phi"] < BASELINE.bands["phi"].mean
