"""Strategies: each looks at a diagnosis and proposes patches that might heal it.

A strategy reads the host's repository through `Repo` and measures through `Bench`; it writes
nothing, applies nothing, judges nothing. The same input gives the same patches. Strategies import
neither one another nor any other stage of the chain; modules here that are no strategy are tools
that several share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from qigheal.healing.strategies.bounding.memory import Memory
from qigheal.healing.strategies.caching.latency import Latency
from qigheal.healing.strategies.foreign import installed
from qigheal.healing.strategies.repeating.errors import Errors
from qigheal.healing.strategies.reverting.revert import Revert
from qigheal.healing.strategies.turning.attention import Attention
from qigheal.healing.strategies.turning.basin import Basin
from qigheal.records import Diagnosis, HealingPatch, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo


class Strategy(Protocol):
    """What the engine needs of a strategy."""

    @property
    def name(self) -> str:
        """The name that levers, changes and the command line know it by."""

    @property
    def tier(self) -> Tier:
        """How far its patches may go without a person."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics (keys of `qigcore.rows.METRICS`) that it can heal; asked for no others."""

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """Patches against `bench.base`, the likeliest first; none when nothing helps."""


def builtin(settings: HealSettings) -> tuple[Strategy, ...]:
    """The strategies that come with qigheal, in the order in which they are asked."""
    return (
        Attention(settings),
        Basin(settings),
        Latency(settings),
        Errors(settings),
        Memory(settings),
        Revert(settings),
    )


def every(settings: HealSettings) -> tuple[Strategy, ...]:
    """The built-in strategies and then those of other packages."""
    own = builtin(settings)
    return (*own, *installed(settings, {strategy.name for strategy in own}))


def askable(settings: HealSettings, level: str) -> tuple[tuple[Strategy, ...], tuple[str, ...]]:
    """The strategies to ask where the sandbox isolates at `level`, and the names of those left out.

    Where isolation is partial, what other packages propose is not run.
    """
    strategies = every(settings)
    own = len(builtin(settings)) if level == "partial" else len(strategies)
    return strategies[:own], tuple(strategy.name for strategy in strategies[own:])
