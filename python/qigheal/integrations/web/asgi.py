"""Measures an ASGI application from outside: how long until a response begins, and whether it is an error.

`MeasuredAsgi` stands around the host's whole stack of middleware. It changes no message, swallows no exception
and adds nothing to a scope; websockets and lifespans go through untouched. No framework is imported here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from qigheal.integrations.web.metering import BROKE_OFF, CANCELLED, EventMeter, Meter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class MeasuredAsgi:
    """`app`, its HTTP requests told to `meter`.

    own: path under which qigheal's own routes lie, without the root path; they are not measured.
    not_errors: exceptions that say that the client went away. first: called before the first request.

    The latency is the time from the call until the response begins (`http.response.start`): a body that is
    streamed for minutes does not count. An exception or a status from 500 on is an error. A request that is
    cancelled before its response began is neither fast nor slow, and counted apart.
    """

    def __init__(
        self,
        app: App,
        meter: Meter,
        own: str,
        not_errors: tuple[type[BaseException], ...] = (),
        first: Callable[[], None] = lambda: None,
    ) -> None:
        self.app = app
        self._meter = meter
        self._own = own.rstrip("/") + "/"
        self._not_errors = not_errors
        self._first = first
        self._kind = "http"
        self._event = meter.event if isinstance(meter, EventMeter) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != self._kind:
            await self.app(scope, receive, send)
            return
        meter = self._meter
        if not meter.served:
            self._began()
        path, root = scope["path"], scope.get("root_path")
        if path.startswith(self._own) or (root and path.removeprefix(root).startswith(self._own)):
            await self.app(scope, receive, send)
            return
        status = 0

        # A plain function that hands on what `send` returns: a coroutine of its own would cost as much again.
        def measured(message: Message) -> Awaitable[None]:
            nonlocal status
            if not status and message["type"] == "http.response.start":
                seconds = perf_counter() - started
                status = self._begun(seconds, scope, root, message)
            return send(message)

        started = perf_counter()
        try:
            await self.app(scope, receive, measured)
        except Exception as error:
            if not isinstance(error, self._not_errors):
                self._failed(perf_counter() - started, scope, root, status)
            elif not status:
                meter.append(CANCELLED)
            raise
        except BaseException:  # cancelled, or the process is told to end
            if not status:
                meter.append(CANCELLED)
            raise
        if not status:  # the server will answer for it, with 500
            self._failed(perf_counter() - started, scope, root, status)

    def stop(self) -> None:
        """Measure no further request: all go through untouched."""
        self._kind = ""

    def _began(self) -> None:
        self._meter.served = True
        try:
            self._first()
        except Exception:  # say, no more threads; whatever it is, it is not the host's to handle
            self._meter.troubled()

    def _begun(self, seconds: float, scope: Scope, root: str | None, message: Message) -> int:
        try:
            status = int(message["status"])
        except Exception:  # whatever it is, the server says so; nothing good is said of it here
            status = 599
        self._tell(seconds if status < 500 else -seconds, scope, root, status)
        return status

    def _failed(self, seconds: float, scope: Scope, root: str | None, status: int) -> None:
        if not status:
            self._tell(-seconds, scope, root, 500)
        elif status < 500:
            self._meter.append(BROKE_OFF)

    def _tell(self, seconds: float, scope: Scope, root: str | None, status: int) -> None:
        try:
            self._meter.append(seconds)
            if self._event is not None:
                self._event(scope["method"], template(scope, root), status)
        except Exception:
            self._meter.troubled()


def template(scope: Scope, root: str | None) -> str | None:
    """The path of the route that answers, its parameters as names; None where no route does.

    Known from when a router has chosen until the response has begun. Routes of mounted applications have the path
    of the mount in front; of one whose path has parameters, such as a tenant, their names alone.
    """
    # FastAPI keeps a router's own path in the route, and the one that it was included under here.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    mounted = (scope.get("root_path") or "").removeprefix(root or "")
    if mounted:
        # A scope has the mount's path as it was asked for, and its parameters beside those of the route.
        params = [f"{{{name}" for name in scope.get("path_params") or ()]
        outer = [f"/{param}}}" for param in params if f"{param}}}" not in path and f"{param}:" not in path]
        mounted = "".join(outer) or mounted
    return mounted + path
