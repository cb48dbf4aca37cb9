"""Confines one command without namespaces, stays above it, and ends all that it left running.

Runs as a program of its own (`python -I -S launcher.py DESCRIPTOR`), between the healer and the command, so
it uses the standard library alone and imports nothing of qigheal. Two Landlock domains lie inside one
another: the outer one holds this process, the inner one the command and all its descendants. A process may
signal only its own domain and those within: nothing of the command reaches this process, and one kill(-1)
from here reaches everything of the command and nothing else, whatever it forked and wherever it hid.

No policy here: what may be read and written, the filter of system calls and the limits come as a `Plan`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

# linux/landlock.h: rights by the version of the interface that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_FILES = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEVICE}
_TCP = {4: 0b11}  # bind, connect
_SCOPES = {6: 0b11}  # abstract Unix sockets, signals
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
READING = EXECUTE | READ_FILE | READ_DIR
SIGNALS = 0b10
SCOPES_SINCE = 6
"""The version from which signals can be kept inside a domain."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # landlock_*; these numbers are the same on every machine
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_PARENT_DEATH, _BOUND, _FILTER, _REAPER, _NO_NEW_RIGHTS = 1, 24, 22, 36, 38  # linux/prctl.h
_NEW_MOUNTS, _PRIVATE = 0x20000, 0x44000  # CLONE_NEWNS; MS_PRIVATE | MS_REC
_LOOKS_S = 0.1  # how often the disk is looked at
_GONE = -1  # instead of an exit code
_DYING_S = 5.0  # how long the last threads of a healer that is being killed may take to go
_HEALER_GONE = signal.SIGUSR1  # by the kernel; the healer itself asks for the end by SIGTERM
_MOST_FILES = 100_000

_libc = ctypes.CDLL(None, use_errno=True)


class Plan(NamedTuple):
    """What to run, and what it may do.

    healer: the process id of whoever asked; without it, everything ends.
    folder: holds `tree`, `scratch` and nothing else; it is removed here when the healer is gone.
    reading: paths that may be read. links: links on the way to them, with their targets.
    devices: files that may be read and written.
    user: the user to become, None to stay.
    filter: the system-call filter in hexadecimal.
    disk_mb: what all files that it can write may take.
    """

    healer: int
    folder: str
    tree: str
    scratch: str
    writable: bool
    reading: Sequence[str]
    links: Sequence[tuple[str, str]]
    devices: Sequence[str]
    user: int | None
    filter: str
    disk_mb: int
    command: list[str]
    environment: dict[str, str]


class Rights(NamedTuple):
    """What a version of Landlock can take away: files, TCP ports, and what leaves a domain."""

    files: int
    tcp: int
    scopes: int


def version() -> int:
    """The version of Landlock's interface in this kernel; 0 without it."""
    found: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, found)


def rights(version: int) -> Rights:
    """All that a kernel of this version knows; later versions bring more, which are not used."""

    def known(table: dict[int, int]) -> int:
        return sum(bits for since, bits in table.items() if since <= version)

    return Rights(known(_FILES), known(_TCP), known(_SCOPES))


def _call(what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _prctl(what: str, option: int, *arguments: object) -> None:
    _call(what, _libc.prctl(option, *arguments, *(ctypes.c_ulong(0),) * (4 - len(arguments))))


class _Domain:
    """A Landlock domain in the making; `enter` cannot be undone."""

    def __init__(self, handled: Rights) -> None:
        attributes = ctypes.create_string_buffer(struct.pack("<QQQ", *handled), 24)
        self._handled = handled
        self._set = _call(
            "landlock_create_ruleset", _libc.syscall(_CREATE, attributes, ctypes.c_size_t(24), 0)
        )

    def allow(self, path: str, files: int) -> None:
        """Let `path`, and what is below it, be used so; a path that does not exist needs no rule."""
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        allowed = files & self._handled.files
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            allowed &= OF_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("<Qi", allowed, place), 12)
        _call(f"landlock_add_rule {path}", _libc.syscall(_ADD, self._set, 1, rule, 0))
        os.close(place)

    def enter(self) -> None:
        _call("landlock_restrict_self", _libc.syscall(_RESTRICT, self._set, 0))
        os.close(self._set)


def _closed(path: str) -> str | None:
    """The first folder on the way to `path` that another user cannot pass, if there is one."""
    parts = path.split("/")[1:-1]
    for length in range(len(parts) + 1):
        parent = "/" + "/".join(parts[:length])
        if os.path.isdir(parent) and not os.stat(parent).st_mode & stat.S_IXOTH:
            return os.path.realpath(parent)
    return None


def _open_ways(paths: Sequence[str], links: Sequence[tuple[str, str]]) -> None:
    """Make every path reachable for another user, in a mount namespace of this process alone.

    Over each folder that is closed to others lies an empty one, in which only the needed paths appear.
    """
    there = [path for path in paths if os.path.exists(path)]
    real = dict.fromkeys(map(os.path.realpath, there))
    names = {path: os.path.realpath(path) for path in there if path not in real} | dict(links)
    closed = {parent for path in (*real, *names) if (parent := _closed(path)) is not None}
    if not closed:
        return
    try:
        _call("unshare", _libc.unshare(_NEW_MOUNTS))
    except OSError as error:
        shut = ", ".join(sorted(closed))
        raise OSError(
            f"an ordinary user cannot pass {shut}, and no way can be opened ({error}); chmod o+x {shut}, let "
            "TMPDIR and the interpreter ([probe] interpreter in qigheal.toml) lie elsewhere, or use bubblewrap"
        ) from error
    _call("mount", _libc.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None))
    # All are taken hold of before any is covered.
    flags = 0x88001  # OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    held = {
        path: _call(f"open_tree {path}", _libc.syscall(_OPEN_TREE, -100, os.fsencode(path), flags))
        for path in real
        if _closed(path) is not None
    }
    for parent in closed:
        mode = b"mode=755,size=1m"
        _call("mount", _libc.mount(b"opened", os.fsencode(parent), b"tmpfs", ctypes.c_ulong(0), mode))
    for path in sorted(held):
        if not os.path.exists(path):  # it may lie below another one
            os.makedirs(path, 0o755)
            moved = _libc.syscall(_MOVE_MOUNT, held[path], b"", -100, os.fsencode(path), 4)
            _call(f"move_mount {path}", moved)
        os.close(held[path])
    for link, target in names.items():
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), 0o755, exist_ok=True)
            os.symlink(target, link)


def _become(user: int) -> None:
    """Another user, without groups, and without a way back."""
    with open("/proc/sys/kernel/cap_last_cap") as text:
        last = int(text.read())
    for capability in range(last + 1):
        # A capability that was taken from the healer's own bounding set stays away.
        _prctl("drop a capability", _BOUND, ctypes.c_ulong(capability))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0), 8)  # version 3, this process
    _call("capset", _libc.capset(header, ctypes.create_string_buffer(24)))


def _confine(plan: Plan, version: int) -> None:
    """All that this process can lose, it loses here."""
    os.setsid()
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs out, the kernel ends this first
    known = rights(version)
    domain = _Domain(known)
    for path in plan.reading:
        domain.allow(path, READING)
    for path in plan.devices:
        domain.allow(path, READ_FILE | WRITE_FILE)
    domain.allow(plan.tree, known.files if plan.writable else READING)
    domain.allow(plan.scratch, known.files)
    os.chdir(plan.tree)
    os.umask(0o022)
    if plan.user is not None:
        _become(plan.user)
    _prctl("die with the parent", _PARENT_DEATH, ctypes.c_ulong(signal.SIGKILL))
    domain.enter()
    steps = bytes.fromhex(plan.filter)
    text = ctypes.create_string_buffer(steps, len(steps))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    loaded = Program(len(steps) // 8, ctypes.addressof(text))
    _prctl("system-call filter", _FILTER, ctypes.c_ulong(2), ctypes.byref(loaded))


def _start(plan: Plan, version: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _confine(plan, version)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that is inherited
            signal.signal(ignored, signal.SIG_DFL)
        os.execvpe(plan.command[0], plan.command, plan.environment)  # noqa: S606
    except BaseException as error:
        os._exit(_refuse(plan, error))


def _refuse(plan: Plan, why: BaseException) -> int:
    os.write(2, f"qigheal: cannot confine {plan.command[0]}: {why}\n".encode())
    return 126


def _kept_in(healer: int) -> bool:
    """Whether signals of this process really stay within its domain: one to the healer must not pass."""
    try:
        os.kill(healer, 0)
    except PermissionError:
        # A process number that has become another's would prove nothing.
        return os.getppid() == healer
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as text:
            found += map(int, text.read().split())
    return found


def _end_all(scoped: bool) -> None:
    """Kill and collect everything that descends from here; returns when nothing is left."""
    while True:
        try:
            if scoped:
                os.kill(-1, signal.SIGKILL)
            else:
                # Only children: nobody else collects them, so the numbers are theirs. Orphans become such.
                for child in _children(os.getpid()):
                    os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.005)


class Room(NamedTuple):
    """What a disk has left; file systems without a fixed number of files say 0 of it."""

    mb: float
    files: int


def _excess(plan: Plan, before: Room) -> str:
    """What of the disk was taken that may not be; "" when all is well.

    The files are only counted once the disk is fuller than it was by half of what is allowed.
    """
    now = _free(plan.folder)
    if now.mb < before.mb / 2:
        return f"{before.mb - now.mb:.0f} MB, half of all that was free"
    if before.mb - now.mb < plan.disk_mb / 2 and before.files - now.files < _MOST_FILES / 2:
        return ""
    try:
        taken_mb = _taken_mb([plan.scratch, *([plan.tree] if plan.writable else [])])
    except OSError as error:  # folders closed to their owner, names longer than the kernel takes
        return f"space in files that cannot be counted ({error})"
    return f"{taken_mb:.0f} MB, {plan.disk_mb} MB are allowed" if taken_mb > plan.disk_mb else ""


def _free(folder: str) -> Room:
    found = os.statvfs(folder)
    return Room(found.f_bfree * found.f_frsize / 2**20, found.f_ffree)


def _taken_mb(folders: list[str]) -> float:
    blocks = _nameless(os.stat(folders[0]).st_dev)
    waiting = list(folders)
    while waiting and len(blocks) < _MOST_FILES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    blocks[found.st_ino] = found.st_blocks
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
    if waiting:
        raise OSError(f"more than {_MOST_FILES} files")
    return sum(blocks.values()) * 512 / 2**20


def _nameless(device: int) -> dict[int, int]:
    """Blocks, by number, of the files without a name that the command's processes hold open."""
    blocks: dict[int, int] = {}
    waiting = _children(os.getpid())
    while waiting:
        pid = waiting.pop()
        try:
            waiting += _children(pid)
            for number in os.listdir(f"/proc/{pid}/fd"):
                found = os.stat(f"/proc/{pid}/fd/{number}")
                if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev == device:
                    blocks[found.st_ino] = found.st_blocks
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended, or closed it
    return blocks


def _watch(plan: Plan, child: int) -> int:
    """Wait for the command, the healer's word or end, or a disk that fills; gives the exit code, or `_GONE`."""
    before = _free(plan.folder)
    while True:
        got = signal.sigtimedwait({signal.SIGTERM, _HEALER_GONE, signal.SIGCHLD}, _LOOKS_S)
        if got is not None and got.si_signo != signal.SIGCHLD:
            return _GONE if got.si_signo == _HEALER_GONE else 137
        ended: int | None = None
        while ended is None:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                ended = 128 - code if code < 0 else code
            if not pid:
                break
        # Once more at the end: a command may be done before it is looked at.
        if excess := _excess(plan, before):
            os.write(2, f"qigheal: ended, it took of the disk {excess}\n".encode())
            return 137
        if ended is not None:
            return ended


def _wait_for_its_end(healer: int) -> None:
    """The word comes when the thread that started this ends; until its other threads have, the parent stays."""
    for _ in range(int(_DYING_S / 0.005)):
        if os.getppid() != healer:
            return
        time.sleep(0.005)


def remove(folder: str) -> str:
    """Remove `folder` with all that a hostile program may have left in it; nothing may still run in it.

    Depth, long paths and missing permissions do not matter: what lies deeper is moved up before it is
    emptied. Links are removed, never followed. Gives what stood in the way, "" for nothing.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            while waiting := [name for name in os.listdir(root) if _emptied(root, name)]:
                for name in waiting:
                    _flatten(root, name)
        finally:
            os.close(root)
        os.rmdir(folder)
    except OSError as error:
        return f"{folder}: {error}"
    return ""


def _flatten(root: int, name: str) -> None:
    """Remove the folder `name` in `root`; the folders in it become folders of `root`."""
    place = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        for inner in os.listdir(place):
            if _emptied(place, inner):
                os.rename(inner, os.urandom(16).hex(), src_dir_fd=place, dst_dir_fd=root)
    finally:
        os.close(place)
    os.rmdir(name, dir_fd=root)


def _emptied(place: int, name: str) -> bool:
    """Unlink what is no folder; a folder is made passable, and True says that it is one."""
    try:
        os.unlink(name, dir_fd=place)
    except IsADirectoryError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        return True
    return False


def main(descriptor: int) -> int:
    with os.fdopen(descriptor) as text:
        plan = Plan(**json.load(text))
    for waited in (signal.SIGCHLD, _HEALER_GONE):
        signal.signal(waited, signal.SIG_DFL)  # whoever ignores one leaves that to its children
    blocked = {signal.SIGTERM, _HEALER_GONE, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    _prctl("die with the healer", _PARENT_DEATH, ctypes.c_ulong(_HEALER_GONE))
    _prctl("collect orphans", _REAPER, ctypes.c_ulong(1))
    _prctl("gain no rights", _NO_NEW_RIGHTS, ctypes.c_ulong(1))
    # Taken hold of before another folder may lie over it.
    above = os.open(os.path.dirname(plan.folder), os.O_PATH | os.O_CLOEXEC)
    if plan.user is not None:
        try:
            _open_ways([*plan.reading, plan.folder], plan.links)
        except OSError as error:
            return _refuse(plan, error)
    code, scoped = 137, False
    found = version()
    if os.getppid() == plan.healer:
        if found >= SCOPES_SINCE:
            domain = _Domain(Rights(REFER, 0, SIGNALS))
            domain.allow("/", REFER)  # the one right that every domain must give: without, it is refused
            domain.enter()
            scoped = _kept_in(plan.healer)
        child = _start(plan, found)
        # The pipes are the command's alone, so that their ends tell of its end.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        try:
            code = _watch(plan, child)
        finally:
            _end_all(scoped)
    if code == _GONE:
        _wait_for_its_end(plan.healer)
        code = 137
    if os.getppid() != plan.healer:
        os.fchdir(above)
        remove(os.path.basename(plan.folder))
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
