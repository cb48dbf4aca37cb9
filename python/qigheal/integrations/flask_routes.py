"""The routes as a Flask blueprint.

Only what Flask does in its own way. What is answered is decided in `qigheal.api`. Nothing here records or starts
anything.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from qigheal.api import Api
from qigheal.api.access import too_many
from qigheal.api.exchange import MOST_BODY, Refused, refusal
from qigheal.api.exchange import Request as Asked
from qigheal.api.exchange import Response as Told
from qigheal.api.routes import ROUTES, Route
from qigheal.api.stream import EVENTS, MEDIA
from qigheal.errors import MissingExtra
from qigheal.integrations.web.dashboard_files import asset
from qigheal.integrations.web.ending import stopping
from qigheal.integrations.web.hosting import SetupError

try:
    from flask import Blueprint, Response, current_app, request
    from flask.sansio.blueprints import BlueprintSetupState
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response as AnyResponse
except ImportError as error:
    raise MissingExtra(error.name or "flask", "flask", "serving the routes by Flask") from error

Authorize = Callable[[], Any]
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


STREAMS: Final = 2
"""Live streams at once in a process: each takes one of the server's threads, of which there may be four."""

UNTHREADED_S: Final = 60.0


def blueprint(api: Api, authorize: Authorize | None = None, *, streams: int = STREAMS) -> Blueprint:
    """The routes of `api`, under its prefix, for `app.register_blueprint`.

    authorize: the host's own check of who may read, in place of the read token: it returns True for who may.
        Anything else refuses: a response, a tuple or a text of a response is sent, all other values are 401; it
        may also abort. `POST heal`, `POST snapshot` and reviews need their tokens all the same.
    streams: live streams at once in this process; 0: none. Where a process answers one request at a time there is none,
        whatever this says. The pages ask now and then where they get no stream.

    Raises SetupError for an async `authorize`, whose answer nobody would await.
    """
    if inspect.iscoroutinefunction(authorize) or inspect.iscoroutinefunction(
        getattr(authorize, "__call__", None)  # noqa: B004  # an object whose call is async
    ):
        raise SetupError(
            "authorize: expected a plain function, for Flask's views are none that await; got an async one; run "
            "what it awaits by asyncio.run in a plain function"
        )
    api.serve_pages(asset)
    made = Blueprint("qigheal", __name__, url_prefix=api.prefix)
    for route in ROUTES:
        rule = route.path.replace("{", "<").replace("}", ">")
        made.add_url_rule(
            rule,
            endpoint=route.name,
            view_func=_view(api, route, authorize, streams),
            methods=[route.method],  # GET takes HEAD along
            provide_automatic_options=False,
        )
    otherwise = _otherwise(api)
    for rule in ("/", "/<path:path>"):
        made.add_url_rule(
            rule,
            endpoint="otherwise",
            view_func=otherwise,
            methods=METHODS,
            provide_automatic_options=False,
        )
    made.record_once(_fitted)
    return made


def _fitted(into: BlueprintSetupState) -> None:
    """What of an application decides whether and how the routes are found in it."""
    rules = into.app.url_map
    if rules.host_matching:
        raise SetupError(
            "app: expected a Flask without host_matching=True, for the routes name no host and none of them would "
            "be found; put them into an application of their own, or run `qigheal serve` beside it"
        )
    name = ".".join(filter(None, (into.name_prefix, into.name)))
    for rule in rules.iter_rules(f"{name}.otherwise"):
        rule.methods = None  # all there are, PROPFIND too: Flask's own refusal would be a page of HTML


def _view(api: Api, route: Route, authorize: Authorize | None, streams: int) -> Callable[..., AnyResponse]:
    def view(**params: str) -> AnyResponse:
        permitted = _permitted(route, authorize)
        if isinstance(permitted, AnyResponse):
            return permitted
        asked = _asked(params, permitted)
        if isinstance(asked, Told):
            return _sent(asked)
        if route.name == "stream":
            return _stream(api, asked, streams)
        if route.name == "take_snapshot":
            return _sent(_snapshot(api, asked))
        return _sent(api.answer(route.name, asked))

    return view


def _otherwise(api: Api) -> Callable[..., Response]:
    def otherwise(path: str = "") -> Response:
        asked = _asked({}, None)
        return _sent(asked if isinstance(asked, Told) else api.unknown(path, asked))

    return otherwise


def _permitted(route: Route, authorize: Authorize | None) -> bool | AnyResponse | None:
    """What the host's check says, or its own refusal; on health a refusal only means that less is said."""
    if authorize is None:
        return None
    if route.right not in ("read", "glance"):
        return False
    try:
        said = authorize()
    except HTTPException:
        if route.right == "glance":
            return False
        raise
    if said is True:
        return True
    if inspect.iscoroutine(said):
        said.close()  # that it was never awaited need not be told beside the refusal
    if route.right == "read" and isinstance(said, AnyResponse | tuple | str | bytes):
        with suppress(TypeError, ValueError):  # no response can be made of it
            return current_app.make_response(said)
    return False


def _asked(params: dict[str, str], permitted: bool | None) -> Asked | Told:
    """The request, or the refusal of a body that the application (MAX_CONTENT_LENGTH) or the server does not take."""
    try:
        body = request.stream.read(MOST_BODY + 1)
    except HTTPException as error:
        status = error.code or 400
        word = "too_large" if status == 413 else "invalid"
        return refusal(Refused(status, word, f"body: {error.description}"))
    # WSGI has headers as text of Latin-1, whatever bytes came.
    authorization = request.environ.get("HTTP_AUTHORIZATION")
    return Asked(
        method=request.method,
        params=params,
        query=list(request.args.items(multi=True)),
        headers={name.lower(): value for name, value in request.headers.items()},
        authorization=() if authorization is None else (authorization.encode("latin-1", "replace"),),
        client=request.remote_addr or "",
        body=body,
        permitted=permitted,
    )


def _sent(told: Told) -> Response:
    return Response([told.body], told.status, list(told.headers))


def _snapshot(api: Api, asked: Asked) -> Told:
    refused = api.may_take_snapshot(asked)
    take = api.take_snapshot
    if refused is not None or take is None:
        return refused if refused is not None else api.taken(None)
    taken: Any
    try:
        taken = take()
        if inspect.isawaitable(taken):
            taken = asyncio.run(_awaited(taken))
    except Exception as problem:  # of the host's own reading, whatever it is
        taken = problem
    return api.taken(taken)


async def _awaited(taken: Any) -> Any:
    return await taken


def _stream(api: Api, asked: Asked, streams: int) -> Response:
    refused = api.may_stream(asked)
    if refused is not None:
        return _sent(refused)
    if not request.environ.get("wsgi.multithread"):
        why = "this process answers one request at a time, and a stream would hold up all others"
        return _sent(refusal(too_many(why, UNTHREADED_S)))
    events = api.listen(streams, stopping)
    if isinstance(events, Told):
        return _sent(events)
    return Response(events, 200, [*EVENTS], mimetype=MEDIA)
