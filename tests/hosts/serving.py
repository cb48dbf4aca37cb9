"""Applications driven in-process, without a server: lifespans entered and left, requests sent and answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

PATIENCE_S = 60.0


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until the condition holds; a machine that is busy may take its time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def state(phi: float = 0.7, seed: int = 0) -> dict[str, Any]:
    return {"phi": phi, "kappa_eff": 64.0, "basin_coords": np.random.default_rng(seed).normal(size=64)}


def threads() -> set[str]:
    """Threads of qigheal that run now."""
    return {each.name for each in threading.enumerate() if each.name.startswith("qigheal-")}


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """An application between start-up and shutdown, its lifespan in a task of its own as under a server."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    said = await outbox.get()
    assert said["type"] == "lifespan.startup.complete", said
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        said = await outbox.get()
        await task
        assert said["type"] == "lifespan.shutdown.complete", said
        await asyncio.sleep(0)  # what was to be called when the task is done


def http(path: str, method: str = "GET", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        **fields,
    }


async def get(
    app: Callable[..., Awaitable[None]], path: str, method: str = "GET", **fields: Any
) -> tuple[int, bytes]:
    """Status and body of one answer."""
    status, body = 0, b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            body += message.get("body", b"")

    await app(http(path, method, **fields), receive, send)
    return status, body
