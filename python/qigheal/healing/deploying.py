"""Runs the host's deploy command: to its end, within its time, and never longer than that.

What it prints goes to a file that has no name, not to a pipe: a service that the command starts and
leaves running keeps what it inherited, and neither holds the healer up by it nor dies of the healer's
end. Nothing here knows a change or reads the ledger.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from qigheal.inherited import without_secrets
from qigheal.repo.owned import Owner

TIMEOUT_S = 600.0
TAIL_BYTES = 2000
"""How much of the output is kept."""


def run_deploy(command: tuple[str, ...], at: Path, key: str, owner: Owner | None) -> tuple[int, str]:
    """Run `command` in folder `at` as `owner`; its exit code (-1: not started, or out of time) and last words.

    key: names the deployment, in the environment's QIGHEAL_CHANGE. When its time is up the command is
    killed with everything that it started in its own session.
    """
    argv = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    identity: dict[str, Any] = (
        {} if owner is None else {"user": owner.uid, "group": owner.gid, "extra_groups": []}
    )
    with tempfile.TemporaryFile(prefix="qigheal-") as said:
        try:
            process = subprocess.Popen(
                argv,
                cwd=at,
                env={**without_secrets(), "QIGHEAL_CHANGE": key},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity,
            )
        except (OSError, ValueError) as error:
            return -1, f"{argv[0]}: cannot be started: {error}"
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _end(process)
            return -1, f"it did not end within {TIMEOUT_S:g} s and was killed; {_tail(said)}".rstrip("; ")
        except BaseException:
            _end(process)
            raise
        return code, _tail(said)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(said: IO[bytes]) -> str:
    end = os.fstat(said.fileno()).st_size
    last = os.pread(said.fileno(), TAIL_BYTES, max(0, end - TAIL_BYTES)).decode("utf-8", "replace")
    return "\n".join(
        "".join(c if c.isprintable() else " " for c in line).rstrip() for line in last.splitlines()
    ).strip()
