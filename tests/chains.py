"""Chains to add self-healing to, and what they answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from qigcore.rows import Batch
from qigheal.integrations.qigchain import (
    add_self_healing_to_chain,
)

BASIN = np.random.default_rng(0).normal(size=64)


def step(number: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "step": number,
        "name": f"project-{number % 3}",
        "phi_before": 0.9,
        "phi_after": 1.0,
        "kappa_before": 8.0,
        "kappa_after": 7.8,
        "bures_distance": 0.1,
        "basin_coords": BASIN.tolist(),
        "duration_ms": 2.0,
        **other,
    }


@dataclass
class Result:
    trajectory: Any
    success: Any = True
    reason: str = "converged"
    final_phi: Any = 1.0
    final_kappa: Any = 7.8
    final_basin: Any = field(default_factory=lambda: BASIN)


class Chain:
    """Gives whatever stands in `answers`, then single steps; raises what is an exception."""

    def __init__(self, answers: list[Any] | None = None) -> None:
        self.answers = answers or []

    def run(self, initial_basin: Any, context: Any = None) -> Any:
        """Collapse the search space."""
        answer = self.answers.pop(0) if self.answers else Result([step()])
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Slotted:
    __slots__ = ("answers",)

    def __init__(self) -> None:
        self.answers: list[Any] = []

    run = Chain.run


class Child(Chain):
    def run(self, initial_basin: Any, context: Any = None) -> Any:
        return super().run(initial_basin, context=context)


class Async(Chain):
    async def run(self, initial_basin: Any, context: Any = None) -> Any:
        await asyncio.sleep(0)
        return Chain.run(self, initial_basin, context)


def monitored(chain: Any, **more: Any) -> Any:
    return add_self_healing_to_chain(chain, code_hash="", memory_mb=lambda: 100.0, **more)


@pytest.fixture(autouse=True)
def classes_as_before() -> Iterator[None]:
    """No test may leave a hook behind, and no hook may outlive its objects' removal."""
    kinds = (Chain, Slotted, Child, Async, Measured, Frozen, Named)
    before = [dict(vars(kind)) for kind in kinds]
    yield
    gc.collect()
    for kind, was in zip(kinds, before, strict=True):
        for name, value in was.items():
            if name in {"run", "self_healing"}:
                found = kind.__dict__[name]
                setattr(kind, name, value)
                assert getattr(found, "__qigheal_place__", None) is None or not found.__qigheal_place__.taken
        if "self_healing" in kind.__dict__ and "self_healing" not in was:
            assert not kind.__dict__["self_healing"].place.taken
            delattr(kind, "self_healing")
        if "run" in kind.__dict__ and "run" not in was:
            del kind.run


class Measured:
    """Has no run; is asked for its metrics."""

    def __init__(self, consciousness: Any, performance: Any) -> None:
        self.consciousness, self.performance = consciousness, performance
        self.asked = asyncio.Event()

    def get_consciousness_metrics(self) -> Any:
        self.asked.set()
        if isinstance(self.consciousness, Exception):
            raise self.consciousness
        return self.consciousness

    async def get_performance_metrics(self) -> Any:
        return self.performance


@dataclass(frozen=True)
class Frozen:
    number: int = 1

    def run(self, initial_basin: Any, context: Any = None) -> Any:
        return Result([step(self.number)])


class Named:
    """Has an attribute of that name itself."""

    def __init__(self) -> None:
        self.self_healing = "mine"

    def run(self, initial_basin: Any, context: Any = None) -> Any:
        return Result([step()])


def heads(chain: Any) -> Batch:
    return Batch.of_snapshots(list(chain.self_healing.monitor.snapshots))
