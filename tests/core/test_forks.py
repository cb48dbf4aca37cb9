"""Objects are told of a fork as long as they are there, and none by an import."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from qigcore.forks import Forks

FORKING = """
import os, sys
from qigcore.forks import Forks

class Kept: told = ""
def child(one): one.told += "child"
def parent(one): one.told += "parent"

kind, one = Forks(child, parent), Kept()
kind.watch(one)
late = Kept()
kind.watch(late)
pid = os.fork()
if not pid:
    os._exit(0 if (one.told, late.told) == ("child", "child") else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert (one.told, late.told) == ("parent", "parent"), (one.told, late.told)
"""


class Kept:
    """Anything that can be held weakly."""


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Callable[[], None]]]:
    made: list[dict[str, Callable[[], None]]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: made.append(hooks))
    return made


def test_the_first_of_a_kind_registers_it_and_no_other(hooks: list[dict[str, Callable[[], None]]]) -> None:
    told: list[object] = []
    kind, other = Forks(told.append), Forks(told.append, told.append)
    assert hooks == []
    one, two, third = Kept(), Kept(), Kept()
    for each in (one, two):
        kind.watch(each)
    assert [set(each) for each in hooks] == [{"after_in_child"}]
    other.watch(third)
    assert set(hooks[1]) == {"after_in_child", "after_in_parent"}
    hooks[0]["after_in_child"]()
    assert told in ([one, two], [two, one])
    del told[:]
    hooks[1]["after_in_parent"]()
    assert told == [third]
    kind.in_parent()
    assert told == [third]


def test_what_is_gone_is_told_nothing(hooks: list[dict[str, Callable[[], None]]]) -> None:
    told: list[str] = []
    kind: Forks[Kept] = Forks(lambda _: told.append("one"))
    one, two = Kept(), Kept()
    kind.watch(one)
    kind.watch(two)
    del two
    gc.collect()
    hooks[0]["after_in_child"]()
    assert told == ["one"]


def test_a_fork_tells_each_side_its_own() -> None:
    subprocess.run(
        [sys.executable, "-c", FORKING],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
