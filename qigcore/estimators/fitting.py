"""Centroids and temperature from the embeddings of healthy traffic.

Deterministic: the same rows in the same order and the same seed give the same bits, however many threads or
whichever instructions there are; no random generator and no linear algebra library takes part. Rows in another order
may give other centroids. Nothing here runs on the request path.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qigcore._estimators import Centroids, cluster_sums, mixed, unit_rows
from qigcore.errors import InvalidBasin, TooLittleData
from qigcore.rows import FloatArray

Float32s = npt.NDArray[np.float32]

PER_CENTROID = 10
"""Rows that each centroid needs on average: with fewer, it is the mean of a handful."""

PHI = 0.75
"""Mean Φ of the rows that τ is set to: what the monitor's first limits take for healthy."""

TURNS = 100
FOR_TEMPERATURE = 4096
"""Rows at most, evenly spaced, that τ is found with: a mean Φ of as many is known to about 0.003."""

CHUNK = 4096
GRID = 2.0**30


class Fitted(NamedTuple):
    """centroids: unit vectors [k, dim]; temperature: τ; start: mean shares [k], with mean Φ `phi`."""

    centroids: Float32s
    temperature: float
    start: FloatArray
    phi: float
    used: int
    skipped: int


def fit(rows: npt.ArrayLike, k: int, seed: int) -> Fitted:
    """Spherical k-means, then τ by bisection. rows: shape [n, dim]; unusable ones are skipped and counted.

    Raises InvalidBasin for what is no array of numbers of that shape, TooLittleData for fewer than 10 usable
    rows per centroid, or fewer different ones than centroids.
    """
    try:
        given = np.asarray(rows)
    except (TypeError, ValueError) as error:
        raise InvalidBasin(
            f"rows: expected an array of numbers, got {type(rows).__name__}: {error}"
        ) from None
    if given.dtype.kind not in "fiu" or given.ndim != 2 or given.shape[1] < 2:
        raise InvalidBasin(
            f"rows: expected embeddings of shape [n, dim], dim at least 2, got {given.dtype} {list(given.shape)}"
        )
    units, usable = unit_rows(given)
    if len(units) < PER_CENTROID * k:
        raise TooLittleData(
            f"{k} centroids need {PER_CENTROID * k} usable embeddings, got {len(units)} of {len(given)}: give more, "
            f"or ask for {max(len(units) // PER_CENTROID, 0)} centroids"
        )
    clusters = clustered(units, k, seed)
    step = -(-len(units) // FOR_TEMPERATURE)
    temperature = _temperature(_left_out(units, clusters, slice(None, None, step)))
    total, phi = np.zeros(k), 0.0
    for first in range(0, len(units), CHUNK):
        shares, each = _soft(_left_out(units, clusters, slice(first, first + CHUNK)), temperature)
        total += shares.sum(axis=0)
        phi += float(each.sum())
    # On a grid of 2^-30, so that the last bit of a machine's exp does not make another definition.
    start = np.round(total / total.sum() * GRID)
    start[np.argmax(start)] += GRID - start.sum()
    phi = round(phi / len(units) * GRID) / GRID
    return Fitted(
        clusters.centroids, temperature, start / GRID, phi, len(units), int(len(given) - usable.sum())
    )


class Clusters(NamedTuple):
    """centroids: unit vectors [k, dim]; labels: each row's cluster [n]; lengths: of the sums of clusters [k]."""

    centroids: Float32s
    labels: npt.NDArray[np.int64]
    lengths: FloatArray


def clustered(units: Float32s, k: int, seed: int) -> Clusters:
    """Of unit rows: spherical k-means (Dhillon & Modha 2001, "Concept Decompositions for Large
    Sparse Text Data Using Clustering", §3.1), from k-means++ seeding, until no row changes its cluster or 100 turns.

    A cluster that lost all its rows gets the row that is farthest from its own centroid.
    """
    centroids = units[_seeds(units, k, seed)]
    lengths = np.ones(k)
    labels = np.full(len(units), -1, dtype=np.int64)
    for _ in range(TURNS):
        found, near = _nearest(units, Centroids(centroids))
        for empty in np.flatnonzero(np.bincount(found, minlength=k) == 0):
            farthest = int(np.argmin(near))
            found[farthest], near[farthest] = empty, math.inf
        if np.array_equal(found, labels):
            break
        labels = found
        sums = cluster_sums(units, labels, k)
        lengths = np.sqrt(np.array([math.fsum(row) for row in (sums * sums).tolist()]))
        made, usable = unit_rows(sums)
        centroids = centroids.copy()
        centroids[usable] = made  # rows that cancel have no direction: their centroid stays
    return Clusters(centroids, labels, lengths)


def _left_out(units: Float32s, clusters: Clusters, which: slice) -> FloatArray:
    """Cosines of some rows to the centroids, each row taken out of its own cluster first, float64 [m, k].

    Fresh traffic lies farther from the centroids than what they are the means of: without this, Φ of fresh
    healthy traffic would lie 0.1 below that of the rows, at 20 rows per centroid. A cluster of one row has nothing
    left: cosine 0.
    """
    rows, own = np.ascontiguousarray(units[which]), clusters.labels[which]
    cosines = Centroids(clusters.centroids).cosines(rows)
    at = np.arange(len(rows)), own
    length = clusters.lengths[own]
    along = cosines[at] * length - 1.0
    left = np.sqrt(np.maximum(length * length - 2.0 * cosines[at] * length + 1.0, 0.0))
    cosines[at] = np.where(left > 1e-3, np.clip(along / np.maximum(left, 1e-3), -1.0, 1.0), 0.0)
    return cosines


def _nearest(units: Float32s, centroids: Centroids) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Of each row: the nearest centroid, the first of several, and the cosine to it."""
    labels, near = np.empty(len(units), dtype=np.int64), np.empty(len(units))
    for first in range(0, len(units), CHUNK):
        cosines = centroids.cosines(units[first : first + CHUNK])
        labels[first : first + CHUNK] = cosines.argmax(axis=1)
        near[first : first + CHUNK] = cosines.max(axis=1)
    return labels, near


def _seeds(units: Float32s, k: int, seed: int) -> list[int]:
    """k-means++ (Arthur & Vassilvitskii 2007, §2.2): each next row with probability in proportion to d².

    d² = 2 − 2·cos to the nearest row chosen so far; draws are SplitMix64(seed, turn)/2^64.
    """
    salt = mixed(seed)
    chosen = [mixed(salt) * len(units) >> 64]
    away = np.full(len(units), math.inf)
    for turn in range(1, k):
        _, near = _nearest(units, Centroids(units[chosen[-1:]]))
        # A copy of a chosen row has a d² of rounding only, and is no centroid of its own.
        distance = 2.0 - 2.0 * near
        away = np.minimum(away, np.where(distance > 1e-5, distance, 0.0))
        reach = np.cumsum(away)
        if not reach[-1] > 0.0:
            raise TooLittleData(
                f"{k} centroids need as many different embeddings, got {turn}: ask for at most {turn}"
            )
        drawn = (mixed(salt ^ turn) >> 11) * 2.0**-53 * float(reach[-1])
        chosen.append(int(np.searchsorted(reach, drawn, side="right")))
    return chosen


def _soft(cosines: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Shares exp(−d²/τ)/Σ, shape [n, k], with d² = 2 − 2·cos, and Φ of each row, [n]."""
    below = (cosines - cosines.max(axis=1, keepdims=True)) * (2.0 / temperature)
    shares = np.exp(below)
    totals = shares.sum(axis=1, keepdims=True)
    entropies = np.log(totals[:, 0]) - (shares * below).sum(axis=1) / totals[:, 0]
    return shares / totals, np.clip(1.0 - entropies / math.log(cosines.shape[1]), 0.0, 1.0)


def _temperature(cosines: FloatArray) -> float:
    """τ at which the mean Φ of the rows is 0.75, to 6 digits. Mean Φ falls as τ grows, from about 1 to 0."""
    low, high = math.log(1e-6), math.log(1e6)
    for _ in range(50):
        middle = 0.5 * (low + high)
        if float(_soft(cosines, math.exp(middle))[1].mean()) > PHI:
            low = middle
        else:
            high = middle
    return float(f"{math.exp(0.5 * (low + high)):.6g}")
