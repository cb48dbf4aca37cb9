"""The strategy that turns levers until the basin lies where it did when the service was healthy.

The aim is the distance between the baseline and the Fréchet mean of the batches, in units of the drift
limit. A single batch lies off by chance; the mean of several shows where the service really is. How
levers are read, searched and set stands in `levers`.

An anchor lever (the strength with which a host pulls its state towards a stored anchor) is searched like
any other. Pulled hard enough it brings every drift to nothing, by making the service say the same whatever
it is asked. So what a setting takes from the spread between batches counts against it, the more the less
spread is left: the search ends at the weakest pull that brings the drift well inside its limit. Other
levers are found where drift and spread are both as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qigcore.geometry import frechet_mean, frechet_variance, from_amplitudes, log_map
from qigheal.healing.strategies.turning.levers import Figure, Measured, turned
from qigheal.records import Answer, Diagnosis, HealingPatch, Target, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

SPREAD_WEIGHT = 0.1
"""Of the spread that is lost (healthy over present, less one) beside the drift in units of its limit.

A pull that leaves the part x of a drift of D limits leaves the part x of the spread as well. With this
weight the best x leaves 0.32 limits of drift at D = 1.2, 0.42 at D = 2 and 0.68 at D = 5, and from a quarter
to a seventh of the spread; the judge calls less than a tenth a collapse.
"""

LEAST_SPREAD = 1e-3
"""Part of the healthy spread below which less makes no difference; it keeps the residual finite."""


class Basin:
    """Searches the levers of strategy `basin` for the values that bring the drift back inside its limit."""

    name = "basin"
    tier: Tier = "safe"
    metrics = ("basin_drift",)

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most one patch."""
        if "basin_drift" not in diagnosis.metrics:
            return
        target = diagnosis.target
        patch = turned(
            self.name,
            self.metrics,
            lambda answers: _measured(answers, target),
            bench,
            repo,
            self._settings,
            diagnosis.healthy_code_hash,
        )
        if patch is not None:
            yield patch


def _measured(answers: Sequence[Answer], target: Target) -> Measured:
    """The way from the baseline to the Fréchet mean, by component, and the spread that is lost.

    The way has the drift's length and, unlike it, a sign on either side of the best setting, so that its
    components can be interpolated. By chance alone the mean of n batches lies off by their variance over n;
    that is taken off before a setting is called nearer.
    """
    basins = [answer.basin for answer in answers]
    centre = frechet_mean(basins, geometry=target.geometry)
    variance = frechet_variance(basins, centre, target.geometry)
    baseline, here = from_amplitudes(np.array([target.basin, centre]), target.geometry)
    way = log_map(baseline, here, target.geometry)
    drift = float(np.linalg.norm(way))
    chance = variance / max(1, len(answers) - 1)
    away = math.sqrt(max(0.0, drift * drift - chance)) / target.drift_limit
    lost = 0.0
    if (band := target.bands.get("basin_drift")) is not None:
        healthy = math.hypot(band.mean, band.sd)
        lost = max(0.0, healthy / max(math.sqrt(variance), LEAST_SPREAD * healthy) - 1.0)
    return Measured(
        (Figure("drift", drift, f"up to {target.drift_limit:.4g} rad"),),
        np.array([*way / target.drift_limit, SPREAD_WEIGHT * lost]),
        away,
        away <= 1.0,
    )
