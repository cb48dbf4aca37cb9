"""Things in a store's folder that are none of its own, under its names: passed over in bounded time and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History

from . import truth
from .limits import little_memory, little_time
from .stores import file_of

HUGE = 5 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # as /dev/zero, which has no end
    except PermissionError:
        pytest.skip("only root makes devices")


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # such a name has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def noise(path: Path) -> None:
    piece = np.random.default_rng(1).bytes(1 << 22)
    path.write_bytes(b"".join(piece for _ in range(20)))


def many_magics(path: Path) -> None:
    path.write_bytes(b"\x93QIGBLK\n1234\1\0\0\0" * (1 << 16) + b"\x93QJ\n" * (1 << 16))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "device": device,
    "socket": unix_socket,
}
FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("Dear diary"),
    "sparse": sparse,
    "noise": noise,
    "magics": many_magics,
}


def read_all(path: Path) -> History:
    """Read the store in every way; it holds the rows 0 to 299 of `truth`."""
    reader = History.read_only(path)
    with little_memory(), little_time():
        assert truth.labels(reader.follow(stop=lambda: True)) == list(range(300))
        assert truth.labels([reader.last(10)]) == list(range(290, 300))
        assert sum(info.rows for info in reader.segments()) == 300
        assert truth.labels(reader.scan()) == list(range(300))
    return reader


def write(path: Path) -> None:
    """Three hundred rows by a writer that meets what is in the folder, and tidies it up beside that."""
    with History(path, dim=truth.DIM) as history:
        for start in range(0, 300, 100):
            history.append_rows(*truth.rows(range(start, start + 100)), truth.NAMES)
        history.expire(keep_bytes=1e12)
        history.compact(grace_s=0)


@pytest.mark.parametrize("name", ["0.qigh", "z.qigh"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_looked_into(path: Path, kind: str, name: str) -> None:
    path.mkdir()
    NO_FILES[kind](path / name)
    write(path)
    assert not read_all(path).damage
    assert os.path.lexists(path / name)  # what is not the store's is not removed either


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_segment_is_told_and_passed_over(path: Path, kind: str) -> None:
    path.mkdir()
    foreign = path / "0.qigh"
    FILES[kind](foreign)
    write(path)
    reader = read_all(path)
    problems = {info.name: info.problem for info in reader.segments()}
    assert "header" in problems["0.qigh"]
    assert reader.damage.bad_headers == (kind != "empty")
    assert not reader.damage.missing_rows
    assert foreign.exists()


@pytest.mark.parametrize("kind", [*NO_FILES, *FILES])
def test_what_is_no_journal_hides_no_sealed_row(path: Path, kind: str) -> None:
    write(path)
    foreign = file_of(path, ".qigh").with_suffix(".journal")
    {**NO_FILES, **FILES}[kind](foreign)
    reader = read_all(path)
    told = reader.damage.unreadable or reader.damage.torn_tails
    assert bool(told) == (kind != "empty")
    with History(path, dim=truth.DIM) as history:
        history.compact(grace_s=0)
        history.expire(keep_bytes=1e12)
    read_all(path)


def test_a_file_that_may_not_be_read_is_named(path: Path) -> None:
    write(path)
    script = """
import os, sys
from pathlib import Path
from qigcore.history import History
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
reader = History.read_only(sys.argv[1])
print(sum(len(batch) for batch in reader.scan()), *reader.damage.unreadable, sep="|")
print([info.problem for info in reader.segments() if info.rows == 0])
"""
    (path / "0.qigh").write_bytes(file_of(path, ".qigh").read_bytes())
    (path / "0.qigh").chmod(0)
    ways = [path.parents[depth] for depth in range(len(path.parents) - 1)]
    closed = [way for way in ways if not way.stat().st_mode & 0o005]
    if os.geteuid() == 0 and [way for way in closed if way.stat().st_uid != os.getuid()]:
        pytest.skip("the way to the temporary folder is closed")
    modes = {way: way.stat().st_mode for way in [*closed, path]}
    file_of_rows = next(file for file in path.glob("*.qigh") if file.name != "0.qigh")
    file_of_rows.chmod(0o644)
    try:
        for way in modes:
            way.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
    finally:
        for way, mode in modes.items():
            way.chmod(mode)
    assert done.stdout.splitlines() == ["300|0.qigh: Permission denied", "['Permission denied']"]


@pytest.mark.parametrize("kind", ["link to itself", "pipe", "device", "text"])
def test_a_path_that_is_no_folder_is_refused_in_one_line(path: Path, kind: str) -> None:
    {**NO_FILES, **FILES}[kind](path)
    with pytest.raises(
        HistoryError, match=r"^expected a folder of snapshots at .*, and there is none; name .*--store"
    ):
        History.read_only(path)
    with pytest.raises(HistoryError, match=r"expected a folder of snapshots|Too many levels") as refused:
        History(path, dim=truth.DIM).append_rows(*truth.rows([1]), truth.NAMES)
    assert "\n" not in str(refused.value)
