"""Which third-party packages the host already uses: what its code imports, and what it declares.

Reads the files of one commit; runs nothing and asks no package index.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qigcore.regular import read_regular
from qigheal.healing.hostcode.program import LONGEST
from qigheal.healing.strategies.repeating.definitions import Definitions

REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def packages(folder: Path, definitions: Definitions) -> frozenset[str]:
    """Top-level names that the host's code imports, tests aside, and packages that it declares, in lower case."""
    found = set(_declared(folder))
    for path in definitions.files():
        tree = definitions.tree(path)
        if tree is None or {"test", "tests"} & set(path.split("/")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return frozenset(found)


def _declared(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob("requirements*.txt")):
        try:
            content = read_regular(file, LONGEST)
        except OSError:
            continue
        for line in content.decode(errors="replace").splitlines():
            yield from _named(line)
    try:
        project = tomllib.loads(read_regular(folder / "pyproject.toml", LONGEST).decode())
    except (OSError, ValueError, RecursionError, MemoryError):
        return
    for line in _at(project, "project", "dependencies", kind=list):
        yield from _named(str(line))
    yield from map(str.lower, _at(project, "tool", "poetry", "dependencies", kind=dict))


def _named(requirement: str) -> Iterator[str]:
    if name := REQUIREMENT.match(requirement.strip()):
        yield name[0].lower()


def _at(table: Any, *keys: str, kind: type) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, kind) else kind()
