"""What a collector exposes, over a monitor and over a store, and what it says where there is nothing to expose."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from qigheal import GeometricHealthMonitor
from qigheal.integrations.metrics.catalogue import FIELDS, KINDS, METRICS
from qigheal.integrations.metrics.reading import Reading
from qigheal.integrations.prometheus import HealthCollector
from tests.metrics.scraped import exposition, healed_store, record, scrape

ROOT = Path(__file__).resolve().parents[2]
PACKET = (
    "geometric_health_phi",
    "geometric_health_kappa",
    "geometric_health_basin_drift",
    "geometric_health_status",
    "healing_attempts_total",
    "healing_success_total",
    "healing_failures_total",
    "healing_fitness_score",
    "healing_patch_generation_duration_seconds",
    "healing_patch_test_duration_seconds",
    "healing_patch_apply_duration_seconds",
)
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


@pytest.fixture
def monitor(tmp_path: Path) -> Any:
    with GeometricHealthMonitor(history=tmp_path / "store") as made:
        record(made, 320)
        made.flush()
        yield made


def test_a_monitor_gives_its_own_figures(monitor: GeometricHealthMonitor) -> None:
    collector = HealthCollector(monitor)
    found = scrape(collector)
    last = monitor.snapshots[-1]
    assert found["geometric_health_phi"] == last.phi
    assert found["geometric_health_kappa"] == last.kappa_eff
    assert found["geometric_health_basin_drift"] == last.basin_drift
    assert found["geometric_health_error_ratio"] == last.error_rate
    assert found["geometric_health_latency_seconds"] == pytest.approx(last.avg_latency_ms / 1000)
    assert found["geometric_health_memory_bytes"] == 120e6
    assert found["geometric_health_snapshots_total"] == 320
    assert found["geometric_health_baseline_learned"] == 1
    baseline = monitor.baseline
    assert baseline is not None
    assert found["geometric_health_phi_limit"] == baseline.bands["phi"].low
    assert found["geometric_health_basin_drift_limit"] == baseline.drift_limit
    assert found["geometric_health_status|normal"] == 1
    assert found["geometric_health_status|critical"] == 0
    assert 0 <= found["geometric_health_snapshot_age_seconds"] < 300
    assert found["geometric_health_history_bytes"] > 1000
    assert not [name for name in found if name.startswith("healing_")], "a service knows nothing of healing"
    assert scrape(collector)["geometric_health_checks_total"] == 2


def test_a_degradation_is_counted_once_and_named(monitor: GeometricHealthMonitor) -> None:
    collector = HealthCollector(monitor)
    before = scrape(collector)
    record(monitor, 20, phi=0.3, seed=1)
    for _ in range(3):
        found = scrape(collector)
        assert found["geometric_health_degradations_total"] == 1
        assert found["geometric_health_alarms_total|phi_low"] == 1
        assert found["geometric_health_finding|phi_low"] == 1
        assert found["geometric_health_status|critical"] == 1
    assert before["geometric_health_degradations_total"] == 0
    record(monitor, 40, seed=2)
    record(monitor, 20, phi=0.3, seed=3)
    assert scrape(collector)["geometric_health_degradations_total"] == 2


def dips(monitor: GeometricHealthMonitor, count: int, seed: int) -> None:
    for number in range(count):
        record(monitor, 20, phi=0.3, seed=seed + 2 * number)
        record(monitor, 40, seed=seed + 2 * number + 1)


@pytest.mark.parametrize(("before", "then"), [(350, 0), (296, 6)], ids=["learned", "learning"])
def test_no_degradation_is_missed_where_drift_was_measured_from_what_held_before(
    before: int, then: int, tmp_path: Path
) -> None:
    with GeometricHealthMonitor(history=tmp_path / "store") as monitor:
        monitor.record(
            0.77, 64.0, [1.0] + [0.01] * 63, 0.001, 5.0, 120.0
        )  # what drift is measured from, first
        record(monitor, before)
        monitor.flush()
        own, stored = HealthCollector(monitor), HealthCollector(tmp_path / "store")
        record(monitor, then, seed=1)
        monitor.flush()
        for collector in (own, stored):
            assert scrape(collector)["geometric_health_degradations_total"] == 0
        dips(monitor, 3, seed=10)
        monitor.flush()
        assert scrape(own)["geometric_health_degradations_total"] == 3
        assert scrape(stored)["geometric_health_degradations_total"] == 3


def test_a_repaired_value_is_counted_and_not_shown(monitor: GeometricHealthMonitor) -> None:
    collector = HealthCollector(monitor)
    known = scrape(collector)["geometric_health_phi"]
    monitor.record(float("nan"), 64.0, [1.0] * 64)
    found = scrape(collector)
    assert found["geometric_health_phi"] == known
    assert found["geometric_health_invalid_snapshots_total|phi"] == 1
    assert found["geometric_health_kappa"] == 64.0


def test_a_service_that_falls_silent_has_no_figures_but_its_age() -> None:
    clock = [time.time()]
    monitor = GeometricHealthMonitor()
    record(monitor, 20)
    collector = HealthCollector(monitor, clock=lambda: clock[0])
    assert scrape(collector)["geometric_health_writers"] == 1
    clock[0] += 401
    found = scrape(collector)
    assert found["geometric_health_writers"] == 0
    assert "geometric_health_phi" not in found
    assert "geometric_health_status|normal" not in found
    assert found["geometric_health_snapshot_age_seconds"] >= 400
    assert found["geometric_health_snapshots_total"] == 20


def test_a_ring_that_turned_over_between_two_scrapes() -> None:
    monitor = GeometricHealthMonitor(history_size=20)
    record(monitor, 20)
    collector = HealthCollector(monitor)
    record(monitor, 70, phi=0.3)
    found = scrape(collector)
    assert found["geometric_health_snapshots_total"] == 90
    assert found["geometric_health_alarms_total|phi_low"] == 1
    assert found["geometric_health_phi"] == monitor.snapshots[-1].phi


def test_a_monitor_that_recorded_nothing_has_no_figures() -> None:
    found = scrape(HealthCollector(GeometricHealthMonitor()))
    assert "geometric_health_phi" not in found
    assert "geometric_health_snapshot_age_seconds" not in found
    assert found["geometric_health_writers"] == 0
    assert found["geometric_health_baseline_learned"] == 0
    assert found["geometric_health_phi_limit"] == 0.65


def test_a_store_gives_all_that_the_packet_names(monitor: GeometricHealthMonitor, tmp_path: Path) -> None:
    healed_store(tmp_path / "store", at=1.0)
    text = exposition(HealthCollector(tmp_path / "store"))
    for name in PACKET:
        assert re.search(rf"^# TYPE {name} ", text, re.MULTILINE), name
        assert re.search(rf"^{name}(_count|_bucket)?[ {{]", text, re.MULTILINE), name
    assert set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)) == {metric.name for metric in METRICS}
    assert 'geometric_health_status{severity="normal"} 1.0' in text
    assert "qigheal_scrape_errors" in text
    assert not re.search(r"^qigheal_scrape_errors.* 1", text, re.MULTILINE)


@promtool
def test_promtool_finds_nothing_to_object_to(monitor: GeometricHealthMonitor, tmp_path: Path) -> None:
    healed_store(tmp_path / "store", at=1.0)
    for source in (monitor, tmp_path / "store"):
        text = exposition(HealthCollector(source))
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_store_says_the_same_of_one_process_as_its_monitor(
    monitor: GeometricHealthMonitor, tmp_path: Path
) -> None:
    own, stored = HealthCollector(monitor), HealthCollector(tmp_path / "store")
    record(monitor, 20, phi=0.3, seed=1)
    record(monitor, 40, seed=2)
    record(monitor, 15, phi=0.3, seed=3)
    monitor.flush()
    ours, theirs = scrape(own), scrape(stored)
    assert theirs["geometric_health_snapshots_total"] == 75, "since the collector began"
    assert theirs["geometric_health_history_snapshots"] == ours["geometric_health_snapshots_total"] == 395
    for name in ours.keys() & theirs.keys():
        if name.split("|")[0] not in (
            "geometric_health_snapshots_total",
            "geometric_health_snapshot_age_seconds",
        ):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-3), name  # stored to 14 bits


def test_a_scrape_of_no_store_says_so_and_recovers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collector = HealthCollector(tmp_path / "store")
    for _ in range(3):
        assert scrape(collector)["qigheal_scrape_errors|history"] == 1
    assert len([each for each in caplog.records if "history" in each.message]) == 1, "said at each scrape"
    with GeometricHealthMonitor(history=tmp_path / "store") as monitor:
        record(monitor, 12)
        monitor.flush()
        found = scrape(collector)
    assert found["qigheal_scrape_errors|history"] == 0
    assert found["geometric_health_snapshots_total"] == 12, "all that came since the collector began"
    assert found["geometric_health_writers"] == 1


def test_what_is_broken_costs_its_own_part_alone(monitor: GeometricHealthMonitor, tmp_path: Path) -> None:
    store = tmp_path / "store"
    healed_store(store, at=1.0)
    collector = HealthCollector(store)
    (store / "ledger.db").rename(tmp_path / "kept.db")
    (store / "ledger.db").write_text("no ledger")
    found = scrape(collector)
    assert found["qigheal_scrape_errors|ledger"] == 1
    assert found["qigheal_scrape_errors|history"] == 0
    assert found["geometric_health_status|normal"] == 1
    (tmp_path / "kept.db").rename(store / "ledger.db")
    assert scrape(collector)["healing_attempts_total"] == 4
    (store / "baseline.json").write_text("{}")
    record(monitor, 3)
    monitor.flush()
    found = scrape(collector)
    assert found["qigheal_scrape_errors|health"] == 1
    assert found["qigheal_scrape_errors|history"] == 0
    assert found["geometric_health_snapshots_total"] == 3
    assert found["geometric_health_writers"] == 1
    assert found["qigheal_scrape_errors|ledger"] == 0
    assert found["healing_attempts_total"] == 4
    shutil.rmtree(store)
    assert scrape(collector)["qigheal_scrape_errors|history"] == 1


def test_damaged_segments_are_told_while_they_are_there(
    monitor: GeometricHealthMonitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    other = tmp_path / "other"
    with GeometricHealthMonitor(history=other) as made:
        record(made, 300)
    segment = next(other.glob("*.qigh"))
    whole = segment.read_bytes()
    collector = HealthCollector(store)
    assert scrape(collector)["qigheal_scrape_errors|history"] == 0
    half = len(whole) // 2
    for damaged in (b"nothing" * 1000, whole[:half] + bytes(64) + whole[half + 64 :]):
        (store / segment.name).write_bytes(damaged)
        caplog.clear()
        for _ in range(2):
            found = scrape(collector)
            assert found["qigheal_scrape_errors|history"] == 1
            assert found["geometric_health_status|normal"] == 1
            assert found["geometric_health_writers"] == 1
        assert [segment.name in each.getMessage() for each in caplog.records] == [True]
        (store / segment.name).unlink()
        assert scrape(collector)["qigheal_scrape_errors|history"] == 0


def test_a_monitor_that_fails_does_not_fail_the_scrape(
    monitor: GeometricHealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: GeometricHealthMonitor) -> None:
        raise RuntimeError("no")

    collector = HealthCollector(monitor)
    monkeypatch.setattr(GeometricHealthMonitor, "check_health", fails)
    found = scrape(collector)
    assert found["qigheal_scrape_errors|health"] == 1
    assert found["geometric_health_snapshots_total"] == 320


def test_labels_have_no_values_but_the_catalogues() -> None:
    reading = Reading()
    reading.put("geometric_health_alarms_total", 1.0, 'a"b\n{}')
    reading.put("geometric_health_alarms_total", 1.0)
    reading.put("geometric_health_phi", 1.0, "of somebody")
    assert not reading.values
    assert len({*FIELDS}) == len(FIELDS) <= 11
    assert len({*KINDS}) == len(KINDS)


def test_registered_where_it_is_asked_and_nowhere_else(monitor: GeometricHealthMonitor) -> None:
    registry = CollectorRegistry(auto_describe=True)
    HealthCollector(monitor, registry=registry)
    assert registry.get_sample_value("geometric_health_snapshots_total") == 320
    with pytest.raises(ValueError, match="Duplicated"):
        HealthCollector(monitor, registry=registry)


IN_A_SERVICE = """
import json, sys
from prometheus_client import REGISTRY, generate_latest
before = generate_latest(REGISTRY)
from qigheal import GeometricHealthMonitor
from qigheal.integrations.prometheus import HealthCollector
import qigheal.integrations.metrics.catalogue
assert b"geometric" not in generate_latest(REGISTRY)
monitor = GeometricHealthMonitor()
monitor.record(0.77, 64.0, [1.0] * 64)
HealthCollector(monitor, registry=REGISTRY)
assert b"geometric_health_phi 0.77" in generate_latest(REGISTRY)
import threading
assert threading.active_count() == 1
print(json.dumps(sorted(sys.modules)))
"""


def test_a_service_loads_no_healing_and_an_import_does_nothing() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SERVICE], capture_output=True, text=True, check=True, env=env
    )
    loaded = json.loads(done.stdout)
    unwanted = {"numba", "scipy", "libcst", "statistics", "typer", "rich", "sqlite3", "opentelemetry"}
    assert not unwanted & {name.split(".")[0] for name in loaded}
    assert not [name for name in loaded if name.startswith(("qigheal.healing", "qigheal.repo"))]


def test_the_reference_lists_every_metric_as_it_is() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)(?:\{(\w+)\})?` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    told = {name: (label, kind, help.strip(), "store" if source.strip() == "store" else "both")
            for name, label, kind, help, source in rows}  # fmt: skip
    assert told == {metric.name: (metric.label, metric.kind, metric.help, metric.of) for metric in METRICS}
