"""What measuring adds to a request, beside the bare application and prometheus-fastapi-instrumentator in one run.

    python -m benchmarks.bench_web

ASGI applications are called in-process: one with a handler that does nothing, and a FastAPI application with one
route. Turns of 2 ms alternate for many rounds; printed are medians over the rounds of what is added to the bare one
of the same round, and of the ratio to it. WSGI likewise.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from qigheal.integrations.web.asgi import MeasuredAsgi
from qigheal.integrations.web.metering import EventMeter, Meter
from qigheal.integrations.web.wsgi import MeasuredWsgi

App = Callable[..., Awaitable[None]]

PREFIX = "/api/self-healing"
TURN_S = 0.002
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/items/7",
    "raw_path": b"/items/7",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"{}"}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The handler that does nothing but answer."""
    await send(START)
    await send(BODY)


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Where answers go."""


def _prometheus(app: App) -> App:
    from prometheus_client import CollectorRegistry
    from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware

    return PrometheusInstrumentatorMiddleware(app, registry=CollectorRegistry())


def _fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        return {"item": item}

    return app


def asgi() -> dict[str, App]:
    """Candidates around the handler that does nothing; "bare" is the one that the others are compared with."""
    found: dict[str, App] = {
        "bare": nothing,
        "qigheal": MeasuredAsgi(nothing, Meter(), PREFIX),
        "qigheal, telemetry='requests'": MeasuredAsgi(nothing, EventMeter(), PREFIX),
    }
    try:
        found["prometheus-fastapi-instrumentator"] = _prometheus(nothing)
    except ImportError:
        print("prometheus-fastapi-instrumentator: not installed", file=sys.stderr)
    return found


def fastapi() -> dict[str, App]:
    """The same around a FastAPI application."""
    bare = _fastapi()
    found: dict[str, App] = {
        "bare": bare,
        "qigheal": MeasuredAsgi(bare, Meter(), PREFIX),
        "qigheal, telemetry='requests'": MeasuredAsgi(bare, EventMeter(), PREFIX),
    }
    try:
        app = _fastapi()
        found["prometheus-fastapi-instrumentator"] = app
        from prometheus_client import CollectorRegistry
        from prometheus_fastapi_instrumentator import Instrumentator

        Instrumentator(registry=CollectorRegistry()).instrument(app)
    except ImportError:
        del found["prometheus-fastapi-instrumentator"]
    return found


async def asgi_turn(app: App, count: int) -> float:
    """Seconds a request."""
    started = time.perf_counter()
    for _ in range(count):
        await app(SCOPE.copy(), receive, send)
    return (time.perf_counter() - started) / count


def wsgi() -> dict[str, Callable[..., Any]]:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    return {"bare": app, "qigheal": MeasuredWsgi(app, Meter(), PREFIX)}


async def wsgi_turn(app: Callable[..., Any], count: int) -> float:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/items/7"}

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        """Where answers go."""

    started = time.perf_counter()
    for _ in range(count):
        for _ in app(environ.copy(), start_response):
            pass
    return (time.perf_counter() - started) / count


async def measure(
    candidates: Mapping[str, Callable[..., Any]], turn: Callable[[Any, int], Awaitable[float]], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """By candidate: µs a request, µs added to the bare one, ratio to the bare one; medians over the rounds."""
    counts = {}
    for name, app in candidates.items():
        await turn(app, 20)
        counts[name] = max(5, int(TURN_S / await turn(app, 50)))
    found: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            found[name].append(1e6 * await turn(candidates[name], counts[name]))
    bare = found["bare"]
    return {
        name: (
            statistics.median(each),
            statistics.median(a - b for a, b in zip(each, bare, strict=True)),
            statistics.median(a / b for a, b in zip(each, bare, strict=True)),
        )
        for name, each in found.items()
    }


def main() -> None:
    for title, candidates, turn in (
        ("ASGI, a handler that does nothing", asgi(), asgi_turn),
        ("a FastAPI application with one route", fastapi(), asgi_turn),
        ("WSGI, a handler that does nothing", wsgi(), wsgi_turn),
    ):
        print(title)
        for name, (cost, added, ratio) in asyncio.run(measure(candidates, turn, 300)).items():
            print(f"  {name:36} {cost:8.2f} µs   added {added:6.2f} µs   ratio {ratio:6.3f}")


if __name__ == "__main__":
    main()
