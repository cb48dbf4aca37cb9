"""A centre that goes round once a day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from benchmarks.detection.streams import (
    DAY,
    DIM,
    FAINTEST,
    Change,
    Changed,
    Floats,
    Rng,
    Rows,
    centre,
    direction,
    dirichlet,
    joined,
    likeliest,
    scalars,
)
from qigcore import geometry


@dataclass(frozen=True)
class Seasonal:
    """Dirichlet(c·p(t)) whose centre goes round p0 once a day, on a circle of `radius` radians.

    Φ, κ and latency are normal and know no season: Φ 0.75 ± 0.01, κ 64 ± 1, latency 5 ± 0.2 ms.
    """

    p0: Floats
    c: float
    radius: float
    east: Floats  # two orthonormal tangent vectors at p0: the plane of the circle
    north: Floats

    @classmethod
    def draw(cls, rng: Rng, c: float, radius: float) -> Seasonal:
        while True:
            p0 = centre(rng)
            east, north = direction(rng, p0), direction(rng, p0)
            north -= (north @ east) * east
            north /= np.linalg.norm(north)
            made = cls(p0, c, radius, east, north)
            if made.centres(np.arange(DAY), check=True).min() * c >= 0.05:
                return made

    def centres(
        self, when: npt.NDArray[np.int64], shift: Floats | None = None, check: bool = False
    ) -> Floats:
        """p(t) of rows `when`, shape [n, 64]; with a shift, moved by that tangent vector at p0 as well."""
        turn = 2.0 * np.pi * (when % DAY) / DAY
        v = self.radius * (np.cos(turn)[:, None] * self.east + np.sin(turn)[:, None] * self.north)
        if shift is not None:
            v = v + shift
        length = np.linalg.norm(v, axis=1, keepdims=True)
        made = np.cos(0.5 * length) * np.sqrt(self.p0) + np.sin(0.5 * length) * v / length
        if check and made.min() <= 0.0:
            return np.zeros((1, DIM))
        found: Floats = made * made
        return found

    def healthy(self, rng: Rng, n: int, start: int = 0) -> Rows:
        return self.drawn(rng, n, start, None)

    def drawn(self, rng: Rng, n: int, start: int, shift: Floats | None) -> Rows:
        day = self.centres(np.arange(DAY), shift)
        when = np.arange(start, start + n)
        basins = np.empty((n, DIM))
        for at in range(0, n, DAY):  # in pieces, for the parameters of all rows would fill the memory
            turn = when[at : at + DAY] % DAY
            basins[at : at + DAY] = dirichlet(rng, self.c * day[turn], len(turn))
        drift = geometry.distances(basins, self.p0)
        return Rows(basins, scalars(rng, start, rng.normal(0.75, 0.01, n), rng.normal(64.0, 1.0, n), drift))

    def changed(self, rng: Rng, change: Change) -> Changed:
        """Moved out of the circle's plane; the distance is exact at p0 and within 2 % of it round the circle."""
        for _ in range(10_000):
            way = direction(rng, self.p0, change.support)
            way -= (way @ self.east) * self.east + (way @ self.north) * self.north
            shift = change.size * way / np.linalg.norm(way)
            if self.centres(np.arange(0, DAY, 10), shift, check=True).min() * self.c >= 0.05:
                return Displaced(self, shift)
        raise ValueError(f"no direction goes {change.size} rad from this circle")


@dataclass(frozen=True)
class Displaced:
    """A seasonal world that has moved by `shift`, a tangent vector at p0."""

    world: Seasonal
    shift: Floats

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        quiet = self.world.healthy(rng, before, start)
        return joined([quiet, self.world.drawn(rng, n, start + before, self.shift)])

    def statistic(self, rows: Rows, start: int) -> Floats:
        """The oracle knows the season, too."""
        when = (np.arange(start, start + len(rows))) % DAY
        before = self.world.c * self.world.centres(np.arange(DAY))
        after = self.world.c * self.world.centres(np.arange(DAY), self.shift)
        fixed = (gammaln(before) - gammaln(after)).sum(1)
        found = np.empty(len(rows))
        for at in range(0, len(rows), DAY):
            turn = when[at : at + DAY]
            logs = np.log(np.maximum(rows.basins[at : at + DAY], FAINTEST))
            found[at : at + DAY] = np.einsum("nk,nk->n", logs, (after - before)[turn]) + fixed[turn]
        return likeliest(found, found)
