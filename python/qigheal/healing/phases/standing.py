"""Where the healer stands: its phase, how it got there, what the next gate asks for, what holds it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qigheal.healing.phases.brakes import breaker_open, demotion_due
from qigheal.healing.phases.gates import GATES, Criterion, StoreEvidence, gate_status
from qigheal.healing.phases.moves import PHASES, Move, current
from qigheal.records import Record
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger


class Standing(Record, frozen=True):
    """The present phase and all that bears on it."""

    phase: int
    means: str  # what the healer does in it
    gate: str  # the next one, a value of GATES; in the last phase what it takes to stay
    criteria: tuple[Criterion, ...]  # of every gate
    move: Move | None  # the last one; None while no phase was ever entered
    since: float | None  # Unix seconds
    demotion: str  # why the next pass of the healer goes back a phase, or an empty string
    breaker_open: bool

    @property
    def missing(self) -> tuple[Criterion, ...]:
        """What the next gate still asks for."""
        return tuple(line for line in self.criteria if line.gate == self.gate and not line.met)


def standing(ledger: Ledger, evidence: StoreEvidence, settings: HealSettings, now: float) -> Standing:
    """All of it, as the ledger and the evidence have it now."""
    phase = current(ledger)
    moves = ledger.entries("phase")
    return Standing(
        phase=phase,
        means=PHASES[phase],
        gate=GATES[phase],
        criteria=gate_status(ledger, evidence),
        move=moves[-1].read(Move) if moves else None,
        since=moves[-1].at if moves else None,
        demotion=demotion_due(ledger, settings, now),
        breaker_open=breaker_open(ledger, settings, now),
    )
