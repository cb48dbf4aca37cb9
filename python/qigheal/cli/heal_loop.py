"""`qigheal heal --every`: the loop of `qigheal.healing.looping`, as a program that prints what it did.

Only what a loop needs besides the command stands here; a pass is that of the command without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import typer

from qigcore.durations import seconds
from qigheal.cli import show
from qigheal.healing.looping import be_nice, end_with, loop
from qigheal.records import HealResult, Reason

NOTHING: Final = ("", ())


def heal_every(
    every: str,
    one_pass: Callable[[], HealResult],
    store: Path,
    again: str,
    *,
    parent: int | None,
    json: bool,
    verbose: bool = False,
) -> NoReturn:
    """Passes until this process is ended. again: the options that another command needs for the same host and store.

    With `json` each pass is one line of standard output; what fails goes to standard error either way. For a person
    a pass is told of when it says something else than the one before, or other reasons, or did something.
    """
    every_s = seconds(every, "--every")
    if parent is not None:
        end_with(parent)
    be_nice()
    said: tuple[str, tuple[Reason, ...]] = NOTHING

    def told(result: HealResult) -> None:
        nonlocal said
        if json:
            print(msgspec.json.encode(result).decode(), flush=True)
        elif (result.message, result.reasons) != said or result.patches or result.outcomes:
            show.healed(result, again, json=False, verbose=verbose)
        said = result.message, result.reasons

    def failed(why: str) -> None:
        nonlocal said
        said = NOTHING  # so that a pass that goes well again is told of, whatever it says
        print(
            f"qigheal: {show.plain(' '.join(why.split()))}; trying again every {every}",
            file=sys.stderr,
            flush=True,
        )

    loop(one_pass, store, every_s, told=told, failed=failed)


def refuse(**given: object) -> None:
    """What belongs to one run that a person watches is no option of a loop."""
    for name, value in given.items():
        if value:
            raise typer.BadParameter(f"expected --every or --{name}, got both: --{name} is for one run")
