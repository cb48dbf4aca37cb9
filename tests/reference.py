"""Naive twins: each kernel once more, as slowly and as plainly as its formula reads.

Nothing here is shared with the package but its frozen records and its layout of rows.
"""

from __future__ import annotations

import math

import numpy as np

from qigcore.rows import BIT
from qigcore.rules import Rule


def rule_statistic(rows: list[dict[str, float]], rule: Rule) -> float:
    """The figure of one rule over ten rows, as the docstring of `Rule` says it."""
    bit = BIT["phi"] if rule.column == "regime" else BIT.get(rule.column, 0)
    values = [float(row[rule.column]) if not int(row["repaired"]) & bit else math.nan for row in rows]
    usable = [value for value in values if not math.isnan(value)]
    if rule.statistic == "repaired10":
        return sum(1 for row in rows if row["repaired"])
    if rule.statistic == "count10":
        return sum(1 for v in usable if (v > rule.limit if rule.side == "above" else v < rule.limit))
    if rule.statistic == "last":
        return values[-1]
    if rule.statistic == "mean10":
        return math.fsum(usable) / len(usable) if usable else math.nan
    slopes = []
    for half in (values[:5], values[5:]):
        known = [(x, y) for x, y in enumerate(half) if not math.isnan(y)]
        if len(known) < 3:
            return math.nan
        slopes.append(float(np.polyfit(*np.array(known).T, 1)[0]))
    return 0.0 if (slopes[0] > 0) != (slopes[1] > 0) else min(slopes, key=abs)


def rule_fires(rows: list[dict[str, float]], rule: Rule) -> bool:
    value = rule_statistic(rows, rule)
    if rule.statistic in ("count10", "repaired10"):
        return value > rule.count
    return value > rule.limit if rule.side == "above" else value < rule.limit


def rule_history(rows: list[dict[str, float]], rule: Rule) -> list[bool]:
    """Whether the rule counts as firing at each position: held for five positions after it fires."""
    raw = [end >= 9 and rule_fires(rows[end - 9 : end + 1], rule) for end in range(len(rows))]
    return [any(raw[max(0, end - 4) : end + 1]) for end in range(len(rows))]
