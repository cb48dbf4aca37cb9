"""What a segment says of itself, without reading its rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from qigcore.history import journal
from qigcore.history.files import Window, held, opened
from qigcore.history.reader import read_journal
from qigcore.history.segment import Damaged, Header, TooNew, decode_header, find_block, last_block, searched
from qigcore.history.standing import Standing


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


class Surveyed(NamedTuple):
    """A segment that was looked at; `logged`: a journal lay beside it."""

    path: Path
    logged: bool
    info: SegmentInfo
    header: Header | None


def surveyed(paths: Mapping[Path, bool], dim: int) -> list[Surveyed]:
    """Look at the header, the last block and the journal of each segment. Never fails: see `problem`.

    `paths` as `files.segments_in` gives them. `dim` is assumed where a header is damaged and no block says
    otherwise.
    """
    return [_surveyed(path, logged, dim) for path, logged in paths.items()]


def counting(found: Iterable[Surveyed]) -> list[Surveyed]:
    """Those that count: without the ones that another stands for."""
    found = list(found)
    left = Standing().left(each.header for each in found if each.header is not None)
    return [each for each in found if each.header is None or each.header.segment not in left]


def _surveyed(path: Path, logged: bool, dim: int) -> Surveyed:
    try:
        with opened(path) as descriptor:
            info, header = _survey(path, descriptor, logged, dim)
    except OSError as error:
        info, header = SegmentInfo(path.name, problem=error.strerror or str(error)), None
    return Surveyed(path, logged, info, header)


def _survey(path: Path, descriptor: int, logged: bool, dim: int) -> tuple[SegmentInfo, Header | None]:
    read = Window(descriptor)
    alive = held(descriptor)
    header, offset, problem, data = None, 0, "", b""
    try:
        data = read_journal(path) if logged else b""
    except OSError as error:
        problem = f"journal: {error.strerror or error}"
    size = os.fstat(descriptor).st_size
    try:
        header, offset = decode_header(read)
    except TooNew as error:
        return SegmentInfo(path.name, alive=alive, bytes=size + len(data), problem=str(error)), None
    except Damaged as error:
        problem = str(error)
    identity = None if header is None else header.segment
    rows, first, last = 0, math.nan, math.nan
    block = last_block(read, offset, searched(read, size) if header is None else size, identity)
    if block is not None:
        dim = block.dim
        rows, last = block.next_sequence, block.peak
        earliest = find_block(read, offset, size, identity) if header is None else None
        first = math.nan if earliest is None else earliest.low
    if header is not None:
        dim = header.dim
    if data and len((pending := journal.decode(data, dim, rows)).sequences):
        times = pending.batch.timestamp
        rows, last = int(pending.sequences[-1]) + 1, float(np.fmax(times.max(), last))
        first = float(times[0]) if math.isnan(first) else first
    info = SegmentInfo(
        name=path.name,
        alive=alive,
        rows=rows,
        bytes=size + len(data),
        first=first,
        last=last,
        dim=dim,
        problem=problem,
    )
    if header is not None:
        info = msgspec.structs.replace(
            info,
            host=header.host,
            pid=header.pid,
            first=header.first if rows else first,
            geometry=header.geometry,
            precision=header.precision,
        )
    return info, header


def shape_of(path: Path) -> tuple[int, str] | None:
    """The dimension and geometry of a segment's basins, if its header is whole."""
    try:
        with opened(path) as descriptor:
            header, _ = decode_header(Window(descriptor))
    except (OSError, Damaged, TooNew):
        return None
    return header.dim, header.geometry


def dim_of(path: Path) -> int | None:
    """The dimension by a segment's first intact block or row, where its header is lost."""
    try:
        with opened(path) as descriptor:
            read = Window(descriptor)
            block = find_block(read, 0, searched(read, os.fstat(descriptor).st_size), None)
            return journal.dim_of(read_journal(path)) if block is None else block.dim
    except OSError:
        return None
