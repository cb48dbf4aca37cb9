"""What forbids a patch whatever its score: outputs that differ, signals that stand still, work out of turn.

Each is read from the answers of a trial alone, without a level of error: they are facts of the sample.
"""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from qigcore.fitness import SERVICE
from qigcore.geometry import frechet_variance
from qigheal.records import Trial

COLLAPSE = 0.1
"""A standard deviation below this part of both the unpatched and the healthy one has collapsed."""

OUT_OF_TURN = 1.5
"""Processor time above this multiple of the answer's own time, and of what the unpatched side takes, is
spent while others are being asked; the second figure is what counting in ticks may add, in ms."""
TICK_MS = 10.0


def standing(trial: Trial) -> tuple[list[str], list[str]]:
    """Vetoes, and doubts that keep a patch from being accepted on these pairs."""
    vetoes, doubts = _outputs(trial)
    return [*vetoes, *_collapses(trial), *_works_out_of_turn(trial)], doubts


def _outputs(trial: Trial) -> tuple[list[str], list[str]]:
    """Where outputs may not change: why they do, or why that cannot be seen.

    All of them may not where the patch claims so. Where only errors, latency and memory are to be healed,
    a request that was answered without an error has the answer that it should have, and must keep it; of
    patches that only a person may merge, some such answer must have been seen.
    """
    changed = [pair.before.output_digest != pair.after.output_digest for pair in trial.pairs]
    random = any(pair.before.output_digest != pair.after.output_digest for pair in trial.control)
    unseen = any(answer.output_digest is None for pair in trial.pairs for answer in (pair.before, pair.after))
    if trial.patch.same_output:
        if random:
            return ["equal outputs cannot be shown: the unpatched code answers one request in two ways"], []
        if unseen:
            return ["equal outputs cannot be shown: the probe reports no output_digest"], []
        if any(changed):
            said = f"{sum(changed)} of {len(changed)} outputs differ, and the patch claims that none does"
            return [said], []
        return [], []
    concerned = {*trial.named, *trial.patch.heals}
    if random or not concerned <= {*SERVICE} or all(a.before.output_digest is None for a in trial.pairs):
        return [], []
    right = [c for c, pair in zip(changed, trial.pairs, strict=True) if not pair.before.error_rate]
    if any(right):
        return [f"{sum(right)} of {len(right)} outputs differ where the unpatched code made no error"], []
    if not right and trial.patch.tier == "review":
        return [], ["the unpatched code made errors in every answer, so no output shows that the rest stays"]
    return [], []


def _collapses(trial: Trial) -> list[str]:
    """Signals that no longer vary, though they do without the patch and where healthy."""
    target = trial.target
    sides = [[pair.before for pair in trial.pairs], [pair.after for pair in trial.pairs]]
    spreads = {}
    if "phi" in target.bands:
        healthy = target.bands["phi"].sd
        spreads["Φ"] = (healthy, *(float(np.std([answer.phi for answer in side])) for side in sides))
    if "basin_drift" in target.bands:
        healthy = math.hypot(target.bands["basin_drift"].mean, target.bands["basin_drift"].sd)
        variances = (
            frechet_variance([answer.basin for answer in side], geometry=target.geometry) for side in sides
        )
        spreads["the basin"] = (healthy, *map(math.sqrt, variances))
    return [
        f"{name} no longer varies: its spread is {after:.2g}, {before:.2g} without the patch, {healthy:.2g} healthy"
        for name, (healthy, before, after) in spreads.items()
        if after < COLLAPSE * min(before, healthy)
    ]


def _works_out_of_turn(trial: Trial) -> list[str]:
    """A side that computes while the other one is asked slows that one down, and looks fast beside it."""
    before_ms = median(pair.before.cpu_ms for pair in trial.pairs)
    after_ms = median(pair.after.cpu_ms for pair in trial.pairs)
    answer_ms = median(pair.after.wall_ms for pair in trial.pairs)
    if after_ms <= OUT_OF_TURN * max(before_ms, answer_ms) + TICK_MS:
        return []
    return [
        f"it computes while it is not asked: {after_ms:.1f} ms of processor time for answers of {answer_ms:.1f} ms, "
        f"{before_ms:.1f} ms without the patch"
    ]
