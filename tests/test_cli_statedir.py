"""`--state-dir`: status, trends and history of the folder that a chain left, without a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.heal.test_earlier import earlier_file
from tests.test_cli import qigheal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    earlier_file(tmp_path / "state" / "monitor_history.json")
    return tmp_path / "state"


def test_each_reading_command_reads_it_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    said = qigheal("status", "--state-dir", folder, "--json", cwd=tmp_path)
    assert said.returncode in (0, 1), said.stderr
    assert json.loads(said.stdout)["snapshots"] == 40
    trends = qigheal("trends", "--state-dir", folder, "--json", cwd=tmp_path)
    assert trends.returncode == 0, trends.stderr
    assert set(json.loads(trends.stdout)) == {"phi", "kappa", "basin_drift", "latency", "errors", "memory"}
    history = qigheal("history", "--state-dir", folder, "--last", "3", cwd=tmp_path)
    assert history.returncode == 0, history.stderr
    assert len(history.stdout.splitlines()) == 4
    assert [path.name for path in folder.iterdir()] == ["monitor_history.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


@pytest.mark.parametrize("command", ["status", "trends", "history"])
def test_a_folder_without_a_state_is_one_line(command: str, tmp_path: Path) -> None:
    said = qigheal(command, "--state-dir", "nowhere", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (69, "")
    assert "--state-dir" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_a_file_that_is_no_history_is_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "monitor_history.json").write_text("{")
    said = qigheal("status", "--state-dir", folder, cwd=tmp_path)
    assert said.returncode == 69
    assert len(said.stderr.splitlines()) == 1
