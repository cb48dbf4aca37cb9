"""Streams of basins with known statistics, healthy and changed, and the likelihood of each.

A world is one imagined service: a healthy centre p0 and a law of noise around it. A change turns it into
another one, which knows the likelihood of its rows, for the oracle. Distances are Fisher-Rao, in radians, as
in `qigcore.geometry`. All randomness is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import gammaln

from qigcore import geometry
from qigcore.rows import HEAD, Batch

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

DIM = 64
DAY = 1440
"""Rows in a day, one a minute."""

EPOCH = 1_767_571_200.0
"""A Monday, 00:00 UTC: where timestamps begin, so that an hour of the week means something."""

FAINTEST = 1e-300  # a component can come out as 0; its logarithm must stay a number


@dataclass(frozen=True)
class Rows:
    """A stretch of a stream: basins, shape [n, 64], and the scalars and times where the stream has them."""

    basins: Floats
    heads: npt.NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.basins)

    def __getitem__(self, which: slice) -> Rows:
        return Rows(self.basins[which], None if self.heads is None else self.heads[which])

    def given(self) -> Floats | Batch:
        """In the form that `Baseline.learn` and `ChangeDetector.run` take."""
        if self.heads is None:
            return self.basins
        return Batch.of_rows(self.heads, self.basins, ("",))


def joined(parts: Sequence[Rows]) -> Rows:
    """One stretch of several."""
    heads = [part.heads for part in parts if part.heads is not None]
    return Rows(np.concatenate([part.basins for part in parts]), np.concatenate(heads) if heads else None)


@dataclass(frozen=True)
class Change:
    """What happens to a service.

    kind: "shift" moves the centre at once, "ramp" over `over` rows, "spread" multiplies the variance by about
    `size`; the digits have kinds of their own. size: for shifts radians, else as the kind says. support:
    components that move.
    """

    name: str
    kind: str
    size: float = 0.0
    support: int = DIM
    over: int = 0


class Changed(Protocol):
    """A world after its change."""

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        """`before` healthy rows and n after the change, without a seam; rows[0] is row `start` of the stream."""

    def statistic(self, rows: Rows, start: int) -> Floats | None:
        """For each row t, the log-likelihood ratio of "the change came at k ≤ t" at the best k. Shape [n].

        rows[0] is row `start` of the stream, and the first where the change can have come. None where nobody
        knows the likelihood.
        """


class World(Protocol):
    """A service in health."""

    def healthy(self, rng: Rng, n: int, start: int = 0) -> Rows:
        """n rows from row `start` of the stream on."""

    def changed(self, rng: Rng, change: Change) -> Changed:
        """The same service after a change whose direction is drawn."""


def centre(rng: Rng) -> Floats:
    """A healthy centre: p0 ~ Dirichlet(2) in 64 components."""
    return rng.dirichlet(np.full(DIM, 2.0))


def inner(rng: Rng) -> Floats:
    """A healthy centre away from the simplex's edge: half `centre`, half uniform, so that no weight is below 1/128."""
    return 0.5 * centre(rng) + 0.5 / DIM


def dirichlet(rng: Rng, alpha: Floats, n: int) -> Floats:
    """n rows of Dirichlet(alpha); alpha of shape [64], or [n, 64] for a law of its own for each row."""
    shape = alpha if alpha.ndim == 2 else np.broadcast_to(alpha, (n, DIM))
    drawn = rng.standard_gamma(shape)
    drawn /= drawn.sum(axis=1, keepdims=True)
    return drawn


def direction(rng: Rng, p0: Floats, support: int = DIM) -> Floats:
    """A random unit tangent vector at p0 that is 0 outside `support` components drawn with it. Shape [64]."""
    made = np.zeros(DIM)
    chosen = rng.choice(DIM, support, replace=False)
    root = np.sqrt(p0[chosen])
    step = rng.standard_normal(support)
    step -= (step @ root) / (root @ root) * root
    made[chosen] = step / np.linalg.norm(step)
    return made


def moved(rng: Rng, p0: Floats, size: float, support: int, floor: float) -> tuple[Floats, Floats]:
    """A centre at a distance of exactly `size` from p0, along a geodesic in a random direction.

    Directions that leave the simplex, or take a component below `floor`, are drawn again: they would put
    the centre where a Dirichlet law has no mode. Returns (centre, unit direction).
    """
    for _ in range(10_000):
        way = direction(rng, p0, support)
        point = np.cos(0.5 * size) * np.sqrt(p0) + np.sin(0.5 * size) * way
        if point.min() > 0.0 and (point * point).min() >= floor:
            return geometry.from_amplitudes(geometry.exp_map(p0, size * way)), way
    raise ValueError(f"no direction in {support} components goes {size} rad from this centre")


def likeliest(first: Floats, later: Floats) -> Floats:
    """max over k ≤ t of first[k] + later[k + 1] + … + later[t], for each t: what CUSUM charts compute.

    first: the log-likelihood ratio of a row that is the first changed one; later: of one that is not.
    """
    walk = np.cumsum(later)
    found: Floats = walk + np.maximum.accumulate(first - walk)
    return found


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


@dataclass(frozen=True)
class Autoregressive:
    """Gaussian AR(1) in the tangent space at p0: v' = ρ v + √(1 − ρ²) e, rows exp(v).

    e has the covariance (1 − aaᵀ)/(c + 1), a = √p0: that of Dirichlet(c·p0) to first order, so that a row's
    distance from p0 is as large. Where a component of an amplitude turns negative, squaring reflects it, so
    that rows stay on the simplex; with a centre by `inner` no component does in 99 % of the rows.
    """

    p0: Floats
    c: float
    rho: float

    def healthy(self, rng: Rng, n: int, start: int = 0) -> Rows:
        return Rows(self.exp(self.noise(rng, n)))

    def noise(self, rng: Rng, n: int) -> Floats:
        """n steps of the stationary process, tangent vectors in radians, shape [n, 64]."""
        root = np.sqrt(self.p0)
        drawn = rng.standard_normal((n, DIM)) / np.sqrt(self.c + 1.0)
        drawn -= np.outer(drawn @ root, root)
        drawn[1:] *= np.sqrt(1.0 - self.rho**2)
        made: Floats = lfilter([1.0], [1.0, -self.rho], drawn, axis=0)
        return made

    def exp(self, v: Floats) -> Floats:
        """Basins from tangent vectors at p0."""
        length = np.linalg.norm(v, axis=1, keepdims=True)
        ratio = 0.5 * np.sinc(length / (2.0 * np.pi))  # sin(length/2)/length, also at 0
        made: Floats = (np.cos(0.5 * length) * np.sqrt(self.p0) + ratio * v) ** 2
        return made

    def log(self, basins: Floats) -> Floats:
        """Tangent vectors at p0 from basins, the inverse of `exp`."""
        root = np.sqrt(self.p0)
        across = np.sqrt(basins)
        along = across @ root
        across -= np.outer(along, root)
        sine = np.linalg.norm(across, axis=1)
        return across * (2.0 * np.arctan2(sine, along) / np.maximum(sine, FAINTEST))[:, None]

    def changed(self, rng: Rng, change: Change) -> Changed:
        _, way = moved(rng, self.p0, change.size, change.support, 0.0)
        return Moved(self, change.size * way)


@dataclass(frozen=True)
class Moved:
    """An autoregressive world whose mean has moved by `shift`, a tangent vector at p0."""

    world: Autoregressive
    shift: Floats

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        v = self.world.noise(rng, before + n)  # one series: a seam in it would give the change away
        v[before:] += self.shift
        return Rows(self.world.exp(v))

    def statistic(self, rows: Rows, start: int) -> Floats:
        """From the innovations v' − ρ v, which are independent.

        That of the first changed row moves by the whole shift, later ones by (1 − ρ) of it. Of rows[0] the
        row before is unknown, and the row itself is judged.
        """
        size = float(np.linalg.norm(self.shift)) * np.sqrt(self.world.c + 1.0)  # in standard deviations
        along = (
            self.world.log(rows.basins)
            @ (self.shift / np.linalg.norm(self.shift))
            * np.sqrt(self.world.c + 1.0)
        )
        scale = 1.0 / np.sqrt(1.0 - self.world.rho**2)
        fresh = scale * (along[1:] - self.world.rho * along[:-1])
        whole, part = scale * size, scale * size * (1.0 - self.world.rho)
        alone = size * along[:1] - 0.5 * size * size
        return likeliest(
            np.concatenate((alone, whole * fresh - 0.5 * whole * whole)),
            np.concatenate((alone, part * fresh - 0.5 * part * part)),
        )


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


def scalars(rng: Rng, start: int, phi: Floats, kappa: Floats, drift: Floats) -> npt.NDArray[np.void]:
    """Heads of as many rows, one a minute from row `start` on, with latencies of 5 ± 0.2 ms."""
    n = len(phi)
    heads = np.zeros(n, HEAD)
    heads["timestamp"] = EPOCH + 60.0 * np.arange(start, start + n)
    heads["phi"] = phi
    heads["kappa_eff"] = kappa
    heads["basin_drift"] = drift
    heads["avg_latency_ms"] = rng.normal(5.0, 0.2, n)
    heads["memory_mb"] = 100.0
    for name in ("confidence", "surprise", "agency"):
        heads[name] = np.nan
    heads["regime"] = np.where(phi < 0.30, 0, np.where(phi < 0.80, 1, 2))
    return heads
