"""The strategy that turns levers until Φ and κ lie where they did when the service was healthy.

It aims at the centre of the healthy band: a value at its edge would leave it again at the next
fluctuation. How levers are read, searched and set stands in `levers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qigcore.geometry import distance, frechet_mean, from_amplitudes
from qigheal.healing.strategies.turning.levers import Figure, Measured, turned
from qigheal.reasons import log
from qigheal.records import Answer, Diagnosis, HealingPatch, Target, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

DRIFT_WEIGHT = 0.1
"""Of the drift (in units of its limit) beside Φ and κ (in half-widths of their bands): it breaks ties."""

SYMBOLS = {"phi": "Φ", "kappa": "κ"}


class Attention:
    """Searches the levers of strategy `attention` for the values that put Φ and κ back in their bands."""

    name = "attention"
    tier: Tier = "safe"
    metrics = ("phi", "kappa")

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most one patch."""
        target = diagnosis.target
        heals = tuple(metric for metric in diagnosis.metrics if metric in self.metrics)
        aims = tuple(metric for metric in self.metrics if metric in target.bands)
        if not (heals and aims):
            log.info("attention: no band of Φ or κ was learned")
            return
        patch = turned(
            self.name,
            heals,
            lambda answers: _measured(answers, target, aims),
            bench,
            repo,
            self._settings,
            diagnosis.healthy_code_hash,
        )
        if patch is not None:
            yield patch


def _measured(answers: Sequence[Answer], target: Target, aims: Sequence[str]) -> Measured:
    """Distances from the centres of the target's bands, in half-widths, and the weighted drift."""
    reported = {"phi": [a.phi for a in answers], "kappa": [a.kappa_eff for a in answers]}
    figures, residuals, healthy = [], [], True
    for metric in aims:
        band, mean = target.bands[metric], float(np.mean(reported[metric]))
        figures.append(Figure(SYMBOLS[metric], mean, f"{band.low:.4g} to {band.high:.4g}"))
        residuals.append((mean - (band.low + band.high) / 2) / band.half_width)
        healthy = healthy and band.excess(mean) == 0
    centre = frechet_mean([a.basin for a in answers], geometry=target.geometry)
    here, there = from_amplitudes(np.array([centre, target.basin]), target.geometry)
    drift = distance(here, there, target.geometry)
    found = np.array([*residuals, DRIFT_WEIGHT * drift / target.drift_limit])
    return Measured(tuple(figures), found, float(np.linalg.norm(found)), healthy)
