"""Compaction: the same rows in the same order before, meanwhile and after, whoever reads, writes or dies."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.geometry import distance
from qigcore.history import Compacted, History, upkeep

from .crowds import crowd, names_of, opened
from .stores import NAMES, abandon, append, counted, file_of, flipped, gather, rows, same

Precision = Literal["exact", "compact"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_every_reading_is_the_same_before_meanwhile_and_after(path: Path, precision: Precision) -> None:
    crowd(path, kills=precision == "exact", precision=precision)
    reader = History.read_only(path)
    before, part = gather(reader.scan()), gather(reader.scan(100, 300.5, ["phi", "code"]))
    ends = {n: counted([reader.last(n)]) for n in (1, 50, 700, 5000)}
    infos = reader.segments()
    size = sum(info.bytes for info in infos)
    history = opened(path)
    done = history.compact(grace_s=60)
    assert (done.segments, done.made, done.rows, done.removed, done.left) == (6, 1, len(before), 0, ())
    assert done.bytes_before == size > done.bytes_after

    def check() -> None:
        assert same(gather(reader.scan()), before)
        again = gather(reader.scan(100, 300.5, ["phi", "code"]))
        assert (again.phi.tolist(), again.code_hash.tolist()) == (part.phi.tolist(), part.code_hash.tolist())
        assert {n: counted([reader.last(n)]) for n in ends} == ends
        assert counted(reader.follow(stop=lambda: True)) == before.phi.astype(int).tolist()
        assert not reader.damage
        (info,) = reader.segments()
        assert (info.rows, info.bytes, info.precision) == (len(before), done.bytes_after, precision)
        assert (info.first, info.last) == (min(i.first for i in infos), max(i.last for i in infos))

    assert len(list(path.glob("*.qigh"))) == 7
    check()
    assert opened(path, 1e6 + 59).compact(grace_s=60) == Compacted()
    assert opened(path, 1e6 + 60).compact(grace_s=60) == Compacted(removed=6)
    assert len(list(path.iterdir())) == 2
    check()
    assert opened(path, 1e6 + 60).compact(grace_s=60) == Compacted()


def test_grace_zero_removes_at_once(path: Path) -> None:
    crowd(path)
    done = opened(path).compact(grace_s=0)
    assert (done.made, done.removed) == (1, 6)
    assert len(list(path.iterdir())) == 2
    with pytest.raises(HistoryError, match="grace_s"):
        opened(path).compact(grace_s=-1)
    with pytest.raises(HistoryError, match="reading only"):
        History.read_only(path).compact()


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
def test_states_do_not_wander_however_often_they_are_compacted(path: Path, geometry: str) -> None:
    """Five times over, with new rows between: from blocks, from journals, from segments made before."""
    rng = np.random.default_rng(0)
    truth: list[np.ndarray] = []
    kept: dict[int, bytes] = {}
    for turn in range(5):
        for writer in range(3):
            history = opened(path, 10.0 * turn + writer, dim=16, precision="compact", geometry=geometry)
            for size in (1, 40, 300, 7):
                heads, _ = rows(size, start=len(truth), dim=16)
                basins = (
                    rng.dirichlet(np.full(16, 0.3), size)
                    if geometry == "simplex"
                    else rng.normal(size=(size, 16))
                )
                history.append_rows(heads, basins * 10.0 ** rng.integers(-6, 6), NAMES)
                truth += list(basins)
            if writer == 1:
                history.close()
            else:
                abandon(history)
        done = opened(path, 1e6 + turn, dim=16, precision="compact", geometry=geometry).compact(grace_s=0)
        assert (done.made, done.segments) == (1, 3 if turn == 0 else 4)
        found = gather(History.read_only(path).scan(), 16)
        assert found.timestamp.tolist() == list(range(len(truth)))
        apart = [distance(p, q, geometry) for p, q in zip(found.basin_coords, truth, strict=True)]
        assert max(apart) <= 1e-4
        for row, state in enumerate(found.basin_coords):
            assert kept.setdefault(row, state.tobytes()) == state.tobytes()
    assert max(apart) > 1e-6


def test_basins_that_are_no_states_are_kept_bit_for_bit(path: Path) -> None:
    heads, basins = rows(900, dim=4)
    odd = [3, 4, 300, 301, 550, 899]
    basins[odd[:3]] = [[np.nan, 1, 2, 3], [-1, 0, 0, 2], [0, 0, 0, 0]]
    basins[odd[3:]] = [[np.inf, 1, 1, 1], [-0.0, 0, 0, 0], [1e300, -1, 0, 0]]
    for part in (slice(0, 290), slice(290, 500), slice(500, 900)):
        history = opened(path, part.start, dim=4, precision="compact")
        history.append_rows(heads[part], basins[part], NAMES)
        abandon(history)
    done = opened(path, dim=4, precision="compact").compact(grace_s=0)
    assert (done.segments, done.rows, done.left) == (3, 900, ())
    found = gather(History.read_only(path).scan(), 4)
    assert found.timestamp.tolist() == list(range(900))
    assert found.basin_coords[odd].tobytes() == basins[odd].tobytes()
    states = np.setdiff1d(np.arange(900), odd)
    assert max(distance(found.basin_coords[row], basins[row]) for row in states) <= 1e-4


def test_rows_become_blocks_of_1024(path: Path) -> None:
    for start in range(0, 3000, 100):
        with opened(path, start, precision="compact") as history:
            append(history, 100, start=start)
    done = opened(path).compact(grace_s=0)
    assert [len(batch) for batch in History.read_only(path).scan()] == [1024, 1024, 952]
    assert done.bytes_after < 0.9 * done.bytes_before


def test_precisions_are_not_mixed_and_nothing_passes_another_in_the_order(path: Path) -> None:
    for rank, precision in enumerate(["exact", "exact", "compact", "compact", "exact", "exact"]):
        with opened(path, rank, precision=precision) as history:
            heads, basins = rows(20)  # all at the same moments: their order is that of the segments
            heads["phi"] += 100 * rank
            history.append_rows(heads, basins, NAMES)
    before = counted(History.read_only(path).scan())
    assert before[:3] == [0, 100, 200]
    done = opened(path).compact()
    assert (done.segments, done.made) == (6, 3)
    assert [info.precision for info in History.read_only(path).segments()] == ["exact", "compact", "exact"]
    assert counted(History.read_only(path).scan()) == before


def test_what_is_alive_large_or_long_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LARGE_BYTES", 20_000)

    def dead(now: float, size: int, start: float) -> None:
        with opened(path, now) as history:
            append(history, size, start=start)

    dead(1, 10, 0)
    dead(2, 10, 100)
    living = opened(path, 3)
    append(living, 10, start=200)
    dead(4, 10, 300)
    dead(5, 1000, 400)  # large
    dead(6, 10, 90_000)
    dead(7, 10, 100_000)
    dead(8, 10, 90_000 + 86_401)  # a day later
    before = counted(living.scan())
    done = opened(path, 9).compact(grace_s=0)
    assert (done.segments, done.made, done.left) == (4, 2, ())
    assert [info.rows for info in living.segments()] == [20, 10, 10, 1000, 20, 10]
    assert [info.alive for info in living.segments()] == [False, True, False, False, False, False]
    assert counted(living.scan()) == before
    append(living, 5, start=210)
    living.close()
    assert counted(living.scan()) == sorted([*before, *range(210, 215)])


def test_a_killed_writers_journal_is_sealed_even_if_it_is_alone(path: Path) -> None:
    history = opened(path, precision="compact")
    append(history, 200)
    abandon(history)
    done = opened(path).compact(grace_s=0)
    assert (done.segments, done.made, done.rows) == (1, 1, 200)
    assert done.bytes_after < 0.5 * done.bytes_before
    assert not list(path.glob("*.journal"))
    assert opened(path).compact(grace_s=0) == Compacted()


def test_damaged_segments_are_left_and_named(path: Path) -> None:
    for rank in range(6):
        with opened(path, rank) as history:
            append(history, 10, start=10 * rank)
    files = sorted(path.glob("*.qigh"))
    files[2].write_bytes(flipped(files[2].read_bytes(), 8 * (files[2].stat().st_size - 30)))
    files[5].write_bytes(bytes(30) + files[5].read_bytes()[30:])
    (path / "zdiary.qigh").write_text("Dear diary")
    before = counted(History.read_only(path).scan())
    done = opened(path, 1e6).compact(grace_s=0)
    assert (done.segments, done.made) == (4, 2)  # 0 and 1, 3 and 4: none passes the damaged one
    assert [name.split(":")[0] for name in done.left] == [files[2].name, files[5].name, "zdiary.qigh"]
    assert "bad_blocks=1" in done.left[0]
    assert files[2].exists()
    assert files[5].exists()
    assert (path / "zdiary.qigh").exists()
    assert counted(History.read_only(path).scan()) == before


def test_expiry_removes_what_a_segment_stands_for_before_the_segment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(path)
    opened(path).compact()
    stands = names_of(path)[0]
    removed = []
    unlink = Path.unlink

    def noting(file: Path, missing_ok: bool = False) -> None:
        removed.append(file.name)
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", noting)
    assert opened(path).expire(keep_bytes=0).segments == 1
    assert removed[-1] == stands
    assert len(removed) == 9  # six, two journals, and the one
    assert file_of(path, ".gitignore")


def test_what_was_replaced_is_kept_while_the_one_that_stands_for_it_is_damaged(path: Path) -> None:
    crowd(path)
    before = gather(History.read_only(path).scan())
    opened(path).compact()
    stands = path / names_of(path)[0]
    whole = stands.read_bytes()
    stands.write_bytes(flipped(whole, 4 * len(whole)))
    assert opened(path, 2e6).expire(keep_s=1e9).segments == 0
    done = opened(path, 2e6).compact()
    assert (done.removed, done.made) == (0, 0)
    assert f"{stands.name}: damaged" in done.left[0]
    assert "are kept" in done.left[0]
    stands.unlink()
    assert same(gather(History.read_only(path).scan()), before)


def test_what_was_replaced_does_not_count_against_the_size_to_keep(path: Path) -> None:
    crowd(path)
    size = opened(path).compact().bytes_after
    assert opened(path).expire(keep_bytes=size).segments == 0
    assert opened(path).expire(keep_bytes=size - 1).segments == 1
    assert not list(path.glob("*.qigh"))
