"""What a segment says of itself, without reading its rows."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import numpy as np

from qigcore.history import journal
from qigcore.history.files import held
from qigcore.history.reader import opened, read_journal, reading
from qigcore.history.segment import Damaged, TooNew, decode_header, find_block, last_block


class SegmentInfo(msgspec.Struct, frozen=True):
    """One segment of a store. Nothing that only its rows could tell.

    alive: a living process writes it. rows: ever written to it, damaged ones included. bytes: with its
    journal. first, last: Unix seconds of the first row and of the latest, NaN where there is none.
    problem: why it cannot be read, or "".
    """

    name: str
    host: str = ""
    pid: int = 0
    alive: bool = False
    rows: int = 0
    bytes: int = 0
    first: float = math.nan
    last: float = math.nan
    dim: int = 0
    geometry: str = ""
    precision: str = ""
    problem: str = ""


def survey(path: Path, dim: int) -> SegmentInfo:
    """Look at a segment's header, its last block and its journal. Never fails: see `problem`.

    `dim` is assumed where the header is damaged and no block says otherwise.
    """
    try:
        with opened(path) as descriptor:
            return _survey(path, descriptor, dim)
    except OSError as error:
        return SegmentInfo(path.name, problem=error.strerror or str(error))


def _survey(path: Path, descriptor: int, dim: int) -> SegmentInfo:
    read = reading(descriptor)
    alive = held(descriptor)
    logged = read_journal(path)
    size = os.fstat(descriptor).st_size
    header, offset, problem = None, 0, ""
    try:
        header, offset = decode_header(read)
    except TooNew as error:
        return SegmentInfo(path.name, alive=alive, bytes=size + len(logged), problem=str(error))
    except Damaged as error:
        problem = str(error)
    identity = None if header is None else header.segment
    rows, first, last = 0, math.nan, math.nan
    block = last_block(read, offset, size, identity)
    if block is not None:
        dim = block.dim
        rows, last = block.next_sequence, block.peak
        earliest = find_block(read, offset, size, identity)
        first = math.nan if earliest is None else earliest.low
    if header is not None:
        dim = header.dim
    pending = journal.decode(logged, dim, rows)
    if len(pending.sequences):
        times = pending.batch.timestamp
        rows, last = int(pending.sequences[-1]) + 1, float(np.fmax(times.max(), last))
        first = float(times[0]) if math.isnan(first) else first
    if header is not None and rows:
        first = header.first
    return SegmentInfo(
        name=path.name,
        host="" if header is None else header.host,
        pid=0 if header is None else header.pid,
        alive=alive,
        rows=rows,
        bytes=size + len(logged),
        first=first,
        last=last,
        dim=dim,
        geometry="" if header is None else header.geometry,
        precision="" if header is None else header.precision,
        problem=problem,
    )


def shape_of(path: Path) -> tuple[int, str] | None:
    """The dimension and geometry of a segment's basins, if its header is whole."""
    try:
        with opened(path) as descriptor:
            header, _ = decode_header(reading(descriptor))
    except (OSError, Damaged, TooNew):
        return None
    return header.dim, header.geometry


def dim_of(path: Path) -> int | None:
    """The dimension by a segment's first intact block or row, where its header is lost."""
    try:
        with opened(path) as descriptor:
            block = find_block(reading(descriptor), 0, os.fstat(descriptor).st_size, None)
            return journal.dim_of(read_journal(path)) if block is None else block.dim
    except OSError:
        return None
