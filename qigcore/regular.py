"""A small file as a whole: reads a regular one and nothing else, writes one that is never seen in part, and locks one.

What the content means is the caller's business. A history's own files are another matter: `qigcore.history.files`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """At most `most` bytes from the start of a file, all of them by default; links are followed.

    A FIFO or a device would keep its reader waiting for as long as it likes. Raises OSError, whose
    `strerror` says why, where the file cannot be read or is no regular one.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(most)


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """A descriptor of a file, opened without waiting; what this makes is its owner's alone. The caller closes it.

    flags: as `os.open` takes them; a FIFO that is to be written is told as one with O_RDWR alone.

    Raises OSError, whose `strerror` says why, where the file cannot be opened or is no regular one.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"it is {_kind(mode)} and no regular file", str(path))
    return handle


def locked(path: str | os.PathLike[str]) -> int | None:
    """A descriptor that holds the lock of a file, which is made where there is none; None while another holds it.

    The kernel lets go of the lock when the last process that has the descriptor closes it or ends. Root's is its
    folder's owner's, who could not take over else. Links are not followed. Raises OSError as `open_regular` does.
    """
    handle = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        _give(handle, Path(path).parent)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


def write_whole(
    path: str | os.PathLike[str], content: bytes, *, replace: bool = True, give: bool = False
) -> None:
    """Write a file by an atomic rename, so that a reader finds what was there before or all of this.

    give: what root makes in the folder of another belongs to that one, who could not read it else.

    Raises OSError; FileExistsError when the file is there and `replace` is False.
    """
    target = Path(path)
    # Not the module tempfile: it loads four others into a process that serves.
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(scratch, "xb") as file:
            if give:
                _give(file.fileno(), target.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(scratch, target)
        else:
            os.link(scratch, target)  # fails where a rename would overwrite
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()


def _give(handle: int, folder: Path) -> None:
    """What root makes in the folder of another belongs to that one."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "something else"
