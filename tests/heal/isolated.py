"""The isolating sandbox of this machine, and reading what a command in it printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from qigheal.errors import SandboxError
from qigheal.sandbox import Completed, Sandbox

Run = Callable[..., Completed]


@cache
def isolated(level: Literal["namespaces", "partial"] = "namespaces") -> Sandbox | str:
    """The sandbox of an isolating level, or why there is none here."""
    try:
        return Sandbox(level)
    except SandboxError as error:
        return str(error)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def told(done: Completed) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
