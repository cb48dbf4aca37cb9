"""Kills a healer wherever its life leaves a trace, and lets a new one go on.

    python -m tests.heal.killing LIFE SPARSE RARE STRUCK

The points are found, not listed: a first run records every audited call of the interpreter (files
opened, renamed, linked; programs started; databases connected to) and looks at the disk at each. A
kill leaves nothing but what is on the disk and the children that are under way. So one kill for each
distinct state of the disk covers all the calls in between, and a call that is new is covered by itself.

    left      the state that a kill leaves, copied while no child was under way; a new healer goes on from it
    killed    a process forked to do the same is killed by SIGKILL: wherever a child was under way, and at some of
              the other points
    felled    the same with the children killed too, where there was one
    struck    it and its children are killed at a moment drawn by lot, amid a git command or a deployment too
    unwound   an exception that no handler catches is raised there, as by Ctrl-C or SIGTERM: clearing up runs

Whatever happened, in the end the refs, the commits, the files, the ledger's states and the deployments must
be those of a life without a kill. What a life is stands in `tests.heal.lives`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.heal.lives import LIVES, Act, Life, World, end_of, resumed

READ_ONLY = (
    "import", "compile", "exec", "marshal", "code", "object", "sys", "builtins", "cpython", "ctypes", "gc",
    "glob", "pathlib", "os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr",
)  # fmt: skip
"""Audited calls, by their beginning, that cannot leave a trace. All others may."""

SUBREAPER = 36


class Unwound(BaseException):
    """What nobody catches."""


class Point(NamedTuple):
    """A call before which a healer may die: its number, what it is, and what the disk holds then."""

    call: int
    event: str
    state: str
    busy: bool  # a child is under way
    copy: Path | None


class Tap:
    """Sees every audited call that may leave a trace. One for the whole process: it cannot be taken out."""

    def __init__(self) -> None:
        self.see: Any = None
        self.count = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.see is None or event.startswith(READ_ONLY):
            return
        if event == "open" and not _writes(arguments):
            return
        self.count += 1
        see, self.see = self.see, None
        try:
            see(self.count, event)
        finally:
            self.see = see

    @contextmanager
    def seen_by(self, see: Any) -> Iterator[None]:
        self.count, self.see = 0, see
        try:
            yield
        finally:
            self.see = None


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return not isinstance(flags, int) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def digest(folder: Path) -> str:
    """What is on the disk: names, modes, contents, and which names are one file."""
    told = hashlib.blake2b()
    for at, folders, files in os.walk(folder):
        folders.sort()
        folders[:] = [name for name in folders if name != "bench"]
        for name in sorted(files):
            path = Path(at, name)
            found = path.lstat()
            told.update(f"{path.relative_to(folder)}\0{found.st_mode:o}\0{found.st_nlink}\0".encode())
            told.update(hashlib.blake2b(path.read_bytes()).digest())
        told.update("\0".join(folders).encode())
    return told.hexdigest()


def copied(source: Path, dest: Path) -> None:
    """Put a copy of `source` in the place of `dest`; names that are one file stay one file."""
    shutil.rmtree(dest, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(dest)], check=True)


class Killing:
    """One act of a life, to be cut off everywhere."""

    def __init__(self, tap: Tap, world: World, act: Act, place: Path) -> None:
        self.tap, self.world, self.act, self.place = tap, world, act, place
        self.start = place / "start"
        self.points: list[Point] = []
        self.goal: dict[str, Any] = {}
        self.seconds = 0.0

    def record(self) -> None:
        """Run it once without a kill."""
        copied(self.world.folder, self.start)
        seen: set[tuple[str, bool]] = set()
        with self.tap.seen_by(lambda call, event: self._note(call, event, seen)):
            self.act.run(self.world)
        copied(self.start, self.world.folder)
        began = time.monotonic()
        self.act.run(self.world)
        self.seconds = time.monotonic() - began
        self.goal = end_of(self.world)

    def _note(self, call: int, event: str, seen: set[tuple[str, bool]]) -> None:
        state, busy = digest(self.world.folder), children() > 0
        if (state, busy) in seen:
            return
        seen.add((state, busy))
        copy = None if busy else self.place / f"left-{call}"
        if copy is not None:
            copied(self.world.folder, copy)
        self.points.append(Point(call, event, state, busy, copy))

    def left(self, point: Point) -> str:
        assert point.copy is not None
        copied(point.copy, self.world.folder)
        return self._resumed()

    def killed(self, point: Point) -> str:
        copied(self.start, self.world.folder)
        status = self._die(point)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return f"it was not killed: {status}"
        return self._resumed()

    def unwound(self, point: Point) -> str:
        copied(self.start, self.world.folder)

        def see(call: int, _: str) -> None:
            if call == point.call:
                raise Unwound

        try:
            with self.tap.seen_by(see):
                self.act.run(self.world)
        except Unwound:
            return self._resumed()
        return "the exception was swallowed"

    def felled(self, point: Point) -> str:
        """Killed with all that it had started, as by the end of its service: what git had locked stays locked."""
        copied(self.start, self.world.folder)
        self._die(point, group=True)
        return self._unlocked()

    def struck(self, after_s: float) -> str:
        """Killed with its children after a while; all of them is over then, or any part of it."""
        copied(self.start, self.world.folder)
        child = forked(lambda: self.act.run(self.world))
        time.sleep(after_s)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        reap()
        return self._unlocked()

    def _unlocked(self) -> str:
        """Go on; where that is held up by what git had locked, and says so, go on once more without the locks."""
        locks = [*self.world.toy.path.glob(".git/**/*.lock")]
        stale = [lock for lock in locks if lock.name not in ("qigheal-heal.lock", "index.lock")]
        wrong = self._resumed()
        if not wrong or not stale:
            return wrong
        end = end_of(self.world)
        reasons = " ".join(change.reason for change in self.world.ledger().changes().values())
        if end["deployed"] == self.goal["deployed"] != [] or not any(lock.name in reasons for lock in stale):
            return f"held up by {stale}, it says {reasons!r} and deployed {end['deployed']!r}"
        for lock in stale:
            lock.unlink(missing_ok=True)
        return self._resumed()

    def _die(self, point: Point, *, group: bool = False) -> int:
        def dying() -> None:
            whom = 0 if group else os.getpid()
            with self.tap.seen_by(lambda call, _: os.kill(whom, 9) if call == point.call else None):
                self.act.run(self.world)

        child = forked(dying)
        _, status = os.waitpid(child, 0)
        reap()
        return status

    def _resumed(self) -> str:
        return resumed(self.world, self.act, self.goal)


def forked(run: Callable[[], object]) -> int:
    """A process, and leader of a group, that does `run` and nothing after it; gives its id."""
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            run()
        finally:
            os._exit(0)
    with suppress(PermissionError, ProcessLookupError):  # whoever is first
        os.setpgid(child, child)
    return child


def children() -> int:
    return sum(
        len(Path(f"/proc/self/task/{task}/children").read_text().split())
        for task in os.listdir("/proc/self/task")
    )


def reap() -> None:
    """Wait for what the killed process had started: this process inherits it."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def ways(point: Point, k: int, sparse: int, rare: int) -> Iterator[str]:
    """How to end it at the k-th point."""
    if point.busy:
        yield from ("killed", "felled")
    elif k % sparse == 0:
        yield "left"
        if k // sparse % rare == 0:
            yield "killed"
    if k // sparse % rare == rare // 2 and k % sparse == 0:
        yield "unwound"


def lived(tap: Tap, life: Life, place: Path, sparse: int, rare: int, struck: int) -> dict[str, Any]:
    """End each act at one point in `sparse`; of these, one in `rare` also by a real kill and by an exception."""
    world = World(place / "work")
    life.begin(world)
    wrong: list[str] = []
    runs = dict.fromkeys(("left", "killed", "felled", "struck", "unwound"), 0)
    lot = random.Random(20260101)
    calls, seconds = [], time.monotonic()
    for number, act in enumerate(life.acts):
        folder = place / f"{number}"
        folder.mkdir()
        act.world(world)
        killing = Killing(tap, world, act, folder)
        clock = world.toy.clock
        killing.record()
        copied(world.folder, place / "goal")
        calls.append(f"{act.name}: {tap.count} calls, {len(killing.points)} states")
        for k, point in enumerate(killing.points):
            for way in ways(point, k + number, sparse, rare):
                world.toy.clock = clock
                runs[way] += 1
                if said := getattr(killing, way)(point):
                    wrong.append(f"{act.name}, {way} before call {point.call} ({point.event}): {said}")
        for k in range(struck):
            world.toy.clock = clock
            runs["struck"] += 1
            after = killing.seconds * (k + lot.random()) / struck
            if said := killing.struck(after):
                wrong.append(f"{act.name}, struck after {after:.4f} s: {said}")
        copied(place / "goal", world.folder)
    return {"wrong": wrong, "runs": runs, "calls": calls, "seconds": time.monotonic() - seconds}


def main() -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    name, (sparse, rare, struck) = sys.argv[1], map(int, sys.argv[2:])
    place = Path(
        tempfile.mkdtemp(prefix="qigheal-killing-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    try:
        scratch = place / "tmp"
        scratch.mkdir()
        tempfile.tempdir = str(scratch)
        print(json.dumps(lived(Tap(), LIVES[name], place, sparse, rare, struck)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
