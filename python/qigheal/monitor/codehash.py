"""Which commit a service runs, read from git's files: no subprocess in the served process.

It understands a plain `.git` folder, the `.git` file of a linked worktree or submodule, loose and
packed refs. Whatever it does not understand (no repository, a reftable) is an empty answer, never an
error: a service runs without git, too.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "QIGHEAL_CODE_HASH"
"""Says which commit runs where the deployed tree has no `.git`, as in a container image."""

_DEPTH = 5  # refs that may point to one another before it is taken for a circle


def code_hash(repo: str | os.PathLike[str] = ".") -> str:
    """`$QIGHEAL_CODE_HASH`, else the commit checked out where `repo` lies (or a folder above), else ""."""
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return named
    try:
        git = _git_folder(Path(repo).resolve())
        return _head(git) if git is not None else ""
    except (OSError, ValueError):
        return ""


def _git_folder(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        entry = folder / ".git"
        if entry.is_dir():
            return entry
        if entry.is_file():
            return folder / entry.read_text().removeprefix("gitdir:").strip()
    return None


def _head(git: Path) -> str:
    link = git / "commondir"
    common = git / link.read_text().strip() if link.is_file() else git
    value = (git / "HEAD").read_text().strip()
    for _ in range(_DEPTH):
        if not value.startswith("ref:"):
            return value if _is_hash(value) else ""
        value = _ref(value.removeprefix("ref:").strip(), git, common)
    return ""


def _ref(name: str, git: Path, common: Path) -> str:
    # A worktree's own refs stand in its own folder, branches in the common one.
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = common / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            value, _, ref = line.partition(" ")
            if ref == name:
                return value
    return ""


def _is_hash(value: str) -> bool:
    return len(value) in (40, 64) and all(digit in "0123456789abcdef" for digit in value)
