"""The bisection by itself: which position it finds, and in how many steps."""

from __future__ import annotations

import math
import random

import pytest

from qigheal.healing.strategies.reverting.bisection import bisect


@pytest.mark.parametrize("end", range(1, 17))
def test_bisection_finds_every_position(end: int) -> None:
    for guilty in range(1, end + 1):
        asked: list[int] = []

        def changed(position: int, guilty: int = guilty, asked: list[int] = asked) -> bool:
            asked.append(position)
            return position >= guilty

        assert bisect(end, changed) == (guilty, ())
        assert len(asked) <= math.ceil(math.log2(end))
        assert all(0 < position < end for position in asked)


def test_bisection_passes_over_what_cannot_be_measured() -> None:
    draw = random.Random(5)
    found = 0
    for _ in range(300):
        end = draw.randint(2, 16)
        guilty = draw.randint(1, end)
        broken = {position for position in range(1, end) if draw.random() < 0.3}
        result = bisect(end, lambda p, g=guilty, b=broken: None if p in b else p >= g)
        certain = guilty not in broken and guilty - 1 not in broken
        assert result.guilty == (guilty if certain else None)
        assert set(result.skipped) <= broken
        found += certain
    assert 100 < found < 300
