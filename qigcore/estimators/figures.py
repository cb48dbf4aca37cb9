"""Φ and κ as plain figures: of one distribution, and of one covariance.

No state and no averaging. Whoever reads a figure should read beside it what it does not mean.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qigcore._estimators import entropy
from qigcore.errors import InvalidBasin
from qigcore.rows import FloatArray

STILL = 1e-12
"""A component whose sd is at most this part of its mean's size has no noise of its own to correlate."""


class Correlation(NamedTuple):
    """matrix: float64 [m, m], of the m components that move; shrinkage: the part of each r taken away, [0, 1]."""

    matrix: FloatArray
    shrinkage: float


def concentration(weights: npt.ArrayLike) -> float:
    """Φ = 1 − H(p)/ln n of p = weights/Σ weights, shape [n], n at least 2; also called normalised redundancy.

    In [0, 1]: 0 for a uniform p, 1 where one state has all. Source: Shannon 1948, "A Mathematical Theory of
    Communication", §7 (one minus the relative entropy of the source). It does not mean that the favoured
    state is the right one: a model that is confidently wrong has Φ near 1.

    Raises InvalidBasin for weights that are negative, not finite or all 0, or fewer than 2.
    """
    n = np.size(np.asarray(weights))
    if n < 2:
        raise InvalidBasin(f"weights: expected at least 2, got {n}: one state is always certain")
    return min(max(1.0 - entropy(weights) / math.log(n), 0.0), 1.0)


def effective_states(weights: npt.ArrayLike) -> float:
    """κ = exp H(p) of p = weights/Σ weights, shape [n]: the effective number of states.

    In [1, n]: as many equally likely states have the same entropy. Source: Hill 1973, "Diversity and
    Evenness", Ecology 54, the number N₁. It is no count of states that occur, and no coupling strength: it
    shares a name with the κ that the published thresholds are about, not a scale.

    Raises InvalidBasin for weights that are negative, not finite or all 0.
    """
    return min(max(math.exp(entropy(weights)), 1.0), float(np.size(np.asarray(weights))))


def shrunk_correlation(
    covariance: npt.ArrayLike, samples: float, *, mean: npt.ArrayLike | None = None
) -> Correlation:
    """Correlations of the components that move, drawn towards 0 by as much as their noise asks.

    covariance: shape [n, n]; samples: independent observations it rests on; mean: shape [n], by whose size
    a component counts as constant (left out: only a variance of 0 does).

    R* = (1 − s)·R + s·I with s = Σ var(rᵢⱼ)/Σ rᵢⱼ² over i ≠ j, clipped to [0, 1] (Schäfer & Strimmer 2005,
    "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation", §2.4 and Table 1, target D), and
    var(r) = (1 − r²)²/(samples − 1), its large-sample form under a Gaussian model. Raises ValueError for a
    covariance that is not square, not finite, or has a negative variance.
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"covariance: expected shape [n, n], got {list(matrix.shape)}")
    variances = np.diagonal(matrix)
    if not np.isfinite(matrix).all() or (variances < 0.0).any():
        raise ValueError("covariance: expected finite values, and variances of at least 0")
    sd = np.sqrt(variances)
    size = np.zeros_like(sd) if mean is None else np.abs(np.asarray(mean, dtype=np.float64))
    moving = sd > STILL * size
    sd = sd[moving]
    r = np.clip(matrix[np.ix_(moving, moving)] / sd[:, None] / sd, -1.0, 1.0)
    squares = r * r
    np.fill_diagonal(squares, 0.0)
    power, shrinkage = float(squares.sum()), 1.0
    if samples > 1.0 and power > 0.0:
        noise = (1.0 - squares) ** 2 / (samples - 1.0)
        np.fill_diagonal(noise, 0.0)
        shrinkage = min(float(noise.sum()) / power, 1.0)
    r *= 1.0 - shrinkage
    np.fill_diagonal(r, 1.0)
    return Correlation(r, shrinkage)


def total_correlation(correlation: npt.ArrayLike) -> tuple[float, float]:
    """(Φ, κ) of a correlation matrix R, shape [n, n], under a Gaussian model.

    Φ = 1 − exp(−2·TC/(n − 1)) with TC = −½ ln det R in nats (Watanabe 1960, "Information Theoretical Analysis
    of Multivariate Correlation", §2), in [0, 1]. By the chain rule of TC it equals 1 − (∏ᵢ (1 − Rᵢ²))^(1/(n−1)),
    where Rᵢ² is what the components before i explain of i (a geometric mean of what is left unexplained);
    for n = 2 it is r² (Linfoot 1957, "An Informational Measure of Correlation", the square of his r). It sees linear
    dependence only, says nothing about its direction or cause, and is not the Φ of integrated information
    theory: a copy of one wire in two places has Φ = 1.

    κ = exp H(λ/n) of the eigenvalues λ of R, in [1, n]: the effective rank (Roy & Vetterli 2007, "The Effective
    Rank", §2). It is no count of factors: n independent components and noise alone give n.

    Where fewer than two components move there is nothing to correlate: Φ = 0, κ = 1.
    """
    matrix = np.asarray(correlation, dtype=np.float64)
    n = len(matrix)
    if n < 2:
        return 0.0, 1.0
    # Rounding leaves eigenvalues of a singular matrix at ±n·2^-53; their logarithm must stay a number.
    eigenvalues = np.maximum(np.linalg.eigvalsh(matrix), n * 2.0**-52)
    phi = -math.expm1(math.fsum(np.log(eigenvalues).tolist()) / (n - 1))
    return min(max(phi, 0.0), 1.0), effective_states(eigenvalues)
