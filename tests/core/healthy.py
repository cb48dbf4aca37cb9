"""Healthy services and what goes wrong with them, drawn with fixed seeds; baselines learned once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from qigcore.baseline import Baseline
from qigcore.rows import HEAD, Batch


@cache
def centre(dim: int = 64) -> Any:
    return np.random.default_rng(41).dirichlet(np.full(dim, 2.0))


def states(n: int, seed: int, dim: int = 64, geometry: str = "simplex", at: Any = None) -> Any:
    """Independent rows [n, dim] about `at`, spread as Dirichlet(500·at)."""
    rng = np.random.default_rng(seed)
    if geometry == "simplex":
        at = centre(dim) if at is None else at
        # No weight is exactly 0: a shape below 1 draws some, that are no numbers' logarithm.
        return rng.dirichlet(500.0 * at, n)
    return np.sqrt(centre(dim)) * (-1.0) ** np.arange(dim) + rng.normal(0.0, 0.5 / np.sqrt(500), (n, dim))


def moved(radians: float, components: int, seed: int = 7, dim: int = 64) -> Any:
    """The centre, moved by so many radians in so many of its components; and which."""
    rng = np.random.default_rng(seed)
    root = np.sqrt(centre(dim))
    chosen = rng.choice(dim, components, replace=False)
    push = np.zeros(dim)
    push[chosen] = rng.choice([-1.0, 1.0], components)
    push -= push @ root * root
    push /= np.linalg.norm(push)
    new = np.cos(radians / 2) * root + np.sin(radians / 2) * push
    return np.maximum(new, 1e-6) ** 2 / np.sum(np.maximum(new, 1e-6) ** 2), set(chosen.tolist())


def batch(n: int, seed: int, dim: int = 64, at: Any = None, basins: Any = None) -> Batch:
    rng = np.random.default_rng([seed, 1])
    heads = np.zeros(n, HEAD)
    heads["timestamp"] = 60.0 * np.arange(n)
    heads["phi"] = rng.normal(0.75, 0.01, n)
    heads["kappa_eff"] = rng.normal(64.0, 1.0, n)
    heads["avg_latency_ms"] = rng.lognormal(1.6, 0.3, n)
    heads["error_rate"] = rng.binomial(1000, 0.004, n) / 1000
    heads["regime"] = 1
    return Batch.of_rows(heads, states(n, seed, dim, at=at) if basins is None else basins, ("",))


@cache
def learned(
    n: int = 600, dim: int = 64, geometry: str = "simplex", figures: bool = False, seed: int = 1
) -> Baseline:
    window = batch(n, seed, dim) if figures else states(n, seed, dim, geometry)
    return Baseline.learn(window, geometry=geometry, created=0.0)  # type: ignore[arg-type]
