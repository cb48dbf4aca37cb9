"""A reader of the history store, written from docs/history-format.md alone.

Nothing of qigcore is used here: what the document says is all that this reader knows, so that a test which
holds it against qigcore.history also tests whether the document suffices. Only the standard library and
zstandard; every number is a Python int or float. It reads whole stores and keeps all rows in memory.
"""

from __future__ import annotations

import heapq
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import zstandard

from .plain_columns import (
    FLOATS,
    TEXTS,
    WHOLES,
    Damage,
    decoded_basins,
    decoded_column,
    text,
    unpack,
)

COLUMNS = dict(enumerate(FLOATS, 2)) | {12: "repaired", 13: "regime", 15: "code", 16: "module"}
BASINS, NAMES = 0, 1
HEAD = struct.Struct("<10dHBBHH")
NO_HEAD = HEAD.pack(*[math.nan] * 10, 0, 0, 0, 0, 0)
BLOCK = struct.Struct("<8sIB3xIIQIIQQddd")
FRAME = struct.Struct("<4sIIBBHIIQ")
UNREAD = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, zstandard.ZstdError)


class Row(NamedTuple):
    """One snapshot. sequence: its number in its segment. values: the head, code and module as texts."""

    sequence: int
    values: dict[str, Any]
    basin: tuple[float, ...]


@dataclass
class Segment:
    """What a segment and its journal hold: rows in the order of writing, the key of each for merging, damage."""

    header: list[Any] | None = None
    rows: list[Row] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    highest: float = -math.inf
    following: int = 0

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            if row.sequence >= self.following:
                self.highest = max(self.highest, row.values["timestamp"])
                self.rows.append(row)
                self.keys.append(self.highest)
                self.following = row.sequence + 1


def read_rows(folder: Path) -> list[Row]:
    """All rows of a store, merged."""
    streams = (
        ((key, rank, row) for key, row in zip(found.keys, found.rows, strict=True))
        for rank, found in enumerate(read_store(folder))
    )
    return [row for _, _, row in heapq.merge(*streams, key=lambda entry: entry[:2])]


def read_store(folder: Path) -> list[Segment]:
    """The segments that count, in the order of their names."""
    found = [read_segment(path) for path in sorted(folder.glob("*.qigh"))]
    replaced = {identity for segment in found if segment.header for identity in segment.header[8]}
    return [segment for segment in found if not (segment.header and segment.header[0] in replaced)]


def read_segment(path: Path) -> Segment:
    logged = journal_bytes(path.with_suffix(".journal"))  # first, and then the segment
    data = path.read_bytes()
    found, at = Segment(), 0
    try:
        found.header, at = read_header(data)
    except NotImplementedError as error:
        found.damage.append(str(error))
        return found
    except UNREAD as error:
        found.damage.append(f"header: {error}")
    journal = journal_rows(logged, found.header[1] if found.header else None)
    while at < len(data):
        block = block_at(data, at, found.header[0] if found.header else None)
        if block is None:
            begin, at = at, data.find(b"\x93QIGBLK\n", at + 1)
            at = len(data) if at < 0 else at
            found.damage.append(f"bytes {begin} to {at} are no block")
            continue
        at = block.end
        found.add([row for row in journal if row.sequence < block.first])
        found.highest = max(found.highest, block.before)
        try:
            if found.header and block.dim != found.header[1]:
                raise Damage(f"{block.dim} components")
            found.add(read_block(block))
        except UNREAD as error:
            found.damage.append(f"block: {error}")
            found.add([row for row in journal if row.sequence < block.first + block.rows])
        found.highest = max(found.highest, block.greatest)
    found.add(journal)
    return found


def read_header(data: bytes) -> tuple[list[Any], int]:
    """The record, and where the first block begins."""
    magic, checksum, version, length = struct.unpack_from("<8sIB3xI", data)
    end = 20 + length
    if magic != b"\x93QIGSEG\n" or length > 65536 or end > len(data) or crc32(data[12:end]) != checksum:
        raise Damage("fails its checksum")
    if version > 1:
        raise NotImplementedError(f"format {version}")
    header, _ = unpack(data, 20)
    header += [[]] if len(header) == 8 else []
    if not 0 < header[1] <= 65536 or not math.isfinite(header[7]):
        raise Damage("out of bounds")
    if header[3] not in ("exact", "compact"):
        raise NotImplementedError(f"precision {header[3]}")
    return header, end


class Block(NamedTuple):
    rows: int
    first: int
    before: float
    greatest: float
    dim: int
    end: int
    least: float
    table: bytes
    table_crc: int
    payload: bytes


def block_at(data: bytes, at: int, identity: int | None) -> Block | None:
    """The block that begins here, if it is to be believed."""
    if len(data) - at < BLOCK.size:
        return None
    magic, checksum, version, table, table_crc, payload, rows, dim, first, segment, least, most, before = (
        BLOCK.unpack_from(data, at)
    )
    middle = at + BLOCK.size + table
    end = middle + payload
    if (
        magic != b"\x93QIGBLK\n"
        or crc32(data[at + 12 : at + 80]) != checksum
        or version != 1
        or end > len(data)
    ):
        return None
    if table > 1 << 20 or payload > 1 << 25 or not rows or not dim or rows * (88 + 8 * dim) > 1 << 24:
        return None
    if first + rows >= 1 << 62 or identity not in (None, segment):
        return None
    stored = data[at + BLOCK.size : middle], table_crc, data[middle:end]
    return Block(rows, first, before, most, dim, end, least, *stored)


def read_block(block: Block) -> list[Row]:
    if crc32(block.table) != block.table_crc:
        raise Damage("the table fails its checksum")
    values: dict[str, list[Any]] = {name: [math.nan] * block.rows for name in FLOATS}
    values |= {name: [0] * block.rows for name in WHOLES}
    basins = [[math.nan] * block.dim] * block.rows
    names, at = [""], 0
    for number, encoding, content, *rest in unpack(block.table, 0)[0]:
        stored = content
        if isinstance(content, int):
            stored, at = block.payload[at : at + content], at + content
        if number not in (BASINS, NAMES, *COLUMNS):
            continue
        if isinstance(content, int) and (len(stored) != content or crc32(stored) != rest[0]):
            raise Damage(f"column {number} fails its checksum")
        if number == BASINS:
            basins = decoded_basins(encoding, stored, block.rows, block.dim)
        elif number in COLUMNS:
            values[COLUMNS[number]] = decoded_column(COLUMNS[number], encoding, stored, block.rows)
        elif encoding == TEXTS:
            names = [text(name) for name in unpack(stored, 0)[0]]
        else:
            raise Damage(f"names in encoding {encoding}")
    times = values["timestamp"]
    if not -math.inf < block.least == min(times) <= max(times) == block.greatest < math.inf:
        raise Damage("other times than the block says")
    if max(values["regime"]) > 2:
        raise Damage("no regime")
    values |= {name: [names[index] for index in values[name]] for name in ("code", "module")}
    heads = [dict(zip(values, head, strict=True)) for head in zip(*values.values(), strict=True)]
    return [Row(block.first + i, heads[i], tuple(basins[i])) for i in range(block.rows)]


def journal_bytes(path: Path) -> bytes:
    while path.exists():
        data = path.read_bytes()[: 1 << 24]
        with path.open("rb") as file:
            if file.read(32) == data[:32]:
                return data
    return b""


def journal_rows(data: bytes, dim: int | None) -> list[Row]:
    """The rows that count; dim: of the segment, or that of the first row where its header is lost."""
    found: list[tuple[int, int, bytes, tuple[float, ...]]] = []
    names: dict[tuple[int, int], str] = {}
    at = 0
    while 0 <= at <= len(data) - FRAME.size:
        magic, checksum, body_crc, kind, version, head, length, since, number = FRAME.unpack_from(data, at)
        end = at + FRAME.size + length
        if magic != b"\x93QJ\n" or crc32(data[at + 8 : at + 32]) != checksum or end > len(data):
            at = data.find(b"\x93QJ\n", at + 1)
            continue
        body, at = data[at + FRAME.size : end], end
        if crc32(body) != body_crc or version != 1:
            continue
        if kind == 2:
            names[since, number] = text(body)
        elif kind == 1 and length > head and dim in (None, (length - head) / 8) and number < 1 << 62:
            dim = (length - head) // 8
            known = body[: min(head, HEAD.size)]
            found.append(
                (since, number, known + NO_HEAD[len(known) :], struct.unpack(f"<{dim}d", body[head:]))
            )
    rows: list[Row] = []
    for since, sequence, head_bytes, basin in found:
        *figures, repaired, regime, _, code, module = HEAD.unpack(head_bytes)
        if math.isfinite(figures[0]) and regime <= 2 and (not rows or sequence > rows[-1].sequence):
            values: dict[str, Any] = {
                **dict(zip(FLOATS, figures, strict=True)),
                "repaired": repaired,
                "regime": regime,
            }
            values |= {"code": names.get((since, code), ""), "module": names.get((since, module), "")}
            rows.append(Row(sequence, values, basin))
    return rows
