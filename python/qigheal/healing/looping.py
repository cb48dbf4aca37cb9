"""The healing loop as a program of its own: a pass now and then every so often, beside the service.

One such loop works for a store: it holds `healer.lock` there. A pass that fails is said once and tried again; what
a pass does, and what it may do, is the engine's and the phase's. Nothing here knows a stage.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from qigcore.errors import QigcoreError
from qigcore.regular import open_regular
from qigheal.errors import EngineError, QighealError
from qigheal.healerchild import HELD, LOCK
from qigheal.records import HealResult

log = logging.getLogger("qigheal")

NICE: Final = 10
PARENT_LOOK_S: Final = 1.0


def loop(
    one_pass: Callable[[], HealResult],
    store: Path,
    every_s: float,
    *,
    told: Callable[[HealResult], None],
    failed: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """A pass at once and then every `every_s` seconds, for ever; it ends by an exception such as SystemExit.

    one_pass: makes an engine and lets it go through one pass. told: given what each pass did. failed: given one
    sentence where a pass failed; the same one again only after another word or a pass that went well.

    Raises EngineError where another healer holds the store. Where there is no store yet, or no more, it is waited
    for: one that was removed is the service's to make, and its ledger not to be begun anew unnoticed.
    """
    last = ""
    with contextlib.ExitStack() as held:
        handle: int | None = None
        while True:
            try:
                if handle is not None and not _same(handle, store / LOCK):
                    held.close()
                    handle = None
                if handle is None and store.is_dir():
                    handle = held.enter_context(lock(store))
            except FileNotFoundError:  # it was removed at this moment
                pass
            except OSError as error:
                raise EngineError(
                    f"{store / LOCK}: the healer's lock cannot be taken: {error.strerror}; make the store "
                    "writable for the healer"
                ) from error
            why = ""
            try:
                if handle is not None:
                    told(one_pass())
                else:
                    why = f"{store}: no store here yet; waiting for the service to make it"
            except (QighealError, QigcoreError, OSError) as error:
                why = str(error)
            except Exception as error:
                log.exception("a pass failed; this is a mistake in qigheal or in a strategy")
                why = f"{type(error).__name__}: {error}"
            if why and why != last:
                failed(why)
            last = why
            wait(every_s)


@contextlib.contextmanager
def lock(store: Path) -> Iterator[int]:
    """Hold the store against other healers, by the descriptor that this gives.

    The kernel lets go of it when the process ends, however it ends. A parent that took the lock hands it down
    by the descriptor's number in `QIGHEAL_HEALER_LOCK`. Raises EngineError where another process holds it, or
    what was handed down is something else.
    """
    path = store / LOCK
    given = os.environ.pop(HELD, "")  # the processes of a trial are not to inherit it
    if given:
        handle = _handed_down(given, path)
    else:
        handle = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        if os.geteuid() == 0:  # a healer run by root must not lock out the owner of the store
            owner = store.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as busy:
            pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            who = f"process {pid}" if pid.isdigit() else "another process"
            raise EngineError(
                f"{path}: another healer ({who}) works for this store; end it first, or let it work"
            ) from busy
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    """Whether the open file is the one that is there under this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _handed_down(given: str, path: Path) -> int:
    try:
        handle = int(given)
        if _same(handle, path):
            os.set_inheritable(handle, False)
            return handle
    except (ValueError, OverflowError, OSError):
        pass
    raise EngineError(
        f"{HELD}: expected the number of an open descriptor of {path}, got something else; unset it"
    )


def be_nice() -> None:
    """Leave the processors to the service; the processes of trials inherit it."""
    with contextlib.suppress(OSError):
        os.nice(NICE)


def end_with(parent: int, end: Callable[[], None] | None = None) -> None:
    """Have this process end, as by SIGTERM, when the process `parent` has ended. Starts a thread.

    parent: a process id, of the one that started this one.
    """
    ending = end or _terminate
    if os.getppid() != parent:  # it has ended already
        ending()
        return
    threading.Thread(target=_outlive, args=(parent, ending), name="qigheal-parent", daemon=True).start()


def _outlive(parent: int, ending: Callable[[], None]) -> None:
    try:
        handle = os.pidfd_open(parent)
    except OSError:  # a kernel or a filter that has no such call
        handle = -1
    if handle >= 0:
        watched = select.poll()
        watched.register(handle, select.POLLIN)
    while os.getppid() == parent:  # asked after opening: the number may be another's by now
        if handle >= 0:
            watched.poll()
            break
        time.sleep(PARENT_LOOK_S)
    ending()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
