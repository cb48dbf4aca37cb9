"""Rows that check themselves: everything in a row follows from its label, and its label is its timestamp.

So a test that reads a store needs to remember only which labels were written, and any value that is
given as good and is not what was stored stands out, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from qigcore.rows import COLUMNS, HEAD, Array, Batch, FloatArray

Labels = npt.NDArray[np.int64]

DIM = 3
NAMES = ("", *(f"code {index}" for index in range(5)), *(f"module {index}" for index in range(7)))
PRECISIONS = ("exact", "compact")

_PERIOD = 1009  # figures repeat after so many labels: neighbours always differ
_FIGURES = tuple(name for name in HEAD.names or () if HEAD[name].kind == "f" and name != "timestamp")
_ANGLE = 1e-4  # how far a stored state may lie from the true one under "compact", radians
_DIGITS = 2.0**-14  # 14 significant bits, rounded to nearest


def rows(labels: Iterable[int], dim: int = DIM) -> tuple[Array, Array]:
    """Heads [n] and basins [n, dim] of these labels; `NAMES` is the table that the heads point into."""
    wanted = np.fromiter(labels, np.int64)
    heads, basins = _table(dim)
    heads, basins = heads[wanted % _PERIOD], basins[wanted % _PERIOD]
    heads["timestamp"] = wanted
    return heads, basins


def batch(labels: Iterable[int], dim: int = DIM) -> Batch:
    """The same as a batch."""
    return Batch.of_rows(*rows(labels, dim), NAMES)


def labels(
    batches: Iterable[Batch], precision: str = "compact", dim: int = DIM, *, unnamed: bool = False
) -> list[int]:
    """The labels of all rows in the order given; every value of every row is compared with the truth.

    precision: "exact" demands every bit, "compact" 14 significant bits and 1e-4 rad. unnamed: damage to
    a journal may have cost rows their names, which are "" then.
    """
    found: list[int] = []
    for part in batches:
        found.extend(checked(part, precision, dim, unnamed=unnamed).tolist())
    return found


def checked(part: Batch, precision: str = "compact", dim: int = DIM, *, unnamed: bool = False) -> Labels:
    """The labels of a batch with all columns. AssertionError where a value is not the one that was stored."""
    assert set(part.columns) == set(COLUMNS)
    if not len(part):  # of an empty store not even the dimension is known
        return np.empty(0, np.int64)
    times = part.timestamp
    assert (times == np.rint(times)).all(), times
    assert (times >= 0).all(), times
    found = times.astype(np.int64)
    truth = batch(found, dim)
    assert part.basin_coords.shape == truth.basin_coords.shape, part.basin_coords.shape
    for name in ("repaired", "regime"):
        assert np.array_equal(part.columns[name], truth.columns[name]), name
    for named in ("code_hash", "module_name"):
        ours, theirs = getattr(part, named), getattr(truth, named)
        assert ((ours == theirs) | (unnamed & (ours == ""))).all(), named
    for name in _FIGURES:
        assert _figures_agree(part.columns[name], truth.columns[name], precision), name
    assert _basins_agree(part.basin_coords, truth.basin_coords, precision)
    return found


def follows(found: Sequence[int], written: Sequence[int]) -> bool:
    """Whether `found` is a part of `written` in the order of it, nothing twice."""
    left = iter(written)
    return all(any(label == other for other in left) for label in found)


_tables: dict[int, tuple[Array, FloatArray]] = {}


def _table(dim: int) -> tuple[Array, FloatArray]:
    if dim not in _tables:
        rng = np.random.default_rng(dim)
        heads = np.zeros(_PERIOD, HEAD)
        for name in _FIGURES:
            heads[name] = rng.normal(size=_PERIOD) * 10.0 ** rng.integers(-3, 4, _PERIOD)
        heads["confidence"][::7] = np.nan
        heads["surprise"][::11] = -0.0
        heads["agency"][::13] = np.inf
        heads["repaired"] = rng.integers(0, 512, _PERIOD)
        heads["regime"] = rng.integers(0, 3, _PERIOD)
        heads["code"] = np.arange(_PERIOD) % 6
        heads["module"] = np.where(np.arange(_PERIOD) % 5, 6 + np.arange(_PERIOD) % 7, 0)
        basins = rng.dirichlet(np.full(dim, 2.0), _PERIOD)
        basins[::3] *= 10.0 ** rng.integers(-2, 3, (len(basins[::3]), 1))  # reported on any scale
        basins[::5, 0] = 0.0
        basins[::101] = np.eye(1, dim)
        basins[700, 0] = np.nan  # no state: a block with such a one is stored bit for bit
        _tables[dim] = heads, basins
    return _tables[dim]


def _figures_agree(found: Array, truth: Array, precision: str) -> bool:
    if precision == "exact":
        return found.tobytes() == truth.tobytes()
    finite = np.isfinite(truth)
    near = np.abs(found[finite] - truth[finite]) <= _DIGITS * np.abs(truth[finite])
    same = np.array_equal(found[~finite], truth[~finite], equal_nan=True)
    return bool(near.all()) and same and np.array_equal(np.signbit(found), np.signbit(truth))


def _basins_agree(found: Array, truth: Array, precision: str) -> bool:
    same = (found.view("<u8") == truth.view("<u8")).all(axis=1)
    if precision == "exact":
        return bool(same.all())
    ours, theirs = (np.sqrt(part / part.sum(axis=1, keepdims=True)) for part in (found[~same], truth[~same]))
    chords = np.linalg.norm(ours - theirs, axis=1)  # NaN where either is no state
    return bool((4 * np.arcsin(chords / 2) <= _ANGLE).all())
