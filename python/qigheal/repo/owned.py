"""Opens files in folders that belong to somebody else, without being led elsewhere.

A healer that runs as root works in repositories of ordinary users, who could put a link where it is
about to write. Files are therefore opened relative to a folder's descriptor, never through a link,
and both must belong to the owner. What is written there is none of this module's business.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from qigheal.errors import RepoError


class Owner(NamedTuple):
    """The user whom a repository belongs to, by number."""

    uid: int
    gid: int

    @classmethod
    def of(cls, path: Path) -> Owner | None:
        """Who must act on `path`; None when that is the present user, or cannot be anybody else."""
        found = path.lstat()
        return cls(found.st_uid, found.st_gid) if os.geteuid() == 0 and found.st_uid != 0 else None


def open_folder(path: Path, owner: Owner | None) -> int:
    """A descriptor of a folder for use as `dir_fd`; the caller closes it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise RepoError(f"{path}: expected a folder that can be opened: {error.strerror}") from error
    _check(handle, str(path), owner)
    return handle


def open_file(name: str, folder: int, owner: Owner | None) -> int:
    """A descriptor of a file in `folder`, made if it is missing; the caller closes it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, 0o644, dir_fd=folder)
    except OSError as error:
        raise RepoError(f"{name}: cannot be opened in the git folder: {error.strerror}") from error
    found = os.fstat(handle)
    if owner is not None and found.st_uid == 0 and found.st_size == 0 and found.st_nlink == 1:
        os.fchown(handle, *owner)  # made just now, by root
    _check(handle, name, owner)
    return handle


def _check(handle: int, name: str, owner: Owner | None) -> None:
    found = os.fstat(handle)
    plain = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink <= 2)
    if plain and (owner is None or found.st_uid == owner.uid):
        return
    os.close(handle)
    raise RepoError(
        f"{name}: expected a plain file or folder of user {owner.uid if owner else os.geteuid()}, found "
        f"mode {stat.filemode(found.st_mode)}, owner {found.st_uid}, {found.st_nlink} links"
    )
