"""Trends as the service asks for them: what a stored batch gives, at a cost that no request notices."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from qigcore.baseline import Baseline
from qigcore.constants import KAPPA_STAR
from qigcore.rows import METRICS, Batch
from qigheal import GeometricHealthMonitor
from qigheal.health import rules_for, trend_of

DIM = 4
KNOWN = Baseline.learn(
    Batch.of_snapshots(
        [
            GeometricHealthMonitor(dim=DIM, code_hash="").capture(
                phi=0.7 + i / 1000, kappa_eff=20.0 + i % 3, basin_coords=[1.0, 2.0, 3.0, 4.0 + i / 100]
            )
            for i in range(40)
        ],
        DIM,
    )
)


def figure(low: float, high: float) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(low, high), st.just(math.nan))


rows = st.fixed_dictionaries(
    {
        "phi": figure(-0.5, 1.5),
        "kappa_eff": figure(-1e3, 1e3),
        "basin_coords": st.one_of(st.none(), st.lists(st.floats(0.1, 9), min_size=DIM, max_size=DIM)),
        "error_rate": figure(0, 1),
        "avg_latency_ms": figure(0, 1e9),
        "memory_mb": figure(0, 1e6),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, max_size=40), st.integers(0, 60), st.sampled_from([None, KNOWN]))
def test_the_service_and_a_reader_of_its_rows_see_the_same(
    states: list[dict[str, Any]], window: int, baseline: Baseline | None
) -> None:
    host = GeometricHealthMonitor(dim=DIM, history_size=30, code_hash="", baseline=baseline)
    for state in states:
        host.capture(state)
    kept = list(host.snapshots)[-window:] if window else []
    batch = Batch.of_snapshots(kept, DIM)
    rules = rules_for(host.settings, baseline)
    for metric in METRICS:
        live, stored = host.get_trend(metric, window), trend_of(batch, metric, baseline, rules)
        # Bit for bit: NaN where NaN is, and no tolerance elsewhere.
        assert repr(live) == repr(stored)


def test_kappa_before_and_after_a_band_is_known() -> None:
    for baseline, centre in ((None, KAPPA_STAR), (KNOWN, KNOWN.bands["kappa"].mean)):
        host = GeometricHealthMonitor(dim=DIM, code_hash="", baseline=baseline)
        for i in range(50):
            host.record(0.7, centre + 10.0 - 0.1 * i, np.ones(DIM))
        found = host.get_trend("kappa")
        assert (found.direction, found.slope) == ("improving", pytest.approx(-0.1))
        assert found.recent_avg == pytest.approx(centre + 10.0 - 0.1 * 44.5)


def worsening(baseline: Baseline | None = None, step: float = 1.0) -> GeometricHealthMonitor:
    """A host each of whose figures gets worse by a straight line and a little noise; a snapshot each 10 s."""
    host = GeometricHealthMonitor(dim=DIM, code_hash="", baseline=baseline)
    noise = np.random.default_rng(5).normal(size=(50, 6))
    for i in range(50):
        late, wobble = i * step, noise[i]
        host.capture(
            phi=0.9 - 0.002 * late + 0.001 * wobble[0],
            kappa_eff=64.0 - 0.1 * late + 0.05 * wobble[1],
            basin_coords=[1.0, 2.0, 3.0, 4.0 + 0.05 * max(late + 0.1 * wobble[2], 0.0)],
            error_rate=0.001 + 0.0003 * late + 0.0001 * abs(wobble[3]),
            avg_latency_ms=100.0 + 2.0 * late + wobble[4],
            memory_mb=500.0 + late + wobble[5],
            timestamp=1.7e9 + 10.0 * i,
        )
    return host


# What the lines of `worsening` reach under the absolute limits: when, in snapshots after the 50th. The
# drift is curved, so that no true time can be said of it.
@pytest.mark.parametrize(
    ("metric", "limit", "true"),
    [
        ("phi", 0.65, 76.0),
        ("kappa", KAPPA_STAR - 10.0, 48.9),
        ("basin_drift", 2.0, None),
        ("latency", 2000.0, 901.0),
        ("errors", 0.05, 114.0),
        ("memory", None, None),
    ],
)
def test_what_degrades_says_when_it_is_at_its_limit(
    metric: str, limit: float | None, true: float | None
) -> None:
    found = worsening().get_trend(metric)
    assert found.direction == "degrading"
    assert -1.0 <= found.autocorrelation <= 1.0
    if limit is None:
        assert found.reaches is None
        return
    assert found.reaches is not None
    assert (found.reaches.course, found.reaches.limit) == ("reaches", limit)
    assert found.reaches.eta_s == pytest.approx(10.0 * found.reaches.eta)
    assert found.reaches.low < found.reaches.eta < found.reaches.high
    if true is not None:
        assert found.reaches.eta == pytest.approx(true, rel=0.05)


def test_once_learned_the_edge_of_the_band_is_what_is_reached() -> None:
    found = worsening(KNOWN).get_trend("phi").reaches
    assert found is not None
    assert found.limit == KNOWN.bands["phi"].low


@pytest.mark.parametrize("metric", METRICS)
def test_what_does_not_degrade_reaches_nothing(metric: str) -> None:
    assert worsening(step=0.0).get_trend(metric).reaches is None
    improving = worsening(step=-0.5) if metric in ("phi", "latency", "memory") else worsening(step=0.0)
    assert improving.get_trend(metric).reaches is None


@pytest.mark.parametrize("metric", ["mood", "", "kappa_eff", None, 5, ["phi"], {}])
def test_another_metric_is_refused_with_those_there_are(metric: Any) -> None:
    with pytest.raises(ValueError, match=r"^metric: expected one of phi, kappa, basin_drift, .*, got "):
        GeometricHealthMonitor(dim=DIM, code_hash="").get_trend(metric)


def test_values_that_were_all_repaired_have_no_trend() -> None:
    host = GeometricHealthMonitor(dim=DIM, code_hash="")
    for _ in range(60):
        host.record(math.nan, math.nan, None, math.nan, math.nan, math.nan)  # type: ignore[arg-type]
    for metric in METRICS:
        found = host.get_trend(metric)
        assert (found.direction, found.snapshots) == ("unknown", 0)
        assert math.isnan(found.recent_avg)


@pytest.mark.alone
def test_asking_costs_no_more_than_ten_gauges_and_checking_twenty() -> None:
    host = GeometricHealthMonitor(code_hash="")
    basins = np.random.default_rng(0).dirichlet(np.full(64, 300.0), 1000)
    for i, basin in enumerate(basins):
        host.record(0.75, 64.0 + i % 7, basin, 0.0, 5.0, 100.0)

    worse = worsening(KNOWN)  # all but κ degrade, and a second line is drawn through the values

    def cost(call: Any) -> float:
        """The best of many turns, in µs: what else the machine does falls on some of them only."""
        best = math.inf
        for _ in range(50):
            started = time.perf_counter()
            for _ in range(100):
                call()
            best = min(best, (time.perf_counter() - started) / 100)
        return best * 1e6

    gauge = Gauge("peer", "what a call of this kind costs on this machine now", registry=CollectorRegistry())
    peer = cost(lambda: gauge.set(0.75))
    for metric in METRICS:
        assert cost(lambda metric=metric: host.get_trend(metric)) < 10 * peer
        assert cost(lambda metric=metric: worse.get_trend(metric)) < 10 * peer
    assert cost(host.check_health) < 20 * peer
