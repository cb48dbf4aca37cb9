"""What forbids a patch whatever its score: outputs that differ, signals that stand still, work out of turn.

Each is read from the answers of a trial alone, without a level of error: they are facts of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from qigcore.fitness import SERVICE
from qigcore.geometry import frechet_variance
from qigheal.records import Pair, Trial

COLLAPSE = 0.1
"""A standard deviation below this part of both the unpatched and the healthy one has collapsed."""

OUT_OF_TURN = 1.5
"""Processor time above this multiple of the answer's own time, and of what the unpatched side takes, is
spent while others are being asked; the second figure is what counting in ticks may add, in ms."""
TICK_MS = 10.0

SHOWN = 10
"""Pairs in which what was answered without an error must have stayed before a patch may go without a person."""


def standing(trial: Trial) -> tuple[list[str], list[str]]:
    """Vetoes, and doubts that keep a patch from being accepted on these pairs."""
    vetoes, doubts = _outputs(trial)
    return [*vetoes, *_collapses(trial), *_works_out_of_turn(trial)], doubts


def reserved(trial: Trial) -> tuple[str, ...]:
    """Why nothing but a person may merge the patch, though it is accepted; empty where nothing speaks for one.

    Of a patch that is to heal errors, latency and memory alone, it must have been shown that what was answered
    rightly is answered so still. And what it takes away may have refused requests rightly.
    """
    return (*trial.loosens, *_not_shown(trial))


def _differs(pair: Pair) -> bool:
    """Whether the two batches came out otherwise, their errors included."""
    return pair.before.output_digest != pair.after.output_digest


def _random(trial: Trial) -> bool:
    """Whether the unpatched code answers one request in two ways. One that fails now and then is none of these."""
    return any(_differs(pair) if pair.answered is None else pair.changed for pair in trial.control)


def _stays(pair: Pair) -> bool | None:
    """Whether what was answered without an error is answered as before; None where this pair cannot tell.

    By each request where the probe tells of each; else by the whole batch. That tells of a difference only where no
    request of it failed, and of none only where as many fail on both sides: a digest that is the same though fewer
    fail says nothing of the answers.
    """
    if pair.answered is not None:
        return not pair.changed if pair.answered else None
    before, after = pair.before, pair.after
    if before.output_digest is None:
        return None
    if not _differs(pair):
        return True if before.error_rate == after.error_rate else None
    return None if before.error_rate else False


def _outputs(trial: Trial) -> tuple[list[str], list[str]]:
    """Where outputs may not change: why they do, or why that cannot be seen. They may in people's commits.

    All of them may not where the patch claims so. Where only errors, latency and memory are to be healed,
    a request that was answered without an error has the answer that it should have, and must keep it; of
    patches that only a person may merge, some such answer must have been seen.
    """
    if trial.patch.same_output:
        differ = [_differs(pair) for pair in trial.pairs]
        unseen = any(a.output_digest is None for pair in trial.pairs for a in (pair.before, pair.after))
        if any(map(_differs, trial.control)):
            return ["equal outputs cannot be shown: the unpatched code answers one request in two ways"], []
        if unseen:
            return ["equal outputs cannot be shown: the probe reports no output_digest"], []
        if any(differ):
            said = f"{sum(differ)} of {len(differ)} outputs differ, and the patch claims that none does"
            return [said], []
        return [], []
    if trial.patch.other_output:
        return [], []
    concerned = {*trial.named, *trial.patch.heals}
    if _random(trial) or not concerned <= {*SERVICE} or _silent(trial):
        return [], []
    told = [stays for pair in trial.pairs if (stays := _stays(pair)) is not None]
    if changed := told.count(False):
        said = f"{changed} of {len(told)} outputs differ where the unpatched code made no error"
        return [said + _perhaps_lengths(trial.pairs)], []
    if not told and trial.patch.tier == "review":
        return [], ["the unpatched code made errors in every answer, so no output shows that the rest stays"]
    return [], []


def _perhaps_lengths(pairs: Sequence[Pair]) -> str:
    """A clause where answers differ in all their requests, as is also counted of lists that cannot be compared."""
    told = [(pair.answered, pair.changed) for pair in pairs if pair.answered is not None and pair.changed]
    if all(answered < 2 for answered, _ in told) or any(answered > changed for answered, changed in told):
        return ""
    return (
        ", each in all its requests; that is also said where the two lists of output_digests are not of one length: "
        "each needs an entry for every request, null for one that failed"
    )


def _silent(trial: Trial) -> bool:
    """Whether the unpatched code says nothing of what it puts out."""
    return all(pair.before.output_digest is None for pair in trial.pairs)


def _not_shown(trial: Trial) -> list[str]:
    """Why it was not shown that answers stay, of a patch that has no reason to change them."""
    meant = {*(trial.patch.heals or trial.named)}
    if trial.patch.same_output or trial.patch.other_output or not meant or not meant <= {*SERVICE}:
        return []  # shown or vetoed; of people's commits; or meant to change what is put out
    if _silent(trial):
        return ["no output_digest is reported, so that nothing shows that answers stay as they were"]
    if _random(trial):
        return ["the unpatched code answers one request in two ways, so that nothing shows that answers stay"]
    told = [_stays(pair) for pair in trial.pairs]
    if changed := told.count(False):
        said = f"{changed} of {len(told) - told.count(None)} outputs differ where the unpatched code made no error"
        return [said + _perhaps_lengths(trial.pairs)]
    if (shown := told.count(True)) < SHOWN:
        return [
            f"{shown} of {len(told)} answers show that what made no error stays as it was, and {SHOWN} are needed"
        ]
    return []


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
