"""Asks a strategy for its patches, and writes down that it was asked, and why it had no more.

A search that found nothing finds nothing in the same code for the same trouble, so the autonomous loop need
not repeat it, unless qigheal is another version since; and the gates count a strategy as tried that was asked and
had no patch. Which strategy is asked, and what becomes of a patch, is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from qigheal.healing.bench import Bench
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Asked, allowed, current
from qigheal.healing.proofs import version_of
from qigheal.healing.strategies import Strategy
from qigheal.reasons import Reasons, heard
from qigheal.records import Diagnosis, HealingPatch
from qigheal.repo import Repo

TRIALS: Final = 3
"""Trials of one patch on the same code after which the loop lets it be, when none of them decided."""

NOT_HERE: Final = "not asked, as the sandbox is only partial"
NOT_AGAIN: Final = "had no patch for this before; not asked again"


def asked_in_vain(
    ledger: Ledger, strategy: Strategy, diagnosis: Diagnosis, base: str, reasons: Reasons
) -> bool:
    """Whether the last answer that this version had for this commit and these metrics was no patch.

    Why is added to `reasons`.
    """
    last = _last(ledger, strategy.name, base, _metrics(diagnosis))
    if last is None or last.patches:
        return False
    reasons.add(strategy.name, last.reasons or (NOT_AGAIN,))
    return True


def proposals(
    ledger: Ledger,
    strategy: Strategy,
    diagnosis: Diagnosis,
    bench: Bench,
    repo: Repo,
    reasons: Reasons,
    clock: Callable[[], float],
    timer: Callable[[], float] = time.monotonic,
) -> Iterator[HealingPatch]:
    """The strategy's patches, each with the time it took. When there are no more, its answer is written down.

    What it says meanwhile is added to `reasons`. The same answer is written once, with what was said the first
    time; nothing where the present code cannot be measured: then it had nothing to go by.
    """
    patches = 0
    own = Reasons()
    found = iter(strategy.propose(diagnosis, bench, repo))
    while True:
        began = timer()  # what was done with the patch before is not the strategy's time
        with heard() as said:
            patch = next(found, None)
        took = timer() - began
        own.add(strategy.name, said)
        reasons.add(strategy.name, said)
        if patch is None:
            break
        patches += 1
        yield replace(patch, found_s=took)
    if not patches and not own.of(strategy.name):
        reasons.add(strategy.name, ("has no patch for this, and does not say why",))
    answer = Asked(
        base=bench.base,
        metrics=_metrics(diagnosis),
        patches=patches,
        reasons=own.of(strategy.name),
        version=version_of("qigheal"),
    )
    last = _last(ledger, strategy.name, answer.base, answer.metrics)
    # Figures in the reasons differ each time, and are no other answer.
    if not bench.failure and (last is None or last.patches != patches):
        ledger.append("asked", strategy.name, answer, clock())


def not_now(ledger: Ledger, patch: HealingPatch, *, again: bool, auto_apply: bool) -> str:
    """Why a proposal is not measured, or an empty string.

    again: whether patches are measured once more whose trials on the same code have decided. auto_apply: whether an
    accepted one may be opened in any phase.
    """
    if ledger.quarantined(patch):
        return "was rejected or rolled back before"
    words = [word for judged, word, _ in ledger.verdicts() if judged.fingerprint == patch.fingerprint]
    if again or not words:
        return ""
    last, phase = words[-1], current(ledger)
    if last.accepted:
        if auto_apply or allowed(phase, patch.tier, last.sandbox_level).open:
            return ""
        return f"was measured and helps; phase {phase} opens no changes"
    if last.decision == "inconclusive" and len(words) < TRIALS:
        return ""
    return f"was measured {len(words)} times, last: {last.decision}; {last.reason}"


def nothing_came(patches: int, skipped: str, failure: str) -> str:
    """The sentence on a pass that opened nothing: how many patches were measured, or what kept them from it."""
    if patches:
        return f"unhealthy; patches measured: {patches}, none provably helps"
    if failure:
        return f"unhealthy; the present code cannot be measured: {failure}"
    if skipped:
        return f"unhealthy; no strategy has another patch for this: {skipped}"
    return "unhealthy; no strategy has a patch for this"


class Vain(NamedTuple):
    """A strategy's last answer, which was no patch, and when it gave it (Unix seconds)."""

    strategy: str
    answer: Asked
    at: float


def in_vain(ledger: Ledger) -> tuple[Vain, ...]:
    """The strategies that last had no patch, each once, in the order in which they were asked."""
    last = {entry.subject: entry for entry in ledger.entries("asked")}
    answers = (Vain(name, entry.read(Asked), entry.at) for name, entry in last.items())
    return tuple(vain for vain in answers if not vain.answer.patches)


def _last(ledger: Ledger, strategy: str, base: str, metrics: tuple[str, ...]) -> Asked | None:
    answers = [entry.read(Asked) for entry in ledger.entries("asked", strategy)]
    wanted = (base, metrics, version_of("qigheal"))
    same = [answer for answer in answers if (answer.base, answer.metrics, answer.version) == wanted]
    return same[-1] if same else None


def _metrics(diagnosis: Diagnosis) -> tuple[str, ...]:
    return tuple(sorted(diagnosis.metrics))
