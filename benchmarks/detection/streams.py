"""What streams are made of: rows, worlds and changes; centres, ways to move them, and likelihoods.

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
