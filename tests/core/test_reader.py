"""The reading side: the races with a writer, and what is not read at all."""

from __future__ import annotations

import os
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qigcore import history as history_module
from qigcore.errors import HistoryError
from qigcore.history import History, files, reader
from qigcore.history.reader import Query, Source, Tally
from qigcore.rows import Batch

from .stores import NAMES, append, counted, file_of, rows, store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def expected(count: int, start: float = 0.0, seed: int = 0) -> Batch:
    return Batch.of_rows(*rows(count, start=start, seed=seed), NAMES)


def test_blocks_outside_the_times_are_not_read(path: Path) -> None:
    reader = store(path, (10, 10, 10), 1)
    segment = file_of(path, ".qigh")
    data = segment.read_bytes()
    # All payload of the first block is lost: a scan that has no use for it does not notice.
    header_end = data.index(b"\x93QIGBLK\n")
    second = data.index(b"\x93QIGBLK\n", header_end + 1)
    segment.write_bytes(data[: header_end + 80] + bytes(second - header_end - 80) + data[second:])
    assert counted(reader.scan(start=10)) == list(range(10, 31))
    assert not reader.damage
    assert counted(reader.scan()) == list(range(10, 31))
    assert reader.damage.bad_blocks == 1
    assert reader.damage.missing_rows == 10


def test_last_reads_ends_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 50, 5):
        with History(path, dim=3, clock=lambda start=start: float(start)) as history:  # type: ignore[misc]
            append(history, 5, start=start)
    unpacked = []
    decode = reader.decode_block
    monkeypatch.setattr(reader, "decode_block", lambda *how: unpacked.append(how[1].low) or decode(*how))
    assert [int(phi) for phi in history.last(7).phi] == list(range(43, 50))
    assert unpacked == [45, 40]
    with pytest.raises(HistoryError, match="n: expected"):
        history.last(-1)


def test_a_seal_between_the_two_looks_neither_loses_nor_doubles(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(path, dim=3)
    written = 0

    def more(size: int) -> None:
        nonlocal written
        append(history, size, start=written)
        written += size

    steps = 2 * [history.seal, partial(more, 300), partial(more, 5), history.seal, partial(more, 700)]

    def stop() -> bool:
        more(1)
        return not steps

    read = reader.read_journal

    def between(segment: Path) -> bytes:
        if len(steps) % 2:
            steps.pop(0)()
        found = read(segment)
        if steps:
            steps.pop(0)()
        return found

    more(10)
    monkeypatch.setattr(reader, "read_journal", between)
    assert counted(history.follow(poll_s=0, stop=stop)) == list(range(written))
    assert written > 2020
    assert not history.damage
    for before_or_after in ([history.seal], [history.seal, history.seal]):
        steps = list(before_or_after)
        more(10)
        assert counted(history.scan()) == list(range(written))
    history.close()


def test_a_journal_begun_anew_during_the_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(path, dim=3)
    append(history, 10)
    pread, once = os.pread, [True]

    def slow(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        if length == reader.journal.MAX_JOURNAL and once:
            once.clear()
            history.seal()
            append(history, 2, start=10)
        return data

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", slow)
        assert counted(history.scan()) == list(range(12))
    history.close()


def test_a_segment_seen_before_it_is_locked_is_not_taken_for_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, tally = Query(3, ("phi",)), Tally()
    sources: list[Source] = []
    lock = files.flock

    def late(descriptor: int, operation: int) -> None:
        if operation & files.LOCK_EX:
            sources.append(Source(file_of(path, ".qigh"), True))
            assert list(sources[0].chunks(query, tally)) == []
        lock(descriptor, operation)

    monkeypatch.setattr(files, "flock", late)
    with History(path, dim=3) as history:
        append(history, 2)
        assert sources[0].peek()
        assert counted(chunk.batch for chunk in sources[0].chunks(query, tally)) == [0, 1]
    assert not tally.damage()


def test_scanning_holds_one_block_at_a_time(path: Path) -> None:
    heads, basins = rows(256, dim=64)
    with History(path) as history:
        for step in range(60):
            heads["timestamp"] += 256 * (step > 0)
            history.append_rows(heads, basins, NAMES)
    tracemalloc.start()
    try:
        total = sum(len(batch) for batch in history.scan())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 60 * 256
    assert peak < 10 * 256 * 600 < 60 * 256 * 600


@pytest.mark.parametrize("foreign", [Path.mkdir, os.mkfifo, lambda path: os.symlink(path, path)])
def test_a_journal_that_cannot_be_read_hides_no_sealed_rows_and_is_named(path: Path, foreign: Any) -> None:
    with History(path, dim=3) as history:
        append(history, 300)
    foreign(file_of(path, ".qigh").with_suffix(".journal"))
    with History(path, dim=3) as history:
        append(history, 5)
        for read in (history.scan, lambda: history.follow(poll_s=0, stop=lambda: True)):
            assert sorted(counted(read())) == sorted([*range(300), *range(5)])
            assert len(history.damage.unreadable) == 1
            assert ".journal: " in history.damage.unreadable[0]
        assert len(history.last(400)) == 305
        assert [info.rows for info in history.segments()] == [300, 5]
        assert [info.problem[:8] for info in history.segments()] == ["journal:", ""]


def test_rows_of_a_writer_that_began_and_died_since_the_folder_was_listed_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = history_module.segments_in
    store(path, (3,), 2)
    monkeypatch.setattr(history_module, "segments_in", lambda folder: dict.fromkeys(listed(folder), False))
    reader = History.read_only(path)
    assert counted(reader.scan()) == counted(reader.follow(stop=lambda: True)) == list(range(5))


def test_rows_of_a_block_that_was_half_written_come_from_the_journal(path: Path) -> None:
    with History(path, dim=3) as history:
        append(history, 4)
        history.seal()
        append(history, 6, start=4)
        journal, rows_left = file_of(path, ".journal"), file_of(path, ".journal").read_bytes()
        start = file_of(path, ".qigh").stat().st_size
    # The power went while the six were being sealed: their block has its length, and not all of its bytes.
    sealed = file_of(path, ".qigh")
    data = sealed.read_bytes()
    sealed.write_bytes(data[: start + 100] + bytes(len(data) - start - 100))
    reader = History.read_only(path)
    assert counted(reader.scan()) == list(range(4))
    assert reader.damage.missing_rows == 6
    journal.write_bytes(rows_left)
    for read in (reader.scan, lambda: reader.follow(stop=lambda: True), lambda: [reader.last(10)]):
        assert counted(read()) == list(range(10))
        assert (reader.damage.bad_blocks, reader.damage.missing_rows) == (1, 0)
    assert counted(reader.scan(start=6)) == list(range(6, 10))


def test_a_range_of_times_and_a_column_read_their_part_of_the_bytes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, basins = rows(20_000, dim=64)
    with History(path, precision="exact") as history:
        for start in range(0, 20_000, 4000):
            history.append_rows(heads[start : start + 4000], basins[start : start + 4000], NAMES)
    size = file_of(path, ".qigh").stat().st_size
    read, pread = [0], os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        read[0] += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)

    def share(*query: Any) -> float:
        read[0] = 0
        found = counted(History.read_only(path).scan(*query))
        assert found == list(range(int(query[0] or 0), int(query[1] or 20_000)))
        return read[0] / size

    assert size > 8_000_000
    assert 1.0 <= share(None, None) < 1.05
    assert share(10_000, 10_200) < 0.25
    assert share(19_900, None) < 0.25
    assert share(None, None, ["phi"]) < 0.1
    read[0] = 0
    assert len(History.read_only(path).last(50)) == 50
    assert read[0] / size < 0.35  # the end of the file a few times, however long it is


def test_the_first_segment_of_a_store_may_be_made_while_its_dimension_is_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(path / "made", (3,), 0)
    data = file_of(path / "made", ".qigh").read_bytes()
    asked = History._query

    def query(self: History, *how: Any) -> Query:
        found = asked(self, *how)
        if rounds:  # the listing has shown an empty file, which gets its header now
            (path / "a.qigh").write_bytes(data)
        return found

    def stop() -> bool:
        rounds.append(1)
        return len(rounds) > 2

    rounds: list[int] = []
    (path / "a.qigh").touch()
    monkeypatch.setattr(History, "_query", query)
    reader = History.read_only(path)
    assert counted(reader.follow(poll_s=0, stop=stop)) == [0, 1, 2]
    assert not reader.damage
