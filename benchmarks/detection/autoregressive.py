"""Rows that remember: a Gaussian AR(1) process in the tangent space at the centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from benchmarks.detection.streams import (
    DIM,
    FAINTEST,
    Change,
    Changed,
    Floats,
    Rng,
    Rows,
    likeliest,
    moved,
)


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
