"""Distances between basins and their means; the work is done in `qigcore._geometry`.

Two geometries. In `"simplex"` a state is a vector of non-negative weights at any positive scale, in
`"sphere"` a signed vector at any positive scale. Functions take states in that form, and return
states as *amplitudes*, unit vectors of float64: √(p/Σp) on the simplex, x/‖x‖ on the sphere.
`from_amplitudes` leads back. Both geometries reach from 0 to π radians.

Nothing here knows a service, keeps state, or guesses a geometry from the values.
"""

from __future__ import annotations

from qigcore._geometry import (
    amplitudes,
    contributions,
    distance,
    distance_matrix,
    distances,
    exp_map,
    frechet_mean,
    frechet_variance,
    from_amplitudes,
    geodesic,
    log_map,
)

__all__ = [
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
