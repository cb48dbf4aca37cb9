"""Stored columns as others are to see them: names for numbers, whole microseconds, text that any reader takes.

No file and no format is known here.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from qigcore.rows import HEAD, REPAIRABLE, Array, Batch, FloatArray

POINTERS = {"code_hash": "code", "module_name": "module"}
"""Columns of text, with the column of numbers that each is stored as."""

FIGURES = tuple(name for name in HEAD.names or () if HEAD[name].kind == "f" and name != "timestamp")

EXPORTED = ("timestamp", *FIGURES, "repaired", "regime", *POINTERS, "basin_coords")
"""Every column by the name that it has outside, in the order in which all of them are written."""

OPTIONAL = ("confidence", "surprise", "agency")
"""Figures that a host may leave out; NaN in a row says that it did."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REACH_S = 9.2e12  # microseconds beyond it do not fit 64 bits


def outside(column: str) -> str:
    """The name outside of a column of a batch."""
    return {pointer: name for name, pointer in POINTERS.items()}.get(column, column)


def microseconds(times: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Unix seconds [n] as whole microseconds, to the nearest, and where they are beyond 64 bits (then 0)."""
    beyond = ~(np.abs(times) < _REACH_S)
    kept = np.where(beyond, 0.0, times)
    whole = np.floor(kept)
    # Seconds and their fraction apart: together, times 1e6, they would be rounded twice.
    return whole.astype(np.int64) * 1_000_000 + np.rint((kept - whole) * 1e6).astype(np.int64), beyond


def numbered(batch: Batch, name: str) -> tuple[Array, list[str]]:
    """A column of `POINTERS`: numbers [n] into a list of the different texts that stand in it."""
    used, places = np.unique(batch.columns[POINTERS[name]], return_inverse=True)
    texts: dict[str, int] = {}
    numbers = [texts.setdefault(encodable(batch.names[place]), len(texts)) for place in used]
    return np.array(numbers, np.int32)[places], list(texts)


def repaired(flags: Array) -> tuple[Array, list[str]]:
    """The flags [n] as lists of names: how many each row has [n], and all of them in a row."""
    bits = flags[:, None] >> np.arange(len(REPAIRABLE), dtype=flags.dtype) & 1
    return bits.sum(axis=1), [REPAIRABLE[bit] for bit in np.nonzero(bits)[1]]


def encodable(text: str) -> str:
    """The same with U+FFFD for what UTF-8 cannot hold."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
