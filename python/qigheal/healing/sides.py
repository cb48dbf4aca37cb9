"""What each side of a trial came to, in the figures that a person reads. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qigcore.geometry import distance, frechet_mean, from_amplitudes
from qigheal.records import Answer, Target, Trial


def measured(trial: Trial) -> tuple[dict[str, float], dict[str, float]]:
    """What each side of a trial came to, by metric; empty where nothing was measured."""
    if not trial.pairs:
        return {}, {}
    return (
        _figures([pair.before for pair in trial.pairs], trial.target),
        _figures([pair.after for pair in trial.pairs], trial.target),
    )


def _figures(answers: Sequence[Answer], target: Target) -> dict[str, float]:
    basins = np.array([answer.basin for answer in answers])
    mean = frechet_mean(basins, geometry=target.geometry)
    healthy, found = (from_amplitudes(units, target.geometry) for units in (np.array(target.basin), mean))
    return {
        "phi": float(np.mean([answer.phi for answer in answers])),
        "kappa": float(np.mean([answer.kappa_eff for answer in answers])),
        "basin_drift": float(distance(found, healthy, target.geometry)),
        "errors": float(np.mean([answer.error_rate for answer in answers])),
        "latency": float(np.median([answer.wall_ms - answer.waited_ms for answer in answers])),
        "memory": float(np.mean([answer.rss_mb for answer in answers])),
    }
