"""Arguments and options that several commands share, and what they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from qigcore.durations import seconds
from qigcore.errors import InvalidLimit
from qigheal.errors import LedgerError
from qigheal.settings import default_store

Store = Annotated[
    Path | None,
    typer.Option(
        "--store", readable=False, help="Folder of the history; default $QIGHEAL_STORE, else .qigheal."
    ),  # whether it can be read is said where it is read, with what to do
]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Instead of a store: a folder with a chain's monitor_history.json."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Host = Annotated[Path, typer.Argument(help="The service's git repository, with its qigheal.toml.")]
HostOption = Annotated[Path, typer.Option("--host", help="The service's git repository.")]
Isolation = Annotated[
    str, typer.Option("--sandbox", help="auto, namespaces, or none (no isolation: only for code you trust).")
]
Pairs = Annotated[
    int,
    typer.Option(
        "--pairs", min=80, help="Most pairs of a trial: fewer end sooner, and leave more of them undecided."
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown",
        metavar="FILE",
        help="Also write a summary for a pull request there; - for standard output.",
    ),
]


@contextmanager
def asked(*refusals: type[Exception]) -> Iterator[None]:
    """What is refused in here was asked for wrongly: an error of usage, which typer ends with 64."""
    try:
        yield
    except refusals as error:
        raise typer.BadParameter(str(error)) from None


def length(text: str) -> str:
    """A length of time as a person types it, as 5m or 90s."""
    with asked(InvalidLimit):
        seconds(text, "interval")
    return text


def named(given: Path | None) -> Path:
    """The store as it was named, or the default one."""
    return given if given is not None else default_store()


def existing(given: Path | None) -> Path:
    """The store, which must be there: a mistyped name is to be an error and not a new store."""
    store = named(given)
    if not store.is_dir():
        raise LedgerError(f"{store}: no store here; name the one that the service writes with --store")
    return store
