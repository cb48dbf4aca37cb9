"""A follower that looks in the very moment of a failing append: what was stored comes once, before and after."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from qigcore.errors import HistoryError
from qigcore.history import History, reader
from qigcore.rows import Batch

from .stores import append, counted

MARK = 1_000_000


class Follower:
    """Follows a store, up to where it is now with every `look`; `given`: how often each row came."""

    def __init__(self, path: Path) -> None:
        self.history = History.read_only(path)
        self.given: Counter[int] = Counter()
        self._marks = 0
        self._marker = History(path, dim=3, precision="exact")
        self._ending = False
        self._batches = self.history.follow(poll_s=0, stop=lambda: self._ending)

    def look(self) -> None:
        """Read up to a row of a writer of its own, which comes after all others of its round."""
        self._marks += 1
        append(self._marker, 1, start=MARK + self._marks)
        while not self.given[MARK + self._marks]:
            self._add(next(self._batches))

    def end(self) -> Counter[int]:
        """Read what is left. Gives the rows of others."""
        self._marker.close()
        self._ending = True
        for batch in self._batches:
            self._add(batch)
        return Counter({label: times for label, times in self.given.items() if label < MARK})

    def _add(self, batch: Batch) -> None:
        self.given.update(int(phi) for phi in batch.phi)


def stored_in(path: Path) -> list[int]:
    return sorted(label for label in counted(History.read_only(path).scan()) if label < MARK)


def failing(
    monkeypatch: pytest.MonkeyPatch, call: str, seen: Callable[[], object], suffix: str
) -> Callable[[], None]:
    """Have the next `write` fail with half of its bytes written, or the next `fdatasync`; `seen` runs just before."""
    real = getattr(os, call)

    def undo() -> None:
        monkeypatch.setattr(os, call, real)

    def full(descriptor: int, *data: bytes) -> int:
        size = os.fstat(descriptor).st_size + sum(map(len, data))
        if size < 500 or not os.readlink(f"/proc/self/fd/{descriptor}").endswith(suffix):  # a mere header
            return real(descriptor, *data)  # type: ignore[no-any-return]
        undo()
        if data:
            real(descriptor, bytes(data[0])[: len(data[0]) * 3 // 4])
        seen()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    return undo


CASES = {
    # rows sealed before, pending before, of the call that fails
    "block": (300, 0, 3000),
    "block with pending rows": (300, 9, 3000),
    "first block": (0, 0, 3000),
    "first block with pending rows": (0, 9, 3000),
    "journal": (300, 0, 8),
    "journal with pending rows": (300, 9, 8),
    "first journal": (0, 0, 8),
}


@pytest.mark.parametrize("durability", ["block", "snapshot"])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("case", CASES)
def test_stored_rows_come_once_across_a_refused_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, call: str, durability: str
) -> None:
    sealed, pending, refused = CASES[case]
    suffix = ".qigh" if refused > 300 else ".journal"
    if (call, suffix, durability) == ("fdatasync", ".journal", "block"):
        return  # the journal is not forced then
    path = tmp_path / "store"
    history = History(path, dim=3, precision="exact", durability=durability)  # type: ignore[arg-type]
    stored = []
    for count, start in ((sealed, 0), (pending, 1000)):
        if count:
            append(history, count, start=start)
            stored += range(start, start + count)
    follower = Follower(path)
    follower.look()

    failing(monkeypatch, call, follower.look, suffix)
    with pytest.raises(HistoryError, match=rf"{refused} rows were not stored; free space"):
        append(history, refused, start=2000)
    assert any(follower.given[label] for label in range(2000, 2000 + refused))  # it did look in that moment
    assert stored_in(path) == stored

    for start, count in ((10_000, 3), (20_000, 300), (30_000, 2)):
        append(history, count, start=start)
        stored += range(start, start + count)
    history.close()
    given = follower.end()
    assert {label: given[label] for label in stored} == dict.fromkeys(stored, 1)
    assert max(given.values()) == 1
    assert set(given) - set(stored) <= set(range(2000, 2000 + refused))
    assert not follower.history.damage
    assert stored_in(path) == stored
    assert not History.read_only(path).damage
    assert all(info.rows for info in History.read_only(path).segments())


def test_failures_on_a_full_disk_leave_no_pile_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    history = History(path, dim=3, precision="exact")
    append(history, 300)
    append(history, 5, start=300)
    for turn in range(20):
        failing(monkeypatch, "write" if turn % 2 else "fdatasync", lambda: None, ".qigh")
        with pytest.raises(HistoryError, match="not stored"):
            append(history, 400, start=1000)
    files = sorted(file.suffix for file in path.iterdir() if file.name != ".gitignore")
    assert files == [".journal", ".qigh"]
    append(history, 400, start=1000)
    history.close()
    assert counted(history.scan()) == [*range(305), *range(1000, 1400)]
    assert [info.rows for info in history.segments()] == [305, 400]
    assert not history.damage


@pytest.mark.parametrize("pending", [0, 5])
def test_where_even_the_cut_fails_stored_rows_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: int
) -> None:
    path = tmp_path / "store"
    history = History(path, dim=3, precision="exact")
    append(history, 300)
    stored = list(range(300 + pending))
    if pending:
        append(history, pending, start=300)
    follower = Follower(path)
    follower.look()
    cut = os.ftruncate

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", broken)
    failing(monkeypatch, "fdatasync", follower.look, ".qigh")
    with pytest.raises(HistoryError, match="300 rows were not stored"):
        append(history, 300, start=1000)
    monkeypatch.setattr(os, "ftruncate", cut)
    append(history, 4, start=2000)
    stored += range(2000, 2004)
    history.close()
    given = follower.end()
    for seen in (Counter(stored_in(path)), given):
        assert set(stored) <= set(seen) <= {*stored, *range(1000, 1300)}
        assert max(seen.values()) == 1
    assert not follower.history.damage


def test_a_flush_tells_of_left_rows_that_may_not_be_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "store", dim=3)
    append(history, 5)
    force = os.fdatasync

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(HistoryError, match="300 rows were not stored"):
        append(history, 300, start=5)
    monkeypatch.setattr(os, "fdatasync", force)
    append(history, 1, start=5)
    with pytest.raises(HistoryError, match="rows may not survive a power loss"):
        history.flush()
    history.flush()
    assert counted(history.scan()) == list(range(6))
    history.close()


def test_a_block_that_is_cut_off_amid_its_reading_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    history = History(path, dim=3, precision="exact")
    append(history, 300)
    append(history, 5, start=300)
    segment = path / history.segments()[0].name
    size = segment.stat().st_size
    follower = Follower(path)
    follower.look()
    decode = reader.decode_block

    def late(*arguments: object) -> object:
        os.truncate(segment, size)  # as the writer is about to do
        monkeypatch.setattr(reader, "decode_block", decode)
        return decode(*arguments)  # type: ignore[arg-type]

    def look() -> None:
        monkeypatch.setattr(reader, "decode_block", late)
        follower.look()

    failing(monkeypatch, "fdatasync", look, ".qigh")
    with pytest.raises(HistoryError, match="300 rows were not stored"):
        append(history, 300, start=1000)
    append(history, 300, start=2000)
    history.close()
    assert follower.end() == Counter([*range(305), *range(2000, 2300)])
    assert not follower.history.damage
