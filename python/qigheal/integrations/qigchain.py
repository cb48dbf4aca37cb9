"""Self-healing for a chain: an object whose `run` gives a result with a trajectory of steps.

    from qigheal.integrations.qigchain import add_self_healing_to_chain

    chain = add_self_healing_to_chain(chain, store=".qigheal", host="path/to/repository")
    result = chain.run(initial_basin)          # as before; each step is one snapshot
    chain.self_healing.get_health()
    chain.self_healing.remove()

The chain is the same object of the same type, and its results and exceptions are its own. How a method is
taken hold of stands in `hooking`, how a result is read in `trajectory`. Nothing heals in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from qigcore.history.earlier import Earlier
from qigcore.rules import MIN_SNAPSHOTS
from qigheal.errors import QighealError
from qigheal.integrations.chain import childheal
from qigheal.integrations.chain.hooking import Hook
from qigheal.integrations.chain.statedir import MONITOR, HealerHistory, StateError, known_in
from qigheal.integrations.chain.trajectory import Counts, ResidentMemory, RunRecorder
from qigheal.monitor import GeometricHealthMonitor
from qigheal.settings import Geometry
from qigheal.standing import BASELINE

log = logging.getLogger("qigheal")

C = TypeVar("C")

ATTRIBUTE: Final = "self_healing"
STATE_DIR: Final = "./self_healing_state"
SOURCES: Final = ("get_consciousness_metrics", "get_performance_metrics")
PATIENCE_S: Final = 30.0
"""How long an `async` metrics method of a chain is waited for."""

NEEDED: Final = ("phi", "kappa_eff", "basin_coords", "error_rate", "avg_latency_ms")
TRENDS: Final = ("phi", "basin_drift", "latency", "errors")
METRICS: Final = ("phi", "basin_drift", "breakdown_count", "error_rate", "latency_ms")


class ChainError(QighealError, TypeError):
    """An object that is no chain, or one that has self-healing already."""


class SearchSpaceCollapseSelfHealing:
    """What a chain is given: it records the chain's runs, and says whether the chain is well.

    chain: has `run(initial_basin, context=None)`, plain or `async`, or the methods get_consciousness_metrics()
        and get_performance_metrics(), or all of these. It is held until `remove()`, unless
        `add_self_healing_to_chain` made this.
    store: folder of a history that is written; None: the last snapshots are held in memory alone.
    geometry: "sphere" for the signed basins of chains, "simplex" for non-negative weights.
    host: the git repository that the healer is to mend; it needs a `store` too.
    memory_mb: gives the process's memory in MB; by default the resident memory.
    limits: keywords of `GeometricHealthMonitor`, such as phi_min, history_size, baseline, learn_after.

    Raises ChainError for an object that is no chain or has self-healing already, and what the monitor raises.

    Attributes: monitor; store; host.
    """

    def __init__(
        self,
        chain: Any,
        *,
        store: str | os.PathLike[str] | None = None,
        geometry: Geometry = "sphere",
        host: str | os.PathLike[str] | None = None,
        memory_mb: Callable[[], float] | None = None,
        **limits: Any,
    ) -> None:
        if isinstance(getattr(chain, ATTRIBUTE, None), SearchSpaceCollapseSelfHealing):
            raise ChainError(
                f"expected a {type(chain).__qualname__} without self-healing, got one that has it; "
                f"take it off first with .{ATTRIBUTE}.remove()"
            )
        runs = _runs(chain)
        self.store = None if store is None else Path(store)
        self.host = None if host is None else Path(host)
        if host is not None:
            limits.setdefault("repo", host)
        self.monitor = GeometricHealthMonitor(geometry=geometry, history=store, **limits)
        self._memory_mb = ResidentMemory() if memory_mb is None else memory_mb
        self._runs = RunRecorder(self.monitor, self._memory_mb, waits=store is not None)
        self._patches = HealerHistory()
        self._healing = False
        self._watching: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._asked: dict[str, asyncio.Task[Mapping[str, Any] | None]] = {}
        self._patience_s = PATIENCE_S
        self._sources = tuple(name for name in SOURCES if callable(getattr(chain, name, None)))
        self._seen = _referring(chain)
        self._chain: Any = chain
        self._hooks: list[Hook] = []
        try:
            if runs:
                self._hooks.append(Hook(chain, "run", watcher=self._runs))
            self._hooks.append(Hook(chain, ATTRIBUTE, value=self))
        except TypeError as error:
            self.remove()
            raise ChainError(f"chain: {error}") from None

    def run(self, *args: Any, **named: Any) -> Any:
        """The chain's own `run`, recorded."""
        if self._chain is None:
            raise ChainError("expected the chain to be held here, got none; call run() of the chain itself")
        return self._chain.run(*args, **named)

    @property
    def counts(self) -> Counts:
        """Runs, failures and steps that could not be read, since this was added."""
        return self._runs.counts

    def get_health(self) -> dict[str, Any]:
        """Plain `healthy`, `severity`, `issues` and `metrics`, as the earlier modules gave them, `state` and `notes`.

        metrics: means over the last 10 snapshots (drift in radians, error_rate from 0 to 1, latency in ms), and
        how many of these lay in breakdown; None where nothing could be measured.
        state: "learning" before there are 10 snapshots, when `healthy` says only that no more failed than
        `error_rate_max` allows; then "absolute" or "learned", by the limits in force.
        notes: facts that are no fault. All of it: `monitor.check_health()`.
        """
        report = self.monitor.check_health()
        figures = report.metrics
        healthy, severity, issues = report.healthy, report.severity, list(report.issues)
        if healthy and report.state == "learning":
            failing = figures["error_rate"]
            if failing > self.monitor.settings.error_rate_max:  # not so where it is unknown
                healthy, severity = False, "warning"
                issues = [
                    f"learning: {report.snapshots} of {MIN_SNAPSHOTS} snapshots, error rate {failing:.3g}"
                ]
        return {
            "healthy": healthy,
            "severity": severity,
            "issues": issues,
            "metrics": {name: _number(figures[name]) for name in METRICS},
            "state": report.state,
            "notes": list(report.notes),
        }

    def get_trends(self, window: int = 50) -> dict[str, dict[str, Any]]:
        """By phi, basin_drift, latency, errors: `direction`, `slope` a snapshot, `recent_avg`; None if unknown."""
        found = {name: self.monitor.get_trend(name, window) for name in TRENDS}
        return {
            name: {
                "direction": trend.direction,
                "slope": _number(trend.slope),
                "recent_avg": _number(trend.recent_avg),
            }
            for name, trend in found.items()
        }

    async def manual_heal(self) -> dict[str, Any]:
        """One pass of the healer in a process of its own; gives what it printed, with `triggered` and `message`.

        What it may do is decided by the store's phase. Where it cannot run, `triggered` is false and `message`
        says how to enable it.
        """
        missing = [name for name in ("host", "store") if getattr(self, name) is None]
        if missing or self.host is None or self.store is None:
            given = " and ".join(f"{name}=..." for name in missing)
            return {
                "triggered": False,
                "message": f"healing is not enabled: add self-healing with {given}, the git repository of the "
                "service and the folder of its history; then see: qigheal phase status",
            }
        if self._healing:
            return {"triggered": False, "message": "a pass of the healer is under way"}
        self._healing = True
        try:
            self.monitor.flush()
            return await childheal.heal(childheal.command(self.host, self.store))
        finally:
            self._healing = False

    async def start(self, interval_seconds: float = 60.0, heal_every_seconds: float = 300.0) -> None:
        """Look after the chain in the running event loop until `stop()`; a second start changes nothing.

        Where the event loop of the first has ended since, this one takes over.

        Every `interval_seconds` the chain's get_consciousness_metrics() and get_performance_metrics() become one
        snapshot, if it has them. With `host` and `store`, the healer runs every `heal_every_seconds` as
        `manual_heal` while the chain is not healthy.

        Raises ValueError for an interval that is no positive number.
        """
        for name, value in (
            ("interval_seconds", interval_seconds),
            ("heal_every_seconds", heal_every_seconds),
        ):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name}: expected a number of seconds above 0, got {value!r}")
        task = self._watching
        if task is None or task.done() or not task.get_loop().is_running():
            if task is not None:
                _cancel(task)
            self._watching = asyncio.create_task(
                self._watch(interval_seconds, heal_every_seconds), name="qigheal-chain"
            )

    async def stop(self) -> None:
        """End what `start` began, a healer that is at work included, and write what was recorded.

        It may be called in another event loop, and after the first has ended.
        """
        task, self._watching = self._watching, None
        try:
            if task is not None:
                await _ended(task)
        finally:
            self.monitor.flush()

    async def _watch(self, interval_s: float, heal_every_s: float) -> None:
        async with asyncio.TaskGroup() as both:  # a pass of the healer takes minutes
            both.create_task(self._looking(interval_s))
            if self.host is not None and self.store is not None:
                both.create_task(self._mending(heal_every_s))

    async def _looking(self, interval_s: float) -> None:
        while True:
            await self.look()
            await asyncio.sleep(interval_s)

    async def _mending(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                if not self.monitor.check_health().healthy:
                    log.info("healing: %s", (await self.manual_heal()).get("message"))
            except Exception as error:  # of this pass; the next one may fare better
                self._tell(f"healing failed: {type(error).__name__}: {error}")

    async def look(self) -> None:
        """Record one snapshot of what the chain's metrics methods give now; nothing if it has none.

        Never raises. An `async` method has 30 s; what it gives later is not waited for.
        """
        chain = self._seen()
        if not self._sources or chain is None:
            return
        state: dict[str, Any] = {}
        for source in self._sources:
            found = await self._given(chain, source)
            if isinstance(found, Mapping):
                state.update(found)
        if state.get("error_rate") is None and (failing := self._runs.error_rate) is not None:
            state["error_rate"] = failing
        missing = [name for name in NEEDED if name not in state]
        if missing:
            self._tell(f"the chain's metrics have no {', '.join(missing)}")
        state.pop("timestamp", None)  # it is of now
        try:
            state.setdefault("memory_mb", self._memory_mb())
            self.monitor.capture(state)
        except (Exception, SystemExit) as error:  # on_invalid="raise", or of the host's memory_mb
            self._tell(f"the chain's metrics were not recorded: {error}")

    async def _given(self, chain: Any, source: str) -> Mapping[str, Any] | None:
        """What a metrics method of the chain gives within its time; None, and a line in the log, for nothing."""
        asked = self._asked.get(source)
        if asked is not None and not asked.done() and asked.get_loop() is asyncio.get_running_loop():
            return None  # it was told to end, and has not
        self._asked[source] = asked = asyncio.create_task(self._ask(chain, source))
        try:
            done, _ = await asyncio.wait({asked}, timeout=self._patience_s)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        if not done:
            asked.cancel()  # without waiting: it may not heed that
            self._tell(f"{source}() gave nothing within {self._patience_s:g} s")
            return None
        if asked.cancelled():
            self._tell(f"{source}() was cancelled")
            return None
        return asked.result()

    async def _ask(self, chain: Any, source: str) -> Mapping[str, Any] | None:
        try:
            found = getattr(chain, source)()
            if inspect.isawaitable(found):
                found = await found
        except (Exception, SystemExit) as error:  # the latter would end the host's event loop
            self._tell(f"{source}() failed: {type(error).__name__}: {error}")
            return None
        if not isinstance(found, Mapping):
            self._tell(f"{source}(): expected a mapping, got a {type(found).__name__}")
            return None
        return found

    def _tell(self, what: str) -> None:
        """To the log, once."""
        if what not in self._told and len(self._told) < 100:  # messages of the host's may differ each time
            self._told.add(what)
            log.warning("%s", what)

    def save_state(self, directory: str | os.PathLike[str] = STATE_DIR) -> None:
        """Write what is held into a folder, which is made: the earlier monitor_history.json and healer_history.json.

        The patches are those that were loaded and those of the store's ledger. Beside them stand the settings
        and, once learned, the baseline. `qigheal.integrations.chain.statedir.StateDir` reads such a folder.

        Raises HistoryError, StateError, LedgerError.
        """
        folder = Path(directory)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.monitor.settings.save(folder)
            if (baseline := self.monitor.baseline) is not None:
                baseline.save(folder / BASELINE)
        except OSError as error:
            raise StateError(f"{folder}: the state cannot be written there: {error.strerror}") from error
        self.monitor.save_history(folder / MONITOR)
        self._patches.with_ledger(self.store).save(folder)

    def load_state(self, directory: str | os.PathLike[str] = STATE_DIR) -> None:
        """Take in what `save_state` or the earlier modules wrote, before the chain runs.

        The snapshots count as recorded, but those that are held or stored already are passed over. The patches are
        kept, and written again by `save_state`. Limits are not taken over, nor is a baseline: give it as
        `baseline=Baseline.load(...)` when adding, or healthy is learned from what is loaded.

        Raises StateError where there is no such folder, HistoryError.
        """
        folder = Path(directory)
        if not (folder / MONITOR).exists() and not (folder / "healer_history.json").exists():
            raise StateError(
                f"{folder}: expected {MONITOR} or healer_history.json there, got neither; name the folder that "
                "save_state() wrote"
            )
        patches = HealerHistory.load(folder)
        if (folder / MONITOR).exists():
            file = Earlier(folder / MONITOR)
            known = known_in(file, self.monitor)
            if not known or len(known) < file.count:
                self.monitor.load_history(folder / MONITOR, without=known)
        self._patches = patches

    def remove(self) -> None:
        """Leave the chain as it was. What was recorded is written, and stays readable here; doing so twice is fine."""
        task, self._watching = self._watching, None
        if task is not None:
            _cancel(task)
        for hook in self._hooks:
            hook.undo()
        self._hooks = []
        self._chain, self._sources = None, ()
        self.monitor.close()

    def _let_go(self) -> None:
        """Do not keep the chain alive: it is the chain that holds this."""
        self._chain = None


def add_self_healing_to_chain(
    chain: C,
    *,
    store: str | os.PathLike[str] | None = None,
    geometry: Geometry = "sphere",
    host: str | os.PathLike[str] | None = None,
    memory_mb: Callable[[], float] | None = None,
    **limits: Any,
) -> C:
    """Give a chain `.self_healing`, and return it: the same object, of the same type.

    Arguments and errors are those of `SearchSpaceCollapseSelfHealing`.
    """
    made = SearchSpaceCollapseSelfHealing(
        chain, store=store, geometry=geometry, host=host, memory_mb=memory_mb, **limits
    )
    made._let_go()
    return chain


def _runs(chain: Any) -> bool:
    """Whether the chain is run, and not only asked for its metrics. Raises ChainError for what is no chain."""
    run = getattr(chain, "run", None)
    kind = type(chain).__qualname__
    if isinstance(chain, type):
        raise ChainError(
            f"chain: expected an object, got the class {chain.__qualname__}; add it to each object"
        )
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise ChainError(f"chain: expected {kind}.run to return a result, got a generator, which gives none")
    if not callable(run) and not any(callable(getattr(chain, name, None)) for name in SOURCES):
        raise ChainError(
            f"chain: expected an object with run() or {SOURCES[0]}(), got a {kind}, which has neither"
        )
    return callable(run)


def _cancel(task: asyncio.Task[None]) -> None:
    """From whichever thread or event loop; one whose own is closed has ended with it."""
    if not task.done():
        with contextlib.suppress(RuntimeError):
            task.get_loop().call_soon_threadsafe(task.cancel)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel it and wait for its end, as far as its event loop still turns."""
    there = task.get_loop()
    if there is asyncio.get_running_loop():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    elif not there.is_running():
        _cancel(task)
    else:
        over = asyncio.Event()
        here = asyncio.get_running_loop()

        def told(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                here.call_soon_threadsafe(over.set)

        def watch() -> None:
            task.add_done_callback(told)
            task.cancel()

        with contextlib.suppress(RuntimeError, TimeoutError):  # it closed, or stopped, meanwhile
            there.call_soon_threadsafe(watch)
            await asyncio.wait_for(over.wait(), 2 * childheal.PATIENCE_S)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _referring(chain: Any) -> Callable[[], Any]:
    """Gives the chain as long as somebody has it; one that cannot be referred to weakly is kept."""
    try:
        return weakref.ref(chain)
    except TypeError:
        return lambda: chain
