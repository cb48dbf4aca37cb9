"""Healing passes and reviews, each in a process of its own, one at a time per store whoever asks.

    STORE/jobs/        mode 0700
      lock             held by the one that runs, whichever worker began it
      <id>.json        what it is and when it began; held likewise, so that everybody sees whether it runs
      <id>.out, .err   what it printed

The locks are the kernel's and lie on descriptors that the process inherits: they last exactly as long as it does,
also when the worker that began it is killed, and what it printed is found by every other worker. No thread waits
for it. Nothing is imported of healing: what runs is the command line.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from qigcore.regular import read_regular
from qigheal.api.exchange import Refused
from qigheal.api.records import Job
from qigheal.inherited import COMMAND, for_healer
from qigheal.records import Record

FOLDER: Final = "jobs"
KEPT: Final = 50
"""Jobs whose results stay, the newest."""

NICE: Final = 10
MOST_OUTPUT: Final = 16_000_000
MOST_MESSAGE: Final = 2000
PROGRAM: Final = COMMAND

Kind = Literal["heal", "review"]


class _Begun(Record, frozen=True):
    """What `<id>.json` holds."""

    id: str
    kind: Kind
    started_at: float


_CHILDREN: Final[set[int]] = set()
_LOCK: Final = threading.Lock()
"""Process numbers of those of this process, their parent also when the `Jobs` that began them is gone."""


def reap() -> None:
    """Let go of the children that have ended, so that none stays a zombie."""
    with _LOCK:
        for pid in list(_CHILDREN):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] != 0
            except ChildProcessError:  # another's: of the process that this one was forked from
                ended = True
            if ended:
                _CHILDREN.discard(pid)


class Jobs:
    """The jobs of one store. program: the command line to run.

    Raises Refused: 409 while one runs, 404 for an unknown id, 409 for a store that cannot be written.
    """

    def __init__(
        self, store: Path, *, program: Sequence[str] = PROGRAM, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = store / FOLDER
        self._program = tuple(program)
        self._clock = clock

    def start(self, kind: Kind, arguments: Sequence[str]) -> Job:
        """Begin one. Nothing that it prints reaches this process, and it outlives it."""
        reap()
        try:
            return self._start(kind, arguments)
        except OSError as error:
            raise Refused(
                409,
                "store_unusable",
                f"{self._folder}: a job cannot be begun here: {error.strerror or error}; see to the folder's "
                "permissions and the space on the disk",
            ) from error

    def _start(self, kind: Kind, arguments: Sequence[str]) -> Job:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        held = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        opened = [held]
        try:
            try:
                flock(held, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise self._busy() from None
            self._tidy()
            begun = _Begun(id=os.urandom(8).hex(), kind=kind, started_at=self._clock())
            opened.append(own := self._announce(begun))
            out, err = (self._create(f"{begun.id}{suffix}") for suffix in (".out", ".err"))
            opened += [out, err]
            child = subprocess.Popen(
                [text.encode("utf-8", "surrogateescape") for text in (*self._program, *arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(held, own),
                env=for_healer() | {"PYTHONUTF8": "1"},  # arguments are UTF-8 whatever the locale
                start_new_session=True,  # a signal to the workers' group is not meant for it
            )
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
            with _LOCK:
                _CHILDREN.add(child.pid)
            child.returncode = (
                0  # it is waited for by its number: the object would complain that it still runs
            )
            return Job(id=begun.id, kind=kind, state="running", started_at=begun.started_at)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def get(self, identity: str) -> Job:
        """A job as it is now."""
        reap()
        begun = self._begun(identity)
        if begun is None:
            raise Refused(
                404, "not_found", f"expected the id of a job, got {identity[:64]!r}; old ones are removed"
            )
        if self._runs(identity):
            return Job(id=begun.id, kind=begun.kind, state="running", started_at=begun.started_at)
        return self._ended(begun)

    def running(self) -> str | None:
        """The id of the one that runs."""
        names = self._names()
        return next((name for name in reversed(names) if self._runs(name)), None)

    def _busy(self) -> Refused:
        identity = self.running()
        what = "another job" if identity is None else f"job {identity}"
        return Refused(409, "busy", f"{what} is at work on this store; ask again when it has ended")

    def _announce(self, begun: _Begun) -> int:
        """Make the job's file: it is seen under its name only once it is whole and locked."""
        scratch = f".{begun.id}.json"
        descriptor = self._create(scratch)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            os.write(descriptor, msgspec.json.encode(begun))
            os.rename(self._folder / scratch, self._folder / f"{begun.id}.json")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _create(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _begun(self, identity: str) -> _Begun | None:
        if not re.fullmatch("[0-9a-f]{16}", identity):
            return None
        try:
            return msgspec.json.decode(read_regular(self._folder / f"{identity}.json", 10_000), type=_Begun)
        except (OSError, ValueError):
            return None

    def _runs(self, identity: str) -> bool:
        try:
            descriptor = os.open(self._folder / f"{identity}.json", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            flock(descriptor, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _ended(self, begun: _Begun) -> Job:
        """What came of it. A document on its standard output is its result; without one it failed."""
        out, err = (self._folder / f"{begun.id}{suffix}" for suffix in (".out", ".err"))
        ended = begun.started_at
        for path in (out, err):
            with suppress(OSError):
                ended = max(ended, path.stat().st_mtime)
        result: Any = None
        problem = "it ended without an answer: it was killed, or its answer was removed"
        with suppress(OSError):
            lines = read_regular(err, MOST_OUTPUT).decode("utf-8", "replace").strip().splitlines()
            problem = lines[-1].removeprefix("qigheal: ")[:MOST_MESSAGE] if lines else problem
        with suppress(OSError, ValueError, RecursionError):
            result = msgspec.json.decode(read_regular(out, MOST_OUTPUT))
        return Job(
            id=begun.id,
            kind=begun.kind,
            state="failed" if result is None else "done",
            started_at=begun.started_at,
            ended_at=ended,
            message=problem if result is None else _message(result),
            result=result,
        )

    def _names(self) -> list[str]:
        """Ids by their beginning."""
        found = []
        with suppress(OSError):
            for path in self._folder.glob("[0-9a-f]*.json"):
                with suppress(OSError):
                    found.append((path.stat().st_mtime, path.stem))
        return [name for _, name in sorted(found)]

    def _tidy(self) -> None:
        """Remove the oldest jobs, and what a worker left that was killed while it began one."""
        kept = set(self._names()[-KEPT + 1 :])
        for path in self._folder.iterdir():
            if path.name != "lock" and (path.name.startswith(".") or path.stem not in kept):
                with suppress(OSError):
                    path.unlink()


def _message(result: Any) -> str:
    """One sentence of what a command printed as JSON: of `heal` its own, of `review` the change's state."""
    if not isinstance(result, dict):
        return ""
    if isinstance(message := result.get("message"), str):
        return message[:MOST_MESSAGE]
    if isinstance(review := result.get("review"), dict):
        return f"the patch is {'approved' if review.get('approved') else 'rejected'}; nothing was merged"
    if isinstance(state := result.get("state"), str):
        reason = result.get("reason")
        return f"the change is {state}" + (f": {reason}"[:MOST_MESSAGE] if reason else "")
    return ""
