"""A history as CSV (RFC 4180, UTF-8): a header, then one line a snapshot.

Figures are written with as many digits as bring back the same float64; times are ISO 8601 in UTC; a
basin is columns basin_00, basin_01 and so on; repaired fields are separated by semicolons. An empty
cell is a figure that was not reported.

Module names and code hashes are a service's text, and a spreadsheet takes a cell that begins with
= + - or @, or with such a character behind others that nobody sees, for a formula and computes it. Such a
text gets one ' in front, which tells spreadsheets that it is text; so does a text that begins with '
itself, so that a reader who takes one leading ' off every text has what was stored.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec
import numpy as np

from qigcore.history.fields import OPTIONAL, POINTERS, microseconds, numbered, repaired
from qigcore.rows import REGIMES, Batch, FloatArray

_RISKY = re.compile(r"[=+\-@'＝＋－＠]")
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that print as nothing, and that Unicode calls printable: joiners, fillers, variation selectors."""


def write(file: BinaryIO, batches: Iterable[Batch], columns: Iterable[str], dim: int) -> int:
    """All rows of the batches, with the columns in this order; gives their number."""
    chosen = tuple(columns)
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        lines = csv.writer(text)
        lines.writerow([cell for name in chosen for cell in _headings(name, dim)])
        rows = 0
        for batch in batches:
            lines.writerows(zip(*(cells for name in chosen for cells in _cells(name, batch)), strict=True))
            rows += len(batch)
    finally:
        text.detach()  # the file is its owner's to close
    return rows


def harmless(text: str) -> str:
    """The text, with ' in front where a spreadsheet could take it for anything else; reversible."""
    seen = next((at for at, character in enumerate(text) if not _unseen(character)), len(text))
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") or _RISKY.match(text, seen) else text


def _unseen(character: str) -> bool:
    return not character.isprintable() or character.isspace() or _BLANK.match(character) is not None


def _headings(name: str, dim: int) -> list[str]:
    if name != "basin_coords":
        return [name]
    width = max(2, len(str(dim - 1)))
    return [f"basin_{number:0{width}}" for number in range(dim)]


def _cells(name: str, batch: Batch) -> Iterator[list[Any]]:
    """The columns of cells that a column of a batch is written as."""
    if name == "timestamp":
        moments, beyond = microseconds(batch.timestamp)
        written = np.datetime_as_string(moments.view("M8[us]"), unit="us").tolist()
        yield ["" if lost else f"{moment}Z" for moment, lost in zip(written, beyond, strict=True)]
    elif name == "repaired":
        counts, names = repaired(batch.repaired)
        ends = np.cumsum(counts).tolist()
        yield [";".join(names[end - count : end]) for count, end in zip(counts, ends, strict=True)]
    elif name == "regime":
        yield [REGIMES[number] for number in batch.regime]
    elif name in POINTERS:
        numbers, texts = numbered(batch, name)
        safe = [harmless(text) for text in texts]
        yield [safe[number] for number in numbers]
    elif name == "basin_coords":
        yield from map(_figures, batch.basin_coords.T)
    elif name in OPTIONAL:
        missing = np.isnan(batch.columns[name])
        cells = _figures(batch.columns[name])
        yield ["" if lost else cell for cell, lost in zip(cells, missing, strict=True)]
    else:
        yield _figures(batch.columns[name])


def _figures(column: FloatArray) -> list[str]:
    """Each as text that brings back the same float64: as JSON has it, which is quicker than repr."""
    if not len(column):
        return []
    cells = msgspec.json.encode(column.tolist()).decode()[1:-1].split(",")
    for place in np.flatnonzero(~np.isfinite(column)):  # which JSON has not
        cells[place] = repr(float(column[place]))
    return cells
