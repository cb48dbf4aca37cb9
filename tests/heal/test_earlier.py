"""The JSON of the earlier modules, read and written."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError
from qigcore.history import History
from qigcore.history.earlier import Earlier
from qigheal import GeometricHealthMonitor

DIM = 64


def monitor(**options: Any) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(**{"code_hash": "", **options})


def earlier_file(path: Path, n: int = 40, **changed: Any) -> dict[str, Any]:
    """A file as the earlier modules wrote it: signed unit basins, naive local time."""
    rng = np.random.default_rng(3)
    centre = rng.normal(size=DIM)
    basins = centre + rng.normal(0, 0.05, (n, DIM))
    basins /= np.linalg.norm(basins, axis=1, keepdims=True)
    data = {
        "phi_min": 0.65,
        "basin_drift_max": 2.0,
        "baseline_basin": basins[0].tolist(),
        "snapshots": [
            {
                "timestamp": datetime.fromtimestamp(1.7e9 + 60 * i).isoformat(),  # noqa: DTZ006
                "phi": 0.75,
                "kappa_eff": 64.0 + i % 3,
                "basin_coords": basins[i].tolist(),
                "confidence": 0.9,
                "surprise": 0.1,
                "agency": 0.5,
                "regime": "breakdown",
                "code_hash": "c0ffee00" if i % 2 else "",
                "module_name": "gary",
                "error_rate": 0.01,
                "avg_latency_ms": 12.5,
                "memory_mb": 300.0,
            }
            for i in range(n)
        ],
        **changed,
    }
    path.write_text(json.dumps(data))
    return data


def test_a_sphere_takes_the_file_as_it_is(tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    host = monitor(geometry="sphere")
    host.load_history(tmp_path / "old.json")
    assert len(host.snapshots) == 40
    for snapshot, fields in zip(host.snapshots, data["snapshots"], strict=True):
        assert snapshot.timestamp == datetime.fromisoformat(fields["timestamp"]).timestamp()
        assert snapshot.basin_coords.tolist() == fields["basin_coords"]
        assert snapshot.code_hash == fields["code_hash"]
        assert (snapshot.module_name, snapshot.confidence, snapshot.memory_mb) == ("gary", 0.9, 300.0)
        assert snapshot.regime == "geometric"  # by the monitor's own bounds
        assert not snapshot.repaired
    assert host.baseline_basin == pytest.approx(np.array(data["baseline_basin"]))
    assert host.snapshots[0].basin_drift == pytest.approx(0.0, abs=1e-7)
    host.record(0.75, 64.0, np.ones(DIM))
    assert host.snapshots[-1].code_hash == ""


def test_what_was_read_is_written_in_the_same_shape(tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    host = monitor(geometry="sphere")
    host.load_history(tmp_path / "old.json")
    host.save_history(tmp_path / "new.json")
    written = json.loads((tmp_path / "new.json").read_text())
    assert written.keys() == data.keys()
    assert written["snapshots"][0].keys() == data["snapshots"][0].keys()
    for fields in data["snapshots"]:
        fields["regime"] = "geometric"
    assert written["snapshots"] == data["snapshots"]
    assert written["baseline_basin"] == pytest.approx(data["baseline_basin"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "old.json"]


def test_signed_basins_are_flagged_on_the_simplex(tmp_path: Path) -> None:
    earlier_file(tmp_path / "old.json")
    host = monitor()
    host.load_history(tmp_path / "old.json")
    assert all(snapshot.repaired == ("basin_coords",) for snapshot in host.snapshots)
    report = host.check_health()
    assert report.issues[0].startswith("unmeasurable")
    assert any("baseline_basin was not taken over" in note for note in report.notes)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["simplex", "sphere"]))
def test_a_round_trip_keeps_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, seed: int, geometry: Any
) -> None:
    rng = np.random.default_rng(seed)
    host = monitor(geometry=geometry, dim=8, code_hash="c0ffee00")
    for i in range(30):
        basin = rng.dirichlet(np.ones(8)) * (1 if geometry == "simplex" else -1)
        host.capture(
            phi=math.nan if i == 4 else rng.random(),
            kappa_eff=rng.normal(60, 5),
            basin_coords=None if i == 7 else basin,
            timestamp=round(1.6e9 + 1e8 * rng.random(), 6),
            confidence=rng.random() if i % 2 else None,
        )
    path = tmp_path_factory.mktemp("json") / "history.json"
    host.save_history(path)
    again = monitor(geometry=geometry, dim=8)
    again.load_history(path)
    for ours, theirs in zip(host.snapshots, again.snapshots, strict=True):
        a, b = ours.to_dict(), theirs.to_dict()
        assert b.pop("basin_drift") == pytest.approx(a.pop("basin_drift"), abs=1e-7)
        local = datetime.fromtimestamp(ours.timestamp)  # noqa: DTZ006
        if local.replace(fold=0).timestamp() == ours.timestamp:  # an hour each autumn is ambiguous
            assert a == b
    assert again.baseline_basin == pytest.approx(host.baseline_basin, abs=1e-12)


def test_not_a_number_in_a_file_is_flagged(tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    data["snapshots"][3]["phi"] = math.nan
    data["snapshots"][4]["basin_coords"] = [1.0]
    del data["snapshots"][5]["kappa_eff"]
    data["snapshots"][6]["confidence"] = None
    (tmp_path / "old.json").write_text(json.dumps(data))
    host = monitor(geometry="sphere")
    host.load_history(tmp_path / "old.json")
    flags = [snapshot.repaired for snapshot in host.snapshots]
    assert flags[3:7] == [("phi",), ("basin_coords",), ("kappa_eff",), ()]


def test_loaded_snapshots_count_as_recorded(tmp_path: Path) -> None:
    earlier_file(tmp_path / "old.json", baseline_basin=None)
    with monitor(geometry="sphere", history=tmp_path / "store", learn_after=40) as host:
        host.load_history(tmp_path / "old.json")
        assert host.check_health().state == "learned"
    with History.read_only(tmp_path / "store") as history:
        assert len(history.last(100)) == 40


def test_a_learned_baseline_is_not_displaced(tmp_path: Path) -> None:
    earlier_file(tmp_path / "old.json")
    known = Baseline.learn(np.random.default_rng(1).normal(5, 1, (50, DIM)), geometry="sphere")
    host = monitor(geometry="sphere", baseline=known)
    host.load_history(tmp_path / "old.json")
    assert host.baseline_basin == pytest.approx(np.array(known.basin))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"snapshots": 3}', '{"snapshots": [3]}', '{"snapshots": [], "phi_min": "x"}', "\xff"],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(HistoryError, match="save_history"):
        Earlier(path)


def test_files_that_cannot_be_reached(tmp_path: Path) -> None:
    host = monitor()
    with pytest.raises(HistoryError, match="cannot be read"):
        host.load_history(tmp_path / "none.json")
    with pytest.raises(HistoryError, match="cannot be written"):
        host.save_history(tmp_path / "none" / "new.json")


def test_local_time_means_local_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    try:
        host = monitor(dim=2)
        host.capture(phi=0.7, kappa_eff=64.0, basin_coords=[0.5, 0.5], timestamp=1.7e9)
        host.save_history(tmp_path / "new.json")
        assert (
            json.loads((tmp_path / "new.json").read_text())["snapshots"][0]["timestamp"]
            == "2023-11-14T18:43:20"
        )
        again = monitor(dim=2)
        again.load_history(tmp_path / "new.json")
        assert again.snapshots[0].timestamp == 1.7e9
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_first_and_last_moment_taken_can_be_written_in_any_local_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        host = GeometricHealthMonitor(dim=4)
        for moment in ("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:58+00:00"):
            host.capture(phi=0.7, kappa_eff=64.0, basin_coords=np.ones(4), timestamp=moment)
        host.save_history(tmp_path / "history.json")
        again = GeometricHealthMonitor(dim=4)
        again.load_history(tmp_path / "history.json")
        assert len(again.snapshots) == 2
    finally:
        monkeypatch.undo()
        time.tzset()
