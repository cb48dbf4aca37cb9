"""How far a count of rare events may lie from the rate behind it, and what that says of a stated rate."""

from __future__ import annotations

import math

from qigcore.calibration.tails import log_gamma_tail
from qigcore.durations import worded
from qigheal.backtest.records import FalseAlarms

LEVEL = 0.95

FACTOR = 3.0
"""A past that allows for the stated rate and for so many times that says little of it."""

DAY = 86_400.0


def interval(count: int) -> tuple[float, float]:
    """Exact central 95 % interval of a Poisson mean of which `count` events were seen.

    The bounds μ with P(N ≥ count | low) = P(N ≤ count | high) = 2.5 %; low is 0 of no events.
    Source: Garwood 1936, Biometrika 28, p. 437, by P(N ≤ n | μ) = Q(n + 1, μ).
    """
    if count < 0:
        raise ValueError(f"count: expected a number of events, 0 or more, got {count}")
    half = (1.0 - LEVEL) / 2.0
    low = _mean_with(count, 1.0 - half) if count else 0.0
    return low, _mean_with(count + 1, half)


def _mean_with(shape: int, tail: float) -> float:
    """The μ with Q(shape, μ) = tail, by bisection: Q grows with μ from 0 to 1."""
    wanted = math.log(tail)
    low, high = 0.0, shape + 10.0 * math.sqrt(shape) + 10.0
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return middle
        if log_gamma_tail(shape, middle) > wanted:
            low = middle
        else:
            high = middle


def judged(
    count: int, critical: int, snapshots: int, seconds: float, run_length: float | None
) -> FalseAlarms:
    """`count` false alarms in what was watched, against one in `run_length` snapshots where that is stated."""
    low, high = interval(count)
    days = seconds / DAY
    made = FalseAlarms(
        count=count,
        critical=critical,
        snapshots=snapshots,
        seconds=seconds,
        per_day=count / days if days > 0.0 else None,
        per_day_low=low / days if days > 0.0 else None,
        per_day_high=high / days if days > 0.0 else None,
    )
    if run_length is None or not snapshots:
        return made
    expected = snapshots / run_length
    verdict = (
        "more"
        if low > expected
        else "fewer"
        if high < expected
        else "too short"
        if high > FACTOR * expected
        else "agrees"
    )
    return FalseAlarms(
        **{field: getattr(made, field) for field in made.__struct_fields__[:7]},
        expected=expected,
        ratio=count / expected,
        ratio_low=low / expected,
        ratio_high=high / expected,
        verdict=verdict,  # type: ignore[arg-type]
    )


def sentence(found: FalseAlarms, stated: str, *, marked: bool = True) -> str:
    """What the count says of the stated rate, for a person. `stated`: as "one in 30d". marked: events were."""
    where = (
        f"{found.snapshots:,} snapshots, {worded(found.seconds)}"
        if found.seconds
        else f"{found.snapshots:,} snapshots"
    )
    said = f"{stated} stated, {found.count} seen in {where}"
    said += " outside of events" if marked else " (no events are marked: real ones count as false)"
    if found.verdict is None:
        return said
    low, high = found.ratio_low or 0.0, found.ratio_high or 0.0
    between = f"{low:.2g} to {high:.2g} times the stated rate"
    if found.count == 0:
        between = f"up to {high:.2g} times the stated rate"
    judgement = {
        "too short": f"this past is too short to tell; {between} would fit it",
        "agrees": f"in keeping with it ({between})",
        "more": f"more than stated ({between})",
        "fewer": f"fewer than stated ({between})",
    }[found.verdict]
    return f"{said} where {found.expected:.2g} would be expected: {judgement}"
