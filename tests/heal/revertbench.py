"""Real commits, and a bench whose answers are a formula of them: for the tests of the revert strategy.

Each commit switches on a file of its own, so that what the probe sees of a tree is the set of switches
that are on in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from qigheal.errors import ProbeError
from qigheal.healing.strategies.reverting.revert import Revert
from qigheal.host import Manifest
from qigheal.records import Answer, BandOf, Diagnosis, HealingPatch, Target
from qigheal.repo import Repo
from qigheal.settings import HealSettings

COMMITS = 16
MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
protect = ["app/probe.py"]
[patch]
allow = ["app/**/*.py"]
"""
BANDS = {
    "phi": BandOf(mean=0.75, sd=0.01, low=0.72, high=0.78),
    "kappa": BandOf(mean=64.0, sd=1.0, low=61.0, high=67.0),
    "basin_drift": BandOf(mean=0.1, sd=0.02, low=0.0, high=0.2),
    "latency": BandOf(mean=5.0, sd=0.5, low=2.0, high=8.0),
    "errors": BandOf(mean=0.01, sd=0.01, low=0.0, high=0.04),
    "memory": BandOf(mean=0.0, sd=0.01, low=-0.3, high=0.3),
}
On = frozenset[int]
Respond = Callable[[On, int, int], dict[str, Any]]
"""From the switches that are on, the batch, and how many answers the probe gave before: fields of an answer."""


@dataclass
class FakeBench:
    """Probes that answer by the switches of the tree that they run on."""

    repo: Repo
    respond: Respond
    broken: On = frozenset()  # switches whose own commit cannot be probed
    base: str = ""
    manifest: Manifest = field(default_factory=lambda: Manifest.parse(MANIFEST))
    asked: list[tuple[str | None, list[tuple[int, int]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = self.base or self.repo.head()

    def search_requests(self, count: int, start: int = 0) -> list[tuple[int, int]]:
        return [(i, 11) for i in range(start, start + count)]

    @contextmanager
    def probe(self, name: str | None = None) -> Iterator[SimpleNamespace]:
        tree = name or self.base
        on = self.on(self.repo.apply(self.base, tree) if "\n" in tree else tree)
        if on and max(on) in self.broken and name is not None and "\n" not in name:
            raise ProbeError("it does not start")
        requests: list[tuple[int, int]] = []
        self.asked.append((name, requests))

        def ask(batch: int, seed: int) -> Answer:
            fields = {
                "phi": 0.75,
                "kappa_eff": 64.0,
                "basin": (0.5, 0.3, 0.2),
                "error_rate": 0.01,
                "avg_latency_ms": 1.0,
                "wall_ms": 5.0,
                "cpu_ms": 5.0,
                "rss_mb": 50.0,
            }
            fields |= self.respond(on, batch, len(requests))
            requests.append((batch, seed))
            return Answer(batch=batch, **fields)  # type: ignore[arg-type]

        yield SimpleNamespace(ask=ask)

    def on(self, tree: str) -> On:
        found = set()
        for path, entry in self.repo.entries(tree).items():
            if path.startswith("app/part"):
                if entry.sha not in BLOBS:
                    BLOBS[entry.sha] = self.repo.read(tree, path).startswith(b"ON = True")
                if BLOBS[entry.sha]:
                    found.add(int(path.removeprefix("app/part").removesuffix(".py")))
        return frozenset(found)


BLOBS: dict[str, bool] = {}
"""Whether a file of this content is on: starting git for each of sixteen takes longer than the rest."""


def part(on: bool) -> str:
    return f"ON = {on}\n"


def diagnosis(healthy: str, *metrics: str, **changed: Any) -> Diagnosis:
    fields: dict[str, Any] = {
        "metrics": metrics or ("phi",),
        "findings": (),
        "severity": "critical",
        "target": Target(
            geometry="simplex",
            basin=tuple(math.sqrt(p) for p in (0.5, 0.3, 0.2)),
            drift_limit=0.2,
            bands=BANDS,
        ),
        "observed": {},
        "code_hash": "c0ffee",
        "healthy_code_hash": healthy,
        "since": None,
        "snapshots": 50,
    }
    return Diagnosis(**(fields | changed))


def propose(bench: FakeBench, found: Diagnosis) -> list[HealingPatch]:
    return list(Revert(HealSettings()).propose(found, bench, bench.repo))  # type: ignore[arg-type]


def low_phi(guilty: int) -> Respond:
    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        noise = random.Random(f"{batch}").gauss(0, 0.008)
        return {"phi": (0.4 if guilty in on else 0.75) + noise}

    return respond


def after(bench: FakeBench, patch: HealingPatch) -> On:
    """The switches that are on with the patch."""
    return bench.on(bench.repo.apply(bench.base, patch.diff))
