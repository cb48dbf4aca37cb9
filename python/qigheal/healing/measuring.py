"""Makes the measurements that the chain is built on: a bench, a healthy state, a judged patch.

The engine and the evaluation of other people's work both measure by what stands here, so that a patch
is judged alike whoever wrote it. Nothing here writes a ledger, moves a ref, or knows a phase.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from qigcore.baseline import Baseline
from qigcore.durations import worded
from qigcore.history import History
from qigcore.rows import Batch
from qigheal.errors import EngineError, MissingExtra
from qigheal.healing import judge
from qigheal.healing.bench import Bench
from qigheal.healing.diagnosis import diagnose, well
from qigheal.healing.passage import Step
from qigheal.healing.probed import LEARN_BATCHES, batch_of, learn_from_probe
from qigheal.healing.proofs import Kept, Proof, keep, versions
from qigheal.healing.trial import TrialRun
from qigheal.health import assess, remeasure, rules_for
from qigheal.host import Manifest, refusals
from qigheal.host.refusals import Refusing
from qigheal.records import Diagnosis, HealingPatch, HealthReport, Trial, Verdict
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.sandbox.processes import end_left_in
from qigheal.settings import HealSettings, MonitorSettings
from qigheal.standing import silence, unread

UNKEPT: Final = "the trial is too large for its proof to be kept, so that nobody could judge it again"

log = logging.getLogger("qigheal")


READ_SNAPSHOTS = 5000
"""How far back a pass reads: far enough to see when it was last healthy."""


NEEDED = ("numba", "libcst", "tomlkit", "cmaes")
"""What searches and trials use of other packages; all of it comes with one extra."""


def equipped() -> None:
    """That searches and trials can be done here, without loading anything. Raises MissingExtra."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "heal", "searching for patches and measuring them")


def stored_baseline(store: Path) -> Baseline:
    """What the service learned that writes the store. Raises EngineError while it has learned nothing."""
    path = store / "baseline.json"
    if not path.exists():
        raise EngineError(
            f"{store}: nothing says yet what healthy is: no baseline.json. Let the service record "
            "until it has learned one, or name a healthy commit: qigheal heal HOST --healthy REF"
        )
    return Baseline.load(path)


def stored_state(store: Path, history: History) -> tuple[Baseline, Batch]:
    """What the service learned, and its newest snapshots; none where it recorded none.

    Raises EngineError as `stored_baseline` does, and where nothing of what was recorded can be read.
    """
    baseline, batch = stored_baseline(store), history.last(READ_SNAPSHOTS)
    if not len(batch) and (lost := unread(history.damage)):
        raise EngineError(f"{store}: nothing readable: {lost}; see: qigheal doctor")
    return baseline, batch


def age_of(batch: Batch, history: History, now: float) -> str:
    """How old the newest snapshot is, in words, where no process writes any more; else an empty string."""
    found = silence(batch.timestamp, history.segments(), now)
    return "" if found is None or found.written else worded(found.age_s)


def silent(stage: str, sentence: str) -> None:
    """A step that nobody is told of but the log."""
    log.info("%s: %s", stage, sentence)


class Judgement(NamedTuple):
    """A trial, the word on it, and where its proof is kept."""

    trial: Trial
    verdict: Verdict
    kept: Kept


@dataclass(frozen=True)
class Measuring:
    """What a measurement needs of the world.

    folder: where trees are laid out while they are measured; also the store whose service's settings
        count, if it is one. clock: Unix seconds. proofs: where proofs are kept, None for nowhere.
    """

    repo: Repo
    folder: Path
    settings: HealSettings
    clock: Callable[[], float]
    on_step: Step = silent
    proofs: Path | None = None

    @contextlib.contextmanager
    def bench(self, base: str, manifest: Manifest | None = None) -> Iterator[Bench]:
        """A bench on commit `base`, with the present manifest unless one is given (older commits may have none).

        Raises MissingExtra before anything is measured whose trial could not be judged here.
        """
        equipped()
        manifest = manifest or Manifest.at(self.repo, self.repo.head())
        # A folder for each host, as hosts may share a store.
        host = hashlib.blake2b(os.fsencode(self.repo.common), digest_size=4).hexdigest()
        folder = self.folder / "bench" / host
        # A healer that was killed leaves its trees; only one works at a time, so they are nobody's now.
        end_left_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            with Bench(self.repo, manifest, Sandbox(self.settings.sandbox), base, folder) as bench:
                yield bench
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def healthy(self, commit: str) -> tuple[Baseline, Batch]:
        """What healthy is, measured at `commit` by the probe, and how the present code answers."""
        with self.bench(commit) as bench:
            baseline, _ = self._learned(bench)
        count = self.settings.diagnose_snapshots
        self.on_step("measure", f"measuring {count} batches of the present code")
        with self.bench(self.repo.head()) as bench:
            answers = bench.batches(None, count)
            return baseline, batch_of(answers, code_hash=bench.base, at=self.clock())

    def as_healthy(self, bench: Bench) -> Diagnosis:
        """The bench's base, measured and taken for healthy."""
        baseline, batch = self._learned(bench)
        return well(batch, baseline, window=self.settings.diagnose_snapshots)

    def _learned(self, bench: Bench) -> tuple[Baseline, Batch]:
        self.on_step(
            "measure", f"measuring {LEARN_BATCHES} batches of {bench.base[:10]} as the healthy state"
        )
        return learn_from_probe(bench, self.limits().geometry, at=self.clock())

    def limits(self) -> MonitorSettings:
        """The settings of the service that writes the store; the defaults where there is none."""
        return MonitorSettings.load(self.folder)

    def examine(
        self, baseline: Baseline, batch: Batch, *, probed: bool
    ) -> tuple[HealthReport, Diagnosis | None, Diagnosis]:
        """How the service is: the report, what is wrong (None: nothing), and that or else "nothing is".

        probed: `batch` was measured by the probe; then the probe's own components count, whatever a
            service may once have recorded in the store.
        """
        limits = self.limits()
        if probed:
            limits = replace(limits, dim=len(baseline.basin))
        rules = rules_for(limits, baseline)
        batch = remeasure(batch, baseline)
        health = assess(batch.heads()[-1000:], batch.basin_coords[-1000:], rules, baseline, len(batch))
        window = self.settings.diagnose_snapshots
        found = diagnose(batch, baseline, rules, window=window)
        return health, found, found or well(batch, baseline, window=window)

    def judge(
        self, bench: Bench, patch: HealingPatch, diagnosis: Diagnosis, *, refusing: Refusing = refusals
    ) -> Judgement:
        """Measure `patch` against the unpatched code until the judge has seen enough; keep the proof.

        Raises LedgerError when the proof cannot be written.
        """
        with TrialRun(patch, diagnosis, bench, self.repo, self.settings, refusing=refusing) as run:
            trial = run.measure(self.settings.pairs_needed(patch.batches_needed))
            while judge.needs_more(trial, self.settings):
                self.on_step("trial", f"{len(trial.pairs)} pairs measured, more are needed")
                trial = run.measure(len(trial.pairs))
        verdict = judge.verdict(trial, self.settings)
        self.on_step("verdict", f"{verdict.pairs} pairs: {verdict.decision}; {verdict.reason}")
        kept = self._keep(trial, verdict, diagnosis)
        if self.proofs is not None and not kept.bundle and verdict.accepted:
            verdict = replace(verdict, needs_person=(*verdict.needs_person, UNKEPT))
        return Judgement(trial, verdict, kept)

    def _keep(self, trial: Trial, verdict: Verdict, diagnosis: Diagnosis) -> Kept:
        if self.proofs is None:
            return Kept()
        proof = Proof(
            trial=trial,
            verdict=verdict,
            diagnosis=diagnosis,
            settings=self.settings,
            versions=versions(),
            at=self.clock(),
        )
        kept = keep(self.proofs, proof)
        if not kept.bundle:
            self.on_step("proof", UNKEPT)
        return kept
