"""Hosts that the judge's tests have in common, sick and well, and how their trials are read."""

from __future__ import annotations

from functools import cache
from typing import Any

from msgspec.structs import replace

from qigheal.records import Guard, Trial, Verdict
from qigheal.settings import HealSettings
from tests.heal.simulated import World, judged

SETTINGS = HealSettings()
QUIET: dict[str, Any] = {"wall_noise": 0.01, "waits": 0.0, "process_noise": 0.002}
# A temperature of 5 on the digits host: Φ gone, κ 15-fold, the basin smooth and aside.
FAULT: dict[str, Any] = {
    "phi": 0.04, "phi_sd": 0.004, "kappa": 1019.0, "kappa_sd": 8.0, "tilt": 0.05, "concentration": 4000.0,
}  # fmt: skip
CALM = World(**QUIET)
HOT = World(**FAULT, **QUIET)
BOTH = ("phi", "kappa")
LEAK: dict[str, Any] = {"observed": {"memory": 0.8}, "named": ("memory",), "heals": ("memory",)}


def guard(verdict: Verdict, metric: str) -> Guard:
    return next(found for found in verdict.guards if found.metric == metric)


def with_after(trial: Trial, **changed: Any) -> Trial:
    """The trial with other answers of the patched side."""
    pairs = tuple(replace(pair, after=replace(pair.after, **changed)) for pair in trial.pairs)
    return replace(trial, pairs=pairs)


@cache
def cured() -> Trial:
    """The digits fault and its cure, measured until the judge had seen enough."""
    return judged(HOT, CALM, 1, heals=BOTH)[1]
