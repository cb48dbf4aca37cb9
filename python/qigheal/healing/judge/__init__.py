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
from statistics import NormalDist
from typing import Literal

import numpy as np

from qigcore.fitness import Fitness, weigh
from qigcore.noninferiority import POWER, UNBOUNDED, detectable, holm
from qigheal.healing.judge.evidence import Evidence, gather
from qigheal.healing.judge.vetoes import reserved, standing
from qigheal.records import Guard, Trial, Verdict
from qigheal.settings import HealSettings

PASS_LEVEL = 0.025
WORSE_LEVEL = 0.001
SCORE_LEVEL = 0.05
"""One-sided errors over all looks of a trial: of each guard that passes, of all guards that say worse
together, and of a score that exceeds the threshold."""

SAID = 3
"""Reasons why a person must decide that the verdict's sentence names; all of them stand beside it."""

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
    least: float | None = None
    evidence: Evidence | None = None
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
        least = _least_score(fitness, settings.fitness_threshold, SCORE_LEVEL / accepting)
        found = _decide(trial, settings, evidence, guards, fitness, PASS_LEVEL / accepting)
    decision, vetoes, reason = found
    person: tuple[str, ...] = ()
    if evidence is not None and decision == "improved":
        person = reserved(trial)
        reason += _prices(trial, evidence) + _for_a_person(person)
    return Verdict(
        decision=decision,
        accepted=decision == "improved",
        fitness=fitness,
        guards=guards,
        vetoes=vetoes,
        pairs=len(trial.pairs),
        sandbox_level=trial.sandbox_level,
        reason=reason,
        detectable=least,
        needs_person=person,
    )


def _prices(trial: Trial, evidence: Evidence) -> str:
    """What is paid: the metrics that are certainly worse, and within their healthy bands; and the room it takes."""
    paid = [
        f"; {NAMES[metric]} is worse by {100 * math.expm1(asked.estimate.value):.1f} %, within its healthy band"
        for metric, asked in evidence.seen.items()
        if metric in trial.patch.paid and asked.ratio and asked.estimate.low(PASS_LEVEL) > 0.0
    ]
    held = evidence.guards["memory"].estimate
    if "memory" in trial.patch.paid and held.low(PASS_LEVEL) > 0.0:
        paid.append(
            f"; {100 * math.expm1(held.value):.1f} % more memory is held, without growing out of its band"
        )
    return "".join(paid)


def _for_a_person(person: tuple[str, ...]) -> str:
    """The first reasons why a person must decide, in words."""
    further = len(person) - SAID
    more = f"; and {further} more" if further > 0 else ""
    return f". A person must decide: {'; '.join(person[:SAID])}{more}" if person else ""


def nothing_differs(reason: str) -> Verdict:
    """The word on two sides that are the same files: there is nothing to measure."""
    return Verdict(
        decision="equivalent",
        accepted=False,
        fitness=None,
        guards=(),
        vetoes=(),
        pairs=0,
        sandbox_level="not run",
        reason=reason,
    )


def _without_measuring(trial: Trial, settings: HealSettings) -> Found | None:
    """The verdict that no measurement can change; None when the pairs are to speak."""
    needed = settings.pairs_needed(trial.patch.batches_needed)
    if trial.refusals:
        return "refused", trial.refusals, f"the patch is refused: {trial.refusals[0]}"
    if trial.tests_passed is False:
        last = trial.tests_output.strip().splitlines()[-1:] or ["they print nothing"]
        reason = f"the host's tests fail with the patch: {last[0]}"
        if trial.tests_fail_anyway:
            reason = f"the host's tests fail without the patch too: mend them first ({last[0]})"
        return "refused", ("tests fail",), reason
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
    vetoes, doubts = standing(trial)
    doubts += evidence.doubts
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
        least = detectable(one.estimate, pass_level)
        guards.append(
            Guard(
                metric=metric,
                margin=shown(one.margin),
                estimate=shown(one.estimate.value),
                low=shown(low),
                high=shown(high),
                result=result,
                detectable=None if least is None else shown(least),
            )
        )
    return tuple(guards)


def _least_score(fitness: Fitness, threshold: float, level: float) -> float | None:
    """The smallest true score whose lower bound at `level` exceeds the threshold with probability `POWER`,
    with the spread of this one; None where not even the best score would. Source: as `detectable`."""
    normal = NormalDist()
    reach = 1.0 + normal.inv_cdf(POWER) / normal.inv_cdf(1.0 - level)
    least = threshold + (fitness.point - fitness.low) * reach
    return least if least < 1.0 else None


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
