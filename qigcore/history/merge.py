"""Several writers' rows as one stream in time.

Rows are ordered by (key, rank of their segment, place in it), a key being the greatest timestamp of the
segment so far: a total order that does not depend on how the rows are cut into chunks. At most one chunk
per segment is held, and a segment is opened only when its first row may be next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from qigcore.history.reader import Chunk, Query, Source, Tally
from qigcore.history.survey import Surveyed, counting, surveyed
from qigcore.rows import Batch

Ranked = tuple[int, Chunk]
Lazy = tuple[float, Callable[[], Iterator[Chunk]]]
"""A segment still closed: a bound that none of its keys is below, and how to open it."""


class _Stream:
    """An open segment: its rank, and the chunk at its front."""

    def __init__(self, rank: int, chunks: Iterator[Chunk]) -> None:
        self.rank = rank
        self.front: Chunk | None = None
        self._chunks = chunks
        self.advance()

    def advance(self) -> None:
        self.front = next(self._chunks, None)

    def take(self, cut: tuple[float, int]) -> Chunk | None:
        """The rows of the front up to (key, rank) `cut`, which leave it."""
        if self.front is None:
            return None
        keys, batch = self.front
        count = int(np.searchsorted(keys, cut[0], "right" if self.rank <= cut[1] else "left"))
        if count == len(keys):
            taken = self.front
            self.advance()
            return taken
        self.front = Chunk(keys[count:], batch.take(slice(count, None)))
        return Chunk(keys[:count], batch.take(slice(count))) if count else None


def merged(segments: Sequence[Lazy], dim: int) -> Iterator[Batch]:
    """All rows in order. `segments` in order of rank."""
    waiting = sorted(((bound, rank, start) for rank, (bound, start) in enumerate(segments)), reverse=True)
    streams: list[_Stream] = []
    while True:
        # Until its next chunk is seen, a stream may go on anywhere behind the last row of its front.
        cut = min(
            ((front.keys[-1], stream.rank) for stream in streams if (front := stream.front)), default=None
        )
        if waiting and (cut is None or waiting[-1][0] <= cut[0]):
            _, rank, start = waiting.pop()
            streams.append(_Stream(rank, start()))
            continue
        if cut is None:
            return
        streams = [stream for stream in streams if stream.front is not None]
        parts = [(stream.rank, chunk) for stream in streams if (chunk := stream.take(cut)) is not None]
        yield ordered(parts, dim).batch


def newest(paths: Mapping[Path, bool], count: int, query: Query, tally: Tally) -> Batch:
    """The last `count` rows of the order that `merged` gives; `paths` in order of rank."""
    parts: list[Ranked] = []
    keys = np.empty(0)
    # Latest ends first: what ends before the count-th latest row found so far holds none of them.
    for rank, found in sorted(enumerate(counting(surveyed(paths, query.dim))), key=_end, reverse=True):
        if count == 0 or (len(keys) >= count and found.info.last < keys[0]):
            break
        for chunk in _tail(found, query._replace(newest=count), tally):
            parts.append((rank, chunk))
            keys = np.sort(np.concatenate([keys, chunk.keys]))[-count:]
    if not parts:
        return Batch.empty(query.dim)
    return ordered(parts, query.dim).batch.take(slice(-count, None))


def _end(item: tuple[int, Surveyed]) -> float:
    """A segment with a problem comes first, so that the problem is always told."""
    info = item[1].info
    return math.inf if info.problem else info.last if info.rows else -math.inf


def _tail(found: Surveyed, query: Query, tally: Tally) -> list[Chunk]:
    """Chunks with the last `query.newest` readable rows of a segment, or with all that it has."""
    wanted = least = query.newest or 0
    while True:
        seen = Tally()
        chunks = list(Source(found.path, found.logged).chunks(query._replace(newest=wanted), seen))
        if wanted >= found.info.rows or sum(len(chunk.keys) for chunk in chunks) >= least:
            tally.include(seen)
            return chunks
        wanted *= 8  # some of them are damaged


def ordered(parts: Sequence[Ranked], dim: int) -> Chunk:
    """The rows of chunks in order; chunks of one rank must come in their order."""
    if len(parts) == 1:
        return parts[0][1]
    keys = np.concatenate([np.empty(0), *(chunk.keys for _, chunk in parts)])
    ranks = np.repeat([rank for rank, _ in parts], [len(chunk.keys) for _, chunk in parts])
    order = np.lexsort((ranks, keys))
    return Chunk(keys[order], Batch.concat([chunk.batch for _, chunk in parts], dim).take(order))
