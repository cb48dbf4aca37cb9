"""The inside of a sealed block: columns to bytes and back. Where a block lies is `segment`'s affair.

Each column is shuffled (first all lowest bytes, then all second ones, ...), compressed by itself with
zstd and carries its own CRC-32, so that a scan reads and checks only the columns it was asked for, and
a flipped bit in one leaves the others readable.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

import msgspec
import numpy as np
import zstandard

from qigcore.history.segment import Block, Damaged, Read, pack_block
from qigcore.rows import COLUMNS, HEAD, Array, Batch, FloatArray

_LEVEL = 3
_MAX_NAME = 1024
_MAX_TEXTS = 1 << 24
_MAGNITUDE = (1 << 63) - 1
_INFINITY = 0x7FF << 52


class Column(msgspec.Struct, frozen=True, array_like=True):
    """Where one column lies in a block's payload. `width` is the number of values per row."""

    name: str
    dtype: str
    width: int
    offset: int
    length: int
    raw: int
    crc: int
    encoding: str


def recode(heads: Array, table: Sequence[str], names: dict[str, int]) -> Array:
    """A copy of `heads` whose code and module point into `names`, which grows by what they use.

    A name is kept to its first 1,024 characters.
    """
    used = sorted({*heads["code"].tolist(), *heads["module"].tolist()})
    lookup = np.zeros(used[-1] + 1 if used else 1, "<u2")
    for index in used:
        lookup[index] = names.setdefault(table[index][:_MAX_NAME], len(names))
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
    kept: Array = heads.copy()
    for name in HEAD.names or ():
        if HEAD[name].kind != "f":
            continue
        if name == "timestamp":
            times = heads[name]
            with np.errstate(over="ignore", invalid="ignore"):
                kept[name] = np.where(np.abs(times) < 2.0**33, np.rint(times * 1e6) / 1e6, times)
            continue
        bits = np.ascontiguousarray(heads[name]).view("<u8")
        near = (bits + ((1 << 38) - 1) + (bits >> 39 & 1)) >> 39 << 39
        ordinary = bits & _MAGNITUDE < _INFINITY
        overflows = ordinary & (near & _MAGNITUDE >= _INFINITY)
        near = np.where(overflows, bits >> 39 << 39, near)
        kept[name] = np.where(ordinary, near, bits).view("<f8")
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
) -> bytes:
    """One sealed block: heads [n] of HEAD, basins [n, dim], n at least 1, `names` what heads point into.

    precision, geometry: as in the segment's header.
    """
    if precision == "compact":
        heads = rounded(heads)
    columns: dict[str, Array] = {name: heads[name] for name in COLUMNS if name != "basin_coords"}
    columns["basin_coords"] = basins
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    table: list[Column] = []
    payload = bytearray()

    def put(name: str, dtype: str, width: int, raw: bytes, encoding: str) -> None:
        packed = compressor.compress(raw)
        where = len(payload)
        payload.extend(packed)
        table.append(Column(name, dtype, width, where, len(packed), len(raw), zlib.crc32(packed), encoding))

    for name, column in columns.items():
        # The bytes of floats compress only when those of one significance lie together.
        octets = np.ascontiguousarray(column).view("u1").reshape(-1, column.dtype.itemsize)
        put(name, column.dtype.str, column.size // len(heads), octets.T.tobytes(), "shuffle")
    put("names", "text", 0, msgspec.msgpack.encode([encode_text(name) for name in names]), "list")
    times = heads["timestamp"]
    return pack_block(
        msgspec.msgpack.encode(table),
        bytes(payload),
        rows=len(heads),
        dim=basins.shape[1],
        first=first,
        segment=segment,
        times=(float(times.min()), float(times.max())),
        floor=floor,
    )


def decode_block(read: Read, block: Block, wanted: Collection[str]) -> Batch:
    """The `wanted` columns of a block; only their bytes are read. Raises Damaged."""
    packed = _checked(read, block.payload - block.table_length, block.table_length, block.table_crc)
    try:
        table = {column.name: column for column in msgspec.msgpack.decode(packed, type=list[Column])}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"table of columns: {error}") from None
    columns: dict[str, Array] = {}
    for name in wanted:
        dtype, width = (np.dtype("<f8"), block.dim) if name == "basin_coords" else (HEAD[name], 1)
        shape = (block.rows, width) if name == "basin_coords" else (block.rows,)
        column = table.get(name)
        if column is None:
            columns[name] = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
            continue
        if (column.dtype, column.width, column.encoding) != (dtype.str, width, "shuffle"):
            raise Damaged(f"column {name}: {column.dtype} x {column.width}, {column.encoding}")
        if column.raw != block.rows * width * dtype.itemsize:
            raise Damaged(f"column {name}: {column.raw} bytes for {block.rows} rows")
        planes = np.frombuffer(_unpacked(read, block, column), "u1").reshape(dtype.itemsize, -1)
        columns[name] = np.array(planes.T, order="C").view(dtype).reshape(shape)
    names: tuple[str, ...] = ("",)
    if "names" in table and ("code" in columns or "module" in columns):
        if table["names"].raw > _MAX_TEXTS:
            raise Damaged(f"names: {table['names'].raw} bytes")
        try:
            texts = msgspec.msgpack.decode(_unpacked(read, block, table["names"]), type=list[bytes])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Damaged(f"names: {error}") from None
        names = tuple(map(decode_text, texts))
    for pointer in ("code", "module"):
        if pointer in columns and columns[pointer].max(initial=0) >= len(names):
            raise Damaged(f"column {pointer} points past the {len(names)} names")
    return Batch(columns, names)


def _checked(read: Read, offset: int, length: int, crc: int) -> bytes:
    data = read(length, offset)
    if len(data) != length or zlib.crc32(data) != crc:
        raise Damaged(f"{length} bytes at offset {offset} fail their checksum")
    return data


def _unpacked(read: Read, block: Block, column: Column) -> bytes:
    if not (0 <= column.offset <= column.offset + column.length <= block.payload_length):
        raise Damaged(f"column {column.name} lies outside its block")
    packed = _checked(read, block.payload + column.offset, column.length, column.crc)
    try:
        # The frame states the size that decompressing will allocate.
        if zstandard.frame_content_size(packed) != column.raw:
            raise Damaged(f"column {column.name} does not unpack to {column.raw} bytes")
        raw = zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise Damaged(f"column {column.name}: {error}") from None
    if len(raw) != column.raw:
        raise Damaged(f"column {column.name} does not unpack to {column.raw} bytes")
    return raw
