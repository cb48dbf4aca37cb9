"""The monitor as a host uses it, in memory: recording, learning, reporting."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qigheal
from qigcore.baseline import Baseline
from qigcore.errors import BaselineError, InvalidLimit, InvalidSnapshot, TooLittleData
from qigcore.recorder import GeometricSnapshot
from qigcore.rows import Batch, FloatArray
from qigcore.rules import severities
from qigheal import GeometricHealthMonitor
from qigheal.health import rules_for
from qigheal.monitor import Limits
from qigheal.monitor.ringview import RingView
from qigheal.records import SEVERITIES
from qigheal.settings import MonitorSettings

DIM = 16


def monitor(**options: Any) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(**{"dim": DIM, "code_hash": "", "learn_after": 50, **options})


def states(n: int, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.full(DIM, 300.0), n)


def feed(target: GeometricHealthMonitor, n: int, *, seed: int = 1, **fixed: float) -> None:
    """n healthy snapshots, but for what is fixed."""
    rng = np.random.default_rng(seed)
    for basin in states(n, seed):
        phi = fixed.get("phi", rng.normal(0.75, 0.01))
        kappa = fixed.get("kappa", rng.normal(66, 2))
        target.record(phi, kappa, basin, fixed.get("errors", 0.0), 5.0, 90.0)


def test_recording_runs_no_python_code() -> None:
    host, basin = monitor(), states(1)[0]
    record, seen = host.record, []
    sys.setprofile(lambda frame, event, argument: seen.append(event) if event == "call" else None)
    try:
        record(0.75, 66.0, basin, 0.0, 5.0, 90.0)
    finally:
        sys.setprofile(None)
    assert not seen
    assert len(host.snapshots) == 1


def test_limits_by_keyword_are_those_of_the_settings() -> None:
    named = {"phi_min", "basin_drift_max", "history_size", "geometry"}
    assert set(get_type_hints(Limits)) | named == set(MonitorSettings.__struct_fields__)
    hints = get_type_hints(MonitorSettings)
    assert all(hints[name] == hint for name, hint in get_type_hints(Limits).items())
    host = GeometricHealthMonitor(0.6, 1.5, 200, geometry="sphere", latency_max_ms=9.0)
    assert host.settings == MonitorSettings(
        phi_min=0.6, basin_drift_max=1.5, history_size=200, geometry="sphere", latency_max_ms=9.0
    )
    with pytest.raises(InvalidLimit, match="phi_min"):
        monitor(phi_min=2.0)


def test_before_ten_snapshots_it_is_learning() -> None:
    host = monitor()
    assert host.check_health().state == "learning"
    assert host.baseline_basin is None
    feed(host, 9, phi=0.1)
    report = host.check_health()
    assert (report.healthy, report.state, report.snapshots) == (True, "learning", 9)
    feed(host, 1, phi=0.1)
    assert host.check_health().issues[0] == "Φ degraded: 0.100 < 0.65"


def test_a_steady_host_is_healthy_once_learned_whatever_its_figures() -> None:
    host = monitor()
    feed(host, 49, phi=1.0, kappa=7.8)
    before = host.check_health()
    assert before.state == "absolute"
    assert {finding.kind for finding in before.findings} == {"breakdown", "kappa_off"}
    feed(host, 1, phi=1.0, kappa=7.8)
    after = host.check_health()
    assert (after.healthy, after.state) == (True, "learned")
    assert "host never met κ within 10 of 64.21 (healthy mean 7.8)" in after.notes
    feed(host, 10, phi=0.9, kappa=7.8)
    assert host.check_health().issues == ("Φ degraded: 0.900 < 0.985",)


def test_not_a_number_for_long_is_unmeasurable_and_teaches_nothing() -> None:
    host = monitor(history_size=100)
    for _ in range(400):
        host.record(math.nan, math.nan, np.full(DIM, math.nan), math.nan, math.nan, math.nan)
    report = host.check_health()
    assert report.severity == "critical"
    assert [finding.kind for finding in report.findings] == ["unmeasurable"]
    assert host.baseline is None
    assert host.invalid["phi"] == 400
    feed(host, 50)
    learned = host.baseline
    assert learned is not None
    assert (learned.count, learned.skipped) == (50, 0)
    assert learned.bands["phi"].mean == pytest.approx(0.75, abs=0.01)


def test_learning_waits_for_as_many_good_snapshots_as_asked() -> None:
    host = monitor(history_size=40, learn_after=60)  # more than the ring holds at once
    for _ in range(6):
        feed(host, 9, seed=3)
        host.record(math.nan, 66.0, states(1)[0])
    assert host.baseline is None
    feed(host, 6, seed=3)
    learned = host.baseline
    assert learned is not None
    assert (learned.count, learned.skipped) == (60, 0)


def test_baseline_basin_is_the_first_good_state_and_then_the_centre() -> None:
    host = monitor()
    host.record(0.7, 60.0, np.zeros(DIM))
    first = states(1)[0]
    host.record(0.7, 60.0, first)
    assert host.baseline_basin == pytest.approx(np.sqrt(first))
    feed(host, 60)
    assert host.baseline is not None
    assert host.baseline_basin == pytest.approx(np.array(host.baseline.basin))
    assert host.snapshots[-1].basin_drift < 0.3


def moments(seed: int, n: int) -> list[dict[str, Any]]:
    """n states around the limits, some of them unusable, with times of their own."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.random(n) < 0.05) % 2
    basins = states(n, seed)
    basins[:, 2] *= 1 + 2 * level
    return [
        {
            "timestamp": 1e9 + i,
            "phi": math.nan if rng.random() < 0.05 else 0.75 - 0.1 * level[i] + rng.normal(0, 0.02),
            "kappa_eff": 66 + rng.normal(0, 2),
            "basin_coords": None if rng.random() < 0.05 else basins[i],
            "avg_latency_ms": 5 + 40 * level[i],
        }
        for i in range(n)
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 160))
def test_asking_often_changes_nothing(seed: int, n: int) -> None:
    quiet, asked = monitor(history_size=40), monitor(history_size=40)
    for moment in moments(seed, n):
        quiet.capture(moment)
        asked.capture(moment)
        asked.check_health()
        asked.get_trend("phi")
    assert quiet.check_health() == asked.check_health() == asked.check_health()
    assert (quiet.baseline is None) == (asked.baseline is None)
    if quiet.baseline is not None and asked.baseline is not None:
        assert quiet.baseline.bands == asked.baseline.bands
        assert quiet.baseline.basin == asked.baseline.basin


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_the_report_at_each_moment_is_the_replay_of_the_rows(seed: int) -> None:
    known = Baseline.learn(states(100, seed=7))
    host = monitor(history_size=200, baseline=known)
    seen = []
    for moment in moments(seed, 120):
        host.capture(moment)
        ruled = [each.severity for each in host.check_health().findings if each.kind != "change"]
        seen.append(max(map(SEVERITIES.index, ruled), default=0))
    rows = Batch.of_snapshots(host.snapshots, DIM).heads()
    assert severities(rows, rules_for(host.settings, known)).tolist() == seen


def test_severity_clears_after_five_clean_snapshots() -> None:
    host = monitor(learn_after=1000)
    feed(host, 20)
    feed(host, 1, errors=0.2)
    for _ in range(4):
        feed(host, 1)
        assert host.check_health().severity == "critical"
    feed(host, 1)
    assert host.check_health().healthy


def test_a_finding_began_where_it_began_however_long_ago() -> None:
    host = monitor(history_size=2000, learn_after=2000)
    feed(host, 100)
    for i in range(1500):
        host.capture(phi=0.75, kappa_eff=66.0, basin_coords=states(1)[0], error_rate=0.2, timestamp=2e9 + i)
    (finding,) = host.check_health().findings
    assert (finding.since, finding.snapshots) == (2e9, 1500)


def test_of_what_began_long_ago_the_last_ten_thousand_tell() -> None:
    host, basin = monitor(history_size=20_000, learn_after=20_000), states(1)[0]
    for i in range(12_000):
        host.capture(phi=0.75, kappa_eff=66.0, basin_coords=basin, error_rate=0.2, timestamp=1e9 + i)
    (finding,) = host.check_health().findings
    # Nothing fires before the tenth of them.
    assert (finding.since, finding.snapshots) == (1e9 + 12_000 - 10_000 + 9, 10_000 - 9)
    feed(host, 5_000, errors=0.2)
    assert host.check_health().findings[0].snapshots == 9_991


def test_a_drift_names_its_components() -> None:
    host = monitor()
    feed(host, 60)
    for basin in states(10, seed=5):
        basin[4] *= 4
        host.record(0.75, 66.0, basin, 0.0, 5.0, 90.0)
    (finding,) = host.check_health().findings
    assert finding.kind == "drift"
    assert finding.components[0].index == 4
    assert finding.components[0].share > 0.5


def test_set_baseline_learns_from_the_ring() -> None:
    host = monitor(history_size=100)
    with pytest.raises(TooLittleData):
        host.set_baseline()
    feed(host, 60)
    feed(host, 100, seed=2, phi=0.4)
    assert not host.check_health().healthy
    learned = host.set_baseline()
    assert learned.bands["phi"].mean == pytest.approx(0.4)
    assert learned is host.baseline
    report = host.check_health()
    assert report.healthy
    assert "host never met Φ ≥ 0.65 (healthy mean 0.4)" in report.notes


def test_a_known_baseline_is_used_from_the_start() -> None:
    teacher = monitor()
    feed(teacher, 60)
    host = monitor(baseline=teacher.baseline)
    assert host.check_health().state == "learning"
    feed(host, 10, phi=0.70)
    report = host.check_health()
    assert report.state == "learned"
    assert report.findings[0].kind == "phi_low"
    with pytest.raises(BaselineError, match="expected a baseline of the sphere"):
        monitor(baseline=teacher.baseline, geometry="sphere")


def test_states_without_a_mean_leave_a_note() -> None:
    host = monitor(dim=2, geometry="sphere", learn_after=40)
    for i in range(40):
        angle = 2 * math.pi * i / 40
        host.record(0.75, 66.0, np.array([math.cos(angle), math.sin(angle)]))
    assert host.baseline is None
    assert any("no baseline could be learned" in note for note in host.check_health().notes)


def test_trends() -> None:
    host = monitor()
    assert host.get_trend("phi").direction == "unknown"
    for i in range(60):
        host.record(0.7 - 0.002 * i, 66.0, states(1)[0], 0.0, 5.0 + 0.1 * i)
    assert host.get_trend("phi").direction == "degrading"
    assert host.get_trend("phi", window=20).snapshots == 20
    assert host.get_trend("latency").direction == "degrading"
    assert host.get_trend("phi").slope == pytest.approx(-0.002)
    with pytest.raises(ValueError, match="metric"):
        host.get_trend("mood")


def test_snapshots_are_a_sequence() -> None:
    host = monitor(history_size=30, learn_after=1000)
    assert len(host.snapshots) == 0
    with pytest.raises(IndexError):
        host.snapshots[0]
    for i in range(50):
        host.capture(phi=i / 100, kappa_eff=66.0, basin_coords=states(1)[0])
    view = host.snapshots
    assert len(view) == 30
    assert [round(100 * each.phi) for each in view] == list(range(20, 50))
    assert [round(100 * each.phi) for each in view[-3:]] == [47, 48, 49]
    assert view[-1] == view[29]
    assert isinstance(view[0], GeometricSnapshot)
    with pytest.raises(IndexError, match="holds 30"):
        view[30]
    iterator = iter(view)
    next(iterator)
    feed(host, 10)  # overwrites ten of those that the iteration has before it
    assert len(list(iterator)) == 20


def test_raising_is_for_hosts_that_ask_for_it() -> None:
    host = monitor(on_invalid="raise")
    with pytest.raises(InvalidSnapshot, match="phi"):
        host.record(2.0, 66.0, states(1)[0])
    assert len(host.snapshots) == 0


def test_regime_bounds_are_settings() -> None:
    host = monitor(breakdown_from=0.7, linear_below=0.1)
    assert host.capture(phi=0.72, kappa_eff=66.0, basin_coords=states(1)[0]).regime == "breakdown"


def test_checking_costs_the_same_after_many_snapshots() -> None:
    def cost(host: GeometricHealthMonitor) -> float:
        best = math.inf
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(50):
                host.check_health()
            best = min(best, (time.perf_counter() - started) / 50)
        return best

    host = GeometricHealthMonitor(code_hash="")
    basin = np.full(64, 1 / 64)
    for _ in range(1000):
        host.record(0.75, 64.0, basin, 0.0, 5.0, 100.0)
    early = cost(host)
    for _ in range(99_000):
        host.record(0.75, 64.0, basin, 0.0, 5.0, 100.0)
    late = cost(host)
    assert late < 2 * early
    assert late < 100e-6  # 3 µs alone on a core; whole milliseconds would be another algorithm


def test_the_package_names_what_users_need() -> None:
    assert set(qigheal.__all__) <= set(dir(qigheal))
    assert qigheal.GeometricSnapshot is GeometricSnapshot
    assert qigheal.HealingPatch.__name__ == "HealingPatch"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qigheal.nothing  # noqa: B018  # type: ignore[attr-defined]


def test_importing_starts_nothing() -> None:
    code = (
        "import threading, atexit, os\n"
        "hooks = []\n"
        "os.register_at_fork = lambda **k: hooks.append(k)\n"
        "from qigheal import GeometricHealthMonitor\n"
        "assert threading.active_count() == 1 and not hooks, hooks\n"
        "GeometricHealthMonitor(code_hash='')\n"
        "assert threading.active_count() == 1 and len(hooks) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_slice_passes_over_snapshots_overwritten_meanwhile() -> None:
    host = GeometricHealthMonitor(dim=4, history_size=20)
    for i in range(20):
        host.record(0.75, float(i), np.ones(4))

    class Busy:
        """A ring that another thread writes to between any two looks."""

        total, capacity = 20, 20

        def snapshot(self, number: int) -> GeometricSnapshot:
            host.record(0.75, 0.0, np.ones(4))
            return host._recorder.snapshot(number)

    view = RingView(Busy())  # type: ignore[arg-type]
    assert [each.kappa_eff for each in view[:]] == []
    assert [each.kappa_eff for each in view] == []
