"""A history as one file for others: Parquet, Arrow, CSV, or the JSON of the earlier modules.

Rows go from the store to the file a batch at a time, so that memory does not grow with the store. The
file gets its name when it is whole; an export that fails leaves nothing, and what had the name stays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from qigcore.errors import HistoryError, MissingExtra
from qigcore.history import csvtext, earlier
from qigcore.history.fields import EXPORTED, outside
from qigcore.history.files import JOURNAL_SUFFIX, SEGMENT_SUFFIX, replacing, resolved
from qigcore.rows import Batch

if TYPE_CHECKING:
    from qigcore.history import History

FORMATS = ("parquet", "arrow", "feather", "csv", "json")
"""A format is the suffix of its files. Arrow and Feather are two names of one."""

_OWN_NAMES = (earlier.BASELINE_FILE, earlier.LIMITS_FILE, "ledger.db", "ledger.db-wal", "ledger.db-shm")


def export(
    history: History,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    start: float | None = None,
    end: float | None = None,
    columns: Iterable[str] | None = None,
) -> int:
    """`History.export`, which documents it."""
    target = Path(path)
    asked = [columns] if isinstance(columns, str) else None if columns is None else list(columns)
    kind, chosen = check_asked(target, format, asked)
    try:
        place = resolved(target)
    except OSError as error:
        raise HistoryError(f"{target}: cannot be written: {error.strerror}") from error
    _check_place(target, place, history.path)
    limits = _limits(history, start, end) if kind == "json" else earlier.Limits()
    batches = history.scan(start, end, asked)
    try:
        with replacing(target) as file:
            if kind == "json":
                return earlier.write(file, batches, limits)
            if kind == "csv":
                return csvtext.write(file, batches, chosen, history.dim)
            return _arrow(kind, file, batches, chosen, history, place.parent)
    except OSError as error:
        raise HistoryError(f"{target}: cannot be written: {error.strerror or error}") from error


def check_asked(
    target: Path, format: str | None, columns: Sequence[str] | None
) -> tuple[str, tuple[str, ...]]:
    """The format and the columns, in the names that they have outside. Raises HistoryError for others."""
    kind = _format(target, format)
    if kind == "json" and columns is not None:
        raise HistoryError("columns: the JSON of the earlier modules has all of its own; leave them out")
    chosen = EXPORTED if columns is None else tuple(dict.fromkeys(map(outside, columns)))
    if not chosen or not set(chosen) <= set(EXPORTED):
        raise HistoryError(f"columns: expected some of {', '.join(EXPORTED)}, got {list(columns or ())}")
    return kind, chosen


def _format(target: Path, given: str | None) -> str:
    kind = target.suffix.lower().removeprefix(".") if given is None else given
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise HistoryError(
            f"{target}: expected a name that ends in {known}, or one of them as the format, "
            f"got {target.suffix if given is None else given!r}"
        )
    return kind


def _check_place(target: Path, place: Path, folder: Path) -> None:
    if place.parent == folder.resolve() and (
        place.suffix in (SEGMENT_SUFFIX, JOURNAL_SUFFIX) or place.name in _OWN_NAMES
    ):
        raise HistoryError(f"{target}: the store has files of its own under such a name; choose another")


def _arrow(
    kind: str,
    file: BinaryIO,
    batches: Iterator[Batch],
    columns: tuple[str, ...],
    history: History,
    folder: Path,
) -> int:
    try:
        from qigcore.history import arrow
    except ImportError as error:
        raise MissingExtra("pyarrow", "export", f"an export as {kind}") from error
    layout = arrow.Layout(columns, history.dim, history.geometry)
    if kind == "parquet":
        return arrow.write_parquet(file, batches, layout)
    with tempfile.TemporaryFile(dir=folder) as spool:
        return arrow.write_ipc(file, batches, layout, cast(BinaryIO, spool))


def _limits(history: History, start: float | None, end: float | None) -> earlier.Limits:
    """As a monitor has them: until a baseline is learned, the reference is the first good basin."""
    limits = earlier.Limits.of_store(history.path, history.dim, history.geometry)
    if limits.baseline_basin is None:
        for batch in history.scan(start, end, ("basin_coords", "repaired")):
            good = batch.good("basin_coords")
            if good.any():
                first: list[float] = batch.basin_coords[good][0].tolist()
                return msgspec.structs.replace(limits, baseline_basin=first)
    return limits
