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

COMMANDS = """
import contextlib, io, json, shutil, sys
from qigcore.history import History
from qigheal.cli import main

how, store, said = sys.argv[1], sys.argv[2], []
last = History.last
def gone(self, count):
    found = last(self, count)
    shutil.rmtree(self.path)
    return found
if how == "vanishing":
    History.last = gone
for command in sys.argv[3:]:
    sys.argv[1:] = [*command.split(), "--store", store, "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code
    said.append((command, code, out.getvalue(), err.getvalue()))
print(json.dumps(said))
"""


def asked(store: Path, *commands: str, how: str = "still") -> list[tuple[str, int, str, str]]:
    """What the commands say of a store, one after another: each with its exit code, output and errors."""
    line = [sys.executable, "-c", COMMANDS, how, str(store), *commands]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    return [tuple(each) for each in json.loads(done.stdout)]


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


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_asked_of_a_damaged_store_is_answered_or_refused_in_one_line(
    store: Path, harm: Callable[[Path], None]
) -> None:
    harm(store)
    for command, code, out, errors in asked(
        store, "status", "history --last 5", "trends", "phase status", "patches"
    ):
        assert code in (0, 1, 2, 69), (command, out, errors)
        if code == 69:
            assert out == "", command
            assert errors.startswith("qigheal: ")
            assert errors.count("\n") == 1
        else:
            assert errors == "", command
            json.loads(out)


@pytest.mark.parametrize("command", ["status", "history", "trends"])
def test_a_store_that_vanishes_while_it_is_read(store: Path, command: str) -> None:
    ((_, code, _, _),) = asked(store, command)
    assert code in (0, 1)
    ((_, code, out, errors),) = asked(store, command, how="vanishing")
    assert not store.exists()
    assert (code in (0, 1, 2)) == (errors == "") == (out != ""), (code, out, errors)
    assert errors.count("\n") == (code == 69)


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
