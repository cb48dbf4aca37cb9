"""Isolation: runs a command on a tree of files so that it can hurt nothing and leaves nothing behind.

Level "namespaces" confines with bubblewrap, a system-call filter and rlimits; level "partial" with Landlock
in the place of bubblewrap (see `landlock` for what that cannot do); level "none" only limits and cleans
up. What to run and what its output means is the caller's business; git and the manifest stay outside.
Not promised: protection from a flaw in the kernel, and secrecy of what is readable inside.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import resource
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from qigheal.errors import SandboxError
from qigheal.sandbox import bubblewrap, landlock
from qigheal.sandbox.bubblewrap import INSTALL, SCRATCH_MB, Interpreter, first_process, interpreter_at, tool
from qigheal.sandbox.inside import NOBODY, SELF_CHECK, objections, process_limit
from qigheal.sandbox.launcher import remove
from qigheal.sandbox.processes import Completed, Running, Usage, end_marked, end_space
from qigheal.sandbox.seccomp import program

__all__ = ["Completed", "Running", "Sandbox", "Usage"]

log = logging.getLogger("qigheal")

_OPEN_FILES = 1024
_LONGEST_CPU_S = 86_400  # of one process of a `start`ed command: even a forgotten one ends
_OR_NONE = "or say sandbox='none' to run without isolation"


def _limits(memory_mb: int, cpu_s: float, processes: int | None) -> list[str]:
    """The prlimit(1) line; each limit soft and hard, and never above what the healer itself may have."""
    wanted = {
        "as": (resource.RLIMIT_AS, memory_mb << 20),
        "fsize": (resource.RLIMIT_FSIZE, SCRATCH_MB << 20),
        "core": (resource.RLIMIT_CORE, 0),
        "nofile": (resource.RLIMIT_NOFILE, _OPEN_FILES),
        "cpu": (resource.RLIMIT_CPU, math.ceil(cpu_s)),
    }
    if processes is not None:
        wanted["nproc"] = (resource.RLIMIT_NPROC, processes)
    line = [tool("prlimit")]
    for name, (number, value) in wanted.items():
        hard = resource.getrlimit(number)[1]
        line.append(f"--{name}={value if hard == resource.RLIM_INFINITY else min(value, hard)}")
    return line


def _environment(interpreter: Interpreter, home: str, env: Mapping[str, str] | None) -> dict[str, str]:
    """What a confined command finds set; nothing of the healer's own environment.

    One thread per numerical library and a fixed hash seed, so that measurements differ by the code alone.
    """
    return {
        "PATH": f"{os.path.dirname(interpreter.executable)}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        **(env or {}),
    }


def _popen(
    line: list[str], env: Mapping[str, str], folder: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        line,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        bufsize=0,
        env=env,
        cwd=folder,
        pass_fds=descriptors,
        start_new_session=True,
    )


def _nothing() -> None:
    """For what leaves nothing behind."""


def _remove(folder: Path) -> None:
    if left := remove(str(folder)):
        log.warning("a sandbox's folder cannot be removed: %s", left)


def _handed_over(content: bytes) -> int:
    """A descriptor from which a started program reads `content`."""
    descriptor = os.memfd_create("qigheal")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Sandbox:
    """Runs commands at one level of isolation.

    level: "namespaces"; "partial", where bubblewrap is not to be had; "none" (only for code that is trusted
        as much as the healer); or "auto": the first of "namespaces" and "partial" that holds here, or an
        error, never less by itself.
    note: one sentence on what the isolation is, and what would make it whole.

    Raises SandboxError when the level cannot be had. Before the first command of an interpreter counts,
    that interpreter is started inside and reports what it can do; an answer that is not the expected one
    raises SandboxError too.
    """

    level: Literal["namespaces", "partial", "none"]
    note: str

    def __init__(self, level: Literal["auto", "namespaces", "partial", "none"] = "auto") -> None:
        if level not in ("auto", "namespaces", "partial", "none"):
            raise SandboxError(
                f"sandbox level: expected 'auto', 'namespaces', 'partial' or 'none', got {level!r}"
            )
        if not sys.executable:
            raise SandboxError(
                "sys.executable is empty: start the healer by a Python, not from within a host program"
            )
        if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            raise SandboxError(
                "expected /proc/PID/task/TID/children, without which a process tree can be neither measured nor "
                "ended; mount /proc, and use a kernel with CONFIG_PROC_CHILDREN"
            )
        self._pythons: dict[str | None, Interpreter] = {}
        self._filter = program()
        tool("prlimit")
        if level == "none":
            self.level = "none"
            self.note = (
                "no isolation: commands run as the healer's own user, on a copy of the tree, with limits on "
                f"time, memory and output; for isolation {INSTALL}"
            )
        elif level == "namespaces":
            self._use_namespaces()
        elif level == "partial":
            self._use_landlock()
        else:
            try:
                self._use_namespaces()
            except SandboxError as refused:
                try:
                    self._use_landlock()
                except SandboxError as both:
                    raise SandboxError(f"{refused}; nor by halves: {both}") from refused
                self.note += f"; for the whole, see to this: {refused}"

    def _use_namespaces(self) -> None:
        missing = " and ".join(name for name in ("bwrap", "setpriv", "choom") if not shutil.which(name))
        if missing:
            raise SandboxError(f"no isolation: {missing} not on PATH; {INSTALL}, {_OR_NONE}")
        self.level = "namespaces"
        self.note = (
            "isolated by bubblewrap: own network, processes and user, read-only tree and interpreter, "
            + (
                "system-call filter"
                if self._filter
                else f"no system-call filter known for {platform.machine()}"
            )
        )
        self._python(None)

    def _use_landlock(self) -> None:
        if why := landlock.missing():
            raise SandboxError(f"no partial isolation: {why}; {INSTALL}, {_OR_NONE}")
        self.level = "partial"
        self.note = landlock.note(os.geteuid() == 0)
        self._python(None)

    def run(
        self,
        argv: Sequence[str],
        *,
        tree: Path,
        timeout_s: float,
        memory_mb: int = 2048,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        output_cap: int = 1 << 20,
        writable: bool = False,
        interpreter: str | None = None,
    ) -> Completed:
        """Run a command to its end, or end it.

        argv: "python" as the first element means `interpreter`, or without one the healer's own.
        tree: the folder it runs in. It never changes: the command sees it read-only, or with
            `writable` a copy that is thrown away (at level "none" always a copy).
        timeout_s: wall seconds, then it is killed for "timeout".
        memory_mb: address space of each process, and resident memory of all together, above which it
            is killed for "memory".
        output_cap: bytes of stdout and stderr together, above which it is killed for "output".

        Raises SandboxError when it cannot be started, never for what the command does.
        """
        cpu_s = timeout_s * (os.cpu_count() or 1) + 5  # for a process that outlives the wall clock's kill
        with self._start(argv, tree, memory_mb, cpu_s, env, writable, self._python(interpreter)) as running:
            return _attend(running, timeout_s, memory_mb, stdin, output_cap)

    def start(
        self,
        argv: Sequence[str],
        *,
        tree: Path,
        memory_mb: int = 2048,
        env: Mapping[str, str] | None = None,
        writable: bool = False,
        interpreter: str | None = None,
    ) -> Running:
        """Start a command to talk to; arguments as for `run`. Time, output and the memory of all its
        processes together are the caller's to watch, and so is closing it."""
        python = self._python(interpreter)
        return self._start(argv, tree, memory_mb, _LONGEST_CPU_S, env, writable, python)

    def _start(
        self,
        argv: Sequence[str],
        tree: Path,
        memory_mb: int,
        cpu_s: float,
        env: Mapping[str, str] | None,
        writable: bool,
        python: Interpreter,
    ) -> Running:
        if not argv or not tree.is_dir():
            raise SandboxError(f"expected a command and a folder to run it in, got {list(argv)} in {tree}")
        command = [python.executable if argv[0] == "python" else argv[0], *argv[1:]]
        root = os.geteuid() == 0
        processes = None
        if self.level != "none":
            processes = process_limit() if self.level == "namespaces" else landlock.processes_allowed(root)
        # Limits come last in line: the tools before them may need more than the command gets.
        command = [*_limits(memory_mb, cpu_s, processes), *command]
        if self.level == "none":
            return self._start_bare(command, tree, env, python)
        if root and tree.stat().st_mode & 0o005 != 0o005:
            raise SandboxError(f"{tree}: user {NOBODY} inside could not read it; chmod -R o+rX it first")
        if self.level == "partial":
            return self._start_partial(command, tree, env, writable, python)
        return self._start_confined(command, tree, env, writable, python)

    def _start_bare(
        self, command: list[str], tree: Path, env: Mapping[str, str] | None, python: Interpreter
    ) -> Running:
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="qigheal-"))
        clean = partial(_remove, folder)
        name, value = "QIGHEAL_SANDBOX", secrets.token_hex(16)
        try:
            shutil.copytree(tree, folder / "tree", symlinks=True)
            (folder / "home").mkdir()
            environment = _environment(python, str(folder / "home"), env) | {name: value}
            process = _popen(command, environment, folder / "tree")
        except BaseException:
            clean()
            raise
        end = partial(end_marked, f"{name}={value}")
        return Running(process, level=self.level, began=began, end=end, clean=clean)

    def _start_partial(
        self,
        command: list[str],
        tree: Path,
        env: Mapping[str, str] | None,
        writable: bool,
        python: Interpreter,
    ) -> Running:
        began = time.monotonic()
        root = os.geteuid() == 0
        folder = Path(tempfile.mkdtemp(prefix="qigheal-"))
        clean = partial(_remove, folder)
        name, value = "QIGHEAL_SANDBOX", secrets.token_hex(16)
        try:
            landlock.prepare(folder, tree, writable, root)
            environment = _environment(python, str(folder / "scratch"), env) | {name: value}
            plan = _handed_over(landlock.described(folder, command, environment, python, writable, root))
            try:
                process = _popen(landlock.command_line(plan), {}, Path("/"), [plan])
            finally:
                os.close(plan)
        except BaseException:
            clean()
            raise
        return Running(
            process,
            level=self.level,
            began=began,
            end=partial(landlock.end, process, f"{name}={value}"),
            clean=clean,
            ending=signal.SIGTERM,
        )

    def _start_confined(
        self,
        command: list[str],
        tree: Path,
        env: Mapping[str, str] | None,
        writable: bool,
        python: Interpreter,
    ) -> Running:
        began = time.monotonic()
        reader, writer = os.pipe()
        with contextlib.ExitStack() as ours:
            ours.callback(os.close, reader)
            theirs = ours.enter_context(contextlib.ExitStack())
            theirs.callback(os.close, writer)
            descriptors = [writer]
            if self._filter is not None:
                descriptors.append(_handed_over(self._filter))
                theirs.callback(os.close, descriptors[1])
            line = bubblewrap.command_line(
                command,
                interpreter=python,
                tree=tree.absolute(),
                environment=_environment(python, "/tmp", env),  # noqa: S108
                writable=writable,
                info=writer,
                filtered=descriptors[1] if self._filter is not None else None,
                root=os.geteuid() == 0,
            )
            process = _popen(line, {}, Path("/"), descriptors)
            theirs.close()
            end: Callable[[], None] = _nothing
            try:
                first = first_process(reader)
                if first is not None:
                    end = partial(end_space, first, os.pidfd_open(first))
            except ProcessLookupError:
                pass  # it has ended already, and with it all that it could have left behind
            except BaseException:
                Running(process, level=self.level, began=began, end=_nothing, clean=_nothing).close()
                raise
        return Running(process, level=self.level, began=began, end=end, clean=_nothing)

    def _python(self, path: str | None) -> Interpreter:
        """The interpreter to use, tried from inside before its first use."""
        if path not in self._pythons:
            python = interpreter_at(path)
            if self.level != "none":
                self._try(python)
            self._pythons[path] = python
        return self._pythons[path]

    def _try(self, python: Interpreter) -> None:
        argv = ["python", "-I", "-c", SELF_CHECK, str(os.getpid())]
        with tempfile.TemporaryDirectory(prefix="qigheal-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            with self._start(argv, folder, 2048, 60, None, False, python) as running:
                done = _attend(running, 60, 2048, b"", 65_536)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-600:] or f"exit code {done.returncode}"
            raise SandboxError(
                f"no isolation: {python.executable} does not start inside ({said}). {self._hint()}"
            )
        expected = (
            bubblewrap.expected(python, self._filter is not None)
            if self.level == "namespaces"
            else landlock.expected(python, os.geteuid() == 0)
        )
        if wrong := objections(done.stdout, expected):
            raise SandboxError(f"the isolation does not hold: {wrong}; {_OR_NONE}")

    def _hint(self) -> str:
        readable = f"if the interpreter is not readable for others, chmod -R o+rX it; {_OR_NONE}"
        if self.level == "partial":
            return readable[0].upper() + readable[1:]
        return (
            "If namespaces are refused, run the healer with CAP_SYS_ADMIN, or as an ordinary user where user "
            f"namespaces are allowed (sysctl kernel.apparmor_restrict_unprivileged_userns=0); {readable}"
        )


def _attend(running: Running, timeout_s: float, memory_mb: int, stdin: bytes, output_cap: int) -> Completed:
    """Feed, read, measure and if need be kill, in one loop that never waits on a single pipe."""
    out = bytearray()
    left = memoryview(stdin)
    source, sink = running.stdout.fileno(), running.stdin.fileno()
    ended = os.pidfd_open(running.pid)
    began = sample_at = time.monotonic()
    events = select.poll()
    events.register(ended, select.POLLIN)
    events.register(source, select.POLLIN)
    events.register(sink, select.POLLOUT)
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    excess: str | None = None
    finished = False
    rss_mb = 0.0
    try:
        while not (excess or finished):
            now = time.monotonic()
            if now >= sample_at:
                sample_at = now + min(0.05, max(0.01, 0.02 * (now - began)))
                rss_mb = running.usage().rss_mb
            wait = max(0.0, min(sample_at, began + timeout_s) - now)
            for descriptor, _ in events.poll(math.ceil(wait * 1000)):
                if descriptor == ended:
                    finished = True
                    while len(out) <= output_cap and _read_some(source, out):
                        pass  # what it wrote just before its end
                elif descriptor == sink:
                    left = _feed(sink, left)
                    if not left:
                        events.unregister(sink)
                        running.stdin.close()
                elif not _read_some(source, out):
                    events.unregister(source)
            spent = {
                "output": (len(out) + running.stderr_seen, output_cap),
                "memory": (rss_mb, memory_mb),
                "timeout": (now - began, timeout_s),
            }
            excess = next((name for name, (used, most) in spent.items() if used > most), None)
        if excess:
            running.kill(excess)
    finally:
        os.close(ended)
    return running.close(bytes(out[:output_cap]))


def _feed(sink: int, left: memoryview) -> memoryview:
    """Write what the pipe takes; gives what is left, nothing when nobody reads any more."""
    try:
        return left[os.write(sink, left[:65_536]) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _read_some(source: int, out: bytearray) -> bool:
    """Append what is there now; False when there is nothing, or the pipe is at its end."""
    try:
        piece = os.read(source, 65_536)
    except BlockingIOError:
        return False
    out += piece
    return bool(piece)
