"""Stores for the web tests: healthy, unwell, with a ledger."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from qigcore.fitness import Fitness
from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.healing.ledger import Judged, Ledger
from qigheal.records import Change, HealingPatch, Verdict

DIM = 64


def append(history: History, times: Any, **figures: float) -> None:
    """Snapshots at these times, healthy but for `figures`."""
    rng = np.random.default_rng(len(times))
    heads = np.zeros(len(times), HEAD)
    heads["timestamp"] = times
    heads["phi"], heads["kappa_eff"], heads["avg_latency_ms"] = 0.75, 64.2, 12.0
    heads["basin_drift"], heads["memory_mb"], heads["regime"] = 0.1, 100.0, 1
    for name in ("confidence", "surprise", "agency"):
        heads[name] = np.nan
    for name, value in figures.items():
        heads[name] = value
    heads["phi"] += 0.001 * rng.normal(size=len(times))
    heads["code"], heads["module"] = 1, 2
    history.append_rows(
        heads, rng.dirichlet(np.full(DIM, 8.0), len(times)), ("", "a1b2c3d4", "digits.service")
    )


def recorded(store: Path, count: int = 30, *, start: float | None = None, **figures: float) -> float:
    """Snapshots a second apart, the last of them now where no start is given; the time of the last."""
    times = (float(int(time.time())) - count + 1 if start is None else start) + np.arange(count)
    with History(store) as history:
        append(history, times, **figures)
    return float(times[-1])


PATCH = HealingPatch(
    strategy="attention",
    tier="safe",
    base="0" * 40,
    diff="--- a/model.toml\n+++ b/model.toml\n@@ -1 +1 @@\n-t = 5.0\n+t = 0.85\n",
    rationale="t from 5.0 to 0.85",
    heals=("phi",),
)
VERDICT = Verdict(
    decision="improved",
    accepted=True,
    fitness=Fitness(point=0.75, low=0.7, high=0.8, components={"phi": 1.0}),
    guards=(),
    vetoes=(),
    pairs=80,
    sandbox_level="namespaces",
    reason="Φ is back",
)


def patch(number: int = 0) -> HealingPatch:
    return replace(PATCH, diff=PATCH.diff.replace("0.85", f"0.{85 + number}"))


def ledger(store: Path) -> Ledger:
    store.mkdir(exist_ok=True)
    return Ledger(store / "ledger.db")


def judge(book: Ledger, one: HealingPatch, verdict: Verdict = VERDICT, at: float = 1.75e9) -> None:
    book.append("verdict", one.fingerprint, Judged(patch=one, verdict=verdict), at)


def opened(book: Ledger, one: HealingPatch, at: float = 1.75e9, **changes: Any) -> Change:
    """The change of a patch, open unless `changes` say otherwise."""
    made = Change(
        id=one.fingerprint,
        state="open",
        patch=one,
        verdict=VERDICT,
        branch=f"qigheal/{one.fingerprint}",
        target="main",
        opened_at=at,
        head="1" * 40,
    )
    made = replace(made, **changes)
    book.record_change(made, at)
    return made
