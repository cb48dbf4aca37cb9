"""Rows to store, and stores to damage, for the tests of the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qigcore.history import History
from qigcore.rows import COLUMNS, HEAD, Array, Batch

NAMES = ("", "a1b2c3d4", "digits.service")


def rows(count: int, *, start: float = 0.0, dim: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Heads [count] and basins [count, dim]: a second apart, Φ counting up from `start`, the rest noise."""
    rng = np.random.default_rng(seed)
    heads = np.zeros(count, HEAD)
    for name in HEAD.names or ():
        if HEAD[name].kind == "f":
            heads[name] = rng.normal(size=count)
    heads["timestamp"] = heads["phi"] = start + np.arange(count)
    heads["repaired"] = rng.integers(0, 512, count)
    heads["regime"] = rng.integers(0, 3, count)
    heads["code"] = 1
    heads["module"] = 2
    return heads, rng.dirichlet(np.ones(dim), count)


def append(history: History, count: int, *, start: float = 0.0, seed: int = 0) -> None:
    heads, basins = rows(count, start=start, dim=history.dim, seed=seed)
    history.append_rows(heads, basins, NAMES)


def gather(batches: Iterable[Batch], dim: int = 3) -> Batch:
    return Batch.concat(batches, dim)


def counted(batches: Iterable[Batch]) -> list[int]:
    """The Φ of all rows, which `rows` makes count up."""
    return [int(phi) for batch in batches for phi in batch.phi]


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal bit for bit, and name the same things."""
    return (
        all(one.columns[name].tobytes() == other.columns[name].tobytes() for name in COLUMNS[:-3])
        and one.basin_coords.tobytes() == other.basin_coords.tobytes()
        and one.code_hash.tolist() == other.code_hash.tolist()
        and one.module_name.tolist() == other.module_name.tolist()
    )


def abandon(history: History) -> None:
    """Let go of a segment as a kill would: nothing sealed, nothing removed."""
    assert history._writer is not None
    history._writer.release()


def store(path: Path, sealed: Sequence[int], pending: int, dim: int = 3) -> History:
    """What a killed writer leaves: blocks of `sealed` rows, `pending` rows in the journal. Opened to read."""
    history = History(path, dim=dim)
    total = 0
    for count in sealed:
        append(history, count, start=total, seed=total)
        history.seal()
        total += count
    append(history, pending, start=total, seed=total)
    abandon(history)
    return History.read_only(path)


def file_of(path: Path, suffix: str) -> Path:
    (found,) = path.glob(f"*{suffix}")
    return found


def flipped(data: bytes, bit: int) -> bytes:
    octets = bytearray(data)
    octets[bit // 8] ^= 1 << bit % 8
    return bytes(octets)
