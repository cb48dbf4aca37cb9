"""The journal's layout: damage costs the frame it hits, and any bytes are read to their end."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.history.columns import recode
from qigcore.history.journal import PREFIX_BYTES, decode, encode_names, encode_rows
from qigcore.rows import HEAD, Batch

from .stores import NAMES, flipped, rows, same


def journal(count: int, first: int = 0) -> bytes:
    heads, basins = rows(count, start=first, seed=first)
    names = {"": 0}
    heads = recode(heads, NAMES, names)
    return encode_names(list(names)[1:], 1, first) + encode_rows(heads, basins, first, first)


def test_rows_come_back_bit_for_bit() -> None:
    heads, basins = rows(5)
    heads["phi"][:2] = np.array([0x7FF0000000000001, 0x8000000000000000], "<u8").view("<f8")
    names = {"": 0}
    recoded = recode(heads, NAMES, names)
    found = decode(encode_names(list(names)[1:], 1, 7) + encode_rows(recoded, basins, 7, 7), 3)
    assert found.sequences.tolist() == [7, 8, 9, 10, 11]
    assert same(found.batch, Batch.of_rows(heads, basins, NAMES))
    assert (found.bad, found.skipped, found.torn) == (0, 0, 0)


def test_rows_known_already_are_left_out() -> None:
    found = decode(journal(5, 7) + journal(3, 7), 3, after=9)
    assert found.sequences.tolist() == [9, 10, 11]


def test_cut_anywhere_the_whole_rows_are_left() -> None:
    data = journal(3)
    frame = PREFIX_BYTES + HEAD.itemsize + 24
    for length in range(len(data)):
        whole = max(0, (length - (len(data) - 3 * frame)) // frame)
        found = decode(data[:length], 3)
        assert found.batch.phi.tolist() == list(range(whole))
        assert found.bad == 0
        assert found.torn < frame
        assert found.batch.code_hash.tolist() == [NAMES[1]] * whole


def test_any_flipped_bit_costs_one_frame() -> None:
    data = journal(3)
    whole = decode(data, 3).batch
    for bit in range(8 * len(data)):
        found = decode(flipped(data, bit), 3)
        assert found.bad or found.torn
        kept = found.sequences
        assert len(kept) >= 2
        assert found.batch.basin_coords.tobytes() == whole.basin_coords[kept].tobytes()
        assert found.batch.agency.tobytes() == whole.agency[kept].tobytes()
        if len(kept) == 3:  # a name was hit: unknown now, and not another name
            assert set(found.batch.code_hash) | set(found.batch.module_name) <= set(NAMES)
            assert len(found.batch.names) <= len(NAMES)
            assert (found.batch.code_hash[0], found.batch.module_name[0]) != ("", "")


def frame(head: bytes, basin: np.ndarray, sequence: int) -> bytes:
    body = head + basin.tobytes()
    prefix = struct.pack("<IBBHIIQ", zlib.crc32(body), 1, 1, len(head), len(body), 0, sequence)
    return b"\x93QJ\n" + struct.pack("<I", zlib.crc32(prefix)) + prefix + body


def test_heads_of_other_versions() -> None:
    heads, basins = rows(1)
    heads["code"] = heads["module"] = 0
    longer = decode(frame(heads.tobytes() + b"new field", basins[0], 0), 3)
    assert same(longer.batch, Batch.of_rows(heads, basins, ("",)))
    shorter = decode(frame(heads.tobytes()[:24], basins[0], 0), 3).batch
    assert shorter.kappa_eff.tobytes() == heads["kappa_eff"].tobytes()
    assert np.isnan(shorter.basin_drift).all()
    assert shorter.repaired.tolist() == [0]
    assert shorter.basin_coords.tolist() == basins.tolist()


def test_rows_of_another_dimension_are_counted() -> None:
    found = decode(journal(2) + encode_rows(*rows(1, dim=4), 2, 0) + journal(1, 3), 3)
    assert found.sequences.tolist() == [0, 1, 3]
    assert found.bad == 1


@given(st.binary(max_size=400), st.integers(1, 70))
@settings(max_examples=200)
def test_any_bytes_are_read_to_their_end(data: bytes, dim: int) -> None:
    found = decode(data, dim)
    assert len(found.batch) == 0
    assert found.torn == len(data)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_rows_behind_any_bytes_are_found(junk: bytes, count: int) -> None:
    found = decode(journal(2) + junk + journal(count, 2), 3)
    assert found.sequences.tolist() == list(range(2 + count))


def test_no_bytes_are_looked_at_twice() -> None:
    # Prefixes that are intact and claim long bodies which are not: checking each body anew would be quadratic.
    claim = struct.pack("<IBBHIIQ", 0, 1, 1, 88, 1 << 21, 0, 0)
    data = (b"\x93QJ\n" + struct.pack("<I", zlib.crc32(claim)) + claim) * (1 << 17)
    before = time.process_time()
    assert len(decode(data, 3).batch) == 0
    assert time.process_time() - before < 20


def test_names_of_an_earlier_filling_are_not_those_of_later_rows() -> None:
    # A power loss may leave a mixture of both, the journal having been emptied in between.
    def filled(first: int, name: str) -> tuple[bytes, bytes]:
        heads, basins = rows(2, start=first)
        heads["code"], heads["module"] = 1, 0
        return encode_names([name], 1, first), encode_rows(heads, basins, first, first)

    (old, old_rows), (new, new_rows) = filled(0, "old"), filled(2, "new")
    for data, names in (
        (old + old_rows + new_rows, ["old", "old", "", ""]),
        (new + new_rows + old, ["new", "new"]),
        (old + new + old_rows + new_rows, ["old", "old", "new", "new"]),
    ):
        assert decode(data, 3).batch.code_hash.tolist() == names


def test_rows_that_no_writer_takes_are_damage() -> None:
    heads, basins = rows(4)
    heads["code"] = heads["module"] = 0
    heads["timestamp"][1] = np.nan
    heads["regime"][2] = 3
    found = decode(encode_rows(heads, basins, 0, 0), 3)
    assert found.sequences.tolist() == [0, 3]
    assert (found.bad, found.skipped) == (2, 2 * (PREFIX_BYTES + HEAD.itemsize + 24))
