"""The routes as a FastAPI router, and as an application of their own.

Only what FastAPI does in its own way: requests are read off the event loop, the stream is sent on it. What is
answered is decided in `qigheal.api`. Nothing here records or starts anything.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from qigheal.api import Access, Api
from qigheal.api.description import SCHEMES, operation
from qigheal.api.exchange import MOST_BODY, Right
from qigheal.api.exchange import Request as Asked
from qigheal.api.exchange import Response as Told
from qigheal.api.routes import ROUTES, Route
from qigheal.api.stream import EVENTS, KEEP_ALIVE, MEDIA, Client, Stream
from qigheal.errors import MissingExtra
from qigheal.integrations.web.dashboard_files import asset
from qigheal.integrations.web.ending import cut, stopping

try:
    from anyio import CapacityLimiter, to_thread
    from anyio.lowlevel import RunVar
    from fastapi import APIRouter, Depends, FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import StreamingResponse
    from fastapi.routing import APIRoute
    from fastapi.security import HTTPBearer
    from starlette.exceptions import HTTPException
    from starlette.types import Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra(error.name or "fastapi", "fastapi", "serving the routes by FastAPI") from error

T = TypeVar("T")
Authorize = Callable[..., Any]
SAID: Final = "qigheal.said"
"""Where a request's scope holds what the host's check returned."""

THREADS: Final = 8
"""Threads that the routes take at most, all together: those of the host's own plain endpoints stay free."""

_threads: Final[RunVar[CapacityLimiter]] = RunVar("qigheal_threads")  # of each event loop

LOOK_S: Final = 0.5
"""How often a stream looks whether the server is being stopped, and whether its client still reads."""

SEND_S: Final = 10.0
"""After which a client that does not read is cut off."""

_SCHEMES: Final[dict[Right, HTTPBearer]] = {
    right: HTTPBearer(scheme_name=name, description=told, auto_error=False)
    for right, (name, told) in SCHEMES.items()
}


def router(api: Api, authorize: Authorize | None = None) -> APIRouter:
    """The routes of `api`, under its prefix, for `app.include_router`.

    authorize: a dependency of the host's that replaces the read token: it raises for who may not read, or returns
        False (401) or a response, which is sent. Any other value permits, None too, as dependencies that only
        raise give it. `POST heal`, `POST snapshot` and reviews need their tokens all the same.
    """
    api.serve_pages(asset)
    made = APIRouter(prefix=api.prefix, tags=["self-healing"])
    for route in ROUTES:
        guarded = authorize is not None and route.right in ("read", "glance")
        endpoint = _endpoint(api, route, guarded=guarded, checked=authorize is not None)
        described = operation(route)
        glancing = _glancing(api) if guarded and route.right == "glance" else None
        schemes: list[Any] = []
        if guarded and authorize is not None:
            schemes = [Depends(_verdict(authorize))]
        elif route.right != "page":
            schemes = [Depends(_SCHEMES["read" if route.right == "glance" else route.right])]
        open_too: dict[str, Any] = {"security": [{}]} if route.right == "glance" and not guarded else {}
        made.add_api_route(
            route.path,
            endpoint,
            methods=[route.method],
            name=f"qigheal_{route.name}",
            operation_id=f"qigheal_{route.name}",
            dependencies=schemes,
            response_class=Response,
            response_model=None,
            status_code=min(map(int, described["responses"])),
            summary=described["summary"],
            description=described["description"],
            openapi_extra={
                key: value
                for key, value in described.items()
                if key in ("parameters", "requestBody", "responses")
            }
            | open_too,
            route_class_override=glancing,
        )
        if route.method == "GET":
            made.add_api_route(
                route.path,
                endpoint,
                methods=["HEAD"],
                dependencies=schemes,
                include_in_schema=False,
                response_model=None,
                route_class_override=glancing,
            )
    made.add_api_route(
        "/{path:path}",
        _otherwise(api),
        methods=[],  # which is all of them, PROPFIND too
        operation_id="qigheal_otherwise",
        include_in_schema=False,
        response_model=None,
    )
    return made


def standalone(
    store: Path,
    host: Path | None = None,
    access: Access | None = None,
    *,
    widget_ancestors: str = "'self'",
) -> FastAPI:
    """An application of the routes alone, over a store that services write. The arguments are those of `Api`."""
    api = Api(store, host=host, access=access, widget_ancestors=widget_ancestors)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await _in_thread(api.close)

    app = FastAPI(title="qigheal", description="Self-healing beside a service", lifespan=lifespan)
    app.state.qigheal_api = api
    app.include_router(router(api))
    return app


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """What `function` gives, which blocks. It waits while THREADS of them are at work."""
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _threads.set(limiter)
    return await to_thread.run_sync(partial(function, *args), limiter=limiter)


def _verdict(authorize: Authorize) -> Callable[..., None]:
    """The host's dependency, and what it gave kept for the endpoint."""

    def verdict(request: Request, said: Any = Depends(authorize)) -> None:  # noqa: B008  # how FastAPI is told
        # Of a plain function around an async one: nobody knows what it would say.
        if inspect.iscoroutine(said):
            said.close()
            said = False
        request.scope[SAID] = said

    return verdict


def _endpoint(
    api: Api, route: Route, *, guarded: bool, checked: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        permitted = False if checked else None
        if guarded:
            said = request.scope.get(SAID, False)
            if isinstance(said, Response) and route.right == "read":
                return said
            permitted = said is not False and not isinstance(said, Response)
        asked = await _asked(request, permitted)
        if route.name == "stream":
            return await _stream(api, asked)
        if route.name == "take_snapshot":
            return _sent(await _snapshot(api, asked))
        return _sent(await _in_thread(api.answer, route.name, asked))

    endpoint.__doc__ = None
    return endpoint


def _otherwise(api: Api) -> Callable[[Request], Awaitable[Response]]:
    async def otherwise(request: Request) -> Response:
        path = request.path_params["path"]
        asked = await _asked(request, None)
        return _sent(api.unknown(path, asked))

    return otherwise


def _glancing(api: Api) -> type[APIRoute]:
    """Of a health route whose reader the host checks: whom it turns away still gets status and severity."""

    class Glancing(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
            full = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await full(request)
                except HTTPException as refused:  # also that of FastAPI, which derives from it
                    if refused.status_code >= 500:
                        raise
                except RequestValidationError:  # it lacks what the host's check looks at
                    pass
                asked = await _asked(request, False)
                return _sent(await _in_thread(api.answer, "health", asked))

            return handler

    return Glancing


async def _asked(request: Request, permitted: bool | None) -> Asked:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            break
    return Asked(
        method=request.method,
        params={name: str(value) for name, value in request.path_params.items()},
        query=request.query_params.multi_items(),
        headers={name.lower(): value for name, value in request.headers.items()},
        authorization=tuple(value for name, value in request.headers.raw if name.lower() == b"authorization"),
        client=request.client.host if request.client is not None else "",
        body=bytes(body),
        permitted=permitted,
    )


def _sent(told: Told) -> Response:
    return Response(told.body, told.status, dict(told.headers))


async def _snapshot(api: Api, asked: Asked) -> Told:
    refused = await _in_thread(api.may_take_snapshot, asked)
    take = api.take_snapshot
    if refused is not None or take is None:
        return refused if refused is not None else api.taken(None)
    taken: Any
    try:
        taken = take() if inspect.iscoroutinefunction(take) else await _in_thread(take)
        if inspect.isawaitable(taken):
            taken = await taken
    except Exception as problem:  # of the host's own reading, whatever it is
        taken = problem
    return api.taken(taken)


async def _stream(api: Api, asked: Asked) -> Response:
    refused = await _in_thread(api.may_stream, asked)
    if refused is not None:
        return _sent(refused)
    loop, something = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(something.set)

    client = await _in_thread(api.begin_stream, wake)
    if not isinstance(client, Client):
        return _sent(client)
    return _Events(api.stream, client, something)


class _Events(StreamingResponse):
    """A client's events. However the request ends, and even if it never begins, the client leaves.

    One that does not read is cut off, at once where the stream is over: a server would wait for it for ever.
    """

    def __init__(self, stream: Stream, client: Client, something: asyncio.Event) -> None:
        super().__init__(_events(stream, client, something), media_type=MEDIA, headers=dict(EVENTS))
        self._stream, self._client = stream, client
        self._since: float | None = None  # when the chunk that is being sent was begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        looking: asyncio.TimerHandle

        async def timed(message: Message) -> None:
            self._since = loop.time()
            await send(message)
            self._since = None

        def look() -> None:
            nonlocal looking
            most = LOOK_S if self._client.over or stopping() else SEND_S
            if self._since is not None and loop.time() - self._since > most:
                cut(scope)
                limit.reschedule(loop.time())
            else:
                looking = loop.call_later(LOOK_S, look)

        looking = loop.call_later(LOOK_S, look)
        try:
            async with asyncio.timeout(None) as limit:
                await super().__call__(scope, receive, timed)
        except TimeoutError:
            if not limit.expired():
                raise
            await asyncio.sleep(0)  # the server takes notice of the cut first, and has nothing to complain of
        finally:
            looking.cancel()
            self._stream.leave(self._client)


async def _events(stream: Stream, client: Client, something: asyncio.Event) -> AsyncIterator[bytes]:
    quiet, last = 0.0, False
    while not last:
        try:
            await asyncio.wait_for(something.wait(), min(LOOK_S, stream.keep_alive_s))
        except TimeoutError:
            quiet += LOOK_S
        something.clear()
        last = client.over or stopping()
        if taken := client.take():
            quiet = 0.0
            yield taken
        elif quiet >= stream.keep_alive_s:
            quiet = 0.0
            yield KEEP_ALIVE
