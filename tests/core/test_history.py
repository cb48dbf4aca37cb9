"""The store as its users see it: one process, no damage."""

from __future__ import annotations

import math
import os
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History
from qigcore.recorder import Recorder
from qigcore.rows import HEAD, Batch

from .stores import NAMES, append, counted, file_of, gather, rows, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def expected(count: int, start: float = 0.0, seed: int = 0) -> Batch:
    return Batch.of_rows(*rows(count, start=start, seed=seed), NAMES)


def test_what_is_appended_comes_back_bit_for_bit_sealed_or_not(path: Path) -> None:
    heads, basins = rows(1000)
    heads["phi"][[3, 700, 999]] = np.array([0x7FF0000000000BAD, 2**63, 0x7FF8DEADBEEF0001], "<u8").view("<f8")
    whole = Batch.of_rows(heads, basins, NAMES)
    with History(path, dim=3, precision="exact") as history:
        for start, end in ((0, 1), (1, 255), (255, 700), (700, 990), (990, 1000)):
            history.append_rows(heads[start:end], basins[start:end], NAMES)
            assert same(gather(history.scan()), whole.take(slice(0, end)))
        assert file_of(path, ".journal").stat().st_size > 0
    assert same(gather(history.scan()), whole)
    assert not list(path.glob("*.journal"))
    assert not history.damage
    with History.read_only(path) as again:
        assert same(gather(again.scan()), whole)


def test_batches_snapshots_and_one_snapshot_are_taken(path: Path) -> None:
    def snapshot(timestamp: float, **changed: Any) -> SimpleNamespace:
        fields: dict[str, Any] = dict.fromkeys(
            ("kappa_eff", "basin_drift", "error_rate", "avg_latency_ms", "memory_mb"), 2.0
        )
        fields |= {
            "timestamp": timestamp,
            "phi": 0.5,
            "confidence": None,
            "surprise": 0.25,
            "agency": math.nan,
        }
        fields |= {"basin_coords": np.array([1.0, 2.0, timestamp]), "repaired": ("phi", "memory_mb")}
        return SimpleNamespace(
            **fields | {"regime": "breakdown", "code_hash": "abc", "module_name": "m"} | changed
        )

    with History(path, dim=3) as history:
        history.append(snapshot(1.0))
        history.append([snapshot(2.0, code_hash=""), snapshot(3.0, regime="linear", repaired=())])
        history.append(expected(2, start=4))
        history.append([])
        found = history.last(9)
        assert found.timestamp.tolist() == [1, 2, 3, 4, 5]
        assert found.repaired.tolist()[:3] == [0b100001, 0b100001, 0]
        assert found.regime.tolist()[:3] == [2, 2, 0]
        assert found.code_hash.tolist() == ["abc", "", "abc", NAMES[1], NAMES[1]]
        assert found.module_name.tolist()[2:4] == ["m", NAMES[2]]
        assert np.isnan(found.confidence[:3]).all()
        assert found.surprise[0] == 0.25
        assert found.basin_coords[2].tolist() == [1, 2, 3]


def test_snapshots_of_a_recorder_are_stored_as_its_rows_are(path: Path) -> None:
    recorder = Recorder(dim=3, code_hash="abc", module_name="service")
    for step in range(4):
        recorder.record(0.7, 64.0, [1.0, 2.0, step + 1.0], 0.01, 5.0, 100.0)
    recorder.capture(phi=math.nan, kappa_eff=64.0, basin_coords=[1.0, 1.0, 1.0], confidence=0.5)
    first, heads, basins = recorder.rows(0, 5)
    with History(path, dim=3, precision="exact") as history:
        history.append([recorder.snapshot(index) for index in range(5)])
        assert first == 0
        assert same(history.last(5), Batch.of_rows(heads, basins, recorder.names))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (SimpleNamespace(basin_coords=[1, 2, 3]), "snapshot 0.*timestamp"),
        (Batch({"phi": np.zeros(2)}), "lacks timestamp, kappa_eff"),
        (Batch.of_rows(np.zeros(2, HEAD), np.zeros((2, 4)), ("",)), r"basins \[n, 3\], got .*\[2, 4\]"),
        (expected(2, start=math.nan), "timestamp: expected finite"),
        (Batch.of_rows(rows(2)[0], rows(2)[1], ("", "a")), "past the table of 2 names"),
    ],
    ids=["snapshot", "columns", "dim", "time", "names"],
)
def test_rows_that_do_not_fit_are_refused_whole(path: Path, wrong: Any, says: str) -> None:
    with History(path, dim=3) as history:
        with pytest.raises(HistoryError, match=says):
            history.append(wrong)
        assert counted(history.scan()) == []


def test_settings_are_checked_when_the_store_is_opened(path: Path) -> None:
    for wrong in (
        {"precision": "rough"},
        {"durability": "none"},
        {"dim": 0},
        {"dim": 64.0},
        {"geometry": "plane"},
    ):
        with pytest.raises(HistoryError, match=next(iter(wrong))):
            History(path, **wrong)  # type: ignore[arg-type]
    assert not path.exists()
    (path.parent / "file").write_text("")
    with pytest.raises(HistoryError, match="expected a folder"):
        History(path.parent / "file")


def test_one_store_holds_one_kind_of_basin(path: Path) -> None:
    with History(path, dim=3, geometry="sphere") as history:
        append(history, 1)
    with pytest.raises(HistoryError, match="holds basins of 3 components, geometry 'sphere'; asked for 4"):
        History(path, dim=4, geometry="sphere")
    with pytest.raises(HistoryError, match="another folder"):
        History(path, dim=3)
    reader = History.read_only(path)
    assert (reader.dim, reader.geometry) == (3, "sphere")


def test_a_reader_makes_nothing(path: Path) -> None:
    with pytest.raises(HistoryError, match="there is none"):
        History.read_only(path)
    assert not path.exists()
    path.mkdir()
    with History.read_only(path) as reader:
        assert counted(reader.scan()) == []
        assert len(reader.last(5)) == 0
        assert reader.dim == 64
        for write in (reader.flush, reader.seal, lambda: reader.append(expected(1))):
            with pytest.raises(HistoryError, match="reading only"):
                write()
    assert list(path.iterdir()) == []


def test_foreign_files_are_passed_over(path: Path) -> None:
    path.mkdir()
    (path / "baseline.json").write_text("{}")
    (path / "notes.qigh.txt").write_text("no segment")
    (path / "x.journal").write_text("no segment beside it")
    (path / "folder.qigh").mkdir()
    os.mkfifo(path / "pipe.qigh")
    (path / "link.qigh").symlink_to(path / "baseline.json")
    with History(path, dim=3) as history:
        append(history, 3)
        assert counted(history.scan()) == [0, 1, 2]
        assert counted(history.follow(stop=lambda: True)) == [0, 1, 2]
        assert not history.damage
        assert len(history.segments()) == 1


def test_segments_are_named_by_clock_host_and_process(path: Path) -> None:
    with History(path, dim=3, clock=lambda: 86400.5) as history:
        append(history, 300, start=50)
        append(history, 5, start=350)
        (info,) = history.segments()
        start, host, pid, _ = info.name.removesuffix(".qigh").split("-")
        assert (start, int(pid)) == ("19700102T000000500000Z", os.getpid())
        assert host
        assert (info.host, info.pid) == (os.uname().nodename, os.getpid())
        assert (info.rows, info.first, info.last, info.dim) == (305, 50, 354, 3)
        assert (info.geometry, info.precision, info.problem) == ("simplex", "compact", "")
        assert info.alive
        assert info.bytes == sum(file.stat().st_size for file in path.iterdir()) - len("*\n")
    assert not history.segments()[0].alive
    with History(path, dim=3, clock=lambda: 1e300) as other:
        append(other, 1)
        assert other.segments()[0].name.startswith("00000000T")


def test_times_and_columns_choose(path: Path) -> None:
    with History(path, dim=3) as history:
        for start in range(0, 40, 10):
            append(history, 10, start=start, seed=start)
            if start < 30:
                history.seal()
        assert counted(history.scan(start=5, end=8)) == [5, 6, 7]
        assert counted(history.scan(start=8.5, end=21)) == list(range(9, 21))
        assert counted(history.scan(end=np.int64(1))) == [0]  # type: ignore[arg-type]
        assert counted(history.scan(start=38)) == [38, 39]
        assert counted(history.scan(start=40)) == counted(history.scan(start=7, end=7)) == []
        chosen = gather(history.scan(5, 33, columns=["phi", "code_hash", "phi"]))
        assert sorted(chosen.columns) == ["code", "phi"]
        assert chosen.code_hash.tolist() == [NAMES[1]] * 28
        assert list(gather(history.scan(columns="agency")).columns) == ["agency"]
        for wrong in (["phi", "psi"], []):
            with pytest.raises(HistoryError, match=r"columns: expected some of timestamp, .*basin_coords"):
                history.scan(columns=wrong)
        with pytest.raises(HistoryError, match="start: expected Unix seconds"):
            history.scan(start=math.nan)


def test_writers_are_merged_by_time_and_each_keeps_its_order(path: Path) -> None:
    rng = np.random.default_rng(5)
    one, two, three = (History(path, dim=3, clock=count(start).__next__) for start in (10, 20, 30))
    times = {}
    for rank, history in enumerate((one, two, three)):
        heads, basins = rows(700, seed=rank)
        steps = rng.choice([0.0, 1.0, 2.0, -30.0], 700, p=[0.3, 0.4, 0.28, 0.02])
        heads["timestamp"] = np.cumsum(steps)  # equal times, and a clock that steps back
        heads["phi"] = 1000 * rank + np.arange(700)
        times[rank] = np.maximum.accumulate(heads["timestamp"])
        for start in range(0, 700, 90):
            history.append_rows(heads[start : start + 90], basins[start : start + 90], NAMES)
    order = sorted((key, rank, place) for rank in times for place, key in enumerate(times[rank]))
    labels = [1000 * rank + place for _, rank, place in order]
    assert counted(one.scan()) == labels
    assert counted(History.read_only(path).scan()) == labels
    for n in (0, 1, 2, 50, 300, 2000, 2100, 5000):
        assert [int(phi) for phi in two.last(n).phi] == labels[len(labels) - min(n, len(labels)) :]
    clock = {
        int(phi): time for batch in one.scan() for phi, time in zip(batch.phi, batch.timestamp, strict=True)
    }
    assert counted(one.scan(start=100, end=199.5)) == [
        label for label in labels if 100 <= clock[label] < 199.5
    ]
    for history in (one, two, three):
        history.close()
    assert counted(one.scan()) == labels


def test_follow_gives_every_row_once(path: Path) -> None:
    writers = [History(path, dim=3, clock=float) for _ in range(1)]
    written = 0
    rounds = 0

    def stop() -> bool:
        """Between two looks: write through several writers, seal, close, begin new ones."""
        nonlocal written, rounds
        rounds += 1
        for turn, size in enumerate((1, 40, 300)[: rounds % 4]):
            writer = writers[(rounds + turn) % len(writers)]
            append(writer, size, start=written)
            written += size
        if rounds % 5 == 0:
            writers[0].seal()
        if rounds % 7 == 0:
            writers.pop(0).close()
        if rounds % 3 == 0:
            writers.append(History(path, dim=3))
        return rounds > 40

    follower = History.read_only(path) if path.exists() else writers[0]
    found = counted(follower.follow(poll_s=0, stop=stop))
    assert sorted(found) == list(range(written))
    assert written > 2000
    assert not follower.damage
    for writer in writers:
        writer.close()


def test_follow_from_a_time_on(path: Path) -> None:
    with History(path, dim=3) as history:
        append(history, 10)
        rounds = count()

        def stop() -> bool:
            append(history, 1, start=100 + next(rounds))
            return next(rounds) > 5

        assert counted(history.follow(poll_s=0, stop=stop, start=8))[:2] == [8, 9]
        with pytest.raises(HistoryError, match="poll_s"):
            history.follow(poll_s=-1)


def test_follow_waits_no_longer_than_until_it_is_stopped(path: Path) -> None:
    with History(path, dim=3) as history:
        stopped = threading.Event()
        append(history, 1)
        found: list[int] = []

        def run() -> None:
            for batch in history.follow(poll_s=3600, stop=stopped.is_set):
                found.extend(counted([batch]))
                stopped.set()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        assert found == [0]
