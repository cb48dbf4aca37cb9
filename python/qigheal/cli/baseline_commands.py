"""The commands about baselines: what one holds, and what changed between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qigcore.baseline import Baseline
from qigcore.comparison import LEVEL, compare
from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, show_baseline
from qigheal.settings import default_store

baseline_app = typer.Typer(
    help="What was learned as healthy, and what changed since.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FILE = "baseline.json"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _load(place: Path) -> Baseline:
    return Baseline.load(place / FILE if place.is_dir() else place)


@baseline_app.command()
def show(
    place: Annotated[
        Path | None,
        typer.Argument(help="A baseline's file, or a store; default $QIGHEAL_STORE, else .qigheal."),
    ] = None,
    json: Json = False,
) -> int:
    """What a baseline holds. Exit 2 where the store has learned none yet.

    Example: qigheal baseline show /var/lib/digits/.qigheal
    """
    where = default_store() if place is None else place
    if (where.is_dir() or place is None) and not (where / FILE).exists():
        show_baseline.none_yet(where, json=json)
        return NOTHING_TO_SAY
    show_baseline.baseline(_load(where), json=json)
    return FINE


@baseline_app.command("compare")
def compare_(
    earlier: Annotated[Path, typer.Argument(help="The older baseline's file, or its store.")],
    later: Annotated[Path, typer.Argument(help="The newer one's.")],
    level: Annotated[
        float,
        typer.Option(
            help="Chance of naming a change where there is none.", min=1e-12, max=0.5, show_default=True
        ),
    ] = LEVEL,
    json: Json = False,
) -> int:
    """What changed between two baselines. Exit 0 nothing, 1 something, 2 too few snapshots to say.

    Example: qigheal baseline compare march.json .qigheal
    """
    found = compare(_load(earlier), _load(later), level=level)
    show_baseline.comparison(found, json=json)
    if found.changed:
        return UNHEALTHY
    return FINE if found.conclusive else NOTHING_TO_SAY
