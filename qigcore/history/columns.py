"""The inside of a sealed block: columns to bytes and back. Where a block lies is `segment`'s affair.

A block has a MessagePack table with one `Column` for each column that is stored, and the columns' bytes
behind it in the same order. Each is encoded by itself and carries its own CRC-32, so that a scan reads
and checks only the columns it was asked for, and a flipped bit in one leaves the others readable. What a
few bytes can say stands in the table. docs/history-format.md describes every encoding; the loops are in
`qigcore._codec`, and the one entropy coder is zstd.

The encodings say how a block is read, whatever its precision. "compact" rounds the figures before they
are encoded and keeps of basins no more than their directions, each within 1e-4 rad.

Nothing here trusts a size that it reads: rows × width bounds what is allocated.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import zstandard

from qigcore import _codec
from qigcore.history.segment import Block, Damaged, Read, pack_block
from qigcore.rows import COLUMNS, HEAD, REGIMES, Array, Batch, FloatArray

CONSTANT, TEXTS, FLOATS, MICROS, WHOLES, SIMPLEX, SPHERE = range(7)
"""Encodings by their numbers in the table; never given to another."""

NAMES = 1
NUMBERS = {"basin_coords": 0, **{name: 2 + i for i, name in enumerate(HEAD.names or ())}}
"""Columns by their numbers in the table. NAMES is that of the table of names; fields of HEAD follow."""

_STATES = {SIMPLEX: "simplex", SPHERE: "sphere"}
_LEVEL = 1  # higher ones find nothing more in planes of noise
MAX_NAME = 1024
_MAX_TEXTS = 1 << 16  # what an index of 16 bits can tell apart
_MAX_INLINE = 512
_UNCERTAIN = 1 << 53  # not every whole number from here on is a float64
_AHEAD = 1 << 14  # bytes read behind the table at once; the scalar columns of a thousand rows


class Column(msgspec.Struct, frozen=True, array_like=True):
    """How one column is stored: `data` is its bytes or, of those behind the table, their number."""

    number: int
    encoding: int
    data: int | bytes
    crc: int = 0


class _Zstd(threading.local):
    """A compressor and a decompressor for each thread: they keep their buffers, and are not thread-safe."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def recode(heads: Array, table: Sequence[str], names: dict[str, int]) -> Array:
    """A copy of `heads` whose code and module point into `names`, which grows by what they use.

    A name is kept to its first 1,024 characters.
    """
    used = sorted({*heads["code"].tolist(), *heads["module"].tolist()})
    lookup = np.zeros(used[-1] + 1 if used else 1, "<u2")
    for index in used:
        lookup[index] = names.setdefault(table[index][:MAX_NAME], len(names))
    recoded: Array = heads.copy()
    for pointer in ("code", "module"):
        recoded[pointer] = lookup[heads[pointer]]
    return recoded


def encode_text(name: str) -> bytes:
    """UTF-8 that also carries the lone surrogates a Python string may hold."""
    return name.encode("utf-8", "surrogatepass")


def decode_text(data: bytes) -> str:
    """The inverse of `encode_text`; bytes that are no text become U+FFFD."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def rounded(heads: Array) -> Array:
    """A copy of heads [n] of HEAD with what "compact" keeps of its figures; once rounded, they stay as they are.

    Each float64 has 14 significant bits (13 explicit ones, ties to even), a timestamp is whole microseconds
    where |t| < 2^33 seconds. NaN, infinities and signed zeros are kept; no finite value becomes infinite.
    """
    kept: Array = np.array(heads, order="C")
    _codec.round_heads(kept)
    return kept


def encode_block(
    heads: Array,
    basins: FloatArray,
    names: Sequence[str],
    *,
    first: int,
    segment: int,
    floor: float,
    precision: str = "exact",
    geometry: str = "simplex",
    directed: bool = False,
) -> bytes:
    """One sealed block: heads [n] of HEAD, basins [n, dim], n at least 1, `names` what heads point into.

    precision, geometry: as in the segment's header. "compact" keeps what `rounded` keeps of the heads, and
    all of the basins where one of them is no state of the geometry. directed: the basins are whole numbers
    as `decode_block` gives directions, which a compact block keeps as they are.
    """
    if precision == "compact":
        heads = rounded(heads)
    table: list[tuple[int, int, int | bytes] | tuple[int, int, int | bytes, int]] = []
    payload: list[bytes] = []

    def put(number: int, encoding: int, data: bytes) -> None:
        if encoding == CONSTANT or (encoding == TEXTS and len(data) <= _MAX_INLINE):
            table.append((number, encoding, data))
        else:
            payload.append(data)
            table.append((number, encoding, len(data), zlib.crc32(data)))

    for name in COLUMNS:
        if name != "basin_coords":
            put(NUMBERS[name], *_encoded(heads[name], times=name == "timestamp"))
    put(NAMES, TEXTS, msgspec.msgpack.encode([encode_text(name) for name in names]))
    if directed:
        whole = np.ascontiguousarray(basins.T, np.int64)
        put(NUMBERS["basin_coords"], SIMPLEX if geometry == "simplex" else SPHERE, _packed(whole))
    else:
        put(NUMBERS["basin_coords"], *_encoded_basins(basins, geometry if precision == "compact" else None))
    times = heads["timestamp"]
    return pack_block(
        msgspec.msgpack.encode(table),
        b"".join(payload),
        rows=len(heads),
        dim=basins.shape[1],
        first=first,
        segment=segment,
        times=(float(times.min()), float(times.max())),
        floor=floor,
    )


def _encoded(values: Array, times: bool) -> tuple[int, bytes]:
    """One scalar column [n]: its encoding and its bytes."""
    octets = values[:1].tobytes()
    if values.dtype.kind != "f":
        if (values == values[0]).all():
            return CONSTANT, octets.lstrip(b"\0")
        return WHOLES, _packed(values[None].astype(np.int64))
    numbers, dropped, constant = _codec.ordered(values[:, None])
    if constant:
        return CONSTANT, octets.lstrip(b"\0")
    whole = _codec.micros(values) if times else None
    if whole is not None:
        return MICROS, _packed(whole)
    return FLOATS, dropped.to_bytes() + _packed(numbers)


def _encoded_basins(basins: FloatArray, geometry: str | None) -> tuple[int, bytes]:
    """Basins [n, dim], as directions in a geometry or, where that is None or impossible, exactly."""
    directions = None if geometry is None else _codec.quantised(basins, geometry)
    if directions is None:
        numbers, dropped, _ = _codec.ordered(basins)
        return FLOATS, dropped.to_bytes() + _packed(numbers)
    return (SIMPLEX if geometry == "simplex" else SPHERE), _packed(directions)


def _packed(numbers: Array) -> bytes:
    body, planes = _codec.pack(numbers)
    return body + _zstd.compressor.compress(planes) if planes else body


class _Payload:
    """The bytes behind a table: a first stretch of them at hand, the rest read when it is asked for."""

    def __init__(self, read: Read, block: Block, ahead: int) -> None:
        self.read = read
        self.block = block
        table, whole = block.table_length, block.table_length + min(ahead, block.payload_length)
        data = read(whole, block.payload - table)
        self.table = _intact(data[:table], table, block.table_crc, "table of columns")
        self.near = memoryview(data)[table:]

    def bytes_of(self, name: str, start: int, length: int, crc: int) -> bytes:
        if not 0 <= start <= start + length <= self.block.payload_length:
            raise Damaged(f"column {name} lies outside its block")
        if start + length <= len(self.near):
            data = bytes(self.near[start : start + length])
        else:
            data = self.read(length, self.block.payload + start)
        return _intact(data, length, crc, f"column {name}")


class _Place(NamedTuple):
    """A column of the table, and where its bytes begin behind it."""

    column: Column
    start: int


def decode_block(read: Read, block: Block, wanted: Collection[str], directions: bool = False) -> Batch:
    """The `wanted` columns of a block; hardly more than their bytes are read. Raises Damaged.

    directions: basins that are stored as directions come as the whole numbers that stand in the block, to be
    stored again as they are. A column "directed" says which rows those are.
    """
    payload = _Payload(read, block, block.payload_length if "basin_coords" in wanted else _AHEAD)
    places = _places(payload.table)
    columns = {name: _column(name, places.get(NUMBERS[name]), payload, directions) for name in wanted}
    if directions:
        basins = places.get(NUMBERS["basin_coords"])
        columns["directed"] = np.full(block.rows, basins is not None and basins.column.encoding in _STATES)
    names: tuple[str, ...] = ("",)
    pointers = [columns[pointer] for pointer in ("code", "module") if pointer in columns]
    if pointers and NAMES in places:
        names = _names(places[NAMES], payload)
    if "timestamp" in columns:
        times = columns["timestamp"]
        if not (-np.inf < block.low == times.min() and times.max() == block.high < np.inf):
            raise Damaged("column timestamp: other times than the block says")
    if any(pointer.max() >= len(names) for pointer in pointers):
        raise Damaged(f"columns code and module point past the {len(names)} names")
    if "regime" in columns and columns["regime"].max() >= len(REGIMES):
        raise Damaged(f"column regime: {columns['regime'].max()} is none of the {len(REGIMES)} regimes")
    return Batch(columns, names)


def _places(table: bytes) -> dict[int, _Place]:
    try:
        columns = _TABLE.decode(table)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"table of columns: {error}") from None
    places: dict[int, _Place] = {}
    start = 0
    for column in columns:
        places[column.number] = _Place(column, start)
        if not isinstance(column.data, bytes):
            start += column.data
    return places


_TABLE = msgspec.msgpack.Decoder(list[Column])
_TEXTS = msgspec.msgpack.Decoder(Annotated[list[bytes], msgspec.Meta(max_length=_MAX_TEXTS)])


def directions_of(basins: FloatArray, geometry: str) -> FloatArray | None:
    """Basins [n, dim] as whole numbers, each row in the direction of its amplitude, within 1e-4 rad of it.

    None where a row is no state of the geometry.
    """
    whole = _codec.quantised(basins, geometry)
    return None if whole is None else np.array(whole.T, np.float64, order="C")


def _column(name: str, place: _Place | None, payload: _Payload, directions: bool) -> Array:
    """One column as an array [rows], basins as [rows, dim]; what is not stored is NaN, or 0."""
    block = payload.block
    wide = name == "basin_coords"
    dtype = np.dtype("<f8") if wide else HEAD[name]
    shape = (block.rows, block.dim) if wide else (block.rows,)
    if place is None:
        return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
    encoding = place.column.encoding
    data = _data(name, place, payload)
    if encoding == CONSTANT and len(data) <= dtype.itemsize:
        return np.full(shape, np.frombuffer(data.rjust(dtype.itemsize, b"\0"), dtype)[0], dtype)
    try:
        if encoding == FLOATS and dtype.kind == "f" and data:
            numbers = _unpacked(name, data[1:], block.rows, block.dim if wide else 1)
            return _codec.unordered(numbers, data[0]).reshape(shape)
        if encoding == MICROS and dtype.kind == "f" and not wide:
            return _codec.seconds(_unpacked(name, data, block.rows, 1))
        if encoding == WHOLES and dtype.kind == "u":
            (numbers,) = _unpacked(name, data, block.rows, 1)
            if numbers.min() >= 0 and numbers.max() <= np.iinfo(dtype).max:
                wholes: Array = numbers.astype(dtype)
                return wholes
            raise ValueError(f"numbers that do not fit {dtype}")
        if encoding in _STATES and wide:
            whole = _unpacked(name, data, block.rows, block.dim)
            if not directions:
                return _codec.states(whole, _STATES[encoding])
            if max(whole.max(), -whole.min()) >= _UNCERTAIN:
                raise ValueError("directions of more digits than a float64 has")
            return np.array(whole.T, np.float64, order="C")
    except ValueError as error:
        raise Damaged(f"column {name}: {error}") from None
    raise Damaged(
        f"column {name}: encoding {encoding} of {len(data)} bytes is not known here; a later version may read it"
    )


def _data(name: str, place: _Place, payload: _Payload) -> bytes:
    column = place.column
    if isinstance(column.data, bytes):
        return column.data
    return payload.bytes_of(name, place.start, column.data, column.crc)


def _unpacked(name: str, data: bytes, rows: int, width: int) -> Array:
    """Whole numbers [width, rows] of a packed column. Raises Damaged, or another ValueError."""
    end, size = _codec.layout(data, rows, width)
    return _codec.unpack(data, _inflated(name, data[end:], size), rows, width)


def _inflated(name: str, packed: bytes, size: int) -> bytes:
    if not size and not packed:
        return b""
    try:
        # The frame states the size that decompressing will allocate.
        if size and zstandard.frame_content_size(packed) == size:
            planes = _zstd.decompressor.decompress(packed, allow_extra_data=False)
            if len(planes) == size:
                return planes
    except zstandard.ZstdError as error:
        raise Damaged(f"column {name}: {error}") from None
    raise Damaged(f"column {name} does not unpack to {size} bytes")


def _names(place: _Place, payload: _Payload) -> tuple[str, ...]:
    if place.column.encoding != TEXTS:
        raise Damaged(
            f"names: encoding {place.column.encoding} is not known here; a later version may read it"
        )
    try:
        texts = _TEXTS.decode(_data("names", place, payload))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"names: {error}") from None
    return tuple(map(decode_text, texts))


def _intact(data: bytes, length: int, crc: int, what: str) -> bytes:
    if len(data) != length or zlib.crc32(data) != crc:
        raise Damaged(f"{what}: {length} bytes fail their checksum")
    return data
