"""The commands that take a history out of its store, and into it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet
import pytest

from qigcore.history import History
from qigcore.rows import HEAD
from tests.heal.test_earlier import earlier_file
from tests.test_cli import qigheal


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """60 snapshots a minute apart, from 2023-11-14T22:13:20Z on."""
    heads = np.zeros(60, HEAD)
    heads["timestamp"] = 1.7e9 + 60 * np.arange(60)
    heads["phi"], heads["module"] = np.arange(60) / 100, 1
    with History(tmp_path / "store", dim=8, precision="exact") as history:
        history.append_rows(heads, np.full((60, 8), 2.0), ("", "\033[2J=1+1"))
    return tmp_path / "store"


def test_export_by_suffix_and_by_format(store: Path, tmp_path: Path) -> None:
    said = qigheal("export", "all.parquet", "--store", store, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (0, "60 snapshots in all.parquet\n"), said.stderr
    assert pyarrow.parquet.read_table(tmp_path / "all.parquet").num_rows == 60
    said = qigheal("export", "all.txt", "--store", store, "--format", "csv", "--json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    assert (document["file"], document["snapshots"], document["damage"]["bad_blocks"]) == ("all.txt", 60, 0)
    with (tmp_path / "all.txt").open(newline="") as file:
        assert {line["module_name"] for line in csv.DictReader(file)} == {"\033[2J=1+1"}


def test_the_sql_of_the_documentation(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "history.md").read_text()
    (sql,) = re.findall(r'duckdb\.sql\("""(.*?)"""\)', page, re.DOTALL)
    assert qigheal("export", "all.parquet", "--store", store, cwd=tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path)
    found = duckdb.sql(sql).project("snapshots, share_of_7").fetchall()
    assert found == [(1, 0.125)] * 60


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1700000600", "1700001200"),
        ("2023-11-14T22:23:20Z", "2023-11-14T22:33:20+00:00"),
        ("2023-11-14T17:23:20", "2023-11-14T23:33:20+01:00"),  # the first is the local time of New York
        ("1700000600.0", "20231114T173320"),
    ],
)
def test_a_range_of_time_and_columns(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, end: str
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    options = ("--store", store, "--start", start, "--end", end, "--columns", "phi, timestamp")
    said = qigheal("export", "some.csv", *options, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    with (tmp_path / "some.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["phi", "timestamp"]
    assert [float(phi) for phi, _ in lines] == [i / 100 for i in range(10, 20)]
    assert datetime.fromisoformat(lines[0][1]) == datetime(2023, 11, 14, 22, 23, 20, tzinfo=UTC)


@pytest.mark.parametrize(("start", "count"), [("20231114", 60), ("20231115", 0)])
def test_eight_digits_are_a_date(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, count: int
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    said = qigheal("export", "some.csv", "--store", store, "--start", start, cwd=tmp_path)
    assert said.stdout == f"{count} snapshots in some.csv\n", said.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_ended_leaves_what_was_there(
    store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "all.csv").write_text("before")
    script = (
        "import os, sys; from qigcore.history import csvtext; from qigheal.cli import main\n"
        "number = int(sys.argv.pop())\n"
        "csvtext._headings = lambda *_: os.kill(os.getpid(), number)\nmain()"
    )
    command = [sys.executable, "-c", script, "export", "all.csv", "--store", str(store), str(int(number))]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 128 + number
    assert (tmp_path / "all.csv").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "store"]


def test_nothing_in_the_range_is_nothing_to_say(store: Path, tmp_path: Path) -> None:
    said = qigheal("export", "none.csv", "--store", store, "--end", "5", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "0 snapshots in none.csv\n")
    assert (tmp_path / "none.csv").exists()


def test_damage_is_said(store: Path, tmp_path: Path) -> None:
    (segment,) = store.glob("*.qigh")
    data = bytearray(segment.read_bytes())
    data[-40] ^= 1
    segment.write_bytes(data)
    said = qigheal("export", "all.csv", "--store", store, cwd=tmp_path)
    assert said.returncode == 2
    assert "damage: 1 bad blocks, 60 missing rows" in said.stdout


def test_import_twice_and_out_again(tmp_path: Path) -> None:
    data = earlier_file(tmp_path / "old.json")
    said = qigheal("import", "old.json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("40 snapshots stored of 40, from 2023-11-1")
    assert (tmp_path / ".qigheal").is_dir()
    again = qigheal("import", "old.json", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    counts = json.loads(again.stdout)
    assert (counts["stored"], counts["known"], counts["geometry"]) == (0, 40, "sphere")
    assert "40 were there already" in qigheal("import", "old.json", cwd=tmp_path).stdout
    assert qigheal("export", "new.json", cwd=tmp_path).returncode == 0
    written = json.loads((tmp_path / "new.json").read_text())
    assert [s["phi"] for s in written["snapshots"]] == [s["phi"] for s in data["snapshots"]]
    said = json.loads(qigheal("status", "--json", cwd=tmp_path).stdout)
    assert [each["kind"] for each in said["findings"]] == ["silent"]  # a past, and nobody who writes on


def test_a_file_without_snapshots_is_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"snapshots": []}')
    said = qigheal("import", "none.json", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "none.json has no snapshots\n")
    assert not (tmp_path / ".qigheal").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export", "a.csv", "--store", "nowhere"], 69, "nowhere"),
        (["export", "a.xlsx"], 64, ".parquet"),
        (["export", "a.csv", "--format", "xlsx"], 64, "xlsx"),
        (["export", "a.csv", "--start", "yesterday"], 64, "--start"),
        (["export", "a.csv", "--end", "nan"], 64, "--end"),
        (["export", "a.csv", "--start", "20231301"], 64, "--start"),
        (["export", "a.csv", "--columns", "phi,psi"], 64, "module_name"),
        (["export", "store/a.qigh", "--format", "csv"], 69, "its own"),
        (["export", "nowhere/a.csv"], 69, "cannot be written"),
        (["export"], 64, "FILE"),
        (["compact", "--store", "nowhere"], 69, "nowhere: no store here"),
        (["export", "loop.csv"], 69, "Too many levels"),
        (["compact", "--keep-days", "-1"], 64, "--keep-days"),
        (["import", "nowhere"], 69, "cannot be read"),
        (["import", "bad\033[2J.json"], 69, "bad\N{REPLACEMENT CHARACTER}[2J.json: expected the JSON"),
    ],
)
def test_errors_are_one_line_with_a_remedy(
    store: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "bad\033[2J.json").write_text("{")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    before = sorted(os.walk(tmp_path))
    if "--store" not in arguments:
        arguments = [*arguments, "--store", "store"]
    done = qigheal(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("qigheal: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert said.lower() in done.stderr.lower()
    assert done.stdout == ""
    assert sorted(os.walk(tmp_path)) == before


def dated(folder: Path, ages: list[float]) -> Path:
    """A store with one ended segment of 20 snapshots for each age, in days."""
    for age in ages:
        heads = np.zeros(20, HEAD)
        heads["timestamp"] = time.time() - 86_400 * age + np.arange(20)
        with History(folder, dim=8, geometry="sphere") as history:
            history.append_rows(heads, np.full((20, 8), -0.5), ("",))
    return folder


def scanned(folder: Path) -> list[float]:
    with History.read_only(folder) as history:
        return [moment for batch in history.scan() for moment in batch.timestamp.tolist()]


def test_compact_makes_few_of_many(tmp_path: Path) -> None:
    folder = dated(tmp_path / "store", [3.1, 3.08, 3.06, 3.04])
    before = scanned(folder)
    said = qigheal("compact", "--store", folder, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("4 files of ")
    assert said.stdout.endswith("with 80 snapshots\n")
    assert scanned(folder) == before
    again = qigheal("compact", "--store", folder, "--json", cwd=tmp_path)
    document = json.loads(again.stdout)
    assert (document["compacted"]["segments"], document["expired"]["rows"]) == (0, 0)
    assert "no files were small" in qigheal("compact", "--store", folder, cwd=tmp_path).stdout
    assert scanned(folder) == before


def test_compact_removes_only_what_is_asked(tmp_path: Path) -> None:
    folder = dated(tmp_path / "store", [40.0, 20.0, 1.0])
    said = qigheal("compact", "--store", folder, "--keep-days", "30", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("20 snapshots removed, in 1 file of ")
    assert len(scanned(folder)) == 40
    kept = qigheal(
        "compact", "--store", folder, "--keep-days", "30", "--keep-mb", "10", "--json", cwd=tmp_path
    )
    assert json.loads(kept.stdout)["expired"]["segments"] == 0
    assert qigheal("compact", "--store", folder, "--keep-mb", "0", cwd=tmp_path).returncode == 0
    assert scanned(folder) == []


def test_compact_leaves_a_folder_alone_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = qigheal("compact", "--store", tmp_path / "empty", "--keep-mb", "0", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, f"no snapshots in {tmp_path / 'empty'}\n")
    said = qigheal("compact", "--store", tmp_path / "empty", "--json", cwd=tmp_path)
    assert (said.returncode, json.loads(said.stdout)["compacted"]["segments"]) == (2, 0)
    assert not os.listdir(tmp_path / "empty")


def test_the_version(tmp_path: Path) -> None:
    said = qigheal("--version", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    try:
        assert said.stdout == f"qigheal {version('qigheal')}\n"
    except PackageNotFoundError:
        assert "not installed" in said.stdout
