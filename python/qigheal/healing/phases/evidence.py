"""What the ledger knows of how the healer has done, counted; no limit is applied to it here."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Final

import numpy as np

from qigcore import geometry
from qigheal.records import FINAL_STATES, Change, HealingPatch, Record, Trial

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger

ALONE: Final = "phase 4"
"""The reviewer named in a change that merged by itself: no person's review."""

TAKEN_BACK: Final = frozenset({"reverting", "reverted", "rolled_back"})
SETTLED: Final = TAKEN_BACK | {"confirmed", "unconfirmed", "contested", "rejected"}
"""Of changes that were applied; one was rejected after its merge when a person took it over."""


class Review(Record, frozen=True):
    """The data of a `review` entry: a person's word on a patch that was measured but not opened."""

    approved: bool
    reviewer: str
    reason: str = ""


class Rehearsal(Record, frozen=True):
    """The data of a `rehearsal` entry: whether a change could be taken back, tried before its merge."""

    ok: bool
    reason: str = ""


class Asked(Record, frozen=True):
    """The data of an `asked` entry: how a strategy, the subject, answered for a commit, to its end."""

    base: str
    metrics: tuple[str, ...]  # that were diagnosed, sorted
    patches: int  # proposed, those known from before included
    reasons: tuple[str, ...] = ()  # why no more: what the strategy said when it was first asked
    version: str = ""  # of qigheal


class DrillPlan(Record, frozen=True):
    """The data of a `drill` entry: a rollback about to be performed on a branch of its own."""

    branch: str
    target: str  # the branch whose tip it is made from
    patch: HealingPatch
    at: float  # Unix seconds; dates its commits, so that going through it again gives the same ones


class Drilled(Record, frozen=True):
    """The data of a `drilled` entry: how the drill ended."""

    ok: bool
    branch: str
    head: str = ""
    merge_commit: str = ""
    revert_commit: str = ""
    reason: str = ""  # what failed


class TrialFacts(Record, frozen=True):
    """The data of a `trial` entry: what the gates need of a trial, without its answers."""

    strategy: str
    pairs: int
    problems: tuple[str, ...]  # why it is incomplete
    refusals: tuple[str, ...]  # the patch may not be tried at all
    unpatched_healthy: bool | None  # the unpatched side lay in its bands; None: not to be told offline
    sandbox_level: str
    seconds: float


class Figures(Record, frozen=True):
    """How the healer has done so far, counted from the ledger.

    Changes that an operator's override put through without a trial count as neither success nor
    failure of the healer; their rollbacks count as rollbacks.
    """

    patches: int  # judged
    strategies: tuple[str, ...]  # whose patches were judged, or that were asked and had none
    scores: tuple[float, ...]  # of the accepted ones
    score_ceilings: tuple[float, ...]  # what the formula lets each of these reach
    trials: int  # the last of each patch, without patches refused before they were tried
    completed: int
    cases: int  # of these, those whose unpatched side could be judged
    false_positives: int  # of these, healthy
    reviewed: int  # by a person
    approved: int
    pending: int  # changes that have not come to their end
    applied: int
    settled: int  # applied, and the watch has spoken
    confirmed: int
    merges: int  # applied, and those put through by override
    rehearsed: int | None  # of the merges; None: no rehearsal is on record
    rolled_back: int
    drills: int = 0  # performed, on whatever repository, and the files were as before

    @property
    def confirmed_share(self) -> float | None:
        return share(self.confirmed, self.settled)


def trial_facts(trial: Trial) -> TrialFacts:
    """What the ledger keeps of a trial."""
    return TrialFacts(
        strategy=trial.patch.strategy,
        pairs=len(trial.pairs),
        problems=trial.problems,
        refusals=trial.refusals,
        unpatched_healthy=_unpatched_healthy(trial),
        sandbox_level=trial.sandbox_level,
        seconds=trial.seconds,
    )


def _mean(values: list[float]) -> float:
    """Not by the module statistics: it loads two others into a process that serves the phase."""
    return fsum(values) / len(values)


def _unpatched_healthy(trial: Trial) -> bool | None:
    """Whether every metric that the patch claims to heal, and that shows offline, was in its band unpatched.

    Latency and memory depend on the live service's load and age; a trial says nothing of them.
    """
    if len(trial.pairs) < 10:
        return None
    before = [pair.before for pair in trial.pairs]
    target, heals = trial.target, trial.patch.heals
    excesses: list[float] = []
    if "phi" in heals and (band := target.bands.get("phi")):
        excesses.append(band.excess(_mean([answer.phi for answer in before])))
    if "kappa" in heals and (band := target.bands.get("kappa")):
        excesses.append(band.excess(_mean([answer.kappa_eff for answer in before])))
    if "errors" in heals and (band := target.bands.get("errors")):
        excesses.append(max(0.0, _mean([answer.error_rate for answer in before]) - band.high))
    if "basin_drift" in heals:
        basins = np.array([answer.basin for answer in before])
        side = geometry.frechet_mean(basins, geometry=target.geometry)
        drift = geometry.distance(
            geometry.from_amplitudes(side, target.geometry),
            geometry.from_amplitudes(np.array(target.basin), target.geometry),
            target.geometry,
        )
        excesses.append(max(0.0, drift - target.drift_limit))
    return not any(excesses) if excesses else None


def figures(ledger: Ledger) -> Figures:
    """Count what the ledger holds."""
    verdicts = {patch.fingerprint: (patch, verdict) for patch, verdict, _ in ledger.verdicts()}
    accepted = [v.fitness for _, v in verdicts.values() if v.accepted and v.fitness is not None]
    last = {entry.subject: entry.read(TrialFacts) for entry in ledger.entries("trial")}
    trials = [facts for facts in last.values() if not facts.refusals]
    cases = [facts.unpatched_healthy for facts in trials if facts.unpatched_healthy is not None]
    rehearsals = {entry.subject: entry.read(Rehearsal).ok for entry in ledger.entries("rehearsal")}
    reviews = {entry.subject: entry.read(Review).approved for entry in ledger.entries("review")}
    changes: dict[str, Change] = {}
    for entry in ledger.entries("change"):
        change = changes[entry.subject] = entry.read(Change)
        if change.state in ("approved", "rejected") and change.verdict and change.reviewer not in ("", ALONE):
            reviews[change.id] = change.state == "approved"
    asked = {entry.subject for entry in ledger.entries("asked")}
    merges = [change for change in changes.values() if change.merge_commit]
    applied = [change for change in merges if change.verdict is not None]
    return Figures(
        patches=len(verdicts),
        strategies=tuple(sorted({patch.strategy for patch, _ in verdicts.values()} | asked)),
        scores=tuple(fitness.point for fitness in accepted),
        score_ceilings=tuple(
            # One term restored gives at most 0.75; only a patch that improves several may pass 0.8.
            0.8 if sum(fitness.components.get(t, 0.5) > 0.5 for t in ("phi", "basin", "service")) < 2 else 1.0
            for fitness in accepted
        ),
        trials=len(trials),
        completed=sum(not facts.problems for facts in trials),
        cases=len(cases),
        false_positives=sum(cases),
        reviewed=len(reviews),
        approved=sum(reviews.values()),
        pending=sum(change.state not in FINAL_STATES for change in changes.values()),
        applied=len(applied),
        settled=sum(change.state in SETTLED for change in applied),
        confirmed=sum(change.state == "confirmed" for change in applied),
        merges=len(merges),
        rehearsed=sum(rehearsals.get(change.id, False) for change in merges) if rehearsals else None,
        rolled_back=sum(change.state == "rolled_back" for change in changes.values()),
        drills=sum(entry.read(Drilled).ok for entry in ledger.entries("drilled")),
    )


def share(part: int, whole: int) -> float | None:
    """Part of the whole, 0 to 1; None where there is no whole to speak of."""
    return part / whole if whole else None
