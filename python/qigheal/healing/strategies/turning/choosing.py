"""Which of the settings that were measured is proposed: the nearest to where the levers stood in health, among
those that cannot be told from the best.

Where the response is flat, the smallest loss is the luck of a measurement, and as likely at the end of a range as
anywhere. Numbers in, numbers out: nothing is measured here, and no lever is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from qigcore.noninferiority import t_quantile
from qigheal.healing.strategies.turning.search import Axis, Point, Residuals, loss, positions

LEVEL = 0.05
"""Probability with which a setting as good as the best is told from it by chance."""

ALIKE = 0.05
"""Difference of losses that says nothing about health, in half-widths of a band: from 300 snapshots its edges are not
known any better."""

FEWEST = 3
"""Answers below which nothing can be said of their noise: leaving one out leaves no spread."""


def chosen(
    tried: Mapping[Point, Residuals | None],
    eligible: Callable[[Point], bool],
    axes: Sequence[Axis],
    home: Point,
    without: Callable[[Point], Sequence[float]],
) -> Point:
    """The setting to propose: the best one, or one that cannot be told from it and lies nearer to `home`.

    eligible: whether a setting would do in the best one's place. home: where the levers stood in health, or else
    stand. without: a setting's losses with one of its answers left out at a time, in the order of the requests;
    empty when they cannot be had. `tried` holds a setting that could be measured.
    """
    best = min(tried, key=lambda point: loss(tried[point]))
    least, at = loss(tried[best]), positions(axes, home)

    def away(point: Point) -> float:
        return float(np.linalg.norm(positions(axes, point) - at))

    lefts: npt.NDArray[np.float64] | None = None
    for point in sorted((point for point in tried if away(point) < away(best)), key=away):
        more = loss(tried[point]) - least
        if not math.isfinite(more) or not eligible(point):
            continue
        if more <= ALIKE:
            return point
        if lefts is None:
            lefts = np.array(without(best))
        if more <= _chance(np.array(without(point)), lefts):
            return point
    return best


def _chance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """The difference of two losses that chance makes, by the jackknife over requests that both answered.

    Source: Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9 (1981), equation 1.4.
    """
    count = len(one)
    if count < FEWEST or len(other) != count:
        return 0.0
    differences = one - other
    variance = (count - 1) / count * float(np.sum((differences - differences.mean()) ** 2))
    return t_quantile(LEVEL, count - 1) * math.sqrt(variance)
