"""Measures a WSGI application from outside: how long until a response begins, and whether it is an error.

The twin of `asgi`, with the same rules. Bodies go through as they are, and are closed by the server as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from qigheal.integrations.web.metering import BROKE_OFF, CANCELLED, EventMeter, Meter

Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]


class MeasuredWsgi:
    """`app`, its requests told to `meter`.

    own: path under which qigheal's own routes lie; they are not measured. first: called before the first request.

    The latency is the time from the call until `start_response` is called: a body that is streamed does not
    count. An exception, also one in the body, or a status from 500 on is an error.
    """

    def __init__(self, app: App, meter: Meter, own: str, first: Callable[[], None] = lambda: None) -> None:
        self.app = app
        self._meter = meter
        self._own = own.rstrip("/") + "/"
        self._first = first
        self._event = meter.event if isinstance(meter, EventMeter) else None
        self._open = True

    def stop(self) -> None:
        """Measure no further request: all go through untouched."""
        self._open = False

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if not self._open:
            return self.app(environ, start_response)
        meter = self._meter
        if not meter.served:
            self._began()
        if environ.get("PATH_INFO", "").startswith(self._own):
            return self.app(environ, start_response)
        one = _Request(self, environ, start_response)
        try:
            body = self.app(environ, one.start_response)
        except Exception:
            one.failed()
            raise
        except BaseException:
            one.cancelled()
            raise
        if one.status and (isinstance(body, (list, tuple)) or _is_file(environ, body)):
            return body  # nothing of the host's runs any more, and servers look at what it is
        return _Body(body, one)

    def _began(self) -> None:
        self._meter.served = True
        try:
            self._first()
        except Exception:  # say, no more threads; whatever it is, it is not the host's to handle
            self._meter.troubled()

    def tell(self, seconds: float, environ: Environ, status: int) -> None:
        try:
            self._meter.append(seconds)
            if self._event is not None:
                self._event(environ.get("REQUEST_METHOD", ""), template(environ), status)
        except Exception:
            self._meter.troubled()

    def broke_off(self) -> None:
        self._meter.append(BROKE_OFF)

    def left(self) -> None:
        self._meter.append(CANCELLED)


class _Request:
    """One request: its status once the response has begun, 0 before."""

    __slots__ = ("_environ", "_measured", "_start_response", "_started", "status")

    def __init__(self, measured: MeasuredWsgi, environ: Environ, start_response: Any) -> None:
        self.status = 0
        self._measured = measured
        self._environ = environ
        self._start_response = start_response
        self._started = perf_counter()

    def start_response(self, status: str, headers: Any, *exc_info: Any) -> Any:
        if not self.status:
            seconds = perf_counter() - self._started
            try:
                self.status = int(status[:3])
            except Exception:  # the server says what is wrong; nothing good is said of it here
                self.status = 599
            self._measured.tell(seconds if self.status < 500 else -seconds, self._environ, self.status)
        return self._start_response(status, headers, *exc_info)

    def failed(self) -> None:
        if not self.status:
            self.status = 500
            self._measured.tell(self._started - perf_counter(), self._environ, 500)
        elif self.status < 500:
            self.status = 500
            self._measured.broke_off()

    def cancelled(self) -> None:
        if not self.status:
            self._measured.left()


class _Body:
    """What the application gave, handed on as it comes; a failure in it is told."""

    __slots__ = ("_body", "_next", "_one")

    def __init__(self, body: Iterable[bytes], one: _Request) -> None:
        self._body = body
        self._one = one
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._next is None:
                self._next = iter(self._body).__next__
            return self._next()
        except StopIteration:
            raise
        except Exception:
            self._one.failed()
            raise

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def _is_file(environ: Environ, body: object) -> bool:
    """Whether the server may send it without reading it."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def template(environ: Environ) -> str | None:
    """The rule that answers, its parameters as names; None where none does."""
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    found = getattr(rule, "rule", None)
    return found if isinstance(found, str) else None
