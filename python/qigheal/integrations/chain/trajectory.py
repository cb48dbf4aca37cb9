"""From a chain's results to snapshots: one of each step, at the price of a few dictionary reads.

A run's result, whatever it is, passes through unchanged and is never iterated where that would use it up. What
cannot be read is recorded as unusable, which the monitor flags, and is counted here; nothing raises.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from qigcore.errors import InvalidSnapshot
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
    """Resident memory of this process in MB, read anew at most once a second."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._mb = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._at >= REREAD_S:
            self._at = now
            with open("/proc/self/statm", "rb") as file:
                self._mb = int(file.read().split()[1]) * _PAGE_MB
        return self._mb


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
        self._part = max(1, monitor.settings.history_size // 2) if waits else None
        self._outcomes = bytearray(RECENT)  # 1 for a failed run; a ring
        self._failing = 0  # of these
        self._lock, self._pid = threading.RLock(), os.getpid()
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
            error_rate = self._ran(failed, odd=steps is None)
            if steps is None or not len(steps):
                state = {key: _read(read, f"final_{key}") for key in ("phi", "kappa", "basin")}
                self._single(state, error_rate, began, took_s)
            else:
                self._steps(steps, error_rate, began, took_s)
        except Exception:
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

    def _steps(self, steps: Sequence[Any], error_rate: float, began: float, took_s: float) -> None:
        length = len(steps)
        # A history keeps microseconds. Recording a step takes about that long, so it is no time to come.
        apart_s = max(took_s / length, 1e-6)
        each_ms = 1000.0 * took_s / length
        fields: dict[str, Any] = {
            "avg_latency_ms": each_ms, "error_rate": error_rate, "memory_mb": self._memory_mb()
        }  # fmt: skip
        first, timed = steps[0], None
        if type(first) is dict or isinstance(first, Mapping):
            for key in DURATIONS:
                if key in first:
                    timed = key
                    break
        part = self._part
        if type(steps) is list and (part is None or length <= part):
            _, odd, lost = self._record(steps, fields, timed, began, apart_s)
        else:
            at, odd, lost = began, 0, 0
            part, ahead = part or length, iter(steps)
            for start in range(0, length, part):
                if start:
                    self._monitor.flush()
                fields["avg_latency_ms"] = each_ms
                these = islice(ahead, min(part, length - start))
                at, more_odd, more_lost = self._record(these, fields, timed, at, apart_s)
                odd, lost = odd + more_odd, lost + more_lost
        with self._lock:
            self._stored += length - lost
            if odd or lost:
                self._odd_steps += odd
                self._lost += lost

    def _record(
        self, steps: Iterable[Any], fields: dict[str, Any], timed: str | None, at: float, apart_s: float
    ) -> tuple[float, int, int]:
        """Record steps after `at`; (the last one's time, those that were no mappings, those that were refused)."""
        capture, each_ms, odd, lost = self._capture, fields["avg_latency_ms"], 0, 0
        for step in steps:
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
            fields["timestamp"] = at
            try:
                capture(fields)
            except InvalidSnapshot:
                lost += 1
        return at, odd, lost

    def _ran(self, failed: int, *, odd: bool = False) -> float:
        """Count a run, and give the error rate: once with every run, and so without loops."""
        if self._pid != os.getpid():  # after a fork a thread that is not here may have had it
            self._lock, self._pid = threading.RLock(), os.getpid()
        with self._lock:
            place = self._runs % RECENT
            self._failing += failed - self._outcomes[place]
            self._outcomes[place] = failed
            self._runs += 1
            self._failed += failed
            self._odd_runs += odd
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
