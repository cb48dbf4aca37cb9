"""The sealed layout: what is written comes back, and no other bytes are ever taken for it."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.history import columns, segment
from qigcore.history.columns import Column, decode_block, decode_text, encode_block, encode_text
from qigcore.history.segment import (
    LOWEST,
    Block,
    Damaged,
    Header,
    TooNew,
    decode_header,
    encode_header,
    find_block,
    last_block,
    pack_block,
    rows_per_block,
    seek,
)
from qigcore.rows import COLUMNS, HEAD, Batch

from .stores import NAMES, flipped, rows, same

HEADER = Header(77, 3, "simplex", "compact", "host-1", 4711, 1.5, 2.5, [5, 2**63 + 1])


def reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda length, offset: data[offset : offset + length]


def block(count: int, *, first: int = 0, identity: int = 77, dim: int = 3, floor: float = LOWEST) -> bytes:
    heads, basins = rows(count, start=first, dim=dim, seed=first)
    return encode_block(heads, basins, NAMES, first=first, segment=identity, floor=floor)


def found(data: bytes, offset: int = 0, identity: int | None = 77) -> Block | None:
    return find_block(reading(data), offset, len(data), identity)


def test_header_comes_back_with_where_it_ends() -> None:
    data = encode_header(HEADER)
    assert decode_header(reading(data + b"more")) == (HEADER, len(data))


def test_a_header_with_any_bit_flipped_or_cut_anywhere_is_damaged() -> None:
    data = encode_header(HEADER)
    for bit in range(8 * len(data)):
        with pytest.raises(Damaged):
            decode_header(reading(flipped(data, bit)))
    for length in range(len(data)):
        with pytest.raises(Damaged):
            decode_header(reading(data[:length]))


def test_an_intact_header_of_a_later_version_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "FORMAT", 2)
    data = encode_header(HEADER)
    monkeypatch.undo()
    with pytest.raises(TooNew, match=r"format 2.*reads up to 1.*upgrade"):
        decode_header(reading(data))
    lean = encode_header(msgspec.structs.replace(HEADER, precision="lean"))
    with pytest.raises(TooNew, match=r"precision 'lean'.*'exact' and 'compact'"):
        decode_header(reading(lean))


def test_a_header_with_fields_of_a_later_minor_version_is_read() -> None:
    class Longer(Header, frozen=True, array_like=True):
        extra: str = "new"

    data = encode_header(Longer(*(getattr(HEADER, name) for name in HEADER.__struct_fields__)))
    assert decode_header(reading(data))[0] == HEADER


def test_block_comes_back_bit_for_bit() -> None:
    heads, basins = rows(9)
    odd = np.array([0x7FF8DEADBEEF0001, 0x7FF0000000000001, 0x8000000000000000, 0xFFF0000000000000], "<u8")
    heads["phi"][:4] = odd.view("<f8")  # a quiet and a signalling NaN with payloads, -0.0, -inf
    basins[2] = [5e-324, -0.0, np.inf]
    data = encode_block(heads, basins, NAMES, first=3, segment=77, floor=1.25)
    where = found(data)
    assert where is not None
    assert where[4:] == (9, 3, 3, 77, 0.0, 8.0, 1.25)
    assert (where.end, where.next_sequence, where.peak) == (len(data), 12, 8.0)
    assert same(decode_block(reading(data), where, COLUMNS), Batch.of_rows(heads, basins, NAMES))


def test_only_names_in_use_are_stored_and_texts_survive() -> None:
    texts = ("", "unused" * 1000, "\udce4\x00\n\U0001f9e0", "x" * 1024)
    heads, basins = rows(4)
    heads["code"], heads["module"] = [2, 2, 3, 0], 0
    names = {"": 0}
    recoded = columns.recode(heads, texts, names)
    assert list(names) == ["", texts[2], texts[3]]
    assert recoded["code"].tolist() == [1, 1, 2, 0]
    data = encode_block(recoded, basins, tuple(names), first=0, segment=77, floor=LOWEST)
    where = found(data)
    assert where is not None
    assert decode_block(reading(data), where, ["code"]).code_hash.tolist() == [
        texts[2],
        texts[2],
        texts[3],
        "",
    ]


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_survives(text: str) -> None:
    assert decode_text(encode_text(text)) == text


@given(st.binary())
def test_bytes_that_are_no_text_still_give_one(data: bytes) -> None:
    assert isinstance(decode_text(data), str)


def test_no_flipped_bit_is_read_as_data() -> None:
    data = block(2)
    intact = found(data)
    assert intact is not None
    for bit in range(8 * len(data)):
        read = reading(flipped(data, bit))
        where = find_block(read, 0, len(data), 77)
        if where is not None:
            assert where == intact
            with pytest.raises(Damaged):
                decode_block(read, where, COLUMNS)


def test_a_block_cut_anywhere_is_none() -> None:
    data = block(2)
    assert all(found(data[:length]) is None for length in range(len(data)))


def test_damage_to_one_column_leaves_the_others_readable() -> None:
    data = block(5)
    data = flipped(data, 8 * (len(data) - 60))  # the basins come last but for the names
    where = found(data)
    assert where is not None
    assert decode_block(reading(data), where, ["timestamp", "phi"]).phi.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(Damaged):
        decode_block(reading(data), where, ["basin_coords"])


def test_columns_of_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, basins = rows(3)
    monkeypatch.setattr(columns, "COLUMNS", ("timestamp", "phi", "code", "basin_coords"))
    data = encode_block(heads, basins, NAMES, first=0, segment=77, floor=LOWEST)
    monkeypatch.undo()
    where = found(data)
    assert where is not None
    old = decode_block(reading(data), where, COLUMNS)
    assert old.phi.tolist() == [0, 1, 2]
    assert np.isnan(old.agency).all()
    assert old.repaired.tolist() == [0, 0, 0]
    assert old.columns["repaired"].dtype == HEAD["repaired"]
    # A column that this version does not know is passed over unread, whatever it is.
    assert list(decode_block(reading(data), where, ["phi"]).columns) == ["phi"]


@pytest.mark.parametrize("junk", [b"", b"\x93QIGBLK\n" * 1000, bytes(3_000_000)], ids=len)
def test_blocks_are_found_behind_damage(junk: bytes) -> None:
    where = found(junk + block(4, first=8))
    assert where is not None
    assert (where.offset, where.first) == (len(junk), 8)


def test_a_block_inside_a_basin_is_not_taken_for_one_of_the_segment() -> None:
    forged = block(1, identity=5)
    heads, basins = rows(1, dim=(len(forged) + 7) // 8)
    basins[0] = np.frombuffer(forged.ljust(8 * basins.size, b"\0"), "<f8")
    data = heads.tobytes() + basins.tobytes()
    assert found(data) is None
    assert found(data, identity=5) is not None


def test_seek_and_last_agree_with_a_walk() -> None:
    data = encode_header(HEADER)
    start = len(data)
    walked: list[Block] = []
    for index in range(60):
        data += block(2, first=2 * index, dim=9000)
        data += bytes(1000) if index % 7 == 0 else b""  # damage on the way
        walked.append(Block(*(found(data, walked[-1].end if walked else start) or ())))
    read, size = reading(data), len(data)
    assert size > 5 << 20
    assert last_block(read, start, size, 77) == walked[-1]
    assert last_block(read, start, walked[-1].offset, 77) == walked[-2]
    for target in (0, 1, 2, 57, 100, 119, 120):
        passed = seek(read, start, size, 77, lambda at, target=target: at.next_sequence <= target)  # type: ignore[misc]
        begin = start if passed is None else passed.end
        left = [at for at in walked if at.offset < begin]
        assert all(at.next_sequence <= target for at in left)
        needed = next((at.offset for at in walked if at.next_sequence > target), size)
        assert needed - begin < 3 << 20


def test_long_basins_are_sealed_in_smaller_blocks() -> None:
    assert (rows_per_block(64, 256), rows_per_block(64, 1024)) == (256, 1024)
    assert rows_per_block(65_536, 256) == 15
    assert rows_per_block(10_000_000, 1024) == 1


@given(st.binary(max_size=300), st.integers(0, 310))
@settings(max_examples=200)
def test_any_bytes_are_no_segment(data: bytes, offset: int) -> None:
    with pytest.raises(Damaged):
        decode_header(reading(data))
    assert found(data, offset) is None
    assert last_block(reading(data), 0, len(data), None) is None


FORGED = st.builds(
    Column,
    st.sampled_from([*COLUMNS, "names", "other"]),
    st.sampled_from(["<f8", "<u2", "|u1", "text", "O", "nonsense"]),
    st.sampled_from([0, 1, 3, -1, 2**62]),
    st.sampled_from([0, 5, -1, 2**62]),
    st.sampled_from([0, 5, 40, -1, 2**62]),
    st.sampled_from([0, 8, 16, 48, -1, 2**62]),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["shuffle", "list", ""]),
)


@given(st.lists(FORGED, max_size=6), st.binary(max_size=60), st.booleans(), st.sampled_from(COLUMNS))
@settings(max_examples=300)
def test_a_forged_table_gives_data_or_damage(
    table: list[Column], payload: bytes, signed: bool, wanted: str
) -> None:
    if signed:  # checksums that fit, so that only the claims are wrong
        table = [
            msgspec.structs.replace(
                column, crc=zlib.crc32(payload[max(column.offset, 0) :][: max(column.length, 0)])
            )
            for column in table
        ]
    data = pack_block(
        msgspec.msgpack.encode(table), payload, rows=2, dim=3, first=0, segment=77, times=(0, 1), floor=0
    )
    where = found(data)
    assert where is not None
    with contextlib.suppress(Damaged):
        assert len(decode_block(reading(data), where, [wanted])) == 2


def test_what_would_unpack_to_more_than_it_says_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    table = [Column("phi", "<f8", 1, 0, len(bomb), 16, zlib.crc32(bomb), "shuffle")]
    for raw in (16, 1 << 27):
        table = [msgspec.structs.replace(table[0], raw=raw)]
        data = pack_block(
            msgspec.msgpack.encode(table), bomb, rows=2, dim=3, first=0, segment=77, times=(0, 1), floor=0
        )
        where = found(data)
        assert where is not None
        with pytest.raises(Damaged, match=r"unpack|bytes for"):
            decode_block(reading(data), where, ["phi"])


def test_claims_that_cannot_be_are_no_block() -> None:
    for claim in ({"rows": 0}, {"dim": 0}, {"rows": 2**31, "dim": 2**31}, {"first": 2**63}):
        figures = {"rows": 2, "dim": 3, "first": 0, "segment": 77} | claim
        assert found(pack_block(b"", b"", times=(0, 1), floor=0, **figures)) is None
