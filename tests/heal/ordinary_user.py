"""Runs a Python script as an ordinary user, also when the tests run as root.

Root's interpreter often lies in a folder that nobody else may enter. The script then runs in a mount
namespace of its own in which the ways to the interpreter and to the packages are open.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import qigcore
import qigheal

USER = 65534
ORDINARY = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
CONTAINED = ("--bounding-set=-sys_admin,-sys_ptrace,-net_admin", "--inh-caps=-all")
"""What setpriv makes of root: an ordinary user, or root as it is in a container."""


def run_as_ordinary_user(
    script: str, folder: Path, *arguments: str, timeout: float = 60, become: tuple[str, ...] = ORDINARY
) -> str:
    """Run `script` and give what it printed; a failure of the script fails the test.

    folder: where the script and its temporary files go. become: what root becomes. Skips the test where
    root may not change user or mount.
    """
    folder.mkdir(exist_ok=True)
    file = folder / "script.py"
    file.write_text(script)
    roots = [str(Path(package.__path__[0]).parent) for package in (qigcore, qigheal)]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(dict.fromkeys(roots)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder),
    }
    line = [sys.executable, "-W", "error", str(file), *arguments]
    if os.geteuid() == 0:
        if become == ORDINARY:
            for path in (folder, file):
                os.chown(path, USER, USER)
        line = _opened([sys.prefix, sys.base_prefix, str(folder), *roots], line, become)
    done = subprocess.run(
        line, env=env, cwd="/", capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _opened(needed: list[str], line: list[str], become: tuple[str, ...]) -> list[str]:
    """A command that runs `line` as what `become` says where every folder of `needed` can be reached."""
    steps = ["set -e"]
    hidden: dict[str, list[str]] = {}
    for path in dict.fromkeys(os.path.realpath(name) for name in needed):
        closed = [p for p in reversed(Path(path).parents) if not p.stat().st_mode & 0o001]
        if closed:
            hidden.setdefault(str(closed[0]), []).append(path)
    # Every needed folder is first bound where it stays reachable: covering its parent hides it.
    stage = "/mnt"
    steps.append(f"mount -t tmpfs -o mode=755 stage {stage}")
    places = {path: f"{stage}/{i}" for i, path in enumerate(p for paths in hidden.values() for p in paths)}
    for path, place in places.items():
        steps.append(f"mkdir {place} && mount --bind {shlex.quote(path)} {place}")
    for parent, paths in hidden.items():
        steps.append(f"mount -t tmpfs -o mode=755 opened {shlex.quote(parent)}")
        for path in paths:
            steps.append(f"mkdir -p {shlex.quote(path)} && mount --bind {places[path]} {shlex.quote(path)}")
    steps.append(f"exec setpriv {shlex.join(become)} -- {shlex.join(line)}")
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if subprocess.run([*shell, "mount -t tmpfs try /mnt"], capture_output=True, check=False).returncode:
        pytest.skip("root may not mount here, so no ordinary user can be given its interpreter")
    return [*shell, "\n".join(steps)]
