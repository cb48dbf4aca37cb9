"""Stores that were written once stay readable, and what a later version may write is taken as the format promises.

tests/core/frozen holds stores as format 1 was first written, and is not to be made anew: a reader that fails
here has lost somebody's history. All were written with `History` by a process called 4242 on a host called
frozen; "killed" means that its files were let go of with rows in the journal. Times step forth and back;
confidence is NaN throughout, surprise at times; one name has a lone surrogate.

    exact-simplex     dim 3: sealed 12 rows, 9 with wild figures and times and an unusable basin, 60; 5 pending, killed
    compact-simplex   dim 4: sealed 48 rows, 4 with two unusable basins, 70 that hardly move; 4 pending, killed
    exact-sphere      dim 2: sealed 8 rows; 2 pending, killed
    compact-sphere    dim 3: sealed 30 rows, closed; a second writer's 10 across them, and 3 pending, killed
    compacted         dim 3, compact simplex: 12, 12 and 12 rows across each other, the second writer killed with 5
                      pending; the segment that `compact` made of these beside them; 4 pending of a later writer, killed

`expected.json` has what they hold, written when each had been compared with what had been stored: the exact ones
bit for bit, the compact ones within what compact promises. Numbers that JSON lacks are texts there.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest

from qigcore.history import Damage, History
from qigcore.rows import HEAD, REGIMES

from .plain_reader import BLOCK, FRAME, Row, read_rows, read_store
from .stores import file_of, gather

FROZEN = Path(__file__).parent / "frozen"
EXPECTED: dict[str, Any] = json.loads((FROZEN / "expected.json").read_text())
FIGURES = [name for name in HEAD.names or () if HEAD[name].kind == "f"]

Table = list[list[Any]]


@pytest.fixture(params=sorted(EXPECTED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FROZEN / name, folder / name))


def same_bits(numbers: list[Any], found: bytes) -> bool:
    return np.array(numbers, dtype="<f8").tobytes() == found


def check(path: Path, name: str, wanted: list[int] | None = None) -> None:
    """History and the plain reader give the rows expected; wanted: only these of them, by their places."""
    expected = EXPECTED[name]
    rows = range(len(expected["columns"]["phi"])) if wanted is None else wanted
    columns = {column: [values[i] for i in rows] for column, values in expected["columns"].items()}
    reader = History.read_only(path)
    assert (reader.dim, reader.geometry) == (expected["dim"], expected["geometry"])
    real, plain = gather(reader.scan(), reader.dim), read_rows(path)
    assert len(real) == len(plain) == len(rows)
    for figure in FIGURES:
        assert same_bits(columns[figure], real.columns[figure].tobytes()), figure
        assert same_bits(columns[figure], figures_of(plain, figure)), figure
    basins = [[float(number) for number in basin] for basin in columns["basin_coords"]]
    assert same_bits(basins, real.basin_coords.tobytes())
    assert same_bits(basins, np.array([row.basin for row in plain]).tobytes())
    for column, found in (
        ("repaired", real.repaired),
        ("regime", real.columns["regime"]),
        ("code", real.code_hash),
        ("module", real.module_name),
    ):
        assert found.tolist() == [row.values[column] for row in plain] == columns[column], column


def figures_of(rows: list[Row], figure: str) -> bytes:
    return struct.pack(f"<{len(rows)}d", *(row.values[figure] for row in rows))


def test_a_copy_and_the_stores_themselves_read_as_ever(tmp_path: Path, name: str) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (FROZEN / name).iterdir()}
    assert len(before) == EXPECTED[name]["files"]
    check(copied(name, tmp_path), name)
    check(FROZEN / name, name)
    reader = History.read_only(FROZEN / name)
    whole = gather(reader.scan(), reader.dim)
    assert not reader.damage
    assert reader.last(5).phi.tobytes() == whole.phi[-5:].tobytes()
    assert sum(info.rows for info in reader.segments()) == len(whole)
    assert {info.host for info in reader.segments()} == {"frozen"}
    followed = gather(reader.follow(stop=lambda: True), reader.dim)
    assert followed.basin_coords.tobytes() == whole.basin_coords.tobytes()
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (FROZEN / name).iterdir()}
    assert after == before


def test_today_s_writer_goes_on_in_such_a_store_and_compacts_it(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    reader = History.read_only(path)
    sizes = {"dim": reader.dim, "geometry": reader.geometry}
    before = gather(reader.scan(), reader.dim)
    latest = before.take(slice(-3, None))
    with History(path, precision="exact", clock=lambda: 2e9, **sizes) as history:  # type: ignore[arg-type]
        heads = latest.heads()
        heads["timestamp"] = 1e301
        history.append_rows(heads, latest.basin_coords, latest.names)
    with History(path, clock=lambda: 2e9, **sizes) as history:  # type: ignore[arg-type]
        assert history.compact(grace_s=0).made
    again = gather(reader.scan(), reader.dim)
    assert not reader.damage
    assert again.phi.tobytes() == np.append(before.phi, latest.phi).tobytes()
    assert again.basin_coords[-3:].tobytes() == latest.basin_coords.tobytes()


# What a later version may write, by the rules of docs/history-format.md. Patched into stores of today.


def with_header(data: bytes, change: Callable[[list[Any]], object], version: int = 1) -> bytes:
    length = struct.unpack_from("<I", data, 16)[0]
    record = msgspec.msgpack.decode(data[20 : 20 + length])
    change(record)
    body = msgspec.msgpack.encode(record)
    checked = struct.pack("<B3xI", version, len(body)) + body
    return data[:8] + crc32(checked).to_bytes(4, "little") + checked + data[20 + length :]


def with_block(
    data: bytes, change: Callable[[Table, list[bytes]], object], which: int = 0, version: int = 1
) -> bytes:
    """The block number `which` with another table and other pieces of payload, one for each entry."""
    at = 20 + struct.unpack_from("<I", data, 16)[0]
    for _ in range(which):
        fields = BLOCK.unpack_from(data, at)
        at += BLOCK.size + fields[3] + fields[5]
    magic, _, _, table_length, _, payload_length, *rest = BLOCK.unpack_from(data, at)
    middle = at + BLOCK.size + table_length
    table: Table = msgspec.msgpack.decode(data[at + BLOCK.size : middle])
    pieces, place = [], middle
    for entry in table:
        length = entry[2] if isinstance(entry[2], int) else 0
        pieces.append(data[place : place + length])
        place += length
    change(table, pieces)
    made, payload = msgspec.msgpack.encode(table), b"".join(pieces)
    block = BLOCK.pack(magic, 0, version, len(made), crc32(made), len(payload), *rest)
    block = block[:8] + crc32(block[12:]).to_bytes(4, "little") + block[12:]
    return data[:at] + block + made + payload + data[middle + payload_length :]


def with_frames(data: bytes, change: Callable[[int, bytes], tuple[int, int, int, bytes] | None]) -> bytes:
    """`change` gets the kind and body of each frame, and gives kind, format, head_bytes and body, or None."""
    made, at = b"", 0
    while at < len(data):
        magic, _, _, kind, _, _, length, since, number = FRAME.unpack_from(data, at)
        body = data[at + FRAME.size : at + FRAME.size + length]
        changed = change(kind, body)
        if changed is None:
            made += data[at : at + FRAME.size + length]
        else:
            kind, version, head, body = changed
            prefix = FRAME.pack(magic, 0, crc32(body), kind, version, head, len(body), since, number)
            made += prefix[:4] + crc32(prefix[8:]).to_bytes(4, "little") + prefix[8:] + body
        at += FRAME.size + length
    return made


def damage_of(path: Path, columns: list[str] | None = None) -> tuple[int, Damage]:
    """How many rows a scan gives, and what it could not read."""
    reader = History.read_only(path)
    return sum(len(batch) for batch in reader.scan(columns=columns)), reader.damage


def test_patching_nothing_changes_nothing() -> None:
    data = file_of(FROZEN / "compact-simplex", ".qigh").read_bytes()
    assert with_header(data, lambda record: None) == data
    assert with_block(data, lambda table, pieces: None, 1) == data
    logged = file_of(FROZEN / "compact-simplex", ".journal").read_bytes()
    assert with_frames(logged, lambda kind, body: (kind, 1, 88 if kind == 1 else 0, body)) == logged


@pytest.mark.parametrize("added", [[None], [{"a": [1, b"x", 0.5]}, -1, True], ["later", 2**64 - 1]])
def test_fields_that_later_versions_add_at_the_end_of_a_header_are_passed_over(
    tmp_path: Path, name: str, added: list[Any]
) -> None:
    path = copied(name, tmp_path)
    for segment in path.glob("*.qigh"):
        segment.write_bytes(with_header(segment.read_bytes(), lambda record: record.extend(added)))
    check(path, name)
    assert not damage_of(path)[1]


def test_a_header_may_end_before_the_field_that_came_last(tmp_path: Path) -> None:
    path = copied("compact-simplex", tmp_path)
    segment = file_of(path, ".qigh")
    segment.write_bytes(with_header(segment.read_bytes(), lambda record: record.pop()))
    check(path, "compact-simplex")


@pytest.mark.parametrize("version", [2, 255])
def test_a_segment_of_a_later_format_is_named_and_nothing_of_it_is_read(tmp_path: Path, version: int) -> None:
    path = copied("compact-sphere", tmp_path)
    _, newer = sorted(path.glob("*.qigh"))
    newer.write_bytes(with_header(newer.read_bytes(), lambda record: record.clear(), version))
    rows, damage = damage_of(path)
    assert rows == len(read_rows(path)) == 30  # not the journal of the later one either
    (reason,) = damage.unreadable
    assert reason.startswith(f"{newer.name}: format {version}")
    assert "upgrade" in reason
    assert damage == Damage(unreadable=(reason,))
    first = {row.values["basin_drift"] for row in read_store(FROZEN / "compact-sphere")[0].rows}
    drifts = EXPECTED["compact-sphere"]["columns"]["basin_drift"]
    check(path, "compact-sphere", [i for i, drift in enumerate(drifts) if drift in first])


def test_a_precision_that_is_not_known_is_named_and_replaces_nothing(tmp_path: Path) -> None:
    path = copied("compacted", tmp_path)
    (made,) = filter(replaces, path.glob("*.qigh"))

    def unknown(record: list[Any]) -> None:
        record[3] = "finer"

    made.write_bytes(with_header(made.read_bytes(), unknown))
    rows, damage = damage_of(path)
    assert rows == len(read_rows(path)) == 45  # those that it replaces are still there
    assert [reason.startswith(f"{made.name}: precision 'finer'") for reason in damage.unreadable] == [True]


def replaces(segment: Path) -> bool:
    data = segment.read_bytes()
    length = struct.unpack_from("<I", data, 16)[0]
    return bool(msgspec.msgpack.decode(data[20 : 20 + length])[8])


def test_columns_that_later_versions_add_are_passed_over(tmp_path: Path, name: str) -> None:
    """In the table and in the payload, before, between and behind the known ones, in encodings not known."""

    def more(table: Table, pieces: list[bytes]) -> None:
        for place, number, octets in ((0, 17, b"abc"), (5, 200, b""), (len(table), 4000, bytes(99))):
            table.insert(place, [number, 77, len(octets), crc32(octets)])
            pieces.insert(place, octets)
        table.append([18, 0, b"\xf8\x7f"])
        table.append([19, 9, b"?", 0, "a field of the entry itself"])

    path = copied(name, tmp_path)
    for segment in path.glob("*.qigh"):
        data = segment.read_bytes()
        if b"QIGBLK" in data:
            segment.write_bytes(with_block(data, more))
    check(path, name)
    assert not damage_of(path)[1]


def test_a_known_column_in_an_unknown_encoding_is_never_guessed(tmp_path: Path) -> None:
    """The block's rows are missing to who wants that column; who does not has them all."""

    def other(table: Table, pieces: list[bytes]) -> None:
        next(entry for entry in table if entry[0] == 4)[1] = 7

    path = copied("compact-simplex", tmp_path)
    segment = file_of(path, ".qigh")
    segment.write_bytes(with_block(segment.read_bytes(), other, 1))
    check(path, "compact-simplex", [*range(48), *range(52, 126)])
    rows, damage = damage_of(path)
    assert (rows, damage.bad_blocks, damage.missing_rows) == (122, 1, 4)
    rows, damage = damage_of(path, ["phi", "code", "basin_coords"])
    assert rows == 126
    assert not damage


def test_columns_that_are_not_stored_have_defaults(tmp_path: Path) -> None:
    def fewer(table: Table, pieces: list[bytes]) -> None:
        for number in (11, 12, 13, 15, 16, 1, 0):
            place = next(i for i, entry in enumerate(table) if entry[0] == number)
            del table[place], pieces[place]

    path = copied("exact-sphere", tmp_path)
    segment = file_of(path, ".qigh")
    segment.write_bytes(with_block(segment.read_bytes(), fewer))
    reader = History.read_only(path)
    whole, plain = gather(reader.scan(), 2), read_rows(path)
    assert not reader.damage
    assert np.isnan(whole.agency[:8]).all()
    assert np.isnan(whole.basin_coords[:8]).all()
    assert set(whole.repaired[:8].tolist()) | set(whole.columns["regime"][:8].tolist()) == {0}
    assert set(whole.code_hash[:8].tolist()) | set(whole.module_name[:8].tolist()) == {""}
    assert whole.phi.tolist() == EXPECTED["exact-sphere"]["columns"]["phi"]
    for row in plain[:8]:
        assert np.isnan([row.values["agency"], *row.basin]).all()
        assert [row.values[column] for column in ("repaired", "regime", "code", "module")] == [0, 0, "", ""]


def test_a_block_of_a_later_format_is_damage_and_the_rest_is_read(tmp_path: Path) -> None:
    path = copied("compact-simplex", tmp_path)
    segment = file_of(path, ".qigh")
    segment.write_bytes(with_block(segment.read_bytes(), lambda table, pieces: None, 1, version=2))
    check(path, "compact-simplex", [*range(48), *range(52, 126)])
    _, damage = damage_of(path)
    assert (damage.bad_blocks, damage.missing_rows) == (1, 4)


def test_a_journal_s_heads_may_be_longer_and_shorter(tmp_path: Path, name: str) -> None:
    """Longer: by fields that are not known. Shorter: what lacks, from `repaired` on, is 0 and no name."""
    longer, shorter = copied(name, tmp_path), copied(name, tmp_path / "shorter")

    def more(kind: int, body: bytes) -> tuple[int, int, int, bytes] | None:
        return (1, 1, 101, body[:88] + bytes(range(13)) + body[88:]) if kind == 1 else None

    def less(kind: int, body: bytes) -> tuple[int, int, int, bytes] | None:
        return (1, 1, 72, body[:72] + body[88:]) if kind == 1 else None

    for path, change in ((longer, more), (shorter, less)):
        journal = max(path.glob("*.journal"))
        journal.write_bytes(with_frames(journal.read_bytes(), change))
    check(longer, name)
    reader = History.read_only(shorter)
    last, plain = reader.last(1), read_rows(shorter)[-1]
    assert not reader.damage
    assert np.isnan([last.agency[0], plain.values["agency"]]).all()
    assert last.columns["regime"].tolist() == [plain.values["regime"]] == [REGIMES.index("linear")]
    assert last.code_hash.tolist() == [plain.values["code"]] == [""]
    assert last.phi.tolist() == EXPECTED[name]["columns"]["phi"][-1:]


def test_frames_of_another_kind_or_format_are_passed_over(tmp_path: Path) -> None:
    path = copied("exact-simplex", tmp_path)
    journal = file_of(path, ".journal")
    kinds = iter([(1, 1), (1, 2), (9, 1), (1, 1), (3, 7)])
    journal.write_bytes(
        with_frames(journal.read_bytes(), lambda kind, body: (*next(kinds), 88, body) if kind == 1 else None)
    )
    check(path, "exact-simplex", [*range(82), 84])
    _, damage = damage_of(path)
    assert damage.bad_rows == 3
