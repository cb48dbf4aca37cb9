"""What a history asks of the file system: names, creation, liveness, writes that are whole or fail.

No bytes are interpreted here.
"""

from __future__ import annotations

import datetime
import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path
from typing import BinaryIO

from qigcore.errors import HistoryError

SEGMENT_SUFFIX = ".qigh"
JOURNAL_SUFFIX = ".journal"

_STRIDE = 4096
"""Bytes read at least: a header of a block, its table and its first columns."""

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class TooManyFiles(HistoryError):
    """No file can be opened now. It says nothing of the file: what was to be read may be whole."""


def make_folder(folder: Path) -> None:
    """The store's folder, for this user alone, hidden from a git repository that it may lie in.

    A folder that holds something already is taken as it is. Its own entry is forced to the disk, without
    which a power loss could take all that is in it. Raises OSError.
    """
    new = [path for path in folder.parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not any(folder.iterdir()):
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as ignore:
            ignore.write("*\n")
    for path in (folder, *new):
        with suppress(PermissionError):  # of a parent that may be written and not be read
            sync_folder(path.parent)


def segments_in(folder: Path) -> dict[Path, bool]:
    """The segments of a folder by name, which is by their beginning, and whether there is a journal beside them.

    Foreign files are passed over. A journal that is not listed had no rows that were not sealed: it is made
    before its first row, and removed after its last one is in the segment.
    """
    segments, journals = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(JOURNAL_SUFFIX):
                journals.add(name.removesuffix(JOURNAL_SUFFIX))
            elif name.endswith(SEGMENT_SUFFIX) and entry.is_file(follow_symlinks=False):
                segments.append(name)
    segments.sort()
    return {folder / name: name.removesuffix(SEGMENT_SUFFIX) in journals for name in segments}


def journal_of(segment: Path) -> Path:
    """The journal beside a segment."""
    return segment.with_suffix(JOURNAL_SUFFIX)


def segment_name(created: float, host: str, pid: int, random: bytes) -> str:
    """`<start>-<host>-<pid>-<random>.qigh`; the start in UTC, so that names sort by it."""
    try:
        start = datetime.datetime.fromtimestamp(created, datetime.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    except (OverflowError, ValueError, OSError):
        start = "00000000T000000000000Z"
    return f"{start}-{re.sub('[^A-Za-z0-9_.]', '_', host)[:64]}-{pid}-{random.hex()}{SEGMENT_SUFFIX}"


def host_name() -> str:
    """This machine's name, as text that any file may hold: a name is bytes, of any kind."""
    return os.uname().nodename.encode("utf-8", "replace").decode()


def create_pair(segment: Path, header: bytes) -> tuple[int, int]:
    """A new segment, locked for as long as it stays open, and its empty journal: two descriptors.

    Raises OSError, and then neither file is left.
    """
    made: list[Path] = []
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(segment, _CREATE, 0o600))
        made.append(segment)
        # Held before a byte is in it: who finds bytes and no lock has found a dead segment.
        _lock(descriptors[0])
        write_all(descriptors[0], header)
        os.fdatasync(descriptors[0])
        descriptors.append(os.open(journal_of(segment), _CREATE, 0o600))
        made.append(journal_of(segment))
        sync_folder(segment.parent)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        for file in made:
            with suppress(OSError):
                os.unlink(file)
        raise
    return descriptors[0], descriptors[1]


def held(descriptor: int) -> bool:
    """Whether a living process writes the segment, or is about to: an empty file may not be locked yet."""
    if os.fstat(descriptor).st_size == 0:
        return True
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except OSError:  # where locks do not work at all, nothing is ever called dead
        return True
    flock(descriptor, LOCK_UN)
    return False


def in_place(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one that the folder shows under this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def write_all(descriptor: int, data: bytes | bytearray) -> int:
    """All of it: a disk that is nearly full takes a part, and says so only when asked for the rest."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(descriptor, view[done:])
    return done


def resolved(path: Path) -> Path:
    """Where a path leads by its links, whether or not anything is there. Raises OSError where they turn in a circle."""
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name when the block ends; where it raises, what had the name stays.

    What is there already must be a file; a link to one is followed. A new file is for this user alone, as
    the store is; one that is replaced hands on its permissions. Raises OSError.
    """
    path = resolved(path)
    before = path.stat() if path.exists() else None
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise OSError(errno.EINVAL, "it is there and no file", str(path))
    scratch = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with os.fdopen(os.open(scratch, _CREATE, 0o600), "wb") as file:
            if before is not None:
                _hand_on(before, file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _hand_on(before: os.stat_result, descriptor: int) -> None:
    """The permissions of one file to another; those of a group only if it stays the same group."""
    mode = stat.S_IMODE(before.st_mode) & 0o777
    try:
        os.fchown(descriptor, -1, before.st_gid)
    except PermissionError:
        mode &= ~0o070
    os.fchmod(descriptor, mode)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor to read a file by. A pipe of that name would block without O_NONBLOCK.

    Raises OSError, or TooManyFiles.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise TooManyFiles(
                f"cannot read {path.parent}: too many open files; raise the limit (ulimit -n), or have fewer "
                "segments (qigheal compact)"
            ) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Window:
    """Reads a file by (length, offset), some kilobytes at least, and keeps those for what is asked of them."""

    __slots__ = ("_data", "_descriptor", "_offset")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data, self._offset = b"", 0

    def __call__(self, length: int, offset: int) -> bytes:
        at = offset - self._offset
        if at < 0 or at + length > len(self._data):
            if length >= _STRIDE:
                return os.pread(self._descriptor, length, offset)
            self._data, self._offset, at = os.pread(self._descriptor, _STRIDE, offset), offset, 0
        return self._data[at : at + length]

    def reaches(self, end: int) -> bool:
        """Whether the file is at least so long by now."""
        return os.fstat(self._descriptor).st_size >= end


def _lock(descriptor: int) -> None:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # no locks here: see `held`
            raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power loss. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems know no such thing
            raise
    finally:
        os.close(descriptor)
