"""The judge: two pure functions of a trial. No clock, no files, no process; the trial carries its seed.

Vetoes first, then the score. A veto is something that no score makes up for; a guard asks of one metric
whether it is provably no worse than a margin, provably worse, or neither, and "neither" asks for more
pairs. Errors are spent once for all looks: a trial that doubles from look to look is judged at each with
the stated error divided by the number of looks that could make it (Bonferroni), so that looking often
proves nothing.

What a patch touches and how it was measured was decided before; what becomes of it is decided after.
Of what a probe says of itself, Φ, κ, basin and error rate are taken as said (an invented, steady Φ is
caught by its steadiness, a cleverly invented one cannot be); time and memory never.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from qigcore.fitness import Fitness, weigh
from qigcore.geometry import frechet_variance
from qigcore.noninferiority import UNBOUNDED, holm
from qigheal.healing.judge.evidence import Evidence, gather
from qigheal.records import Guard, Trial, Verdict
from qigheal.settings import HealSettings

PASS_LEVEL = 0.025
WORSE_LEVEL = 0.001
SCORE_LEVEL = 0.05
"""One-sided errors over all looks of a trial: of each guard that passes, of all guards that say worse
together, and of a score that exceeds the threshold."""

COLLAPSE = 0.1
"""A standard deviation below this part of both the unpatched and the healthy one has collapsed."""

NAMES = {
    "phi": "Φ",
    "kappa": "κ",
    "basin_drift": "drift",
    "errors": "errors",
    "latency": "latency",
    "memory": "memory",
    "memory_growth": "memory growth",
}
UNITS = {
    "phi": "half-widths of its band",
    "kappa": "half-widths of its band",
    "basin_drift": "of its limit",
    "memory_growth": "MB per answer",
}

Decision = Literal["improved", "equivalent", "worse", "inconclusive", "refused"]
Found = tuple[Decision, tuple[str, ...], str]  # with the vetoes, and the reason


def looks(batches_needed: int, settings: HealSettings) -> tuple[int, ...]:
    """The numbers of pairs at which a trial is judged: doubling, and last the most that is allowed."""
    needed, most = settings.pairs_needed(batches_needed), settings.pairs_allowed(batches_needed)
    planned = []
    while needed < most:
        planned.append(needed)
        needed *= 2
    return (*planned, most)


def needs_more(trial: Trial, settings: HealSettings) -> bool:
    """Whether more pairs could decide what is undecided. Between looks: yes, without looking."""
    planned = looks(trial.patch.batches_needed, settings)
    if trial.refusals or trial.problems or trial.tests_passed is False or len(trial.pairs) >= planned[-1]:
        return False
    return len(trial.pairs) not in planned or verdict(trial, settings).decision == "inconclusive"


def verdict(trial: Trial, settings: HealSettings) -> Verdict:
    """The word on a trial. Only "improved" is accepted.

    improved: nothing is worse, and the score's lower bound exceeds the threshold. equivalent: nothing
    is worse, and it does not. worse: a guard says so. refused: vetoed for another reason.
    inconclusive: more pairs, or another trial, might tell.
    """
    fitness: Fitness | None = None
    guards: tuple[Guard, ...] = ()
    found = _without_measuring(trial, settings)
    if found is None:
        planned = looks(trial.patch.batches_needed, settings)
        # Earlier looks only sort out what is bad: so few starts have no bound at a level that accepts.
        length = settings.round_length(trial.patch.batches_needed)
        accepting = sum(2.0 ** -math.ceil(pairs / length) <= PASS_LEVEL for pairs in planned)
        evidence = gather(trial, settings)
        guards = _guards(evidence, PASS_LEVEL / accepting, WORSE_LEVEL / len(planned))
        fitness = weigh(
            evidence.found,
            evidence.limits,
            spread=evidence.chance,
            lines=_lines(trial.patch.diff),
            level=SCORE_LEVEL / accepting,
        )
        found = _decide(trial, settings, evidence, guards, fitness, PASS_LEVEL / accepting)
    decision, vetoes, reason = found
    return Verdict(
        decision=decision,
        accepted=decision == "improved",
        fitness=fitness,
        guards=guards,
        vetoes=vetoes,
        pairs=len(trial.pairs),
        sandbox_level=trial.sandbox_level,
        reason=reason,
    )


def _without_measuring(trial: Trial, settings: HealSettings) -> Found | None:
    """The verdict that no measurement can change; None when the pairs are to speak."""
    needed = settings.pairs_needed(trial.patch.batches_needed)
    if trial.refusals:
        return "refused", trial.refusals, f"the patch is refused: {trial.refusals[0]}"
    if trial.tests_passed is False:
        last = trial.tests_output.strip().splitlines()[-1:] or ["they print nothing"]
        return "refused", ("tests fail",), f"the host's tests fail with the patch: {last[0]}"
    if trial.problems:
        # Only the patch can be blamed for a probe that breaks off on its side.
        decision: Decision = "refused" if trial.failed_side == "after" else "inconclusive"
        return decision, ("incomplete",), f"the trial is incomplete: {trial.problems[0]}"
    if len(trial.pairs) < needed:
        return "inconclusive", (), f"{len(trial.pairs)} pairs were measured, {needed} are needed"
    return None


def _decide(
    trial: Trial,
    settings: HealSettings,
    evidence: Evidence,
    guards: tuple[Guard, ...],
    fitness: Fitness,
    level: float,
) -> Found:
    worse = [guard for guard in guards if guard.result == "worse"]
    if worse:
        return "worse", tuple(f"{NAMES[guard.metric]} is worse" for guard in worse), _told(worse[0])
    vetoes, unclear = _objections(trial, evidence, level)
    if vetoes:
        return "refused", vetoes, vetoes[0]
    doubts = [*(_told(guard) for guard in guards if guard.result == "inconclusive"), *unclear]
    if doubts:
        return "inconclusive", (), f"not decided after {len(trial.pairs)} pairs: {doubts[0]}"
    scored = f"fitness {fitness.point:.3f}, at least {fitness.low:.3f}"
    limit = f"{settings.fitness_threshold:g}"
    if fitness.low > settings.fitness_threshold:
        return "improved", (), f"{scored}, above {limit}, and nothing is worse"
    if fitness.point > settings.fitness_threshold:
        return "inconclusive", (), f"{scored}: not certain to be above {limit}"
    if not any(evidence.found.before.values()):
        return "equivalent", (), "the unpatched code measured healthy: there is nothing to heal"
    return "equivalent", (), f"{scored}, not above {limit}"


def _objections(trial: Trial, evidence: Evidence, level: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What forbids the patch for good, and what more pairs may still clear up."""
    vetoes = [*_different_outputs(trial), *_collapses(trial)]
    doubts: list[str] = []
    before, after = evidence.found.before, evidence.found.after
    for metric in trial.patch.heals:
        if metric in after and after[metric] > before[metric] / 2:
            drawn = evidence.found.drawn[metric]
            sentence = (
                f"{NAMES[metric]} is not healed: {after[metric]:.2f} outside its limit, "
                f"{before[metric]:.2f} without the patch"
            )
            possible = float(np.mean(drawn[1] <= drawn[0] / 2)) > SCORE_LEVEL
            (doubts if possible else vetoes).append(sentence)
    for metric, asked in evidence.seen.items():
        if metric in trial.patch.heals and asked.estimate.high(level) >= 0.0:
            sentence = (
                f"{NAMES[metric]} is said to be healed, and the healer's own measurement does not show it"
            )
            possible = asked.estimate.low(level) < -asked.margin
            (doubts if possible else vetoes).append(sentence)
    return tuple(vetoes), tuple(doubts)


def _different_outputs(trial: Trial) -> list[str]:
    """Where the patch claims that outputs do not change: why that is not so, or cannot be seen."""
    if not trial.patch.same_output:
        return []
    if any(pair.before.output_digest != pair.after.output_digest for pair in trial.control):
        return ["equal outputs cannot be shown: the unpatched code answers one request in two ways"]
    if any(answer.output_digest is None for pair in trial.pairs for answer in (pair.before, pair.after)):
        return ["equal outputs cannot be shown: the probe reports no output_digest"]
    differ = sum(pair.before.output_digest != pair.after.output_digest for pair in trial.pairs)
    sentence = f"{differ} of {len(trial.pairs)} outputs differ, and the patch claims that none does"
    return [sentence] if differ else []


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


def _lines(diff: str) -> int:
    """Added and deleted lines of a unified diff."""
    return sum(line[:1] in ("+", "-") and line[:3] not in ("+++", "---") for line in diff.splitlines())


def _guards(evidence: Evidence, pass_level: float, worse_level: float) -> tuple[Guard, ...]:
    asked = evidence.guards
    levels = holm([one.estimate.tail(one.margin) for one in asked.values()], worse_level)
    guards = []
    for (metric, one), level in zip(asked.items(), levels, strict=True):
        low, high = one.estimate.low(level), one.estimate.high(pass_level)
        result: Literal["pass", "worse", "inconclusive"] = "inconclusive"
        if low > one.margin:
            result = "worse"
        elif high < one.margin:
            result = "pass"
        shown = _relative if one.ratio else float
        guards.append(
            Guard(
                metric=metric,
                margin=shown(one.margin),
                estimate=shown(one.estimate.value),
                low=shown(low),
                high=shown(high),
                result=result,
            )
        )
    return tuple(guards)


def _relative(logarithm: float) -> float:
    return math.expm1(logarithm) if logarithm < math.log(UNBOUNDED) else UNBOUNDED


def _told(guard: Guard) -> str:
    """A guard that does not pass, in words."""

    def amount(value: float) -> str:
        if abs(value) >= UNBOUNDED:
            return "any amount"
        if guard.metric in ("latency", "memory"):
            return f"{100 * value:.1f} %"
        if guard.metric == "errors":
            return f"{100 * value:.2f} points"
        return f"{value:.3f} {UNITS[guard.metric]}"

    name, tolerated = NAMES[guard.metric], amount(guard.margin)
    if guard.result == "worse":
        return f"{name} is worse by {amount(guard.estimate)}, at least {amount(guard.low)}; tolerated is {tolerated}"
    return f"{name} may be worse by {amount(guard.high)} (seen: {amount(guard.estimate)}); tolerated is {tolerated}"
