"""One face for both frameworks: a request goes through the whole of the framework, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flask
import httpx
from fastapi import FastAPI

from qigheal.api import Access, Api
from qigheal.integrations.fastapi_routes import router
from qigheal.integrations.flask_routes import blueprint

Framework = Literal["fastapi", "flask"]
FRAMEWORKS: tuple[Framework, ...] = ("fastapi", "flask")
READ, HEAL, REVIEW, WRONG = "read-Φ", "heal-token", "review-token", "wrong"


def access(**changes: Any) -> Access:
    return Access(**{"read": READ, "heal": HEAL, "review": REVIEW, "environ": {}} | changes)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_refused)


def _refused(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


class Web:
    """A host application with the routes in it."""

    def __init__(self, framework: Framework, api: Api, authorize: Callable[..., Any] | None = None) -> None:
        self.framework, self.api = framework, api
        self.app: Any
        if framework == "fastapi":
            self.app = FastAPI(title="host")
            self.app.include_router(router(api, authorize))
        else:
            self.app = flask.Flask("host")
            self.app.register_blueprint(blueprint(api, authorize))

    def __call__(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | bytes | None = READ,
        headers: Mapping[str, Any] | None = None,
        body: Any = None,
        client: str = "192.0.2.1",
    ) -> Answer:
        """`path` below the prefix, with its query. body: bytes, or what is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = b"Bearer " + (token.encode() if isinstance(token, str) else token)
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        url = f"/api/self-healing/{path}"
        if self.framework == "fastapi":
            return asyncio.run(_asgi(self.app, method, url, sent, content, client))
        plain = {name: v.decode("latin-1") if isinstance(v, bytes) else v for name, v in sent.items()}
        with self.app.test_client() as browser:
            got = browser.open(
                url, method=method, headers=plain, data=content, environ_base={"REMOTE_ADDR": client}
            )
            return Answer(got.status_code, httpx.Headers(list(got.headers)), got.data)

    def post(self, path: str, **options: Any) -> Answer:
        return self(path, method="POST", **options)


async def _asgi(
    app: Any, method: str, url: str, headers: dict[str, Any], content: bytes | None, client: str
) -> Answer:
    transport = httpx.ASGITransport(app, client=(client, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as browser:
        got = await browser.request(method, url, headers=headers, content=content)
        return Answer(got.status_code, got.headers, got.content)
