"""A bench and a repository that exist only in memory: answers drawn from a model with known effects.

What a real machine does to a measurement is in it: noise that multiplies, answers that wait now and
then, a machine that slows down meanwhile, and processes that are fast or slow for as long as they live.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from msgspec.structs import replace

from qigheal.healing import judge
from qigheal.healing.trial import TrialRun
from qigheal.host import Manifest
from qigheal.records import (
    Answer,
    BandOf,
    Diagnosis,
    FileChange,
    HealingPatch,
    Target,
    Trial,
    Verdict,
)
from qigheal.sandbox import Completed
from qigheal.settings import HealSettings

DIM = 8
DIFF = """diff --git a/config/model.toml b/config/model.toml
index 1111111..2222222 100644
--- a/config/model.toml
+++ b/config/model.toml
@@ -1,2 +1,2 @@
 [attention]
-temperature = 5.0
+temperature = 0.85
"""
MANIFEST = """
[probe]
command = ["python", "-m", "digits.probe"]
[patch]
allow = ["digits/**/*.py", "config/*.toml"]
"""
HEALTHY = np.full(DIM, 1 / DIM)


@dataclass(frozen=True)
class World:
    """What code does, in the mean, and how noisily it is seen."""

    phi: float = 0.77
    phi_sd: float = 0.010
    kappa: float = 66.8
    kappa_sd: float = 2.1
    tilt: float = 0.0  # how far the basin leans towards its first component
    concentration: float = 400.0  # of the Dirichlet law that basins follow
    errors: float = 0.0
    wall_ms: float = 5.0
    rss_mb: float = 130.0
    leak_mb: float = 0.0  # per answer
    leak_most_mb: float = math.inf  # where it ends
    rss_noise_mb: float = 0.0  # from answer to answer, drawn anew each time
    shared: float = 0.9  # part of the variance of Φ and κ that comes from the request
    wall_noise: float = 0.05
    waits: float = 0.02  # part of the answers that wait, two to five times as long
    rare: float = 0.0  # part of the answers that take `rare_ms` longer
    rare_ms: float = 0.0
    process_noise: float = 0.007
    phi_process: float = (
        0.0  # standard deviation of the level of Φ that a process has for as long as it lives
    )
    unlucky: float = 0.0  # part of the processes that are slower by 40 % for as long as they live
    digest: str | None = None  # None: one that follows from the request


# A trial asks the same requests of both sides, and every trial the same ones: drawn once, they are what
# they would be if they were drawn each time.
@cache
def requested(seed: int, batch: int, tilt: float, concentration: float) -> tuple[Any, tuple[float, ...]]:
    """What comes from the request alone: its part of the noise of Φ and κ, shape=[2], and its basin."""
    draw = np.random.default_rng((seed, batch))
    common = draw.normal(size=2)
    weights = HEALTHY.copy()
    weights[0] += tilt
    return common, tuple(draw.dirichlet(concentration * (weights / weights.sum())).tolist())


class SimulatedProbe:
    """One process: its luck is drawn when it starts."""

    def __init__(self, bench: SimulatedBench, world: World) -> None:
        self.bench, self.world, self.asked = bench, world, 0
        draw = bench.rng
        self.speed = math.exp(world.process_noise * draw.normal()) * (
            1.4 if draw.random() < world.unlucky else 1.0
        )
        self.phi = world.phi + (world.phi_process * draw.normal() if world.phi_process else 0.0)
        self.offset_mb = 0.002 * world.rss_mb * draw.normal()

    def ask(self, batch: int, seed: int) -> Answer:
        world, draw = self.world, self.bench.rng
        self.asked += 1
        self.bench.answered += 1
        common, basin = requested(seed, batch, world.tilt, world.concentration)
        own = draw.normal(size=2)
        z = math.sqrt(world.shared) * common + math.sqrt(1 - world.shared) * own
        wait = draw.uniform(2, 5) if draw.random() < world.waits else 1.0
        wall = world.wall_ms * self.speed * self.bench.machine() * wait
        wall *= math.exp(world.wall_noise * draw.normal())
        wall += world.rare_ms if world.rare and draw.random() < world.rare else 0.0
        return Answer(
            batch=batch,
            phi=min(1.0, max(0.0, float(self.phi + world.phi_sd * z[0]))),
            kappa_eff=float(world.kappa + world.kappa_sd * z[1]),
            basin=basin,
            error_rate=world.errors,
            avg_latency_ms=1.0,
            wall_ms=float(wall),
            cpu_ms=float(wall),
            rss_mb=float(
                world.rss_mb
                + self.offset_mb
                + min(world.leak_mb * self.asked, world.leak_most_mb)
                + (world.rss_noise_mb * draw.normal() if world.rss_noise_mb else 0.0)
            ),
            output_digest=world.digest or f"{seed}",
        )

    def finish(self) -> None:
        self.bench.finished += 1


@dataclass
class SimulatedBench:
    """Answers as `before` without a diff, as `after` with one."""

    before: World = World()
    after: World = World()
    seed: int = 0
    tests: Completed | None = None
    level: str = "namespaces"
    answered: int = 0
    started: list[str] = field(default_factory=list)
    finished: int = 0
    wrap: Callable[[Any, str], Any] = lambda probe, side: probe  # to make one misbehave

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.manifest = Manifest.parse(MANIFEST)

    def machine(self) -> float:
        """The machine's slowness: a swing of 20 %, and a slow decline."""
        return 1.0 + 0.2 * math.sin(self.answered / 37) + 0.0005 * self.answered

    def inspect(self, instrument: str, requests: Any, kind: Any, **_: Any) -> Any:
        assert instrument == "audit"
        return kind(seen={}, replaced=())

    @contextlib.contextmanager
    def probe(self, diff: str | None = None) -> Iterator[Any]:
        side = "before" if diff is None else "after"
        self.started.append(side)
        yield self.wrap(SimulatedProbe(self, self.before if diff is None else self.after), side)

    def run_tests(self, diff: str | None = None) -> Completed | None:
        return self.tests

    def search_requests(self, n: int, start: int = 0) -> list[tuple[int, int]]:
        return [(2 * i, 500 + i) for i in range(start, start + n)]

    def trial_requests(self, n: int, start: int = 0) -> list[tuple[int, int]]:
        return [(2 * i + 1, 1000 + i) for i in range(start, start + n)]


CHANGE = FileChange(
    status="M",
    old_path="config/model.toml",
    new_path="config/model.toml",
    old_mode="100644",
    new_mode="100644",
    added=1,
    deleted=1,
)


@dataclass
class SimulatedRepo:
    """A repository as far as a trial asks it."""

    changed: tuple[FileChange, ...] = (CHANGE,)
    files: dict[str, bytes] = field(default_factory=dict)
    error: Exception | None = None

    def apply(self, base: str, diff: str) -> str:
        if self.error is not None:
            raise self.error
        return "tree"

    def changes(self, base: str, tree: str) -> tuple[FileChange, ...]:
        return self.changed

    def entries(self, commit: str) -> dict[str, Any]:
        return {}

    def read(self, commit: str, path: str) -> bytes:
        return self.files[path]


def band(mean: float, sd: float, floor: float = 0.0) -> BandOf:
    width = 3 * max(sd, floor)
    return BandOf(mean=mean, sd=sd, low=max(0.0, mean - width), high=mean + width)


def target() -> Target:
    return Target(
        geometry="simplex",
        basin=tuple(np.sqrt(HEALTHY).tolist()),
        drift_limit=0.25,
        bands={
            "phi": band(0.77, 0.010),
            "kappa": band(66.8, 2.1),
            "basin_drift": band(0.13, 0.035),
            "latency": band(5.0, 0.3, 1.0),
            "errors": band(0.001, 0.0005, 0.002),
            "memory": BandOf(mean=0.0, sd=0.01, low=-0.3, high=0.3),
        },
    )


def diagnosis(*metrics: str, **observed: float) -> Diagnosis:
    return Diagnosis(
        metrics=metrics,
        findings=(),
        severity="critical",
        target=target(),
        observed={"latency": 5.0, **observed},
        code_hash="b" * 40,
        healthy_code_hash="",
        since=None,
        snapshots=50,
    )


def patch(**fields: Any) -> HealingPatch:
    return HealingPatch(
        **{
            "strategy": "attention",
            "tier": "safe",
            "base": "b" * 40,
            "diff": DIFF,
            "rationale": "a test",
            "heals": (),
            **fields,
        }
    )


def judged(
    before: World,
    after: World,
    seed: int,
    *,
    settings: HealSettings | None = None,
    named: tuple[str, ...] = ("phi", "kappa"),
    observed: dict[str, float] | None = None,
    **claims: Any,
) -> tuple[Verdict, Trial]:
    """A whole trial, extended as the engine does it, and its verdict."""
    settings = replace(settings or HealSettings(), seed=seed)
    bench: Any = SimulatedBench(before, after, seed=seed)
    repo: Any = SimulatedRepo()
    with TrialRun(patch(**claims), diagnosis(*named, **(observed or {})), bench, repo, settings) as run:
        trial = run.measure(settings.pairs_needed(run.trial.patch.batches_needed))
        while judge.needs_more(trial, settings):
            trial = run.measure(len(trial.pairs))
    return judge.verdict(trial, settings), trial
