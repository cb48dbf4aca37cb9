"""The folder in which an earlier chain kept its state: read as a store is, and written.

    monitor_history.json   snapshots and limits; `GeometricHealthMonitor.save_history` says what stands in it
    healer_history.json    the earlier healer's patches, here from the ledger
    monitor.json           settings, and
    baseline.json          what was learned as healthy: both as in a store, where the chain had them

A folder of the earlier modules has the first two only. No chain and no process is known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from qigcore.baseline import Baseline
from qigcore.constants import FITNESS_THRESHOLD
from qigcore.errors import HistoryError, InvalidLimit
from qigcore.history import Damage
from qigcore.history.columns import rounded
from qigcore.history.earlier import Earlier
from qigcore.history.files import replacing
from qigcore.recorder import Recorder
from qigcore.regular import read_regular
from qigcore.rows import BIT, HEAD, METRICS, Array, Batch
from qigcore.trends import Trend
from qigheal.errors import QighealError
from qigheal.monitor import GeometricHealthMonitor
from qigheal.records import HealthReport
from qigheal.settings import MONITOR_FILE, MonitorSettings
from qigheal.standing import BASELINE, LOOKED_AT, Read

MONITOR: Final = "monitor_history.json"
HEALER: Final = "healer_history.json"
MOST: Final = 200_000
"""Snapshots of a folder that are looked at, the newest: they are held in memory, 600 bytes each."""

MOST_BYTES: Final = 64_000_000
"""Of the file of patches that are read: some ten thousand patches."""

_FIGURES: Final = ("phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb")
_ROUNDING_S: Final = 1e-5
_Mark = tuple[float, bytes]
"""Microseconds, and figures."""

STANDING: Final = frozenset({"merged", "watching", "confirmed", "unconfirmed", "contested"})
"""States of a change that was applied and not taken back."""


class StateError(QighealError):
    """A state folder that cannot be read or written; one line: what, where, remedy."""


class HealerHistory(msgspec.Struct, kw_only=True):
    """The earlier file of patches. Each patch is a mapping with the keys of `patch_entry`, and is kept as it came."""

    fitness_threshold: float = FITNESS_THRESHOLD
    auto_apply: bool = False
    patches_generated: list[dict[str, Any]] = []
    patches_applied: list[dict[str, Any]] = []

    @classmethod
    def load(cls, folder: Path) -> HealerHistory:
        """What stands in the folder; the defaults where nothing does. Raises StateError."""
        path = folder / HEALER
        try:
            content = read_regular(path, MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
            return msgspec.json.decode(content, type=cls)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(
                f"{path}: expected the patches of an earlier healer as JSON, got: {reason}; "
                "move the file away to go on without them"
            ) from error

    def save(self, folder: Path) -> None:
        """Write it; a file that is there is replaced in one step. Raises StateError."""
        path = folder / HEALER
        try:
            with replacing(path) as file:
                file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        except OSError as error:
            raise StateError(f"{path}: cannot be written: {error.strerror}") from error

    def with_ledger(self, store: Path | None) -> HealerHistory:
        """The same, and the patches in the store's ledger that are not in it. Raises LedgerError."""
        path = None if store is None else store / "ledger.db"
        if path is None or not path.exists():
            return self
        from qigheal.healing.ledger import Ledger  # SQLite is not for a process that only serves

        ledger = Ledger(path, read_only=True)
        changes = ledger.changes()
        standing = {name for name, change in changes.items() if change.state in STANDING}
        judged = [
            patch_entry(
                patch.files,
                patch.diff,
                patch.rationale,
                at,
                None if verdict.fitness is None else verdict.fitness.point,
                patch.fingerprint in standing,
            )
            for patch, verdict, at in ledger.verdicts()
        ]
        applied = [
            patch_entry(
                change.patch.files,
                change.patch.diff,
                change.patch.rationale,
                change.merged_at or change.opened_at,
                None
                if change.verdict is None or change.verdict.fitness is None
                else change.verdict.fitness.point,
                True,
            )
            for name, change in changes.items()
            if name in standing
        ]
        return HealerHistory(
            fitness_threshold=self.fitness_threshold,
            auto_apply=self.auto_apply,
            patches_generated=_united(self.patches_generated, judged),
            patches_applied=_united(self.patches_applied, applied),
        )


def patch_entry(
    files: Iterable[str], diff: str, reason: str, at: float, fitness: float | None, applied: bool
) -> dict[str, Any]:
    """A patch in the earlier form. at: Unix seconds, written as naive local time; fitness: 0 to 1."""
    return {
        "module_path": ", ".join(files),
        "patch_code": diff,
        "reason": reason,
        "timestamp": datetime.fromtimestamp(at, UTC).astimezone().replace(tzinfo=None).isoformat(),
        "fitness_score": fitness,
        "applied": applied,
    }


def known_in(file: Earlier, monitor: GeometricHealthMonitor) -> set[int]:
    """Places in the file, from 0, of the snapshots that the monitor's ring or its history holds already.

    Those are of the same moment and figures (Φ, κ, errors, latency and memory, as closely as a compact segment
    keeps them); what was repaired is no figure.
    """
    settings, places, wanted = monitor.settings, [], []
    recorder = Recorder(settings.dim, 20, settings.geometry)
    for place, (fields, repaired) in enumerate(file.snapshots()):
        if fields.get("timestamp") is None:
            continue
        recorder.capture({**fields, "basin_coords": None, "module_name": None})
        head = recorder.heads(1)
        head["repaired"] |= np.array([sum(BIT[name] for name in set(repaired))], head["repaired"].dtype)
        places.append(place)
        wanted.append(head)
    if not wanted:
        return set()
    asked = np.concatenate(wanted)
    there = Counter(_marks(monitor.snapshots.since(0, monitor.snapshots.total)[1]))
    if monitor.history is not None:
        monitor.flush()
        times = asked["timestamp"]
        columns = ("timestamp", *_FIGURES, "repaired")
        stored: Counter[_Mark] = Counter()
        for batch in monitor.history.scan(times.min() - _ROUNDING_S, times.max() + _ROUNDING_S, columns):
            heads = np.zeros(len(batch), HEAD)
            for name in columns:
                heads[name] = batch.columns[name]
            stored.update(_marks(heads))
        there |= stored
    found, marks = set(), dict(zip(places, _marks(asked), strict=True))
    for apart in (
        0,
        1,
        -1,
    ):  # a file, a store and a ring do not round the same moment to the same microsecond
        for place, (moment, figures) in marks.items():
            if place not in found and there[moment + apart, figures] > 0:
                there[moment + apart, figures] -= 1
                found.add(place)
    return found


def _marks(heads: Array) -> list[_Mark]:
    """What each row, shape [n] of `rows.HEAD`, is known by."""
    kept = rounded(heads)
    for name in _FIGURES:
        kept[name][(kept["repaired"] & BIT[name]) != 0] = 0.0
    figures = np.stack([kept[name] for name in _FIGURES], axis=1) + 0.0  # makes -0.0 to 0.0
    moments = np.rint(1e6 * kept["timestamp"]).tolist()
    return [(moment, row.tobytes()) for moment, row in zip(moments, figures, strict=True)]


def _united(known: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, without those of the same code and time twice; what was found anew replaces what was known."""
    keyed = {_key(entry): entry for entry in known}
    keyed.update({_key(entry): entry for entry in found})
    return list(keyed.values())


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return str(entry.get("patch_code")), str(entry.get("timestamp"))


class StateDir:
    """A chain's state folder, asked as `qigheal.standing.Standing` is. Nothing is written.

    What healthy is stands in the folder's baseline.json; in a folder without it, it is learned from the first
    snapshots of the file, as the chain itself would have done. The file is read once.

    Raises HistoryError where the folder has no history that can be read, BaselineError for an unusable baseline.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MONITOR
        if not path.exists():
            raise HistoryError(
                f"{path}: no state of a chain here; name the folder that save_state() wrote with --state-dir"
            )
        self._file = Earlier(path)
        self.settings = self._settings()

    def _settings(self) -> MonitorSettings:
        held = max(20, min(self._file.count, MOST))
        if (self.folder / MONITOR_FILE).exists():
            return msgspec.structs.replace(MonitorSettings.load(self.folder), history_size=held)
        limits, usual = self._file.limits, MonitorSettings()
        kind: dict[str, Any] = {"geometry": limits.geometry, "history_size": held}
        if self._file.lengths:
            kind["dim"] = self._file.lengths.most_common(1)[0][0]
        try:
            return MonitorSettings(
                phi_min=usual.phi_min if limits.phi_min is None else limits.phi_min,
                basin_drift_max=(
                    usual.basin_drift_max if limits.basin_drift_max is None else limits.basin_drift_max
                ),
                **kind,
            )
        except InvalidLimit as error:
            raise HistoryError(f"{self._file.path}: its limits make no sense: {error}") from error

    @cached_property
    def _monitor(self) -> GeometricHealthMonitor:
        settings = msgspec.structs.asdict(self.settings)
        path = self.folder / BASELINE
        known = Baseline.load(path) if path.exists() else None
        monitor = GeometricHealthMonitor(**{**settings, "on_invalid": "repair"}, baseline=known, code_hash="")
        monitor.load_history(self._file.path)
        return monitor

    @property
    def baseline(self) -> Baseline | None:
        """What healthy is; None until that could be learned."""
        return self._monitor.baseline

    def last(self, count: int = LOOKED_AT) -> Read:
        """The newest snapshots, at most `count`; a folder has no segments and no damage to speak of."""
        monitor = self._monitor
        monitor.check_health()  # drift is measured from what was learned by then
        snapshots = monitor.snapshots[max(0, len(monitor.snapshots) - count) :]
        return Read(Batch.of_snapshots(snapshots, self.settings.dim), self._file.count, (), Damage())

    def report(self, read: Read | None = None) -> HealthReport:
        """The chain's health after its last snapshots. read: taken for the likeness to `Standing`, and not needed."""
        return self._monitor.check_health()

    def trends(self, window: int = 50, metrics: Iterable[str] = METRICS) -> dict[str, Trend]:
        """Where each metric is heading over the last `window` snapshots."""
        return {metric: self._monitor.get_trend(metric, window) for metric in metrics}

    def healer(self) -> HealerHistory:
        """The patches of the folder. Raises StateError."""
        return HealerHistory.load(self.folder)
