"""Odd numbers, few file descriptors, segments of one moment: an answer that is right, or a clear error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History

from .stores import NAMES, append, counted, rows


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """With so many files to be open at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def overlapping(path: Path, count: int) -> None:
    """Segments of two rows each, the first ones at one time and the last ones at one time."""
    for turn in range(count):
        heads, basins = rows(2, start=2 * turn)
        heads["timestamp"] = [0.0, 1000.0]
        with History(path, dim=3, clock=lambda turn=turn: float(turn)) as history:
            history.append_rows(heads, basins, NAMES)


def test_where_too_many_files_are_open_it_says_so_and_compaction_helps(tmp_path: Path) -> None:
    path = tmp_path / "store"
    overlapping(path, 150)
    reader, tidy = History.read_only(path), History(path, dim=3, clock=lambda: 1e4)
    with open_files(100):
        with pytest.raises(HistoryError, match=r"too many open files.*ulimit -n.*qigheal compact"):
            counted(reader.scan())
        with pytest.raises(HistoryError, match="too many open files"):
            reader.export(tmp_path / "out.csv")
        assert len(reader.last(300)) == 300
        assert tidy.compact(grace_s=0).segments == 150
        found = counted(reader.scan())
    assert found == [*range(0, 300, 2), *range(1, 300, 2)]
    with open_files(3), pytest.raises(HistoryError):
        reader.last(3)
    tidy.close()


def test_a_follower_gets_what_it_could_not_open_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "store"
    overlapping(path, 150)
    reader = History.read_only(path)
    found: list[int] = []
    with open_files(100):
        for batch in reader.follow(poll_s=0, stop=lambda: len(found) == 300):
            found.extend(batch.phi.astype(int).tolist())
    assert sorted(found) == list(range(300))
    assert not reader.damage


@pytest.mark.parametrize("turn", range(20))
def test_compaction_keeps_the_order_of_one_moment(tmp_path: Path, turn: int) -> None:
    held, clock = [], lambda: 1.7e9
    for label in range(7):
        heads, basins = rows(1, start=label)
        heads["timestamp"] = 5.0
        history = History(tmp_path, dim=3, clock=clock)
        history.append_rows(heads, basins, NAMES)
        if label in (2, turn % 7):
            held.append(history)
        else:
            history.close()
    before = counted(History.read_only(tmp_path).scan())
    tidy = History(tmp_path, dim=3, clock=clock)
    for _ in range(3):
        tidy.compact(grace_s=0)
        assert counted(tidy.scan()) == before
        if held:
            held.pop().close()
    tidy.close()


def test_names_without_room_between_them_are_left_alone(tmp_path: Path) -> None:
    with History(tmp_path, dim=3, clock=lambda: 1.0) as history:
        append(history, 1)
    (first,) = tmp_path.glob("*.qigh")
    base = first.name.rpartition("-")[0]
    first.rename(tmp_path / f"{base}-{5:016x}.qigh")
    alive = History(tmp_path, dim=3, clock=lambda: 1.0)
    append(alive, 1, start=1)
    name = f"{base}-{9:016x}"
    for file in tmp_path.glob(f"{alive.segments()[-1].name.removesuffix('.qigh')}.*"):
        file.rename(tmp_path / f"{name}{file.suffix}")
    with History(tmp_path, dim=3, clock=lambda: 1.0) as history:
        append(history, 1, start=2)
    last = next(file for file in tmp_path.glob("*.qigh") if int(file.stem.rpartition("-")[2], 16) > 9)
    last.rename(tmp_path / f"{base}-{6:016x}.qigh")
    before = sorted(file.name for file in tmp_path.iterdir())
    with History(tmp_path, dim=3) as tidy:
        assert tidy.compact(grace_s=0).made == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    alive.close()


def test_numbers_of_other_kinds(tmp_path: Path) -> None:
    with History(tmp_path, dim=3, clock=lambda: np.float64(1.7e9)) as history:
        append(history, 20)
        assert counted(history.scan(start=np.float32(3), end=np.float32(9))) == list(range(3, 9))
        assert history.expire(keep_s=np.float32(9), keep_bytes=np.int64(10**9)).segments == 0
        assert history.compact(grace_s=np.float32(9)).made == 0
        huge: Any = 10**400
        for attempt in (
            lambda: history.scan(start=huge),
            lambda: history.scan(end=-huge),
            lambda: history.expire(keep_s=huge),
            lambda: history.expire(keep_bytes=huge),
            lambda: history.compact(grace_s=huge),
            lambda: history.follow(poll_s=huge),
            lambda: history.follow(poll_s="1"),  # type: ignore[arg-type]
        ):
            with pytest.raises(HistoryError, match="expected a number"):
                attempt()
