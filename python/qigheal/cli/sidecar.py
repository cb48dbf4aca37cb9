"""What `qigheal serve` runs: routes, metrics and alerts in this process, the healer's loop in one of its own.

Knows what is started and how it ends; what is served, told or healed is decided in the rooms below.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qigheal.api import PREFIX
from qigheal.cli import USAGE
from qigheal.errors import EngineError, MissingExtra
from qigheal.healerchild import Pauses, begin, command, taken

if TYPE_CHECKING:
    from fastapi import FastAPI

    from qigheal.api.access import Access

GRACE_S: Final = 3
"""How long requests may still take when the server is told to end; a stream is ended at once."""

ENDING_S: Final = 10.0
"""How long the healer has for winding up what it began, before it is killed."""

AGAIN_S: Final = 30.0
"""From the end of one healer to the beginning of the next; twice as long each time while it cannot start."""


def loopback(address: str) -> bool:
    """Whether only this machine reaches a server that is bound there."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def bound(address: str, port: int) -> socket.socket:
    """A socket that listens there. Raises EngineError."""
    address = address.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=256)
    except OSError as error:
        raise EngineError(
            f"{address} port {port}: cannot be listened at: {error.strerror or error}; choose others with "
            "--bind and --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """Where that is, as a browser wants it."""
    address, port = listening.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def reached(listening: socket.socket) -> str:
    """Where others reach that, for a message: of all of this machine's addresses, its name."""
    address, port = listening.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        return f"http://{socket.gethostname()}:{port}"
    return url_of(listening)


def application(store: Path, host: Path | None, access: Access, widget_ancestors: str) -> FastAPI:
    """The routes of a store, its metrics at /metrics, and the dashboard at /. Raises MissingExtra.

    widget_ancestors: who may frame the widget, as Content-Security-Policy has it.
    """
    try:
        import fastapi
        import fastapi.responses
        import uvicorn  # noqa: F401  # whether the extra is there
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "serve", "qigheal serve") from error
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    from qigheal.integrations.fastapi_routes import standalone
    from qigheal.integrations.prometheus import HealthCollector

    registry = CollectorRegistry()
    HealthCollector(store, registry=registry)
    app = standalone(store, host, access, widget_ancestors=widget_ancestors)

    # Not coroutines: they run beside the event loop, which a large store would hold up.
    def metrics(request: Any) -> Any:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return fastapi.Response(encode(registry), media_type=kind, headers={"Cache-Control": "no-store"})

    def home() -> Any:
        return fastapi.responses.RedirectResponse(f"{PREFIX}/dashboard")

    metrics.__annotations__ = {"request": fastapi.Request}  # FastAPI looks here for what to hand over
    app.add_api_route("/metrics", metrics, include_in_schema=False, response_model=None)
    app.add_api_route("/", home, include_in_schema=False, response_model=None)
    return app


def run(app: FastAPI, listening: socket.socket, ended: Callable[[], bool]) -> None:
    """Serve until SIGTERM, SIGHUP or SIGINT, or until `ended` is true. Raises EngineError where it cannot begin."""
    import uvicorn

    class Server(uvicorn.Server):
        """It ends without raising the signal again: what else was started is still to be wound up."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            ending = [signal.SIGTERM, signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
                ending.append(signal.SIGHUP)
            before = {each: signal.signal(each, self.handle_exit) for each in ending}
            try:
                yield
            finally:
                for each, handler in before.items():
                    signal.signal(each, handler)

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or ended()

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise EngineError("the web server could not begin; what it said stands above")


def end_children(patience_s: float = ENDING_S) -> None:
    """Have every process that was started here, such as a job of the routes, end; kill what does not.

    What a pass of the healer had begun stands in the ledger, and the next one goes on with it.
    """
    waiting = _children()
    for number, until in ((signal.SIGTERM, time.monotonic() + patience_s), (signal.SIGKILL, math.inf)):
        for child in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        while waiting and time.monotonic() < until:
            waiting = [child for child in waiting if _lives(child)]
            time.sleep(0.02 if waiting else 0.0)


def _children() -> list[int]:
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as listed:
            found += [int(child) for child in listed.read().split()]
    return found


def _lives(child: int) -> bool:
    """Whether a child has not ended; one that has is reaped."""
    try:
        return os.waitpid(child, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


class Healer:
    """The healer's loop as a process of its own, without this one's secrets.

    A loop that ends is begun again after a while; only one that cannot read its arguments leaves its exit
    code in `failed`. While another healer works for the store there is none, and `pid` is 0. Used as a
    context; at the end the loop is told to end, waited for, and killed when it does not.
    """

    def __init__(self, host: Path, store: Path, every: str, say: Callable[[str], None]) -> None:
        self._argv: Sequence[str] = command(host, store, every)
        self._say = say
        self._said = ""
        self._pauses = Pauses(AGAIN_S)
        self._store = store
        self._waits = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._attend, name="qigheal-healer", daemon=True)
        self.failed: int | None = None

    def __enter__(self) -> Healer:
        self._begin()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._lock:
            child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join(ENDING_S)

    @property
    def pid(self) -> int:
        with self._lock:
            return 0 if self._child is None else self._child.pid

    def ended(self) -> bool:
        """Whether it cannot work here."""
        return self.failed is not None

    def _begin(self) -> None:
        """Start one, unless another healer works for the store, which is said once."""
        if (held := taken(self._store)) is None:
            if not self._waits:
                self._say(f"{self._store}: another healer works for this store; this one begins when it ends")
            self._waits = True
            return
        self._waits = False
        try:
            with self._lock:
                if not self._stop.is_set():
                    # A session of its own: Ctrl-C in the terminal reaches it once, by this process.
                    self._child = begin(self._argv, held, own_session=True)
            self._pauses.began()
        finally:
            os.close(held)  # the child's holds on

    def _attend(self) -> None:
        while not self._stop.is_set():
            pause = AGAIN_S
            with self._lock:
                child = self._child
            if child is not None:
                code = child.wait()
                if self._stop.is_set():
                    return
                if code == USAGE:
                    self.failed = code
                    return
                if self._pauses.steady():
                    self._said = ""
                pause = self._pauses.ended()
                self._once(
                    f"the healer ended with {code}; it begins again in {AGAIN_S:.0f} s, and ever more seldom while "
                    "it ends at once"
                )
                with self._lock:
                    self._child = None
            if self._stop.wait(pause):
                return
            try:
                self._begin()
            except OSError as error:
                self._once(f"the healer cannot be started: {error.strerror}")

    def _once(self, text: str) -> None:
        if text != self._said:
            self._say(text)
        self._said = text
