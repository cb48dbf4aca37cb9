"""One confined process tree: its pipes, what it uses, and its certain end.

Knows nothing of how the tree was confined: the sandbox hands over a started process and the function
that ends everything it left running. No policy, no file of the host.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from qigheal.errors import SandboxError

TAIL_BYTES = 65_536
"""How much of a process's standard error is kept."""

LEAST_AVAILABLE = 0.05
"""The part of the machine's memory below which a sandbox is ended, whoever took the rest. Not all memory that
a process can take is counted as its own: what it shares and does not map, what sockets and pipes hold."""

_LOOK_S = 0.25  # how often that is looked at
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
_END_MS = 10_000  # killing takes microseconds; this long only on a machine in deep trouble
_CHAIN_S = 0.02  # dozens of links of a chain of processes
_LINKS = 4  # of them that may have begun since the newest was asked for
_STUCK = (
    "a killed process did not end within 10 s: it waits for a disk or a driver; "
    "see `ps -eo pid,stat,cmd` for state D"
)


class Usage(NamedTuple):
    """What a process tree has used: CPU in seconds so far, resident memory in MB now."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Completed:
    """How a confined command ended.

    returncode: as a shell reports it: 128 + n when signal n ended it (137 when it was killed).
    stdout, stderr: bytes; of stderr at most the last 64 KiB.
    wall_s: seconds from start to end. cpu_s: of the whole process tree, by the kernel's account where it
    ended by itself; of what was killed, as sampled while it ran (every 10 to 50 ms). max_rss_mb: sampled.
    level: the isolation it ran under. killed_for: None, or "timeout", "output", "memory", or the
    reason handed to `Running.kill`.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    level: str
    killed_for: str | None


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 65_536)
    finally:
        os.close(descriptor)


def descendants(pid: int) -> list[int]:
    """`pid` and every live process below it, parents first; empty when `pid` is gone."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        here = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{here}/task")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile; its children have moved up and are found on the next call
        for thread in threads:
            try:
                waiting += map(int, _read(f"/proc/{here}/task/{thread}/children").split())
            except (FileNotFoundError, ProcessLookupError):
                continue  # only this thread ended
        found.append(here)
    return found


def usage(pid: int) -> Usage:
    """CPU and resident memory of the tree below `pid`, in about 20 µs for three processes.

    A live process counts with the kernel's own nanosecond clock of it (the clock id of `pid` is
    (~pid << 3) | 2, clock_getcpuclockid(3)), and with what its waited-for children used, which the
    kernel tells in ticks of 10 ms (proc_pid_stat(5), cutime and cstime). A process that ended and
    whose parent ignores it is lost. Pages shared between processes count once in each.
    """
    cpu = 0.0
    pages = 0
    for here in descendants(pid):
        try:
            fields = _read(f"/proc/{here}/stat").rpartition(b")")[2].split()
            cpu += time.clock_gettime(((~here) << 3) | 2)
        except (OSError, ValueError):  # it ended between the listing and now
            continue
        cpu += (int(fields[13]) + int(fields[14])) / _TICK
        pages += int(fields[21])
    return Usage(cpu, pages * _PAGE_MB)


def available() -> float:
    """The part of the machine's memory that can still be had, as the kernel estimates it (proc_meminfo(5))."""
    fields = dict(line.split(b":") for line in _read("/proc/meminfo").splitlines())
    return int(fields[b"MemAvailable"].split()[0]) / int(fields[b"MemTotal"].split()[0])


def queued(pid: int | None = None) -> dict[int, tuple[float, float]]:
    """Seconds that main threads ran, and that they were ready to run and waited for a processor.

    By process, of the tree below `pid`, or of the calling thread alone. Empty where the kernel does not
    keep count (proc_pid_schedstat: the first two of three figures, in nanoseconds).
    """
    found: dict[int, tuple[float, float]] = {}
    places = {0: "thread-self"} if pid is None else {here: str(here) for here in descendants(pid)}
    for here, place in places.items():
        try:
            ran, waited, _ = _read(f"/proc/{place}/schedstat").split()
        except (OSError, ValueError):
            continue
        found[here] = int(ran) / 1e9, int(waited) / 1e9
    return found


def carries(pid: int | str, marker: str) -> bool:
    """Whether the environment of `pid` at its start held `marker`, a whole NAME=value."""
    try:
        return marker.encode() in _read(f"/proc/{pid}/environ").split(b"\0")
    except OSError:  # gone, or another user's
        return False


def marked(marker: str) -> list[int]:
    """Processes that carry `marker`."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and carries(name, marker)]


def newest(marker: str, seconds: float) -> list[int]:
    """The first found to carry `marker` among the processes that begin meanwhile, if any.

    In a chain of processes, each started by one that ends at once, every link is younger than a list of all.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        last = int(_read("/proc/loadavg").rsplit(maxsplit=1)[-1])
        for pid in range(last, max(0, last - _LINKS), -1):
            if carries(pid, marker):
                return [pid]
    return []


def _kill(pidfd: int) -> None:
    """Kill what `pidfd` names and wait until it is gone; the number cannot be another's by then."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    if not ended.poll(_END_MS):
        raise SandboxError(_STUCK)


def _reap(pid: int) -> None:
    """Collect an orphan that has become ours, as it does where the healer is process 1 of a container."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def end_space(pid: int, pidfd: int) -> None:
    """End a process-id namespace by its first process, and with it everything inside.

    The kernel lets the first process of a namespace end only after all others in it are gone
    (pid_namespaces(7)), so nothing is left when this returns.
    """
    try:
        _kill(pidfd)
    finally:
        os.close(pidfd)
    _reap(pid)


def end_marked(marker: str) -> None:
    """Kill every process that carries `marker`, and what those start meanwhile.

    A process that has wiped its own environment is not found: that is what namespaces are for.
    """
    clean = 0
    for _ in range(1000):
        # Between two programs of the same process there is a moment in which it shows no environment.
        found = marked(marker) if clean < 2 else newest(marker, _CHAIN_S)
        clean = 0 if found else clean + 1
        if clean == 3:
            return
        for pid in found:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if carries(pid, marker):  # asked again, now that the number is held
                    _kill(pidfd)
            finally:
                os.close(pidfd)
            _reap(pid)
    raise SandboxError("processes keep starting faster than they can be killed; use sandbox='namespaces'")


def end_left_in(folder: Path) -> int:
    """Kill what a killed healer left confined to trees below `folder`; gives how many that were.

    A confined process dies with its healer, but for an instant at its start: bubblewrap's second
    process waits there for the first, which dies, and knows nothing yet of whom to die with.
    """
    inside = f"{folder.absolute()}/".encode()

    def left(pid: int) -> bool:
        try:
            words = _read(f"/proc/{pid}/cmdline").split(b"\0")
        except OSError:
            return False
        return words[0].endswith(b"bwrap") and any(word.startswith(inside) for word in words)

    ended = 0
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        if not left(pid):
            continue
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if left(pid):  # asked again, now that the number is held
                    _kill(pidfd)
                    ended += 1
            finally:
                os.close(pidfd)
            _reap(pid)
    return ended


class Running:
    """A confined command at work. `stdin` and `stdout` are its unbuffered binary pipes.

    Standard error is drained all along by a thread of its own, so that a chatty process never blocks; the
    same thread ends the tree for "memory" where the machine is about to run out of it. Where the level is
    "namespaces" the process lives no longer than the thread that started it: the kernel ends it with that
    thread (PR_SET_PDEATHSIG), which is what keeps it from outliving a killed healer; at level "partial" its
    launcher is told so, and ends it.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        level: str,
        began: float,
        end: Callable[[], None],
        clean: Callable[[], None],
        ending: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.pid = process.pid
        self.stdin = cast(io.FileIO, process.stdin)
        self.stdout = cast(io.FileIO, process.stdout)
        self.stderr_seen = 0
        self._stderr = cast(io.FileIO, process.stderr)
        self._process = process
        self._level = level
        self._end = end
        self._clean = clean
        self._ending = ending
        self._began = began
        self._wall = 0.0
        self._tail = bytearray()
        self._killed_for: str | None = None
        self._last = Usage(0.0, 0.0)
        self._peak = 0.0
        self._ended = False
        self._completed: Completed | None = None
        self._drain = threading.Thread(target=self._keep_tail, name="qigheal-stderr", daemon=True)
        self._drain.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_tail(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            source = self._stderr.fileno()
            events = select.poll()
            events.register(source, select.POLLIN)
            look_at = time.monotonic()
            while True:
                if (now := time.monotonic()) >= look_at:
                    look_at = now + _LOOK_S
                    self._spare_the_machine()
                if events.poll(_LOOK_S * 1000):
                    if not (piece := os.read(source, 65_536)):
                        break
                    self.stderr_seen += len(piece)
                    self._tail += piece
                    del self._tail[:-TAIL_BYTES]
        # Closed here and nowhere else: a number closed under a blocked read could name another file by then.
        self._stderr.close()

    def _spare_the_machine(self) -> None:
        if self._ended or available() >= LEAST_AVAILABLE:
            return
        self._killed_for = self._killed_for or "memory"
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                # The leader alone, by what cannot name another process; all below it ends with it.
                if self._process.returncode is None:
                    signal.pidfd_send_signal(handle, self._ending)
            finally:
                os.close(handle)

    def stderr_tail(self) -> bytes:
        """The last 64 KiB of standard error so far."""
        return bytes(self._tail)

    def usage(self) -> Usage:
        """CPU so far and memory now, of the whole tree; after its end, what was last seen."""
        if not self._ended:
            now = usage(self.pid)
            if now.rss_mb:
                self._last = Usage(max(now.cpu_s, self._last.cpu_s), now.rss_mb)
                self._peak = max(self._peak, now.rss_mb)
        return self._last

    def queued(self) -> dict[int, tuple[float, float]]:
        """How long the tree's main threads ran and waited for a processor; see `processes.queued`."""
        return {} if self._ended else queued(self.pid)

    def exit_code(self, timeout_s: float) -> int | None:
        """The code with which the command ends by itself within `timeout_s`; None when it does not."""
        code = self._reap(timeout_s)
        return 128 - code if code is not None and code < 0 else code

    def _reap(self, timeout_s: float) -> int | None:
        """The command's return code once it has ended, with the CPU time that it and all its reaped took."""
        if self._process.returncode is not None:
            return self._process.returncode
        try:
            handle = os.pidfd_open(self.pid)
            try:
                events = select.poll()
                events.register(handle, select.POLLIN)
                if not events.poll(timeout_s * 1000):
                    return None
            finally:
                os.close(handle)
            # Popen would reap it as well, and lose what it used.
            _, status, used = os.wait4(self.pid, 0)
        except (
            ProcessLookupError,
            ChildProcessError,
        ):  # this process ignores SIGCHLD: nothing is left to reap
            return self._process.wait()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._last = Usage(max(used.ru_utime + used.ru_stime, self._last.cpu_s), self._last.rss_mb)
        return self._process.returncode

    def kill(self, reason: str) -> None:
        """End the whole tree now; `reason` becomes `killed_for` unless it was ended before."""
        if not self._ended:
            self._killed_for = reason
        self.end()

    def end(self) -> int:
        """End the whole tree, leaving the pipes open for what it had written; gives the return code."""
        if not self._ended:
            self._ended = True
            self._wall = time.monotonic() - self._began
            if self._reap(0) is None:
                os.killpg(self.pid, self._ending)
            try:
                if self._reap(_END_MS / 1000) is None:
                    raise SandboxError(_STUCK)
            finally:
                self._end()
        code = cast(int, self._process.returncode)
        return 128 - code if code < 0 else code

    def close(self, stdout: bytes = b"") -> Completed:
        """End the whole tree, close the pipes, remove what was made for it. May be called again.

        stdout: what the caller has read and wants in the record.
        """
        if self._completed is None:
            self.usage()
            try:
                code = self.end()
            finally:
                self._drain.join(1.0)  # at level "none" a process that wiped its marker may hold the pipe
                for pipe in (self.stdin, self.stdout):
                    with contextlib.suppress(OSError):
                        pipe.close()
                self._clean()
            self._completed = Completed(
                137 if self._killed_for else code,
                stdout,
                self.stderr_tail(),
                self._wall,
                self._last.cpu_s,
                self._peak,
                self._level,
                self._killed_for,
            )
        return self._completed
