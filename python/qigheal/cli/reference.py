"""The page about all commands, made from the commands themselves.

    python -m qigheal.cli.reference > docs/commands.md

Only what no command says of itself stands here: the words around, and the table of exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from qigheal.cli.app import app

HEAD: Final = """# Commands

The command line needs the extra `cli`: `pip install 'qigheal[cli]'`. `qigheal COMMAND --help` says the same as this
page, which is made from the commands (`python -m qigheal.cli.reference > docs/commands.md`).

The store is named with `--store`, else by `$QIGHEAL_STORE`, else it is `.qigheal` in the working folder. With
`--json` a command prints one JSON document, whose fields stay as they are across patch releases; new ones may come.
`qigheal watch --json` and `qigheal heal --every --json` print one document a line. Lengths of time are written as
`90s`, `5m`, `12h` or `30d`, points in time as ISO 8601 (local where there is no offset) or as Unix seconds. Without
colour: `NO_COLOR=1`. In a terminal without Greek letters, Φ and κ are written out.

Completion for bash, zsh, fish and PowerShell: `qigheal --install-completion`.

## Exit codes

| code | meaning |
|---|---|
| 0 | fine |
| 1 | unhealthy, or worse; what each command means by it stands below |
| 2 | inconclusive, or nothing to say |
| 64 | a wrong command, option or value |
| 69 | what is needed is not there or cannot be used: a store, a repository, an extra, a disk with room |
| 129, 130, 143 | ended by SIGHUP, Ctrl-C, SIGTERM, or by a reader that went away |

An error is one line on standard error with a remedy, and standard output stays empty.
"""

EXITS: Final[dict[str, tuple[str, str, str]]] = {
    "status": ("healthy", "not healthy", "fewer snapshots than it takes to judge"),
    "watch": (
        "ended by q or Ctrl-C; with `--once` healthy",
        "with `--once` not healthy",
        "with `--once` too few",
    ),
    "trends": ("some trend is known", "", "none is known yet"),
    "history": ("snapshots were shown", "", "there are none"),
    "baseline show": ("shown", "", "none is learned yet"),
    "baseline compare": ("nothing changed", "something changed", "too few snapshots to say"),
    "backtest": ("replayed", "", "no snapshots in that time"),
    "heal": (
        "healthy, or healed and now watched",
        "unhealthy, and nothing was opened",
        "a change waits for a person",
    ),
    "patches": (
        "shown; with `--verify` all holds together",
        "with `--verify` a discrepancy",
        "there are none",
    ),
    "patches show": (
        "shown; with `--replay` the same verdict",
        "another verdict, or a proof is gone",
        "no proof kept",
    ),
    "review": ("done", "", "approved, but not merged"),
    "phase status": ("shown", "", ""),
    "phase advance": ("the next phase is entered (69: its gate is shut)", "", ""),
    "phase override": ("the phase is entered", "", ""),
    "phase drill": ("the rollback works", "the rollback failed", ""),
    "compare": ("better or equal", "worse", "not to be said"),
    "evaluate": ("improved", "worse, or refused", "neither"),
    "serve": ("told to end", "", ""),
    "roi": ("shown", "", ""),
    "export": ("written", "", "there was nothing to write"),
    "import": ("read, stored or known already", "", "the file has no snapshots"),
    "compact": ("done", "", "there are no snapshots"),
    "doctor": ("all is well", "something fails", "warnings only"),
    "demo": ("told to its end", "", ""),
}
"""By command: what 0, 1 and 2 mean; "" where it never gives that."""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(name with the group's, command) of each that can be run, in the order of `--help`."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None or command.invoke_without_command:
            yield " ".join((*path, name)), command
        if inner is not None:
            yield from commands(command, (*path, name))


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(text for name, command in commands() for text in _section(name, command))])


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## qigheal {name}\n"
    for part in (command.help or "").split("\n\n"):
        said, found, example = part.partition("qigheal ")
        if found and said.rstrip().endswith(":"):
            if said.strip() != "Example:":
                yield f"{said.strip()}\n"
            yield f"    qigheal {' '.join(example.split())}\n"
        else:
            yield f"{' '.join(part.split())}\n"
    rows = [row for parameter in command.params if (row := _row(parameter))]
    if rows:
        yield "| argument or option | |"
        yield "|---|---|"
        yield from rows
        yield ""
    said = [f"{code} {means}" for code, means in enumerate(EXITS[name]) if means]
    yield f"Exit codes: {'; '.join(said)}.\n"


def _row(parameter: Any) -> str:
    if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
        return ""
    if parameter.param_type_name == "argument":
        name = parameter.name.rstrip("_").upper()
    else:
        name = ", ".join(parameter.opts)
        if not parameter.is_flag:
            name += f" {parameter.metavar or parameter.name.upper()}"
    said = " ".join((parameter.help or "").split())
    needed = "" if not parameter.required else " Needed."
    return f"| `{name}` | {said}{needed}{_default(parameter, said)} |"


def _default(parameter: Any, said: str) -> str:
    value = parameter.default
    if value == Path():
        return " Default: the working folder."
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or value == ""
        or "default" in said
    ):
        return ""
    return f" Default: {value}."


if __name__ == "__main__":
    print(page(), end="")
