"""Which way a metric is going, and whether that is more than its noise.

A pure function of the values handed in; which values are flagged is the caller's to know, and says
so by handing in NaN for them.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy.typing as npt

from qigcore._streams import least_squares

Direction = Literal["improving", "stable", "degrading", "unknown"]

RECENT = 10
"""Usable values that `recent_avg` is the mean of."""

ENOUGH = 10
"""Usable values below which a direction is unknown."""


class Slope(msgspec.Struct, frozen=True):
    """A straight line through a series by least squares.

    slope: change per snapshot, in the metric's unit; NaN under 2 usable values.
    stderr: its standard error; NaN under 3. It takes the residuals for independent, so that a strongly
        autocorrelated series looks more certain than it is.
    mean: of the usable values; NaN where there are none.
    count, skipped: how many values were usable, and how many were not finite.
    """

    slope: float
    stderr: float
    mean: float
    count: int
    skipped: int


class Trend(msgspec.Struct, frozen=True):
    """Where a metric is going.

    slope, stderr: per snapshot; of the values, or with `better="toward"` of their distance from the
        target (negative: approaching).
    recent_avg: mean of the last 10 usable values; NaN where there are none.
    snapshots: usable values that it rests on.
    """

    direction: Direction
    slope: float
    stderr: float
    recent_avg: float
    snapshots: int


def slope(values: npt.ArrayLike) -> Slope:
    """Least-squares slope per snapshot.

    values: array-like, shape=[n], oldest first, one per snapshot. Values that are not finite are
    skipped and counted, and keep their place in time.
    """
    found, error, mean, _, count, skipped = least_squares(values, 0)
    return Slope(found, error, mean, count, skipped)


def trend(
    values: npt.ArrayLike, better: Literal["up", "down", "toward"], target: float | None = None
) -> Trend:
    """The direction of a series: a slope within 2 standard errors of 0 is `stable`.

    values: array-like, shape=[n], oldest first; values that are not finite are skipped. Under 10
        usable ones the direction is `unknown`.
    better: whether higher values are better, lower ones, or those nearer to `target`.
    target: needed for `"toward"`, in the metric's unit.
    """
    if better not in ("up", "down", "toward"):
        raise ValueError(f"better: expected 'up', 'down' or 'toward', got {better!r}")
    if better == "toward" and target is None:
        raise ValueError("target: expected a number for better='toward', got None")
    found, error, _, recent, count, _ = least_squares(values, RECENT, target if better == "toward" else None)
    direction: Direction
    if count < ENOUGH:
        direction = "unknown"
    elif abs(found) <= 2.0 * error:
        direction = "stable"
    else:
        direction = "improving" if (found > 0.0) == (better == "up") else "degrading"
    return Trend(direction, found, error, recent, count)
