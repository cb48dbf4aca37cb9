from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qigheal.integrations.web.asgi import MeasuredAsgi
from qigheal.integrations.web.metering import EventMeter, Interval, Meter
from tests.hosts.serving import get, http

OWN = "/api/self-healing"


def answering(status: int = 200, *, error: BaseException | None = None, first: bool = True) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if first:
            await send({"type": "http.response.start", "status": status, "headers": []})
        if error is not None:
            raise error
        if first:
            await send({"type": "http.response.body", "body": b"x"})

    return app


def measured(app: Any, path: str = "/", **fields: Any) -> Interval:
    meter = Meter()

    async def one() -> None:
        await get(MeasuredAsgi(app, meter, OWN, (ConnectionError,)), path, **fields)

    asyncio.run(one())
    return meter.read()


@pytest.mark.parametrize(("status", "errors"), [(200, 0), (404, 0), (499, 0), (500, 1), (503, 1)])
def test_only_what_the_service_did_wrong_is_an_error(status: int, errors: int) -> None:
    found = measured(answering(status))
    assert (found.requests, found.errors) == (1, errors)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("status", [200, 500])
def test_an_exception_reaches_the_server_and_counts_once(first: bool, status: int) -> None:
    meter = Meter()
    app = MeasuredAsgi(answering(status, error=ValueError("mine"), first=first), meter, OWN)
    with pytest.raises(ValueError, match="mine"):
        asyncio.run(get(app, "/"))
    found = meter.read()
    assert (found.requests, found.errors) == (1, 1)


@pytest.mark.parametrize("first", [True, False])
def test_a_client_that_goes_away_is_no_error(first: bool) -> None:
    meter = Meter()
    app = MeasuredAsgi(answering(error=ConnectionError(), first=first), meter, OWN, (ConnectionError,))
    with pytest.raises(ConnectionError):
        asyncio.run(get(app, "/"))
    found = meter.read()
    assert (found.requests, found.errors, found.cancelled) == (int(first), 0, int(not first))


def test_an_application_that_answers_nothing_is_an_error() -> None:
    assert measured(answering(first=False))[:2] == (1, 1)


def test_a_cancelled_request_is_neither_fast_nor_failed() -> None:
    meter = Meter()
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def cancel() -> None:
        task = asyncio.create_task(get(MeasuredAsgi(app, meter, OWN), "/"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert meter.read() == Interval(0, 0, 1, None, None)


def test_a_streamed_body_counts_until_it_begins() -> None:
    meter = Meter()
    after: list[Interval] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        after.append(meter.read())
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"x"})

    asyncio.run(get(MeasuredAsgi(app, meter, OWN), "/"))
    assert after[0].requests == 1
    assert meter.read().requests == 0


@pytest.mark.parametrize(
    ("path", "root", "counted"),
    [
        (f"{OWN}/health", "", 0),
        (f"/mounted{OWN}/health", "/mounted", 0),
        (f"{OWN}x/health", "", 1),
        (f"/other{OWN}/health", "", 1),
    ],
)
def test_its_own_routes_are_not_measured(path: str, root: str, counted: int) -> None:
    assert measured(answering(), path, root_path=root).requests == counted


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_go_through_untouched(kind: str) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    scope = {"type": kind}
    asyncio.run(MeasuredAsgi(app, Meter(), OWN)(scope, receive, send))
    assert seen == [(scope, receive, send)]


class _Broken(Meter):
    def append(self, seconds: float) -> None:
        raise MemoryError


@pytest.mark.parametrize("status", [200, "what?", None])
def test_what_goes_wrong_in_measuring_never_reaches_the_host(status: Any) -> None:
    meter = _Broken()

    def first() -> None:
        raise RuntimeError("can't start new thread")

    app = MeasuredAsgi(answering(status), meter, OWN, first=first)
    assert asyncio.run(get(app, "/"))[1] == b"x"
    assert meter.troubles == 2


def test_stopped_it_measures_nothing_and_answers_on() -> None:
    meter = Meter()
    app = MeasuredAsgi(answering(), meter, OWN)
    app.stop()
    assert asyncio.run(get(app, "/")) == (200, b"x")
    assert meter.read().requests == 0


def test_the_scope_is_the_hosts() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        raise KeyError

    scope = http("/")
    given = dict(scope)

    async def nobody(*_: Any) -> None: ...

    with pytest.raises(KeyError):
        asyncio.run(MeasuredAsgi(app, Meter(), OWN)(scope, nobody, nobody))  # type: ignore[arg-type]
    assert scopes[0] is scope
    assert scope == given


def test_events_name_routes_by_template_under_routers_and_mounts() -> None:
    from fastapi import APIRouter, FastAPI

    app, inner, router = FastAPI(), FastAPI(), APIRouter(prefix="/items")

    @router.get("/{item}")
    async def one(item: int) -> int:
        return item

    @inner.get("/deep/{name}")
    async def deep(name: str) -> str:
        return name

    app.include_router(router, prefix="/v1")
    app.mount("/inner", inner)
    meter = EventMeter()
    outside = MeasuredAsgi(app, meter, OWN)

    async def ask() -> None:
        for path in ("/v1/items/7", "/v1/items/8", "/inner/deep/x", "/nowhere"):
            await get(outside, path)

    asyncio.run(ask())
    assert set(meter._names.values()) == {
        "GET /v1/items/{item} 2xx",
        "GET /inner/deep/{name} 2xx",
        "GET - 4xx",
    }


def test_tenants_are_no_kinds_of_requests() -> None:
    from fastapi import FastAPI

    app, tenant, area = FastAPI(), FastAPI(), FastAPI()

    @tenant.get("/users/{user}")
    async def user(user: str) -> str:
        return user

    @area.get("/here")
    async def here() -> None: ...

    tenant.mount("/in/{kind}", area)
    app.mount("/{tenant}", tenant)
    meter = EventMeter()
    outside = MeasuredAsgi(app, meter, OWN)

    async def ask() -> None:
        for number in range(5):
            await get(outside, f"/tenant{number}/users/{number}")
            await get(outside, f"/tenant{number}/in/{number}/here")
            await get(outside, f"/tenant{number}/nowhere")

    asyncio.run(ask())
    assert set(meter._names.values()) == {
        "GET /{tenant}/users/{user} 2xx",
        "GET /{tenant}/{kind}/here 2xx",
        "GET - 4xx",
    }
