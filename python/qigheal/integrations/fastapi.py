"""Self-healing for a FastAPI application, in one call that can be taken back.

    handle = setup_self_healing(app)        # before start-up, in a lifespan, or in on_event("startup")

What is recorded and who heals is decided in `hosting`; the routes are those of `fastapi_routes`. Here is only how
they get into an application and out again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from qigheal.api import PREFIX
from qigheal.errors import MissingExtra
from qigheal.integrations.web.asgi import App, MeasuredAsgi
from qigheal.integrations.web.hosting import (
    TELEMETRY_TIMEOUT_S,
    Heal,
    HostLimits,
    SelfHealing,
    SetupError,
    Telemetry,
)
from qigheal.integrations.web.hosting import (
    host as hosted,
)
from qigheal.monitor import GeometricHealthMonitor
from qigheal.settings import Geometry

if TYPE_CHECKING:
    from fastapi import FastAPI

    from qigheal.alerts import Sink

STATE = "self_healing"
"""The handle stands in `app.state` under this name while it is there."""


def setup_self_healing(
    app: FastAPI,
    *,
    store: str | os.PathLike[str] | None = None,
    geometry: Geometry = "sphere",
    telemetry: Telemetry = None,
    monitor: GeometricHealthMonitor | None = None,
    every_s: float | None = 60.0,
    host: str | os.PathLike[str] | None = None,
    heal: Heal | None = "subprocess",
    heal_every_s: float = 300.0,
    authorize: Callable[..., Any] | None = None,
    prefix: str = PREFIX,
    alerts: Sequence[Sink] = (),
    widget_ancestors: str = "'self'",
    telemetry_timeout_s: float = TELEMETRY_TIMEOUT_S,
    **limits: Unpack[HostLimits],
) -> SelfHealing:
    """Record, measure and show the application's health from now on; `close()` of what is returned ends it.

    store: the folder that all workers write to; `$QIGHEAL_STORE`, else `.qigheal`.
    geometry: "sphere" for basins that may be signed, "simplex" for weights; telemetry="requests" takes the latter.
    telemetry: a callable, plain or async, that gives a mapping with phi, kappa_eff and basin_coords; or
        "requests", which makes them of the requests served. None: `app.gary_telemetry`, else
        `app.state.gary_telemetry`, a mapping or such a callable. `app.metrics` is read beside it.
    telemetry_timeout_s: how long either is waited for.
    monitor: one with a history, instead of `store`, `geometry` and limits; the caller closes it.
    every_s: seconds between snapshots; None: the application calls `handle.monitor.record` itself.
    host: the service's git repository. With it and heal="subprocess", one process for all workers heals it, every
        `heal_every_s`, unless a sidecar does. heal=None: none does.
    authorize: a FastAPI dependency that decides who may read, instead of the read token.
    prefix: where the routes lie. alerts: sinks of `qigheal.alerts`.
    widget_ancestors: the sites that may show the widget in a frame, as Content-Security-Policy's frame-ancestors has
        them: "https://status.example.org https://intranet.example.org"; "'self'": this one.
    limits: those of `qigheal.settings.MonitorSettings`.

    Raises SetupError when it is there already, or arguments do not go together.
    """
    try:
        from starlette.requests import ClientDisconnect
    except ImportError as error:
        raise MissingExtra(
            error.name or "fastapi", "fastapi", "self-healing of a FastAPI application"
        ) from error

    if getattr(app.state, STATE, None) is not None:
        raise SetupError(
            "app: expected an application without self-healing, got one that has it already; close() the handle "
            f"in app.state.{STATE} first"
        )
    handle = hosted(
        app,
        prefix,
        (
            ("app.gary_telemetry", lambda: getattr(app, "gary_telemetry", None)),
            ("app.state.gary_telemetry", lambda: getattr(app.state, "gary_telemetry", None)),
        ),
        store=store,
        geometry=geometry,
        telemetry=telemetry,
        telemetry_timeout_s=telemetry_timeout_s,
        monitor=monitor,
        every_s=every_s,
        repo=host,
        heal=heal,
        heal_every_s=heal_every_s,
        alerts=alerts,
        widget_ancestors=widget_ancestors,
        limits=limits,
    )
    try:
        setattr(app.state, STATE, handle)
        handle.undone_by(lambda: delattr(app.state, STATE))
        _add_routes(app, handle, host, authorize, prefix, widget_ancestors)
        _measure(app, handle, prefix, ClientDisconnect)
        if _in_lifespan():
            _close_with_task(handle)
            handle.starting()
        else:
            _wrap_lifespan(app, handle)
            if app.middleware_stack is not None:  # it runs, as when a lifespan calls this in another thread
                handle.start()
    except BaseException:
        handle.close()
        raise
    return handle


def _measure(app: FastAPI, handle: SelfHealing, prefix: str, gone: type[Exception]) -> None:
    """Outside of all middleware, also where the application has built its stack already and takes no more."""

    def around(inner: App) -> MeasuredAsgi:
        measured = MeasuredAsgi(inner, handle.meter, prefix, (gone,), first=handle.starting)
        handle.undone_by(lambda: _unwrap(app, measured))
        return measured

    if app.middleware_stack is not None:
        app.middleware_stack = around(app.middleware_stack)
        return
    build = app.build_middleware_stack
    own = vars(app).get("build_middleware_stack")

    def built() -> MeasuredAsgi:
        return around(build())

    app.build_middleware_stack = built  # type: ignore[method-assign]

    def restore() -> None:
        if vars(app).get("build_middleware_stack") is built:
            if own is None:
                del app.build_middleware_stack
            else:
                app.build_middleware_stack = own  # type: ignore[method-assign]

    handle.undone_by(restore)


def _unwrap(app: FastAPI, measured: MeasuredAsgi) -> None:
    measured.stop()  # what runs in it now, or has been wrapped once more, goes through it untouched
    if app.middleware_stack is measured:
        app.middleware_stack = measured.app


def _add_routes(
    app: FastAPI,
    handle: SelfHealing,
    repo: str | os.PathLike[str] | None,
    authorize: Callable[..., Any] | None,
    prefix: str,
    widget_ancestors: str,
) -> None:
    from qigheal.api import Api
    from qigheal.integrations.fastapi_routes import router as routes_of

    router = app.router
    schema, lifespan, before = app.openapi_schema, router.lifespan_context, list(router.routes)
    api = Api(
        handle.store,
        host=None if repo is None else Path(repo),
        take_snapshot=handle.take_asked,
        monitor=handle.monitor,
        prefix=prefix,
        widget_ancestors=widget_ancestors,
    )
    handle.undone_by(api.close)
    app.include_router(routes_of(api, authorize))
    router.lifespan_context = lifespan  # that of the routes' router does nothing
    added = [route for route in router.routes if not any(route is old for old in before)]
    # In front of the first route that would take their requests, such as one for all paths.
    router.routes[:] = before
    place = next((at for at, route in enumerate(before) if _takes(route, prefix)), len(before))
    router.routes[place:place] = added
    app.openapi_schema = None

    def remove() -> None:
        router.routes[:] = [route for route in router.routes if not any(route is ours for ours in added)]
        changed = getattr(router, "_mark_routes_changed", None)  # FastAPI's cache of the schema looks at it
        if changed is not None:
            changed()
        app.openapi_schema = schema

    handle.undone_by(remove)


def _takes(route: Any, prefix: str) -> bool:
    from starlette.routing import Match

    scope = {"type": "http", "method": "GET", "path": f"{prefix}/health", "root_path": "", "headers": []}
    try:
        return bool(route.matches(scope)[0] is not Match.NONE)
    except Exception:  # a route of somebody's own making that wants a real request
        return False


def _wrap_lifespan(app: FastAPI, handle: SelfHealing) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        if not handle.closed:
            handle.starting()
        try:
            async with inner(application) as state:
                yield state
        finally:
            from anyio import to_thread

            await to_thread.run_sync(handle.close)

    app.router.lifespan_context = lifespan

    def restore() -> None:
        if (
            app.router.lifespan_context is lifespan
        ):  # else somebody wrapped it once more, and it runs on, empty
            app.router.lifespan_context = inner

    handle.undone_by(restore)


def _in_lifespan() -> bool:
    """Whether this is called, by whatever way, from the application's lifespan, which can be wrapped no more."""
    from starlette.routing import Router

    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is Router.lifespan.__code__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _close_with_task(handle: SelfHealing) -> None:
    """The lifespan runs in a task of its own, which ends when the application has shut down."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio: the end of the process closes what is open
        return
    if task is None:
        return

    def closed(_: asyncio.Task[Any]) -> None:
        handle.close()

    task.add_done_callback(closed)

    def restore() -> None:
        if not task.done():
            task.remove_done_callback(closed)

    handle.undone_by(restore)
