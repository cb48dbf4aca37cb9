"""The table of the phases, and the ways from one to another, each written to the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from qigheal.errors import PhaseError
from qigheal.healing.phases.gates import GATES, Criterion, StoreEvidence, gate_status
from qigheal.records import Record, Tier

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger

PHASES: Final = {
    1: "monitor: watches and reports, proposes nothing",
    2: "evaluate: proposes patches and measures them, opens nothing",
    3: "review: opens changes, merges only what a person approved",
    4: "autonomous: merges safe patches by itself, others after review",
}


class Permissions(Record, frozen=True):
    """What the autonomous loop may do with a patch of one tier."""

    evaluate: bool
    open: bool
    merge_reviewed: bool  # once a person approved it
    merge_alone: bool


def allowed(phase: int, tier: Tier, level: str = "namespaces") -> Permissions:
    """The table. `level` is the isolation of the patch's trial: less than "namespaces" never merges alone.

    Tier "review" is merged only by a person's own command, in every phase.
    """
    return Permissions(
        evaluate=phase >= 2,
        open=phase >= 3,
        merge_reviewed=phase >= 3 and tier != "review",
        merge_alone=phase >= 4 and tier == "safe" and level == "namespaces",
    )


class Move(Record, frozen=True):
    """The data of a `phase` entry."""

    before: int
    to: Annotated[int, msgspec.Meta(ge=1, le=4)]
    how: Literal["advance", "override", "demote"]
    actor: str
    reason: str
    criteria: tuple[Criterion, ...] = ()


def current(ledger: Ledger) -> int:
    """The present phase, 1 to 4; 1 when none was ever entered."""
    moves = ledger.entries("phase")
    return moves[-1].read(Move).to if moves else 1


def advance(ledger: Ledger, evidence: StoreEvidence, actor: str, at: float) -> int:
    """Enter the next phase through its gate; returns it. PhaseError names every criterion unmet."""
    phase = current(ledger)
    if phase == max(PHASES):
        raise PhaseError(f"phase {phase} is the last one; there is no gate to pass")
    criteria = tuple(line for line in gate_status(ledger, evidence) if line.gate == GATES[phase])
    unmet = [f"{line.name}: needed {line.needed}, found {line.found}" for line in criteria if not line.met]
    if unmet:
        raise PhaseError(
            f"the gate {GATES[phase]} is shut: {'; '.join(unmet)}; gather this, or enter phase {phase + 1} "
            f"on your own word: qigheal phase override {phase + 1} --reason ..."
        )
    return _move(
        ledger, Move(before=phase, to=phase + 1, how="advance", actor=actor, reason="", criteria=criteria), at
    )


def override(ledger: Ledger, to: int, actor: str, reason: str, at: float) -> int:
    """Enter any phase on a person's word, which the ledger keeps; returns it. PhaseError without a reason."""
    if to not in PHASES:
        raise PhaseError(f"expected a phase from {min(PHASES)} to {max(PHASES)}, got {to!r}")
    if not reason.strip() or not actor.strip():
        raise PhaseError(
            f"an override to phase {to} needs the name of who gives it and a reason; it is logged"
        )
    return _move(
        ledger, Move(before=current(ledger), to=to, how="override", actor=actor, reason=reason.strip()), at
    )


def demote(ledger: Ledger, reason: str, at: float) -> int:
    """Go back one phase, never below 1; returns the phase then in force. See `demotion_due`."""
    phase = current(ledger)
    if phase == min(PHASES):
        return phase
    return _move(ledger, Move(before=phase, to=phase - 1, how="demote", actor="qigheal", reason=reason), at)


def _move(ledger: Ledger, move: Move, at: float) -> int:
    ledger.append("phase", str(move.to), move, at)
    return move.to
