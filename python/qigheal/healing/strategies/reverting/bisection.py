"""Finds the one commit of a line at which something changed, by measuring few of them.

Numbers in, numbers out: what is measured, and what a commit is, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Bisected(NamedTuple):
    """guilty: the position at which it changed, None when the skipped ones leave several in question."""

    guilty: int | None
    skipped: tuple[int, ...]


def bisect(end: int, changed: Callable[[int], bool | None]) -> Bisected:
    """Search positions 1 to `end`; position 0 is as it was before, `end` (at least 1) as it is after.

    `changed` says of a position strictly between whether it is as after; None for one that cannot be
    measured. The nearest neighbours of such a one are asked instead.
    """
    before, after = 0, end
    skipped: set[int] = set()
    while after - before > 1:
        middle = (before + after) // 2
        open_ = sorted(
            (position for position in range(before + 1, after) if position not in skipped),
            key=lambda position: abs(position - middle),
        )
        if not open_:
            return Bisected(None, tuple(sorted(skipped)))
        found = changed(open_[0])
        if found is None:
            skipped.add(open_[0])
        elif found:
            after = open_[0]
        else:
            before = open_[0]
    return Bisected(after, tuple(sorted(skipped)))
