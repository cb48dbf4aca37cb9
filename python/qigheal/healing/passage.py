"""A change's way through the forge: open, approve, merge, deploy, watch, and back if it must.

Every transition stands in the ledger before its side effect, and every side effect may be repeated:
git refs and commits by construction (their dates come from the ledger), the deploy command by
contract. So a healer that was killed anywhere goes on from the ledger's last word.

Nothing here proposes or judges a patch.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import METRICS, Batch
from qigheal.errors import EngineError, PatchError, RepoError
from qigheal.healing.diagnosis import target_of
from qigheal.healing.forge.local import LocalForge
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Rehearsal
from qigheal.healing.watch import watch
from qigheal.health import remeasure
from qigheal.host import Manifest
from qigheal.records import FINAL_STATES, Change, HealingPatch, Outcome, Verdict
from qigheal.repo import Repo
from qigheal.settings import HealSettings

log = logging.getLogger("qigheal")

DEPLOY_TIMEOUT_S = 600.0

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

    def pending(self) -> tuple[Change, ...]:
        """Changes that have not come to an end, oldest first."""
        return tuple(c for c in self.ledger.changes().values() if c.state not in FINAL_STATES)

    def begin(self, patch: HealingPatch, verdict: Verdict | None, target: str) -> Change:
        """Open a change for `patch`, to be merged into branch `target`."""
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

    def review(self, change: Change, *, approve: bool, reviewer: str, reason: str = "") -> Change:
        """Approve or reject an open change; the reviewer's name goes into the merge commit.

        One that cannot be opened, or cannot be merged yet, can still be rejected.
        """
        if change.state not in (("open", "approved") if approve else ("opening", "open", "approved")):
            raise EngineError(
                f"change {change.id} is {change.state}; only an open change can be reviewed "
                "(list them with: qigheal patches)"
            )
        state = "approved" if approve else "rejected"
        return self._record(replace(change, state=state, reviewer=reviewer, reason=reason))

    def advance(self, change: Change, baseline: Baseline | None) -> tuple[Change, Outcome | None]:
        """As far as the change goes now: until it ends, waits for a person, or waits for snapshots."""
        outcome: Outcome | None = None
        while True:
            before = change
            if change.state == "opening":
                change = self._open(change)
            elif change.state in ("approved", "merging"):
                change = self._merge(change, baseline)
            elif change.state == "merged":
                change = self._deploy(change, then="watching")
            elif change.state == "watching" and baseline is not None:
                change, outcome = self._watch(change, baseline)
            elif change.state == "reverting":
                change = self._revert(change)
            elif change.state == "reverted":
                change = self._deploy(change, then="rolled_back")
            if change.state == before.state or change.state in FINAL_STATES:
                return change, outcome

    def _record(self, change: Change) -> Change:
        self.ledger.record_change(change, self.clock())
        return change

    def _forge(self, change: Change) -> LocalForge:
        return LocalForge(self.repo, Manifest.at(self.repo, change.patch.base))

    def _open(self, change: Change) -> Change:
        try:
            opened = self._forge(change).open(change)
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
        if change.state == "approved":
            merging = replace(
                change,
                state="merging",
                reason="",
                merged_at=self.clock(),
                ledger_head=self.ledger.head,
                before=self._live_means(baseline),
            )
            self._record(merging)
        else:
            merging = change
        forge = self._forge(merging)
        try:
            forge.rehearse_revert(merging)
        except RepoError as error:
            self.ledger.append("rehearsal", change.id, Rehearsal(ok=False, reason=str(error)), self.clock())
            return self._blocked(replace(merging, state="approved"), str(error))
        self.ledger.append("rehearsal", change.id, Rehearsal(ok=True), self.clock())
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
            code, output = self._run_deploy(manifest.deploy.command, at, key)
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

    def _run_deploy(self, command: tuple[str, ...], at: Path, key: str) -> tuple[int, str]:
        argv = [sys.executable if command[0] == "python" else command[0], *command[1:]]
        owner = self.repo.owner
        identity: dict[str, Any] = (
            {} if owner is None else {"user": owner.uid, "group": owner.gid, "extra_groups": []}
        )
        try:
            done = subprocess.run(
                argv,
                cwd=at,
                env={**os.environ, "QIGHEAL_CHANGE": key},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_TIMEOUT_S,
                check=False,
                **identity,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        return done.returncode, done.stdout.decode("utf-8", "replace")[-2000:].strip()

    def _live_means(self, baseline: Baseline | None) -> dict[str, float]:
        """Means of the newest snapshots, to compare the merged code with."""
        batch = self.history.last(self.settings.watch_snapshots)
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

    def _watch(self, change: Change, baseline: Baseline) -> tuple[Change, Outcome]:
        outcome = watch(
            change,
            remeasure(self._since_merge(change), baseline),
            target_of(baseline),
            self.repo,
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
        return self._record(replace(change, state=outcome.state, reason=outcome.reason)), outcome

    def _revert(self, change: Change) -> Change:
        reverted = self._forge(change).revert(change)
        if reverted.state == "reverted":
            self.on_step("revert", f"took {change.branch} back as {reverted.revert_commit[:10]}")
            return self._record(reverted)
        tip = self.repo.ref(f"refs/heads/{change.target}")
        if tip is not None and tip != change.merge_commit:
            # Somebody built on it. Taking it back would take their work along.
            log.warning("change %s is worse and cannot be taken back: %s", change.id, reverted.reason)
            return self._record(replace(reverted, state="contested"))
        return self._blocked(change, reverted.reason)
