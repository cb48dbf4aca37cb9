"""docs/history-format.md holds: a reader written from it alone reads what History reads, bit for bit."""

from __future__ import annotations

import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qigcore.history import History
from qigcore.rows import HEAD, REGIMES, Array, FloatArray

from . import plain_columns, plain_reader
from .plain_reader import read_rows, read_store
from .stores import NAMES, abandon, file_of, flipped, gather, rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "history-format.md"
KINDS = [(precision, geometry) for precision in ("exact", "compact") for geometry in ("simplex", "sphere")]
ODD_NAMES = ("", "Φκ", "lone \udc80 surrogate", "x" * 2000, "nul\0", "a\nb")
FIGURES = [name for name in HEAD.names or () if HEAD[name].kind == "f"]


def opened(path: Path, **given: Any) -> History:
    return History(path, clock=lambda: 1e9, **{"dim": 3, **given})


def basins_of(rng: np.random.Generator, count: int, dim: int, geometry: str) -> FloatArray:
    drawn: FloatArray = rng.normal(size=(count, dim)) * 7
    return drawn if geometry == "sphere" else abs(drawn)


def check(path: Path) -> int:
    """Both readers give the same; how many rows."""
    plain, dim = read_rows(path), History.read_only(path).dim
    real = gather(History.read_only(path).scan(), dim)
    assert len(plain) == len(real)
    for name in FIGURES:
        bits = struct.pack(f"<{len(plain)}d", *(row.values[name] for row in plain))
        assert bits == real.columns[name].tobytes(), name
    for name in ("repaired", "regime"):
        assert [row.values[name] for row in plain] == real.columns[name].tolist(), name
    assert [row.values["code"] for row in plain] == real.code_hash.tolist()
    assert [row.values["module"] for row in plain] == real.module_name.tolist()
    basins = [number for row in plain for number in row.basin]
    assert struct.pack(f"<{len(basins)}d", *basins) == real.basin_coords.tobytes()
    return len(plain)


@pytest.mark.parametrize("dim", [1, 3, 64])
@pytest.mark.parametrize(("precision", "geometry"), KINDS)
def test_several_writers_blocks_and_journals(tmp_path: Path, precision: str, geometry: str, dim: int) -> None:
    """Rows across each other in time, clocks that step back, rows of one moment, names of all sorts."""
    writers = [opened(tmp_path, precision=precision, geometry=geometry, dim=dim) for _ in range(3)]
    for rank, writer in enumerate(writers):
        rng = np.random.default_rng(rank)
        heads, _ = rows(150, seed=rank)
        heads["timestamp"] = 1.7e9 + np.cumsum(rng.choice([0.0, 0.25, 3.0, -5.0], 150))
        heads["confidence"] = np.nan
        heads["surprise"][::3] = np.nan
        heads["memory_mb"] = 12.5
        heads["code"], heads["module"] = rng.integers(0, len(ODD_NAMES), (2, 150))
        basins = basins_of(rng, 150, dim, geometry)
        for start, end in ((0, 60), (60, 61), (61, 120), (120, 150)):
            writer.append_rows(heads[start:end], basins[start:end], ODD_NAMES)
            if rank and end <= 120:
                writer.seal()
    writers[0].close()
    for writer in writers[1:]:
        writer.flush()
    assert check(tmp_path) == 450
    for writer in writers[1:]:
        abandon(writer)
    assert check(tmp_path) == 450
    assert not any(segment.damage for segment in read_store(tmp_path))


WILD = [0.0, -0.0, 5e-324, -2.2e-308, 1.7976931348623157e308, 1 / 3, -1e-9, 2.0**53, np.inf, -np.inf, np.nan]
TIMES = [0.0, -0.0, -1.7e9, -1e-6, 1e-7, 1.7e9 + 1e-6, 2.0**33 - 1e-6, 2.0**33, 1e18, -1e300, 1e308, 4e-324]


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_wild_figures_and_times(tmp_path: Path, precision: str) -> None:
    rng = np.random.default_rng(5)
    history = opened(tmp_path, precision=precision)
    for times in (TIMES, TIMES[::-1], TIMES[:7], [1e300]):
        heads, basins = rows(len(times))
        for name in FIGURES:
            heads[name] = rng.choice(WILD, len(times))
        heads["timestamp"] = times
        heads["repaired"] = rng.choice([0, 1, 511, 65535], len(times))
        history.append_rows(heads, basins, NAMES)
        history.seal()
    history.append_rows(heads, basins, NAMES)
    history.flush()
    assert check(tmp_path) == 33


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
def test_basins_that_are_no_states(tmp_path: Path, geometry: str) -> None:
    """A block that has one keeps all of its basins exactly; one with extreme scales keeps directions."""
    history = opened(tmp_path, geometry=geometry)
    usable = [[1e300, 1e-300, 0.0], [0.0, 0.0, 5e-324], [1e-200, 2e-200, 3e-200]]
    for odd in ([np.nan, 1, 1], [0, -0.0, 0], [1, -1, 1], [np.inf, 0, 0], [2, 3, 4]):
        heads, _ = rows(4)
        history.append_rows(heads, np.array([*usable, odd], float), NAMES)
        history.seal()
    assert check(tmp_path) == 20


def test_every_encoding_and_every_form_of_packed_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand rows at once: columns that step, wander, jump, stand still and are noise."""
    count = 1100
    heads, basins = rows(count, dim=8)
    rng = np.random.default_rng(9)
    heads["timestamp"] = 1.7e9 + np.arange(count) * 0.5 + rng.integers(0, 9, count) / 1e6
    heads["phi"] = np.round(rng.random(count), 2)
    heads["kappa_eff"] = np.where(np.arange(count) == 700, 1e9, 64.0)
    heads["memory_mb"] = np.cumsum(rng.integers(0, 3, count))
    heads["error_rate"] = 0.25
    heads["code"] = np.arange(count) // 300
    for precision, geometry in KINDS:
        for noise in (0.0, 1e-3, 1.0):
            folder = tmp_path / f"{precision}{geometry}{noise}"
            history = opened(folder, precision=precision, geometry=geometry, dim=8)
            history.append_rows(heads, basins[:1] + noise * basins, [*NAMES, "d"])
            history.close()
    seen: set[str] = set()
    packed, column = plain_columns.packed, plain_columns.decoded_column
    basins_in = plain_columns.decoded_basins

    def noting_form(stored: bytes, count: int, width: int) -> list[list[int]]:
        seen.update([f"form {stored[0] >> 4}", "pace" if stored[0] & 15 else "level"])
        return packed(stored, count, width)

    def noting_column(name: str, encoding: int, *rest: Any) -> Any:
        seen.add(f"encoding {encoding}")
        return column(name, encoding, *rest)

    def noting_basins(encoding: int, *rest: Any) -> Any:
        seen.add(f"encoding {encoding}")
        return basins_in(encoding, *rest)

    monkeypatch.setattr(plain_columns, "packed", noting_form)
    monkeypatch.setattr(plain_reader, "decoded_column", noting_column)
    monkeypatch.setattr(plain_reader, "decoded_basins", noting_basins)
    for folder in tmp_path.iterdir():
        assert check(folder) == count
    encodings = {f"encoding {number}" for number in (0, 2, 3, 4, 5, 6)}
    assert encodings | {"form 0", "form 1", "form 9", "pace", "level"} <= seen


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_compacted_segments_stand_for_those_that_they_replace(tmp_path: Path, precision: str) -> None:
    for writer in range(4):
        history = opened(tmp_path, precision=precision)
        heads, basins = rows(60, start=20.0 * writer, seed=writer)
        history.append_rows(heads[:40], basins[:40], NAMES)
        history.seal()
        history.append_rows(heads[40:], basins[40:], NAMES)
        abandon(history) if writer % 2 else history.close()
    history = opened(tmp_path, precision=precision)
    assert check(tmp_path) == 240
    assert history.compact().made == 1
    assert len(list(tmp_path.glob("*.qigh"))) == 5
    assert len(read_store(tmp_path)) == 1
    assert check(tmp_path) == 240
    history.compact(grace_s=0)
    assert len(list(tmp_path.glob("*.qigh"))) == 1
    assert check(tmp_path) == 240


@pytest.mark.parametrize("suffix", [".qigh", ".journal"])
def test_damage_costs_both_readers_the_same_rows(tmp_path: Path, suffix: str) -> None:
    source, damaged = tmp_path / "source", tmp_path / "damaged"
    history = opened(source)
    for start in range(0, 60, 12):
        heads, basins = rows(12, start=start, seed=start)
        history.append_rows(heads, basins, NAMES)
        if start < 48:
            history.seal()
    abandon(history)
    damaged.mkdir()
    for file in source.glob("*.*"):
        (damaged / file.name).write_bytes(file.read_bytes())
    file = file_of(damaged, suffix)
    whole = file.read_bytes()
    rng = np.random.default_rng(3)
    counts = set()
    for _ in range(25):
        place = int(rng.integers(len(whole)))
        for octets in (
            flipped(whole, 8 * place),
            whole[:place],
            whole[:place] + rng.bytes(70) + whole[place + 30 :],
            whole[place:] + whole[:place],
        ):
            file.write_bytes(octets)
            counts.add(check(damaged))
    assert len(counts) > 4


def test_a_block_lost_in_part_while_its_rows_are_in_the_journal(tmp_path: Path) -> None:
    """The power went while a block was being written: its rows are still in the journal, amid those sealed."""
    history = opened(tmp_path, precision="exact")
    heads, basins = rows(30)
    history.append_rows(heads, basins, NAMES)
    logged = file_of(tmp_path, ".journal").read_bytes()
    history.seal()
    lost = file_of(tmp_path, ".qigh").stat().st_size
    history.append_rows(*rows(30, start=30, seed=1), NAMES)
    history.seal()
    history.append_rows(*rows(5, start=60, seed=2), ("", "of the next filling", "other"))
    abandon(history)
    segment, journal = file_of(tmp_path, ".qigh"), file_of(tmp_path, ".journal")
    octets = bytearray(segment.read_bytes())
    octets[lost - 200 : lost] = bytes(200)
    segment.write_bytes(octets)
    assert check(tmp_path) == 35
    journal.write_bytes(logged + journal.read_bytes())
    assert check(tmp_path) == 65


def test_rows_after_a_lost_block_keep_their_place_among_other_writers(tmp_path: Path) -> None:
    """The lost block had the latest times, then the clock stepped back: `greatest before` tells, in any case."""
    first, second = (opened(tmp_path, precision="exact") for _ in range(2))
    ends = []
    for start in (0, 1000, 200):
        first.append_rows(*rows(10, start=start), NAMES)
        first.seal()
        ends.append(max(path.stat().st_size for path in tmp_path.glob("*.qigh")))
    second.append_rows(*rows(10, start=500), NAMES)
    for history in (first, second):
        history.close()
    segment = max(tmp_path.glob("*.qigh"), key=lambda path: path.stat().st_size)
    octets = bytearray(segment.read_bytes())
    octets[ends[0]] ^= 1
    segment.write_bytes(octets)
    assert check(tmp_path) == 30
    assert [row.values["phi"] for row in read_rows(tmp_path)][::10] == [0, 500, 200]


bits = hnp.arrays(np.uint64, st.shared(st.integers(1, 12), key="count"))
patterns = st.one_of(bits, bits.map(lambda drawn: drawn >> np.uint64(45)))


@settings(max_examples=60, deadline=None)
@given(
    columns=st.lists(patterns, min_size=9, max_size=9),
    times=hnp.arrays(
        np.float64,
        st.shared(st.integers(1, 12), key="count"),
        elements=st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(0, 10**13).map(lambda q: q / 1e6),
    ),
    basin=st.lists(st.floats(), min_size=3, max_size=3),
    kind=st.sampled_from(KINDS),
)
def test_any_bits(columns: list[Array], times: Array, basin: list[float], kind: tuple[str, str]) -> None:
    heads, basins = rows(len(times))
    for name, drawn in zip(FIGURES[1:], columns, strict=True):
        heads[name] = drawn.view(np.float64)
    heads["timestamp"] = times
    heads["repaired"] = columns[0] % 65536
    heads["regime"] = columns[1] % len(REGIMES)
    basins[-1] = basin
    with tempfile.TemporaryDirectory() as folder:
        history = opened(Path(folder), precision=kind[0], geometry=kind[1])
        history.append_rows(heads, basins, NAMES)
        history.seal()
        history.append_rows(heads[::-1], basins, NAMES)
        abandon(history)
        assert check(Path(folder)) == 2 * len(times)


EXAMPLES = [
    ("00 03 00 00 04 00  0E  43 08", [5, 7, 6, 9]),
    ("01 04 00 00 0B 0B  D0 07  DA 07  40 03", [1000, 2007, 3010]),
    ("90 02 00 00 08 00  C8  00 00 A0 AA  01 00 00 00 0C  09  92 09", [100] * 9 + [5000] + [101] * 6),
]


@pytest.mark.parametrize(("octets", "numbers"), EXAMPLES)
def test_examples_of_the_document(octets: str, numbers: list[int]) -> None:
    assert octets in DOCUMENT.read_text()
    assert plain_columns.packed(bytes.fromhex(octets), len(numbers), 1) == [numbers]


def test_the_document_numbers_the_columns_as_they_are_stored() -> None:
    """Names and versions are lost to a reader when they stand there one number too high, as they once did."""
    paragraph = DOCUMENT.read_text().partition("**Columns by their numbers**")[2].partition("\n\n")[0]
    named = {name: int(number) for number, name in re.findall(r"\b(\d+)\s+(?:is\s+)?`(\w+)`", paragraph)}
    assert named == {"basin_coords": 0} | {name: 2 + i for i, name in enumerate(HEAD.names or ())}
