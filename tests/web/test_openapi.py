"""The OpenAPI description: the same for every framework, complete, and kept by what is answered."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI
from pydantic import BaseModel
from schemathesis.engine import events, from_schema
from werkzeug.serving import make_server

from qigheal.api import PREFIX, Api, examples
from qigheal.api.routes import ROUTES
from qigheal.integrations.fastapi_routes import router
from tests.web.conftest import Make
from tests.web.serving import Framework, Web, access
from tests.web.stores import judge, ledger, opened, patch, recorded
from tests.web.test_pages import FILES

ALL = "every-right"
EXAMPLES = 8
"""Cases that are drawn for each operation and kind of data, beside those that cover it."""


def configured(token: str | None) -> schemathesis.Config:
    project: dict[str, Any] = {
        "operations": [{"include-path-regex": "/stream$", "enabled": False}],  # it has no end
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
    }
    if token is not None:
        project["headers"] = {"Authorization": f"Bearer {token}"}
    return schemathesis.Config.from_dict(project | {"seed": 1})


def failures(schema: Any) -> list[str]:
    """Everything that any check of any phase finds, and every error; asserts that something was checked."""
    found: list[str] = []
    checked = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(f"{event.label if isinstance(event, events.NonFatalError) else ''} {event.info}")
        if isinstance(event, events.ScenarioFinished):
            for case, checks in event.recorder.checks.items():
                checked += len(checks)
                for check in checks:
                    if check.failure_info is not None:
                        sent = event.recorder.cases[case].value
                        failure = check.failure_info.failure
                        found.append(f"{sent.method} {sent.formatted_path} {sent.query}: {failure}")
    assert checked > 100
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("token", [ALL, None])
def test_every_answer_is_as_described(
    serve: Make, store: Path, framework: Framework, token: str | None
) -> None:
    recorded(store)
    book = ledger(store)
    judge(book, patch(1))
    opened(book, patch(2))
    many = access(
        read=ALL,
        heal=ALL,
        review=ALL,
        wrong_per_minute=10**6,
        heals_per_minute=10**6,
        snapshots_per_minute=10**6,
    )
    web = serve(host=store, access=many, asset=FILES.__getitem__, program=("true",))
    with ExitStack() as stack:
        if framework == "fastapi":
            schema = schemathesis.openapi.from_asgi("/openapi.json", web.app, config=configured(token))
        else:
            url = stack.enter_context(listening(web.app))
            schema = schemathesis.openapi.from_url(f"{url}{PREFIX}/openapi.json", config=configured(token))
        assert not failures(schema)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """A WSGI application on a free port; for its own sake, schemathesis cannot tell one what redirects to follow."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_both_serve_the_same(store: Path) -> None:
    api = Api(store, access=access())
    assert Web("flask", api)("openapi.json").body == Web("fastapi", api)("openapi.json").body


def described(prefix: str = PREFIX) -> Any:
    answer = Web("flask", Api(Path("nowhere"), access=access(), prefix=prefix))("openapi.json")
    return answer.json


def test_every_route_says_all(store: Path) -> None:
    document = described()
    operations = {
        (method.upper(), path.removeprefix(PREFIX)): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {(route.method, route.path) for route in ROUTES}
    for (method, path), operation in operations.items():
        assert operation["summary"], path
        assert operation["description"], path
        codes = set(operation["responses"])
        assert {"200", "202"} & codes, path
        if operation["security"]:
            assert {"401", "429"} <= codes, path
        if method == "POST":
            assert "413" in codes, path
        for code, response in operation["responses"].items():
            assert response["description"], (path, code)
            for content in response.get("content", {}).values():
                assert "schema" in content, (path, code)
    assert "liveness" in operations["GET", "/health"]["description"]
    assert set(operations["GET", "/health"]["responses"]) >= {"200", "207", "503"}
    assert {"securitySchemes"} == set(document["components"])


def bare_of_nulls(document: Any) -> Any:
    """As FastAPI writes it, whose encoder leaves them out."""
    if isinstance(document, dict):
        return {key: bare_of_nulls(value) for key, value in document.items() if value is not None}
    return [bare_of_nulls(value) for value in document] if isinstance(document, list) else document


def examples_in(document: Any) -> list[tuple[Any, Any]]:
    """(schema, example) of every example of a body."""
    found = []
    for methods in document["paths"].values():
        for operation in methods.values():
            bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
            for content in (content for body in bodies for content in body.get("content", {}).values()):
                examples = [each["value"] for each in content.get("examples", {}).values()]
                found += [(content["schema"], each) for each in examples]
                if "example" in content:
                    found.append((content["schema"], content["example"]))
    return found


def test_examples_are_what_they_are_examples_of() -> None:
    found = examples_in(described()) + examples_in(bare_of_nulls(described()))
    assert len(found) > 30
    for schema, example in found:
        jsonschema_rs.validator_for(schema).validate(example)


def test_the_pages_examples_have_the_examples_ids() -> None:
    page = (Path(__file__).parents[2] / "docs/http.md").read_text()
    assert re.findall(r"POST \S+/patches/(\S+)/review HTTP", page) == [examples.PATCH_ID]
    assert re.findall(r'"fingerprint": "(.*?)"', page) == [examples.FINGERPRINT]
    assert re.findall(r'"id": "(.*?)"', page) == [examples.JOB_ID]


class Item(BaseModel):
    """A model of the host's own, with a name that is one of ours too."""

    name: str


class Snapshot(BaseModel):
    host: int


def test_a_hosts_own_description_is_left_as_it_was(store: Path) -> None:
    def host() -> FastAPI:
        app = FastAPI(title="shop", version="7")

        @app.post("/items", responses={404: {"model": Snapshot}})
        def make(item: Item) -> Item:
            return item

        return app

    bare, ours = host(), host()
    ours.include_router(router(Api(store, access=access())))
    before, after = bare.openapi(), ours.openapi()
    assert after["info"] == before["info"]
    assert after["components"]["schemas"] == before["components"]["schemas"]
    assert {path: after["paths"][path] for path in before["paths"]} == before["paths"]
    added = {path: after["paths"][path] for path in after["paths"] if path.startswith(PREFIX)}
    expected = bare_of_nulls(described())
    assert set(added) == set(expected["paths"])
    for path, methods in expected["paths"].items():
        for method, operation in methods.items():
            wanted = (
                operation
                if operation["security"]
                else {k: v for k, v in operation.items() if k != "security"}
            )
            assert added[path][method] == wanted, path
    assert after["components"]["securitySchemes"] == expected["components"]["securitySchemes"]
