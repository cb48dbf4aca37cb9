"""What a web host gets by one call, whatever its framework: a monitor, measured requests, a ticker, a healer, alerts.

`SelfHealing` is the handle that `setup_self_healing` of `integrations.fastapi` and `.flask` returns. They put the
routes and the measuring into an application and say how to take them out again; nothing here knows a framework.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from qigcore.recorder import GeometricSnapshot
from qigheal.api.exchange import Refused
from qigheal.api.pages import ANCESTORS
from qigheal.errors import QighealError
from qigheal.integrations.web.healer import Healer
from qigheal.integrations.web.hoststate import MEASURED, NEEDED, Found, HostState, Source, said
from qigheal.integrations.web.metering import EventMeter, Interval, Meter
from qigheal.integrations.web.ticking import Ticker
from qigheal.monitor import GeometricHealthMonitor, Limits
from qigheal.settings import Geometry, default_store

if TYPE_CHECKING:
    from qigheal.alerts import AlertWatch, Sink

log = logging.getLogger("qigheal")

Heal = Literal["subprocess"]
Telemetry = Callable[[], Any] | Literal["requests"] | None

LOOK_S = 60.0
"""Between two looks at healer and alerts, where the application records by itself."""

TELEMETRY_TIMEOUT_S = 10.0


class SetupError(QighealError):
    """Self-healing cannot be put into an application as asked."""


class HostLimits(Limits, total=False):
    """Every limit of a monitor, by keyword; see `qigheal.settings.MonitorSettings`."""

    phi_min: float
    basin_drift_max: float
    history_size: int


class SelfHealing:
    """What was put into one application. `close` takes it out again; so does the end of a `with` block.

    Attributes:
    monitor: the `GeometricHealthMonitor` of this process; `monitor.record` may be called by the host.
    store: the folder that all workers write to.
    interval: the requests between the last two snapshots, with `mean_ms`, `p99_ms`, `error_rate`.
    """

    def __init__(
        self,
        monitor: GeometricHealthMonitor,
        store: Path,
        meter: Meter,
        state: HostState,
        *,
        owned: bool,
        every_s: float | None,
        healer: Healer | None,
        watch: AlertWatch | None,
        asleep: Callable[[], bool],
    ) -> None:
        self.monitor = monitor
        self.store = store
        self.meter = meter
        self.interval = Interval(0, 0, 0, None, None)
        self.closed = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._state = state
        self._owned = owned
        self._records = every_s is not None
        self._healer = healer
        self._watch = watch
        self._complete = False
        self._given: set[str] = set()
        self._latency_ms = 0.0
        self._notes: dict[str, str] = {}
        self._logged: set[str] = set()
        self._undo: list[Callable[[], None]] = []
        self._locks()
        self.ticker = Ticker(
            self._tick,
            every_s if every_s is not None else LOOK_S,
            serves=lambda: meter.served,
            asleep=asleep,
            in_child=self._after_fork,
        )
        atexit.register(self.close)  # before the monitor's own, which was registered before

    def _locks(self) -> None:
        self._taking = threading.Lock()
        self._closing = threading.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or does not work, in sentences; each is also logged, once."""
        notes = list(self._notes.values())
        if self._healer is not None and self._healer.note:
            notes.append(self._healer.note)
        if self.ticker.missed:
            notes.append(
                f"{self.ticker.missed} snapshots were not taken in time, for the ones before took too long"
            )
        if self.meter.troubles:
            notes.append(f"{self.meter.troubles} requests could not be measured")
        return tuple(notes)

    def start(self) -> None:
        """Begin to record. The adapters call it when the application starts; a second call does nothing."""
        if not self.closed:
            self.ticker.start()

    def starting(self) -> None:
        """The same from an event loop, in which async telemetry will run."""
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop, or none
            self.loop = None
        self.start()

    def take(self) -> GeometricSnapshot | None:
        """Read the host's state and record it now. None where there is no state yet; `notes` say why.

        Waits for the host's telemetry: not to be called from the application's event loop.
        """
        with self._taking:
            return self._take()

    def take_asked(self) -> GeometricSnapshot | None:
        """The same for `POST snapshot`. Raises Refused (409, busy) while another reading is under way.

        However slow the host's telemetry is, one request waits for it, and not all that come.
        """
        if not self._taking.acquire(blocking=False):
            raise Refused(
                409, "busy", "a snapshot is being taken already; ask again in a moment, or see GET snapshots"
            )
        try:
            return self._take()
        finally:
            self._taking.release()

    def undone_by(self, undo: Callable[[], None]) -> None:
        """Have `close` call it; the last one first."""
        self._undo.append(undo)

    def close(self) -> None:
        """Leave the application as it was: routes, measuring, threads, files, and the healer if it is this process's.

        Safe to call twice, and from any thread. Ends within a few seconds even where the host's telemetry hangs.
        """
        with self._closing:
            if self.closed:
                return
            self.closed = True
        atexit.unregister(self.close)
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception:  # the rest is to be taken out all the same
                log.exception(
                    "something of self-healing stays in the application; this is a mistake in qigheal"
                )
        self._undo.clear()
        self._state.abandon()
        self.ticker.close()
        if self._healer is not None:
            self._healer.close()
        if self._watch is not None:
            self._watch.close()
        if self._owned:
            self.monitor.close()
        else:
            self.monitor.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _tick(self) -> None:
        try:
            if self._records:
                self.take()
            if self._healer is not None and not self.closed:
                self._healer.look()
            if self._watch is not None and not self.closed:
                self._watch.start()  # nothing where it runs
            self._notes.pop("tick", None)
        except Exception as error:  # whatever it is, it is not the host's to handle
            self._note("tick", f"a snapshot could not be taken: {said(error)}")

    def _take(self) -> GeometricSnapshot | None:
        if self.closed:
            return None
        meter = self.meter
        found = self._of_requests(meter) if isinstance(meter, EventMeter) else self._state.read(self.loop)
        if found is None or self.closed:
            return None
        state = dict(found.state)
        problems = list(found.problems)
        missing = [key for key in NEEDED if key not in state]
        if missing and not self._complete:
            why = f" ({'; '.join(found.problems)})" if found.problems else ""
            self._note("state", f"no snapshots yet: the application has not given {', '.join(missing)}{why}")
            self._note_all([])  # they stand in that one
            return None
        self._complete = True
        self.interval = interval = meter.read()
        if interval.mean_ms is not None:
            self._latency_ms = interval.mean_ms
        measured = (interval.error_rate, self._latency_ms, resident_mb())
        gone = list(missing)
        for key, value in zip(MEASURED, measured, strict=True):
            if key in state:
                self._given.add(key)
            elif key in self._given:
                state[key] = math.nan  # recorded as unusable, which no statistic takes for healthy
                gone.append(key)
            else:
                state[key] = value
        if gone:
            why = f" ({'; '.join(found.problems)})" if found.problems else ""
            self._note("state", f"the application no longer gives {', '.join(gone)}{why}")
            problems.clear()
        else:
            self._notes.pop("state", None)
        taken = self.monitor.capture(state)
        unusable = [key for key in taken.repaired if key in found.state]
        if unusable:
            problems.append(f"the application gives no usable {', '.join(unusable)}")
        self._note_all(problems)
        return taken

    def _of_requests(self, meter: EventMeter) -> Found | None:
        """Φ, κ and a basin of the requests; None where there is nothing new to say."""
        reading, estimator = meter.reading, meter.estimator
        if reading is None or not estimator.ready:
            memory = estimator.definition.memory
            self._note(
                "state", f"no snapshots yet: they begin after {memory} requests, {estimator.count} so far"
            )
            return None
        if not meter.waiting:
            return None  # an average that nothing was added to is no new observation
        phi, kappa, basin = reading
        given = self._state.read(self.loop)  # only app.metrics is asked here
        return Found({**given.state, "phi": phi, "kappa_eff": kappa, "basin_coords": basin}, given.problems)

    def _note(self, about: str, note: str) -> None:
        self._notes[about] = note
        if note not in self._logged and len(self._logged) < 100:
            self._logged.add(note)
            log.warning("%s", note)

    def _note_all(self, problems: Sequence[str]) -> None:
        """What is wrong with the host's sources now, beside what it has to give, and nothing that was before."""
        for about in [about for about in self._notes if about.startswith("source ")]:
            del self._notes[about]
        for number, problem in enumerate(problems):
            self._note(f"source {number}", problem)

    def _after_fork(self) -> None:
        self._locks()
        self.meter.after_fork()
        self._state.after_fork()
        if self._healer is not None:
            self._healer.after_fork()


def host(
    app: object,
    prefix: str,
    places: Sequence[tuple[str, Callable[[], Any]]],
    *,
    store: str | os.PathLike[str] | None,
    geometry: Geometry,
    telemetry: Telemetry,
    telemetry_timeout_s: float,
    monitor: GeometricHealthMonitor | None,
    every_s: float | None,
    repo: str | os.PathLike[str] | None,
    heal: Heal | None,
    heal_every_s: float,
    alerts: Sequence[Sink],
    widget_ancestors: str,
    asleep: Callable[[], bool] = lambda: False,
    limits: HostLimits,
) -> SelfHealing:
    """A handle for `app`, before anything is put into the application.

    places: name and finder of the host's own telemetry, the first one that is there counts.
    Raises SetupError for what cannot go together, and what a monitor raises.
    """
    for name, value in (("every_s", every_s), ("heal_every_s", heal_every_s)):
        if value is not None and not 0.01 <= value <= 86_400.0:
            raise SetupError(f"{name}: expected seconds from 0.01 to 86400, got {value!r}")
    if not prefix.startswith("/") or not prefix.strip("/"):
        raise SetupError(f"prefix: expected a path such as '/api/self-healing', got {prefix!r}")
    _check_ancestors(widget_ancestors)
    if heal not in (None, "subprocess"):
        raise SetupError(f"heal: expected 'subprocess' or None, got {heal!r}")
    of_requests = telemetry == "requests"
    if telemetry is not None and not of_requests and not callable(telemetry):
        raise SetupError(f"telemetry: expected a callable, 'requests' or None, got {telemetry!r}")
    meter = EventMeter() if isinstance(telemetry, str) else Meter()
    owned = monitor is None
    if monitor is None:
        folder = Path(store) if store is not None else default_store()
        monitor = _monitor(folder, meter, geometry, repo, limits)
    else:
        folder = _folder_of(monitor, store, meter, limits)
    folder = folder.absolute()
    sources = [Source("metrics", lambda: getattr(app, "metrics", None), optional=True)]
    if not of_requests:
        given = (("telemetry", lambda: telemetry),) if telemetry is not None else tuple(places)
        name = " or ".join(name for name, _ in given)
        sources.insert(
            0, Source(name, lambda: next((f for _, find in given if (f := find()) is not None), None))
        )
    watch: AlertWatch | None = None
    try:
        if alerts:
            from qigheal.alerts import AlertWatch

            recording = monitor
            watch = AlertWatch(folder, alerts, losses=lambda: recording.losses)
        healer = None
        if repo is not None and heal is not None:
            healer = Healer(folder, Path(repo).absolute(), heal_every_s)
        state = HostState(*sources, timeout_s=telemetry_timeout_s)
        return SelfHealing(
            monitor,
            folder,
            meter,
            state,
            owned=owned,
            every_s=every_s,
            healer=healer,
            watch=watch,
            asleep=asleep,
        )
    except BaseException:
        if owned:
            monitor.close()
        raise


def _check_ancestors(widget_ancestors: str) -> None:
    if not ANCESTORS.fullmatch(widget_ancestors):
        raise SetupError(
            "widget_ancestors: expected sites such as 'https://status.example.org', divided by a space, got "
            f"{widget_ancestors!r}"
        )


def _monitor(
    folder: Path, meter: Meter, geometry: Geometry, repo: str | os.PathLike[str] | None, limits: HostLimits
) -> GeometricHealthMonitor:
    place = "." if repo is None else repo
    if not isinstance(meter, EventMeter):
        return GeometricHealthMonitor(history=folder, geometry=geometry, repo=place, **limits)
    estimator = meter.estimator
    if limits.setdefault("dim", estimator.dim) != estimator.dim:
        raise SetupError(f"dim: expected {estimator.dim} with telemetry='requests', got {limits['dim']}")
    return GeometricHealthMonitor(
        history=folder, geometry="simplex", repo=place, module_name=estimator.identity, **limits
    )


def _folder_of(
    monitor: GeometricHealthMonitor, store: str | os.PathLike[str] | None, meter: Meter, limits: HostLimits
) -> Path:
    if limits:
        raise SetupError(
            f"{', '.join(sorted(limits))}: expected none beside monitor=, which has its own limits"
        )
    if monitor.history is None:
        raise SetupError(
            "monitor: expected one with a history, from which the routes read; make it with history="
        )
    folder = Path(monitor.history.path)
    if store is not None and Path(store).absolute() != folder.absolute():
        raise SetupError(f"store: expected {folder}, where the given monitor writes, or none; got {store}")
    settings = monitor.settings
    if isinstance(meter, EventMeter) and (settings.geometry, settings.dim) != (
        "simplex",
        meter.estimator.dim,
    ):
        raise SetupError(
            f"monitor: expected one of the simplex with {meter.estimator.dim} components for telemetry='requests', "
            f"got one of the {settings.geometry} with {settings.dim}"
        )
    return folder


def resident_mb() -> float:
    """Resident memory of this process, in megabytes; NaN where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    except (OSError, ValueError, IndexError):
        return math.nan
