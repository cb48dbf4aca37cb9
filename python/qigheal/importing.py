"""A file of the earlier modules taken into a store, by the rules by which a monitor would have recorded it.

Only the snapshots are: no baseline is learned from them. How rows get into a store that others use is
`qigcore.history.intake`'s to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError, InvalidBasin, InvalidLimit
from qigcore.history import History
from qigcore.history.earlier import BASELINE_FILE, Earlier
from qigcore.history.intake import Taken, take_in
from qigcore.history.writer import Part
from qigcore.recorder import Recorder
from qigheal.settings import MONITOR_FILE, Geometry, MonitorSettings

_PART = 4096

Kind = tuple[int, str]
"""Dimension and geometry."""


class Seen(NamedTuple):
    """Of one part: snapshots with a repaired value, and the range of times."""

    repaired: int
    first: float
    last: float


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file.

    snapshots: in the file; stored: now in the store; known: there already. repaired: snapshots of the
    file in which a value was unusable, or is said to have been. first, last: range of their times, Unix
    seconds. notes: what a person should know.
    """

    snapshots: int
    stored: int
    known: int
    repaired: int
    first: float | None
    last: float | None
    geometry: str
    dim: int
    notes: tuple[str, ...] = ()


def import_file(path: str | os.PathLike[str], store: Path) -> Imported:
    """Store the snapshots of a file with their times and code hashes, but those that are there already.

    Times in such a file are local: import it where it was written, or set TZ. An unusable value is repaired
    and flagged as `load_history` does it; the regime follows from Φ by the store's bounds; drift is measured
    from the store's baseline, else from the file's. A store that does not exist yet is made for basins as
    the file has them, and is left the file's limits.

    Raises HistoryError for a file that is damaged, has a snapshot without a time, or basins of another kind
    than the store's. Then nothing is stored.
    """
    file = Earlier(path)
    kind = _kind_of(store)
    notes: list[str] = []
    if kind is None:
        settings = _settings_for(file, notes)
    else:
        _check(file, kind, store)
        settings = msgspec.structs.replace(
            MonitorSettings.load(store), dim=kind[0], geometry=cast(Geometry, kind[1])
        )
    recorder = Recorder(
        settings.dim, _PART, settings.geometry, settings.linear_below, settings.breakdown_from
    )
    _refer(recorder, file, store, notes)
    seen: list[Seen] = []
    taken = Taken(0, 0)
    if file.count:
        parts = _parts(file, recorder, seen)
        taken = take_in(store, parts, dim=settings.dim, geometry=settings.geometry)
        if kind is None:
            settings.save(store)
    return Imported(
        snapshots=file.count,
        stored=taken.stored,
        known=taken.known,
        repaired=sum(part.repaired for part in seen),
        first=min((part.first for part in seen), default=None),
        last=max((part.last for part in seen), default=None),
        geometry=settings.geometry,
        dim=settings.dim,
        notes=tuple(notes),
    )


def _kind_of(store: Path) -> Kind | None:
    """What basins a store holds, or the service that will write it reports; None where nobody knows."""
    if store.exists():
        with History.read_only(store) as history:
            if history.segments():
                return history.dim, history.geometry
    if (store / MONITOR_FILE).exists():
        settings = MonitorSettings.load(store)
        return settings.dim, settings.geometry
    return None


def _settings_for(file: Earlier, notes: list[str]) -> MonitorSettings:
    """What a new store is told: the file's limits, and basins as the file has them."""
    limits = file.limits
    if limits.geometry not in ("simplex", "sphere"):
        raise HistoryError(
            f"{file.path}: expected simplex or sphere as the geometry, got {limits.geometry!r}"
        )
    kind: dict[str, Any] = {"geometry": limits.geometry}
    if file.count:
        kind["dim"] = next((len(basin) for basin in _basins(file)), 0)
    usual = MonitorSettings()
    try:
        return MonitorSettings(
            phi_min=usual.phi_min if limits.phi_min is None else limits.phi_min,
            basin_drift_max=(
                usual.basin_drift_max if limits.basin_drift_max is None else limits.basin_drift_max
            ),
            **kind,
        )
    except InvalidLimit as error:
        notes.append(f"{file.path}: its limits were not taken over: {error}")
    try:
        return MonitorSettings(**kind)
    except InvalidLimit as error:
        raise HistoryError(f"{file.path}: no basin that can be stored: {error}") from error


def _check(file: Earlier, kind: Kind, store: Path) -> None:
    """Refuse a file of which every basin, or every signed one, would have to be repaired away."""
    dim, geometry = kind
    elsewhere = f"{store} holds basins of {dim} components on the {geometry}; import into a store of its own"
    said = file.limits.geometry
    if said not in (geometry, "sphere"):
        raise HistoryError(f"{file.path}: its basins lie on the {said}, and {elsewhere}")
    fits = not file.count
    for basin in _basins(file):
        fits = fits or len(basin) == dim
        if said != geometry and min(basin) < 0:
            raise HistoryError(f"{file.path}: its basins are signed vectors, and {elsewhere}")
        if said == geometry and fits:
            break
    if not fits:
        raise HistoryError(f"{file.path}: none of its basins has {dim} components, and {elsewhere}")


def _basins(file: Earlier) -> Iterator[list[float]]:
    """The basins of the file that are lists of numbers."""
    for _, fields in file.states():
        basin = fields.get("basin_coords")
        if isinstance(basin, list) and basin and all(isinstance(value, float | int) for value in basin):
            yield basin


def _refer(recorder: Recorder, file: Earlier, store: Path, notes: list[str]) -> None:
    """Have drift measured from the store's baseline, else from the file's, else from the first good basin."""
    if (store / BASELINE_FILE).exists():
        baseline = Baseline.load(store / BASELINE_FILE)
        if (baseline.dim, baseline.geometry) == (recorder.dim, recorder.geometry):
            recorder.set_reference(baseline.point)
            return
    if file.limits.baseline_basin is not None:
        try:
            recorder.set_reference(file.limits.baseline_basin)
        except InvalidBasin as error:
            notes.append(f"{file.path}: its baseline_basin was not taken over: {error}")


def _parts(file: Earlier, recorder: Recorder, seen: list[Seen]) -> Iterator[Part]:
    """The file as rows, recorded in its order. What each part holds goes to `seen`."""
    begun = 0
    for code, fields in file.states():
        if fields.get("timestamp") is None:
            raise HistoryError(f"{file.path}: snapshot {recorder.total} has no timestamp")
        recorder.code_hash = code
        recorder.capture(fields)
        if recorder.total - begun == _PART or recorder.total == file.count:
            untimed = recorder.invalid.get("timestamp", 0)
            if untimed:
                raise HistoryError(
                    f"{file.path}: expected ISO 8601 as the timestamp of every snapshot, and {untimed} of those "
                    f"from {begun} to {recorder.total - 1} have something else"
                )
            begun, heads, basins = recorder.rows(begun, recorder.total)
            begun = recorder.total
            times = heads["timestamp"]
            seen.append(Seen(int((heads["repaired"] != 0).sum()), float(times.min()), float(times.max())))
            yield Part(heads, basins, recorder.names)
