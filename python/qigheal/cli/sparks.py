"""Charts made of characters: lines and bars, in blocks or, where a terminal has none, in ASCII."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
ASCII: Final = " _.-=+*%#"
"""Eight heights of a cell and, first, none."""

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def drawable(encoding: str | None) -> bool:
    """Whether text in this encoding can hold the blocks and Greek letters."""
    try:
        (BLOCKS + EIGHTHS + "Φκ±–").encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def thinned(values: Sequence[float], width: int) -> list[float]:
    """`width` values: means of stretches of equal length, NaN where a stretch has none. Fewer stay as they are."""
    if len(values) <= width:
        return [float(value) for value in values]
    cells = []
    for cell in range(width):
        part = values[cell * len(values) // width : (cell + 1) * len(values) // width]
        known = [float(value) for value in part if math.isfinite(value)]
        cells.append(sum(known) / len(known) if known else math.nan)
    return cells


def span(values: Sequence[float], *edges: float | None) -> tuple[float, float]:
    """(lowest, highest) of what is to be drawn; `edges` are drawn too, unless they would flatten what varies."""
    known = [float(value) for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = 4.0 * (high - low) if high > low else math.inf
    for edge in edges:
        if edge is not None and low - room <= edge <= high + room:
            low, high = min(low, edge), max(high, edge)
    return low, high


def line(
    values: Sequence[float], width: int, height: int, low: float, high: float, *, blocks: bool
) -> list[str]:
    """`height` texts of `width` characters at most, the topmost first; what is not known is a gap.

    A value at or below `low` fills one eighth of the lowest cell, so that it can be seen.
    """
    marks = BLOCKS if blocks else ASCII
    steps = []
    for value in thinned(values, width):
        if not math.isfinite(value):
            steps.append(0)
            continue
        part = 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
        steps.append(1 + round(part * (8 * height - 1)))
    return [
        "".join(marks[min(8, max(0, step - 8 * row))] for step in steps) for row in reversed(range(height))
    ]


def bar(part: float, width: int, *, blocks: bool) -> str:
    """A bar of `part` (0 to 1) of `width` characters."""
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    if not blocks:
        return "#" * round(eighths / 8)
    whole, rest = divmod(eighths, 8)
    return EIGHTHS[8] * whole + (EIGHTHS[rest] if rest else "")
