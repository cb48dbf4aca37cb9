"""The JSON file of the earlier modules: one object with the limits, the reference and all snapshots.

Timestamps in it are ISO 8601 in naive local time (an hour each autumn is ambiguous), and basins signed
vectors of unit length, the states of the sphere. What is written here are the basins as stored.

The earlier modules build their snapshots from exactly the keys here, so what they do not know stands
beside the snapshots, where they do not look: `repaired` (position → fields that held the last good
value) and, where basins are no signed vectors, `geometry`. Both are left out when there is nothing to say.

An import takes the earlier one of the two moments that such an hour may mean (as Python does); who exports
and imports in UTC, which has no such hour, gets back what was stored.

Files are written and read a snapshot at a time. What is not is `repaired`, which takes memory for each
snapshot in which something was.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import msgspec
import numpy as np

from qigcore.constants import BASIN_DRIFT_MAX, PHI_MIN
from qigcore.errors import HistoryError
from qigcore.history.fields import FIGURES, OPTIONAL, encodable
from qigcore.history.files import replacing
from qigcore.jsontext import JsonText
from qigcore.regular import open_regular, read_regular
from qigcore.rows import REGIMES, REPAIRABLE, Array, Batch

KEYS = (
    "timestamp",
    "phi",
    "kappa_eff",
    "basin_coords",
    "confidence",
    "surprise",
    "agency",
    "regime",
    "code_hash",
    "module_name",
    "error_rate",
    "avg_latency_ms",
    "memory_mb",
)
LIMITS_FILE = "monitor.json"
BASELINE_FILE = "baseline.json"

_Left = TypeVar("_Left")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a file beside its snapshots.

    baseline_basin: what drift is measured from, a basin in the form of those of the snapshots.
    """

    phi_min: float | None = None
    basin_drift_max: float | None = None
    baseline_basin: list[Any] | None = None
    geometry: str = "sphere"

    @classmethod
    def of_store(cls, folder: Path, dim: int, geometry: str) -> Self:
        """Of a history's folder: the limits and the baseline that the service left there, or the usual limits.

        A baseline of another kind of basins than the history's is passed over. Raises HistoryError for files
        that cannot be read.
        """
        left = _left(folder / LIMITS_FILE, cls) or cls()
        centre = _left(folder / BASELINE_FILE, _Centre)
        basin = None
        if centre is not None and (len(centre.basin), centre.geometry) == (dim, geometry):
            basin = [a * a for a in centre.basin] if geometry == "simplex" else centre.basin
        return cls(
            phi_min=PHI_MIN if left.phi_min is None else left.phi_min,
            basin_drift_max=BASIN_DRIFT_MAX if left.basin_drift_max is None else left.basin_drift_max,
            baseline_basin=basin,
            geometry=geometry,
        )


class _Centre(msgspec.Struct):
    """What a file of limits needs of a baseline: its amplitudes."""

    geometry: str
    basin: list[float]


def _left(path: Path, kind: type[_Left]) -> _Left | None:
    """A file that a service left beside its history, if there is one."""
    try:
        return msgspec.json.decode(read_regular(path), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise HistoryError(f"{path}: expected what a monitor left there, got: {error}") from error


class Earlier:
    """A file that was read once from end to end, and holds what it must.

    Attributes: path; limits (`geometry` as the file says it, the sphere where it says nothing); count, of
    snapshots; repaired, position → fields; lengths, of the basins that are lists of numbers → how many.

    Raises HistoryError for what is no such file, and when it changed meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self.repaired: dict[int, tuple[str, ...]] = {}
        self.lengths: Counter[int] = Counter()
        self._stamp: tuple[int, int, int] | None = None
        found: dict[str, Any] = {}
        for snapshot in self._walk(found):
            self.count += 1
            if basin := numbers(snapshot.get("basin_coords")):
                self.lengths[len(basin)] += 1
        try:
            if "snapshots" not in found:
                raise ValueError("no snapshots")
            self.limits = msgspec.convert(found, Limits, strict=False)
        except ValueError as error:
            raise self._refusal(error) from error

    def snapshots(self) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
        """Each snapshot with whatever its writer put there, and the fields of it that are said to be repaired."""
        for position, snapshot in enumerate(self._walk({})):
            yield snapshot, self.repaired.get(position, ())

    def states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(code hash, fields for `capture`) of each snapshot; a repaired value is handed on as none."""
        for snapshot, repaired in self.snapshots():
            code = snapshot.get("code_hash")
            yield code if isinstance(code, str) else "", {**snapshot, **dict.fromkeys(repaired, math.nan)}

    def _walk(self, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The snapshots, one by one; all else goes into `found` and `repaired`."""
        try:
            with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
                status = os.fstat(file.fileno())
                stamp = status.st_ino, status.st_size, status.st_mtime_ns
                if self._stamp not in (None, stamp):
                    raise ValueError("it changed while it was read")
                self._stamp = stamp
                text = JsonText(file)
                for key in text.items():
                    if key in found:
                        raise ValueError(f"{key} stands there twice")
                    found[key] = None
                    if key == "snapshots":
                        for position, _ in enumerate(text.elements()):
                            snapshot = text.value()
                            if not isinstance(snapshot, dict):
                                raise ValueError(f"snapshot {position} is no object")
                            yield snapshot
                    elif key == "repaired":
                        self._note(text)
                    else:
                        found[key] = text.value()
                text.end()
        except OSError as error:
            raise HistoryError(f"{self.path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise self._refusal(error) from error

    def _note(self, text: JsonText) -> None:
        seen: dict[tuple[str, ...], tuple[str, ...]] = {}
        for position in text.items():
            names = text.value()
            listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
            if not position.isdecimal() or not listed or not set(names) <= {*REPAIRABLE}:
                raise ValueError(f"repaired: expected position → names of fields, got {position!r}")
            kept = tuple(names)
            self.repaired[int(position)] = seen.setdefault(kept, kept)

    def _refusal(self, error: ValueError) -> HistoryError:
        return HistoryError(
            f"{self.path}: expected the JSON of save_history(), an object with a list of snapshots, "
            f"got: {error}"
        )


def numbers(value: Any) -> list[float] | None:
    """The value, if it is a list of numbers and not empty."""
    if isinstance(value, list) and value and all(isinstance(item, float | int) for item in value):
        return value
    return None


def save(path: str | os.PathLike[str], batches: Iterable[Batch], limits: Limits) -> None:
    """The same into a file of that name, which is replaced in one step. Raises HistoryError."""
    try:
        with replacing(Path(path)) as file:
            write(file, batches, limits)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror}") from error


def write(file: BinaryIO, batches: Iterable[Batch], limits: Limits) -> int:
    """All rows of the batches; gives their number. Raises HistoryError for a time beyond the calendar."""
    head = msgspec.structs.asdict(limits)
    if limits.geometry == "sphere":
        del head["geometry"]
    encode = msgspec.json.Encoder().encode
    file.write(encode(head)[:-1] + b',"snapshots":[')
    rows = 0
    places: list[Array] = [np.empty(0, np.int64)]
    flags: list[Array] = [np.empty(0, "<u2")]
    for batch in batches:
        file.write((b"," if rows and len(batch) else b"") + b",".join(map(encode, _snapshots(batch))))
        flagged = np.flatnonzero(batch.repaired)
        places.append(flagged + rows)
        flags.append(batch.repaired[flagged])
        rows += len(batch)
    file.write(b"]" + _repaired(np.concatenate(places), np.concatenate(flags)) + b"}")
    return rows


def _repaired(places: Array, flags: Array) -> bytes:
    if not len(places):
        return b""
    kinds, numbers = np.unique(flags, return_inverse=True)
    names = [
        msgspec.json.encode([name for bit, name in enumerate(REPAIRABLE) if kind >> bit & 1])
        for kind in kinds.tolist()
    ]
    entries = (b'"%d":%s' % (place, names[number]) for place, number in zip(places, numbers, strict=True))
    return b',"repaired":{' + b",".join(entries) + b"}"


def _snapshots(batch: Batch) -> Iterator[dict[str, Any]]:
    columns: dict[str, list[Any]] = {name: batch.columns[name].tolist() for name in FIGURES}
    for name in OPTIONAL:
        columns[name] = [None if math.isnan(value) else value for value in columns[name]]
    names = [encodable(name) for name in batch.names]
    columns["timestamp"] = [_local(moment) for moment in batch.timestamp.tolist()]
    columns["basin_coords"] = batch.basin_coords.tolist()
    columns["regime"] = [REGIMES[number] for number in batch.regime]
    columns["code_hash"] = [names[number] for number in batch.code]
    columns["module_name"] = [names[number] for number in batch.module]
    for values in zip(*(columns[key] for key in KEYS), strict=True):
        yield dict(zip(KEYS, values, strict=True))


def _local(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).astimezone().replace(tzinfo=None).isoformat()
    except (OverflowError, ValueError, OSError) as error:
        raise HistoryError(
            f"timestamp {moment:.6g} is no moment of the calendar, and this format knows no others; "
            "leave it out by a range of time, or choose another format"
        ) from error
