"""What a patch may not touch, whatever its manifest allows.

A patch that could change how it is measured, tested, built, or started would decide about itself. So
these files are refused by name at any depth, and in the spellings that other file systems take for
the same name. Pure functions of what git says about a change; nothing is read here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from qigheal.host.pathspec import selects
from qigheal.records import FileChange

if TYPE_CHECKING:
    from qigheal.host import Manifest

FILE_MODES = ("100644", "100755")
NO_FILE = "000000"
FILES = frozenset(
    (
        ".ci",
        "makefile",
        "gnumakefile",
        "pyproject.toml",
        "tox.ini",
        "pytest.ini",
        ".pytest.ini",
        "qigheal.toml",
    )
)
MODULES = frozenset(("conftest", "sitecustomize", "usercustomize"))  # files and packages, whatever the ending
TEST_FOLDERS = frozenset(("test", "tests"))

Refusing = Callable[["Manifest", Sequence[FileChange], Collection[str]], tuple[str, ...]]
"""What `refusals` is: says of a change to a commit's paths why it is refused."""

_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")  # HFS+ drops them from names
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # bidirectional embeddings, overrides, isolates
_SHORT_NAME = re.compile(r"[^.]{1,8}~[0-9]+(\.[^.]{0,3})?")  # what Windows calls a longer name by
_SEPARATORS = re.compile(r"[\s=:,;'\"]+")


def refusals(
    manifest: Manifest, changes: Sequence[FileChange], tree_paths: Collection[str]
) -> tuple[str, ...]:
    """Why a change is refused, one reason each; empty when it is not.

    `tree_paths` are the paths of the commit that the change is made to. Reasons name the path first.
    """
    found: list[str] = []
    if not changes:
        found.append("the patch changes nothing")
    if len(changes) > manifest.patch.max_files:
        found.append(f"{len(changes)} files are changed, [patch] max_files is {manifest.patch.max_files}")
    lines = sum(change.added + change.deleted for change in changes)
    if lines > manifest.patch.max_lines:
        found.append(f"{lines} lines are changed, [patch] max_lines is {manifest.patch.max_lines}")
    folded = {_folded(path): path for path in tree_paths}
    for change in changes:
        for path in dict.fromkeys(p for p in (change.old_path, change.new_path) if p is not None):
            if (reason := refused_path(manifest, path)) is not None:
                found.append(f"{_shown(path)}: {reason}")
        found += (f"{_shown(change.path)}: {reason}" for reason in _refused_kinds(change))
        other = folded.get(_folded(change.path), change.path)
        if other != change.path:
            found.append(f"{_shown(change.path)}: the same name as {_shown(other)} where case does not count")
    return tuple(dict.fromkeys(found))


def refused_text(before: bytes, after: bytes) -> str | None:
    """Why the lines that a change adds to a file are refused, None when they are not.

    A person reviews them as they are shown. Source: Boucher and Anderson, Trojan Source (USENIX Security 2023).
    """
    known = set(before.split(b"\n"))
    added = (line.decode("utf-8", "replace") for line in after.split(b"\n") if line not in known)
    if any(map(_REORDERING.search, added)):
        return "holds characters that change the order in which it is read"
    return None


MEANT = "takes back what a person committed, who may have meant what it cost ([patch] unattended_reverts)"


def not_left_to_the_healer(manifest: Manifest, paths: Iterable[str]) -> tuple[str, ...]:
    """Where a person decides whether a commit is taken back, a sentence for each path."""
    left = manifest.patch.unattended_reverts
    return tuple(f"{path}: {MEANT}" for path in paths if not any(selects(pattern, path) for pattern in left))


def refused_path(manifest: Manifest, path: str) -> str | None:
    """Why no patch may touch `path`, None when one may."""
    if (reason := _unsafe(path)) is not None:
        return reason
    if (reason := _refused_name(path)) is not None:
        return reason
    if any(_selects_folded(pattern, path) for pattern in manifest.probe.protect):
        return "protected by [probe] protect"
    for table, command, code_only in (
        ("probe", manifest.probe.command, True),
        ("tests", manifest.tests.command or (), False),
        ("deploy", manifest.deploy.command, False),
    ):
        if _names(command, path, code_only=code_only):
            return f"named by [{table}] command"
    if not any(selects(pattern, path) for pattern in manifest.patch.allow):
        return "not allowed by [patch] allow"
    return None


def _unsafe(path: str) -> str | None:
    if not path or path.startswith("/") or "\\" in path:
        return "expected a relative path with forward slashes"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "expected a path without empty parts, '.' and '..'"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "holds control characters or bytes that are no UTF-8"
    return None


def _refused_name(path: str) -> str | None:
    *folders, name = parts = _folded(path).split("/")
    for part in parts:
        if part.startswith(".git") or _SHORT_NAME.fullmatch(part):
            return "belongs to git, or could be taken for a name that does"
        if part in FILES or part.startswith("setup.") or part.endswith(".pth"):
            return "decides how the code is built, started or tested"
        if part.partition(".")[0] in MODULES:
            return "decides how the code is built, started or tested"
    if TEST_FOLDERS & set(folders):
        return "is one of the tests"
    if name.endswith("_test.py") or (name.startswith("test_") and name.endswith(".py")):
        return "is one of the tests"
    return None


def _refused_kinds(change: FileChange) -> Iterable[str]:
    for mode in dict.fromkeys((change.old_mode, change.new_mode)):
        if mode == "120000":
            yield "is a link"
        elif mode == "160000":
            yield "is a submodule"
        elif mode not in (*FILE_MODES, NO_FILE):
            yield f"has mode {mode}"
    if NO_FILE not in (change.old_mode, change.new_mode) and change.old_mode != change.new_mode:
        yield f"changes its mode from {change.old_mode} to {change.new_mode}"
    if change.binary:
        yield "is binary"


def _names(command: Sequence[str], path: str, *, code_only: bool) -> bool:
    """Whether a command names `path`: as a word of it, or as the module after `-m`.

    With `code_only` other files than Python's do not count: a probe is told which configuration to
    read, and that is what levers change.
    """
    words = [word.removeprefix("./") for part in command for word in _SEPARATORS.split(part) if word]
    if path in words and not (code_only and not path.endswith(".py")):
        return True
    for option, module in pairwise(words):
        if option == "-m":
            stem = "/" + module.replace(".", "/")
            if f"/{path}".endswith((f"{stem}.py", f"{stem}/__init__.py", f"{stem}/__main__.py")):
                return True
    return False


def _selects_folded(pattern: str, path: str) -> bool:
    return selects(pattern, path) or selects(_folded(pattern), _folded(path))


def _folded(path: str) -> str:
    """The path as a file system sees it that ignores case, some code points, and ends of names."""
    parts = _IGNORED.sub("", unicodedata.normalize("NFKC", path)).casefold().split("/")
    return "/".join(part.partition(":")[0].rstrip(" .") or part for part in parts)


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)
