"""From a chain's results to snapshots: one of each step, at the price of a few dictionary reads.

A run's result, whatever it is, passes through unchanged and is never iterated where that would use it up. What
cannot be read is recorded as unusable, which the monitor flags, and is counted here; nothing raises.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from qigcore.errors import InvalidSnapshot
from qigcore.forks import Forks
from qigheal.monitor import GeometricHealthMonitor
from qigheal.records import Record

log = logging.getLogger("qigheal")

RECENT: Final = 50
"""Runs whose share of failures is the error rate."""

DURATIONS: Final = ("duration_ms", "latency_ms", "avg_latency_ms")
"""Keys under which a step may give the time it took."""

REREAD_S: Final = 1.0
"""How long one reading of the process's memory is good for."""

UNREADABLE: Final = dict.fromkeys(("phi", "kappa_eff", "basin_coords", "module_name"))
"""What is recorded of a step that is no mapping: flagged fields, and nothing of the step before."""

ALL_FIELDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("avg_latency_ms", "error_rate", "memory_mb", "timestamp")),
    **UNREADABLE,
}
"""What is given of a step. A copy has its size; a dictionary that is filled key by key is made anew as it grows."""

_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20


class Counts(Record, frozen=True):
    """What was seen of a chain since it was added."""

    runs: int = 0
    failed: int = 0  # of the runs: `success` was false, or an exception was raised
    steps: int = 0  # snapshots recorded of runs
    odd_steps: int = 0  # of these, those of a step that was no mapping
    odd_runs: int = 0  # of the runs, those without a trajectory that could be read
    lost: int = 0  # snapshots that were refused (on_invalid="raise"), and results that broke the reading


class ResidentMemory:
    """Resident memory of this process in MB, read anew at most once a second.

    mb: as it was read last; until: when that is too old, by time.monotonic().
    """

    def __init__(self) -> None:
        self.until = float("-inf")
        self.mb = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now >= self.until:
            self.until = now + REREAD_S
            with open("/proc/self/statm", "rb") as file:
                self.mb = int(file.read().split()[1]) * _PAGE_MB
        return self.mb


class RunRecorder:
    """Told of each run, by `qigheal.integrations.chain.hooking.Hook`, and records its steps.

    memory_mb: what is recorded as the process's memory. waits: whether a run with more steps than half the
    ring holds waits, once per half, for what was recorded of it to be written.
    """

    def __init__(
        self, monitor: GeometricHealthMonitor, memory_mb: Callable[[], float], *, waits: bool = False
    ) -> None:
        self._monitor = monitor
        self._capture = monitor.capture
        self._memory_mb = memory_mb
        self._resident = memory_mb if isinstance(memory_mb, ResidentMemory) else None
        self._part = max(1, monitor.settings.history_size // 2) if waits else None
        self._outcomes = bytearray(RECENT)  # 1 for a failed run; a ring
        self._failing = 0  # of these
        self._lock = threading.RLock()
        _forks.watch(self)
        self._runs = self._failed = self._stored = self._odd_steps = self._odd_runs = self._lost = 0

    @property
    def counts(self) -> Counts:
        with self._lock:
            return Counts(
                runs=self._runs,
                failed=self._failed,
                steps=self._stored,
                odd_steps=self._odd_steps,
                odd_runs=self._odd_runs,
                lost=self._lost,
            )

    @property
    def error_rate(self) -> float | None:
        """Share of the last 50 runs that failed, 0 to 1; None before the first."""
        runs = self._runs
        return self._failing / min(runs, RECENT) if runs else None

    def returned(self, result: Any, began: float, took_s: float) -> None:
        """A run ended with this result. began: Unix seconds."""
        ahead = 0
        try:
            read = result.get if type(result) is dict else _reader(result)
            try:
                success = read("success")
                failed = int(success is not None and not success)
                steps = read("trajectory")
            except Exception:  # a property of the host's, or an array for a truth value
                failed, steps = 0, None
            if type(steps) is not list and (
                not isinstance(steps, Sequence) or isinstance(steps, str | bytes | bytearray)
            ):
                steps = None
            if type(steps) is list and (self._part is None or len(steps) <= self._part):
                ahead = len(steps)
            error_rate = self._ran(failed, steps is None, ahead)
            if steps is None or not len(steps):
                state = {key: _read(read, f"final_{key}") for key in ("phi", "kappa", "basin")}
                self._single(state, error_rate, began, took_s)
            else:
                self._steps(steps, error_rate, began, took_s, ahead)
        except Exception:
            if ahead:
                with self._lock:
                    self._stored -= ahead
            self._missed("result")

    def raised(self, error: Exception, began: float, took_s: float) -> None:
        """A run ended by an exception: there is no state to record, but a failure and the time it took."""
        try:
            self._single({}, self._ran(1), began, took_s)
        except Exception:
            self._missed("failure")

    def _missed(self, what: str) -> None:
        """The exception at hand is ours, or a result's that broke its reading: told once, counted always."""
        if not self._lost:
            log.exception("a chain's %s could not be recorded; the chain goes on", what)
        self._lost += 1

    def _single(self, state: Mapping[str, Any], error_rate: float, began: float, took_s: float) -> None:
        """The one snapshot of a run without steps."""
        fields = {
            "phi": state.get("phi"),
            "kappa_eff": state.get("kappa"),
            "basin_coords": state.get("basin"),
            "error_rate": error_rate,
            "avg_latency_ms": 1000.0 * took_s,
            "memory_mb": self._memory_mb(),
            "timestamp": began + took_s,
        }
        stored = 1
        try:
            self._capture(fields)
        except InvalidSnapshot:
            stored = 0
        with self._lock:
            self._stored += stored
            self._lost += 1 - stored

    def _steps(
        self, steps: Sequence[Any], error_rate: float, began: float, took_s: float, ahead: int
    ) -> None:
        """Record each step. ahead: as many as are counted already; 0 where they are recorded in parts."""
        length = len(steps)
        # A history keeps microseconds. Recording a step takes about that long, so it is no time to come.
        apart_s = took_s / length
        each_ms = 1000.0 * apart_s
        if apart_s < 1e-6:  # noqa: PLR1730 - calling max() costs a run of one step 90 ns
            apart_s = 1e-6
        resident = self._resident
        fresh = resident is not None and time.monotonic() < resident.until  # saves a short run a call
        fields = ALL_FIELDS.copy()
        fields["avg_latency_ms"] = each_ms
        fields["error_rate"] = error_rate
        fields["memory_mb"] = resident.mb if fresh and resident is not None else self._memory_mb()
        first, timed = steps[0], None
        if type(first) is dict or isinstance(first, Mapping):
            for key in DURATIONS:
                if key in first:
                    timed = key
                    break
        capture, at, odd, lost = self._capture, began, 0, 0
        for part in (steps,) if ahead else self._parts(steps):
            for step in part:
                at += apart_s
                try:
                    get = step.get
                    fields["phi"] = get("phi_after")
                    fields["kappa_eff"] = get("kappa_after")
                    fields["basin_coords"] = get("basin_coords")
                    fields["module_name"] = get("name")
                    if timed is not None:
                        own = get(timed)
                        fields["avg_latency_ms"] = each_ms if own is None else own
                except Exception:
                    odd += 1
                    fields.update(UNREADABLE)
                    fields["avg_latency_ms"] = each_ms
                fields["timestamp"] = at
                try:
                    capture(fields)
                except InvalidSnapshot:
                    lost += 1
        if odd or lost or not ahead:
            with self._lock:
                self._stored += length - lost - ahead
                self._odd_steps += odd
                self._lost += lost

    def _parts(self, steps: Sequence[Any]) -> Iterator[Iterable[Any]]:
        """No more at once than half the ring; what came before is written first. As it iterates, not by number."""
        length, following = len(steps), iter(steps)
        part = self._part or length
        for start in range(0, length, part):
            if start:
                self._monitor.flush()
            yield islice(following, min(part, length - start))

    def _ran(self, failed: int, odd: bool = False, ahead: int = 0) -> float:
        """Count a run, and give the error rate: once with every run, and so without loops.

        ahead: steps of it that count as recorded from now on, which saves taking the lock a second time.
        """
        with self._lock:
            place = self._runs % RECENT
            self._failing += failed - self._outcomes[place]
            self._outcomes[place] = failed
            self._runs += 1
            self._failed += failed
            self._odd_runs += odd
            self._stored += ahead
            return self._failing / (self._runs if self._runs < RECENT else RECENT)


def _reader(result: Any) -> Callable[[str], Any]:
    """How a field of the result is read; None where it has none."""
    if type(result) is dict or isinstance(result, Mapping):
        get: Callable[[str], Any] = result.get
        return get
    return lambda name: getattr(result, name, None)


def _read(read: Callable[[str], Any], name: str) -> Any:
    try:
        return read(name)
    except Exception:
        return None


def _unlocked(recorder: RunRecorder) -> None:
    recorder._lock = threading.RLock()  # a thread that is not here may have had it


_forks: Final = Forks(_unlocked)
"""Asking for the process's number with every run costs more than its lock does."""
