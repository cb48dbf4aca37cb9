"""Candidates timed in short turns, one after the other, round after round.

A change of the machine's speed then falls on all of them: figures are medians over the rounds, ratios
are medians of each round's own ratio, which say more than the nanoseconds on a machine that is shared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Work = Callable[[], object]

TURN_S = 0.002  # shorter than the slices in which a system shares its processors: most turns are undisturbed


class Group:
    """One piece of work with its candidates.

    Ratios are to `reference`. per: units of work in one call. note: what is compared, where it is not the same.
    """

    def __init__(self, name: str, unit: str, reference: str, per: int = 1, note: str = "") -> None:
        self.name = name
        self.unit = unit
        self.reference = reference
        self.per = per
        self.note = note
        self.candidates: dict[str, Work] = {}
        self.absent: list[str] = []

    def add(self, name: str, make: Callable[[], Work]) -> None:
        """Add a candidate, or note that what it needs is not installed."""
        try:
            self.candidates[name] = make()
        except ImportError:
            self.absent.append(name)


def turn(work: Work, count: int) -> float:
    """Nanoseconds of one call, the loop and the calling of `work` included."""
    loop = range(count)
    start = time.perf_counter_ns()
    for _ in loop:
        work()
    return (time.perf_counter_ns() - start) / count


def nothing() -> None:
    """What the loop costs: calling a Python function that does nothing."""


def measure(group: Group, rounds: int) -> dict[str, Any]:
    """The group's figures, its candidates sorted by cost."""
    counts = {}
    for name, work in group.candidates.items():
        turn(work, 3)
        counts[name] = max(3, int(TURN_S * 1e9 / max(turn(work, 20), 1.0)))
    turns: dict[str, list[float]] = {name: [] for name in group.candidates}
    for _ in range(rounds):
        empty = min(turn(nothing, 10_000) for _ in range(3))
        for name, work in group.candidates.items():
            turns[name].append(max(0.0, turn(work, counts[name]) - empty) / group.per)
    reference = turns.get(group.reference)
    rows = [
        {
            "candidate": name,
            "ns": statistics.median(found),
            "low_ns": min(found),
            "high_ns": max(found),
            "ratio": statistics.median(a / b for a, b in zip(found, reference, strict=True))
            if reference
            else None,
        }
        for name, found in turns.items()
    ]
    return {
        "work": group.name,
        "unit": group.unit,
        "reference": group.reference,
        "note": group.note,
        "absent": group.absent,
        "rows": sorted(rows, key=lambda row: row["ns"]),
    }
