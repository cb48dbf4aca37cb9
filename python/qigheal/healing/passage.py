"""A change's way through the forge: open, approve, merge, deploy, watch, and back if it must.

Every transition stands in the ledger before its side effect, and every side effect may be repeated:
git refs and commits by construction (their dates come from the ledger), the deploy command by
contract. So a healer that was killed anywhere goes on from the ledger's last word.

Nothing here proposes or judges a patch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from qigcore.baseline import Baseline
from qigcore.errors import QigcoreError
from qigcore.history import History
from qigcore.rows import METRICS, Batch
from qigheal.errors import EngineError, ManifestError, PatchError, QighealError, RepoError
from qigheal.healing.deploying import run_deploy
from qigheal.healing.diagnosis import target_of
from qigheal.healing.forge import Forge, forge_of
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Rehearsal
from qigheal.healing.watch import watch
from qigheal.health import remeasure
from qigheal.host import Manifest
from qigheal.host.refusals import not_left_to_the_healer
from qigheal.records import FINAL_STATES, TIERS, Change, Diagnosis, HealingPatch, Outcome, Verdict
from qigheal.repo import Repo
from qigheal.settings import HealSettings

log = logging.getLogger("qigheal")

Step = Callable[[str, str], None]
"""Told of each step as it is taken: its name, and a sentence for a person."""


class Passage:
    """Moves the changes of one repository along; the only writer of changes in the ledger."""

    def __init__(
        self,
        repo: Repo,
        ledger: Ledger,
        history: History,
        settings: HealSettings,
        *,
        clock: Callable[[], float],
        on_step: Step,
    ) -> None:
        self.repo = repo
        self.ledger = ledger
        self.history = history
        self.settings = settings
        self.clock = clock
        self.on_step = on_step
        self._forges: dict[str, Forge] = {}

    def pending(self) -> tuple[Change, ...]:
        """Changes that have not come to an end, oldest first."""
        return tuple(c for c in self.ledger.changes().values() if c.state not in FINAL_STATES)

    def begin(self, patch: HealingPatch, verdict: Verdict | None, target: str) -> Change:
        """Open a change for `patch`, to be merged into branch `target`.

        The same patch may come again, when its change is still pending or after it ended: the base
        came back, or an operator insists. Its branch is the same one, so the change is taken up again.
        """
        known = self.ledger.changes().get(patch.fingerprint)
        if known is not None:
            # It was measured again: the stricter word counts. The commit on its branch tells of the first one.
            tier = max(known.patch.tier, patch.tier, key=TIERS.index)
            now = replace(known, patch=replace(known.patch, tier=tier))
            if now.state in FINAL_STATES:
                return self._open(self._record(_taken_up(now, target)))
            return known if now == known else self._record(now)
        change = Change(
            id=patch.fingerprint,
            state="opening",
            patch=patch,
            verdict=verdict,
            branch=f"qigheal/{patch.strategy}-{patch.fingerprint}",
            target=target,
            opened_at=self.clock(),
        )
        return self._open(self._record(change))

    def reserved(self, change: Change) -> tuple[str, ...]:
        """Why a person must decide on a change whatever its verdict, which may be older than this rule."""
        patch = change.patch
        if patch.strategy != "revert":
            return ()
        try:
            changes = self.repo.changes(patch.base, self.repo.apply(patch.base, patch.diff))
            return not_left_to_the_healer(Manifest.at(self.repo, patch.base), [each.path for each in changes])
        except (RepoError, PatchError, ManifestError) as error:  # its base is gone, say
            return (f"what it takes back cannot be told: {error}",)

    def review(self, change: Change, *, approve: bool, reviewer: str, reason: str = "") -> Change:
        """Approve an open change, or reject any that has not ended; the reviewer's name is kept.

        Rejecting one that is merged moves nothing: the healer lets go of it, and what becomes of it is
        the reviewer's to say.
        """
        if approve and change.state not in ("open", "approved"):
            raise EngineError(
                f"change {change.id} is {change.state}; only an open change can be approved "
                "(list them with: qigheal patches)"
            )
        if change.state in FINAL_STATES:
            raise EngineError(f"change {change.id} is {change.state}: it has ended (see: qigheal patches)")
        if approve and (foreign := self._foreign(change)):
            raise EngineError(foreign)
        if approve:
            return self._record(replace(change, state="approved", reviewer=reviewer, reason=reason))
        if change.state in ("merging", "merged", "watching", "reverting", "reverted"):
            left = f"{reviewer} took it over while it was {change.state}"
            reason = f"{left}: {reason}" if reason else left
            return self._record(replace(change, state="rejected", reason=reason))
        return self._ended(replace(change, state="rejected", reviewer=reviewer, reason=reason))

    def hand_back(self, change: Change, reason: str) -> Change:
        """An approval that no longer holds: the change is open again, and waits for a person."""
        return self._record(replace(change, state="open", reviewer="", reason=reason))

    def advance(self, change: Change, baseline: Baseline | None) -> tuple[Change, Outcome | None]:
        """As far as the change goes now: until it ends, waits for a person, or waits for snapshots."""
        if foreign := self._foreign(change):
            self.on_step("blocked", foreign)
            return replace(change, reason=foreign), None
        try:
            return self._advance(change, baseline)
        except (RepoError, ManifestError, QigcoreError) as error:
            # What stands in the way of one change must not stop the others, nor the pass.
            return self._blocked(self.ledger.changes()[change.id], str(error)), None

    def _advance(self, change: Change, baseline: Baseline | None) -> tuple[Change, Outcome | None]:
        outcome: Outcome | None = None
        while True:
            before = change
            moved = ""
            if change.state in ("opening", "open", "approved"):
                # Asked before what people did: a merge by hand moves the target, and must not pass for a move.
                moved = self._merger(change).moved(change)
                change = self._refreshed(change, baseline)
            if moved and change.state in ("opening", "open", "approved"):
                self.on_step("superseded", f"{change.branch}: {moved}")
                change = self._ended(replace(change, state="superseded", reason=moved))
            elif change.state == "opening":
                change = self._open(change)
            elif change.state in ("approved", "merging"):
                change = self._merge(change, baseline)
            elif change.state == "merged":
                change = self._deploy(change, then="watching")
            elif change.state == "watching":
                change, outcome = self._watch(change, baseline)
            elif change.state == "reverting":
                change = self._revert(change)
            elif change.state == "reverted":
                change = self._deploy(change, then="rolled_back")
            if change.state == before.state or change.state in FINAL_STATES:
                return change, outcome

    def _foreign(self, change: Change) -> str:
        """Why the change cannot be of this repository, or an empty string. Then nothing of it is touched:
        another host may share the store, and the change be well under way there."""
        if self.repo.has(change.patch.base):
            return ""
        deeper = (
            ", get the rest of this shallow clone with: git fetch --unshallow," if self.repo.shallow else ""
        )
        return (
            f"change {change.id} is {change.state}, and its base {change.patch.base[:10]} is not in "
            f"{self.repo.root}: name the repository it is of,{deeper} or give it up with: "
            f"qigheal review {change.id} --reject"
        )

    def _record(self, change: Change) -> Change:
        self.ledger.record_change(change, self.clock())
        return change

    def _ended(self, change: Change) -> Change:
        """Record the end of a change that is not merged, and take down what invites people to merge it."""
        self._record(change)
        try:
            if not self._foreign(change):
                self._merger(change).close(change)
        except QighealError as error:
            log.warning("change %s is %s; see to its branch by hand: %s", change.id, change.state, error)
        return change

    def stale(self, base: str, target: str) -> str:
        """Why a change made to `base` could not be opened now, or an empty string."""
        return self._forge(base).stale(base, target)

    def held(self, change: Change) -> bool:
        """Whether people keep an open change from being approved by anybody but themselves, where it lies."""
        asked = replace(change, state="approved", reviewer="", reason="")
        try:
            return self._merger(change).refresh(asked).state != "approved"
        except RepoError as error:
            log.warning("change %s is not approved now: %s", change.id, error)
            return True

    def _forge(self, base: str) -> Forge:
        if base not in self._forges:
            self._forges[base] = forge_of(self.repo, Manifest.at(self.repo, base), self._seen)
        return self._forges[base]

    def _merger(self, change: Change) -> Forge:
        """The forge that the change's base names; what the change may touch was settled by the same manifest."""
        return self._forge(change.patch.base)

    def _seen(self, change: Change) -> str:
        """What was wrong when the change was made, in words; empty where nothing was diagnosed."""
        if change.verdict is None:
            return ""
        before = [entry for entry in self.ledger.entries("diagnosis") if entry.at <= change.opened_at]
        return "\n".join(f.message for f in before[-1].read(Diagnosis).findings) if before else ""

    def _refreshed(self, change: Change, baseline: Baseline | None) -> Change:
        """The change after what people did to it where it lies; recorded when that is something new."""
        if change.state == "opening":
            return change
        found = self._merger(change).refresh(change)
        if found == change:
            return change
        self.on_step("review", f"{found.branch} is {found.state}: {found.reason or found.reviewer}")
        if found.state == "merged":  # by hand, before anybody looked
            found = replace(found, before=self._live_means(baseline, found.merged_at))
        return self._record(found)

    def _open(self, change: Change) -> Change:
        try:
            opened = self._merger(change).open(change)
        except PatchError as error:
            # What may not be done today may not be done tomorrow either.
            self.on_step("blocked", str(error))
            return self._record(replace(change, state="rejected", reason=str(error)))
        except RepoError as error:
            return self._blocked(change, str(error))
        self.on_step("change", f"opened {opened.branch}, to be merged into {opened.target}")
        return self._record(opened)

    def _blocked(self, change: Change, reason: str) -> Change:
        """The change stays where it is, and says why; the same reason is not written twice."""
        self.on_step("blocked", f"{change.branch}: {reason}")
        return change if change.reason == reason else self._record(replace(change, reason=reason))

    def _merge(self, change: Change, baseline: Baseline | None) -> Change:
        forge = self._merger(change)
        if change.state == "merging":  # a healer was killed in it
            merging = change
        else:
            # Asked before anything is written: a change may be blocked for weeks, at a pass every few minutes.
            if obstacle := forge.obstacle(change):
                return self._blocked(change, obstacle)
            try:
                forge.rehearse_revert(change)
            except RepoError as error:
                reason = str(error)
                if change.reason != reason:
                    self.ledger.append(
                        "rehearsal", change.id, Rehearsal(ok=False, reason=reason), self.clock()
                    )
                return self._blocked(change, reason)
            self.ledger.append("rehearsal", change.id, Rehearsal(ok=True), self.clock())
            merging = self._record(
                replace(
                    change,
                    state="merging",
                    reason="",
                    merged_at=self.clock(),
                    ledger_head=self.ledger.head,
                    before=self._live_means(baseline),
                )
            )
        merged = forge.merge(merging)
        if merged.state != "merged":
            return self._blocked(replace(merged, state="approved", reason=""), merged.reason)
        self.on_step("merge", f"merged {merged.branch} into {merged.target} as {merged.merge_commit[:10]}")
        return self._record(merged)

    def _deploy(self, change: Change, *, then: str) -> Change:
        rollback = then == "rolled_back"
        key = f"{change.id}-rollback" if rollback else change.id
        manifest = Manifest.at(self.repo, change.patch.base)
        if manifest.deploy.command:
            at = self._checkout(change.target)
            self.ledger.append(
                "deploy", change.id, {"key": key, "command": manifest.deploy.command}, self.clock()
            )
            code, output = run_deploy(manifest.deploy.command, at, key, self.repo.owner)
            self.ledger.append(
                "deployed", change.id, {"key": key, "returncode": code, "output": output}, self.clock()
            )
            if code != 0:
                # The refs are where they should be; a person must bring the service along.
                log.warning("the deploy command for change %s ended with %s: %s", change.id, code, output)
                change = replace(change, reason=f"the deploy command ended with {code}: {output}")
            self.on_step("deploy", f"ran {' '.join(manifest.deploy.command)} (exit {code})")
        return self._record(replace(change, state=then))

    def _checkout(self, branch: str) -> Path:
        """The folder where `branch` is checked out, else the repository's root."""
        for worktree in self.repo.worktrees():
            if worktree.branch == branch:
                return Path(worktree.path)
        return Path(self.repo.root)

    def _live_means(self, baseline: Baseline | None, until: float | None = None) -> dict[str, float]:
        """Means of the newest snapshots, or of the newest of the hour before `until`: what the merged code
        is compared with."""
        wanted = self.settings.watch_snapshots
        if until is None:
            batch = self.history.last(wanted)
        else:
            batch = Batch.concat([*self.history.scan(until - 3600.0, until)], self.history.dim)
            batch = batch.take(slice(max(0, len(batch) - wanted), None))
        if baseline is not None:
            batch = remeasure(batch, baseline)
        measured = {metric: batch.values(metric) for metric in METRICS if metric != "memory"}
        return {metric: float(np.mean(values)) for metric, values in measured.items() if len(values)}

    def _since_merge(self, change: Change) -> Batch:
        """Snapshots after the merge that are not of the code before it, enough for a judgement."""
        wanted = 4 * self.settings.watch_snapshots
        kept: list[Batch] = []
        for batch in self.history.scan(start=change.merged_at):
            old = np.array([bool(code) and change.merge_parent.startswith(code) for code in batch.names])
            kept.append(batch.take(~old[batch.code]))
            if sum(map(len, kept)) >= wanted:
                break
        return Batch.concat(kept, self.history.dim)

    def _watch(self, change: Change, baseline: Baseline | None) -> tuple[Change, Outcome | None]:
        if baseline is None:
            if self.clock() <= change.merged_at + self.settings.watch_deadline_s:
                return change, None
            reason = (
                f"the service learned no baseline within {self.settings.watch_deadline_s:g} s of the merge"
            )
            return self._record(replace(change, state="unconfirmed", reason=reason)), None
        outcome = watch(
            change,
            remeasure(self._since_merge(change), baseline),
            target_of(baseline),
            self._merger(change),
            now=self.clock(),
            settings=self.settings,
        )
        if outcome.state == "waiting":
            return change, outcome
        self.ledger.append("outcome", change.id, outcome, self.clock())
        self.on_step("watch", outcome.reason)
        if outcome.state == "worse":
            return self._record(
                replace(change, state="reverting", reverted_at=self.clock(), reason=outcome.reason)
            ), outcome
        if outcome.state == "contested":
            log.warning(
                "change %s made the service worse, and a person must see to it: %s", change.id, outcome.reason
            )
        return self._record(replace(change, state=outcome.state, reason=outcome.reason)), outcome

    def _revert(self, change: Change) -> Change:
        # The commit says why it is taken back, not what stood in the way meanwhile.
        forge = self._merger(change)
        reverted = forge.revert(replace(change, reason=self._why_worse(change)))
        if reverted.state == "reverted":
            self.on_step("revert", f"took {change.branch} back as {reverted.revert_commit[:10]}")
            return self._record(reverted)
        if reverted.state == "contested":
            self.on_step("revert", f"{change.branch}: {reverted.reason}")
            return self._record(reverted)
        if forge.tip(change.target) != change.merge_commit:
            # Somebody built on it, or took the branch away. Taking it back would take their work along.
            log.warning(
                "change %s made the service worse, and a person must see to it: %s",
                change.id,
                reverted.reason,
            )
            return self._record(replace(reverted, state="contested"))
        return self._blocked(change, reverted.reason)

    def _why_worse(self, change: Change) -> str:
        outcomes = self.ledger.entries("outcome", change.id)
        return outcomes[-1].read(Outcome).reason if outcomes else change.reason


def _taken_up(change: Change, target: str) -> Change:
    """A change that had ended, begun again: same patch, same branch, same commit on it."""
    return Change(
        id=change.id,
        state="opening",
        patch=change.patch,
        verdict=change.verdict,
        branch=change.branch,
        target=target,
        opened_at=change.opened_at,
    )
