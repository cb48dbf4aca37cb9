"""Whether a line of commands in the documentation is one that could be typed.

`qigheal ...` is held against the program's own tree of commands, `make X` against the Makefile, `pip install`
against the extras, `python -m` against the modules; of other programs only the name is known. Nothing is run.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from functools import cache
from typing import Any

import typer

from tests.docpages import PROGRAMS, ROOT

SYNOPSIS = re.compile(r"\[|\]|\.\.\.|\s\|\s|…")
"""What only a line has that shows a command's form and cannot be typed."""

SIGNS = frozenset({"|", ">", ">>", "<", "&&", ";"})


@cache
def tree() -> Any:
    from qigheal.cli.app import app

    return typer.main.get_command(app)


@cache
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def faults(line: str) -> list[str]:
    """Why the line could not be typed; empty where it could."""
    found: list[str] = []
    for words in map(bare, parts(line)):
        if words:
            found += one(words, bool(SYNOPSIS.search(line)))
    return found


def bare(words: list[str]) -> list[str]:
    """Without the variables that are set for one command, and without `sudo`."""
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]
    if words[:2] == ["sudo", "-u"]:
        return words[3:]
    return words[1:] if words[:1] == ["sudo"] else words


def parts(line: str) -> list[list[str]]:
    """The simple commands of a line, as words; what stands behind two blanks in a synopsis is told to a person."""
    synopsis = SYNOPSIS.search(line)
    text = re.split(r"\s{3,}", line)[0] if line.startswith("qigheal") else line
    if synopsis and line.startswith("qigheal"):
        return [re.sub(r"[\[\]|()]", " ", text).split()]
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    commands: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word in (">", ">>", "<"):
            skip = True  # the file of a redirection
        elif word in SIGNS:
            commands.append([])
        elif not skip:
            commands[-1].append(word)
        else:
            skip = False
    return commands


def one(words: list[str], synopsis: bool) -> list[str]:
    program, rest = words[0], words[1:]
    if program.rpartition("/")[2] == "qigheal":
        return of_qigheal(rest, synopsis)
    if program not in PROGRAMS:
        return [f"expected one of {', '.join(sorted(PROGRAMS))}, got {program!r}"]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return [f"make has no target {word!r}" for word in rest if "=" not in word and word not in targets]
    if program == "pip" and rest[:1] == ["install"]:
        return extras(" ".join(rest))
    if [program, *rest[:2]] == ["python", "-m", "qigheal"]:
        return of_qigheal(rest[2:], synopsis)
    if program == "python" and rest[:1] == ["-m"]:
        return [] if importlib.util.find_spec(rest[1]) else [f"there is no module {rest[1]!r}"]
    return []


def extras(text: str) -> list[str]:
    """Extras that the text names and the project lacks."""
    known = project()["optional-dependencies"]
    named = [name.strip() for each in re.findall(r"qigheal\[([^\]]*)\]", text) for name in each.split(",")]
    return [f"there is no extra {name!r}" for name in named if name not in known]


def of_qigheal(words: list[str], synopsis: bool) -> list[str]:
    command, name = tree(), "qigheal"
    while getattr(command, "commands", None) is not None:
        if not words or (words[0] not in command.commands and words[0].startswith("-")):
            break
        if words[0] not in command.commands:
            return [f"{name} has no command {words[0]!r}"]
        name, command, words = f"{name} {words[0]}", command.commands[words[0]], words[1:]
    known = {"--help"} | {each for param in command.params for each in (*param.opts, *param.secondary_opts)}
    used = [word.partition("=")[0] for word in words if word.startswith("-") and word != "-"]
    wrong = [f"{name} has no option {option!r}" for option in used if option not in known]
    if wrong or synopsis or "--help" in words or getattr(command, "commands", None) is not None:
        return wrong
    return typed(command, name, words)


def typed(command: Any, name: str, words: list[str]) -> list[str]:
    """The words are taken apart and converted by the program's own parser; files need not exist."""
    try:
        command.make_context(name, list(words))
    except Exception as error:
        message = error.format_message() if hasattr(error, "format_message") else repr(error)
        return [f"{name}: {message}"]
    return []
