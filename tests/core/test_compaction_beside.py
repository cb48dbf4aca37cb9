"""Compaction beside others: readers, writers, another compaction, a kill, a full disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from qigcore.errors import HistoryError
from qigcore.history import Compacted, History, rewrite, upkeep
from qigcore.rows import Batch

from .crowds import crowd, names_of, opened
from .stores import NAMES, abandon, append, counted, gather, rows, same

Precision = Literal["exact", "compact"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


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
