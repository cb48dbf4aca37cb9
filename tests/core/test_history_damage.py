"""Damaged stores: what is intact is read, what is not is counted, and nothing else happens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qigcore.history import Damage, History, segment
from qigcore.history.segment import Header, encode_header

from . import truth
from .stores import abandon, append, counted, file_of, flipped, gather, store

SEALED, PENDING = (3, 2), 3
TOTAL = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def block_starts(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(b"\x93QIGBLK\n", at)]


def test_a_segment_cut_at_any_byte(path: Path) -> None:
    reader = store(path, SEALED, PENDING)
    whole = file_of(path, ".qigh").read_bytes()
    first, second = block_starts(whole)
    for length in range(len(whole)):
        file_of(path, ".qigh").write_bytes(whole[:length])
        kept = [0, 1, 2] if length >= second else []
        assert counted(reader.scan()) == [*kept, 5, 6, 7]
        damage = reader.damage
        assert damage.missing_rows == 5 - len(kept)
        assert damage.torn_tails == (length > first and length != second)
        assert damage.bad_headers == (0 < length < first)
        assert damage.skipped_bytes == (length - max(at for at in (0, first, second) if at <= length)) * (
            length not in (first, second)
        )
        if length % 8 == 0:
            assert counted([reader.last(4)]) == [*kept, 5, 6, 7][-4:]
            assert counted(reader.follow(stop=lambda: True)) == [*kept, 5, 6, 7]


def test_a_journal_cut_at_any_byte(path: Path) -> None:
    reader = store(path, SEALED, PENDING)
    whole = file_of(path, ".journal").read_bytes()
    for length in range(len(whole)):
        file_of(path, ".journal").write_bytes(whole[:length])
        found = counted(reader.scan())
        assert found == list(range(len(found)))
        assert 5 <= len(found) < TOTAL
        assert reader.damage == Damage(
            torn_tails=reader.damage.torn_tails, skipped_bytes=reader.damage.skipped_bytes
        )
        assert (reader.damage.torn_tails == 1) == (reader.damage.skipped_bytes > 0)
        assert counted([reader.last(3)]) == found[-3:]


def test_the_same_cuts_under_a_living_writer_are_not_yet_there(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 3)
    history.seal()
    append(history, 2, start=3)
    for suffix, least in ((".journal", [0, 1, 2]), (".qigh", [3, 4])):
        file = file_of(path, suffix)
        whole = file.read_bytes()
        for length in range(0, len(whole), 5):
            with file.open("r+b") as cut:
                cut.truncate(length)
            found = counted(history.scan())
            assert [row for row in found if row in least] == least
            assert (
                history.damage.torn_tails == history.damage.skipped_bytes == history.damage.bad_headers == 0
            )
        with file.open("r+b") as mended:
            mended.write(whole)
    assert counted(history.scan()) == list(range(5))
    history.close()


@pytest.mark.parametrize("suffix", [".qigh", ".journal"])
def test_one_flipped_bit_costs_at_most_its_block(path: Path, suffix: str) -> None:
    reader = store(path, SEALED, PENDING)
    intact = gather(reader.scan())
    file = file_of(path, suffix)
    whole = file.read_bytes()
    unharmed = {".qigh": ({0, 1, 2, 5, 6, 7}, {3, 4, 5, 6, 7}), ".journal": ({5, 6}, {5, 7}, {6, 7})}[suffix]
    for bit in range(0, 8 * len(whole), 11):
        file.write_bytes(flipped(whole, bit))
        batch = gather(reader.scan())
        found = counted([batch])
        assert found == sorted(set(found))
        assert any(set(found) >= rows for rows in unharmed), bit
        assert reader.damage, bit
        assert reader.damage.missing_rows in (TOTAL - len(found), 0)
        assert batch.basin_coords.tobytes() == intact.basin_coords[found].tobytes()
        assert batch.kappa_eff.tobytes() == intact.kappa_eff[found].tobytes()
        assert len(reader.last(2)) == 2
        assert len(reader.segments()) == 1


LARGE = (900, 300, 700), 200


def large(path: Path, precision: str) -> History:
    """A killed writer's store of the rows of `truth`: blocks of LARGE[0] rows, LARGE[1] in the journal."""
    history = History(path, dim=truth.DIM, precision=precision)  # type: ignore[arg-type]
    total = 0
    for count in (*LARGE[0], LARGE[1]):
        history.append_rows(*truth.rows(range(total, total + count)), truth.NAMES)
        total += count
    abandon(history)
    return History.read_only(path)


@pytest.mark.parametrize("precision", truth.PRECISIONS)
def test_a_flipped_bit_in_a_large_store_costs_its_block_or_row_and_nothing_is_wrong(
    path: Path, precision: str
) -> None:
    reader = large(path, precision)
    total = sum(LARGE[0]) + LARGE[1]
    assert truth.labels(reader.scan(), precision) == list(range(total))
    ends = np.cumsum([0, *LARGE[0]])
    rng = np.random.default_rng(3)
    for suffix, times in ((".qigh", 70), (".journal", 30)):
        file = file_of(path, suffix)
        whole = file.read_bytes()
        for bit in rng.integers(0, 8 * len(whole), times).tolist():
            file.write_bytes(flipped(whole, bit))
            found = truth.labels(reader.scan(), precision, unnamed=suffix == ".journal")
            missing = sorted(set(range(total)) - set(found))
            assert found == sorted(set(found))
            assert reader.damage, bit
            if suffix == ".journal":
                assert len(missing) <= 1
            else:
                assert not missing or any(
                    missing == list(range(low, high)) for low, high in pairwise(ends.tolist())
                )
            last = truth.labels([reader.last(50)], precision, unnamed=suffix == ".journal")
            assert last == found[-50:]
        file.write_bytes(whole)


@pytest.mark.parametrize("precision", truth.PRECISIONS)
def test_a_large_store_cut_anywhere_keeps_all_that_is_whole(path: Path, precision: str) -> None:
    reader = large(path, precision)
    ends = np.cumsum([0, *LARGE[0]]).tolist()
    total = ends[-1] + LARGE[1]
    segment, journal = file_of(path, ".qigh"), file_of(path, ".journal")
    rng = np.random.default_rng(4)
    whole = segment.read_bytes()
    starts = [*block_starts(whole), len(whole)]
    for length in [
        0,
        *rng.integers(0, len(whole), 25).tolist(),
        *(at + step for at in starts[:-1] for step in (-1, 0, 1)),
    ]:
        segment.write_bytes(whole[:length])
        kept = max([end for end, start in zip(ends, starts, strict=True) if length >= start], default=0)
        found = truth.labels(reader.scan(), precision)
        assert found == [*range(kept), *range(ends[-1], total)], length
        assert reader.damage.missing_rows == ends[-1] - kept
        assert reader.damage.bad_blocks == reader.damage.bad_rows == 0
    segment.write_bytes(whole)
    whole = journal.read_bytes()
    for length in rng.integers(0, len(whole), 25).tolist():
        journal.write_bytes(whole[:length])
        found = truth.labels(reader.scan(), precision)
        assert found == list(range(len(found)))
        assert ends[-1] <= len(found) < total
        assert reader.damage.missing_rows == reader.damage.bad_rows == 0


def test_damage_is_counted_once_by_a_follower(path: Path) -> None:
    history = History(path, dim=3)
    steps = iter(range(12))
    file = None

    def stop() -> bool:
        nonlocal file
        step = next(steps)
        append(history, 2, start=2 * step)
        file = file or file_of(path, ".journal")
        if step == 2:  # rows 0..5 are in the journal, and were read up to 3; row 4 is hit
            data = file.read_bytes()
            with file.open("r+b") as damaged:
                damaged.seek(len(data) - 200)
                damaged.write(bytes([data[-200] ^ 1]))
        if step in (4, 8):
            history.seal()
        if step == 8:  # rows 10..17 were just sealed, 10..15 of them had been read from the journal
            blocks = file_of(path, ".qigh")
            data = blocks.read_bytes()
            with blocks.open("r+b") as damaged:
                damaged.seek(len(data) - 100)
                damaged.write(bytes([data[-100] ^ 1]))
        return step == 11

    found = counted(history.follow(poll_s=0, stop=stop))
    assert found == [0, 1, 2, 3, 5, *range(6, 16), *range(18, 24)]
    assert history.damage == Damage(
        bad_rows=1, bad_blocks=1, missing_rows=3, skipped_bytes=history.damage.skipped_bytes
    )
    history.close()


def test_last_goes_further_back_when_the_newest_rows_are_damaged(path: Path) -> None:
    reader = store(path, (4, 4, 4), 1)
    file = file_of(path, ".qigh")
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, 8 * (len(whole) - 100)))
    assert counted([reader.last(3)]) == [6, 7, 12]
    assert reader.damage.bad_blocks == 1
    assert reader.damage.missing_rows == 4


def header(**changed: object) -> bytes:
    plain = Header(1, 3, "simplex", "exact", "host", 1, 0.0, 0.0)
    return encode_header(msgspec.structs.replace(plain, **changed))


def test_segments_this_version_cannot_read_are_named_and_the_rest_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = store(path, SEALED, PENDING)
    monkeypatch.setattr(segment, "FORMAT", 9)
    (path / "newer.qigh").write_bytes(header() + b"unknown things")
    monkeypatch.undo()
    (path / "packed.qigh").write_bytes(header(precision="lean"))
    (path / "0wider.qigh").write_bytes(header(dim=4))
    (path / "foreign.qigh").write_text("Dear diary")
    (path / "empty.qigh").write_bytes(b"")
    said = (
        r"0wider\.qigh: basins of 4",
        r"newer\.qigh: format 9.*upgrade",
        r"packed\.qigh: precision 'lean'.*upgrade",
    )
    for read in (
        reader.scan,
        lambda: reader.follow(stop=lambda: True),
        lambda: [reader.last(TOTAL)],
    ):
        assert counted(read()) == list(range(TOTAL))
        assert reader.damage.bad_headers == 1
        assert reader.damage.skipped_bytes == len("Dear diary")
        assert len(reader.damage.unreadable) == 3
        for found, pattern in zip(sorted(reader.damage.unreadable), said, strict=True):
            assert re.search(pattern, found)
    problems = {info.name: info.problem for info in reader.segments()}
    assert [name[0] for name, problem in problems.items() if not problem] == ["0", "2"]
    assert "upgrade" in problems["newer.qigh"]
    assert "header" in problems["foreign.qigh"]


def test_a_segment_without_its_header_is_read_by_its_blocks(path: Path) -> None:
    reader = store(path, SEALED, PENDING)
    file = file_of(path, ".qigh")
    file.write_bytes(bytes(30) + file.read_bytes()[30:])
    assert counted(reader.scan()) == list(range(TOTAL))
    assert reader.damage.bad_headers == 1
    assert counted([reader.last(TOTAL)]) == list(range(TOTAL))
    (info,) = reader.segments()
    assert (info.rows, info.first, info.last, info.host) == (TOTAL, 0, TOTAL - 1, "")
    assert info.problem


@given(
    st.lists(st.binary(max_size=200) | st.sampled_from(["segment", "journal", "zeros", "half"]), max_size=4),
    st.lists(st.binary(max_size=200) | st.sampled_from(["segment", "journal", "zeros", "half"]), max_size=4),
    st.booleans(),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_give_rows_or_are_counted(
    tmp_path: Path, segment: Sequence[bytes | str], journal: Sequence[bytes | str], writing: bool
) -> None:
    folder = tmp_path / str(np.random.default_rng().integers(2**62))
    store(folder, SEALED, PENDING)
    blocks, rows = file_of(folder, ".qigh"), file_of(folder, ".journal")
    pieces = {"segment": blocks.read_bytes(), "journal": rows.read_bytes(), "zeros": bytes(300)}
    pieces["half"] = pieces["segment"][len(pieces["segment"]) // 3 :]
    for file, parts in ((blocks, segment), (rows, journal)):
        file.write_bytes(b"".join(pieces[part] if isinstance(part, str) else part for part in parts))
    reader = History(folder, dim=3) if writing else History.read_only(folder)
    for read in (reader.scan, lambda: reader.follow(stop=lambda: True), lambda: [reader.last(99)]):
        found = counted(batch for batch in read() if batch.basin_coords.shape[1] == 3)
        assert set(found) <= set(range(TOTAL))
        assert len(found) == len(set(found))
    reader.segments()
    reader.close()
