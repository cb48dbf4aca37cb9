"""Any bytes at all give data or are counted: no crash, no hang, and no more memory than a store may take.

Random bytes rarely get past a checksum. So the parts of intact files are changed one layer at a time, and
every checksum above the change is computed anew, so that only the claims inside are wrong.

QIGHEAL_FUZZ is how many examples each test draws, new ones each time; without it, a few that never change.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qigcore.errors import HistoryError
from qigcore.history import History, journal, segment
from qigcore.history.columns import CONSTANT, FLOATS, NAMES, NUMBERS, TEXTS, Column
from qigcore.rows import REGIMES, Batch

from . import truth
from .limits import little_memory, little_time
from .stores import abandon, file_of

LONG = int(os.environ.get("QIGHEAL_FUZZ", "0"))
DRAWN = settings(
    max_examples=LONG or 100,
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_BLOCK = segment._BLOCK
_FRAME = journal._FRAME


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with little_memory():
        yield


@functools.cache
def intact(precision: str) -> tuple[bytes, bytes]:
    """A segment of two blocks, and a journal of three rows."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(folder, dim=truth.DIM, precision=precision)  # type: ignore[arg-type]
        for start, count in ((0, 20), (20, 5), (25, 3)):
            history.append_rows(*truth.rows(range(start, start + count)), truth.NAMES)
            if count != 3:
                history.seal()
        abandon(history)
        path = Path(folder)
        return file_of(path, ".qigh").read_bytes(), file_of(path, ".journal").read_bytes()


def read_all(folder: Path) -> None:
    """Everything that a reader can ask of a store: it answers, and answers with what a row can be."""
    reader = History.read_only(folder)
    with little_time():
        for columns in (None, ("phi",), ("code", "basin_coords")):
            for batch in reader.scan(columns=columns):
                look(batch, reader.dim)
        for batch in reader.scan(3.0, 9.0):
            look(batch, reader.dim)
        look(reader.last(4), reader.dim)
        for batch in reader.follow(stop=lambda: True):
            look(batch, reader.dim)
        assert all(count >= 0 for count in msgspec.structs.astuple(reader.damage)[:-1])
        for info in reader.segments():
            assert info.rows >= 0
        with suppress(HistoryError):  # of another kind than the writer's
            History(folder, dim=truth.DIM).close()


def look(batch: Batch, dim: int) -> None:
    for name, column in batch.columns.items():
        assert column.shape == ((len(batch), dim) if name == "basin_coords" else (len(batch),))
    if "code" in batch.columns:
        assert all(isinstance(name, str) for name in batch.code_hash)
    if "module" in batch.columns:
        assert len(batch.module_name) == len(batch)
    if "regime" in batch.columns:
        assert batch.regime.max(initial=0) < len(REGIMES)
    if "timestamp" in batch.columns:
        assert np.isfinite(batch.timestamp).all()


def assert_read_or_refused(sealed: bytes, logged: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.qigh").write_bytes(sealed)
        (folder / "a.journal").write_bytes(logged)
        read_all(folder)


class Parts:
    """An intact segment taken apart: changed anywhere, it is signed again when it is put together."""

    def __init__(self, data: bytes) -> None:
        def read(length, offset):
            return data[offset : offset + length]

        header, offset = segment.decode_header(read)
        self.header = data[:offset]
        self.blocks: list[tuple[bytes, bytes, bytes]] = []
        while (block := segment.find_block(read, offset, len(data), header.segment)) is not None:
            begin = block.offset + _BLOCK.size
            self.blocks.append(
                (data[block.offset : begin], data[begin : block.payload], data[block.payload : block.end])
            )
            offset = block.end

    def joined(self) -> bytes:
        return self.header + b"".join(map(b"".join, self.blocks))


def signed_header(data: bytes) -> bytes:
    """A segment's header whose length and checksum fit whatever its body is."""
    body = data[segment._SEGMENT.size :]
    checked = data[12:16] + struct.pack("<I", len(body)) + body
    return data[:8] + struct.pack("<I", zlib.crc32(checked)) + checked


def signed_block(head: bytes, table: bytes, payload: bytes, *, sizes: bool) -> tuple[bytes, bytes, bytes]:
    """A block whose checksums, and if asked its lengths, fit whatever its parts are."""
    head = head[: _BLOCK.size].ljust(_BLOCK.size, b"\0")
    if sizes:
        magic, crc, version, _, _, _, *rest = _BLOCK.unpack(head)
        head = _BLOCK.pack(magic, crc, version, len(table), zlib.crc32(table), len(payload), *rest)
    return head[:8] + struct.pack("<I", zlib.crc32(head[12:])) + head[12:], table, payload


def signed_frame(frame: bytes) -> bytes:
    """A journal's frame whose length and checksums fit whatever it holds."""
    frame = frame.ljust(_FRAME.size, b"\0")
    body = frame[_FRAME.size :]
    prefix = struct.pack("<I", zlib.crc32(body)) + frame[12:16] + struct.pack("<I", len(body)) + frame[20:32]
    return b"\x93QJ\n" + struct.pack("<I", zlib.crc32(prefix)) + prefix + body


ODD = (
    b"\xff" * 8,
    b"\0" * 8,
    b"\xff" * 4,
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x91" * 9,
    b"\x80",
)
PLACE = st.integers(0, 12) | st.integers(0, 1 << 16)  # what is read first decides most
EDIT = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("put"), PLACE, st.binary(min_size=1, max_size=9) | st.sampled_from(ODD)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=9) | st.sampled_from(ODD)),
    st.tuples(st.just("cut"), PLACE, st.integers(1, 80)),
    st.tuples(st.just("twice"), PLACE, st.integers(1, 80)),
)
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def edited(data: bytes, edits: Sequence[tuple[str, int, Any]]) -> bytes:
    for kind, place, what in edits:
        at = place % (len(data) + 1)
        if kind == "flip":
            if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << what]) + data[at + 1 :]
        elif kind == "put":
            data = data[:at] + what + data[at + len(what) :]
        elif kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + what :]
        else:
            data = data[: at + what] + data[at:]
    return data


PRECISION = st.sampled_from(truth.PRECISIONS)


@given(PRECISION, EDITS, EDITS)
@DRAWN
def test_edits_that_no_checksum_covers_up(precision: str, sealed: Any, logged: Any) -> None:
    whole, rows = intact(precision)
    assert_read_or_refused(edited(whole, sealed), edited(rows, logged))


@given(st.binary(max_size=2000), st.binary(max_size=2000))
@DRAWN
def test_bytes_of_no_kind(sealed: bytes, logged: bytes) -> None:
    assert_read_or_refused(sealed, logged)


@given(PRECISION, EDITS)
@DRAWN
def test_headers_that_claim_anything(precision: str, edits: Any) -> None:
    whole, rows = intact(precision)
    parts = Parts(whole)
    head, body = parts.header[: segment._SEGMENT.size], parts.header[segment._SEGMENT.size :]
    parts.header = signed_header(head + edited(body, edits))
    assert_read_or_refused(parts.joined(), rows)


FIELDS = {3: "I", 5: "Q", 6: "I", 7: "I", 8: "Q", 9: "Q", 10: "d", 11: "d", 12: "d"}
"""Places in the 80 bytes of a block of what it claims, but for its checksums."""

FIGURES = st.dictionaries(
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(
        [0, 1, 3, 4, 255, 2**16, 2**31, 2**32 - 1, 2**62, 2**64 - 1, math.nan, math.inf, -math.inf]
    ),
    min_size=1,
    max_size=3,
)


@given(PRECISION, st.integers(0, 1), FIGURES)
@DRAWN
def test_blocks_that_claim_anything(precision: str, which: int, figures: Any) -> None:
    whole, rows = intact(precision)
    parts = Parts(whole)
    head, table, payload = parts.blocks[which]
    fields = list(_BLOCK.unpack(head))
    for place, value in figures.items():
        most = 2**32 if FIELDS[place] == "I" else 2**64
        fields[place] = (
            float(value) if FIELDS[place] == "d" else int(value) % most if math.isfinite(value) else 7
        )
    parts.blocks[which] = signed_block(_BLOCK.pack(*fields), table, payload, sizes=False)
    assert_read_or_refused(parts.joined(), rows)


@given(PRECISION, st.integers(0, 1), EDITS)
@DRAWN
def test_tables_that_claim_anything(precision: str, which: int, edits: Any) -> None:
    whole, rows = intact(precision)
    parts = Parts(whole)
    head, table, payload = parts.blocks[which]
    parts.blocks[which] = signed_block(head, edited(table, edits), payload, sizes=True)
    assert_read_or_refused(parts.joined(), rows)


@given(PRECISION, st.integers(0, 1), st.integers(0, 15), EDITS)
@DRAWN
def test_columns_that_hold_anything(precision: str, which: int, column: int, edits: Any) -> None:
    whole, rows = intact(precision)
    parts = Parts(whole)
    head, table, payload = parts.blocks[which]
    columns, held = msgspec.msgpack.decode(table, type=list[Column]), []
    for index, each in enumerate(columns):
        data, payload = (each.data, payload) if isinstance(each.data, bytes) else cut(payload, each.data)
        if index == column % len(columns):
            data = edited(data, edits)
        if isinstance(each.data, bytes):
            columns[index] = msgspec.structs.replace(each, data=data)
        else:
            columns[index] = msgspec.structs.replace(each, data=len(data), crc=zlib.crc32(data))
            held.append(data)
    parts.blocks[which] = signed_block(head, msgspec.msgpack.encode(columns), b"".join(held), sizes=True)
    assert_read_or_refused(parts.joined(), rows)


def cut(data: bytes, length: int) -> tuple[bytes, bytes]:
    return data[:length], data[length:]


@given(PRECISION, st.integers(0, 20), EDITS, st.booleans())
@DRAWN
def test_frames_that_hold_anything(precision: str, which: int, edits: Any, body: bool) -> None:
    whole, rows = intact(precision)
    frames = list(frames_of(rows))
    frame = frames[which % len(frames)]
    kept = _FRAME.size if body else 8
    frames[which % len(frames)] = signed_frame(frame[:kept] + edited(frame[kept:], edits))
    assert_read_or_refused(whole, b"".join(frames))


def frames_of(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + _FRAME.size + struct.unpack_from("<I", data, at + 16)[0]
        yield data[at:end]
        at = end


def test_a_table_of_millions_of_names_is_not_unpacked() -> None:
    whole, rows = intact("compact")
    parts = Parts(whole)
    head, table, payload = parts.blocks[0]
    columns = msgspec.msgpack.decode(table, type=list[Column])
    names = b"\xdd" + struct.pack(">I", 7_000_000) + b"\xc4\x02ab" * 7_000_000  # 1.4 GB as Python objects
    columns = [column for column in columns if column.number != NAMES]
    columns.append(Column(NAMES, TEXTS, len(names), zlib.crc32(names)))
    parts.blocks[0] = signed_block(head, msgspec.msgpack.encode(columns), payload + names, sizes=True)
    assert_read_or_refused(parts.joined(), rows)


@pytest.mark.parametrize(("rows", "dim"), [(16_384, 100), (160_000, 1), (31, 65_536), (1 << 20, 64)])
def test_blocks_of_many_rows_in_few_bytes_take_what_a_long_block_takes(rows: int, dim: int) -> None:
    parts = Parts(intact("exact")[0])
    fields = list(_BLOCK.unpack(parts.blocks[0][0]))
    fields[6], fields[7], fields[11] = rows, dim, fields[10]  # all of them at one time
    planes = zstandard.ZstdCompressor().compress(bytes(8 * rows * dim) if rows * dim < 1 << 23 else bytes(8))
    basins = b"\0" + bytes([8 << 4, 0, 0, 0, 0, 0]) + planes
    time_of_all = struct.pack("<d", fields[10]).lstrip(b"\0")
    columns = [
        Column(NUMBERS["timestamp"], CONSTANT, time_of_all),
        Column(NUMBERS["basin_coords"], FLOATS, len(basins), zlib.crc32(basins)),
    ]
    block = signed_block(_BLOCK.pack(*fields), msgspec.msgpack.encode(columns), basins, sizes=True)
    figures = msgspec.msgpack.decode(parts.header[segment._SEGMENT.size :])
    figures[1] = dim
    parts.header = signed_header(parts.header[: segment._SEGMENT.size] + msgspec.msgpack.encode(figures))
    parts.blocks = [block] * 3
    assert_read_or_refused(parts.joined(), b"")


def test_a_journal_longer_than_any_writer_makes_one_is_read_in_part(tmp_path: Path) -> None:
    parts = Parts(intact("exact")[0])
    figures = msgspec.msgpack.decode(parts.header[segment._SEGMENT.size :])
    figures[1] = 1
    (tmp_path / "a.qigh").write_bytes(
        signed_header(parts.header[: segment._SEGMENT.size] + msgspec.msgpack.encode(figures))
    )
    frame = signed_frame(b"".join(frames_of(journal.encode_rows(*truth.rows([5], 1), 0, 0))))
    with (tmp_path / "a.journal").open("wb") as file:
        for _ in range(100):
            file.write(frame * 10_000)
    reader = History.read_only(tmp_path)
    with little_time():
        assert sum(len(batch) for batch in reader.scan()) == 1  # all have one sequence number
