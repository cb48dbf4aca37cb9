"""The sealed layout: what is written comes back, and no other bytes are ever taken for it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.history import segment
from qigcore.history.columns import decode_block, encode_block
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
from qigcore.rows import COLUMNS, Batch

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


def test_a_block_cut_anywhere_is_none() -> None:
    data = block(2)
    assert all(found(data[:length]) is None for length in range(len(data)))


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


def test_claims_that_cannot_be_are_no_block() -> None:
    for claim in ({"rows": 0}, {"dim": 0}, {"rows": 2**31, "dim": 2**31}, {"first": 2**63}):
        figures = {"rows": 2, "dim": 3, "first": 0, "segment": 77} | claim
        assert found(pack_block(b"", b"", times=(0, 1), floor=0, **figures)) is None
