"""A history as a file for others: what other programs find in it is what `scan` gives."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

import qigcore.history
from qigcore.errors import HistoryError, MissingExtra
from qigcore.history import History
from qigcore.history.csvtext import harmless
from qigcore.history.fields import EXPORTED, FIGURES, OPTIONAL, microseconds
from qigcore.rows import REGIMES, REPAIRABLE, Batch

from .stores import append, gather, rows

DIM = 5
NAMES = ("", "a1b2c3d4", "=cmd|' /C calc'!A0", 'a "quoted", name\r\nof two lines', "bad \ud800 text", "Φ")
FORMATS = ("parquet", "arrow", "feather", "csv", "json")
ARROW = FORMATS[:3]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three writers whose rows interleave, sealed and pending, with every oddity that a row can have."""
    path = tmp_path_factory.mktemp("export") / "store"
    for writer in range(3):
        with History(path, dim=DIM, precision="exact") as history:
            heads, basins = rows(700, start=1.7e9 + writer / 7, dim=DIM, seed=writer)
            heads["confidence"][::3] = heads["agency"][5:] = math.nan
            heads["kappa_eff"][:4] = -0.0, math.inf, math.nan, 5e-324
            heads["code"], heads["module"] = np.arange(700) % 2, np.arange(700) % 5 + writer // 2
            history.append_rows(heads[:600], basins[:600] * 1e3, NAMES)
            history.append_rows(heads[600:], basins[600:], NAMES)
    return path


@pytest.fixture(scope="module")
def stored(store: Path) -> Batch:
    with History.read_only(store) as history:
        batch = gather(history.scan(), DIM)
    assert len(batch) == 2100
    return batch


@pytest.fixture
def history(store: Path) -> Iterator[History]:
    with History.read_only(store) as opened:
        yield opened


def table(path: Path) -> pa.Table:
    read = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.feather.read_table
    return read(path)


def names(flags: int) -> list[str]:
    return [name for bit, name in enumerate(REPAIRABLE) if flags >> bit & 1]


def text(column: Any) -> list[str]:
    return [name.replace("\ud800", "\N{REPLACEMENT CHARACTER}") for name in column]


def check(found: pa.Table, stored: Batch) -> None:
    """Every value of a table is the stored one, floats bit for bit."""
    assert found.num_rows == len(stored)
    for name in found.column_names:
        column = found[name].combine_chunks()
        if name == "timestamp":
            moments = [datetime.fromtimestamp(moment, UTC) for moment in stored.timestamp]
            assert column.to_pylist() == moments
        elif name == "repaired":
            assert column.to_pylist() == [names(flags) for flags in stored.repaired]
        elif name == "regime":
            assert column.to_pylist() == [REGIMES[number] for number in stored.regime]
        elif name in ("code_hash", "module_name"):
            assert column.to_pylist() == text(getattr(stored, name))
        elif name == "basin_coords":
            assert column.flatten().to_numpy().tobytes() == stored.basin_coords.tobytes()
        else:
            missing = np.isnan(stored.columns[name]) if name in OPTIONAL else np.zeros(len(stored), bool)
            assert column.is_null().to_pylist() == missing.tolist()
            there = column.drop_null().to_numpy(zero_copy_only=False)
            assert there.tobytes() == stored.columns[name][~missing].tobytes()


@pytest.mark.parametrize("kind", ARROW)
def test_arrow_tables_hold_what_is_stored(history: History, stored: Batch, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"history.{kind}"
    assert history.export(path) == 2100
    found = table(path)
    assert tuple(found.column_names) == EXPORTED
    check(found, stored)
    schema = found.schema
    assert schema.field("timestamp").type == pa.timestamp("us", "UTC")
    assert schema.field("basin_coords").type == pa.list_(pa.float64(), DIM)
    assert {schema.field(name).type for name in ("regime", "code_hash", "module_name")} == {
        pa.dictionary(pa.int32(), pa.string())
    }
    assert {schema.field(name).type for name in FIGURES} == {pa.float64()}
    assert schema.metadata[b"qigheal.geometry"] == b"simplex"
    assert schema.metadata[b"qigheal.dim"] == b"5"
    assert schema.metadata[b"qigheal.format"] == b"1"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ARROW)
def test_polars_reads_it(history: History, stored: Batch, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"history.{kind}"
    history.export(path)
    frame = (polars.read_parquet if kind == "parquet" else polars.read_ipc)(path)
    assert frame.schema["basin_coords"] == polars.Array(polars.Float64, DIM)
    assert frame.schema["timestamp"] == polars.Datetime("us", "UTC")
    assert frame["basin_coords"].to_numpy().tobytes() == stored.basin_coords.tobytes()
    assert frame["phi"].to_numpy().tobytes() == stored.phi.tobytes()
    assert frame["timestamp"].to_physical().to_list() == microseconds(stored.timestamp)[0].tolist()
    assert frame["code_hash"].to_list() == text(stored.code_hash)
    assert frame["module_name"].to_list() == text(stored.module_name)
    assert frame["repaired"].to_list() == [names(flags) for flags in stored.repaired]
    assert frame["confidence"].null_count() == int(np.isnan(stored.confidence).sum())


def test_duckdb_asks_it_in_sql(history: History, stored: Batch, tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    history.export(path)
    sql = duckdb.connect()
    sql.read_parquet(str(path)).create_view("history")
    back = sql.execute("select epoch_us(timestamp) t, phi, basin_coords, code_hash from history").fetchnumpy()
    assert back["phi"].tobytes() == stored.phi.tobytes()
    assert np.stack(back["basin_coords"]).tobytes() == stored.basin_coords.tobytes()
    assert back["t"].tolist() == microseconds(stored.timestamp)[0].tolist()
    assert back["code_hash"].tolist() == text(stored.code_hash)
    answer = sql.execute(
        """
        select regime, count(*), avg(list_sum(basin_coords)), max(basin_coords[1])
        from history where not list_contains(repaired, 'basin_coords') group by regime order by regime
        """
    ).fetchall()
    good = stored.take(stored.good("basin_coords"))
    for regime, count, total, largest in answer:
        basins = good.basin_coords[good.regime == REGIMES.index(regime)]
        assert (count, largest) == (len(basins), basins[:, 0].max())
        assert total == pytest.approx(basins.sum(axis=1).mean())
    assert sorted(row[0] for row in answer) == sorted(REGIMES)


def test_csv_is_read_by_others_as_it_was_stored(history: History, stored: Batch, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert history.export(path) == 2100
    raw = path.read_bytes()
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, strict=True))
    assert list(lines[0]) == [*EXPORTED[:-1], *(f"basin_{i:02}" for i in range(DIM))]
    assert raw.splitlines(keepends=True)[0].endswith(b"basin_04\r\n")
    for name in (*FIGURES, *(f"basin_{i:02}" for i in range(DIM))):
        column = (
            stored.basin_coords[:, int(name[-2:])] if name[:6] == "basin_" and name[6:].isdigit() else None
        )
        column = stored.columns[name] if column is None else column
        cells = np.array([float(line[name] or "nan") for line in lines])
        assert cells.tobytes() == np.where(np.isnan(column), np.nan, column).tobytes()
        assert any(line[name] == "" for line in lines) == (name in OPTIONAL and bool(np.isnan(column).any()))
    assert [datetime.fromisoformat(line["timestamp"]) for line in lines] == [
        datetime.fromtimestamp(moment, UTC) for moment in stored.timestamp
    ]
    assert [line["repaired"] for line in lines] == [";".join(names(flags)) for flags in stored.repaired]
    assert [line["module_name"].removeprefix("'") for line in lines] == text(stored.module_name)
    frame = polars.read_csv(path, null_values=[""])
    assert frame["basin_03"].to_numpy().tobytes() == stored.basin_coords[:, 3].tobytes()
    (answer,) = duckdb.read_csv(str(path)).aggregate("sum(basin_00), count(confidence)").fetchall()
    assert answer == (
        pytest.approx(stored.basin_coords[:, 0].sum()),
        int((~np.isnan(stored.confidence)).sum()),
    )


@pytest.mark.parametrize(
    "dangerous",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        " =1+1",
        "\t=1",
        "\r=1",
        "\n",
        "＝1+1",
        "'=1",
        "'",
        "\N{NO-BREAK SPACE}=1",
        "\ufeff=1",
        "\u200b=1",
        "\u200b \u2060\ufe0f\u3164+1",
        "\0-1",
        "\u00ad'",
    ],
)
def test_no_text_of_a_service_is_a_formula(dangerous: str) -> None:
    assert harmless(dangerous) == "'" + dangerous


@pytest.mark.parametrize(
    "plain", ["", "a1b2c3d4", "digits.service", "a=b", "1-2", "Φ", "a'b", "\ufeff", "\u200ba=b"]
)
def test_other_text_is_left_alone(plain: str) -> None:
    assert harmless(plain) == plain


def test_a_range_of_time_and_some_columns(history: History, stored: Batch, tmp_path: Path) -> None:
    start, end = 1.7e9 + 100, 1.7e9 + 200.5
    within = stored.take((stored.timestamp >= start) & (stored.timestamp < end))
    asked = ("module_name", "basin_coords", "phi", "code")
    for kind in ARROW:
        path = tmp_path / f"some.{kind}"
        assert history.export(path, start=start, end=end, columns=asked) == len(within)
        found = table(path)
        assert found.column_names == ["module_name", "basin_coords", "phi", "code_hash"]
        check(found, within)
    history.export(tmp_path / "some.csv", start=start, end=end, columns="phi")
    assert (tmp_path / "some.csv").read_text().split() == ["phi", *map(repr, within.phi.tolist())]
    history.export(tmp_path / "some.json", start=start, end=end)
    assert len(json.loads((tmp_path / "some.json").read_text())["snapshots"]) == len(within)


def test_a_file_is_private_until_somebody_makes_it_otherwise(history: History, tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    for mode in (0o600, 0o640, 0o604):
        if path.exists():
            path.chmod(mode)
        history.export(path)
        assert path.stat().st_mode & 0o7777 == mode


def test_a_link_to_itself_is_refused(history: History, tmp_path: Path) -> None:
    path = tmp_path / "loop.csv"
    path.symlink_to(path)
    with pytest.raises(HistoryError, match=r"loop\.csv: cannot be written: Too many levels"):
        history.export(path)
    assert os.listdir(tmp_path) == ["loop.csv"]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_store_is_an_empty_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"none.{kind}"
    with History(tmp_path / "store", dim=3, geometry="sphere") as history:
        assert history.export(path) == 0
    if kind == "json":
        assert json.loads(path.read_text())["snapshots"] == []
    elif kind == "csv":
        assert path.read_text().count("\n") == 1
    else:
        found = table(path)
        assert (found.num_rows, tuple(found.column_names)) == (0, EXPORTED)
        assert found.schema.metadata[b"qigheal.geometry"] == b"sphere"
        assert (polars.read_parquet if kind == "parquet" else polars.read_ipc)(path).height == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_fails_leaves_everything_as_it_was(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / f"history.{kind}"
    scan = history.scan

    def failing(*arguments: Any) -> Iterator[Batch]:
        yield from scan(*arguments)
        raise RuntimeError("in the midst of it")

    monkeypatch.setattr(history, "scan", failing)
    with pytest.raises(RuntimeError, match="in the midst"):
        history.export(path, columns=None)
    assert list(tmp_path.iterdir()) == []
    path.write_text("what was there")
    with pytest.raises(RuntimeError, match="in the midst"):
        history.export(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "what was there"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_disk_that_takes_no_more_is_said(history: History, tmp_path: Path, kind: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(HistoryError, match=f"history.{kind}: cannot be written: File too large"):
            history.export(tmp_path / f"history.{kind}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_and_a_link_is_followed(history: History, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "real.csv")
    history.export(tmp_path / "link.csv", columns=["phi"])
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there" / "real.csv").read_text().startswith("phi\n")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("history.xlsx", {}, r"\.parquet, \.arrow, \.feather, \.csv, \.json.*\.xlsx"),
        ("history", {}, "ends in"),
        ("history.csv", {"format": "xlsx"}, "'xlsx'"),
        ("history.json", {"columns": ["phi"]}, "columns"),
        ("history.csv", {"columns": ["psi"]}, "psi"),
        ("history.csv", {"columns": []}, "columns"),
        ("history.csv", {"start": math.nan}, "start"),
        ("none/history.csv", {}, "No such file"),
        ("folder.csv", {}, "no file"),
    ],
)
def test_what_cannot_be_done_is_refused(
    history: History, tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(HistoryError, match=said):
        history.export(tmp_path / name, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.csv"]


def test_a_name_of_the_store_itself_is_refused(tmp_path: Path) -> None:
    with History(tmp_path / "store", dim=3) as history:
        append(history, 10)
        before = {entry: entry.read_bytes() for entry in (tmp_path / "store").iterdir()}
        (tmp_path / "link").symlink_to(tmp_path / "store")
        for name in ("a.qigh", "a.journal", "baseline.json", "monitor.json", "ledger.db"):
            for folder in ("store", "link"):
                with pytest.raises(HistoryError, match="its own"):
                    history.export(tmp_path / folder / name, format="csv")
        assert {entry: entry.read_bytes() for entry in (tmp_path / "store").iterdir()} == before
        assert history.export(tmp_path / "store" / "copy.csv") == 10
        assert history.export(tmp_path / "elsewhere.qigh", format="csv") == 10
        assert len(gather(history.scan())) == 10


def test_without_pyarrow_the_extra_is_named(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "qigcore.history.arrow", raising=False)
    monkeypatch.delattr(qigcore.history, "arrow", raising=False)
    with pytest.raises(MissingExtra, match=r"qigheal\[export\]"):
        history.export(tmp_path / "history.parquet")
    assert list(tmp_path.iterdir()) == []
    assert history.export(tmp_path / "history.csv") == 2100


def test_json_has_the_limits_and_the_centre_that_lie_in_the_store(tmp_path: Path) -> None:
    def head() -> dict[str, Any]:
        with History.read_only(tmp_path / "store") as history:
            history.export(tmp_path / "history.json")
        found: dict[str, Any] = json.loads((tmp_path / "history.json").read_text())
        return {key: value for key, value in found.items() if key not in ("snapshots", "repaired")}

    heads, basins = rows(5, dim=4)
    heads["repaired"] = 4, 4, 0, 0, 0  # the first two basins
    with History(tmp_path / "store", dim=4, precision="exact") as history:
        history.append_rows(heads, basins, NAMES)
    usual = {"phi_min": 0.65, "basin_drift_max": 2.0, "geometry": "simplex"}
    assert head() == usual | {"baseline_basin": basins[2].tolist()}
    (tmp_path / "store" / "monitor.json").write_text('{"phi_min": 0.5, "dim": 4, "geometry": "simplex"}')
    centre = {"version": 1, "dim": 4, "geometry": "simplex", "basin": [0.5] * 4}
    (tmp_path / "store" / "baseline.json").write_text(json.dumps(centre))
    assert head() == usual | {"phi_min": 0.5, "baseline_basin": [0.25] * 4}
    (tmp_path / "store" / "baseline.json").write_text(json.dumps(centre | {"geometry": "sphere"}))
    assert head()["baseline_basin"] == basins[2].tolist()
    (tmp_path / "store" / "baseline.json").write_text("{")
    with pytest.raises(HistoryError, match=r"baseline\.json: expected what a monitor left"):
        head()


def test_times_beyond_what_a_format_counts(tmp_path: Path) -> None:
    heads, basins = rows(4)
    heads["timestamp"] = -1.5, 253402300800.25, 1e13, 1e300
    with History(tmp_path / "store", dim=3, precision="exact") as history:
        history.append_rows(heads, basins, NAMES)
        history.export(tmp_path / "far.parquet")
        history.export(tmp_path / "far.csv", columns=["timestamp"])
        with pytest.raises(HistoryError, match=r"timestamp 2\.53402e\+11"):
            history.export(tmp_path / "far.json")
    column = table(tmp_path / "far.parquet")["timestamp"].cast(pa.int64())
    assert column.to_pylist() == [-1_500_000, 253402300800_250_000, None, None]
    assert (tmp_path / "far.csv").read_text().split("\n") == [
        "timestamp", "1969-12-31T23:59:58.500000Z", "10000-01-01T00:00:00.250000Z", '""', '""', ""
    ]  # fmt: skip


def test_texts_that_come_late_and_groups_of_rows(
    history: History, stored: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qigcore.history import arrow

    monkeypatch.setattr(arrow, "_GROUP_BYTES", 0)  # then a group has the least rows: 1,024
    for kind in ARROW:
        history.export(tmp_path / f"history.{kind}")
        check(table(tmp_path / f"history.{kind}"), stored)
    parts = pyarrow.parquet.ParquetFile(tmp_path / "history.parquet").metadata
    sizes = [parts.row_group(i).num_rows for i in range(parts.num_row_groups)]
    assert len(sizes) > 1
    assert all(size >= 1024 for size in sizes[:-1])


MEMORY = r"""
import re, sys
from pathlib import Path
from qigcore.history import History, arrow
arrow._GROUP_BYTES = 1 << 20
def peak():
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
with History.read_only(sys.argv[1]) as history:
    path = Path(sys.argv[2])
    for kind in ("csv", "json", "parquet", "arrow"):
        history.export(path / f"small.{kind}", end=3000.0)
        before = peak()
        history.export(path / f"large.{kind}")
        print(kind, peak() - before)
"""


def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    with History(tmp_path / "store", precision="exact") as history:
        for start in range(0, 24_000, 6_000):
            append(history, 6_000, start=start)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "store", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    grown = {kind: float(mb) for kind, mb in (line.split() for line in done.stdout.splitlines())}
    assert set(grown) == {"csv", "json", "parquet", "arrow"}
    assert os.path.getsize(tmp_path / "large.json") > 25e6
    assert max(grown.values()) < 10, grown  # of the 14 MB that the rows have


@pytest.mark.parametrize("near", [0.0, 1.7e9, -1.7e9, 2.5e11])
def test_moments_are_rounded_once(near: float) -> None:
    rng = np.random.default_rng(4)
    times = near + rng.random(2000) * 1000
    exact = [round(Fraction(moment) * 1_000_000) for moment in times.tolist()]
    assert microseconds(times)[0].tolist() == exact
