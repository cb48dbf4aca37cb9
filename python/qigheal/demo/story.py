"""The whole chain on a real small service, told as it happens.

A live process serves handwritten digits and records itself; a bad deploy is made as a person would
make it, by a commit; from there the engine works as it would anywhere. Nothing is scripted: every
figure printed is read from the history, the ledger or the repository.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import Batch
from qigheal.demo.live import LiveService
from qigheal.demo.picture import draw
from qigheal.demo.repository import DemoHost, commit_temperature, make_host, set_temperature
from qigheal.errors import QighealError, SandboxError
from qigheal.healing import phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.health import assess, remeasure, replay, rules_for
from qigheal.records import FINAL_STATES, Change, HealResult, HealthReport
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.settings import HealSettings, MonitorSettings

Say = Callable[[str], None]

HEALTHY_SNAPSHOTS = 1000
FAULTY_SNAPSHOTS = 60
UNDETECTED_AFTER = 400
STANDING_SNAPSHOTS = 30  # more than twice the 14 that decide an alarm: a moment's load does not last so long
HARMFUL_TEMPERATURE = 12.0
PATIENCE_S = 120.0


class DemoError(QighealError):
    """The story could not be told to its end; the message says at which point, and what was seen."""


class Story:
    """One telling: a host, its live service, a healer, and the notes for the report."""

    def __init__(self, host: DemoHost, work: Path, service: LiveService, say: Say) -> None:
        self.host = host
        self.service = service
        self.store = work / "store"
        self.say = say
        self.repo = Repo(host.path)
        self.level, self.note = isolation()
        self.engine = SelfHealingEngine(
            host=host.path,
            store=self.store,
            settings=HealSettings(sandbox="none" if self.level == "none" else "auto"),
            on_step=lambda stage, sentence: say(f"    {stage}: {sentence}"),
        )
        self.marks: list[tuple[str, str, str]] = []

    def read(self) -> tuple[Batch, Baseline]:
        """All snapshots so far, with their drift measured against the learned baseline."""
        baseline = self.engine.baseline()
        if baseline is None:
            raise DemoError("the service has not learned a baseline")
        with History.read_only(self.store) as history:
            batch = Batch.concat(history.scan(), history.dim)
        return remeasure(batch, baseline), baseline

    def health(self) -> HealthReport:
        """The service's health as its history tells it."""
        batch, baseline = self.read()
        rules = rules_for(MonitorSettings.load(self.store), baseline)
        recent = batch.take(slice(-1000, None))
        return assess(recent.heads(), recent.basin_coords, rules, baseline, len(batch))

    def wait_for(self, what: str, seen: Callable[[], bool]) -> None:
        """Until `seen`, reading the store a few times a second."""
        deadline = time.monotonic() + PATIENCE_S
        while not seen():
            if not self.service.alive():
                raise DemoError(
                    f"the service ended while the demo waited for {what}: {self.service.last_words()}"
                )
            if time.monotonic() > deadline:
                raise DemoError(f"{what}: not seen within {PATIENCE_S:.0f} s")
            time.sleep(0.2)

    def count(self, commit: str | None = None) -> int:
        """Snapshots recorded so far, of one commit or of all."""
        with History.read_only(self.store) as history:
            if commit is None:
                return sum(segment.rows for segment in history.segments())
            total = 0
            for batch in history.scan(columns=("timestamp", "code")):
                of_commit = np.array([bool(n) and commit.startswith(n) for n in batch.names])
                total += int(of_commit[batch.code].sum())
            return total

    def wait_for_snapshots(self, wanted: int, commit: str | None = None) -> None:
        of = f" of commit {commit[:10]}" if commit else ""
        shown = 0

        def enough() -> bool:
            nonlocal shown
            seen = self.count(commit)
            if seen - shown >= 200 and seen < wanted:
                shown = seen
                self.say(f"    {seen} snapshots")
            return seen >= wanted

        self.wait_for(f"{wanted} snapshots{of}", enough)

    def mark(self, label: str, kind: str, commit: str) -> None:
        """Note an event, to be drawn where the first snapshot of its commit stands."""
        self.marks.append((label, kind, commit))

    def events(self, batch: Batch) -> list[dict[str, str | int]]:
        """The events with the positions of the snapshots from which on they show."""
        found: list[dict[str, str | int]] = []
        for label, kind, commit in self.marks:
            own = np.flatnonzero(batch.code_hash == commit)
            if len(own):
                found.append({"snapshot": int(own[0]), "label": label, "kind": kind, "commit": commit})
        return found

    # The acts

    def settle_in(self) -> dict[str, Any]:
        self.say("1. A service that recognises handwritten digits goes live and records itself.")
        self.wait_for_snapshots(HEALTHY_SNAPSHOTS)
        self.wait_for("a learned baseline", lambda: self.engine.baseline() is not None)
        baseline = self.engine.baseline()
        assert baseline is not None  # noqa: S101  # waited for just above
        phi, kappa = baseline.bands["phi"], baseline.bands["kappa"]
        self.say(
            f"   It learned from its first {baseline.count} snapshots what healthy looks like: "
            f"Φ {phi.low:.3f}-{phi.high:.3f}, κ {kappa.low:.1f}-{kappa.high:.1f}, "
            f"drift up to {baseline.drift_limit:.2f} rad."
        )
        phases.override(
            self.engine.ledger, 3, actor="demo", reason="a demonstration on a throw-away host", at=time.time()
        )
        self.say("   The healer may open changes and waits for a review (phase 3, by a logged override).")
        self.well("before the fault")
        quiet = self.engine.check_and_heal()
        if quiet.triggered:
            raise DemoError(f"the healthy service was called unwell: {quiet.message}")
        self.say("   Asked now, it finds nothing to heal.\n")
        return {"phi": phi.mean, "kappa": kappa.mean, "drift_limit": baseline.drift_limit}

    def go_wrong(self, temperature: float) -> dict[str, Any]:
        self.say(f"2. A deploy goes wrong: a commit sets the attention temperature to {temperature:g}.")
        commit = commit_temperature(self.host.path, temperature)
        self.mark(f"deploy: τ = {temperature:g}", "fault", commit)
        self.service.deploy()
        self.wait_for_snapshots(FAULTY_SNAPSHOTS, commit)
        after = self.detection(commit)
        while after is None and self.count(commit) < UNDETECTED_AFTER:
            self.wait_for_snapshots(min(self.count(commit) + 50, UNDETECTED_AFTER), commit)
            after = self.detection(commit)
        report = self.health()
        fault = {
            "commit": commit,
            "temperature": temperature,
            "detected_after_snapshots": after,
            "severity": report.severity,
            "issues": list(report.issues),
        }
        if after is None:
            self.say(f"   {UNDETECTED_AFTER} snapshots later everything is inside its healthy band.\n")
        else:
            self.say(f"   The monitor saw it at snapshot {after} of the new code and says {report.severity}:")
            for issue in report.issues:
                self.say(f"     - {issue}")
            self.say("")
        return fault

    def detection(self, commit: str) -> int | None:
        """How many snapshots of `commit` it took until the alarm that still stands; None: none stands.

        What came and went, such as the latency of a moment in which the machine was busy, is no fault,
        and what has come only now, within the last 30 snapshots, may yet go.
        """
        batch, baseline = self.read()
        severities = replay(batch, rules_for(MonitorSettings.load(self.store), baseline))
        of_commit = np.flatnonzero([bool(code) and commit.startswith(code) for code in batch.code_hash])
        calm = np.flatnonzero(severities[of_commit] == 0)
        raised = int(calm[-1]) + 1 if len(calm) else 0
        return raised + 1 if raised + STANDING_SNAPSHOTS <= len(of_commit) else None

    def heal(self) -> tuple[HealResult, Change] | None:
        """The change that the healer opened; None: it knew none, and the service is well again by itself.

        Raises DemoError when there is no change and the service stays unwell.
        """
        self.say("3. The healer reads the history, looks for a cause, and measures a repair.")
        result = self.engine.check_and_heal()
        if not result.changes:
            try:
                self.well("without a change")
            except DemoError as error:
                raise DemoError(f"no change was opened: {result.message}; {error}") from error
            return None
        change = result.changes[-1]
        verdict = change.verdict
        if verdict is None or verdict.fitness is None:
            raise DemoError("the change carries no verdict")
        self.say("   What it proposes:")
        for line in change.patch.diff.splitlines():
            if line[:1] in "+-" and line[:3] not in ("+++", "---"):
                self.say(f"     {line}")
        fitness = verdict.fitness
        bounds = f"95 % bounds {fitness.low:.2f} and {fitness.high:.2f}"
        if fitness.low == fitness.high:
            bounds = "the same for every resample of the pairs"
        self.say(
            f"   {verdict.pairs} interleaved pairs against the unpatched code ({verdict.sandbox_level}): "
            f"fitness {fitness.point:.2f} ({bounds}; doing nothing scores 0.55)."
        )
        self.say(f"   A change is open: {change.branch}\n")
        return result, change

    def approve(self, change: Change) -> tuple[Change, dict[str, Any]]:
        self.say("4. The reviewer (this demo) approves. The change is merged and deployed, and watched.")
        change = self.engine.review(change.id, approve=True, reviewer="demo", reason="the demo's approval")
        self.mark("repair merged", "heal", change.merge_commit)
        if change.state != "watching":
            raise DemoError(f"the change was not merged: {change.reason}")
        change = self.settle(change)
        outcome = self.outcome(change)
        if change.state != "confirmed":
            raise DemoError(f"the repair was not confirmed: it is {change.state}, {change.reason}")
        recovered = {
            "phi": outcome["observed"]["phi"],
            "kappa": outcome["observed"]["kappa"],
            "within_snapshots": outcome["within_snapshots"],
        }
        self.say(
            f"   Confirmed. The repaired code was inside its bands from its first {recovered['within_snapshots']} "
            f"snapshots on: Φ {recovered['phi']:.3f}, κ {recovered['kappa']:.1f}.\n"
        )
        return change, recovered

    def settle(self, change: Change) -> Change:
        """Until the watch has come to its end."""
        found = change

        def over() -> bool:
            nonlocal found
            found = next((c for c in self.engine.bring_along() if c.id == change.id), found)
            return found.state in FINAL_STATES

        self.wait_for(f"the end of change {change.id}", over)
        return found

    def outcome(self, change: Change) -> dict[str, Any]:
        entries = self.engine.ledger.entries(kind="outcome", subject=change.id)
        decoded: dict[str, Any] = json.loads(entries[-1].data)
        return decoded

    def diff_to(self, temperature: float) -> str:
        """The diff that sets another temperature on the checked-out commit."""
        path, base = "config/model.toml", self.repo.head()
        text = set_temperature(self.repo.read(base, path).decode(), temperature)
        return self.repo.diff(base, self.repo.edit(base, {path: text.encode()}))

    def harm(self) -> dict[str, Any]:
        self.say(
            f"5. A person insists on a bad change: temperature {HARMFUL_TEMPERATURE:g}, past every check."
        )
        change = self.engine.put_through(
            self.diff_to(HARMFUL_TEMPERATURE),
            actor="demo",
            reason="to show what happens when a harmful change gets through",
        )
        self.mark(f"override: τ = {HARMFUL_TEMPERATURE:g}", "fault", change.merge_commit)
        if change.state != "watching":
            raise DemoError(f"the override was not merged: {change.reason}")
        change = self.settle(change)
        if change.state != "rolled_back":
            raise DemoError(f"the harmful change was not taken back: it is {change.state}, {change.reason}")
        self.mark("rolled back", "heal", change.revert_commit)
        self.wait_for_snapshots(FAULTY_SNAPSHOTS, change.revert_commit)
        report = self.well("after the rollback")
        self.say(
            f"   The watch took it back by itself; the service is healthy again at Φ {report.metrics['phi']:.3f}.\n"
        )
        return {
            "commit": change.merge_commit,
            "reverted_by": change.revert_commit,
            "phi_after": report.metrics["phi"],
        }

    def well(self, when: str) -> HealthReport:
        """The report once the service is healthy; another program may slow it down for a moment."""
        report = self.health()

        def well() -> bool:
            nonlocal report
            report = self.health()
            return report.healthy

        try:
            self.wait_for(f"health {when}", well)
        except DemoError as error:
            raise DemoError(f"{error}; {'; '.join(report.issues)}") from error
        return report


def isolation() -> tuple[str, str]:
    """The level of isolation to be had here, and a sentence about it."""
    try:
        sandbox = Sandbox("auto")
    except SandboxError:
        return "none", Sandbox("none").note
    return sandbox.level, sandbox.note


def tell(*, fault_temperature: float, folder: Path, say: Say) -> dict[str, Any]:
    """Tell the story; write `demo-report.json` and `demo-report.png` into `folder`; return the report.

    Raises DemoError when it does not come to its end, MissingExtra without the demo's extra.
    """
    begun = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # better now than when the story is told
    except OSError as error:
        raise DemoError(
            f"{folder}: the report cannot be written there: {error.strerror}; name another folder with --output"
        ) from error
    with tempfile.TemporaryDirectory(prefix="qigheal-demo-") as name:
        work = Path(name)
        host = make_host(work / "digits")
        with LiveService(host.path, work / "store") as service:
            story = Story(host, work, service, say)
            say(f"How the healer measures: {story.note}\n")
            report: dict[str, Any] = {"baseline": story.settle_in()}
            report["fault"] = story.go_wrong(fault_temperature)
            healed = None
            if report["fault"]["detected_after_snapshots"] is not None:
                healed = heal_and_harm(story)
            if healed is None:
                report["fault"]["detected_after_snapshots"] = None
                healed = stay_healthy(story)
            report |= healed
        batch, baseline = story.read()
        events = story.events(batch)
    report |= {
        "snapshots": len(batch),
        "events": events,
        "isolation": story.note,
        "seconds": round(time.monotonic() - begun, 1),
    }
    (folder / "demo-report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    draw(batch, baseline, events, folder / "demo-report.png")
    say(f"{len(batch)} snapshots in {report['seconds']:.0f} s. Written: demo-report.json, demo-report.png")
    return report


def stay_healthy(story: Story) -> dict[str, Any]:
    """The end of the story when the deploy did no harm: the chain proposes nothing."""
    story.say("3. The healer is asked all the same.")
    story.well("after the deploy")
    result = story.engine.check_and_heal()
    if result.triggered:
        raise DemoError(f"the monitor saw no fault and the healer did: {result.message}")
    story.say(f"   It proposes nothing: {result.message}.\n")
    return {"patch": None, "change": None, "recovered": None, "rollback": None}


def heal_and_harm(story: Story) -> dict[str, Any] | None:
    """Acts 3 to 5; None: the alarm passed before the healer knew what to change."""
    opened = story.heal()
    if opened is None:
        story.say(
            "   It knows no change, and the alarm passed by itself: another program may have been busy.\n"
        )
        return None
    result, change = opened
    change, recovered = story.approve(change)
    rollback = story.harm()
    verdict = change.verdict
    fitness = verdict.fitness if verdict else None
    return {
        "patch": {
            "strategy": change.patch.strategy,
            "file": ", ".join(change.patch.files),
            "diff": change.patch.diff,
            "rationale": change.patch.rationale,
            "parameters": change.patch.parameters,
            "fitness": fitness
            and {
                "point": fitness.point,
                "low": fitness.low,
                "high": fitness.high,
                "components": fitness.components,
            },
            "pairs": verdict.pairs if verdict else 0,
            "sandbox_level": verdict.sandbox_level if verdict else story.level,
        },
        "diagnosis": result.diagnosis and list(result.diagnosis.metrics),
        "change": {
            "branch": change.branch,
            "merge_commit": change.merge_commit,
            "state": change.state,
        },
        "recovered": recovered,
        "rollback": rollback,
    }
