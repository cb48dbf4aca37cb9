"""The command line in a process of its own, without the start of an interpreter for each.

Half a second of processor time goes into importing it, for commands that need a few milliseconds. So one
process imports it once and forks for each command: working folder, environment, arguments, outputs and the
end of the process are the command's own. What a command imports, and what an interpreter does at its start,
is nothing for this room: tests of these start a process themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = (
    "pydantic.main", "pydantic.type_adapter", "qigheal.backtest", "qigheal.cli.reference", "qigheal.healing.engine",
    "qigheal.monitor", "rich.markdown", "rich.table", "typer.core", "zoneinfo",
)  # fmt: skip
"""What most commands need, besides the rooms of the command line."""

PROGRAM = "from tests.commandline import awaited; awaited(); from qigheal.cli import main; main()"
ALONE = "from qigheal.cli import main; main()"
AT_THE_START = ("PYTHON", "LC_", "LANG")
"""Variables, by their beginning, that an interpreter reads once: with others than ours it has to start anew."""


def qigheal(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command in `cwd`, with `more` in its environment, and wait for its end."""
    argv, env = [*map(str, arguments)], {**os.environ, **more}
    if _first(env) != _first(STARTED):
        return subprocess.run(
            [sys.executable, "-c", ALONE, *argv],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    with tempfile.TemporaryDirectory(prefix="qigheal-said-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = _forking().ended([argv, str(cwd), env, str(out), str(err)])
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())


def _first(env: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in env.items() if name.startswith(AT_THE_START)}


STARTED = dict(os.environ)


class _Forking:
    """The process that forks."""

    def __init__(self) -> None:
        env = {**STARTED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ended(self, asked: list[object]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


_kept: list[_Forking] = []


def _forking() -> _Forking:
    if not _kept:
        _kept.append(_Forking())
        atexit.register(_kept[0].close)
    return _kept[0]


def awaited() -> None:
    """Fork for each line of standard input; returns in the forked process, set up as the command's own."""
    from qigheal import cli

    rooms = [each.name for each in pkgutil.walk_packages(cli.__path__, "qigheal.cli.")]
    for name in (*IMPORTED, *rooms):
        with contextlib.suppress(ImportError):  # what lacks an extra says so when it is run
            importlib.import_module(name)
    gc.freeze()  # else the first collection in each fork copies every page
    while line := sys.stdin.readline():
        argv, cwd, env, out, err = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            time.tzset()
            for number, name, how in (
                (0, os.devnull, os.O_RDONLY),
                (1, out, os.O_WRONLY),
                (2, err, os.O_WRONLY),
            ):
                opened = os.open(name, how | os.O_CREAT, 0o600)
                os.dup2(opened, number)
                os.close(opened)
            sys.argv[1:] = argv
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit(0)
