"""The healing chain, top to bottom: the only room that knows the order of the stages.

    history → diagnose → strategy → trial → judge → forge → deploy → watch → (confirmed | rolled back)

The engine makes what the stages are handed (a bench, a repository, a clock), writes each transition
to the ledger before its side effect, and asks the phase what it may do. It holds no state of its own
between passes: whatever it must remember stands in the ledger, whatever it must know of the service
in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qigcore.baseline import Baseline
from qigcore.errors import QigcoreError
from qigcore.history import History
from qigcore.rows import Batch
from qigheal.errors import EngineError, LedgerError, PatchError, QighealError
from qigheal.healing import audit, evaluating, phases
from qigheal.healing.asking import NOT_AGAIN, NOT_HERE, asked_in_vain, not_now, nothing_came, proposals
from qigheal.healing.bench import Bench
from qigheal.healing.leaving import going_by, leave
from qigheal.healing.ledger import Judged, Ledger
from qigheal.healing.measuring import Measuring, age_of, silent, stored_state
from qigheal.healing.passage import Passage, Step
from qigheal.healing.proofs import FOLDER as PROOFS
from qigheal.healing.strategies import askable
from qigheal.host import Manifest, refusals
from qigheal.reasons import Reasons
from qigheal.records import Change, Diagnosis, Evaluation, HealingPatch, HealResult, Outcome, Verdict
from qigheal.repo import Repo
from qigheal.settings import HealSettings, SandboxChoice, default_store, operator

if TYPE_CHECKING:
    from qigheal.monitor import GeometricHealthMonitor

log = logging.getLogger("qigheal")


class SelfHealingEngine:
    """Reads a service's history, and repairs the service's repository.

    monitor: the service's monitor when the engine runs beside it in one process; it is only asked
        where its history is. A healer in a process of its own passes `store` instead.
    host: the repository of the service, with its `qigheal.toml`.
    store: the folder of the history, the baseline and the ledger.
    fitness_threshold: the score that a patch's lower 95 % bound must exceed.
    auto_apply: an operator's override for this engine: accepted patches are merged without a further
        review. It is logged, and never merges a patch of tier "review".
    sandbox: how trials are isolated, in the words of `HealSettings`.
    settings: everything else (see `HealSettings`). None: the usual ones, with the brakes of the manifest's [healer]
        when the engine is made, or else of the last pass over the store.
    on_step: told of each step as it is taken.

    Raises EngineError when there is no history to read, RepoError or ManifestError when `host` is no
    repository with a usable manifest.
    """

    def __init__(
        self,
        monitor: GeometricHealthMonitor | None = None,
        host: str | os.PathLike[str] = ".",
        *,
        store: str | os.PathLike[str] | None = None,
        fitness_threshold: float | None = None,
        auto_apply: bool = False,
        sandbox: SandboxChoice | None = None,
        settings: HealSettings | None = None,
        clock: Callable[[], float] = time.time,
        on_step: Step = silent,
    ) -> None:
        self.auto_apply = auto_apply
        self.clock = clock
        self.on_step = on_step
        self.monitor = monitor
        self.repo = Repo(Path(host))
        manifest = Manifest.at(self.repo, self.repo.head())
        if store is None and monitor is not None:
            if monitor.history is None:
                raise EngineError(
                    "the engine reads the history on disk, and this monitor keeps none; "
                    "make it with GeometricHealthMonitor(history='.qigheal')"
                )
            store = monitor.history.path
        self.store = Path(store) if store is not None else default_store()
        self.ledger = Ledger(self.store / "ledger.db")
        self._given = settings is not None
        settings = settings or going_by(manifest, self.store)
        if fitness_threshold is not None:
            settings = replace(settings, fitness_threshold=fitness_threshold)
        if sandbox is not None:
            settings = replace(settings, sandbox=sandbox)
        self.settings = settings

    # What the engine reads

    @property
    def phase(self) -> int:
        """The present phase, 1 to 4."""
        return phases.current(self.ledger)

    def baseline(self) -> Baseline | None:
        """The baseline that the service learned, or None while it is still learning."""
        path = self.store / "baseline.json"
        return Baseline.load(path) if path.exists() else None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[History, Passage]]:
        """The history and the changes, held by this healer alone."""
        if self.monitor is not None:
            self.monitor.flush()
        with self.repo.lock("heal"), History.read_only(self.store) as history:
            if broken := self.ledger.verify():
                # Approvals stand in it: nothing may be merged on the word of a row that was slipped in.
                raise LedgerError(
                    f"{self.ledger.path}: the ledger's chain is broken: {broken[0]}; nothing is done on its word. "
                    "See to who wrote to it, then move it away to begin a new one"
                )
            yield (
                history,
                Passage(
                    self.repo, self.ledger, history, self.settings, clock=self.clock, on_step=self.on_step
                ),
            )

    @property
    def _measuring(self) -> Measuring:
        return Measuring(
            self.repo, self.store, self.settings, self.clock, self.on_step, proofs=self.store / PROOFS
        )

    def _bench(self, base: str) -> contextlib.AbstractContextManager[Bench]:
        return self._measuring.bench(base)

    def _state(self, history: History, healthy: str | None) -> tuple[Baseline, Batch]:
        """What healthy is, and how the service is now: from its history, or by the probe when a commit is named."""
        if healthy is not None:
            return self._measuring.healthy(self.repo.resolve(healthy))
        return stored_state(self.store, history)

    # One pass

    def check_and_heal(
        self, *, healthy: str | None = None, strategy: str | None = None, again: bool = True
    ) -> HealResult:
        """One pass: bring pending changes along; if the service is unwell, try to heal it. Blocks.

        healthy: a commit that was healthy; baseline and present state are then both measured with
            the probe, and the service's history is not needed.
        strategy: try only the strategy of this name.
        again: measure patches once more that were measured on the same code before. The autonomous loop
            does not: who measures until it comes out well has proved nothing.

        Raises RepoError when another healer holds the repository, EngineError when there is nothing
        to judge by (no history or no baseline), LedgerError when the ledger was tampered with.
        """
        with self._opened() as (history, passage):
            leave(self.settings, self.store, given=self._given)
            baseline = self.baseline()
            moved, outcomes = self._bring_along(passage, baseline)
            if why := phases.demotion_due(self.ledger, self.settings, self.clock()):
                self.on_step("phase", f"back to phase {phases.demote(self.ledger, why, self.clock())}: {why}")
            known, batch = self._state(history, healthy)
            old = "" if healthy is not None else age_of(batch, history, self.clock())
            result = self._heal(
                passage, known, batch, strategy, again=again, probed=healthy is not None, old=old
            )
            return replace(
                result,
                changes=tuple(_latest([*moved, *result.changes])),
                outcomes=(*outcomes, *result.outcomes),
            )

    def _bring_along(self, passage: Passage, baseline: Baseline | None) -> tuple[list[Change], list[Outcome]]:
        changes: list[Change] = []
        outcomes: list[Outcome] = []
        for waiting in passage.pending():
            change = self._still_approved(passage, waiting)
            moved, outcome = passage.advance(change, baseline)
            changes.append(moved)
            if outcome is not None:
                outcomes.append(outcome)
        return changes, outcomes

    def _still_approved(self, passage: Passage, change: Change) -> Change:
        """What the loop approved by itself goes on only while it still may."""
        if change.state != "approved" or change.reviewer != phases.ALONE or change.verdict is None:
            return change
        may = phases.allowed(self.phase, change.patch.tier, change.verdict.sandbox_level)
        if not may.merge_alone:
            return passage.hand_back(change, f"phase {self.phase} merges nothing by itself")
        if why := passage.reserved(change):
            return passage.hand_back(change, f"only a person may merge it: {why[0]}")
        if phases.breaker_open(self.ledger, self.settings, self.clock()):
            return passage.hand_back(change, "the breaker is open after repeated rollbacks")
        return change

    def _heal(
        self,
        passage: Passage,
        baseline: Baseline,
        batch: Batch,
        strategy: str | None,
        *,
        again: bool,
        probed: bool,
        old: str,
    ) -> HealResult:
        health, diagnosis, _ = self._measuring.examine(baseline, batch, probed=probed)
        if diagnosis is None:
            seen = f" when it was last seen, {old} ago" if old else ""
            return HealResult(triggered=False, message=f"healthy{seen}: nothing to heal", health=health)
        if probed:  # the history is of the present code alone; what was healthy is what was measured as such
            diagnosis = replace(diagnosis, healthy_code_hash=baseline.code_hash)
        self._note(diagnosis)
        self.on_step("diagnosis", "; ".join(finding.message for finding in diagnosis.findings))
        if old:
            self.on_step("diagnosis", f"no process writes the store, and the last snapshot is {old} old")
        found = HealResult(triggered=True, message="", health=health, diagnosis=diagnosis)

        held = self._why_not(passage)
        if held:
            return replace(found, message=held)
        base = self.repo.head()
        for change in passage.pending():
            if change.patch.base == base and set(change.patch.heals) & set(diagnosis.metrics):
                return self._go_on(passage, found, change)
        wait = phases.next_change_at(self.ledger, self.settings) - self.clock()
        if wait > 0 and phases.allowed(self.phase, "safe").open and not self.auto_apply:
            return replace(found, message=f"unhealthy; the next change may be opened in {wait:.0f} s")
        target = self.repo.branch()  # without one there is nothing to merge into: said before measuring
        opens = self.auto_apply or phases.allowed(self.phase, "safe").open
        if opens and (stale := passage.stale(base, target)):
            return replace(found, message=f"unhealthy; {stale}")
        with self._bench(base) as bench:
            return self._propose(passage, bench, found, diagnosis, strategy, again=again)

    def _note(self, diagnosis: Diagnosis) -> None:
        """Write the diagnosis down, unless the ledger's last one found the same wrong with the same code."""
        known = self.ledger.entries("diagnosis", diagnosis.code_hash)
        if known:
            last = known[-1].read(Diagnosis)
            if set(last.metrics) == set(diagnosis.metrics) and last.severity == diagnosis.severity:
                return
        self.ledger.append("diagnosis", diagnosis.code_hash, diagnosis, self.clock())

    def _why_not(self, passage: Passage) -> str:
        """Why nothing may be tried now, or an empty string."""
        phase = self.phase
        if not self.auto_apply and not phases.allowed(phase, "safe").evaluate:
            return f"unhealthy; phase {phase} only watches (see: qigheal phase status)"
        now = self.clock()
        if phases.breaker_open(self.ledger, self.settings, now):
            return "unhealthy; the breaker is open after repeated rollbacks: a person must look"
        waiting = passage.pending()
        busy = [c for c in waiting if c.state != "open"]
        if busy:
            why = f": {busy[0].reason}" if busy[0].reason else ""
            return f"unhealthy; change {busy[0].id} is {busy[0].state} and has to end first{why}"
        if len(waiting) >= self.settings.max_open_changes:
            return f"unhealthy; {len(waiting)} changes already wait for a review (qigheal patches)"
        return ""

    def _propose(
        self,
        passage: Passage,
        bench: Bench,
        found: HealResult,
        diagnosis: Diagnosis,
        only: str | None,
        *,
        again: bool,
    ) -> HealResult:
        patches: list[HealingPatch] = []
        verdicts: list[Verdict] = []
        reasons = Reasons()
        skipped = ""
        strategies, left_out = askable(self.settings, bench.level)
        if left_out:
            self.on_step("strategy", f"{', '.join(left_out)}: {NOT_HERE}")
            for name in left_out:
                reasons.add(name, (NOT_HERE,))
        chosen = [s for s in strategies if only in (None, s.name)]
        if not chosen:
            known = ", ".join(s.name for s in strategies)
            raise EngineError(f"no strategy is called {only!r}; there are: {known}")
        for candidate in chosen:
            if not set(candidate.metrics) & set(diagnosis.metrics):
                if only is not None:
                    unhealed = (
                        f"heals {', '.join(candidate.metrics)}; unwell is {', '.join(diagnosis.metrics)}"
                    )
                    reasons.add(only, (unhealed,))
                continue
            if not again and asked_in_vain(self.ledger, candidate, diagnosis, bench.base, reasons):
                self.on_step("strategy", f"{candidate.name}: {NOT_AGAIN}")
                continue
            self.on_step("strategy", f"{candidate.name}: looking for a patch")
            for patch in proposals(self.ledger, candidate, diagnosis, bench, self.repo, reasons, self.clock):
                if why := not_now(self.ledger, patch, again=again, auto_apply=self.auto_apply):
                    skipped = f"{patch.fingerprint} {why}"
                    self.on_step("patch", f"{skipped}; skipped")
                    reasons.add(candidate.name, (skipped,), patch=patch.fingerprint)
                    continue
                self.on_step("patch", patch.rationale)
                bare = replace(patch, evidence={})
                patches.append(bare)
                self.ledger.append("patch", patch.fingerprint, bare, self.clock())
                verdict = self.judge_patch(bench, patch, diagnosis)
                verdicts.append(verdict)
                patches[-1] = bare = replace(bare, tier=verdict.tier(bare.tier))
                if verdict.accepted:
                    made = replace(
                        found, patches=tuple(patches), verdicts=tuple(verdicts), reasons=reasons.all()
                    )
                    return self._open(passage, made, bare, verdict)
                refused = f"{patch.fingerprint} is not accepted: {verdict.reason}"
                reasons.add(candidate.name, (refused,), patch=patch.fingerprint)
        message = nothing_came(len(patches), skipped, bench.failure)
        return replace(
            found,
            patches=tuple(patches),
            verdicts=tuple(verdicts),
            reasons=reasons.all(),
            message=message,
        )

    def judge_patch(self, bench: Bench, patch: HealingPatch, diagnosis: Diagnosis) -> Verdict:
        """Measure `patch` against the unpatched code until the judge has seen enough, and write it down."""
        trial, verdict, kept = self._measuring.judge(bench, patch, diagnosis)
        bare = replace(patch, evidence={}, tier=verdict.tier(patch.tier))
        judged = Judged(patch=bare, verdict=verdict, bundle=kept.bundle, proof=kept.digest)
        self.ledger.append("trial", patch.fingerprint, phases.trial_facts(trial), self.clock())
        self.ledger.append("verdict", patch.fingerprint, judged, self.clock())
        audit.retain(self.store, self.ledger, self.clock())
        return verdict

    def _open(self, passage: Passage, found: HealResult, patch: HealingPatch, verdict: Verdict) -> HealResult:
        may = phases.allowed(self.phase, patch.tier, verdict.sandbox_level)
        if not (may.open or self.auto_apply):
            return replace(found, message=f"a patch helps; phase {self.phase} opens no changes")
        change = passage.begin(patch, verdict, self.repo.branch())
        if change.state != "open":
            return replace(
                found, changes=(change,), message=f"the change could not be opened: {change.reason}"
            )
        return self._go_on(passage, found, change)

    def _go_on(self, passage: Passage, found: HealResult, change: Change) -> HealResult:
        """What an open change may do now without a review: mostly, wait for one."""
        patch, verdict = change.patch, change.verdict
        level = verdict.sandbox_level if verdict is not None else "none"
        may = phases.allowed(self.phase, patch.tier, level)
        reserved = passage.reserved(change)
        if patch.tier == "review" or verdict is None or not verdict.accepted or reserved:
            why = (*(() if verdict is None else verdict.needs_person), *reserved)[:1]
            message = ": ".join(("a change is open; only a person may merge its kind", *why))
            return replace(found, changes=(change,), message=message)
        if not (may.merge_alone or self.auto_apply) or passage.held(change):
            return replace(found, changes=(change,), message="a change is open and waits for a review")
        if self.auto_apply:
            reason = "auto_apply was set by the operator"
            self.ledger.append("override", change.id, {"actor": operator(), "reason": reason}, self.clock())
        change = passage.review(
            change, approve=True, reviewer=operator() if self.auto_apply else phases.ALONE, reason=""
        )
        change, outcome = passage.advance(change, self.baseline())
        message = (
            f"change {change.id} is {change.state}"
            if not change.reason
            else f"change {change.id} is {change.state}: {change.reason}"
        )
        return replace(found, changes=(change,), outcomes=(outcome,) if outcome else (), message=message)

    def evaluate(
        self, diff: str, *, healthy: str | None = None, heals: Sequence[str] = (), same_output: bool = False
    ) -> Evaluation:
        """Judge somebody else's diff as the healer's own patches are judged; nothing of it is applied.

        It stands in the ledger as `evaluation`, which counts for no gate: the gates ask how the healer
        does. healthy: as for `check_and_heal`. heals, same_output: what the diff is said to do, and is
        then held to; without, it claims nothing and the score decides.

        Raises PatchError when no diff of UTF-8 text comes of it, EngineError as `check_and_heal` does, and
        where the sandbox is not for code of others.
        """
        with self._opened() as (history, _):
            patch = evaluating.submitted(self._measuring, diff, heals=heals, same_output=same_output)
            found = evaluating.refused(self._measuring, patch)
            if found is None:
                commit = "" if healthy is None else self.repo.resolve(healthy)
                baseline, batch = self._state(history, healthy)
                found = evaluating.evaluate(self._measuring, patch, baseline, batch, healthy=commit)
            self.ledger.append("evaluation", patch.fingerprint, found, self.clock())
            audit.retain(self.store, self.ledger, self.clock())
            return found

    # What a person may do

    def review(self, change_id: str, *, approve: bool, reviewer: str, reason: str = "") -> Change:
        """Approve or reject an open change. An approved one is merged and deployed at once."""
        with self._opened() as (_, passage):
            change = passage.review(
                self._change(change_id), approve=approve, reviewer=reviewer, reason=reason
            )
            if approve:
                change, _ = passage.advance(change, self.baseline())
            return change

    def put_through(self, diff: str, *, actor: str, reason: str, strategy: str = "override") -> Change:
        """Merge and deploy `diff` without a trial: an operator's override, logged before it is done.

        What the manifest forbids stays forbidden. The change is watched like any other.

        Raises PatchError when it does not apply or touches what it may not, EngineError without a
        reason.
        """
        if not reason.strip():
            raise EngineError(
                "an override needs a reason; it is what a later reader of the ledger will ask for"
            )
        base = self.repo.head()
        patch = HealingPatch(
            strategy=strategy, tier="review", base=base, diff=diff, rationale=reason, heals=()
        )
        manifest = Manifest.at(self.repo, base)
        tree = self.repo.apply(base, diff)
        forbidden = refusals(manifest, self.repo.changes(base, tree), self.repo.entries(base))
        if forbidden:
            raise PatchError("; ".join(forbidden))
        with self._opened() as (_, passage):
            self.ledger.append(
                "override", patch.fingerprint, {"actor": actor, "reason": reason}, self.clock()
            )
            change = passage.begin(patch, None, self.repo.branch())
            if change.state == "open":
                change = passage.review(change, approve=True, reviewer=actor, reason=reason)
                change, _ = passage.advance(change, self.baseline())
            return change

    def bring_along(self) -> tuple[Change, ...]:
        """Move pending changes as far as they go now: resume what was interrupted, watch what is live."""
        with self._opened() as (_, passage):
            changes, _ = self._bring_along(passage, self.baseline())
            return tuple(changes)

    def _change(self, change_id: str) -> Change:
        changes = self.ledger.changes()
        matching = [c for key, c in changes.items() if key.startswith(change_id)] if change_id else []
        if len(matching) != 1:
            raise EngineError(
                f"{change_id!r} names {len(matching)} changes; give one id of: {', '.join(changes) or '(none)'}"
            )
        return matching[0]

    # Asynchronous faces

    async def acheck_and_heal(self) -> HealResult:
        """`check_and_heal` in a thread, so that an event loop goes on.

        Cancelling it does not stop the pass: that ends by itself, in its thread, with nothing left halfway.
        """
        return await asyncio.to_thread(self.check_and_heal)

    async def autonomous_loop(self, interval_seconds: float = 300) -> None:
        """A pass every `interval_seconds`, until it is cancelled.

        Whatever goes wrong in a pass is logged, and the loop goes on: a full disk or a store that is
        being moved comes right again, and nobody would notice that healing had ended.
        """
        while True:
            try:
                result = await asyncio.to_thread(self.check_and_heal, again=False)
                log.info("pass: %s", result.message)
            except (QighealError, QigcoreError, OSError) as error:
                log.warning("pass failed: %s", error)
            except Exception:
                log.exception("pass failed; this is a mistake in qigheal or in a strategy")
            await asyncio.sleep(interval_seconds)


def _latest(changes: list[Change]) -> list[Change]:
    return list({change.id: change for change in changes}.values())
