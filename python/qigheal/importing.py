"""A file of the earlier modules taken into a store, by the rules by which a monitor would have recorded it.

Only the snapshots are: no baseline is learned from them. How rows get into a store that others use is
`qigcore.history.intake`'s to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError, InvalidBasin, InvalidLimit
from qigcore.history import History
from qigcore.history.earlier import BASELINE_FILE, Earlier, numbers
from qigcore.history.intake import Taken, take_in
from qigcore.history.writer import Part
from qigcore.recorder import Recorder
from qigcore.rows import BIT
from qigheal.settings import MONITOR_FILE, Geometry, MonitorSettings

_PART = 4096

Kind = tuple[int, str]
"""Dimension and geometry."""


class Seen(NamedTuple):
    """Of one part: snapshots with a repaired value, names that were no text, and the range of times."""

    repaired: int
    unnamed: int
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
    and flagged as `load_history` does it; one that the file says was repaired is kept as it stands, and
    flagged, so that what a store exported is there already. The regime follows from Φ by the store's
    bounds; drift is measured from the store's baseline, else from the file's. A store that does not exist
    yet is made for basins as most of the file's are, and is left the file's limits.

    Raises HistoryError for a file that is damaged, has a snapshot without a time, or more basins that the
    store cannot hold than such as it can. Then nothing is stored.
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
        taken = take_in(
            store,
            _parts(file, recorder, seen),
            dim=settings.dim,
            geometry=settings.geometry,
            settle=settings.save if kind is None else _nothing,
        )
    if unnamed := sum(part.unnamed for part in seen):
        notes.append(f"{file.path}: {unnamed} module names or code hashes were no text, and were left out")
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


def _nothing(_: Path) -> None:
    """What a store that has its settings is to be left."""


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
        kind["dim"] = next((length for length, _ in file.lengths.most_common(1)), 0)
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
    """Refuse a file of which most basins, or every signed one, would have to be repaired away."""
    dim, geometry = kind
    elsewhere = f"{store} holds basins of {dim} components on the {geometry}; import into a store of its own"
    said = file.limits.geometry
    if said not in (geometry, "sphere"):
        raise HistoryError(f"{file.path}: its basins lie on the {said}, and {elsewhere}")
    if said != geometry:
        for fields, _ in file.snapshots():
            if min(numbers(fields.get("basin_coords")) or [0]) < 0:
                raise HistoryError(f"{file.path}: its basins are signed vectors, and {elsewhere}")
    fit = file.lengths[dim]
    if 2 * fit < file.count:
        some = f"only {fit} of its {file.count} basins have" if fit else "none of its basins has"
        raise HistoryError(f"{file.path}: {some} {dim} components, and {elsewhere}")


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
        else:
            return
    if any(
        "basin_coords" in repaired for repaired in file.repaired.values()
    ):  # the recorder is not told which
        for fields, repaired in file.snapshots():
            if "basin_coords" not in repaired and (basin := numbers(fields.get("basin_coords"))):
                with suppress(InvalidBasin):
                    recorder.set_reference(basin)
                    return


def _parts(file: Earlier, recorder: Recorder, seen: list[Seen]) -> Iterator[Part]:
    """The file as rows, recorded in its order. What each part holds goes to `seen`.

    Names and flags go past the recorder: of names it keeps a few thousand, and flags it sets by itself.
    """
    begun = unnamed = 0
    flags: list[int] = []
    pointers: list[list[int]] = []
    names = {"": 0}
    for fields, repaired in file.snapshots():
        if fields.get("timestamp") is None:
            raise HistoryError(f"{file.path}: snapshot {recorder.total} has no timestamp")
        recorder.capture({**fields, "module_name": None})
        flags.append(sum(BIT[name] for name in set(repaired)))
        given = [fields.get(key) for key in ("code_hash", "module_name")]
        unnamed += sum(name is not None and not isinstance(name, str) for name in given)
        pointers.append(
            [names.setdefault(name, len(names)) if isinstance(name, str) else 0 for name in given]
        )
        if len(flags) == _PART or recorder.total == file.count:
            _check_times(file, recorder, begun)
            _, heads, basins = recorder.rows(begun, recorder.total)
            heads["repaired"] |= np.array(flags, heads["repaired"].dtype)
            heads["code"], heads["module"] = np.array(pointers).T
            times = heads["timestamp"]
            marked = int((heads["repaired"] != 0).sum())
            seen.append(Seen(marked, unnamed, float(times.min()), float(times.max())))
            yield Part(heads, basins, tuple(names))
            begun, unnamed, flags, pointers, names = recorder.total, 0, [], [], {"": 0}
    bad = recorder.invalid.get("basin_coords", 0)
    if 2 * bad > file.count:
        raise HistoryError(
            f"{file.path}: {bad} of its {file.count} basins are no states of the {recorder.geometry} with "
            f"{recorder.dim} components, and a file is taken where at least half of them are"
        )


def _check_times(file: Earlier, recorder: Recorder, begun: int) -> None:
    untimed = recorder.invalid.get("timestamp", 0)
    if untimed:
        raise HistoryError(
            f"{file.path}: expected ISO 8601 as the timestamp of every snapshot, and {untimed} of those "
            f"from {begun} to {recorder.total - 1} have something else"
        )
