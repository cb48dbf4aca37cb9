"""Independent rows around a fixed centre, and what can become of them: a shift, a drift, more noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from benchmarks.detection.streams import (
    FAINTEST,
    Change,
    Changed,
    Floats,
    Rng,
    Rows,
    dirichlet,
    joined,
    likeliest,
    moved,
)


def evidence(rows: Floats, before: Floats, after: Floats) -> Floats:
    """log of Dirichlet(after)/Dirichlet(before) for each row; parameters of shape [64] or [n, 64]."""
    logs = np.log(np.maximum(rows, FAINTEST))
    fixed = gammaln(after.sum(-1)) - gammaln(before.sum(-1)) + (gammaln(before) - gammaln(after)).sum(-1)
    found: Floats = (logs * (after - before)).sum(-1) + fixed
    return found


@dataclass(frozen=True)
class Steady:
    """Independent rows of Dirichlet(c·p0)."""

    p0: Floats
    c: float

    def healthy(self, rng: Rng, n: int, start: int = 0) -> Rows:
        return Rows(dirichlet(rng, self.c * self.p0, n))

    def changed(self, rng: Rng, change: Change) -> Changed:
        before = self.c * self.p0
        if change.kind == "spread":
            return Redrawn(before, before / change.size)
        after, way = moved(rng, self.p0, change.size, change.support, 0.05 / self.c)
        if change.kind == "shift":
            return Redrawn(before, self.c * after)
        return Ramp(self, change.size, way, change.over)


@dataclass(frozen=True)
class Redrawn:
    """Independent rows of Dirichlet(after), where they were of Dirichlet(before)."""

    before: Floats
    after: Floats

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        return joined([Rows(dirichlet(rng, self.before, before)), Rows(dirichlet(rng, self.after, n))])

    def statistic(self, rows: Rows, start: int) -> Floats:
        ratio = evidence(rows.basins, self.before, self.after)
        return likeliest(ratio, ratio)


@dataclass(frozen=True)
class Ramp:
    """A steady world whose centre goes `size` radians along `way`, evenly over `over` rows, and stays there."""

    world: Steady
    size: float
    way: Floats
    over: int

    def angles(self, turn: npt.NDArray[np.int64]) -> Floats:
        """Half the distance of the centre from p0 at the rows numbered from the change on (0: the first)."""
        return 0.5 * self.size * np.minimum(1.0, (turn + 1) / self.over)

    def law(self, turn: npt.NDArray[np.int64]) -> Floats:
        """Dirichlet parameters of those rows, shape [n, 64]."""
        angle = self.angles(turn)[:, None]
        made: Floats = self.world.c * (np.cos(angle) * np.sqrt(self.world.p0) + np.sin(angle) * self.way) ** 2
        return made

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        return joined([self.world.healthy(rng, before), Rows(dirichlet(rng, self.law(np.arange(n)), n))])

    def statistic(self, rows: Rows, start: int) -> Floats:
        """One sum for each possible age of the change; all ages of `over` rows and more share the last.

        The parameters are quadratic in the cosine and sine of the angle, so that the evidence of a row at
        every age is made of three figures of that row.
        """
        ages = np.arange(self.over)
        angle, root, c = self.angles(ages), np.sqrt(self.world.p0), self.world.c
        logs = np.log(np.maximum(rows.basins, FAINTEST))
        figures = np.stack(
            [logs @ (c * root * root), logs @ (c * root * self.way), logs @ (c * self.way**2)], 1
        )
        shape = np.stack([np.cos(angle) ** 2 - 1.0, 2.0 * np.sin(angle) * np.cos(angle), np.sin(angle) ** 2])
        law = self.law(ages)
        before = c * self.world.p0
        fixed = gammaln(law.sum(1)) - gammaln(c) + gammaln(before).sum() - gammaln(law).sum(1)
        sums = np.full(self.over, -np.inf)
        found = np.empty(len(rows))
        for at, row in enumerate(figures):
            oldest = max(sums[-1], sums[-2])
            sums[1:] = sums[:-1]
            sums[0], sums[-1] = 0.0, oldest
            sums += row @ shape
            sums += fixed
            found[at] = sums.max()
        return found
