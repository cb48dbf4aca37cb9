"""The commands about patches: the list, one with its proof, and whether the trail of all holds together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, show_patches
from qigheal.cli.options import Json, Store, named
from qigheal.errors import LedgerError

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger

patch_app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LEDGER = "ledger.db"


@patch_app.callback()
def patches(
    context: typer.Context,
    store: Store = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Hold ledger, proofs and merges against one another; exit 1 on any discrepancy."
        ),
    ] = False,
    host: Annotated[
        Path | None,
        typer.Option("--host", help="With --verify: the repository whose merges name the ledger."),
    ] = None,
    json: Json = False,
) -> int:
    """Changes opened so far and their state, every patch that was measured, and which strategies had none and why.

    Example: qigheal patches --verify --host ~/src/digits
    """
    if context.invoked_subcommand is not None:
        return FINE
    if host is not None and not verify:
        raise typer.BadParameter("--host belongs to --verify")
    if verify:
        return _verify(named(store), host, json=json)
    from qigheal.healing.asking import in_vain
    from qigheal.healing.audit import standing
    from qigheal.healing.ledger import Ledger

    place = named(store)
    if place.is_dir() and not (place / LEDGER).exists():
        show_patches.listed((), [], [], (), json=json)
        return NOTHING_TO_SAY
    ledger = _whole(Ledger(place / LEDGER, read_only=True))
    changes = tuple(ledger.changes().values())
    judged = standing(ledger)
    measured = [each for each in judged if each.kind == "verdict"]
    evaluated = [each for each in judged if each.kind == "evaluation"]
    show_patches.listed(changes, measured, evaluated, in_vain(ledger), json=json)
    return FINE if changes or judged else NOTHING_TO_SAY


@patch_app.command()
def show(
    context: typer.Context,
    patch: Annotated[str, typer.Argument(help="The patch's id, or its first digits.")],
    store: Store = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Judge it again from its proof, offline; exit 1 unless to the same verdict."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """One patch: its diff, why it was proposed, and the proof. The host is not needed.

    With --replay every kept trial of the patch is judged again: exit 0 to the same verdict, 1 to another or from
    a proof that is missing or altered, 2 where none was kept.

    Example: qigheal patches show 3f2a --replay
    """
    from qigheal.healing import audit
    from qigheal.healing.ledger import Ledger
    from qigheal.healing.proofs import Proof
    from qigheal.healing.sides import measured

    before = context.parent.params if context.parent is not None else {}
    place = named(store or before.get("store"))
    json = json or bool(before.get("json"))
    ledger = _whole(Ledger(place / LEDGER, read_only=True))
    judged = audit.named(ledger, patch)
    proofs: list[Proof | str] = []
    for each in judged:
        try:
            proofs.append(audit.proof_of(place, each))
        except LedgerError as error:
            proofs.append(str(error))
    replays = [audit.replay(proof) if replay and isinstance(proof, Proof) else None for proof in proofs]
    figures = [measured(proof.trial) if isinstance(proof, Proof) else ({}, {}) for proof in proofs]
    change = ledger.changes().get(judged[0].patch.fingerprint)
    show_patches.one(judged, proofs, replays, change, figures, json=json)
    gone = audit.removed(ledger)
    lost = any(
        isinstance(proof, str) and each.bundle and each.kept not in gone
        for each, proof in zip(judged, proofs, strict=True)
    )
    if lost or any(again is not None and not again.same for again in replays):
        return UNHEALTHY
    return NOTHING_TO_SAY if replay and not any(again is not None for again in replays) else FINE


def _verify(store: Path, host: Path | None, *, json: bool) -> int:
    from qigheal.healing import audit
    from qigheal.healing.ledger import Ledger
    from qigheal.repo import Repo

    repo = None if host is None else Repo(host)
    ledger = Ledger(store / LEDGER, read_only=True)
    found = audit.verify(ledger, store, repo)
    show_patches.verified(found.problems, found.entries, found.proofs, found.merges, json=json)
    return UNHEALTHY if found.problems else FINE


def _whole(ledger: Ledger) -> Ledger:
    if problems := ledger.verify():
        raise LedgerError(
            f"the ledger's chain is broken: {problems[0]}; trust nothing after that row "
            "(all of it: qigheal patches --verify)"
        )
    return ledger
