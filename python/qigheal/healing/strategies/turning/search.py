"""Searches settings whose measured figures come nearest to what they should be.

Numbers in, numbers out: what a setting is, and how it is measured, is the caller's. A measurement
gives residuals, one per figure, in units that make them comparable; their Euclidean norm is the
loss. One setting is searched by a scan and quadratic interpolation of each residual (which knows
the shape of the response, and needs a handful of measurements), several by CMA-ES (Hansen 2016,
arXiv 1604.00772), which assumes nothing, and from its best point by Gauss-Newton steps on a plane through
the residuals of the points nearby.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qigheal.errors import MissingExtra

Point = tuple[float, ...]
Residuals = npt.NDArray[np.float64]

SCAN = 7
"""Points of the first scan; its spacing must resolve the basin of the optimum."""

RESOLUTION = 1e-3
"""Smallest step worth a measurement, as a fraction of the axis; values have three digits anyway."""

NEAR = 0.1
"""Loss that is not worth a further measurement."""

CAUTION = 0.1
"""Smallest step as a fraction of the gap it goes into: a steep far end makes interpolation creep."""

EVOLVED = 0.6
"""Part of the measurements that CMA-ES gets; the steps after it need few and end by themselves."""

FEWEST = 4
"""Measurements below which CMA-ES has no generation to learn from."""

REACH = 0.25
"""Longest such step along an axis: the plane is known near the points that it was laid through."""

FAILED = 1e30
"""Loss of a point that could not be measured; CMA-ES sorts losses and wants them finite."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of one setting, mapped to 0..1.

    A range of one sign that spans more than a factor of 20 is searched by ratios, others by
    differences. `whole` settings take whole numbers only.
    """

    low: float
    high: float
    whole: bool = False

    @property
    def logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low > 20

    def value(self, position: float) -> float:
        """The setting at a position of 0 to 1: three significant digits, or a whole number."""
        if self.logarithmic:
            exact = self.low * (self.high / self.low) ** position
        else:
            exact = self.low + (self.high - self.low) * position
        rounded = round(exact) if self.whole else float(f"{exact:.3g}")
        return float(min(max(rounded, self.low), self.high))

    def position(self, value: float) -> float:
        """Where a value lies, 0 to 1; one outside the range counts as its nearer end."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


def loss(residuals: Residuals | None) -> float:
    """Euclidean norm of the residuals; infinite for a point that could not be measured."""
    return math.inf if residuals is None else float(np.linalg.norm(residuals))


def search(
    axes: Sequence[Axis],
    start: Point,
    measure: Callable[[Point], Residuals | None],
    evaluations: int,
    seed: int,
) -> dict[Point, Residuals | None]:
    """Every point measured, at most `evaluations` of them, in the order they were tried.

    `start` is where the settings stand; it is not measured here, and may lie outside the axes.
    `measure` returns None for a point at which nothing works.
    """
    tried: dict[Point, Residuals | None] = {}

    def visit(point: Point) -> float:
        if point not in tried:
            tried[point] = measure(point)
        return loss(tried[point])

    if len(axes) == 1:
        _along(axes[0], visit, tried, evaluations)
    else:
        _evolve(axes, start, visit, tried, max(min(FEWEST, evaluations), round(EVOLVED * evaluations)), seed)
        _descend(axes, visit, tried, evaluations)
    return tried


def _along(
    axis: Axis, visit: Callable[[Point], float], tried: dict[Point, Residuals | None], evaluations: int
) -> None:
    scan = max(1, min(SCAN, (evaluations + 1) // 2))
    for i in range(scan):
        visit((axis.value((i + 0.5) / scan),))
    while len(tried) < evaluations:
        position = _next(sorted((axis.position(point[0]), found) for point, found in tried.items()))
        if position is None:
            return
        point = (axis.value(position),)
        if point in tried:
            return
        visit(point)


def _next(points: list[tuple[float, Residuals | None]]) -> float | None:
    """Where the interpolated residuals are smallest, between the neighbours of the best point.

    None when the best point is good enough, when its neighbours are too close to look between, or
    when nothing could be measured anywhere.
    """
    known = [(position, found) for position, found in points if found is not None]
    if not known:
        return None
    best = min(range(len(known)), key=lambda i: loss(known[i][1]))
    at, least = known[best][0], loss(known[best][1])
    left = max((position for position, _ in points if position < at), default=0.0) - at
    right = min((position for position, _ in points if position > at), default=1.0) - at
    wider = right if right > -left else left
    if len(known) == 1:
        step = wider / 2
    else:
        nearby = known[max(0, min(best - 1, len(known) - 3)) :][:3]
        powers = np.arange(len(nearby))
        offsets = np.array([position - at for position, _ in nearby])
        coefficients = np.linalg.solve(offsets[:, None] ** powers, np.array([found for _, found in nearby]))
        grid = np.linspace(left, right, 2001)
        predicted = np.linalg.norm((grid[:, None] ** powers) @ coefficients, axis=1)
        step = float(grid[predicted.argmin()])
        gap = wider if abs(step) < RESOLUTION else right if step > 0 else left
        step = math.copysign(min(max(abs(step), CAUTION * abs(gap)), (1 - CAUTION) * abs(gap)), gap)
    return None if least < NEAR or abs(step) < RESOLUTION else at + step


def _evolve(
    axes: Sequence[Axis],
    start: Point,
    visit: Callable[[Point], float],
    tried: dict[Point, Residuals | None],
    evaluations: int,
    seed: int,
) -> None:
    try:
        from cmaes import CMA
    except ImportError as missing:
        raise MissingExtra("cmaes", "heal", "a search over several levers") from missing
    mean = positions(axes, start)
    population = min(evaluations, 4 + int(3 * math.log(len(axes))))
    evolution = CMA(
        mean, sigma=0.3, bounds=np.array([[0.0, 1.0]] * len(axes)), seed=seed, population_size=population
    )
    # Rounding lets points repeat, so what ends the search is how often it asked.
    for _ in range(evaluations // population):
        asked = [evolution.ask() for _ in range(evolution.population_size)]
        losses = [
            visit(tuple(axis.value(float(x)) for axis, x in zip(axes, position, strict=True)))
            for position in asked
        ]
        evolution.tell(
            [(position, min(found, FAILED)) for position, found in zip(asked, losses, strict=True)]
        )


def _descend(
    axes: Sequence[Axis],
    visit: Callable[[Point], float],
    tried: dict[Point, Residuals | None],
    evaluations: int,
) -> None:
    reach = REACH
    while len(tried) < evaluations and reach > RESOLUTION:
        known = [(point, found) for point, found in tried.items() if found is not None]
        if len(known) <= len(axes):
            return
        best, least = min(known, key=lambda pair: loss(pair[1]))
        if loss(least) < NEAR:
            return
        at = positions(axes, best)
        offsets = np.array([positions(axes, point) - at for point, _ in known])
        nearest = np.argsort(np.linalg.norm(offsets, axis=1), kind="stable")[: 2 * len(axes) + 1]
        slopes = np.linalg.lstsq(
            offsets[nearest], np.array([known[i][1] for i in nearest]) - least, rcond=None
        )[0]
        step = np.linalg.lstsq(slopes.T, -least, rcond=1e-3)[0]
        step *= min(1.0, reach / max(float(np.abs(step).max()), 1e-300))
        where = np.clip(at + step, 0.0, 1.0)
        point = tuple(axis.value(float(x)) for axis, x in zip(axes, where, strict=True))
        if point in tried or visit(point) >= loss(least):
            reach /= 3


def positions(axes: Sequence[Axis], point: Point) -> npt.NDArray[np.float64]:
    """Where a point lies on its axes, 0 to 1 each."""
    return np.array([axis.position(value) for axis, value in zip(axes, point, strict=True)])
