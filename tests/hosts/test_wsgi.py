from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from qigheal.integrations.web.metering import EventMeter, Meter
from qigheal.integrations.web.wsgi import MeasuredWsgi

OWN = "/api/self-healing"


def call(app: Any, path: str = "/", **environ: Any) -> tuple[Iterable[bytes], list[str]]:
    given: dict[str, Any] = {"PATH_INFO": path, **environ}
    setup_testing_defaults(given)
    said: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        said.append(status)
        return said.append

    return app(given, start_response), said


def app_of(status: str, body: Any = (b"x",)) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [])
        return body

    return app


@pytest.mark.parametrize(
    ("status", "errors"), [("200 OK", 0), ("404 Not Found", 0), ("500 Oh", 1), ("503", 1), ("what", 1)]
)
def test_only_what_the_service_did_wrong_is_an_error(status: str, errors: int) -> None:
    meter = Meter()
    body, said = call(MeasuredWsgi(app_of(status), meter, OWN))
    assert list(body) == [b"x"]
    assert said == [status]
    assert meter.read()[:2] == (1, errors)


def test_an_exception_reaches_the_server_and_counts_once() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise ValueError("mine")

    meter = Meter()
    with pytest.raises(ValueError, match="mine"):
        call(MeasuredWsgi(app, meter, OWN))
    assert meter.read()[:2] == (1, 1)


class Body:
    """A streamed body that knows whether it was closed."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.closed = False
        self.breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        if self.breaks:
            raise OSError("gone")
        yield b"b"

    def close(self) -> None:
        self.closed = True


def test_a_streamed_body_goes_through_and_is_closed_and_counts_until_it_begins() -> None:
    meter, streamed = Meter(), Body()
    body, _ = call(MeasuredWsgi(app_of("200 OK", streamed), meter, OWN))
    assert meter.read()[:2] == (1, 0)
    assert list(body) == [b"a", b"b"]
    assert not streamed.closed
    body.close()  # type: ignore[attr-defined]
    assert streamed.closed
    assert meter.read()[:2] == (0, 0)


def test_a_body_that_breaks_off_is_an_error() -> None:
    meter = Meter()
    body, _ = call(MeasuredWsgi(app_of("200 OK", Body(breaks=True)), meter, OWN))
    with pytest.raises(OSError, match="gone"):
        list(body)
    assert meter.read()[:2] == (1, 1)


def test_an_application_that_starts_its_response_late_is_measured_then() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("503 No", [])
        yield b"late"

    meter = Meter()
    body, said = call(MeasuredWsgi(app, meter, OWN))
    assert (said, meter.read().requests) == ([], 0)
    assert list(body) == [b"late"]
    assert (said, meter.read()[:2]) == (["503 No"], (1, 1))


@pytest.mark.parametrize("body", [[b"x"], (b"x",)])
def test_a_body_that_servers_look_at_stays_what_it_is(body: Any) -> None:
    assert call(MeasuredWsgi(app_of("200 OK", body), Meter(), OWN))[0] is body


def test_a_file_stays_one(tmp_path: Any) -> None:
    with open(tmp_path / "file", "w+b") as file:
        wrapped = FileWrapper(file)
        app = MeasuredWsgi(app_of("200 OK", wrapped), Meter(), OWN)
        server: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
        assert call(app, **server)[0] is wrapped


def test_the_write_callable_is_the_servers() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])("written")
        return []

    assert call(MeasuredWsgi(app, Meter(), OWN))[1] == ["200 OK", "written"]


def test_its_own_routes_are_not_measured() -> None:
    meter = Meter()
    call(MeasuredWsgi(app_of("200 OK"), meter, OWN), f"{OWN}/health")
    assert meter.read().requests == 0
    assert meter.served


class _Broken(Meter):
    def append(self, seconds: float) -> None:
        raise MemoryError


def test_what_goes_wrong_in_measuring_never_reaches_the_host() -> None:
    meter = _Broken()
    assert list(call(MeasuredWsgi(app_of("200 OK"), meter, OWN))[0]) == [b"x"]
    assert meter.troubles == 1


def test_stopped_it_measures_nothing_and_answers_on() -> None:
    meter = Meter()
    app = MeasuredWsgi(app_of("200 OK"), meter, OWN)
    app.stop()
    assert list(call(app)[0]) == [b"x"]
    assert meter.read().requests == 0


def test_events_name_rules() -> None:
    from flask import Flask

    app, meter = Flask("x"), EventMeter()
    app.add_url_rule("/items/<int:item>", view_func=lambda item: f"{item}", endpoint="item")
    measured = MeasuredWsgi(app.wsgi_app, meter, OWN)
    for path in ("/items/1", "/items/2", "/nowhere"):
        body, _ = call(measured, path)
        list(body)
        body.close()  # type: ignore[attr-defined]
    assert set(meter._names.values()) == {"GET /items/<int:item> 2xx", "GET - 4xx"}
