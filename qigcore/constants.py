"""Published figures and conventions that the defaults rest on.

A figure's standing matters more than its digits: `KAPPA_STAR` near 8² is a coincidence until shown
otherwise, and nothing here treats it as a law.
"""

from __future__ import annotations

PHI_MIN = 0.65
"""Integration below which the source document calls a service degraded. A convention."""

BASIN_DRIFT_MAX = 2.0
"""Radians of drift above which the source document calls a service degraded. A convention."""

FITNESS_THRESHOLD = 0.6
"""Score above which the source document calls a patch safe to apply. A convention."""

KAPPA_STAR = 64.21
"""Coupling that the source document reports as a fixed point."""


def running_coupling(scale: int) -> float:
    """β from lattice scale L to L + 1: 0.44 for L = 3, 0.0 from L = 4 on.

    Source: the source document's corrections. Below L = 3 nothing was measured, so asking raises ValueError.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 3:
        raise ValueError(
            f"scale: expected an integer of at least 3 (nothing was measured below), got {scale!r}"
        )
    return 0.44 if scale == 3 else 0.0
