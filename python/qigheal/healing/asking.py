"""Asks a strategy for its patches, and writes down that it was asked.

A search that found nothing finds nothing in the same code for the same trouble, so the autonomous loop need
not repeat it; and the gates count a strategy as tried that was asked and had no patch. Which strategy
is asked, and what becomes of a patch, is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from qigheal.healing.bench import Bench
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Asked
from qigheal.healing.strategies import Strategy
from qigheal.records import Diagnosis, HealingPatch
from qigheal.repo import Repo


def asked_in_vain(ledger: Ledger, strategy: Strategy, diagnosis: Diagnosis, base: str) -> bool:
    """Whether the strategy's last answer for this commit and these metrics was no patch."""
    last = _last(ledger, strategy.name, base, _metrics(diagnosis))
    return last is not None and last.patches == 0


def proposals(
    ledger: Ledger,
    strategy: Strategy,
    diagnosis: Diagnosis,
    bench: Bench,
    repo: Repo,
    clock: Callable[[], float],
    timer: Callable[[], float] = time.monotonic,
) -> Iterator[HealingPatch]:
    """The strategy's patches, each with the time it took. When there are no more, its answer is written down.

    The same answer is written once; nothing where the present code cannot be measured: then it had nothing to
    go by.
    """
    patches = 0
    began = timer()
    for patch in strategy.propose(diagnosis, bench, repo):
        patches += 1
        yield replace(patch, found_s=timer() - began)
        began = timer()  # what was done with the patch meanwhile is not the strategy's time
    answer = Asked(base=bench.base, metrics=_metrics(diagnosis), patches=patches)
    if not bench.failure and _last(ledger, strategy.name, answer.base, answer.metrics) != answer:
        ledger.append("asked", strategy.name, answer, clock())


def _last(ledger: Ledger, strategy: str, base: str, metrics: tuple[str, ...]) -> Asked | None:
    answers = [entry.read(Asked) for entry in ledger.entries("asked", strategy)]
    same = [answer for answer in answers if (answer.base, answer.metrics) == (base, metrics)]
    return same[-1] if same else None


def _metrics(diagnosis: Diagnosis) -> tuple[str, ...]:
    return tuple(sorted(diagnosis.metrics))
