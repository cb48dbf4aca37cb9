"""A file of the earlier modules taken into a store, and out of it again."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError
from qigcore.history import History, intake
from qigcore.history.fields import microseconds
from qigcore.rows import HEAD, Batch
from qigheal import GeometricHealthMonitor, importing
from qigheal.importing import import_file
from qigheal.settings import MonitorSettings
from tests.heal.test_earlier import earlier_file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    earlier_file(tmp_path / "old.json")
    return tmp_path / "old.json"


def scanned(store: Path, dim: int = 64) -> Batch:
    with History.read_only(store) as history:
        return Batch.concat(history.scan(), dim)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(path: Path, **fields: Any) -> Path:
    """The file with some keys of its object replaced."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def test_the_same_rows_as_a_monitor_that_loads_the_file(store: Path, file: Path, tmp_path: Path) -> None:
    done = import_file(file, store)
    assert (done.snapshots, done.stored, done.known, done.repaired) == (40, 40, 0, 0)
    assert (done.geometry, done.dim, done.notes) == ("sphere", 64, ())
    assert (done.first, done.last) == (1.7e9, 1.7e9 + 39 * 60)
    host = GeometricHealthMonitor(geometry="sphere", code_hash="")
    host.load_history(file)
    batch = scanned(store)
    for i, snapshot in enumerate(host.snapshots):
        assert batch.timestamp[i] == snapshot.timestamp
        assert batch.basin_coords[i].tobytes() == snapshot.basin_coords.tobytes()
        assert batch.code_hash[i] == snapshot.code_hash
        for name in ("phi", "kappa_eff", "basin_drift", "confidence", "error_rate", "memory_mb"):
            assert batch.columns[name][i] == getattr(snapshot, name)
    assert sorted(path.suffix for path in store.iterdir()) == ["", ".json", ".qigh"]
    assert store.stat().st_mode & 0o777 == 0o700


def test_earlier_json_to_a_store_and_back(store: Path, tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json", n=700, phi_min=0.6, basin_drift_max=1.5)
    import_file(tmp_path / "old.json", store)
    with History.read_only(store) as history:
        assert history.export(tmp_path / "new.json") == 700
    written = json.loads((tmp_path / "new.json").read_text())
    for fields in data["snapshots"]:
        fields["regime"] = "geometric"  # by our bounds
    assert written == data
    host = GeometricHealthMonitor(geometry="sphere", code_hash="")
    host.load_history(tmp_path / "new.json")
    assert len(host.snapshots) == 700


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
def test_a_monitors_file_to_a_store_and_back(store: Path, tmp_path: Path, geometry: Any) -> None:
    rng = np.random.default_rng(6)
    host = GeometricHealthMonitor(geometry=geometry, dim=8, code_hash="c0ffee00", module_name="gary")
    for i in range(50):
        host.capture(
            phi=math.nan if i == 4 else rng.random(),
            kappa_eff=rng.normal(60, 5),
            basin_coords=None if i == 7 else rng.dirichlet(np.ones(8)),
            timestamp=round(1.6e9 + 1e6 * i + rng.random(), 6),
            agency=rng.random() if i % 2 else None,
        )
    host.save_history(tmp_path / "old.json")
    done = import_file(tmp_path / "old.json", store)
    assert (done.stored, done.repaired, done.geometry, done.dim) == (50, 2, geometry, 8)
    with History.read_only(store) as history:
        history.export(tmp_path / "new.json")
    old, new = (json.loads((tmp_path / name).read_text()) for name in ("old.json", "new.json"))
    assert new.pop("baseline_basin") is not None
    assert old.pop("baseline_basin") is not None
    assert new == old


def test_what_is_there_already_is_not_stored_again(store: Path, tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    first = tmp_path / "first.json"
    first.write_text(json.dumps({**data, "snapshots": data["snapshots"][:25]}))
    assert import_file(first, store).stored == 25
    before = tree(store)
    assert import_file(first, store).known == 25
    assert tree(store) == before
    done = import_file(tmp_path / "old.json", store)
    assert (done.stored, done.known) == (15, 25)
    assert scanned(store).timestamp.tolist() == [1.7e9 + 60 * i for i in range(40)]


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_what_a_service_recorded_itself_is_there_already(store: Path, tmp_path: Path, precision: Any) -> None:
    rng = np.random.default_rng(2)
    with (
        History(store, precision=precision, dim=8) as history,
        GeometricHealthMonitor(dim=8, history=history, code_hash="c0ffee00") as host,
    ):
        for _ in range(60):
            host.record(rng.random(), rng.normal(60, 5), rng.dirichlet(np.ones(8)), 0.0, rng.random())
        host.save_history(tmp_path / "own.json")
    done = import_file(tmp_path / "own.json", store)
    assert (done.stored, done.known) == (0, 60)


def near_ties(count: int) -> list[tuple[float, float]]:
    """Moments near the middle of two microseconds, and what compact segments of earlier versions made of them.

    Those rounded the product twice. Such segments stay as they are.
    """
    rng = np.random.default_rng(4)
    times = np.sort(1.7e9 + rng.random(20 * count) * 1e5)
    twice = np.rint(times * 1e6)
    apart = twice != microseconds(times)[0]
    assert apart.sum() >= count
    return list(zip(times[apart][:count].tolist(), (twice[apart][:count] / 1e6).tolist(), strict=True))


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_a_moment_that_was_rounded_another_way_is_there_already(
    store: Path, tmp_path: Path, precision: Any
) -> None:
    rng = np.random.default_rng(5)
    usual = {"dim": 8, "code_hash": "c0ffee00"}
    with (
        History(store, precision=precision, dim=8) as history,
        GeometricHealthMonitor(**usual, history=history) as host,
        GeometricHealthMonitor(**usual) as remembered,
    ):
        for moment, twice in near_ties(60):
            state = {"phi": rng.random(), "kappa_eff": 64.0, "basin_coords": rng.dirichlet(np.ones(8))}
            host.capture(**state, timestamp=twice if precision == "compact" else moment)
            remembered.capture(**state, timestamp=moment)
        remembered.save_history(tmp_path / "own.json")
    before = tree(store)
    for _ in range(2):
        done = import_file(tmp_path / "own.json", store)
        assert (done.stored, done.known) == (0, 60)
    assert tree(store) == before
    with History.read_only(store) as history:
        history.export(tmp_path / "exported.json")
    assert import_file(tmp_path / "exported.json", store).stored == 0
    import_file(tmp_path / "own.json", tmp_path / "other")
    assert import_file(tmp_path / "exported.json", tmp_path / "other").stored == 0


@pytest.mark.parametrize("part", [1, 2, 4096])
def test_two_rows_of_one_microsecond_and_of_two_that_touch_both_stay(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(importing, "_PART", part)
    data = earlier_file(tmp_path / "old.json", n=4)
    touching = ["2023-11-14T22:13:20.000001", "2023-11-14T22:13:20.000002"]
    for i, snapshot in enumerate(data["snapshots"]):
        snapshot.update(timestamp=touching[i // 2], phi=0.7 + i % 2 / 100, kappa_eff=64.0, code_hash="")
    both = data["snapshots"]
    changed(tmp_path / "old.json", snapshots=both[:1])
    assert import_file(tmp_path / "old.json", store).stored == 1
    changed(tmp_path / "old.json", snapshots=both)
    done = import_file(tmp_path / "old.json", store)
    assert (done.stored, done.known) == (3, 1)
    assert import_file(tmp_path / "old.json", store).known == 4
    assert sorted(scanned(store).phi.tolist()) == [0.7, 0.7, 0.71, 0.71]


def test_equal_rows_a_microsecond_apart_are_two(store: Path, tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json", n=1)
    first = data["snapshots"][0] | {"timestamp": "2023-11-14T22:13:20.000001"}
    second = first | {"timestamp": "2023-11-14T22:13:20.000002"}
    for given, stored in (([second], 1), ([first, second], 1), ([second, first], 0)):
        changed(tmp_path / "old.json", snapshots=given)
        assert import_file(tmp_path / "old.json", store).stored == stored


def test_rows_of_one_moment_and_equal_rows_are_all_stored_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_PART", 8)
    data = earlier_file(tmp_path / "old.json", n=40)
    for i, snapshot in enumerate(data["snapshots"]):
        snapshot.update(data["snapshots"][0], phi=0.5 + (i // 20) / 100)
    changed(tmp_path / "old.json", snapshots=data["snapshots"])
    assert import_file(tmp_path / "old.json", store).stored == 40
    assert import_file(tmp_path / "old.json", store).known == 40
    assert len(scanned(store)) == 40


def test_a_store_that_has_limits_and_a_baseline_keeps_them(store: Path, file: Path) -> None:
    learned = Baseline.learn(np.random.default_rng(1).normal(5, 1, (50, 64)), geometry="sphere")
    with GeometricHealthMonitor(
        0.5, 1.0, geometry="sphere", breakdown_from=0.7, history=store, baseline=learned, code_hash=""
    ):
        pass
    import_file(file, store)
    settings = MonitorSettings.load(store)
    assert (settings.phi_min, settings.basin_drift_max) == (0.5, 1.0)
    batch = scanned(store)
    assert set(batch.regime) == {2}  # Φ 0.75 is in breakdown by this store's bounds
    assert batch.basin_drift.min() > 0.5  # from the baseline, and not from the file's first basin
    with History.read_only(store) as history:
        history.export(file.with_name("new.json"))
    written = json.loads(file.with_name("new.json").read_text())
    assert (written["phi_min"], written["basin_drift_max"]) == (0.5, 1.0)
    assert written["baseline_basin"] == pytest.approx(learned.basin)


def test_unusable_values_are_repaired_and_flagged(store: Path, tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    data["snapshots"][3]["phi"] = math.nan
    data["snapshots"][4]["basin_coords"] = [1.0]
    del data["snapshots"][5]["kappa_eff"]
    data["snapshots"][6]["confidence"] = None
    changed(tmp_path / "old.json", snapshots=data["snapshots"], basin_drift_max=4.0, baseline_basin=[0.0])
    done = import_file(tmp_path / "old.json", store)
    assert (done.stored, done.repaired) == (40, 3)
    assert len(done.notes) == 2
    assert "limits" in done.notes[0]
    assert "baseline_basin" in done.notes[1]
    batch = scanned(store)
    assert np.flatnonzero(batch.repaired).tolist() == [3, 4, 5]
    assert np.isnan(batch.confidence[6])


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def each(text: str, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> str:
    data = json.loads(text)
    return json.dumps(
        {**data, "snapshots": [change(i, fields) for i, fields in enumerate(data["snapshots"])]}
    )


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[: len(text) * 2 // 3], "at character"),
    "flipped": (lambda text: text[:40_000] + "}" + text[40_001:], "at character"),
    "no text": (lambda text: "\xff\0\x93" * 300, "save_history"),
    "empty": (lambda text: "", "save_history"),
    "two in one": (lambda text: text + text, "expected the end"),
    "no snapshots": (lambda text: '{"phi_min": 0.65}', "no snapshots"),
    "twice": (lambda text: text[:-1] + ', "snapshots": []}', "snapshots stands there twice"),
    "a number": (lambda text: text[:-2] + ", 3]}", "snapshot 40 is no object"),
    "no time": (
        lambda text: each(text, lambda i, f: without(f, "timestamp") if i == 20 else f),
        "snapshot 20",
    ),
    "strange time": (
        lambda text: each(text, lambda i, f: f | ({"timestamp": "yesterday"} if i == 30 else {})),
        "1 of those from 0 to 39",
    ),
    "geometry": (lambda text: text[:-1] + ', "geometry": "torus"}', "torus"),
    "no basins": (lambda text: each(text, lambda i, f: f | {"basin_coords": "none"}), "basin"),
    "repaired": (lambda text: text[:-1] + ', "repaired": {"0": ["psi"]}}', "repaired"),
    "repaired lists": (lambda text: text[:-1] + ', "repaired": {"0": [[1]]}}', "names of fields"),
    "deep": (lambda text: '{"phi_min": ' + "[" * 100_000, "nested"),
}


@pytest.mark.parametrize("there", [False, True], ids=["new store", "old store"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_file_leaves_the_store_as_it_was(store: Path, file: Path, kind: str, there: bool) -> None:
    if there:
        import_file(file, store)
    before = tree(store)
    change, said = BROKEN[kind]
    file.write_text(change(file.read_text()), "latin-1")
    with pytest.raises(HistoryError, match=said):
        import_file(file, store)
    assert store.exists() == there
    assert tree(store) == before
    if there:
        assert sorted(path.name for path in store.iterdir()) == sorted(before)


def test_any_damage_is_refused_or_flagged(store: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    earlier_file(tmp_path / "old.json", n=2)
    whole = (tmp_path / "old.json").read_bytes()
    refused = 0
    for _ in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.2 else whole)
        for place in rng.integers(0, len(data), 2):
            data[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "old.json").write_bytes(data)
        try:
            assert import_file(tmp_path / "old.json", store).stored == 2
            shutil.rmtree(store)
        except HistoryError:
            refused += 1
            assert not store.exists()
    assert 20 < refused < 140


def test_basins_of_another_length_and_files_that_are_not_there(store: Path, file: Path) -> None:
    import_file(file, store)
    before = tree(store)
    file.write_text(each(file.read_text(), lambda i, fields: fields | {"basin_coords": [0.6, 0.8]}))
    with pytest.raises(HistoryError, match="none of its basins has 64 components"):
        import_file(file, store)
    with pytest.raises(HistoryError, match="cannot be read: No such file"):
        import_file(file.with_name("none.json"), store)
    with pytest.raises(HistoryError, match="cannot be read: it is a folder and no regular file"):
        import_file(store, store)
    assert tree(store) == before


def test_a_pipe_is_refused_and_not_waited_for(store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HistoryError, match="cannot be read: it is a FIFO and no regular file"):
        import_file(tmp_path / "pipe", store)
    assert not store.exists()


def test_signed_basins_are_not_repaired_away_on_the_simplex(store: Path, file: Path) -> None:
    with GeometricHealthMonitor(history=store, code_hash=""):
        pass
    before = tree(store)
    with pytest.raises(HistoryError, match=r"signed vectors, and .* on the simplex; import into a store of"):
        import_file(file, store)
    assert tree(store) == before


def test_weights_go_to_a_simplex_whatever_the_file_says_and_never_to_a_sphere(
    store: Path, tmp_path: Path
) -> None:
    host = GeometricHealthMonitor(dim=8, code_hash="")
    for i in range(20):
        host.capture(phi=0.7, kappa_eff=64.0, basin_coords=np.arange(1.0, 9.0), timestamp=1.7e9 + i)
    host.save_history(tmp_path / "weights.json")
    assert json.loads((tmp_path / "weights.json").read_text())["geometry"] == "simplex"
    with GeometricHealthMonitor(history=tmp_path / "sphere", geometry="sphere", dim=8, code_hash=""):
        pass
    with pytest.raises(HistoryError, match=r"lie on the simplex, and .* on the sphere"):
        import_file(tmp_path / "weights.json", tmp_path / "sphere")
    data = json.loads((tmp_path / "weights.json").read_text())
    del data["geometry"]
    (tmp_path / "silent.json").write_text(json.dumps(data))
    with GeometricHealthMonitor(history=store, dim=8, code_hash=""):
        pass
    assert import_file(tmp_path / "silent.json", store).geometry == "simplex"
    assert not scanned(store, 8).repaired.any()


def test_a_disk_that_fails_late_leaves_the_store_as_it_was(
    store: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_file(file, store)
    before = tree(store)
    later = earlier_file(file)["snapshots"]
    for snapshot in later:
        snapshot["phi"] = 0.7
    changed(file, snapshots=later)

    def failing(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "sync_folder", failing)
        with pytest.raises(HistoryError, match="nothing was stored: Input/output error"):
            import_file(file, store)
        assert tree(store) == before
        fresh = store.with_name("fresh")
        with pytest.raises(HistoryError, match="nothing was stored"):
            import_file(file, fresh)
        assert not fresh.exists()
    assert import_file(file, store).stored == 40


def test_what_a_killed_import_left_is_cleared_away(store: Path, file: Path) -> None:
    with History(store / intake.STAGE, dim=64, geometry="sphere") as left:
        left.append_rows(np.zeros(3, HEAD), np.ones((3, 64)), ("",))
    assert len(scanned(store)) == 0
    assert import_file(file, store).stored == 40
    assert len(scanned(store)) == 40
    assert not (store / intake.STAGE).exists()


def test_one_import_at_a_time(store: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_PATIENCE_S", 0.0)
    store.mkdir()
    descriptor = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(HistoryError, match="by another process"):
            import_file(file, store)
    finally:
        os.close(descriptor)
    assert import_file(file, store).stored == 40


def test_a_live_writer_and_its_followers_see_all(store: Path, file: Path) -> None:
    with History(store, geometry="sphere", precision="exact") as history:
        heads = np.zeros(1, HEAD)
        heads["timestamp"] = 1.7e9 + 1
        history.append_rows(heads, np.ones((1, 64)), ("",))
        stop = False
        follower = history.follow(poll_s=0.01, stop=lambda: stop)
        assert len(next(follower)) == 1
        import_file(file, store)
        assert sum(map(len, _until(follower, 40))) == 40
        heads["timestamp"] += 1
        history.append_rows(heads, np.ones((1, 64)), ("",))
        stop = True
        assert sum(map(len, follower)) == 1
    assert len(scanned(store)) == 42


def _until(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    while count > 0:
        batch = next(batches)
        count -= len(batch)
        yield batch


def test_a_file_without_snapshots_makes_no_store(store: Path, tmp_path: Path) -> None:
    earlier_file(tmp_path / "old.json", n=1, snapshots=[], baseline_basin=None)
    done = import_file(tmp_path / "old.json", store)
    assert (done.snapshots, done.stored, done.first, done.last) == (0, 0, None, None)
    assert not store.exists()


def test_a_file_that_changes_while_it_is_read_is_refused(
    store: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = importing.take_in

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        os.utime(file, (time.time() + 5, time.time() + 5))
        return take(*arguments, **options)

    monkeypatch.setattr(importing, "take_in", meanwhile)
    with pytest.raises(HistoryError, match="changed while it was read"):
        import_file(file, store)
    assert not store.exists()
