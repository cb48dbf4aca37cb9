"""Healthy streams and what goes wrong with them, for the tests of calibration; seeds are the tests'."""

from __future__ import annotations

import numpy as np

from qigcore import geometry
from qigcore.rows import FloatArray

DIM = 64
CONCENTRATION = 500.0


def noise(rng: np.random.Generator, n: int, k: int, rho: float = 0.0) -> FloatArray:
    """Stationary first-order autoregressions of variance 1, shape [n, k]."""
    drawn = rng.normal(size=(n, k))
    if rho:
        drawn[1:] *= np.sqrt(1.0 - rho * rho)
        for i in range(1, n):
            drawn[i] += rho * drawn[i - 1]
    return drawn


def around(rng: np.random.Generator, centre: FloatArray, n: int, rho: float = 0.0) -> FloatArray:
    """Amplitudes [n, dim] about an amplitude: Dirichlet of concentration 500, or autocorrelated and alike."""
    if not rho:
        return geometry.amplitudes(rng.dirichlet(CONCENTRATION * centre**2 + 1e-9, n))
    moved = np.abs(centre + noise(rng, n, len(centre), rho) / (2.0 * np.sqrt(CONCENTRATION)))
    return geometry.amplitudes(moved**2)


def centre_of(rng: np.random.Generator) -> FloatArray:
    return geometry.amplitudes(rng.dirichlet(np.full(DIM, 2.0)))


def away(rng: np.random.Generator, centre: FloatArray, radians: float) -> FloatArray:
    """An amplitude at this distance from the centre, in a random direction."""
    way = geometry.log_map(centre**2, rng.dirichlet(np.full(DIM, 20.0)))
    return geometry.exp_map(centre**2, radians * way / np.linalg.norm(way))


def scalars(rng: np.random.Generator, n: int, rho: float = 0.0) -> dict[str, FloatArray]:
    """Φ, κ, a heavy-tailed latency, and error rates that are rarely other than 0."""
    one, two, three = noise(rng, n, 3, rho).T
    return {
        "phi": 0.75 + 0.01 * one,
        "kappa": 66.0 + 2.0 * two,
        "latency": 5.0 * np.exp(0.5 * three),
        "errors": np.where(rng.random(n) < 0.03, rng.exponential(0.01, n), 0.0),
    }
