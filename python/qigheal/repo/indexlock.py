"""Holds a worktree's `index.lock`, in a way that tells one's own stale lock from a user's.

git takes `index.lock` around whatever changes an index, so holding it keeps a user's git commands out.
A process that is killed leaves the file behind, and nobody may remove a lock that somebody else holds.
Here the lock is a hard link to a mark, `qigheal-advance`, whose holder also has flock on it:

    index.lock is the mark's inode, flock free    our own lock, its holder is dead: it is taken over
    index.lock is another inode                   a user's: left alone
    mark noted, index.lock gone                   a person removed the lock and took over: note dropped

The mark holds what was being done, written before anything is touched. Commands are given the
mark's descriptor, so flock lasts until the last of them has ended, even when the healer is dead.
What is done under the lock is no matter of this module.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from qigheal.errors import Blocked, RepoError
from qigheal.repo.owned import Owner, open_file, open_folder

MARK, LOCK, INDEX, COPY = "qigheal-advance", "index.lock", "index", "qigheal-index"


class Note(msgspec.Struct, frozen=True):
    """What is being done: `ref` goes from commit `old` to commit `new`."""

    ref: str
    old: str
    new: str
    pid: int


class IndexLock:
    """The lock while it is held. `interrupted` is what its former holder was killed in, if any."""

    __slots__ = ("_folder", "_owner", "copy", "handle", "interrupted")

    def __init__(self, git_dir: Path, folder: int, handle: int, owner: Owner | None) -> None:
        self.copy = git_dir / COPY
        self.handle = handle
        self.interrupted: Note | None = None
        self._folder = folder
        self._owner = owner

    def note(self, note: Note | None) -> None:
        """Say what is about to be done; None: nothing is any longer."""
        os.ftruncate(self.handle, 0)
        if note is not None:
            os.pwrite(self.handle, msgspec.json.encode(note), 0)

    def fresh_copy(self) -> None:
        """Make `copy` the present index, for commands to work on."""
        for name in (COPY, f"{COPY}.lock"):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        copy_index(self._folder, self._folder, COPY, self._owner)

    def put_copy(self) -> None:
        """Make `copy` the index, in one step."""
        os.rename(COPY, INDEX, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _take(self) -> None:
        noted = os.pread(self.handle, 4096, 0)
        if _inode(LOCK, self._folder) == _inode(MARK, self._folder):
            with suppress(msgspec.DecodeError):  # half a note: killed before anything was touched
                self.interrupted = msgspec.json.decode(noted, type=Note)
            return
        try:
            os.link(MARK, LOCK, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except FileExistsError as held:
            os.unlink(MARK, dir_fd=self._folder)
            where = self.copy.parent / LOCK
            raise Blocked(f"{where} exists: another git command is at work there, or was killed") from held
        except OSError as error:
            raise RepoError(f"{self.copy.parent}: cannot take {LOCK}: {error.strerror}") from error
        self.note(None)

    def _release(self) -> None:
        self.note(None)
        if _inode(LOCK, self._folder) == _inode(MARK, self._folder):
            os.unlink(LOCK, dir_fd=self._folder)
        for name in (COPY, f"{COPY}.lock", MARK):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)


@contextmanager
def index_lock(git_dir: Path, owner: Owner | None) -> Iterator[IndexLock]:
    """Hold the index of the worktree whose git folder is `git_dir`. Raises Blocked when it is held."""
    folder = open_folder(git_dir, owner)
    try:
        handle = _claim_mark(git_dir, folder, owner)
        try:
            lock = IndexLock(git_dir, folder, handle, owner)
            lock._take()
            try:
                yield lock
            finally:
                lock._release()
        finally:
            os.close(handle)
    finally:
        os.close(folder)


def was_interrupted(git_dir: Path) -> bool:
    """Whether somebody has the lock in this way, or was killed while he had it."""
    return os.path.lexists(git_dir / MARK)


def copy_index(source: int, folder: int, name: str, owner: Owner | None) -> None:
    """Copy the index of git folder `source` to a new file.

    Its time goes along: git decides by it which files must be compared by content, because they
    may have changed in the instant in which the index was written.
    """
    try:
        handle = os.open(INDEX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    except OSError as error:
        raise Blocked(f"the worktree's index cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as original:
        found = os.fstat(original.fileno())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as copy:
            copy.write(original.read())
            copy.flush()
            if owner is not None:
                os.fchown(copy.fileno(), *owner)
            os.fchmod(copy.fileno(), found.st_mode & 0o777)
            os.utime(copy.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def _claim_mark(git_dir: Path, folder: int, owner: Owner | None) -> int:
    while True:
        handle = open_file(MARK, folder, owner)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(handle)
            raise Blocked(f"{git_dir}: another healer is moving a branch there at this moment") from held
        found = os.fstat(handle)
        if _inode(MARK, folder) == (found.st_dev, found.st_ino):
            return handle
        os.close(handle)  # its holder let go and removed it between the two calls


def _inode(name: str, folder: int) -> tuple[int, int] | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
