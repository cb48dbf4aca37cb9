"""Stores to look at: a service that was healthy and is no longer, and what its healer did about it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import Batch
from qigheal.healing import phases, proofs
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.ledger import Judged
from qigheal.records import Change, HealingPatch
from qigheal.repo import Repo
from tests.heal import simulated
from tests.heal.test_engine import QUICK
from tests.heal.toyhost import CONFIG, ToyHost

EVERY_S = 60.0


class Scene:
    """The toy's host and store, its snapshots a minute apart and ending now."""

    def __init__(self, folder: Path, snapshots: int, *, sick: int = 0, gain: float = 1.8) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.toy = ToyHost(folder)
        os.environ["TOY_DEPLOYS"] = str(self.toy.deploys)
        self.gain = gain
        self.at = time.time() - EVERY_S * snapshots
        healthy = self.rows(snapshots - sick, 1.0, self.toy.healthy)
        with History(self.toy.store) as history:
            history.append(healthy)
        self.oldest = self.newest = healthy
        Baseline.learn(healthy.take(slice(0, 600))).save(self.toy.store / "baseline.json")
        if sick:
            self.record(sick, gain, self.toy.break_it(gain))

    def rows(self, count: int, gain: float, code: str, module: str = "toy.attention") -> Batch:
        made = self.toy.rows(gain, count, code)
        draw = np.random.default_rng(int(self.toy.clock) % 1000)
        heads = made.heads().copy()
        heads["timestamp"] = self.at + EVERY_S * np.arange(1, count + 1)
        self.at += EVERY_S * count
        heads["avg_latency_ms"] = 18.0 * gain**0.3 + draw.normal(0, 0.6, count)
        heads["error_rate"] = draw.binomial(400, 0.0004 * gain, count) / 400
        heads["memory_mb"] = 212.0 + draw.normal(0, 0.25, count)
        heads["module"] = 2
        basins = np.array(made.basin_coords)
        basins[:, [7, 12, 13, 41]] *= gain ** np.array([1.6, 3.0, 2.1, -2.0])
        return Batch.of_rows(heads, basins, ("", code, module))

    def record(self, count: int, gain: float, code: str, module: str = "toy.attention") -> Batch:
        rows = self.rows(count, gain, code, module)
        with History(self.toy.store) as history:
            history.append(rows)
        self.newest = rows
        return rows

    def enter(self, phase: int) -> SelfHealingEngine:
        self.toy.clock = time.time()
        healer = SelfHealingEngine(
            host=self.toy.path,
            store=self.toy.store,
            settings=replace(QUICK, sandbox="none"),
            clock=lambda: self.toy.clock,
        )
        phases.override(healer.ledger, phase, actor="Ada", reason="the gate's figures were read", at=self.at)
        return healer

    def opened(self) -> Change:
        """A change that the healer measured and opened, waiting for its review."""
        result = self.enter(3).check_and_heal()
        assert [change.state for change in result.changes] == ["open"], (result.message, result.verdicts)
        return result.changes[0]

    def opened_at_once(self, phase: int = 3) -> HealingPatch:
        """The same without the search and the trial: a simulated one stands in the ledger. In phase 2 it is
        only measured."""
        healer = self.enter(phase)
        repo = Repo(self.toy.path)
        base = repo.head()
        cured = repo.edit(base, {"config/app.toml": CONFIG.format(gain=1.0).encode()})
        patch = HealingPatch(
            strategy="attention",
            tier="safe",
            base=base,
            diff=repo.diff(base, cured),
            rationale=f"Sets attention.gain from {self.gain} to 1.0.",
            heals=("phi", "kappa"),
        )
        before, after = simulated.World(phi=0.4, kappa=150.0), simulated.World()
        observed = {"phi": 0.4, "kappa": 150.0}
        verdict, trial = simulated.judged(
            before, after, 1, settings=QUICK, observed=observed, heals=patch.heals
        )
        assert verdict.accepted, verdict.reason
        proof = proofs.Proof(
            trial=replace(trial, patch=patch),
            verdict=verdict,
            diagnosis=simulated.diagnosis("phi", "kappa", **observed),
            settings=QUICK,
            versions=proofs.versions(),
            at=self.at,
        )
        kept = proofs.keep(self.toy.store / proofs.FOLDER, proof)
        judged = Judged(patch=patch, verdict=verdict, bundle=kept.bundle, proof=kept.digest)
        healer.ledger.append("verdict", patch.fingerprint, judged, self.at)
        if phase > 2:
            with healer._opened() as (_, passage):
                passage.begin(patch, verdict, "main")
        return patch
