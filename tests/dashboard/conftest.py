"""One Chromium for all tests of the pages, and the routes under a real server."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.dashboard.scenes import Scene

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
READ, HEAL, REVIEW = "read-token", "heal-token", "review-token"
WAIT_MS = 30_000
HOSTILE = "<img src=x onerror=alert(1)>"


class Served(NamedTuple):
    """The routes of one store, and where they are."""

    url: str
    api: Any
    scene: Scene


# Not for the session: while it is open an event loop counts as running in this thread, and no test
# that comes after the pages could run one of its own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield made
        made.close()


@contextmanager
def serving(scene: Scene) -> Iterator[Served]:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    from qigheal.api import Access
    from qigheal.integrations.fastapi_routes import standalone

    access = Access(read=READ, heal=HEAL, review=REVIEW, environ={}, wrong_per_minute=50)
    app = standalone(scene.toy.store, host=scene.toy.path, access=access)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/self-healing/"
        try:
            yield Served(url, app.state.qigheal_api, scene)
        finally:
            server.should_exit = True
            app.state.qigheal_api.close()
            thread.join(30)
            assert not thread.is_alive(), "the server waits for a stream that does not end"


@pytest.fixture(autouse=True)
def jobs_find_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in another folder, and would else import what is installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture(scope="session")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A degraded service with a change that waits; its module has a hostile name."""
    scene = Scene(tmp_path_factory.mktemp("sick"), 1500, sick=60)
    scene.opened_at_once()
    scene.record(1, scene.gain, "c0de" * 10, HOSTILE)
    with serving(scene) as served:
        yield served


class Opened(NamedTuple):
    """A page, and what its console said."""

    page: Any
    faults: list[str]


Opener = Callable[..., Opened]


@pytest.fixture
def opener(browser: Any) -> Iterator[Opener]:
    """Open a page of a served store; at the end it must have logged no fault.

    tokens: by kind, in the session's storage beforehand. refusals: statuses that the test provokes.
    """
    with ExitStack() as stack:

        def open_page(
            served: Served,
            name: str = "dashboard",
            *,
            tokens: dict[str, str] | None = None,
            refusals: tuple[int, ...] = (),
            before: Callable[[Any], None] = lambda page: None,
            **options: Any,
        ) -> Opened:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
            stack.callback(context.close)
            context.set_default_timeout(WAIT_MS)
            for kind, token in ({"read": READ} if tokens is None else tokens).items():
                key = f"'qigheal.{kind}'"
                context.add_init_script(
                    f"sessionStorage.getItem({key}) ?? sessionStorage.setItem({key}, '{token}')"
                )
            page = context.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
            page.on("console", lambda said: faults.extend(_faults(said, refusals)))
            stack.callback(_clean, faults)
            before(page)
            page.goto(served.url + name)
            return Opened(page, faults)

        yield open_page


def _clean(faults: list[str]) -> None:
    assert not faults, faults


def _faults(said: Any, refusals: tuple[int, ...]) -> list[str]:
    """A browser logs each answer from 400 on; 503 is how `health` says critical."""
    if said.type not in ("error", "warning", "trace"):
        return []
    url = said.location.get("url", "")
    if url.endswith("/health") and "503" in said.text:
        return []
    if any(str(status) in said.text for status in refusals):
        return []
    return [f"{said.type}: {said.text} ({url})"]
