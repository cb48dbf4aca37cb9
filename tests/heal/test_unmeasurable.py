"""A host that cannot be measured is not healthy: for a moment, for a day, in either mode, on every clock."""

from __future__ import annotations

import math
import threading
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.baseline import Baseline
from qigcore.errors import InvalidSnapshot, TooLittleData
from qigcore.history import History
from qigcore.rows import METRICS, REPAIRABLE, Batch, FloatArray
from qigheal import GeometricHealthMonitor
from qigheal.health import remeasure, replay, rules_for

DIM = 8
DAY = 1440
"""Snapshots of a day, one a minute."""

NAN = math.nan
NOTHING: dict[str, Any] = {
    **dict.fromkeys(("phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb"), NAN),
    "basin_coords": np.full(DIM, NAN),
}


def monitor(**options: Any) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(**{"dim": DIM, "code_hash": "", "learn_after": 60, **options})


def states(n: int, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.full(DIM, 300.0), n)


def healthy(n: int, seed: int = 1, start: float = 1e9) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "timestamp": start + 60.0 * i,
            "phi": 0.75 + rng.normal(0, 0.01),
            "kappa_eff": 66.0 + rng.normal(0, 2),
            "basin_coords": basin,
            "avg_latency_ms": 5.0,
            "memory_mb": 90.0,
        }
        for i, basin in enumerate(states(n, seed))
    ]


def a_day_of_nothing(host: GeometricHealthMonitor, start: float = 2e9) -> None:
    for i in range(DAY):
        with suppress(InvalidSnapshot):
            host.capture(NOTHING, timestamp=start + 60.0 * i)


def stored(folder: Path) -> Batch:
    with History.read_only(folder) as history:
        return Batch.concat(history.scan(), DIM)


# --- NaN for a day ----------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
def test_a_day_of_nan_is_unmeasurable_and_teaches_nothing(tmp_path: Path, geometry: Any) -> None:
    with monitor(history=tmp_path, history_size=2000, geometry=geometry) as host:
        for i in range(DAY):
            host.record(NAN, NAN, NOTHING["basin_coords"], NAN, NAN, NAN)
            if i >= 9:
                assert not host.check_health().healthy
        report = host.check_health()
        assert (report.severity, [finding.kind for finding in report.findings]) == (
            "critical",
            ["unmeasurable"],
        )
        assert all(math.isnan(report.metrics[name]) for name in report.metrics if name != "breakdown_count")
        assert {host.get_trend(metric).direction for metric in METRICS} == {"unknown"}
        assert (host.baseline, host.baseline_basin) == (None, None)
        assert host.invalid == dict.fromkeys(REPAIRABLE[:6], DAY)
        with pytest.raises(TooLittleData):
            host.set_baseline()
    # Nor does what is left on the disk: a reader comes to the same, and a restart begins anew.
    rows = stored(tmp_path)
    assert len(rows) == DAY
    assert not any(rows.good(column).any() for column in ("phi", "kappa_eff", "basin_drift", "memory_mb"))
    assert (replay(rows, rules_for(host.settings, None))[9:] == 2).all()
    with pytest.raises(TooLittleData):
        Baseline.learn(rows, geometry=geometry)
    assert not (tmp_path / "baseline.json").exists()
    with monitor(history=tmp_path, geometry=geometry) as again:
        for fields in healthy(60):
            again.capture(fields)
        learned = again.baseline
        assert learned is not None
        assert (learned.count, learned.skipped) == (60, 0)
        assert learned.bands["phi"].mean == pytest.approx(0.75, abs=0.01)


def test_a_day_of_nan_changes_nothing_that_was_learned_and_ends_with_it(tmp_path: Path) -> None:
    with monitor(history=tmp_path) as host:
        for fields in healthy(60):
            host.capture(fields)
        host.flush()
        before, file = host.baseline, (tmp_path / "baseline.json").read_bytes()
        assert host.check_health().healthy
        a_day_of_nothing(host)
        assert [finding.kind for finding in host.check_health().findings] == ["unmeasurable"]
        since = host.check_health().findings[0].since
        assert host.baseline is before
        assert (tmp_path / "baseline.json").read_bytes() == file
        # Six of ten are measured again at the sixth; four more positions hold what the fifth before found.
        for count, fields in enumerate(healthy(11, seed=2, start=3e9), 1):
            host.capture(fields)
            assert host.check_health().healthy == (count == 11)
    assert since is not None
    assert since >= 2e9


def test_one_field_alone_makes_it_unmeasurable() -> None:
    for name in ("phi", "kappa_eff", "basin_coords", "error_rate", "avg_latency_ms", "memory_mb", "agency"):
        host = monitor()
        for fields in healthy(20):
            host.capture({**fields, name: NAN})
        assert [finding.kind for finding in host.check_health().findings] == ["unmeasurable"], name


# --- on_invalid="raise": what was refused leaves no row ---------------------------------------------


def test_a_day_of_refusals_is_not_healthy_either() -> None:
    host = monitor(on_invalid="raise")
    a_day_of_nothing(host)
    report = host.check_health()
    assert (report.healthy, report.severity, report.snapshots) == (False, "critical", 0)
    assert report.issues == ("unmeasurable, snapshots refused: 10 > 3 of the last 10",)
    assert report.findings[0].snapshots == DAY
    assert host.check_health().findings == report.findings
    for fields in healthy(60):
        host.capture(fields)
    assert host.check_health().healthy
    a_day_of_nothing(host)
    assert [finding.kind for finding in host.check_health().findings] == ["unmeasurable"]
    assert host.baseline is not None
    assert host.baseline.count == 60


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=60))
def test_refused_and_repaired_are_equally_unmeasurable(goods: list[bool]) -> None:
    lenient, strict = monitor(learn_after=1000), monitor(learn_after=1000, on_invalid="raise")
    good = healthy(1)[0]
    for usable in goods:
        fields = good if usable else {**good, "kappa_eff": "high"}
        lenient.capture(fields)
        with suppress(InvalidSnapshot):
            strict.capture(fields)
        found, same = (
            [finding for finding in host.check_health().findings if finding.kind == "unmeasurable"]
            for host in (lenient, strict)
        )
        assert [(each.severity, each.value, each.limit) for each in found] == [
            (each.severity, each.value, float(each.limit)) for each in same
        ]


def test_when_the_refusals_began() -> None:
    host = monitor(on_invalid="raise")
    for fields in healthy(20):
        host.capture(fields)
    before = datetime.now(UTC).timestamp()
    for i in range(30):
        with pytest.raises(InvalidSnapshot):
            host.capture(
                healthy(1)[0], timestamp="never" if i % 2 else None, module_name=None if i % 2 else 7
            )
    (finding,) = host.check_health().findings
    assert finding.snapshots == 30
    assert finding.since is not None
    assert before - 1e-3 <= finding.since <= datetime.now(UTC).timestamp()


# --- what a row has no flag for ---------------------------------------------------------------------


def test_unusable_times_and_names_are_told() -> None:
    host = monitor(module_name="front")
    for fields in healthy(20):
        host.capture(fields)
    assert host.check_health().notes == ()
    for fields in healthy(3):
        host.capture({**fields, "timestamp": "yesterday", "module_name": 5 if fields["phi"] > 0.75 else "ok"})
    notes = host.check_health().notes
    assert notes[0] == "timestamp: 3 were unusable; those snapshots have the time of their recording"
    assert notes[1].startswith("module_name: ")
    assert host.check_health().healthy


def test_a_module_per_request_is_bounded_and_told(tmp_path: Path) -> None:
    def requests(first: int, last: int) -> None:
        for i in range(first, last):
            host.capture(fields, module_name=f"request {i} " + "x" * 200)

    fields = healthy(1)[0]
    with monitor(history=tmp_path, history_size=20_000, module_name="front") as host:
        requests(0, 5000)
        host.flush()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            requests(5000, 15_000)
            host.flush()  # what the writing thread holds for the moment is not kept
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 1_000_000  # their names alone are 2 MB
        (note,) = [note for note in host.check_health().notes if note.startswith("module_name")]
        assert "a module per request?" in note
        assert host.invalid == {"module_name": 15_000 - 4095}
    rows = stored(tmp_path)
    assert (len(rows), host.losses) == (15_000, 0)
    assert rows.module_name[0].startswith("request 0 x")
    assert rows.module_name[-1] == "front"


# --- clocks that step back --------------------------------------------------------------------------


def stepping(n: int) -> list[dict[str, Any]]:
    """An hour back every 50 snapshots, and a day back once."""
    moments = healthy(n)
    for i, fields in enumerate(moments):
        fields["timestamp"] -= 3600.0 * (i // 50) + (86_400.0 if i >= 120 else 0.0)
        fields["kappa_eff"] = 60.0 + i / 100
    return moments


def test_clocks_that_step_back_change_no_judgement(tmp_path: Path) -> None:
    store = History(tmp_path, dim=DIM, precision="exact")
    steady, back = monitor(), monitor(history=store)
    ordered = stepping(200)
    for i, fields in enumerate(ordered):
        steady.capture(fields, timestamp=1e9 + 60.0 * i)
        back.capture(fields)
        ours, theirs = back.check_health(), steady.check_health()
        assert (ours.severity, ours.issues, ours.metrics) == (theirs.severity, theirs.issues, theirs.metrics)
    assert {metric: back.get_trend(metric) for metric in METRICS} == {
        metric: steady.get_trend(metric) for metric in METRICS
    }
    assert back.baseline is not None
    assert steady.baseline is not None
    assert back.baseline.bands == steady.baseline.bands
    back.close()
    store.close()
    # Each row comes back once, with its own time, in the order in which they were recorded.
    rows = stored(tmp_path)
    assert rows.timestamp.tolist() == [fields["timestamp"] for fields in ordered]
    assert rows.kappa_eff.tolist() == [fields["kappa_eff"] for fields in ordered]
    live = replay(remeasure(rows, back.baseline), rules_for(back.settings, back.baseline))
    assert live[-1] == 0


def test_a_finding_on_a_clock_that_stepped_back_says_what_the_clock_said() -> None:
    host = monitor(learn_after=1000)
    for fields in healthy(20):
        host.capture(fields)
    for fields in healthy(10, start=5e8):
        host.capture({**fields, "error_rate": 0.5})
    (finding,) = host.check_health().findings
    assert (finding.since, finding.snapshots) == (5e8, 10)


def test_offsets_and_summer_time() -> None:
    """One hour of local time comes twice a year: a host that reports offsets reports both of them."""
    host = monitor()
    first = datetime(2024, 10, 27, 2, 30, tzinfo=UTC).astimezone()
    for fold in (0, 1):
        moment = first.replace(tzinfo=None, fold=fold)
        assert host.capture(healthy(1)[0], timestamp=moment).timestamp == moment.timestamp()
    east = first.astimezone(tz=datetime.strptime("+0530", "%z").tzinfo)
    assert host.capture(healthy(1)[0], timestamp=east + timedelta(0)).timestamp == first.timestamp()


# --- eight threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_invalid", ["repair", "raise"])
def test_eight_threads_record_while_others_ask(tmp_path: Path, on_invalid: Any) -> None:
    rounds, workers = 400, 8
    host = monitor(history=tmp_path, history_size=20_000, learn_after=500, on_invalid=on_invalid)
    basins, start = states(rounds), threading.Barrier(workers + 2)
    failures: list[Exception] = []
    refused = [0] * workers

    def work(worker: int) -> None:
        start.wait()
        for i, basin in enumerate(basins):
            bad = i % 10 == worker
            try:
                host.record(
                    NAN if bad else 0.75, float(1000 * worker + i), basin.tolist() if i % 2 else basin
                )
            except InvalidSnapshot:
                refused[worker] += 1

    def ask() -> None:
        start.wait()
        while any(thread.is_alive() for thread in writers):
            try:
                report = host.check_health()
                assert report.snapshots <= host.check_health().snapshots
                for metric in METRICS:
                    host.get_trend(metric)
                [snapshot.phi for snapshot in host.snapshots[-20:]]
            except Exception as error:
                failures.append(error)

    writers = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    threads = [*writers, *(threading.Thread(target=ask) for _ in range(2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host.close()
    bad = workers * rounds // 10
    kept = workers * rounds - (bad if on_invalid == "raise" else 0)
    assert not failures
    assert refused == [rounds // 10 if on_invalid == "raise" else 0] * workers
    assert host.invalid == {"phi": bad}
    assert (host.check_health().snapshots, host.losses) == (kept, 0)
    rows = stored(tmp_path)
    assert len(set(rows.kappa_eff.tolist())) == len(rows) == kept
    assert int((~rows.good("phi")).sum()) == (bad if on_invalid == "repair" else 0)
