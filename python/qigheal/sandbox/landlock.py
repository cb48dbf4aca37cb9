"""What the launcher is told where there are no namespaces, and what must be true inside.

A command has a private folder with a copy of the tree and a scratch folder; it reads these, /usr, the
interpreter, a few files of /etc and /proc, and writes the scratch folder (and the copy of a writable tree)
alone. It has no sockets but connected pairs, signals and traces only its own processes, and when root
starts it, is user 65534 without capabilities.

What cannot be had here, and `note` says the first of it: the list of all processes with their command lines
can be read, and of every file whether it exists, its size and its times; kernels before 6.12 cannot keep
signals in; how full the scratch folder gets is looked at ten times a second rather than bounded; /dev/shm
is closed, so that multiprocessing has no locks; utime has no effect, nor has chmod for an ordinary user;
truncate works on open files alone; there are no extended attributes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qigheal.sandbox.bubblewrap import (
    ETC,
    SCRATCH_MB,
    STORES,
    SYSTEM_FOLDERS,
    Interpreter,
    interpreter_mounts,
)
from qigheal.sandbox.inside import NOBODY, expected_anywhere, process_limit
from qigheal.sandbox.launcher import SCOPES_SINCE, Plan, version
from qigheal.sandbox.processes import end_marked
from qigheal.sandbox.seccomp import program

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_READ = ("/usr", *SYSTEM_FOLDERS, *STORES, *(f"/etc/{name}" for name in ETC), "/proc")


def missing() -> str:
    """Why commands cannot be confined without namespaces; "" where they can."""
    if not version():
        return (
            "this kernel has no Landlock (Linux 5.13 or later, with landlock in its list of security modules)"
        )
    if program() is None:
        return f"no system-call filter is known for {os.uname().machine}"
    return ""


def note(root: bool) -> str:
    """One sentence on what this isolation is, and what it is not."""
    lacks = ["the machine's list of processes and the names, sizes and times of its files can be seen"]
    if version() < SCOPES_SINCE:
        lacks.append(
            "processes of user 65534 can be signalled"
            if root
            else "the user's other processes, the healer too, can be signalled (Linux 6.12 closes that)"
        )
    return (
        f"partly isolated, by Landlock (version {version()}), a system-call filter and limits: no network, writes "
        f"to a private folder alone; {'; '.join(lacks)}; only the built-in strategies are tried"
    )


def processes_allowed(root: bool) -> int:
    """The process limit. As an ordinary user, what that user already runs is counted and comes on top."""
    return process_limit(0 if root else _threads_of(os.getuid()))


def _threads_of(user: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # it ended meanwhile
            continue
    return count


def prepare(folder: Path, tree: Path, writable: bool, root: bool) -> None:
    """Put a copy of the tree and a scratch folder into `folder`."""
    copy, scratch = folder / "tree", folder / "scratch"
    shutil.copytree(tree, copy, symlinks=True)
    scratch.mkdir()
    if root:
        # The machine's other users are shown no code.
        os.chown(folder, -1, NOBODY)
        folder.chmod(0o750)
        os.chown(scratch, NOBODY, NOBODY)
        if writable:
            for place, folders, files in os.walk(copy):
                for name in (".", *folders, *files):
                    os.chown(os.path.join(place, name), NOBODY, NOBODY, follow_symlinks=False)


def described(
    folder: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    interpreter: Interpreter,
    writable: bool,
    root: bool,
) -> bytes:
    """The launcher's plan, as it reads it."""
    roots, links = interpreter_mounts(interpreter)
    filtered = program(shared=True, owner=not root)
    plan = Plan(
        healer=os.getpid(),
        folder=str(folder),
        tree=str(folder / "tree"),
        scratch=str(folder / "scratch"),
        writable=writable,
        reading=[*_READ, *roots],
        links=links,
        devices=_DEVICES,
        user=NOBODY if root else None,
        filter=(filtered or b"").hex(),
        disk_mb=2 * SCRATCH_MB if writable else SCRATCH_MB,
        command=list(command),
        environment=dict(environment),
    )
    return json.dumps(plan._asdict()).encode()


def command_line(descriptor: int) -> list[str]:
    """The line that starts the launcher, by the healer's own Python."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py")), str(descriptor)]


def end(process: subprocess.Popen[bytes], marker: str) -> None:
    """Make sure of the end of a launcher that was asked to end (SIGTERM) and of all below it.

    A launcher that ended by itself has left nothing. For one that was killed, or hangs, what carries the
    marker is looked for.
    """
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None or process.returncode < 0:
        end_marked(marker)


def expected(interpreter: Interpreter, root: bool) -> dict[str, Any]:
    """What SELF_CHECK must report from inside."""
    answers = expected_anywhere(interpreter) | {
        "user": NOBODY if root else os.getuid(),
        "group": NOBODY if root else os.getgid(),
        "capabilities in force": "",
        "system-call filter": True,
        "can open a socket": False,
        "can list the folder above its tree": False,
    }
    if root:  # an ordinary user cannot empty the set of those that it could never get
        answers["capabilities"] = [""]
    if root or version() >= SCOPES_SINCE:
        answers["can signal the healer"] = False
    return answers
