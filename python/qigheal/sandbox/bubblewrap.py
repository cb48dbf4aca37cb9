"""What bubblewrap is told, and what must be true inside what it makes.

Builds argument lists; starts nothing but an interpreter asked where it lives.

Inside there is: the tree at `/tree`, read-only (or a private copy of it in memory); /usr and the
interpreter, read-only; /tmp and /dev/shm of bounded size, in memory; no network but an own loopback;
no processes but its own; user 65534 without capabilities and without a way to gain any. A healer run by
root must drop the user id inside the namespaces: in a user namespace made by root, user 65534 is still
root to the kernel and the process limit does not hold. A healer run by anybody else uses a user namespace.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qigheal.errors import SandboxError
from qigheal.sandbox.inside import NOBODY, expected_anywhere, process_limit

SCRATCH_MB = 256
"""Size of /tmp, and of a writable tree."""

TREE = "/tree"
ORIGINAL = "/tree.original"
_SHARED_MB = 64  # /dev/shm

ETC = (
    *("alternatives", "group", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "mime.types", "nsswitch.conf", "passwd", "ssl/certs"),
)
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # links into /usr, or folders
STORES = ("/nix/store", "/gnu/store")  # systems whose /usr holds nearly nothing
_IN_MEMORY = ("/tmp", "/dev", "/dev/shm", "/proc")  # noqa: S108

INSTALL = "install bubblewrap and util-linux (Debian, Ubuntu: apt install bubblewrap util-linux)"


class Interpreter(NamedTuple):
    """A Python and where it lives."""

    executable: str
    prefix: str
    base_prefix: str


def interpreter_at(path: str | None) -> Interpreter:
    """The Python at `path` (None: the one running this), asked where it lives."""
    if path is None:
        return Interpreter(sys.executable, sys.prefix, sys.base_prefix)
    question = "import sys; print(sys.prefix); print(sys.base_prefix)"
    try:
        asked = subprocess.run(
            [path, "-I", "-c", question], capture_output=True, text=True, check=True, timeout=60
        )
        prefix, base_prefix = asked.stdout.splitlines()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SandboxError(
            f"interpreter {path}: expected a Python that starts, got {error}; name a working one in qigheal.toml"
        ) from error
    return Interpreter(os.path.abspath(path), prefix, base_prefix)


def _below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def interpreter_mounts(interpreter: Interpreter) -> tuple[list[str], list[tuple[str, str]]]:
    """Folders to bind for an interpreter, and (link, target) pairs to recreate on the way to it.

    A folder that holds more than an interpreter (/, a home) is left out: better that the check inside
    fails than that somebody's files are shown.
    """
    real = Path(interpreter.executable).resolve()
    home = real.parent.parent if real.parent.name == "bin" else real.parent
    named = [interpreter.prefix, interpreter.base_prefix]
    folders = sorted({*named, *(os.path.realpath(name) for name in named), str(home)})
    refused = {"/", "/home", "/root", "/etc", "/tmp", str(Path.home())}  # noqa: S108
    roots: list[str] = []
    for folder in folders:
        if folder not in refused and not _below(folder, ["/usr", *STORES, *roots]):
            roots.append(folder)
    covered = ["/usr", *SYSTEM_FOLDERS, *STORES, *roots]
    links = [
        (link, target)
        for link, target in _links(interpreter.executable)
        if not _below(link, covered) and not any(_below(root, [link]) for root in roots)
    ]
    return roots, links


def _links(path: str) -> list[tuple[str, str]]:
    """Every symbolic link passed on the way to `path`, which exists, as (link, target)."""
    found: dict[str, str] = {}
    here, ahead = "/", path.split("/")[::-1]
    while ahead:
        step = os.path.normpath(os.path.join(here, ahead.pop()))
        if os.path.islink(step):
            found[step] = os.readlink(step)
            ahead += found[step].split("/")[::-1]
            here = "/" if found[step].startswith("/") else here
        else:
            here = step
    return list(found.items())


class _Mounts:
    """The arguments of bubblewrap that build the file system, in order."""

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self._there = {"/", *_IN_MEMORY}

    def parents(self, path: str) -> None:
        # bubblewrap makes missing parents with mode 0700, through which a dropped user cannot pass.
        for parent in reversed(Path(path).parents):
            if str(parent) not in self._there:
                self.arguments += ["--perms", "0755", "--dir", str(parent)]
                self._there.add(str(parent))

    def read_only(self, source: str, target: str) -> None:
        if os.path.exists(source):
            self.parents(target)
            self.arguments += ["--ro-bind", source, target]

    def link(self, target: str, link: str) -> None:
        self.parents(link)
        self.arguments += ["--symlink", target, link]

    def memory(self, path: str, size_mb: int) -> None:
        self.arguments += ["--perms", "1777", "--size", str(size_mb << 20), "--tmpfs", path]


def _file_system(interpreter: Interpreter, tree: Path, writable: bool) -> list[str]:
    mounts = _Mounts()
    mounts.read_only("/usr", "/usr")
    for folder in SYSTEM_FOLDERS:
        if os.path.islink(folder):
            mounts.link(os.readlink(folder), folder)
        else:
            mounts.read_only(folder, folder)
    for name in ETC:
        mounts.read_only(f"/etc/{name}", f"/etc/{name}")
    mounts.arguments += ["--proc", "/proc", "--dev", "/dev"]
    # Bubblewrap's own first process has no limits, and the same user as the command where the healer is an
    # ordinary one: whoever could write its memory would be rid of them.
    mounts.arguments += ["--perms", "0555", "--size", "4096", "--tmpfs", "/proc/1"]
    mounts.memory("/dev/shm", _SHARED_MB)  # noqa: S108
    mounts.memory("/tmp", SCRATCH_MB)  # noqa: S108
    roots, links = interpreter_mounts(interpreter)
    for root in (*STORES, *roots):
        mounts.read_only(root, root)
    for link, target in links:
        mounts.link(target, link)
    mounts.read_only(str(tree), ORIGINAL if writable else TREE)
    if writable:
        mounts.memory(TREE, SCRATCH_MB)
    return [*mounts.arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", TREE]


def command_line(
    command: Sequence[str],
    *,
    interpreter: Interpreter,
    tree: Path,
    environment: Mapping[str, str],
    writable: bool,
    info: int,
    filtered: int | None,
    root: bool,
) -> list[str]:
    """The whole line that runs `command` confined.

    info: descriptor to which bubblewrap reports the first process inside. filtered: descriptor of the
    system-call filter, if there is one. root: whether the healer is root, see above.
    """
    # Where memory runs out, the kernel ends this first.
    line = [tool("choom"), "-n", "1000", "--", tool("bwrap"), "--info-fd", str(info)]
    if filtered is not None:
        line += ["--seccomp", str(filtered)]
    line += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if root:
        line += [word for name in ("UID", "GID", "PCAP") for word in ("--cap-add", f"CAP_SET{name}")]
    else:
        line += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    line += ["--hostname", "sandbox", "--new-session", "--die-with-parent", "--clearenv"]
    for name, value in environment.items():
        line += ["--setenv", name, value]
    line += _file_system(interpreter, tree, writable)
    if root:
        line += [tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        line += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    if writable:
        line += ["/bin/sh", "-c", f'cp -R {ORIGINAL}/. . && exec "$@"', "sh"]
    return [*line, *command]


def first_process(reader: int) -> int | None:
    """The process id that bubblewrap reports on its --info-fd; None when it ended before it had one."""
    ready = select.poll()
    ready.register(reader, select.POLLIN)
    told = b""
    while not told.rstrip().endswith(b"}"):
        if not ready.poll(10_000):
            raise SandboxError("bubblewrap did not start within 10 s; is the machine overloaded?")
        piece = os.read(reader, 4096)
        if not piece:
            return None
        told += piece
    return int(json.loads(told)["child-pid"])


def expected(interpreter: Interpreter, filtered: bool) -> dict[str, Any]:
    """What SELF_CHECK must report from inside."""
    return expected_anywhere(interpreter) | {
        "user": NOBODY,
        "group": NOBODY,
        "capabilities": [""],
        "system-call filter": filtered,
        "process limit": process_limit(),
        "network devices": ["lo"],
    }


def tool(name: str) -> str:
    """The path of a program that the sandbox is made with."""
    found = shutil.which(name)
    if found is None:
        raise SandboxError(f"{name} is not on PATH; {INSTALL}")
    return found
