"""The rows of several segments, written anew to one. Which ones, and what becomes of them, is `upkeep`'s affair.

They are read as `scan` reads them, in the order of their keys. A key is the greatest timestamp of the rows
before; since all rows of smaller keys come before in the new segment too, each row has the same key there,
and a scan gives the same rows in the same order.

Nothing is rounded twice: of exact segments the floats are copied, of compact ones the whole numbers that stand
in their blocks. Only rows from a journal, which are as they were reported, are rounded here, once, as they
would have been when sealed. So a stored state stays within 1e-4 rad of the reported one however often.

The new file has a name that readers pass over until it is whole and on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from qigcore.history.columns import directions_of, encode_block, recode
from qigcore.history.files import SEGMENT_SUFFIX, sync_folder, write_all
from qigcore.history.merge import merged
from qigcore.history.reader import Chunk, Query, Source, Tally
from qigcore.history.segment import LOWEST, MOST_ROWS, Header, encode_header, rows_per_block
from qigcore.history.survey import Surveyed
from qigcore.rows import COLUMNS, Batch

PART_SUFFIX = f"{SEGMENT_SUFFIX}.part"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def rewritten(group: Sequence[Surveyed], header: Header, path: Path) -> tuple[int, dict[str, str]]:
    """Write the rows of `group` to a segment of that header and path: its bytes, and which are unfit, and why.

    0 bytes: there is no such file, since some are unfit (damaged), or somebody removed one. Raises OSError.
    """
    part = path.with_name(path.name.removesuffix(SEGMENT_SUFFIX) + PART_SUFFIX)
    descriptor = os.open(part, _CREATE, 0o600)
    try:
        try:
            tallies = [Tally() for _ in group]
            rows, size = _written(descriptor, group, header, tallies)
            unfit = {
                each.info.name: f"damaged: {tally.damage()}"
                for each, tally in zip(group, tallies, strict=True)
                if tally.damage()
            }
            if unfit or rows != sum(each.info.rows for each in group):
                return 0, unfit
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(part, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    sync_folder(path.parent)
    return size, {}


def damage_of(each: Surveyed) -> str:
    """What is wrong with a dead segment, all of it read; "" when nothing is."""
    tally = Tally()
    source = Source(each.path, each.logged)
    rows = sum(len(chunk.keys) for chunk in source.chunks(Query(each.info.dim, COLUMNS), tally))
    if tally.damage() or rows != each.info.rows:
        return f"damaged: {tally.damage()}"
    return ""


def _written(
    descriptor: int, group: Sequence[Surveyed], header: Header, tallies: Sequence[Tally]
) -> tuple[int, int]:
    """The header and all blocks; how many rows and bytes."""
    compact = header.precision == "compact"
    query = Query(header.dim, COLUMNS)
    streams = []
    for each, tally in zip(group, tallies, strict=True):
        source = Source(each.path, each.logged, directions=compact)
        source.begin(tally)
        chunks = partial(source.chunks, query, tally)
        streams.append((source.bound, partial(_directed, chunks, header.geometry) if compact else chunks))
    size, rows, floor = write_all(descriptor, encode_header(header)), 0, LOWEST
    limit = rows_per_block(header.dim, MOST_ROWS)
    for batch in _cut(merged(streams, header.dim), limit, header.dim):
        names = {"": 0}
        heads = recode(batch.heads(), batch.names, names)
        block = encode_block(
            heads,
            batch.basin_coords,
            tuple(names),
            first=rows,
            segment=header.segment,
            floor=floor,
            precision=header.precision,
            geometry=header.geometry,
            directed=compact and bool(batch.directed[0]),
        )
        size += write_all(descriptor, block)
        rows += len(batch)
        floor = max(floor, float(batch.timestamp.max()))
    return rows, size


def _directed(chunks: Callable[[], Iterator[Chunk]], geometry: str) -> Iterator[Chunk]:
    """With every basin that is a state as the direction to store."""
    for keys, batch in chunks():
        directed = batch.columns.get("directed", np.zeros(len(batch), bool))
        if directed.all():
            yield Chunk(keys, batch)
            continue
        basins = np.array(batch.basin_coords)
        whole = None if directed.any() else directions_of(basins, geometry)
        if whole is not None:
            basins, directed = whole, np.ones(len(batch), bool)
        else:
            directed = directed.copy()
            for row in np.flatnonzero(~directed):
                one = directions_of(basins[row : row + 1], geometry)
                if one is not None:
                    basins[row], directed[row] = one[0], True
        columns = {**batch.columns, "basin_coords": basins, "directed": directed}
        yield Chunk(keys, Batch(columns, batch.names))


def _cut(batches: Iterable[Batch], limit: int, dim: int) -> Iterator[Batch]:
    """The rows in pieces of at most `limit`, each with all of its basins directed or none of them."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        for part in _alike(batch):
            if held and _kind(held[0]) != _kind(part):
                yield Batch.concat(held, dim)
                held, count = [], 0
            held.append(part)
            count += len(part)
            if count >= limit:
                whole = Batch.concat(held, dim)
                full = count - count % limit
                yield from (whole.take(slice(start, start + limit)) for start in range(0, full, limit))
                held = [whole.take(slice(full, None))] if full < count else []
                count -= full
    if held:
        yield Batch.concat(held, dim)


def _kind(batch: Batch) -> bool:
    return "directed" in batch.columns and bool(batch.directed[0])


def _alike(batch: Batch) -> Iterator[Batch]:
    if "directed" not in batch.columns:
        yield batch
        return
    ends = [*np.flatnonzero(np.diff(batch.directed)) + 1, len(batch)]
    start = 0
    for end in ends:
        yield batch.take(slice(start, end))
        start = end
