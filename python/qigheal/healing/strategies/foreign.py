"""Strategies of other packages, found by the entry point group `qigheal.strategies`.

An entry point names a callable that takes the `HealSettings` and gives a strategy:

    [project.entry-points."qigheal.strategies"]
    quantise = "our_package.healing:Quantise"

Whoever installs such a package lets its code run in the healer. What it proposes is judged like every
patch, and is of tier "review" whatever it says: only a person merges it. What goes wrong in it is
logged and stops nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qigheal.reasons import log
from qigheal.records import Diagnosis, HealingPatch, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

GROUP = "qigheal.strategies"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
"""What a strategy may be called: its name becomes part of a branch's."""


class Foreign:
    """A strategy of another package: its patches carry its entry point's name and tier "review"."""

    tier: Tier = "review"

    def __init__(self, name: str, strategy: Any) -> None:
        self.name = name
        self.metrics = tuple(map(str, strategy.metrics))
        self._strategy = strategy

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """Its patches against `bench.base`; it ends where the strategy fails, or gives something else."""
        try:
            for patch in self._strategy.propose(diagnosis, bench, repo):
                if not isinstance(patch, HealingPatch) or patch.base != bench.base:
                    log.warning(
                        "strategy %s: expected a HealingPatch against %s, got %.100r; it is asked no further",
                        self.name,
                        bench.base[:10],
                        patch,
                    )
                    return
                yield replace(patch, strategy=self.name, tier=self.tier)
        except Exception:
            log.exception("strategy %s failed; it is asked no further", self.name)


def installed(settings: HealSettings, taken: Collection[str]) -> tuple[Foreign, ...]:
    """The strategies that other packages bring, by name; none whose name is one of `taken`."""
    found: dict[str, Foreign] = {}
    for point in sorted(entry_points(group=GROUP)):
        if not NAME.fullmatch(point.name) or point.name in taken or point.name in found:
            log.warning(
                "entry point %r of %s: expected a name of its own of the form %s; it is left out",
                point.name,
                GROUP,
                NAME.pattern,
            )
            continue
        if (strategy := _made(point, settings)) is not None:
            found[point.name] = strategy
    return tuple(found.values())


def _made(point: EntryPoint, settings: HealSettings) -> Foreign | None:
    try:
        return Foreign(point.name, point.load()(settings))
    except Exception:
        log.exception("strategy %s (%s) cannot be made; it is left out", point.name, point.value)
        return None
