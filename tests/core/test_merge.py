"""Merging is one total order, however the rows are cut into chunks and whoever is opened when."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qigcore.history.merge import Lazy, merged
from qigcore.history.reader import Chunk
from qigcore.rows import Batch

from ..reference import merged_rows


def stream(rank: int, keys: list[float], cuts: list[int]) -> Iterator[Chunk]:
    ends = sorted({min(cut, len(keys)) for cut in cuts} | {len(keys)})
    start = 0
    for end in ends:
        if end > start:
            part = np.array(keys[start:end])
            labels = np.array([1000 * rank + place for place in range(start, end)], float)
            yield Chunk(part, Batch({"timestamp": part, "phi": labels}))
        start = end


KEYS = st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0]), max_size=12).map(sorted)
WRITERS = st.lists(st.tuples(KEYS, st.lists(st.integers(1, 12), max_size=4)), max_size=5)


@given(WRITERS)
def test_the_order_is_that_of_a_sort(writers: list[tuple[list[float], list[int]]]) -> None:
    segments: list[Lazy] = [
        (min(keys, default=0.0), partial(stream, rank, keys, cuts))
        for rank, (keys, cuts) in enumerate(writers)
    ]
    found = [label for batch in merged(segments, 3) for label in batch.phi]
    assert found == merged_rows([keys for keys, _ in writers])


def test_a_segment_is_opened_only_when_its_first_row_may_be_next() -> None:
    opened: list[int] = []

    def start(rank: int, keys: list[float]) -> Iterator[Chunk]:
        opened.append(rank)
        return stream(rank, keys, [1, 2])

    segments: list[Lazy] = [
        (10.0 * (2 - rank), partial(start, rank, [10.0 * (2 - rank) + step for step in range(3)]))
        for rank in range(3)
    ]
    batches = merged(segments, 3)
    assert opened == []
    assert next(batches).phi.tolist() == [2000]
    assert opened == [2]
    assert [label for batch in batches for label in batch.phi] == [2001, 2002, 1000, 1001, 1002, 0, 1, 2]
