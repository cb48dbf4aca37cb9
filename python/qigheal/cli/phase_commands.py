"""The commands about the four phases: where the healer stands, and the ways on and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qigheal.cli import FINE, UNHEALTHY, show, show_phase
from qigheal.cli.options import Json, Store
from qigheal.cli.options import existing as _existing
from qigheal.errors import LedgerError
from qigheal.settings import HealSettings, operator

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger
    from qigheal.healing.phases import StoreEvidence

phase_app = typer.Typer(
    help="The four phases: what the healer may do by itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Host = Annotated[
    Path | None,
    typer.Option("--host", help="The service's git repository: its manifest says which strategies apply."),
]
Hours = Annotated[
    float | None,
    typer.Option(
        "--hours-per-repair",
        min=0.0,
        help="Hours in which a person would find and mend one such fault: by your word, for the hours saved.",
    ),
]


def _ledger(store: Path) -> Ledger:
    """The store's ledger, whose chain must be whole: gates open on what stands in it."""
    from qigheal.healing.ledger import Ledger

    ledger = Ledger(store / "ledger.db")
    if broken := ledger.verify():
        raise LedgerError(
            f"{ledger.path}: the ledger's chain is broken: {broken[0]}; nothing is decided on its word. "
            "See to who wrote to it, then move it away to begin a new one"
        )
    return ledger


def _evidence(store: Path, host: Path | None, hours: float | None) -> StoreEvidence:
    from qigheal.healing.stored import store_evidence
    from qigheal.repo import Repo

    repo = None if host is None else Repo(host)
    return store_evidence(store, now=time.time(), host=repo, hours_per_repair=hours)


@phase_app.command()
def status(
    host: Host = None,
    store: Store = None,
    hours_per_repair: Hours = None,
    every: Annotated[bool, typer.Option("--all", help="Show every gate, not only the next one.")] = False,
    json: Json = False,
) -> int:
    """The present phase, what the next gate asks for and what was found, and what to do about the rest.

    Example: qigheal phase status --host ~/src/digits
    """
    from qigheal.healing import phases

    place = _existing(store)
    evidence = _evidence(place, host, hours_per_repair)
    found = phases.standing(_ledger(place), evidence, HealSettings.load(place), time.time())
    show_phase.standing(found, every=every, json=json)
    return FINE


@phase_app.command()
def advance(
    host: Host = None, store: Store = None, hours_per_repair: Hours = None, json: Json = False
) -> int:
    """Enter the next phase, if its gate is met on the evidence.

    Example: qigheal phase advance --host ~/src/digits
    """
    from qigheal.healing import phases

    place = _existing(store)
    ledger = _ledger(place)
    evidence = _evidence(place, host, hours_per_repair)
    phases.advance(ledger, evidence, actor=operator(), at=time.time())
    show_phase.moved(ledger.entries("phase")[-1].read(phases.Move), json=json)
    return FINE


@phase_app.command()
def override(
    to: Annotated[int, typer.Argument(help="The phase to enter, 1 to 4.", min=1, max=4)],
    reason: Annotated[str, typer.Option(help="Why the gate does not count; kept in the ledger.")],
    store: Store = None,
    json: Json = False,
) -> int:
    """Enter a phase whatever its gate says. Logged.

    Example: qigheal phase override 3 --reason "trying it out"
    """
    from qigheal.healing import phases

    if not reason.strip():
        raise typer.BadParameter("--reason: expected why the gate does not count, got nothing")
    ledger = _ledger(_existing(store))
    phases.override(ledger, to, actor=operator(), reason=reason, at=time.time())
    show_phase.moved(ledger.entries("phase")[-1].read(phases.Move), json=json)
    return FINE


@phase_app.command()
def drill(
    host: Annotated[Path, typer.Option("--host", help="The service's git repository.")] = Path(),
    store: Store = None,
    json: Json = False,
) -> int:
    """Merge a harmless commit and take it back, on a branch made for it. Exit 1 when that failed.

    The branch that the service runs from, and every checkout, stay as they are, and nothing is deployed.
    It counts as the rollback that the gate to phase 4 wants to have seen, for this repository.

    Example: qigheal phase drill --host ~/src/digits
    """
    from qigheal.healing.drill import drill as perform
    from qigheal.repo import Repo

    repo = Repo(host)  # a mistyped host is said before a missing store
    ledger = _ledger(_existing(store))
    done = perform(repo, ledger, clock=time.time, on_step=show.silent if json else show.step)
    show_phase.drilled(done, json=json)
    return FINE if done.ok else UNHEALTHY
