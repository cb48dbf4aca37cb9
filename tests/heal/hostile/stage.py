"""A stage for hostile programs: secrets, servers and bystanders, whose harm shows after each run.

Run in the test's own process, and as an ordinary user in another one; so it needs no pytest.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from qigheal.sandbox import Completed, Sandbox
from qigheal.sandbox.processes import marked

NOBODY = 65534
PRELUDE = '''
import ctypes, errno, json, os, platform, resource, signal, socket, stat, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
world = json.loads(sys.argv[1])
arm = platform.machine() == "aarch64"
def attempt(name, act):
    try:
        said = f"did it: {act()!r}"[:300]
    except OSError as error:
        said = errno.errorcode.get(error.errno, repr(error))
    except Exception as error:
        said = repr(error)
    print(json.dumps([name, said]), flush=True)
def call(x86, on_arm, *arguments):
    """A system call by its numbers; pointers are given as bytes."""
    ctypes.set_errno(0)
    got = libc.syscall(on_arm if arm else x86, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if got == -1:
        raise OSError(ctypes.get_errno(), "")
    return got
def write(path, flags=os.O_CREAT | os.O_WRONLY):
    handle = os.open(path, flags, 0o666)
    os.write(handle, b"hostile")
    os.close(handle)
def read(path):
    with open(path, "rb") as file:
        return file.read(4096)
def all_of(act, things):
    """The first that succeeds; otherwise the last error."""
    last = OSError(errno.ENODATA, "")
    for thing in things:
        try:
            return act(thing)
        except OSError as error:
            last = error
    raise last
'''

Level = Literal["namespaces", "partial", "none"]
REFUSED = r"E[A-Z0-9]+"
"""What an attempt ends with, unless its program says otherwise: the name of an error."""


class Program(NamedTuple):
    """A hostile program.

    script: runs after `PRELUDE`; every `attempt("...", ...)` in it must be made and must fail, each as
    `outcomes` says, by default with an error of the system.
    killed_for: how it must be ended. timeout_s, memory_mb: what it is given.
    says: must be found in what it prints, where no attempt returns.
    bare: at level "none" it is let do its harm, and the stage must notice: neither is a dummy.
    limits: level "none" promises to end it too.
    crowds: for a while nobody else of user 65534 can start a process.
    """

    name: str
    script: str
    outcomes: Mapping[str, str] = MappingProxyType({})
    killed_for: str | None = None
    timeout_s: float = 20.0
    memory_mb: int = 1024
    says: str = ""
    bare: bool = False
    limits: bool = False
    crowds: bool = False

    @property
    def attempts(self) -> list[str]:
        return re.findall(r'attempt\("([^"]+)"', self.script)


class Stage:
    """The world outside: what a program is told of it, and what has become of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.secret = f"secret-{secrets.token_hex(8)}"
        self.tag = f"hostile-{secrets.token_hex(8)}"
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.tree = folder / "tree"
        (self.tree / "package").mkdir(parents=True)
        (self.tree / "file").write_text("kept")
        self.place = folder / "place"
        self.place.mkdir()
        (self.place / "file").write_text("kept")
        (self.place / "secret").write_text(self.secret)
        (self.place / "folder").mkdir()
        # Open to everybody: it must be the sandbox that keeps hands off, not the mode.
        for path in (self.place, self.place / "folder", self.place / "file"):
            path.chmod(0o777)
        (self.place / "file").chmod(0o666)
        self._before = self._files()
        self._mounts = Path("/proc/mounts").read_text()
        self._buffer = ctypes.create_string_buffer(self.secret.encode())
        self._tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._servers = {"tcp": self._tcp}
        for name, kind, address in (
            ("udp", socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("path stream", socket.SOCK_STREAM, str(self.folder / "stream.sock")),
            ("path datagram", socket.SOCK_DGRAM, str(self.folder / "datagram.sock")),
            ("abstract stream", socket.SOCK_STREAM, f"\0{self.tag}-stream"),
            ("abstract datagram", socket.SOCK_DGRAM, f"\0{self.tag}-datagram"),
        ):
            family = socket.AF_INET if name == "udp" else socket.AF_UNIX
            server = stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            if kind == socket.SOCK_STREAM:
                server.listen()
            if name.startswith("path"):
                os.chmod(str(address), 0o777)  # noqa: S103  only the sandbox keeps hands off
            self._servers[name] = server
        for server in self._servers.values():
            server.setblocking(False)
        users = [None, NOBODY] if os.geteuid() == 0 else [None]
        self._bystanders = [stack.enter_context(self._bystander(user)) for user in users]
        self._limits = [self._state(bystander) for bystander in self._bystanders]
        self._inherited = os.open(self.place / "secret", os.O_RDONLY)
        stack.callback(os.close, self._inherited)
        os.set_inheritable(self._inherited, True)

    @contextmanager
    def _bystander(self, user: int | None) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            ["/bin/sleep", "600"],
            env={"SECRET": self.secret},
            user=user,
            group=user,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def told(self) -> dict[str, Any]:
        """What a program is told, so that it need not search."""
        return {
            "place": str(self.place),
            "folder": str(self.folder),
            "tree": str(self.tree),
            "healer": os.getpid(),
            "bystanders": [process.pid for process in self._bystanders],
            "address": ctypes.addressof(self._buffer),
            "tcp": self._tcp.getsockname(),
            "udp": self._servers["udp"].getsockname(),
            "stream": str(self.folder / "stream.sock"),
            "datagram": str(self.folder / "datagram.sock"),
            "abstract": self.tag,
            "inherited": self._inherited,
            "half the secret": self.secret[:12],
        }

    def run(self, sandbox: Sandbox, program: Program) -> Completed:
        script = f"{PRELUDE}\n{program.script}"
        return sandbox.run(
            ["python", "-c", script, json.dumps(self.told), self.tag],
            tree=self.tree,
            timeout_s=program.timeout_s,
            memory_mb=program.memory_mb,
            env={"QIGHEAL_TEST": self.tag},
        )

    def harm(self, done: Completed) -> list[str]:
        """What has been done to the world, and what was left in it."""
        found = []
        if self.secret.encode() in done.stdout + done.stderr:
            found.append("the secret was read")
        now = self._files()
        for path in sorted(now.keys() | self._before.keys()):
            if now.get(path) != self._before.get(path):
                found.append(f"{path} is {now.get(path)}, was {self._before.get(path)}")
        if self._buffer.value != self.secret.encode():
            found.append("the healer's memory was written")
        for name, server in self._servers.items():
            with suppress(BlockingIOError):
                if server.type == socket.SOCK_STREAM:
                    server.accept()[0].close()
                else:
                    server.recv(4096)
                found.append(f"something came to the server of {name}")
        for process, before in zip(self._bystanders, self._limits, strict=True):
            if (state := self._state(process)) != before:
                found.append(f"a bystander is {state}, was {before}")
        found += [f"process {pid} is left" for pid in self._left()]
        found += [f"{path} is left" for path in self.temporary.iterdir()]
        if Path("/proc/mounts").read_text() != self._mounts:
            found.append("mounts have changed")
        for kind in ("shm", "sem", "msg"):
            if "305419896" in Path(f"/proc/sysvipc/{kind}").read_text():
                found.append(f"a shared {kind} is left")
        return found

    def _files(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.place, self.tree, *self.place.rglob("*"), *self.tree.rglob("*")):
            stat = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (stat.st_mode, stat.st_uid, stat.st_nlink, stat.st_mtime_ns, content)
        return found

    def _state(self, process: subprocess.Popen[bytes]) -> tuple[object, ...]:
        """Alive or not, stopped or not, traced by whom, and what it may use."""
        if process.poll() is not None:
            return ("gone",)
        status = Path(f"/proc/{process.pid}/status").read_text()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        traced = re.findall(r"^(?:TracerPid|Cpus_allowed):.*", status, re.M)
        stopped = re.findall(r"^State:\s+([tTZX])", status, re.M)
        return (*stopped, *traced, os.getpriority(os.PRIO_PROCESS, process.pid), limits)

    def _left(self) -> list[int]:
        """Processes of a program, by their environment or by their words."""
        found = set(marked(f"QIGHEAL_TEST={self.tag}"))
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and self.tag.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.add(int(name))
        return sorted(found - {os.getpid()})


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """A stage in `folder`, which exists and which others may enter; temporary files go into it."""
    with ExitStack() as stack:
        stage = Stage(folder, stack)
        before, tempfile.tempdir = tempfile.tempdir, str(stage.temporary)
        stack.callback(setattr, tempfile, "tempdir", before)
        yield stage


def objections(program: Program, done: Completed, harm: list[str]) -> list[str]:
    """What is wrong with a run: harm done, an attempt that was not made, or not refused as it should be."""
    found = [*harm]
    if done.killed_for != program.killed_for:
        found.append(f"killed for {done.killed_for}, expected {program.killed_for}")
    lines = [line for line in done.stdout.splitlines() if line.startswith(b'["') and line.endswith(b'"]')]
    made = dict(map(json.loads, lines))
    for name in program.attempts:
        expected = program.outcomes.get(name, REFUSED)
        if not re.fullmatch(expected, made.get(name, "was not made"), re.S):
            found.append(f"{name}: expected {expected}, got {made.get(name, 'was not made')}")
    if program.says and not re.search(program.says.encode(), done.stdout + done.stderr):
        found.append(f"expected {program.says!r} in its output")
    if found:
        said = (done.stdout + done.stderr)[-1500:].decode(errors="replace")
        found.append(f"exit code {done.returncode}; it said {said}")
    return found


def play(level: Level, folder: Path, programs: list[Program]) -> dict[str, list[str]]:
    """Run every program at `level`; gives what was wrong, by the program's name."""
    wrong: dict[str, list[str]] = {}
    with staged(folder) as stage:
        sandbox = Sandbox(level)
        for program in programs:
            done = stage.run(sandbox, program)
            if found := objections(program, done, stage.harm(done)):
                wrong[program.name] = found
    return wrong


def main() -> None:
    """As an ordinary user: LEVEL FOLDER NAME...; prints what was wrong."""
    from tests.heal.hostile.programs import PROGRAMS

    level, folder, *names = sys.argv[1:]
    chosen = [program for program in PROGRAMS if program.name in names]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    stage = Path(folder) / "stage"
    stage.mkdir()
    print(json.dumps({"user": os.getuid(), "wrong": play(level, stage, chosen)}))  # type: ignore[arg-type]
