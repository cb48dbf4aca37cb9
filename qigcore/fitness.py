"""How much better one side of a trial is than the other, with the bounds of the doubt."""

from __future__ import annotations

import msgspec


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """A score in [0, 1] with its 95 % bootstrap interval; `components` are the point's terms.

    Doing nothing scores 0.55. `components` has the keys phi, basin, service, quality: the gains
    before weighting, each in [0, 1].
    """

    point: float
    low: float
    high: float
    components: dict[str, float]
    resamples: int = 0
