"""A tape of the calls that changed a folder, and the folders that a crash would have left of them.

A kill leaves all calls up to some moment, the last write perhaps in part. A power loss leaves what was
forced to the disk, and of the rest any part: file systems write data back in any order, in sectors, and
keep the entry of a new file only once its folder was forced to the disk as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

SECTOR = 512
LOSSES = ("unforced", "in order", "in sectors", "anything")
"""What a power loss takes of each file that was not forced to the disk: all of it, all behind some moment,
sectors behind some moment, or calls here and there."""


class Call(NamedTuple):
    """One call. Paths are relative to the tape's root; `file` numbers the files that ever were."""

    kind: Literal["mkdir", "create", "write", "cut", "force", "force folder", "unlink", "rename", "said"]
    path: str = ""
    file: int = -1
    at: int = 0
    data: bytes = b""
    to: str = ""
    said: Any = None


class Tape:
    """Records the calls of this process on the files under `root` while `patch` is in force.

    room: bytes left on the disk. broken: names of calls that fail with EIO.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.room = 1 << 60
        self.broken: set[str] = set()
        self._root = str(root)
        self._files: dict[str, int] = {}
        self._descriptors: dict[int, tuple[str, int]] = {}  # of files, and with number -1 of folders
        self._count = 0
        self._os = {name: getattr(os, name) for name in _TAPED}
        for name, method in _TAPED.items():
            patch.setattr(os, name, getattr(self, method))
        for name in _UNTAPED:
            patch.setattr(os, name, _unknown)

    def say(self, what: Any) -> None:
        """Note something between the calls."""
        self.calls.append(Call("said", said=what))

    def open(self, path: Any, flags: int, mode: int = 0o777, **other: Any) -> int:
        inside = self._inside(path)
        new = inside is not None and flags & os.O_CREAT and not os.path.lexists(path)
        if new:
            self._fail("create")
        descriptor: int = self._os["open"](path, flags, mode, **other)
        self._descriptors.pop(descriptor, None)
        if inside is not None:
            if new:
                self._files[inside], self._count = self._count, self._count + 1
                self.calls.append(Call("create", inside, self._files[inside]))
            assert not (flags & os.O_TRUNC) or new
            self._descriptors[descriptor] = inside, self._files.get(inside, -1)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        self._os["close"](descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        if descriptor not in self._descriptors:
            return int(self._os["write"](descriptor, data))
        path, file = self._descriptors[descriptor]
        self._fail("write")
        if self.room == 0 and len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        data = bytes(data)[: self.room]
        size = os.fstat(descriptor).st_size
        done: int = self._os["write"](descriptor, data)
        at = os.lseek(descriptor, 0, os.SEEK_CUR) - done
        assert at == size, "all files of a store are appended to"
        self.room -= done
        self.calls.append(Call("write", path, file, at, data[:done]))
        return done

    def cut(self, descriptor: int, size: int) -> None:
        if descriptor in self._descriptors:
            self._fail("cut")
        self._os["ftruncate"](descriptor, size)
        if descriptor in self._descriptors:
            path, file = self._descriptors[descriptor]
            self.calls.append(Call("cut", path, file, size))

    def force(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            self._fail("force")
            path, file = self._descriptors[descriptor]
            self.calls.append(Call("force folder" if file < 0 else "force", path, file))

    def unlink(self, path: Any, **other: Any) -> None:
        inside = self._inside(path)
        if inside is not None:
            self._fail("unlink")
        self._os["unlink"](path, **other)
        if inside is not None:
            self.calls.append(Call("unlink", inside, self._files.pop(inside, -1)))

    def rename(self, path: Any, to: Any, **other: Any) -> None:
        one, other_one = self._inside(path), self._inside(to)
        self._os["replace"](path, to, **other)
        if one is not None and other_one is not None:
            self._files[other_one] = self._files.pop(one, -1)
            self.calls.append(Call("rename", one, self._files[other_one], to=other_one))

    def mkdir(self, path: Any, mode: int = 0o777, **other: Any) -> None:
        self._os["mkdir"](path, mode, **other)
        inside = self._inside(path)
        if inside is not None:
            self.calls.append(Call("mkdir", inside))

    def _inside(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        name = os.path.abspath(os.fspath(path))
        return os.path.relpath(name, self._root) if f"{name}/".startswith(f"{self._root}/") else None

    def _fail(self, name: str) -> None:
        if name in self.broken:
            raise OSError(errno.EIO, "Input/output error")


_TAPED = {
    "open": "open",
    "close": "close",
    "write": "write",
    "ftruncate": "cut",
    "fsync": "force",
    "fdatasync": "force",
    "unlink": "unlink",
    "remove": "unlink",
    "rename": "rename",
    "replace": "rename",
    "mkdir": "mkdir",
}
_UNTAPED = ("pwrite", "pwritev", "writev", "sendfile", "copy_file_range", "truncate", "link", "symlink")


def _unknown(*_: object, **__: object) -> None:
    raise AssertionError("a call that the tape does not record")


class Disk:
    """Folders and files as calls make them. `dump` puts them into a real folder."""

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self.files: dict[str, int] = {}
        self.contents: dict[int, bytes] = {}
        self._dumped: dict[str, bytes] = {}

    def apply(self, call: Call) -> None:
        """A call that does not fit what there is (of a file that was lost) changes nothing."""
        if call.kind == "mkdir":
            self.folders.add(call.path)
        elif call.kind == "create":
            self.files[call.path] = call.file
            self.contents.setdefault(call.file, b"")
        elif call.kind == "write":
            old = self.contents[call.file]
            self.contents[call.file] = (
                old[: call.at].ljust(call.at, b"\0") + call.data + old[call.at + len(call.data) :]
            )
        elif call.kind == "cut":
            self.contents[call.file] = self.contents[call.file][: call.at].ljust(call.at, b"\0")
        elif call.kind == "unlink":
            self.files.pop(call.path, None)
        elif call.kind == "rename" and call.path in self.files:
            self.files[call.to] = self.files.pop(call.path)

    def dump(self, folder: Path) -> None:
        """Make `folder` look like this, and nothing else be in it. Files keep their place on the real disk."""
        for path in sorted(self.folders):
            folder.joinpath(path).mkdir(exist_ok=True)
        there = {
            path: self.contents[file]
            for path, file in self.files.items()
            if os.path.dirname(path) in self.folders | {""}
        }
        for path in self._dumped.keys() - there.keys():
            folder.joinpath(path).unlink()
        for path, content in there.items():
            if self._dumped.get(path) != content:
                folder.joinpath(path).write_bytes(content)
        self._dumped = there


def torn(call: Call) -> Iterator[Call]:
    """A write in part: cut near its beginning, about its middle, and just before its end."""
    size = len(call.data)
    for length in sorted({1, 33, 81, size // 2, size - 1} & set(range(size))):
        yield call._replace(data=call.data[:length])


def after_power_loss(calls: Sequence[Call], loss: str, rng: np.random.Generator) -> Disk:
    """What is left when the power goes after `calls`; one of the many possibilities, drawn by `rng`."""
    disk = Disk()
    for call in _names_left(calls, loss, rng):
        disk.apply(call)
    for file in {call.file for call in calls if call.kind == "create"}:
        disk.contents[file] = b""
        for call in _contents_left([call for call in calls if call.file == file], loss, rng):
            disk.apply(call)
    # An entry lies in a folder, and goes with it.
    for path in [path for path in disk.folders if os.path.dirname(path) not in disk.folders | {""}]:
        disk.folders.discard(path)
    return disk


def _names_left(calls: Sequence[Call], loss: str, rng: np.random.Generator) -> Iterator[Call]:
    """The calls on folders whose effect is left: those forced to the disk, and of the others any."""
    for index, call in enumerate(calls):
        if call.kind in ("mkdir", "create", "unlink", "rename"):
            folder = os.path.dirname(call.path) or "."
            forced = any(
                other.kind == "force folder" and other.path == folder for other in calls[index + 1 :]
            )
            if forced or (loss != "unforced" and rng.random() < 0.5):
                yield call


def _contents_left(calls: Sequence[Call], loss: str, rng: np.random.Generator) -> Iterable[Call]:
    """The calls on one file whose effect is left."""
    forced = max((index for index, call in enumerate(calls) if call.kind == "force"), default=-1)
    changes = [call for call in calls[forced + 1 :] if call.kind in ("write", "cut")]
    yield from (call for call in calls[: forced + 1] if call.kind in ("write", "cut"))
    if loss == "unforced":
        return
    if loss == "anything":
        yield from (call for call in changes if rng.random() < 0.5)
        return
    count = int(rng.integers(len(changes) + 1))
    for call in changes[:count]:
        if call.kind == "cut" or loss == "in order":
            yield call
        else:
            yield from _sectors(call, rng)
    if loss == "in order" and changes[count:] and changes[count].kind == "write":
        part = int(rng.integers(len(changes[count].data)))
        yield changes[count]._replace(data=changes[count].data[:part])


def _sectors(call: Call, rng: np.random.Generator) -> Iterator[Call]:
    """Of a write the sectors that reached the disk; the file may have grown all the same."""
    end = call.at + len(call.data)
    if rng.random() < 0.5:
        yield call._replace(kind="cut", at=end)
    for start in range(call.at // SECTOR * SECTOR, end, SECTOR):
        first = max(start, call.at)
        if rng.random() < 0.5:
            yield call._replace(at=first, data=call.data[first - call.at : start + SECTOR - call.at])
