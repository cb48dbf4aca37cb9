"""Distances between basins, the paths between them and their means.

Two geometries. In `"simplex"` a state is a vector of non-negative weights at any positive scale, in
`"sphere"` a signed vector at any positive scale. Functions take states in that form and return states
as *amplitudes*, unit vectors of float64: √(p/Σp) on the simplex, x/‖x‖ on the sphere;
`from_amplitudes` leads back. Both geometries reach from 0 to π radians. On the simplex a distance is
twice the angle between amplitudes, and tangent vectors have the length of the distance they lead.

The loops are compiled, in `qigcore._geometry`; here is what can be composed of them. They use AVX2 where the
processor has it, and give the same bits without; QIGHEAL_SIMD=plain in the environment declines it, and
`qigcore._geometry.INSTRUCTIONS` says what is used. Nothing in this room knows a service, keeps state, or
guesses a geometry from the values.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from qigcore._geometry import amplitudes, distance, distance_matrix, distances, karcher, unit
from qigcore.errors import InvalidBasin, TooLittleData
from qigcore.rows import FloatArray

__all__ = [
    "Geometry",
    "amplitudes",
    "contributions",
    "distance",
    "distance_matrix",
    "distances",
    "exp_map",
    "frechet_mean",
    "frechet_variance",
    "from_amplitudes",
    "geodesic",
    "log_map",
]

Geometry = Literal["simplex", "sphere"]


def from_amplitudes(units: npt.ArrayLike, geometry: Geometry = "simplex") -> FloatArray:
    """States at scale 1 from amplitudes, the inverse of `amplitudes`.

    units: array-like, shape=[..., dim]. Returns the same shape: on the simplex the squares, which are
    probabilities; on the sphere a copy.
    """
    values = np.array(units, dtype=np.float64)
    if geometry == "sphere":
        return values
    if geometry != "simplex":
        raise ValueError(f"geometry: expected 'simplex' or 'sphere', got {geometry!r}")
    return values * values


def geodesic(p: npt.ArrayLike, q: npt.ArrayLike, t: float, geometry: Geometry = "simplex") -> FloatArray:
    """The state a fraction t of the way from p to q along the shortest path.

    p, q: array-like, shape=[dim], states at any positive scale. t: 0 gives p, 1 gives q.

    Returns the amplitude, shape [dim]. Raises InvalidBasin as `distance` does, and for antipodes of the
    sphere, which no single shortest path joins; ValueError for t outside [0, 1].
    """
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"t: expected a fraction from 0 (p) to 1 (q), got {t!r}")
    angle, middle, across = _frame(*_pair(p, q, geometry))
    turn = (t - 0.5) * angle
    return _inside(np.cos(turn) * middle + np.sin(turn) * across, geometry, "q")


ROUNDING = 1e-15
"""What a tangent vector may have along its point in radians, however short it is: `log_map` is exact to that."""


def log_map(p: npt.ArrayLike, q: npt.ArrayLike, geometry: Geometry = "simplex") -> FloatArray:
    """The tangent vector at p that leads to q.

    p, q: array-like, shape=[dim], states at any positive scale.

    Returns a vector of shape [dim], orthogonal to the amplitude of p, whose Euclidean length is
    `distance(p, q)` in radians. Raises InvalidBasin as `geodesic` does.
    """
    angle, middle, across = _frame(*_pair(p, q, geometry))
    length = angle / _angle_per_radian(geometry)
    made: FloatArray = length * (np.sin(0.5 * angle) * middle + np.cos(0.5 * angle) * across)
    return made


def exp_map(p: npt.ArrayLike, v: npt.ArrayLike, geometry: Geometry = "simplex") -> FloatArray:
    """The state that the tangent vector v leads to from p, the inverse of `log_map`.

    p: array-like, shape=[dim], a state at any positive scale. v: array-like, shape=[dim], orthogonal to
    the amplitude of p (within 1e-6 of its length); its length is the way to go, in radians of `distance`.

    Returns the amplitude, shape [dim]. Raises InvalidBasin as `distance` does, where v is not tangent at
    p, and where it leads off the simplex, which has an edge.
    """
    start = unit(p, geometry, "p")
    step = np.array(v, dtype=np.float64)
    if step.shape != start.shape or not np.isfinite(step).all():
        raise InvalidBasin(f"v: expected {len(start)} finite components, as p has, got {v!r:.60}")
    largest = np.abs(step).max()
    if largest == 0.0:
        return start
    step /= largest
    along = step @ start
    # Between two states that differ by rounding alone, so does the way: no angle of it is to be asked for.
    if abs(along) > 1e-6 * np.linalg.norm(step) and abs(along) * largest > ROUNDING:
        raise InvalidBasin(
            f"v: expected a tangent vector at p, orthogonal to its amplitude, got one at a cosine of "
            f"{along / np.linalg.norm(step):.2g}; log_map(p, q) makes one"
        )
    step -= along * start
    length = np.linalg.norm(step)
    if length == 0.0:
        return start
    angle = length * largest * _angle_per_radian(geometry)
    return _inside(np.cos(angle) * start + np.sin(angle) * (step / length), geometry, "v")


def frechet_mean(
    rows: npt.ArrayLike, weights: npt.ArrayLike | None = None, geometry: Geometry = "simplex"
) -> FloatArray:
    """The Fréchet (Karcher) mean: the state with the least mean squared distance to the rows.

    Iterated until the gradient stops shrinking (Karcher 1977; Pennec 2006, "Intrinsic Statistics on
    Riemannian Manifolds", §4.3), not the normalised average of amplitudes. On the simplex it is unique;
    on the sphere where the rows lie in an open half sphere. Nothing of the rows' size is kept meanwhile.

    rows: array-like, shape=[n, dim], states at any positive scale. weights: array-like, shape=[n],
    non-negative, at any scale; equal when left out.

    Returns the amplitude, shape [dim]. Raises TooLittleData for no rows; InvalidBasin as `distance`
    does, for unusable weights, and for rows all round the sphere, which have no single mean.
    """
    try:
        states = np.asarray(rows)
    except (TypeError, ValueError) as error:  # rows of unequal length
        raise InvalidBasin(
            f"rows: expected an array of numbers, got {type(rows).__name__}: {error}"
        ) from None
    if states.ndim != 2:
        raise InvalidBasin(
            f"rows: expected rows of components, shape [n, dim], got shape {list(states.shape)}"
        )
    if not len(states):
        raise TooLittleData("rows: expected at least one row, got none")
    shares = None
    if weights is not None:
        shares = np.array(weights, dtype=np.float64)
        if shares.shape != states.shape[:1]:
            raise InvalidBasin(
                f"weights: expected one for each of {len(states)} rows, got shape {shares.shape}"
            )
        if not (np.isfinite(shares).all() and shares.min() >= 0.0 and shares.max() > 0.0):
            raise InvalidBasin("weights: expected finite non-negative numbers, not all 0")
        shares /= shares.max()
        shares /= shares.sum()
    mean = karcher(states, shares, geometry)
    if mean is None:
        raise InvalidBasin("rows: expected states within one half of the sphere, got some all round it")
    return _inside(mean, geometry, "rows")


def frechet_variance(
    rows: npt.ArrayLike, mean: npt.ArrayLike | None = None, geometry: Geometry = "simplex"
) -> float:
    """Mean squared distance of the rows to their Fréchet mean, in radians².

    rows: array-like, shape=[n, dim], states at any positive scale. mean: array-like, shape=[dim], an
    amplitude as `frechet_mean` returns it, or another to measure from; computed when left out.

    Raises TooLittleData and InvalidBasin as `frechet_mean` does.
    """
    if mean is None:
        mean = frechet_mean(rows, None, geometry)
    radians = distances(rows, from_amplitudes(mean, geometry), geometry)
    if not len(radians):
        raise TooLittleData("rows: expected at least one row, got none")
    return float(np.mean(radians * radians))


def contributions(p: npt.ArrayLike, q: npt.ArrayLike, geometry: Geometry = "simplex") -> FloatArray:
    """Which components a distance comes from: their shares of the squared chord between the amplitudes.

    p, q: array-like, shape=[dim], states at any positive scale.

    Returns (aᵢ − bᵢ)²/‖a − b‖², shape [dim]: non-negative, summing to 1, the same for (p, q) and (q, p);
    zeros where p and q are one state. Raises InvalidBasin as `distance` does.
    """
    a, b = _pair(p, q, geometry)
    steps = np.abs(a - b)
    largest = steps.max()
    if largest == 0.0:
        return steps
    squares = (steps / largest) ** 2
    shares: FloatArray = squares / squares.sum()
    return shares


def _angle_per_radian(geometry: Geometry) -> float:
    """Angle between amplitudes for one radian of distance."""
    return 0.5 if geometry == "simplex" else 1.0


def _pair(p: npt.ArrayLike, q: npt.ArrayLike, geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    a, b = unit(p, geometry, "p"), unit(q, geometry, "q")
    if len(a) != len(b):
        raise InvalidBasin(f"p and q: expected as many components in both, got {len(a)} and {len(b)}")
    return a, b


def _frame(a: FloatArray, b: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """The angle from a to b, with unit vectors to the chord's midpoint and along the chord.

    The two are orthogonal because a and b have one length; points built in this frame are exact at the
    ends and the middle, and stable up to antipodes, where sines of the whole angle would be lost.
    """
    chord, sum_ = b - a, a + b
    near, far = float(np.linalg.norm(chord)), float(np.linalg.norm(sum_))
    if far < 1e-15:
        raise InvalidBasin("p and q: expected states with one shortest path between them, got antipodes")
    return 2.0 * float(np.arctan2(near, far)), sum_ / far, chord / near if near > 0.0 else chord


def _inside(point: FloatArray, geometry: Geometry, name: str) -> FloatArray:
    """Clears the −1e-16 that rounding leaves at the simplex's edge; refuses what is really outside."""
    if geometry == "sphere":
        return point
    if point.min() < -1e-9:
        raise InvalidBasin(
            f"{name}: expected a way that stays on the simplex, got one that crosses its edge at position "
            f"{int(point.argmin())}"
        )
    return np.maximum(point, 0.0)
