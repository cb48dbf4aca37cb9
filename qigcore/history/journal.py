"""The layout of a journal: rows as they come, before they are sealed. No file is opened here.

A journal is a run of frames, each 32 bytes of `_PREFIX` and a body:

    row     sequence number | `head_bytes` of HEAD, then the basin, float64
    name    index from 1 on | the text, UTF-8; rows after it refer to it by that index, 0 is ""

Prefix and body have a CRC-32 each: an intact prefix is believed about the length, so that damage to the
body costs one frame, and no bytes can make a reader look at them twice.

Indices begin anew when the journal is emptied, so what a journal holds never needs anything outside of
it. The `since` of every frame is the sequence number, modulo 2^32, of the first row after that: so the first
bytes of a journal are never the same again, and a name is given only to rows of the same `since`, whatever
of an earlier filling a power loss may have brought back. Fields are appended to HEAD only at its end: a
shorter head is completed with defaults, the unknown end of a longer one is skipped.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qigcore.history.columns import decode_text, encode_text
from qigcore.history.segment import FORMAT
from qigcore.rows import HEAD, REGIMES, Array, Batch, FloatArray

MAX_JOURNAL = 1 << 24
"""Bytes of a journal that a reader looks at; a writer's own hold 8 MiB of rows, and their names, at most."""

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
_TIME = struct.Struct("<d")  # the first field of HEAD
_REGIME = int(HEAD.fields["regime"][1]) if HEAD.fields else 0


def _default_head() -> bytes:
    head = np.zeros(1, HEAD)
    for name in HEAD.names or ():
        if HEAD[name].kind == "f":
            head[name] = np.nan
    return head.tobytes()


_DEFAULT_HEAD = _default_head()


def encode_names(names: Sequence[str], first: int, since: int) -> bytes:
    """Frames that give `names` the indices from `first` on; `since`: the sequence number of the first row."""
    frames = bytearray()
    for index, name in enumerate(names, first):
        text = encode_text(name)
        prefix = _FRAME.pack(_MAGIC, 0, zlib.crc32(text), _NAME, FORMAT, 0, len(text), since % 2**32, index)
        checked = prefix[_CHECKED_FROM:]
        frames += _MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked + text
    return bytes(frames)


def encode_rows(heads: Array, basins: FloatArray, first: int, since: int) -> bytes:
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
    prefix["since"] = since % 2**32
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
    names: dict[tuple[int, int], str] = {}
    sequences: list[int] = []
    sinces: list[int] = []
    heads: list[bytes] = []
    basins: list[memoryview] = []
    bad = skipped = position = 0
    while (start := _next_frame(view, data, position)) >= 0:
        _, _, body_crc, kind, version, head_bytes, length, since, number = _FRAME.unpack_from(data, start)
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
            names[since, number] = decode_text(data[body:end])
        elif kind == _ROW and length == head_bytes + 8 * dim and number < 1 << 62:
            head = data[body : body + min(head_bytes, HEAD.itemsize)]
            head += _DEFAULT_HEAD[len(head) :]
            if not math.isfinite(_TIME.unpack_from(head)[0]) or head[_REGIME] >= len(REGIMES):
                bad += 1
                skipped += end - start
            elif number >= after:
                after = number + 1
                sequences.append(number)
                sinces.append(since)
                heads.append(head)
                basins.append(view[body + head_bytes : end])
        else:
            bad += 1
            skipped += end - start
    head_array = np.frombuffer(bytearray().join(heads), HEAD)
    table = _named(head_array, sinces, names)
    basin_array = np.frombuffer(bytearray().join(basins), "<f8").reshape(len(basins), dim)
    batch = Batch.of_rows(head_array, basin_array, table)
    torn = len(data) - position
    return Rows(np.array(sequences, np.int64), batch, bad, skipped, torn)


def _named(heads: Array, sinces: Sequence[int], names: Mapping[tuple[int, int], str]) -> tuple[str, ...]:
    """Point `heads` into a table of the names that they have, and give it. A name lost to damage is unknown: ""."""
    table = {"": 0}

    def place(name: str) -> int:
        return table.setdefault(name, len(table)) if len(table) <= _MAX_INDEX else table.get(name, 0)

    for pointer in ("code", "module"):
        indices = zip(sinces, heads[pointer].tolist(), strict=True)
        heads[pointer] = [place(names.get(index, "")) for index in indices]
    return tuple(table)


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
