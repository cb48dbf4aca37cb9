"""What the phase commands print."""

from __future__ import annotations

from msgspec import to_builtins

from qigheal.cli.show import _table, _when, console, document, escape, line
from qigheal.healing.phases import Drilled, Move, Review, Standing
from qigheal.records import HealingPatch


def standing(found: Standing, *, every: bool, json: bool) -> None:
    if json:
        document(to_builtins(found) | {"missing": found.missing})
        return
    line(f"phase {found.phase}, {found.means}")
    if found.move is not None:
        line(f"  since {_when(found.since)}: {_sentence(found.move)}")
    if found.demotion:
        line(f"  the next pass goes back to phase {found.phase - 1}: {found.demotion}")
    if found.breaker_open:
        line("  the breaker is open after repeated rollbacks: nothing is tried until a person has looked")
    table = _table("gate", "", "criterion", "needed", "found")
    for criterion in found.criteria:
        if every or criterion.gate == found.gate:
            mark = "[green]met[/]" if criterion.met else "[yellow]open[/]"
            table.add_row(
                criterion.gate,
                mark,
                escape(criterion.name),
                escape(criterion.needed),
                escape(criterion.found),
            )
    console.print(table)
    if not found.missing:
        line("nothing is missing" + ("" if found.phase == 4 else "; go on with: qigheal phase advance"))
    for criterion in found.missing:
        line(f"  {criterion.name}: {criterion.advice}")


def moved(move: Move, *, json: bool) -> None:
    if json:
        document({"phase": move.to, "move": move})
    else:
        line(f"phase {move.to}")


def drilled(done: Drilled, *, json: bool) -> None:
    if json:
        document(done)
    elif done.ok:
        line(
            f"the rollback works: merge {done.merge_commit[:10]} was taken back as {done.revert_commit[:10]}"
        )
    else:
        line(f"the rollback failed: {done.reason}")


def reviewed(patch: HealingPatch, word: Review, *, json: bool) -> None:
    if json:
        document({"patch": patch.fingerprint, "review": word})
    else:
        line(f"patch {patch.fingerprint} is {'approved' if word.approved else 'rejected'} by {word.reviewer}")


def _sentence(move: Move) -> str:
    """How the phase was entered, and why."""
    if move.how == "demote":
        return f"went back from phase {move.before} by itself: {move.reason}"
    if move.how == "override":
        return f"{move.actor} entered it from phase {move.before} by override: {move.reason}"
    return f"{move.actor} entered it from phase {move.before} through its gate"
