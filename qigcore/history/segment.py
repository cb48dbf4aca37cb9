"""The layout of a sealed segment: bytes to records and back. No file is opened here.

A segment belongs to one writing process and is only ever appended to:

    segment   8 magic | 4 CRC-32 of all that follows | 1 format | 3 zero | 4 length | MessagePack `Header`
    block     80 bytes of `_BLOCK` | MessagePack table of the columns | the columns, each by itself
    block     ...

Every block stands alone. It repeats the format, the dimension and the segment's identity, and carries
the names its rows use, so that damage anywhere costs no more than the block it hit: the magic of the
next one is searched for, and an intact CRC of its 80 bytes says that it is one.

Schema law: fields of `Header` and of the table, and columns of a block, are only ever appended, with
defaults. A reader skips columns that it does not know and fills those that are not there (NaN, or 0
for whole numbers). A column it knows in an encoding it does not know makes the block unreadable to it,
never wrong. A change that an older reader would misread raises FORMAT.

Sizes read from a file are checked against the file and against fixed bounds before they are used.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from qigcore.rows import HEAD

FORMAT = 1
PRECISIONS = ("exact", "compact")
LEAST_ROWS = 256
"""Rows that are sealed by themselves; with fewer, the table of columns weighs too much per row."""
MOST_ROWS = 1024
"""Rows of the longest blocks, into which many rows at once are cut: half a mebibyte unpacked."""
MAX_DIM = 65_536
LOWEST = float("-inf")

Read = Callable[[int, int], bytes]
"""Bytes of a file: (length, offset); fewer than asked for at its end."""

_SEGMENT_MAGIC = b"\x93QIGSEG\n"
_BLOCK_MAGIC = b"\x93QIGBLK\n"
_SEGMENT = struct.Struct("<8sIB3xI")
_BLOCK = struct.Struct("<8sIB3xIIQIIQQddd")
_VERSION = bytes([FORMAT])
_CHECKED_FROM = 12  # magic and CRC come first; the CRC covers the rest

_MAX_HEADER = 1 << 16
_MAX_TABLE = 1 << 20
_MAX_RAW = 1 << 24  # unpacked bytes of a block, twice what a writer seals at most
_WINDOW = 1 << 18
_LOST = 1 << 25  # bytes, of which one block takes half at most


class Damaged(ValueError):
    """Bytes that are no block, no longer one, or one that claims what cannot be."""


class TooNew(ValueError):
    """An intact segment of a format that this version does not know."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """Who writes a segment, and what its rows mean.

    `first` is the timestamp of its first row: no row of it sorts before that. `precision`, one of
    PRECISIONS, says how its blocks were sealed; how they are read stands in each block. `replaces` are
    the identities of the segments whose rows this one took over.
    """

    segment: int
    dim: int
    geometry: str
    precision: str
    host: str
    pid: int
    created: float
    first: float
    replaces: list[int] = []


class Block(NamedTuple):
    """The 80 bytes before a block, and where it was found.

    first: sequence number of its first row. low, high: least and greatest timestamp.
    floor: greatest timestamp of the rows before it in its segment.
    """

    offset: int
    table_length: int
    table_crc: int
    payload_length: int
    rows: int
    dim: int
    first: int
    segment: int
    low: float
    high: float
    floor: float

    @property
    def payload(self) -> int:
        return self.offset + _BLOCK.size + self.table_length

    @property
    def end(self) -> int:
        return self.payload + self.payload_length

    @property
    def next_sequence(self) -> int:
        return self.first + self.rows

    @property
    def peak(self) -> float:
        """Greatest timestamp of the segment up to the end of this block."""
        return max(self.floor, self.high)


def rows_per_block(dim: int, rows: int) -> int:
    """`rows`, or as many as fit 8 MiB where basins are very long."""
    return max(1, min(rows, (8 << 20) // (HEAD.itemsize + 8 * dim)))


def encode_header(header: Header) -> bytes:
    """The first bytes of a segment."""
    body = msgspec.msgpack.encode(header)
    checked = _SEGMENT.pack(_SEGMENT_MAGIC, 0, FORMAT, len(body))[_CHECKED_FROM:] + body
    return _SEGMENT_MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked


def decode_header(read: Read) -> tuple[Header, int]:
    """The header of a segment and the offset of its first block.

    Raises Damaged, or TooNew when the header is whole but of a later format or another precision.
    """
    data = read(_SEGMENT.size, 0)
    if len(data) < _SEGMENT.size:
        raise Damaged("shorter than a segment's header")
    magic, crc, version, length = _SEGMENT.unpack(data)
    if magic != _SEGMENT_MAGIC or length > _MAX_HEADER:
        raise Damaged("no segment header")
    data += read(length, _SEGMENT.size)
    if zlib.crc32(data[_CHECKED_FROM:]) != crc or len(data) != _SEGMENT.size + length:
        raise Damaged("segment header fails its checksum")
    if version > FORMAT:
        raise TooNew(f"format {version}, and this version reads up to {FORMAT}; upgrade qigheal to read it")
    try:
        header = msgspec.msgpack.decode(data[_SEGMENT.size :], type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"segment header: {error}") from None
    if not 0 < header.dim <= MAX_DIM or not math.isfinite(header.first):
        raise Damaged(f"segment header: {header.dim} components, first row at {header.first}")
    if header.precision not in PRECISIONS:
        known = " and ".join(map(repr, PRECISIONS))
        raise TooNew(f"precision {header.precision!r}, and this version reads {known}; upgrade qigheal")
    return header, len(data)


def pack_block(
    table: bytes,
    payload: bytes,
    *,
    rows: int,
    dim: int,
    first: int,
    segment: int,
    times: tuple[float, float],
    floor: float,
) -> bytes:
    """A whole block: its 80 bytes, its table of columns and its payload. `times` are the least and greatest."""
    figures = (len(table), zlib.crc32(table), len(payload), rows, dim, first, segment, *times, floor)
    checked = _BLOCK.pack(_BLOCK_MAGIC, 0, FORMAT, *figures)[_CHECKED_FROM:]
    return b"".join((_BLOCK_MAGIC, zlib.crc32(checked).to_bytes(4, "little"), checked, table, payload))


def block_at(data: bytes, offset: int, size: int, segment: int | None) -> Block | None:
    """The block whose first bytes are `data`, if they are intact and all of it lies before `size`."""
    if len(data) < _BLOCK.size or not data.startswith(_BLOCK_MAGIC):
        return None
    _, crc, version, *fields = _BLOCK.unpack_from(data)
    if zlib.crc32(data[_CHECKED_FROM : _BLOCK.size]) != crc or version != FORMAT:
        return None
    block = Block(offset, *fields)
    fits = (
        block.end <= size
        and block.rows > 0
        and block.dim > 0
        and block.rows * (HEAD.itemsize + 8 * block.dim) <= _MAX_RAW
        and block.table_length <= _MAX_TABLE
        and block.payload_length <= 2 * _MAX_RAW
        and block.next_sequence < 1 << 62
        and segment in (None, block.segment)
    )
    return block if fits else None


def find_block(read: Read, offset: int, size: int, segment: int | None) -> Block | None:
    """The first intact block at or after `offset`, or None. Holds 256 KiB at a time.

    The identity of the segment is compared because a basin may hold any bytes, even those of a block.
    """
    block = block_at(read(_BLOCK.size, offset), offset, size, segment)
    while block is None and offset < size:
        window = read(min(_WINDOW + _BLOCK.size, size - offset), offset)
        at = window.find(_BLOCK_MAGIC)
        while at >= 0 and block is None:
            if window[at + _CHECKED_FROM : at + _CHECKED_FROM + 1] == _VERSION:
                block = block_at(window[at : at + _BLOCK.size], offset + at, size, segment)
            at = window.find(_BLOCK_MAGIC, at + 1)
        offset += _WINDOW
    return block


def searched(read: Read, size: int) -> int:
    """Up to where to look for blocks in a file that does not begin with an intact header.

    All of it, if there is one in its first 32 MiB. Else it is no segment, and may be of any size.
    """
    return 0 if find_block(read, 0, min(size, _LOST), None) is None else size


def last_block(read: Read, offset: int, size: int, segment: int | None) -> Block | None:
    """The last intact block between `offset` and `size`, found from the end."""
    reach = 1 << 18
    while True:
        start = max(offset, size - reach)
        found, block = None, find_block(read, start, size, segment)
        while block is not None:
            found, block = block, find_block(read, block.end, size, segment)
        if found is not None or start == offset:
            return found
        reach *= 8


def seek(
    read: Read, offset: int, size: int, segment: int | None, before: Callable[[Block], bool]
) -> Block | None:
    """Bisect for where blocks cease to be `before`: a block that still is, 256 KiB or less short of it.

    `before` must be true of blocks up to some place in the file and false from there on. None: begin at
    `offset`.
    """
    passed = None
    while size - offset > _WINDOW:
        middle = (offset + size) // 2
        block = find_block(read, middle, size, segment)
        if block is not None and before(block):
            offset, passed = block.end, block
        else:
            size = middle
    return passed
