"""Every figure that a user may set, frozen, with what raising it costs.

Bad values are refused when the settings are made, never when they are used.
"""

from __future__ import annotations

import math
import numbers
import os
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from qigcore.constants import (
    BASIN_DIM,
    BASIN_DRIFT_MAX,
    BREAKDOWN_FROM,
    FITNESS_THRESHOLD,
    LINEAR_BELOW,
    PHI_MIN,
)
from qigcore.durations import seconds
from qigcore.errors import HistoryError, InvalidLimit
from qigcore.regular import read_regular, write_whole

S = TypeVar("S", bound=msgspec.Struct)
Geometry = Literal["simplex", "sphere"]
SandboxChoice = Literal["auto", "namespaces", "partial", "none"]

MONITOR_FILE = "monitor.json"
HEALER_FILE = "healer.json"
MOST_BYTES = 1_000_000


def default_store() -> Path:
    """`$QIGHEAL_STORE`, else `.qigheal` in the working folder."""
    return Path(os.environ.get("QIGHEAL_STORE") or ".qigheal")


def operator() -> str:
    """Who runs this, for the ledger: a name, or a number where the user has none, as in containers."""
    import getpass  # not for a process that serves

    try:
        name = getpass.getuser()
        return name if name.isprintable() else ascii(name)[1:-1]  # the environment may say anything
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _is(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _inside(settings: msgspec.Struct, name: str, low: float, high: float, never: float | None = None) -> None:
    """Refuse a field that is no number from `low` to `high`, or one that as a limit could `never` fire.

    Numbers of another make, such as numpy's, are kept as plain ones, for the settings are stored as JSON.
    """
    value = getattr(settings, name)
    if not _is(numbers.Real, value) or not low <= value <= high:
        raise InvalidLimit(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
    if value == never:
        raise InvalidLimit(f"{name}: expected a limit that can fire, got {value!r}, which never could")
    if type(value) not in (int, float):
        msgspec.structs.force_setattr(settings, name, float(value))


def _whole(settings: msgspec.Struct, name: str, low: int, high: int) -> None:
    """The same for a whole number."""
    value = getattr(settings, name)
    if not _is(numbers.Integral, value) or not low <= value <= high:
        raise InvalidLimit(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    if type(value) is not int:
        msgspec.structs.force_setattr(settings, name, int(value))


def _one_of(settings: msgspec.Struct, name: str, *choices: str) -> None:
    value = getattr(settings, name)
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise InvalidLimit(f"{name}: expected {listed}, got {value!r}")


def _leave(settings: msgspec.Struct, path: Path, *, give: bool = False) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
    if path.is_file() and read_regular(path, len(encoded) + 1) == encoded:
        return
    write_whole(path, encoded, give=give)


def _left(kind: type[S], path: Path, by: str, again: str) -> S:
    """What `by` left in `path`, the defaults where there is no such file; `again`: when it writes the next."""
    try:
        return msgspec.json.decode(read_regular(path, MOST_BYTES), type=kind)
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        raise HistoryError(
            f"{path}: expected the settings that a {by} wrote, got: {error}; remove the file, and {again}"
        ) from error


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that apply until a baseline is learned, and how it is learned. A limit that can never fire is refused.

    phi_min: higher warns earlier and more often falsely.
    basin_drift_max: radians; higher sees only larger moves. Must lie below π, the largest distance.
    history_size: snapshots held in memory, 600 bytes each.
    geometry: "simplex" for non-negative weights, "sphere" for signed states.
    dim: components of a basin.
    learn_after: good snapshots the baseline is learned from, 30 at least; more gives tighter limits, later.
    linear_below: Φ below which the regime is called "linear"; no rule depends on it.
    breakdown_from: Φ from which it is called "breakdown"; more than 3 snapshots of 10 there are critical, unless
        the service was often there when healthy. Higher warns later.
    kappa_tolerance: how far κ may lie from 64.21; higher warns later. It and the next three are the absolute limits.
    error_rate_max: a fraction, 0 to 1; higher is critical later, learned or not.
    latency_max_ms: milliseconds; higher warns later.
    memory_growth_max_mb: megabytes a snapshot; higher warns later.
    on_invalid: "repair" holds the last good value and flags it, "raise" raises InvalidSnapshot in the caller.
    flush_every_s: seconds, how much a process that is killed may lose; more wakes the writing thread less often.
    false_alarm_every: how often a healthy service may be told to have changed, as "30d", "12h", or seconds;
        longer tells of small changes later. None: no change detection. See docs/detection.md.
    keep_days: how old, in days, a history may grow before the oldest whole segments that no process writes any
        more are removed; None: without end. More shows more of the past, and takes the disk for it.
    keep_mb: the same for its size in megabytes; one holds about ten thousand snapshots.
    """

    phi_min: float = PHI_MIN
    basin_drift_max: float = BASIN_DRIFT_MAX
    history_size: int = 1000
    geometry: Geometry = "simplex"
    dim: int = BASIN_DIM
    learn_after: int = 300
    linear_below: float = LINEAR_BELOW
    breakdown_from: float = BREAKDOWN_FROM
    kappa_tolerance: float = 10.0
    error_rate_max: float = 0.05
    latency_max_ms: float = 2000.0
    memory_growth_max_mb: float = 10.0
    on_invalid: Literal["repair", "raise"] = "repair"
    flush_every_s: float = 5.0
    keep_days: float | None = None
    keep_mb: float | None = 1024.0
    false_alarm_every: str | float | None = "30d"

    def __post_init__(self) -> None:
        _inside(self, "phi_min", 0.0, 1.0, never=0.0)
        _one_of(self, "geometry", "simplex", "sphere")
        if not _is(numbers.Real, self.basin_drift_max) or not 0.0 < self.basin_drift_max < math.pi:
            raise InvalidLimit(
                f"basin_drift_max: expected radians above 0 and below π, the largest distance of the "
                f"{self.geometry} (a limit there could never fire), got {self.basin_drift_max!r}"
            )
        _inside(self, "basin_drift_max", 0.0, math.pi)
        _whole(self, "history_size", 20, 10_000_000)
        _whole(self, "dim", 2, 65_536)
        _whole(self, "learn_after", 30, 10_000_000)
        _inside(self, "breakdown_from", 0.0, 1.0)
        _inside(self, "linear_below", 0.0, self.breakdown_from)
        _inside(self, "kappa_tolerance", 0.0, 1e12)
        _inside(self, "error_rate_max", 0.0, 1.0, never=1.0)
        _inside(self, "latency_max_ms", 0.0, 1e12)
        _inside(self, "memory_growth_max_mb", 0.0, 1e12)
        _inside(self, "flush_every_s", 0.01, 5.0)
        for name in ("keep_days", "keep_mb"):
            if getattr(self, name) is not None:
                _inside(self, name, 0.0, 1e9)
        _one_of(self, "on_invalid", "repair", "raise")
        if self.false_alarm_every is not None:
            seconds(self.false_alarm_every, "false_alarm_every")

    def save(self, store: Path) -> None:
        """Leave the settings in the store, so that whoever reads the history judges by the same limits."""
        _leave(self, store / MONITOR_FILE)

    @classmethod
    def load(cls, store: Path) -> MonitorSettings:
        """The settings of the service that writes the store; the defaults when it left none.

        Raises HistoryError when the file is there and unusable.
        """
        return _left(cls, store / MONITOR_FILE, "monitor", "the service writes it again when it starts")


ROUNDS_NEEDED = 8
"""Starts of the probe processes before a patch can be accepted: identical code differs in speed and memory
by the luck of a start, and fewer show too little of that (n of them can speak at 2^-n and no stricter)."""


BRAKES = (
    "max_open_changes",
    "new_change_every_s",
    "breaker_rollbacks",
    "breaker_window_s",
    "watch_snapshots",
    "watch_deadline_s",
)
"""The settings that say how much the healer may do and when it is stopped, and none of what a verdict takes or of how
a patch is isolated. A host's manifest may set them, and a pass goes by those of the pass before."""


class HealSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the healer measures, judges, merges and watches.

    fitness_threshold: the lower 95 % bound of the score must exceed it; 0.55 is what doing nothing scores.
    min_pairs: interleaved pairs before a trial may be judged; more makes every trial longer.
    max_pairs: pairs after which it ends undecided; more decides closer cases, slower.
    round_pairs: pairs from one start of the probe processes to the next; more starts them less often, and
        tells less of the luck of a start. `max_pairs` must make at least 8 of them. Where a patch takes more
        answers than that to show its effect, each start lasts as much longer.
    warmup: answers after each start that are not counted; more leaves out caches that fill, slower.
    latency_margin: relative slowing down that is tolerated; higher lets more harm pass.
    error_margin: the same for the error rate, absolute.
    memory_margin: the same for memory, relative.
    watch_snapshots: live snapshots needed before a merge is called confirmed or worse.
    watch_deadline_s: how long to wait for them before a change is `unconfirmed`.
    search_evaluations: probe configurations a lever search may try for each lever; more aims closer, slower.
    search_batches: batches measured per configuration.
    diagnose_snapshots: newest snapshots that a diagnosis is read from; more is steadier, and slower to see a change.
    max_open_changes: changes that may wait for a review at once.
    new_change_every_s: seconds from one change that the loop opens to the next.
    breaker_rollbacks: so many changes taken back within `breaker_window_s` stop the healer, and take it back a
        phase; more lets it go on for longer.
    breaker_window_s: seconds over which they are counted; shorter lets it go on sooner.
    sandbox: "auto" takes "namespaces", else "partial", else refuses; "none" isolates nothing.
    seed: of requests and orders that are drawn by lot.
    """

    fitness_threshold: float = FITNESS_THRESHOLD
    min_pairs: int = 20
    max_pairs: int = 640
    round_pairs: int = 10
    warmup: int = 3
    latency_margin: float = 0.03
    error_margin: float = 0.001
    memory_margin: float = 0.01
    watch_snapshots: int = 30
    watch_deadline_s: float = 3600.0
    search_evaluations: int = 16
    search_batches: int = 4
    diagnose_snapshots: int = 50
    max_open_changes: int = 3
    new_change_every_s: float = 3600.0
    breaker_rollbacks: int = 2
    breaker_window_s: float = 86400.0
    sandbox: SandboxChoice = "auto"
    seed: int = 20240229

    def __post_init__(self) -> None:
        _inside(self, "fitness_threshold", 0.55, 1.0, never=1.0)
        _whole(self, "min_pairs", 20, 10_000)
        _whole(self, "round_pairs", 2, 10_000)
        _whole(self, "max_pairs", max(self.min_pairs, ROUNDS_NEEDED * self.round_pairs), 100_000)
        _whole(self, "warmup", 0, 1000)
        _inside(self, "latency_margin", 0.0, 1.0)
        _inside(self, "error_margin", 0.0, 1.0, never=1.0)
        _inside(self, "memory_margin", 0.0, 1.0)
        _whole(self, "watch_snapshots", 10, 1_000_000)
        _inside(self, "watch_deadline_s", 0.0, 1e9)
        _whole(self, "search_evaluations", 3, 1000)
        _whole(self, "search_batches", 1, 1000)
        _whole(self, "diagnose_snapshots", 14, 100_000)
        _whole(self, "max_open_changes", 1, 1000)
        _inside(self, "new_change_every_s", 0.0, 1e9)
        _whole(self, "breaker_rollbacks", 1, 1000)
        _inside(self, "breaker_window_s", 0.0, 1e9, never=0.0)
        _one_of(self, "sandbox", "auto", "namespaces", "partial", "none")
        if self.new_change_every_s > 0.0:
            most = self.max_open_changes + 1 + self.breaker_window_s / self.new_change_every_s
            if self.breaker_rollbacks > most:
                raise InvalidLimit(
                    f"breaker_rollbacks: expected a limit that can fire, got {self.breaker_rollbacks}: with "
                    f"{self.max_open_changes} open changes and a new one every {self.new_change_every_s:g} s, at "
                    f"most {math.floor(most)} can be taken back within {self.breaker_window_s:g} s"
                )

    def save(self, store: Path) -> None:
        """Leave the settings in the store, so that whoever tells of the healer holds it to the same limits.

        Raises OSError.
        """
        _leave(self, store / HEALER_FILE, give=True)

    @classmethod
    def load(cls, store: Path) -> HealSettings:
        """The settings of the last pass of a healer over the store; the defaults when it left none.

        Raises HistoryError when the file is there and unusable.
        """
        return _left(cls, store / HEALER_FILE, "healer", "its next pass writes it again")

    def braked_as(self, other: HealSettings) -> HealSettings:
        """The same with the brakes of another."""
        return msgspec.structs.replace(self, **{name: getattr(other, name) for name in BRAKES})

    def unsettled(self, batches_needed: int) -> int:
        """Pairs at the beginning of each start that say nothing of time and memory yet, an even number.

        A strategy whose effect takes longer than a start would last makes every start as much longer. What
        such a patch does is judged by what comes after, on both sides alike.
        """
        return 2 * math.ceil(batches_needed / 2) if batches_needed > self.round_pairs else 0

    def round_length(self, batches_needed: int) -> int:
        """Pairs from one start of the probe processes to the next: unsettled ones, then those judged."""
        return self.unsettled(batches_needed) + 2 * math.ceil(self.round_pairs / 2)

    def pairs_needed(self, batches_needed: int) -> int:
        """Pairs before a trial may be judged: twice what the strategy needs, an even number.

        Where starts are longer for the strategy's sake: as many of them as `min_pairs` make otherwise.
        """
        if self.unsettled(batches_needed):
            return self._starts(self.min_pairs) * self.round_length(batches_needed)
        return 2 * math.ceil(max(self.min_pairs, 2 * batches_needed) / 2)

    def pairs_allowed(self, batches_needed: int) -> int:
        """Pairs after which a trial ends undecided: `max_pairs`, unless the strategy needs more.

        Where starts are longer for its sake: no more of them than `max_pairs` make otherwise, and so many
        of those that two looks can accept.
        """
        most = 2 * math.ceil(self.max_pairs / 2)
        if self.unsettled(batches_needed):
            length, usual = self.round_length(batches_needed), self._starts(self.max_pairs)
            starts = max(min(usual, max(most // length, 2 * ROUNDS_NEEDED)), self._starts(self.min_pairs))
            return starts * length
        return max(most, self.pairs_needed(batches_needed))

    def _starts(self, pairs: int) -> int:
        """Starts of the usual length that `pairs` make, 2 at least: one says nothing of chance."""
        return max(2, math.ceil(pairs / self.round_length(0)))
