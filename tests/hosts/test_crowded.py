"""Many requests at once that wait for something: the host's own threads stay free."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from qigheal.api import PREFIX, Access, Api
from qigheal.api.exchange import Request
from qigheal.integrations.fastapi import setup_self_healing
from qigheal.integrations.fastapi_routes import router
from tests.hosts.serving import PATIENCE_S, get, state


def test_slow_telemetry_takes_one_request_and_no_thread_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_TOKEN", "heal-token")
    app = FastAPI()
    reading, go = threading.Event(), threading.Event()

    def telemetry() -> dict[str, Any]:
        reading.set()
        assert go.wait(PATIENCE_S)
        return state()

    @app.get("/hi")
    def hi() -> str:
        return "hi"

    async def scenario() -> None:
        def post() -> Any:
            token = {"headers": [(b"host", b"testserver"), (b"authorization", b"Bearer heal-token")]}
            return asyncio.create_task(get(app, f"{PREFIX}/snapshot", "POST", **token))

        first = post()
        assert await asyncio.to_thread(reading.wait, PATIENCE_S)
        others = await asyncio.gather(*(post() for _ in range(45)))
        assert {(status, json.loads(body)["error"]) for status, body in others} == {(409, "busy")}
        assert (await get(app, "/hi"))[0] == 200
        go.set()
        assert (await first)[0] == 200

    with setup_self_healing(
        app, store=tmp_path / "store", telemetry=telemetry, every_s=None, telemetry_timeout_s=PATIENCE_S
    ):
        asyncio.run(scenario())


def test_whatever_hangs_in_the_routes_the_host_answers(tmp_path: Path) -> None:
    app = FastAPI()
    api = Api(tmp_path / "store", access=Access(environ={}, read="r"))
    entered, go = threading.Semaphore(0), threading.Event()

    def hangs(*_: Any) -> Any:
        entered.release()
        assert go.wait(PATIENCE_S)
        return api.unknown("nothing", Request())

    api.answer = hangs  # type: ignore[method-assign]
    app.include_router(router(api))

    @app.get("/hi")
    def hi() -> str:
        return "hi"

    async def scenario() -> None:
        asked = [asyncio.create_task(get(app, f"{PREFIX}/trends")) for _ in range(45)]
        assert await asyncio.to_thread(entered.acquire, True, PATIENCE_S)
        try:
            assert await asyncio.wait_for(get(app, "/hi"), PATIENCE_S) == (200, b'"hi"')
        finally:
            go.set()
        assert {status for status, _ in await asyncio.gather(*asked)} == {404}

    asyncio.run(scenario())
