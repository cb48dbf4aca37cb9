"""The inside of a block: exact comes back bit for bit, compact as it was rounded, and damage as Damaged."""

from __future__ import annotations

import contextlib
import math
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore import _codec, geometry
from qigcore.history import columns
from qigcore.history.columns import (
    CONSTANT,
    FLOATS,
    MICROS,
    NUMBERS,
    SIMPLEX,
    TEXTS,
    WHOLES,
    Column,
    decode_block,
    decode_text,
    encode_block,
    encode_text,
    rounded,
)
from qigcore.history.segment import LOWEST, Block, Damaged, find_block, pack_block
from qigcore.rows import COLUMNS, HEAD, Array, Batch
from tests import reference

from .stores import NAMES, flipped, rows, same

FIGURES = [name for name in HEAD.names or () if HEAD[name].kind == "f"]


def reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda length, offset: data[offset : offset + length]


def found(data: bytes) -> Block:
    block = find_block(reading(data), 0, len(data), 77)
    assert block is not None
    return block


def sealed(heads: Array, basins: Array, precision: str = "exact", geometry: str = "simplex") -> bytes:
    return encode_block(
        heads,
        basins,
        NAMES,
        first=0,
        segment=77,
        floor=LOWEST,
        precision=precision,
        geometry=geometry,
    )


def decoded(data: bytes, wanted: Sequence[str] = COLUMNS) -> Batch:
    return decode_block(reading(data), found(data), wanted)


def table_of(data: bytes) -> list[Column]:
    block = found(data)
    return msgspec.msgpack.decode(data[block.payload - block.table_length : block.payload], type=list[Column])


def encodings(data: bytes) -> dict[int, int]:
    return {column.number: column.encoding for column in table_of(data)}


def forged(table: Any, payload: bytes, count: int = 2) -> bytes:
    return pack_block(
        msgspec.msgpack.encode(table),
        payload,
        rows=count,
        dim=3,
        first=0,
        segment=77,
        times=(0.0, count - 1.0),
        floor=LOWEST,
    )


# what is kept


def test_exact_keeps_every_bit() -> None:
    heads, basins = rows(300)
    bits = np.random.default_rng(1).integers(0, 2**64, (12, 300), dtype=np.uint64)
    for name, odd in zip(FIGURES[1:], bits, strict=False):  # NaNs of all kinds among them
        heads[name][::3] = odd[::3].view("f8")
    heads["timestamp"][5] = -0.0
    basins[::4] = bits[-3:].T[::4].view("f8")
    assert same(decoded(sealed(heads, basins)), Batch.of_rows(heads, basins, NAMES))


def test_compact_keeps_what_rounding_leaves_of_the_figures() -> None:
    heads, basins = rows(300)
    heads["timestamp"] += np.random.default_rng(2).uniform(0, 1, 300)
    heads["phi"][:4] = [np.nan, -0.0, -np.inf, 1.7976931348623157e308]
    kept = rounded(heads)
    assert rounded(kept).tobytes() == kept.tobytes()
    assert decoded(sealed(kept, basins, "compact")).heads().tobytes() == kept.tobytes()
    data = sealed(heads, basins, "compact")  # what was not rounded before is now
    assert decoded(data).heads().tobytes() == kept.tobytes()
    assert (found(data).low, found(data).high) == (kept["timestamp"].min(), kept["timestamp"].max())


@given(st.lists(st.floats(), min_size=1, max_size=8), st.lists(st.floats(), min_size=1, max_size=8))
def test_figures_have_14_significant_bits_and_times_whole_microseconds(
    figures: list[float], times: list[float]
) -> None:
    heads = np.zeros(len(figures), HEAD)
    heads["agency"] = figures
    assert rounded(heads)["agency"].tobytes() == np.array([reference.rounded(x) for x in figures]).tobytes()
    heads = np.zeros(len(times), HEAD)
    heads["timestamp"] = times
    kept = rounded(heads)["timestamp"]
    for before, after in zip(times, kept.tolist(), strict=True):
        if abs(before) < 2**33:
            assert after == reference.microseconds(before) / 1e6
        else:
            assert struct.pack("d", before) == struct.pack("d", after)


def halfway(microseconds: int, ulps: int) -> float:
    """A float64 at, or so many steps beside, the middle between two whole microseconds."""
    near = (microseconds + 0.5) / 1e6
    for _ in range(abs(ulps)):
        near = math.nextafter(near, math.copysign(math.inf, ulps))
    return near


@given(
    st.lists(
        st.floats(-(2.0**33), 2.0**33, exclude_min=True, exclude_max=True)
        | st.floats(1.7e9, 1.9e9)
        | st.floats(-1e-3, 1e-3)
        | st.builds(halfway, st.integers(-(2**52), 2**52), st.integers(-2, 2))
        | st.builds(halfway, st.integers(-(10**4), 10**4), st.integers(-2, 2))
        # Halves of a microsecond that float64 has exactly are odd multiples of 2^-7 s.
        | st.integers(-(2**38), 2**38).map(lambda odd: (2 * odd + 1) / 128),
        min_size=1,
        max_size=50,
    )
)
@settings(max_examples=300, deadline=None)
def test_a_time_is_rounded_to_microseconds_once(times: list[float]) -> None:
    heads = np.zeros(len(times), HEAD)
    heads["timestamp"] = times
    kept = rounded(heads)["timestamp"]
    assert kept.tolist() == [reference.microseconds(moment) / 1e6 for moment in times]
    assert _codec.micros(kept + 0.0) is not None  # -0.0 is no whole number
    assert _codec.seconds(_codec.micros(kept + 0.0)).tobytes() == (kept + 0.0).tobytes()


def test_no_moment_of_these_years_is_a_microsecond_off() -> None:
    # What broke: the product was rounded to a quarter of a microsecond first, and then to a whole one.
    heads = np.zeros(4000, HEAD)
    heads["timestamp"] = 1.7e9 + np.random.default_rng(6).random(4000) * 1e8
    off = heads["timestamp"].copy()
    kept = rounded(heads)["timestamp"]
    exact = np.array([reference.microseconds(moment) / 1e6 for moment in off.tolist()])
    assert kept.tobytes() == exact.tobytes()
    assert (np.rint(off * 1e6) / 1e6 != exact).mean() > 0.05  # the moments tell the two apart


def test_rounding_takes_contiguous_heads_alone() -> None:
    for wrong in (np.zeros(4, HEAD)[::2], np.zeros((2, 2), HEAD), np.zeros(3)):
        with pytest.raises(ValueError, match="expected contiguous, writable heads"):
            _codec.round_heads(wrong)
    assert len(rounded(np.zeros(4, HEAD)[::2])) == 2


@pytest.mark.parametrize("kind", ["simplex", "sphere"])
def test_compact_basins_are_states_within_their_bound(kind: str) -> None:
    heads, _ = rows(257, dim=64)
    rng = np.random.default_rng(3)
    basins = rng.gamma(4.0, 1e-200, (257, 64)) if kind == "simplex" else rng.normal(0, 1e150, (257, 64))
    data = sealed(heads, basins, "compact", kind)
    kept = decoded(data, ["basin_coords"]).basin_coords
    apart = [geometry.distance(a, b, kind) for a, b in zip(basins, kept, strict=True)]  # type: ignore[arg-type]
    assert 9e-5 < max(apart) <= 1e-4
    lengths = kept.sum(axis=1) if kind == "simplex" else np.linalg.norm(kept, axis=1)
    assert np.allclose(lengths, 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_block_with_a_basin_that_is_no_state_keeps_all_of_them_exactly(bad: float) -> None:
    heads, basins = rows(20)
    basins[7, 1] = bad
    data = sealed(rounded(heads), basins, "compact")
    assert decoded(data).basin_coords.tobytes() == basins.tobytes()
    basins[7] = 0
    assert decoded(sealed(heads, basins, "compact")).basin_coords.tobytes() == basins.tobytes()


def test_a_row_takes_the_bytes_that_its_noise_asks_for() -> None:
    # A Dirichlet of concentration 500 has 98 bytes of entropy per row at this precision, by its spread.
    rng = np.random.default_rng(4)
    heads, _ = rows(1024, dim=64)
    for name in FIGURES[1:]:
        heads[name] = 0.0
    for name in ("repaired", "regime"):
        heads[name] = 0
    basins = rng.dirichlet(np.full(64, 500 / 64), 1024)
    assert len(sealed(heads, basins, "compact")) < 98 * 1024
    steady = np.repeat(basins[:1], 1024, axis=0)
    assert len(sealed(heads, steady, "compact")) < 500
    walking = np.cumsum(rng.normal(0, 2e-6, (1024, 64)), axis=0) + basins[0]
    assert len(sealed(heads, np.abs(walking), "compact")) < 40 * 1024


def test_encodings_are_chosen_by_what_loses_nothing() -> None:
    heads, basins = rows(50)
    heads["phi"] = 0.7
    first = encodings(sealed(heads, basins))
    assert first[NUMBERS["timestamp"]] == MICROS
    assert first[NUMBERS["phi"]] == CONSTANT
    assert first[NUMBERS["kappa_eff"]] == FLOATS
    assert first[NUMBERS["repaired"]] == WHOLES
    assert first[NUMBERS["code"]] == CONSTANT
    assert first[NUMBERS["basin_coords"]] == FLOATS
    for odd in (1e-7, 2.0**33, -0.0):
        heads["timestamp"][3] = odd
        assert encodings(sealed(heads, basins))[NUMBERS["timestamp"]] == FLOATS
    assert encodings(sealed(heads, basins, "compact"))[NUMBERS["basin_coords"]] == SIMPLEX


# names


def test_only_names_in_use_are_stored_and_texts_survive() -> None:
    texts = ("", "unused" * 1000, "\udce4\x00\n\U0001f9e0", "x" * 1024)
    heads, basins = rows(4)
    heads["code"], heads["module"] = [2, 2, 3, 0], 0
    names = {"": 0}
    recoded = columns.recode(heads, texts, names)
    assert list(names) == ["", texts[2], texts[3]]
    assert recoded["code"].tolist() == [1, 1, 2, 0]
    data = encode_block(recoded, basins, tuple(names), first=0, segment=77, floor=LOWEST)
    assert decoded(data, ["code"]).code_hash.tolist() == [texts[2], texts[2], texts[3], ""]


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_survives(text: str) -> None:
    assert decode_text(encode_text(text)) == text


@given(st.binary())
def test_bytes_that_are_no_text_still_give_one(data: bytes) -> None:
    assert isinstance(decode_text(data), str)


# damage


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_no_flipped_bit_is_read_as_data(precision: str) -> None:
    data = sealed(*rows(3), precision)
    intact = found(data)
    for bit in range(8 * len(data)):
        read = reading(flipped(data, bit))
        where = find_block(read, 0, len(data), 77)
        if where is not None:
            assert where == intact
            with pytest.raises(Damaged):
                decode_block(read, where, COLUMNS)


def test_damage_to_one_column_leaves_the_others_readable() -> None:
    data = sealed(*rows(5))
    data = flipped(data, 8 * (len(data) - 20))  # the basins come last
    assert decoded(data, ["timestamp", "phi"]).phi.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(Damaged, match=r"basin_coords.*checksum"):
        decoded(data, ["basin_coords"])


def test_only_the_columns_asked_for_are_read() -> None:
    data = sealed(*rows(1024, dim=64))
    block = found(data)
    asked: list[int] = []

    def read(length: int, offset: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    decode_block(read, block, ["timestamp", "phi"])
    assert sum(asked) < 1 << 15
    assert len(data) > 1 << 18


def test_columns_of_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, basins = rows(3)
    monkeypatch.setattr(columns, "COLUMNS", ("timestamp", "phi", "code", "basin_coords"))
    data = sealed(heads, basins)
    monkeypatch.undo()
    old = decoded(data)
    assert old.phi.tolist() == [0, 1, 2]
    assert np.isnan(old.agency).all()
    assert old.repaired.tolist() == [0, 0, 0]
    assert old.columns["repaired"].dtype == HEAD["repaired"]


def test_what_a_later_version_adds_is_passed_over_and_what_it_changes_is_refused() -> None:
    data = sealed(*rows(3))
    block = found(data)
    table = msgspec.msgpack.decode(data[block.payload - block.table_length : block.payload])
    payload = b"later" + data[block.payload :]
    more = [
        [200, 99, 5, zlib.crc32(b"later")],
        [201, 99, b"inline"],
        *([*entry, 0, "new"][:5] for entry in table),
    ]
    assert decoded(forged(more, payload, 3)).phi.tolist() == [0, 1, 2]
    changed = [[entry[0], 99, *entry[2:]] if entry[0] == NUMBERS["phi"] else entry for entry in table]
    later = forged(changed, data[block.payload :], 3)
    with pytest.raises(Damaged, match=r"column phi: encoding 99.*later version"):
        decoded(later)
    assert len(decoded(later, ["timestamp", "kappa_eff"])) == 3


def test_what_would_unpack_to_more_than_it_says_is_not_unpacked() -> None:
    body, _ = _codec.pack(np.zeros((3, 2), np.int64))
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    for planes in (b"", bytes([body[0] | 0x10])):
        data = b"\0" + (planes + body[1:] if planes else body) + bomb
        table = [Column(NUMBERS["basin_coords"], FLOATS, len(data), zlib.crc32(data))]
        with pytest.raises(Damaged, match=r"does not unpack to [06] bytes"):
            decoded(forged(table, data), ["basin_coords"])


def test_times_that_the_block_does_not_say_are_damage() -> None:
    data = sealed(*rows(3))
    block = found(data)
    table = msgspec.msgpack.decode(data[block.payload - block.table_length : block.payload])
    for times in ((0.0, 1.0), (-1.0, 2.0), (0.0, np.inf), (np.nan, 2.0)):
        other = pack_block(
            msgspec.msgpack.encode(table),
            data[block.payload :],
            rows=3,
            dim=3,
            first=0,
            segment=77,
            times=times,
            floor=LOWEST,
        )
        with pytest.raises(Damaged, match="timestamp"):
            decoded(other)


FORGED = st.builds(
    Column,
    st.sampled_from([*NUMBERS.values(), columns.NAMES, 99]),
    st.integers(-1, 8),
    st.sampled_from([0, 5, 40, -1, 2**62, b"", b"\x01", bytes(9), b"\x91\xc4\x00"]),
    st.integers(0, 2**32 - 1),
)


@given(st.lists(FORGED, max_size=6), st.binary(max_size=60), st.booleans(), st.sampled_from(COLUMNS))
@settings(max_examples=200, deadline=None)
def test_a_forged_table_gives_data_or_damage(
    table: list[Column], payload: bytes, signed: bool, wanted: str
) -> None:
    start = 0
    for index, column in enumerate(table):
        if isinstance(column.data, int):
            end = start + column.data
            if signed:  # checksums that fit, so that only the claims are wrong
                crc = zlib.crc32(payload[max(start, 0) : max(end, 0)])
                table[index] = msgspec.structs.replace(column, crc=crc)
            start = end
    with contextlib.suppress(Damaged):
        assert len(decoded(forged(table, payload), [wanted])) == 2


@given(
    st.sampled_from(["exact", "compact"]),
    st.integers(0, 15),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(-30, 30),
)
@settings(max_examples=200, deadline=None)
def test_a_column_with_any_bytes_changed_gives_data_or_damage(
    precision: str, which: int, edits: list[tuple[int, int]], longer: int
) -> None:
    data = sealed(*rows(7), precision)
    block = found(data)
    table, pieces, start = table_of(data), [], block.payload
    for column in table:
        pieces.append(
            column.data if isinstance(column.data, bytes) else data[start : (start := start + column.data)]
        )
    which %= len(table)
    piece = bytearray(pieces[which])
    for place, value in edits:
        if piece:
            piece[place % len(piece)] = value
    piece = piece[:longer] if longer < 0 else piece + bytes(longer)
    inline = isinstance(table[which].data, bytes)
    pieces[which] = bytes(piece)
    table[which] = msgspec.structs.replace(
        table[which], data=bytes(piece) if inline else len(piece), crc=zlib.crc32(piece)
    )
    payload = b"".join(
        piece for piece, column in zip(pieces, table, strict=True) if not isinstance(column.data, bytes)
    )
    signed = pack_block(
        msgspec.msgpack.encode(table),
        payload,
        rows=7,
        dim=3,
        first=0,
        segment=77,
        times=(block.low, block.high),
        floor=LOWEST,
    )
    with contextlib.suppress(Damaged):
        batch = decoded(signed)
        assert batch.basin_coords.shape == (7, 3)
        assert all(len(column) == 7 for column in batch.columns.values())


def test_threads_encode_and_decode_beside_one_another() -> None:
    heads, basins = rows(256, dim=64)
    expected = sealed(heads, basins, "compact")
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            if sealed(heads, basins, "compact") != expected or len(decoded(expected)) != 256:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert TEXTS == 1
