"""What holds the loop back within a phase: too many rollbacks, too many changes, too few successes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qigheal.healing.phases.evidence import TAKEN_BACK, figures
from qigheal.healing.phases.moves import PHASES, current
from qigheal.records import Change
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger

ENOUGH_SETTLED: Final = 5
"""Settled changes from which their share of confirmed ones is taken to mean something."""


def _rollbacks(ledger: Ledger) -> dict[str, tuple[int, float]]:
    """Changes being or having been taken back: the entry and the time at which that began."""
    begun: dict[str, tuple[int, float]] = {}
    last: dict[str, str] = {}
    for entry in ledger.entries("change"):
        last[entry.subject] = state = entry.read(Change).state
        if state in TAKEN_BACK:
            begun.setdefault(entry.subject, (entry.seq, entry.at))
    return {subject: when for subject, when in begun.items() if last[subject] in TAKEN_BACK}


def breaker_open(ledger: Ledger, settings: HealSettings, now: float) -> bool:
    """Whether `breaker_rollbacks` changes were taken back within the window: healing stops while they were."""
    recent = [at for _, at in _rollbacks(ledger).values() if at > now - settings.breaker_window_s]
    return len(recent) >= settings.breaker_rollbacks


def next_change_at(ledger: Ledger, settings: HealSettings) -> float:
    """Unix seconds from which the loop may open another change; 0.0 when it has opened none.

    What a person put through by override does not slow the loop down.
    """
    opened = [change.opened_at for change in ledger.changes().values() if change.verdict is not None]
    return max(opened) + settings.new_change_every_s if opened else 0.0


def demotion_due(ledger: Ledger, settings: HealSettings, now: float) -> str:
    """Why the loop must go back a phase now; an empty string when it need not.

    An open breaker demotes once: not again while no further change is taken back.
    """
    phase = current(ledger)
    if phase == min(PHASES):
        return ""
    if breaker_open(ledger, settings, now):
        moves = ledger.entries("phase")
        if max(seq for seq, _ in _rollbacks(ledger).values()) > (moves[-1].seq if moves else 0):
            many = settings.breaker_rollbacks
            return (
                f"{'1 change or more was' if many == 1 else f'{many} changes or more were'} taken back within "
                f"{settings.breaker_window_s / 3600:g} h"
            )
    found = figures(ledger)
    share = found.confirmed_share
    if phase == max(PHASES) and share is not None and found.settled >= ENOUGH_SETTLED and share < 0.7:
        return f"only {found.confirmed} of {found.settled} applied changes were confirmed, below 70 %"
    return ""
