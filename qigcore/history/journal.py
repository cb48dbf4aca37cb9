"""The layout of a journal: rows as they come, before they are sealed. No file is opened here.

A journal is a run of frames, each 32 bytes of `_PREFIX` and a body:

    row     sequence number | `head_bytes` of HEAD, then the basin, float64
    name    index from 1 on | the text, UTF-8; rows after it refer to it by that index, 0 is ""

Prefix and body have a CRC-32 each: an intact prefix is believed about the length, so that damage to the
body costs one frame, and no bytes can make a reader look at them twice.

Indices begin anew when the journal is emptied, so what a journal holds never needs anything outside of
it. A name's `since` is the sequence number of the row after it, so that the first bytes of a journal are
never the same again. Fields are appended to HEAD only at its end: a shorter head is completed with
defaults, the unknown end of a longer one is skipped.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qigcore.history.columns import decode_text, encode_text
from qigcore.history.segment import FORMAT
from qigcore.rows import HEAD, Array, Batch, FloatArray

MAX_JOURNAL = 1 << 26
"""Bytes of a journal that a reader looks at; a writer seals at an eighth of it at the latest."""

_MAGIC = b"\x93QJ\n"
_FRAME = struct.Struct("<4sIIBBHIIQ")
_PREFIX = np.dtype(
    [
        ("magic", "S4"),
        ("crc", "<u4"),  # of the rest of the prefix
        ("body_crc", "<u4"),
        ("kind", "u1"),
        ("format", "u1"),
        ("head_bytes", "<u2"),
        ("length", "<u4"),  # of the body
        ("since", "<u4"),
        ("sequence", "<u8"),
    ]
)
PREFIX_BYTES = _FRAME.size
_CHECKED_FROM = 8
_ROW, _NAME = 1, 2
_MAX_INDEX = (1 << 16) - 1


def _default_head() -> bytes:
    head = np.zeros(1, HEAD)
    for name in HEAD.names or ():
        if HEAD[name].kind == "f":
            head[name] = np.nan
    return head.tobytes()


_DEFAULT_HEAD = _default_head()


def encode_names(names: Sequence[str], first: int, since: int) -> bytes:
    """Frames that give `names` the indices from `first` on; `since` is the next row's sequence number."""
    frames = bytearray()
    for index, name in enumerate(names, first):
        text = encode_text(name)
        prefix = _FRAME.pack(_MAGIC, 0, zlib.crc32(text), _NAME, FORMAT, 0, len(text), since % 2**32, index)
        checked = prefix[_CHECKED_FROM:]
        frames += _MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked + text
    return bytes(frames)


def encode_rows(heads: Array, basins: FloatArray, first: int) -> bytes:
    """Frames of rows: heads [n] of HEAD, basins [n, dim]; `first` is the first one's sequence number."""
    rows, dim = basins.shape
    layout = np.dtype([("prefix", _PREFIX), ("head", HEAD), ("basin", "<f8", (dim,))])
    frames = np.zeros(rows, layout)
    prefix = frames["prefix"]
    prefix["magic"] = _MAGIC
    prefix["kind"] = _ROW
    prefix["format"] = FORMAT
    prefix["head_bytes"] = HEAD.itemsize
    prefix["length"] = HEAD.itemsize + 8 * dim
    prefix["sequence"] = np.arange(first, first + rows, dtype="<u8")
    frames["head"] = heads
    frames["basin"] = basins
    octets = memoryview(frames.view("u1").data)
    starts = range(0, rows * layout.itemsize, layout.itemsize)
    body = _FRAME.size
    prefix["body_crc"] = [zlib.crc32(octets[at + body : at + layout.itemsize]) for at in starts]
    prefix["crc"] = [zlib.crc32(octets[at + _CHECKED_FROM : at + body]) for at in starts]
    return frames.tobytes()


class Rows(NamedTuple):
    """What a journal holds: `batch` in the order of writing, and each row's sequence number.

    bad: runs of damaged bytes between intact frames, and rows of another dimension; skipped: their bytes.
    torn: bytes after the last intact frame.
    """

    sequences: npt.NDArray[np.int64]
    batch: Batch
    bad: int
    skipped: int
    torn: int


def decode(data: bytes, dim: int, after: int = 0) -> Rows:
    """The rows of a journal whose sequence number is at least `after`; never fails, whatever the bytes."""
    view = memoryview(data)
    names: dict[int, str] = {}
    sequences: list[int] = []
    heads: list[bytes] = []
    basins: list[memoryview] = []
    bad = skipped = position = 0
    while (start := _next_frame(view, data, position)) >= 0:
        _, _, body_crc, kind, version, head_bytes, length, _, number = _FRAME.unpack_from(data, start)
        body = start + _FRAME.size
        end = body + length
        if start > position:
            bad += 1
            skipped += start - position
        position = end
        if zlib.crc32(view[body:end]) != body_crc or version != FORMAT:
            bad += 1
            skipped += end - start
        elif kind == _NAME and 0 < number <= _MAX_INDEX:
            names[number] = decode_text(data[body:end])
        elif kind == _ROW and length == head_bytes + 8 * dim and number < 1 << 62:
            if number >= after:
                after = number + 1
                head = data[body : body + min(head_bytes, HEAD.itemsize)]
                sequences.append(number)
                heads.append(head + _DEFAULT_HEAD[len(head) :])
                basins.append(view[body + head_bytes : end])
        else:
            bad += 1
            skipped += end - start
    table = [names.get(index, "") for index in range(max(names, default=0) + 1)]
    head_array = np.frombuffer(bytearray().join(heads), HEAD)
    for pointer in ("code", "module"):  # a name lost to damage is unknown, not another name
        head_array[pointer][head_array[pointer] >= len(table)] = 0
    basin_array = np.frombuffer(bytearray().join(basins), "<f8").reshape(-1, dim)
    batch = Batch.of_rows(head_array, basin_array, table)
    torn = len(data) - position
    return Rows(np.array(sequences, np.int64), batch, bad, skipped, torn)


def dim_of(data: bytes) -> int | None:
    """The dimension of the first intact row, if there is one."""
    view, position = memoryview(data), 0
    while (start := _next_frame(view, data, position)) >= 0:
        _, _, body_crc, kind, _, head_bytes, length, _, _ = _FRAME.unpack_from(data, start)
        position = start + _FRAME.size + length
        if (
            kind == _ROW
            and length > head_bytes
            and zlib.crc32(view[start + _FRAME.size : position]) == body_crc
        ):
            return int(length - head_bytes) // 8
    return None


def _next_frame(view: memoryview, data: bytes, position: int) -> int:
    """Where the next frame begins that has an intact prefix and ends within the data; -1 if none does."""
    while 0 <= (position := data.find(_MAGIC, position)) <= len(data) - _FRAME.size:
        _, crc, *_, length, _, _ = _FRAME.unpack_from(data, position)
        body = position + _FRAME.size
        if zlib.crc32(view[position + _CHECKED_FROM : body]) == crc and body + length <= len(data):
            return position
        position += 1
    return -1
