"""The last rows of a store are the end of a scan, whatever the clocks of its writers did."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.history import History

from .stores import NAMES, counted, rows

CALL = st.tuples(
    st.integers(0, 2),  # the writer
    st.integers(1, 6),  # rows
    st.lists(st.integers(-8, 8), min_size=6, max_size=6),  # steps of its clock
    st.booleans(),  # sealed after it
)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(CALL, min_size=1, max_size=12), counts=st.lists(st.integers(0, 80), min_size=3, max_size=3)
)
def test_last_is_the_end_of_a_scan(calls: list[tuple[int, int, list[int], bool]], counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        writers = [History(path, dim=3, precision="exact", clock=lambda at=at: float(at)) for at in (3, 1, 2)]
        times, label = [0.0, 0.0, 0.0], 0
        for which, count, steps, sealed in calls:
            heads, basins = rows(count, start=label)
            heads["timestamp"] = times[which] + np.cumsum(steps[:count])
            times[which] = float(heads["timestamp"][-1])
            writers[which].append_rows(heads, basins, NAMES)
            if sealed:
                writers[which].seal()
            label += count
        reader = History.read_only(path)
        order = counted(reader.scan())
        assert sorted(order) == list(range(label))
        for n in (1, 2, *counts):
            assert counted([reader.last(n)]) == order[max(0, label - n) :]
        for writer in writers:
            writer.close()
