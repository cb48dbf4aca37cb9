"""The JSON file of the earlier modules: one object with the limits, the reference and all snapshots.

Timestamps in it are ISO 8601 in naive local time, and basins signed vectors of unit length. A monitor
takes the basins in its own geometry: a sphere takes them as they are, the simplex repairs and flags
every basin with a negative component. What a monitor writes are the basins as they were reported.

The earlier modules build their snapshots from exactly the keys here, so what they do not know (which
values were repaired) stands beside the snapshots, where they do not look.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from qigcore.errors import HistoryError
from qigcore.recorder import GeometricSnapshot
from qigcore.rows import FloatArray

KEYS = (
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


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """The file as it is; the values of a snapshot are whatever their writer put there."""

    phi_min: float | None = None
    basin_drift_max: float | None = None
    baseline_basin: list[Any] | None = None
    snapshots: list[dict[str, Any]]
    repaired: dict[int, list[str]] = {}  # position → fields that held the last good value

    def states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(code hash, fields for `capture`) of each snapshot; a repaired value is handed on as none."""
        for position, snapshot in enumerate(self.snapshots):
            fields = {**snapshot, **dict.fromkeys(self.repaired.get(position, ()), float("nan"))}
            code = snapshot.get("code_hash")
            yield code if isinstance(code, str) else "", fields


def read(path: str | os.PathLike[str]) -> Earlier:
    """Raises HistoryError for what is no such file."""
    import json  # not msgspec: the earlier modules wrote NaN, which is no JSON

    try:
        return msgspec.convert(json.loads(Path(path).read_bytes()), Earlier, strict=False)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise HistoryError(
            f"{path}: expected the JSON of save_history(), an object with a list of snapshots, got: {error}"
        ) from error


def write(
    path: str | os.PathLike[str],
    snapshots: Iterable[GeometricSnapshot],
    *,
    phi_min: float,
    basin_drift_max: float,
    reference: FloatArray | None,
) -> None:
    """Replaces the file in one step. reference: a basin, shape [dim]. Raises HistoryError."""
    kept: list[dict[str, Any]] = []
    repaired: dict[int, list[str]] = {}
    for snapshot in snapshots:
        fields = snapshot.to_dict()
        local = datetime.fromtimestamp(snapshot.timestamp, UTC).astimezone().replace(tzinfo=None)
        if snapshot.repaired:
            repaired[len(kept)] = fields["repaired"]
        kept.append({"timestamp": local.isoformat(), **{key: fields[key] for key in KEYS}})
    data: dict[str, Any] = {
        "phi_min": phi_min,
        "basin_drift_max": basin_drift_max,
        "baseline_basin": None if reference is None else reference.tolist(),
        "snapshots": kept,
    }
    if repaired:
        data["repaired"] = repaired
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.write_bytes(msgspec.json.encode(data))
        scratch.replace(target)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
