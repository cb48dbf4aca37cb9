"""Compaction: the same rows in the same order before, meanwhile and after, whoever reads, writes or dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.geometry import distance
from qigcore.history import Compacted, History, rewrite, upkeep
from qigcore.rows import Batch

from .stores import NAMES, abandon, append, counted, file_of, flipped, gather, rows, same

Precision = Literal["exact", "compact"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(path: Path, now: float = 1e6, **settings: Any) -> History:
    return History(path, **{"dim": 3, "precision": "exact", **settings}, clock=lambda: now)


def crowd(path: Path, writers: int = 6, *, kills: bool = True, **settings: Any) -> list[History]:
    """Dead writers whose rows lie across each other in time, at equal moments too, with clocks that step back.

    Every third one is killed: its last rows are in its journal.
    """
    made = [opened(path, writer + 1.0, **settings) for writer in range(writers)]
    for rank, history in enumerate(made):
        rng = np.random.default_rng(rank)
        heads, basins = rows(90 + 120 * rank, dim=history.dim, seed=rank)
        heads["timestamp"] = 40 * rank + np.cumsum(rng.choice([0.0, 1.0, 2.0, -9.0], len(heads)))
        heads["phi"] = 1000 * rank + np.arange(len(heads))
        for start in range(0, len(heads), 70):
            part = slice(start, start + 70)
            history.append_rows(heads[part], basins[part], ("", f"code {rank}", f"module {start}"))
    for rank, history in enumerate(made):
        if kills and rank % 3 == 2:
            abandon(history)
        else:
            history.close()
    return made


def names_of(path: Path) -> list[str]:
    return [info.name for info in History.read_only(path).segments()]


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


def test_one_compactor_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(path)
    encode, said = rewrite.encode_block, []

    def meanwhile(*args: Any, **settings: Any) -> bytes:
        with pytest.raises(HistoryError, match="being compacted by another") as caught:
            opened(path).compact()
        said.append(caught.value)
        return encode(*args, **settings)

    monkeypatch.setattr(rewrite, "encode_block", meanwhile)
    assert opened(path).compact().made == 1
    assert said


def test_a_segment_that_expires_meanwhile_is_not_brought_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(3):
        with opened(path, rank) as history:
            append(history, 10, start=10 * rank)
    chunks = rewrite.merged

    def meanwhile(*args: Any) -> Iterator[Batch]:
        for file in sorted(path.glob("*.qigh"))[:1]:
            file.unlink()
        return chunks(*args)

    with monkeypatch.context() as patched:
        patched.setattr(rewrite, "merged", meanwhile)
        assert opened(path).compact(grace_s=0) == Compacted()
    assert counted(History.read_only(path).scan()) == list(range(10, 30))
    assert opened(path).compact(grace_s=0).rows == 20
    assert not list(path.glob("*.part"))


def test_followers_across_compactions_miss_nothing_and_repeat_nothing(path: Path) -> None:
    """One follows from the start, one begins at every turn, while segments are made, merged and removed."""
    written, turn = 0, 0
    history = opened(path)

    def write(size: int) -> None:
        nonlocal written
        append(history, size, start=written)
        written += size

    def stop() -> bool:
        nonlocal history, turn
        turn += 1
        write(1 + turn % 40)
        if turn % 2:
            if turn % 3:
                history.close()
            else:
                abandon(history)
            history = opened(path, turn)
            write(3)
        if turn % 5 == 0:
            opened(path, turn).compact(grace_s=20)
        if turn % 7 == 0:
            assert sorted(counted(History.read_only(path).follow(stop=lambda: True))) == list(range(written))
            assert sorted(counted(History.read_only(path).scan())) == list(range(written))
        return turn >= 120

    follower = History.read_only(path) if path.exists() else opened(path)
    assert counted(follower.follow(poll_s=0, stop=stop)) == list(range(written))
    assert not follower.damage
    assert written > 2000
    assert len(list(path.glob("*.qigh"))) < 60
    history.close()


def test_compaction_beside_living_writers_and_readers(path: Path) -> None:
    over = threading.Event()
    failures: list[object] = []
    totals = {}

    def writer(rank: int) -> None:
        total = 0
        for turn in range(40):
            with opened(path, 100 * rank + turn) as history:
                for size in (1, 30, 260 if turn % 9 == 0 else 2):
                    heads, basins = rows(size, start=total)
                    heads["phi"] += 100_000 * rank
                    history.append_rows(heads, basins, NAMES)
                    total += size
        totals[rank] = total

    def compactor() -> None:
        now = 1e6
        while not over.is_set():
            now += 1
            try:
                opened(path, now).compact(grace_s=10_000)
            except Exception as error:
                failures.append(error)

    def reader() -> None:
        while not over.is_set():
            history = History.read_only(path)
            found = [row for row in counted(history.scan()) if row != 70_000]
            for rank in (0, 1):
                mine = [phi - 100_000 * rank for phi in found if phi // 100_000 == rank]
                if mine != list(range(len(mine))) or history.damage:
                    failures.append((rank, mine, history.damage))

    with opened(path) as first:
        append(first, 1, start=70_000)
    writers = [threading.Thread(target=writer, args=(rank,)) for rank in (0, 1)]
    others = [threading.Thread(target=work) for work in (compactor, reader)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert not failures
    opened(path, 2e6).compact(grace_s=0)
    found = counted(History.read_only(path).scan())
    assert sorted(found) == sorted(
        [70_000, *(100_000 * rank + row for rank in totals for row in range(totals[rank]))]
    )
    assert len(names_of(path)) == 1


class Killed(BaseException):
    pass


CALLS = ("open", "write", "fsync", "rename", "unlink", "close")


def steps_until(limit: int, work: Callable[[], Any]) -> int:
    """Do the work, and die before its `limit`-th call that changes something; how many there were."""
    done = 0
    with pytest.MonkeyPatch.context() as patched:
        for name in CALLS:
            call = getattr(os, name)

            def step(*args: Any, call: Callable[..., Any] = call, name: str = name, **more: Any) -> Any:
                nonlocal done
                changes = name not in ("open", "close") or (name == "open" and args[1] & os.O_CREAT)
                if changes:
                    if done >= limit:  # dead: from now on nothing changes any more
                        raise Killed
                    done += 1
                return call(*args, **more)

            patched.setattr(os, name, step)
        with suppress(Killed):
            work()
    return done


def test_killed_at_any_step_every_row_is_read_once_and_the_next_one_ends_it(tmp_path: Path) -> None:
    whole = None
    for limit in range(10_000):
        path = tmp_path / str(limit)
        crowd(path, 4)
        before = gather(History.read_only(path).scan())
        with opened(path, 5e5) as early:  # and of a compaction before, whose segments are to be removed now
            early.compact(grace_s=60)
        for start in (2000, 3000):
            with opened(path, start) as history:
                append(history, 20, start=start)
        before = gather(History.read_only(path).scan())
        steps = steps_until(limit, lambda path=path: opened(path).compact(grace_s=60))
        reader = History.read_only(path)
        for read in (reader.scan, lambda reader=reader: reader.follow(stop=lambda: True)):
            assert same(gather(read()), before), limit
            assert not reader.damage
        assert counted([reader.last(100)]) == before.phi[-100:].astype(int).tolist()
        opened(path, 1e6 + 1).compact(grace_s=0)
        assert same(gather(reader.scan()), before)
        assert len(list(path.glob("*.qigh"))) == 1
        assert not list(path.glob("*.part"))
        assert not list(path.glob("*.journal"))
        if steps < limit:
            whole = limit
            break
    assert whole is not None
    assert whole > 12


def test_a_full_disk_leaves_all_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(path)
    before, files = gather(History.read_only(path).scan()), sorted(path.iterdir())

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(HistoryError, match=r"cannot tidy .*No space left"):
            opened(path).compact()
    assert sorted(path.iterdir()) == files
    assert same(gather(History.read_only(path).scan()), before)


def test_a_scan_older_than_the_grace_says_what_it_could_not_read(path: Path) -> None:
    for start in (0, 100, 200):
        with opened(path, start) as history:
            append(history, 10, start=start)
    reader = History.read_only(path)
    scan = reader.scan()
    found = counted([next(scan)])
    opened(path).compact(grace_s=0)
    assert found + counted(scan) == list(range(10))
    assert len(reader.damage.unreadable) == 2
    assert "compacted while it was read" in reader.damage.unreadable[0]
    assert counted(reader.scan()) == [*range(10), *range(100, 110), *range(200, 210)]
    assert not reader.damage


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


def test_a_follower_that_sleeps_through_the_time_of_grace_is_told(path: Path) -> None:
    def stop() -> bool:
        """Between two looks: the writer appends, ends, and its segment is compacted and removed."""
        if not rounds:
            append(writer, 5, start=3)
            writer.close()
            with History(path, dim=3) as tidy:
                append(tidy, 1, start=90)
            with History(path, dim=3) as tidy:
                assert tidy.compact(grace_s=0).segments == 2
        rounds.append(1)
        return len(rounds) > 1

    writer = History(path, dim=3)
    append(writer, 3)
    rounds: list[int] = []
    reader = History.read_only(path)
    found = []
    for batch in reader.follow(poll_s=0, stop=lambda: False if not found else stop()):
        found.extend(counted([batch]))
    assert found == [0, 1, 2]
    assert "compacted while it was read" in reader.damage.unreadable[0]
    assert counted(reader.scan()) == [*range(8), 90]


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


def test_a_child_forked_amid_a_compaction_does_not_hold_its_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(path)
    lock = upkeep.flock
    copies: list[int] = []

    def forked(descriptor: int, operation: int) -> None:
        lock(descriptor, operation)
        if operation & upkeep.LOCK_EX:
            copies.append(os.dup(descriptor))  # what a child would have of it

    with monkeypatch.context() as patched:
        patched.setattr(upkeep, "flock", forked)
        opened(path).compact()
    assert opened(path).compact() == Compacted()
    for copy in copies:
        os.close(copy)
