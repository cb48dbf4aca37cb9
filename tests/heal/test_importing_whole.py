"""An import is whole: all rows or none, all values as the file has them, all names, and the file's limits."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History, intake, writer
from qigcore.recorder import Recorder
from qigheal import GeometricHealthMonitor, importing
from qigheal.importing import import_file
from qigheal.settings import MonitorSettings
from tests.heal.test_earlier import earlier_file
from tests.heal.test_importing import changed, scanned


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    earlier_file(tmp_path / "old.json")
    return tmp_path / "old.json"


def captured(count: int, dim: int = 8, bad: tuple[int, ...] = (), begin: float = 1.7e9) -> Any:
    """Rows of a service, of which some had an unusable Φ and basin."""
    rng = np.random.default_rng(count)
    recorder = Recorder(dim, 1000)
    for i in range(count):
        basin = rng.dirichlet(np.ones(dim))
        recorder.capture(
            timestamp=begin + 2 * i,
            phi=math.nan if i in bad else rng.random(),
            kappa_eff=64.0,
            basin_coords=None if i in bad else basin,
            agency=math.inf if i in bad else None,
        )
    _, heads, basins = recorder.rows(0, count)
    return heads, basins, recorder.names


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_what_a_store_exported_is_there_already_with_its_repaired_values(
    store: Path, tmp_path: Path, precision: Any
) -> None:
    """Each writer's repaired rows hold that writer's last good values, which are not the last ones in the file."""
    for begin, bad in ((1.7e9, (0, 5, 6)), (1.7e9 + 1, (8,))):
        with History(store, dim=8, precision=precision) as history:
            history.append_rows(*captured(20, bad=bad, begin=begin))
    with History.read_only(store) as history:
        history.export(tmp_path / "all.json")
        history.export(tmp_path / "late.json", start=1.7e9 + 10)  # which begins with a repaired one
    for name in ("all", "late"):
        done = import_file(tmp_path / f"{name}.json", store)
        assert (done.stored, done.known) == (0, done.snapshots)
    old, new = scanned(store, 8), None
    for _ in range(2):
        import_file(tmp_path / "all.json", tmp_path / "new")
        new = scanned(tmp_path / "new", 8)
        assert (len(new), int((new.repaired != 0).sum())) == (40, 4)
        for column in ("timestamp", "phi", "kappa_eff", "basin_coords", "repaired", "agency", "regime"):
            assert old.columns[column].tobytes() == new.columns[column].tobytes(), column


def test_a_flagged_value_that_is_unusable_is_repaired_anew(store: Path, file: Path) -> None:
    data = json.loads(file.read_text())
    data["snapshots"][0]["basin_coords"] = None
    data["snapshots"][3]["phi"] = math.nan
    data["snapshots"][4]["phi"] = 0.25
    flagged = {"0": ["basin_coords"], "3": ["phi", "phi"], "4": ["phi"]}
    changed(file, snapshots=data["snapshots"], repaired=flagged, baseline_basin=None)
    assert import_file(file, store).repaired == 3
    batch = scanned(store)
    assert np.flatnonzero(batch.repaired).tolist() == [0, 3, 4]
    assert batch.phi[2:6].tolist() == [0.75, 0.75, 0.25, 0.75]
    assert batch.basin_drift[1] == pytest.approx(0.0, abs=1e-7)  # the first good one is the reference


def test_a_reference_is_no_repaired_basin(store: Path, file: Path) -> None:
    changed(file, repaired={"0": ["basin_coords"]}, baseline_basin=None)
    import_file(file, store)
    drift = scanned(store).basin_drift
    assert drift[0] > 0.05
    assert drift[1] == pytest.approx(0.0, abs=1e-7)


def test_an_import_is_one_segment_whatever_its_span_and_size(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 1000)
    monkeypatch.setattr(importing, "_PART", 300)
    data = earlier_file(tmp_path / "old.json", n=700)
    for i, snapshot in enumerate(data["snapshots"]):
        snapshot["timestamp"] = datetime.fromtimestamp(1.6e9 + 86_400 * i, UTC).isoformat()
    changed(tmp_path / "old.json", snapshots=data["snapshots"])
    assert import_file(tmp_path / "old.json", store).stored == 700
    with History.read_only(store) as history:
        assert [segment.rows for segment in history.segments()] == [700]
    assert not list(store.glob("*.journal"))


KILLED = """
import os, signal, sys
from pathlib import Path
from qigheal.importing import import_file

rename, done = os.rename, 0

def renaming(old, new, **options):
    global done
    out = old.parent.name == '.import' and new.parent.name != '.import'
    if out and done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(old, new, **options)
    done += out
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

os.rename = renaming
import_file(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_killed_import_leaves_all_or_nothing_and_never_rows_without_their_limits(
    store: Path, tmp_path: Path, renamed: int
) -> None:
    """Killed before the first renaming, between that of the limits and that of the rows, and after both."""
    earlier_file(tmp_path / "old.json", phi_min=0.5)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "old.json"), str(store), str(renamed)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(scanned(store)) == (40 if renamed == 2 else 0)
    if renamed:
        assert MonitorSettings.load(store).phi_min == 0.5
    assert import_file(tmp_path / "old.json", store).stored == (0 if renamed == 2 else 40)
    assert len(scanned(store)) == 40
    assert MonitorSettings.load(store).phi_min == 0.5
    assert not (store / intake.STAGE).exists()


def test_a_new_store_is_made_for_what_most_basins_are(store: Path, file: Path) -> None:
    data = json.loads(file.read_text())
    data["snapshots"][0]["basin_coords"] = [1.0, 2.0]
    changed(file, snapshots=data["snapshots"])
    done = import_file(file, store)
    assert (done.stored, done.repaired, done.dim) == (40, 1, 64)


def test_a_file_of_which_most_basins_would_be_lost_is_refused(store: Path, file: Path) -> None:
    data = json.loads(file.read_text())
    for snapshot in data["snapshots"][:20]:
        snapshot["basin_coords"] = [0.0] * 64
    changed(file, snapshots=data["snapshots"])
    assert import_file(file, store).repaired == 20
    shutil.rmtree(store)
    data["snapshots"][20]["basin_coords"] = [0.0] * 64
    changed(file, snapshots=data["snapshots"])
    with pytest.raises(HistoryError, match="21 of its 40 basins are no states of the sphere with 64"):
        import_file(file, store)
    assert not store.exists()
    for snapshot in data["snapshots"][:21]:
        snapshot["basin_coords"] = [0.6, 0.8]
    changed(file, snapshots=data["snapshots"])
    with GeometricHealthMonitor(history=store, geometry="sphere", code_hash=""):
        pass
    with pytest.raises(HistoryError, match="only 19 of its 40 basins have 64 components"):
        import_file(file, store)


def test_names_of_any_number_and_kind_are_kept(store: Path, tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json", n=4500)
    for i, snapshot in enumerate(data["snapshots"]):
        snapshot["basin_coords"] = [0.6, 0.8]
        snapshot["module_name"] = (
            "n" * 3000 if i == 7 else "bad \ud800" if i == 8 else 9 if i == 9 else f"{i}"
        )
        snapshot["code_hash"] = f"{i:08x}"
    changed(tmp_path / "old.json", snapshots=data["snapshots"], baseline_basin=None)
    done = import_file(tmp_path / "old.json", store)
    assert done.notes == (
        f"{tmp_path / 'old.json'}: 1 module names or code hashes were no text, and were left out",
    )
    batch = scanned(store, 2)
    assert batch.module_name[4499] == "4499"
    assert len(set(batch.module_name)) == len(set(batch.code_hash)) == 4500
    assert [len(name) for name in batch.module_name[7:10]] == [1024, 5, 0]
    assert import_file(tmp_path / "old.json", store).known == 4500
    with History.read_only(store) as history:
        history.export(tmp_path / "new.json")
    assert import_file(tmp_path / "new.json", store).known == 4500


@pytest.mark.parametrize(("zone", "expected"), [("Europe/Berlin", 0), ("UTC", 3600)])
def test_the_hour_that_autumn_has_twice_is_taken_for_the_first(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, expected: int
) -> None:
    first = 1698539400.0  # 2:30 in summer time; an hour later it is 2:30 again
    with History(store, dim=8) as history:
        history.append_rows(*captured(1, begin=first + 3600))
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            with History.read_only(store) as history:
                history.export(tmp_path / "all.json")
            import_file(tmp_path / "all.json", tmp_path / "new")
    finally:
        time.tzset()
    assert scanned(tmp_path / "new", 8).timestamp.tolist() == [first + expected]
