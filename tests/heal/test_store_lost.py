"""Stores that are damaged, vanish or fill up under those who read them: an answer or one clear line, never a trace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qigcore.baseline import Baseline
from qigcore.errors import QigcoreError
from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.errors import QighealError
from tests.heal.test_engine import engine, sick
from tests.heal.toyhost import ToyHost, git

LATER = """
import shutil, sys
from qigcore.history import History
from qigheal.cli import main

def gone(self, count):
    found = last(self, count)
    shutil.rmtree(self.path)
    return found

last = History.last
if sys.argv.pop(1) == "vanishing":
    History.last = gone
main()
"""


def run(*arguments: str | Path, how: str = "still") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", LATER, how, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a baseline, in three segments of 40 rows, the last one of a killed writer."""
    folder = tmp_path / "store"
    rng = np.random.default_rng(2)
    for turn in range(3):
        heads = np.zeros(40, HEAD)
        heads["timestamp"] = 40 * turn + np.arange(40)
        heads["phi"], heads["kappa_eff"] = rng.normal(0.75, 0.01, 40), rng.normal(64, 1, 40)
        history = History(folder, clock=lambda turn=turn: float(turn))  # type: ignore[misc]
        history.append_rows(heads, rng.dirichlet(np.full(64, 50.0), 40), ("",))
        if turn < 2:
            history.close()
    with History.read_only(folder) as reader:
        Baseline.learn(reader.last(120)).save(folder / "baseline.json")
    return folder


def halve(store: Path) -> None:
    for file in store.iterdir():
        with file.open("r+b") as cut:
            cut.truncate(file.stat().st_size // 2)


def flip(store: Path) -> None:
    for file in store.iterdir():
        data = bytearray(file.read_bytes())
        data[:: max(1, len(data) // 7)] = bytes(len(data[:: max(1, len(data) // 7)]))
        file.write_bytes(data)


def empty(store: Path) -> None:
    for file in store.iterdir():
        file.write_bytes(b"")


def to_folders(store: Path) -> None:
    for file in list(store.iterdir()):
        file.unlink()
        file.mkdir()


def to_file(store: Path) -> None:
    shutil.rmtree(store)
    store.write_text("a file")


def to_itself(store: Path) -> None:
    shutil.rmtree(store)
    store.symlink_to(store)


HARMS: list[Callable[[Path], None]] = [halve, flip, empty, to_folders, to_file, to_itself, shutil.rmtree]
COMMANDS = [["status"], ["history", "--last", "5"], ["trends"], ["phase", "status"], ["patches"]]


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_asked_of_a_damaged_store_is_answered_or_refused_in_one_line(
    store: Path, harm: Callable[[Path], None]
) -> None:
    harm(store)
    for command in COMMANDS:
        said = run(*command, "--store", store, "--json")
        assert said.returncode in (0, 1, 2, 69), said
        if said.returncode == 69:
            assert said.stdout == ""
            assert said.stderr.startswith("qigheal: ")
            assert said.stderr.count("\n") == 1
        else:
            assert said.stderr == ""
            json.loads(said.stdout)


@pytest.mark.parametrize("command", [["status"], ["history"], ["trends"]])
def test_a_store_that_vanishes_while_it_is_read(store: Path, command: list[str]) -> None:
    assert run(*command, "--store", store).returncode in (0, 1)
    said = run(*command, "--store", store, "--json", how="vanishing")
    assert not store.exists()
    assert (said.returncode in (0, 1, 2)) == (said.stderr == ""), said
    assert "Traceback" not in said.stderr


def test_a_healing_pass_whose_store_is_taken_away_changes_nothing_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    def taken(stage: str, _: str) -> None:
        stages.append(stage)
        if stage == "diagnosis":
            toy.store.rename(tmp_path / "away")

    stages: list[str] = []
    toy = ToyHost(tmp_path)
    sick(toy)
    healer = engine(toy)
    before = healer.ledger.entries()
    healer.on_step = taken
    with pytest.raises((QighealError, QigcoreError)) as refused:
        healer.check_and_heal()
    assert str(toy.store) in str(refused.value)
    assert "diagnosis" in stages
    assert git(toy.path, "branch", "--list", "qigheal/*") == ""
    assert not toy.store.exists()
    (tmp_path / "away").rename(toy.store)
    assert healer.ledger.verify() == ()
    assert healer.ledger.entries()[: len(before)] == before
    with History.read_only(toy.store) as history:
        assert len(history.last(1000)) == 360
