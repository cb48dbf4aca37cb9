"""A handler that raises, as that of Ctrl-C does, at any point of a writer's work: nothing that was stored is lost.

CPython runs signal handlers when a function begins and when a call returns. An exception is put at each such
point in turn, and the writer is used again.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qigcore.history import History, files, writer

from . import truth
from .stores import abandon

WATCHED = {writer.__file__, files.__file__}


class Interrupted(BaseException):
    """What a handler raises."""


def interrupted(call: Callable[[], object], point: int) -> bool:
    """Whether the call has so many points; then it was interrupted there."""
    left = point

    def watch(frame: Any, event: str, _: object) -> None:
        nonlocal left
        if frame.f_code.co_filename in WATCHED and event in ("call", "c_return", "c_exception"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise Interrupted

    sys.setprofile(watch)
    try:
        call()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return left <= 0


class Counted:
    """A history whose rows are the labels from 0 on; `stored`: those that `append` has returned for."""

    def __init__(self, path: Path, durability: str) -> None:
        self.history = History(path, dim=truth.DIM, durability=durability)  # type: ignore[arg-type]
        self.stored: set[int] = set()
        self.asked = 0

    def append(self, count: int) -> None:
        labels = range(self.asked, self.asked + count)
        self.asked += count
        self.history.append_rows(*truth.rows(labels), truth.NAMES)
        self.stored |= set(labels)

    def check(self, path: Path) -> None:
        """What was stored is there once; of a call that was interrupted, all rows or none."""
        found = truth.labels(History.read_only(path).scan())
        assert len(found) == len(set(found))
        assert set(found) >= self.stored
        partial = set(found) - self.stored
        assert partial in (set(), set(range(self.asked)) - self.stored)


WORK: dict[str, tuple[int, Callable[[Counted], object]]] = {
    "first rows": (0, lambda counted: counted.append(2)),
    "rows": (3, lambda counted: counted.append(2)),
    "rows that fill a block": (200, lambda counted: counted.append(100)),
    "rows for several blocks": (5, lambda counted: counted.append(1100)),
    "seal": (7, lambda counted: counted.history.seal()),
    "flush": (7, lambda counted: counted.history.flush()),
}


@pytest.mark.parametrize(("work", "durability"), [*((work, "snapshot") for work in WORK), ("rows", "block")])
def test_an_exception_at_any_point_of_a_call(tmp_path: Path, work: str, durability: str) -> None:
    before, call = WORK[work]
    for point in itertools.count(1):
        path = tmp_path / str(point)
        counted = Counted(path, durability)
        if before:
            counted.append(before)
        if not interrupted(lambda counted=counted: call(counted), point):  # type: ignore[misc]
            break
        counted.append(4)
        counted.check(path)
        counted.append(1)
        counted.history.flush()
        counted.append(300)
        counted.append(2)
        counted.check(path)
        if point % 2:
            counted.history.close()
        else:
            abandon(counted.history)
        counted.check(path)
    assert point > 10
