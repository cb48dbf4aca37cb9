"""Places that alerts go to, as real servers on free ports of this machine, and sinks without a network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

from qigheal.alerts import Alert, SendFailed

PATIENCE_S = 60.0
Answer = tuple[int, dict[str, str]] | Callable[["Hook"], tuple[int, dict[str, str]]]


class Hook:
    """A web server that notes what is posted, and answers in turn what it is told; then 200."""

    def __init__(self, answers: list[Answer]) -> None:
        self.posted: queue.Queue[dict[str, Any]] = queue.Queue()
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.gone = threading.Event()
        hook = self
        left = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.headers.append(dict(self.headers))
                hook.paths.append(self.path)
                hook.posted.put(json.loads(body))
                answer = next(left, (200, {}))
                code, headers = answer(hook) if callable(answer) else answer
                with contextlib.suppress(OSError):
                    self.send_response(code)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(b"ok")

            def do_GET(self) -> None:  # what a redirect would be followed with
                hook.paths.append(f"GET {self.path}")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/SECRET"

    def hang(self) -> tuple[int, dict[str, str]]:
        self.gone.wait(PATIENCE_S)
        return 200, {}

    def next(self) -> dict[str, Any]:
        return self.posted.get(timeout=PATIENCE_S)


@contextlib.contextmanager
def hooked(*answers: Answer) -> Iterator[Hook]:
    hook = Hook(list(answers))
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        hook.gone.set()
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """(Port, whether somebody has connected) of a server that accepts and says nothing for ever."""
    met = threading.Event()
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])
                    met.set()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], met
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in taken:
                each.close()


class Post:
    """A mail server's mailbox."""

    def __init__(self, refusals: list[str]) -> None:
        self.mails: queue.Queue[tuple[list[str], EmailMessage]] = queue.Queue()
        self.logins: list[tuple[bytes, bytes]] = []
        self.refusals = iter(refusals)
        self.port = 0

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith(("450", "550")):
            return f"{address[:3]} not this one"
        envelope.rcpt_tos.append(address)
        return "250 this one"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if refused := next(self.refusals, ""):
            return refused
        message = BytesParser(policy=default).parsebytes(envelope.content)
        assert isinstance(message, EmailMessage)
        self.mails.put((envelope.rcpt_tos, message))
        return "250 taken"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)

    def next(self) -> tuple[list[str], EmailMessage]:
        return self.mails.get(timeout=PATIENCE_S)


@contextlib.contextmanager
def posted(
    *refusals: str, certificate: Path | None = None, login: bool = False, wrapped: bool = False
) -> Iterator[Post]:
    """wrapped: TLS from the start, and not by STARTTLS."""
    post = Post(list(refusals))
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    loop = asyncio.new_event_loop()

    def protocol() -> SMTP:
        return SMTP(
            post,
            hostname="localhost",
            loop=loop,
            tls_context=None if wrapped else context,
            authenticator=post.authenticate if login else None,
        )

    server = loop.run_until_complete(
        loop.create_server(protocol, "127.0.0.1", 0, ssl=context if wrapped else None)
    )
    post.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)

    try:
        yield post
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def certified(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, its key beside it."""
    path = folder / "mail.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    return path


class Heard:
    """A sink that keeps what it is given; the first `failing` attempts fail."""

    def __init__(self, name: str = "heard", failing: int = 0, *, again: bool = True) -> None:
        self.name = name
        self.alerts: list[Alert] = []
        self.tries = 0
        self.failing = failing
        self.again = again

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        self.tries += 1
        if self.tries <= self.failing:
            raise SendFailed("not now", again=self.again)
        self.alerts.append(alert)


class Stuck:
    """A sink that hangs until it is stopped, as a well-behaved one does."""

    def __init__(self, name: str = "stuck") -> None:
        self.name = name
        self.taken = threading.Event()

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        self.taken.set()
        stop.wait(PATIENCE_S)
        raise SendFailed("stopped")


class Deaf:
    """A sink that hangs and does not even listen to being stopped, until `gone` is set."""

    def __init__(self, name: str = "deaf") -> None:
        self.name = name
        self.taken = threading.Event()
        self.gone = threading.Event()
        self.sent = 0

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        self.taken.set()
        self.gone.wait(PATIENCE_S)
        self.sent += 1
