"""When a line through a series reaches a limit, with the interval that its noise leaves.

Imported by `qigcore.trends`, whose users call it. Which side of a limit is bad is the caller's to know.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy.typing as npt

from qigcore._streams import crossing

ENOUGH = 10
"""Usable values below which a direction is unknown."""

Course = Literal["reaches", "passed", "away", "noise", "unknown"]

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


class TimeTo(msgspec.Struct, frozen=True, gc=False):
    """When the least-squares line through a series is at a limit, counted from the newest snapshot.

    course: what the other fields mean.
        reaches  the line goes to the limit: eta ≥ 0, low and high its 95 % interval, low at least 0
        passed   the line crossed it within the series: eta, low and high as they are, eta below 0
        away     the line leaves it, and was there before the series began, if ever: all three NaN
        noise    the slope is not told from 0 (its 95 % interval holds 0), so that no time can be named: eta
                 NaN, high ∞; not before `low` at 95 %, which is 0 where the line may be at the limit now
                 and ∞ for a constant series elsewhere
        unknown  under 10 usable values: all three NaN
    eta, low, high: snapshots. It is the line that reaches the limit: single values do so earlier and later.
    limit, level: in the metric's unit; level is the line's value at the newest snapshot, NaN if unknown.
    eta_s, low_s, high_s: the same in seconds; NaN where the time between snapshots is not known.
    count, skipped: how many values were usable, and how many were not finite.
    """

    course: Course
    eta: float
    low: float
    high: float
    limit: float
    level: float
    eta_s: float
    low_s: float
    high_s: float
    count: int
    skipped: int

    def sentence(self, name: str) -> str:
        """In words: "Φ reaches 0.65 in about 3 h, 95 %: 2–6 h"; in snapshots where seconds are not known.

        name: what the series is called.
        """
        limit = f"{self.limit:.6g}"
        if self.course == "unknown":
            return f"{name}: {self.count} of the {ENOUGH} values needed to tell when it reaches {limit}"
        if self.course == "away":
            return f"{name} moves away from {limit}"
        times = (self.eta, self.low, self.high)
        scale, unit = 1.0, "snapshots"
        if not math.isnan(self.low_s):
            times = (self.eta_s, self.low_s, self.high_s)
            leading = abs(self.low_s if self.course == "noise" else self.eta_s)
            scale, unit = next((size for size in _UNITS if leading >= 2.0 * size[0]), _UNITS[-1])
        eta, low, high = (time / scale for time in times)
        if self.course == "noise":
            before = "" if low in (0.0, math.inf) else f", and not before {_round(low)} {unit} (95 %)"
            return f"{name} does not move towards {limit} by more than its noise{before}"
        if self.course == "passed":
            return f"{name} reached {limit} about {_round(-eta)} {unit} ago"
        return (
            f"{name} reaches {limit} in about {_round(eta)} {unit}, 95 %: {_round(low)}–{_round(high)} {unit}"
        )


def time_to(
    values: npt.ArrayLike,
    limit: float,
    interval_s: float | None = None,
    timestamps: npt.ArrayLike | None = None,
) -> TimeTo:
    """When the line through a series reaches a limit, by Fieller's theorem on its level and its slope.

    values: array-like, shape=[n], oldest first, one per snapshot; what is not finite is skipped, counted,
        and keeps its place.
    limit: in the metric's unit.
    interval_s: seconds between snapshots, if known.
    timestamps: array-like, shape=[n], Unix seconds of the snapshots, instead of `interval_s`: their mean
        distance is used, pauses included. No seconds come out where the last is not later than the first.

    The line is at the limit at all times u for which |level(u) − limit| is at most t standard errors of
    level(u), which are sqrt(V_mean + u² V_slope) when u counts from the mean place; a quadratic
    inequality in u (Fieller, J. R. Stat. Soc. B 16, 1954, section 2). Both variances are corrected for
    autocorrelation, and t is Student's, as in `slope`. Raises InvalidLimit for a limit that is not finite, and
    ValueError for an interval that is not positive, or timestamps that do not fit.
    """
    if interval_s is None:
        return TimeTo(*crossing(values, limit, math.nan, timestamps))
    if timestamps is not None:
        raise ValueError("interval_s: expected it or timestamps, got both; leave one out")
    if not 0.0 < interval_s < math.inf:
        raise ValueError(f"interval_s: expected seconds above 0, got {interval_s!r}")
    return TimeTo(*crossing(values, limit, interval_s))


def _round(number: float) -> str:
    """Two significant digits, and whole numbers from 10 on."""
    if not 0.0 < abs(number) < math.inf:
        return "∞" if number else "0"
    rounded = round(number, 1 - math.floor(math.log10(abs(number))))
    return f"{rounded:.0f}" if abs(rounded) >= 10.0 else f"{rounded:.2g}"
