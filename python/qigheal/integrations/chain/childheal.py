"""One pass of the healer in a process of its own, niced, for a host that waits for it in its event loop.

The healer itself is the command line's `heal`; nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from qigheal.inherited import COMMAND, for_healer

NICE: Final = 10
ENDED: Final = (0, 1, 2)
"""Exit codes with which `heal` has something to say."""

PATIENCE_S: Final = 20.0
"""How long a healer that is told to end has for winding up what it began."""


def command(host: Path, store: Path) -> list[str]:
    """What is run."""
    return [*COMMAND, "heal", str(host), "--store", str(store), "--json"]


async def heal(argv: Sequence[str]) -> dict[str, Any]:
    """Run a healer and give the document that it printed, or `triggered` false with a `message` why there is none.

    When this is cancelled, the healer is told to end and waited for.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=for_healer(),
        )
    except OSError as error:
        return _nothing(f"the healer could not be started: {error.strerror}")
    with contextlib.suppress(OSError):  # it ended at once, or may not be niced
        os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
    try:
        printed, complaints = await child.communicate()
    except asyncio.CancelledError:
        await _end(child)
        raise
    lines = complaints.decode(errors="replace").strip().splitlines()
    try:
        found = json.loads(printed) if child.returncode in ENDED else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    said = f": {lines[-1]}" if lines else ""
    return _nothing(f"the healer ended with exit code {child.returncode}{said}")


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(child.communicate(), PATIENCE_S)
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


def _nothing(message: str) -> dict[str, Any]:
    return {"triggered": False, "message": message}
