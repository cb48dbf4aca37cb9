"""`qigheal status`: typed often, in scripts and prompts, and therefore quick.

Reading arguments by typer takes as long as all the rest. The plain forms of this command are read here without
it; whatever is not exactly one of them is left to typer, which says what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qigcore.errors import HistoryError
from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY
from qigheal.settings import default_store
from qigheal.standing import Standing, is_store

if TYPE_CHECKING:
    from qigheal.integrations.chain.statedir import StateDir

PATHS = ("--store", "--state-dir")


class Asked(NamedTuple):
    """The arguments of one call."""

    store: Path | None = None
    state_dir: Path | None = None
    json: bool = False


def plainly_asked(arguments: Sequence[str]) -> Asked | None:
    """The arguments of a plain `status`; None: it is for typer to read them."""
    if not arguments or arguments[0] != "status" or "_QIGHEAL_COMPLETE" in os.environ:
        return None
    paths: dict[str, Path] = {}
    json, rest = False, list(arguments[1:])
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name == "--json" and not given:
            json = True
            continue
        if name not in PATHS:
            return None
        if not given:
            value = rest.pop(0) if rest else ""
        if not value or (not given and value.startswith("-")):
            return None
        paths[name] = Path(value)
    if len(paths) == len(PATHS):
        return None
    return Asked(paths.get("--store"), paths.get("--state-dir"), json)


def nameless(arguments: Sequence[str]) -> str | None:
    """The first option whose folder has an empty name, which typer would take for the working folder."""
    for name, value in zip(arguments, [*arguments[1:], None], strict=False):
        option, given, rest = name.partition("=")
        if option in PATHS and (not rest if given else value == ""):
            return option
    return None


def status(asked: Asked) -> int:
    """Print whether the service is healthy; gives the exit code."""
    from qigheal.cli import show

    report = standing(asked.store, asked.state_dir).report()
    show.status(report, json=asked.json)
    if report.state == "learning":
        return NOTHING_TO_SAY
    return FINE if report.healthy else UNHEALTHY


def standing(store: Path | None, state_dir: Path | None) -> Standing | StateDir:
    """Where a reading command looks: the store, named or the default one, or a chain's state folder.

    Raises HistoryError for a folder that is no store, typer's BadParameter for both.
    """
    if state_dir is None:
        place = store if store is not None else default_store()
        if not is_store(place):
            raise HistoryError(
                f"{place}: no store here: no service has recorded into this folder; name the one that it writes "
                "with --store"
            )
        return Standing(place)
    if store is not None:
        from typer import BadParameter

        raise BadParameter("expected --store or --state-dir, got both")
    from qigheal.integrations.chain.statedir import StateDir

    return StateDir(state_dir)
