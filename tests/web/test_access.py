"""Who may ask for what, and how often a wrong token may be tried."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import flask
import pytest
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.security import APIKeyHeader

from qigheal.api import Access, Api
from qigheal.api.limits import WINDOW_S, Limits
from qigheal.api.routes import ROUTES
from qigheal.integrations.web.hosting import SetupError
from tests.web.conftest import Make
from tests.web.serving import HEAL, READ, REVIEW, WRONG, Framework, Web, access
from tests.web.stores import recorded

ID = "0123456789abcdef"
READING = [
    route.path.format(id=ID).lstrip("/")
    for route in ROUTES
    if route.right == "read" and route.name != "stream"
]
POSTING = {"heal": HEAL, "snapshot": HEAL, f"patches/{ID}/review": REVIEW}


@pytest.mark.parametrize("path", [*READING, "stream"])
def test_reading_needs_a_token(web: Web, path: str) -> None:
    without = web(path, token=None)
    assert (without.status, without.json["error"]) == (401, "unauthorized")
    assert without.headers["www-authenticate"] == 'Bearer realm="qigheal"'
    wrong = web(path, token=WRONG)
    assert wrong.status == 401
    assert wrong.headers["www-authenticate"] == 'Bearer realm="qigheal", error="invalid_token"'


@pytest.mark.parametrize("path", READING)
def test_each_token_reads(web: Web, path: str) -> None:
    assert {web(path, token=token).status for token in (READ, HEAL, REVIEW)} <= {200, 404, 409}


@pytest.mark.parametrize("path", POSTING)
def test_each_act_needs_its_own_token(web: Web, path: str) -> None:
    assert web.post(path, token=None).status == 401
    for token in {READ, HEAL, REVIEW} - {POSTING[path]}:
        answer = web.post(path, token=token)
        assert (answer.status, answer.json["error"]) == (403, "forbidden")
    assert web.post(path, token=POSTING[path]).json["error"] in ("no_host", "automatic", "invalid")


@pytest.mark.parametrize("path", [*READING, *POSTING])
def test_none_configured_says_how_to_enable(serve: Make, path: str) -> None:
    web = serve(access=Access(environ={}))
    answer = web(path, method="POST" if path in POSTING else "GET")
    assert (answer.status, answer.json["error"]) == (403, "disabled")
    assert (
        f"set QIGHEAL_{ {HEAL: '', REVIEW: 'REVIEW_'}.get(POSTING.get(path, ''), 'READ_') }TOKEN"
        in (answer.json["detail"])
    )
    assert web("health").json == {"status": "learning", "severity": "normal"}


def test_an_empty_token_is_none() -> None:
    assert not Access(environ={"QIGHEAL_READ_TOKEN": " "}).enabled("read")
    assert Access(environ={"QIGHEAL_TOKEN": "x"}).enabled("read")


@pytest.mark.parametrize(
    "header",
    [
        b"Bearer",
        b"Bearer ",
        b"bearer\t" + READ.encode(),
        b"Basic cmVhZA==",
        READ.encode(),
        b"\xff\xfe",
        b"Bearer \xff",
        b"Bearer " + READ.encode() + b" x",
        b"Bearer,Bearer",
        b"Digest a=b",
        b"Bearer " + b"x" * 5000,
    ],
)
def test_odd_headers_are_unauthorized(web: Web, header: bytes) -> None:
    assert web("trends", token=None, headers={"Authorization": header}).status == 401


def test_the_scheme_has_no_case(web: Web) -> None:
    assert web("trends", token=None, headers={"Authorization": b"bEARER  " + READ.encode()}).status == 200


def test_tokens_come_from_headers_alone(web: Web) -> None:
    for query in (f"token={READ}", f"access_token={READ}", f"authorization=Bearer%20{READ}"):
        assert web(f"trends?{query}", token=None).status == 401


def test_tokens_are_read_when_it_is_made(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    monkeypatch.setenv("QIGHEAL_READ_TOKEN", READ)
    api = Api(store)
    monkeypatch.delenv("QIGHEAL_READ_TOKEN")
    assert api.access.enabled("read")


def test_nothing_tells_a_token(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [web("trends", token=token) for token in (HEAL, WRONG)] + [web.post("heal", token=REVIEW)]
    told = caplog.text + repr(access()) + "".join(answer.body.decode() for answer in answers)
    assert not [token for token in (READ, HEAL, REVIEW, WRONG) if f"{token}" in told.replace("a wrong", "")]


def test_wrong_tokens_are_counted_per_address_over_all_workers(
    serve: Make, store: Path, framework: Framework
) -> None:
    recorded(store)
    web, other = serve(access=access(wrong_per_minute=3)), serve(access=access(wrong_per_minute=3))
    for number in range(3):
        assert (web, other)[number % 2]("trends", token=WRONG).status == 401
    for worker in (web, other):
        answer = worker("trends")  # a right one is not looked at either: else guessing went on
        assert (answer.status, answer.json["error"]) == (429, "too_many")
        assert 0 < int(answer.headers["retry-after"]) <= WINDOW_S
        assert worker("health", token=None).status == 200
        assert worker("trends", client="192.0.2.2").status == 200


def test_a_missing_token_is_no_guess(serve: Make, store: Path) -> None:
    recorded(store)
    web = serve(access=access(wrong_per_minute=1))
    for _ in range(5):
        assert web("trends", token=None).status == 401
    assert web("trends").status == 200


def test_acts_are_limited(serve: Make, store: Path) -> None:
    recorded(store)
    web = serve(host=store, access=access(heals_per_minute=2))
    assert [web.post("heal", token=HEAL).status for _ in range(3)] == [200, 200, 429]
    assert web("trends").status == 200


@pytest.mark.parametrize("why", ["no store", "a folder in its place", "nonsense in it"])
def test_a_store_that_cannot_count_does_not_stop_the_routes(serve: Make, store: Path, why: str) -> None:
    if why != "no store":
        recorded(store)
    if why == "a folder in its place":
        (store / "web-limits.json").mkdir()
    if why == "nonsense in it":
        (store / "web-limits.json").write_bytes(b"\xff{")
    web = serve(access=access(wrong_per_minute=2))
    assert [web("trends", token=WRONG).status for _ in range(3)] == [401, 401, 429]
    assert not (why == "no store" and store.exists())


@pytest.mark.parametrize("short", [True, False], ids=["a short write", "no write"])
def test_a_full_disk_switches_no_limit_off(
    serve: Make, store: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    recorded(store)
    web, other = serve(access=access(wrong_per_minute=4)), serve(access=access(wrong_per_minute=4))
    assert web("trends", token=WRONG).status == 401
    write = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) <= os.fstat(descriptor).st_size:
            return write(descriptor, data, offset)
        if not short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:-1], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert [web("trends", token=WRONG).status for _ in range(4)] == [401, 401, 401, 429]
        assert other("trends", token=WRONG).status == 401  # which counts by itself, from what was written
    web.api._rated("heal", 1)
    assert other("trends").status == 429  # what was counted meanwhile is written as soon as there is room


def test_a_minute_later_it_may_be_tried_again(tmp_path: Path) -> None:
    now = [1000.0]
    limits, other = (Limits(tmp_path, lambda: now[0]) for _ in range(2))
    assert [limits.note("x", 2), other.note("x", 2)] == [0.0, 0.0]
    now[0] += 20.0
    assert limits.note("x", 2) == other.wait("x", 2) == 40.0
    assert other.wait("y", 2) == 0.0
    now[0] += 41.0
    assert other.note("x", 2) == 0.0
    now[0] = 5.0  # started anew, and its clock with it
    assert limits.wait("x", 1) == 0.0


def test_addresses_without_end_are_forgotten(tmp_path: Path) -> None:
    limits = Limits(tmp_path)
    for number in range(1100):
        limits.note(f"wrong {number}")
    assert (tmp_path / "web-limits.json").stat().st_size < 100_000
    assert limits.wait("wrong 1099", 1) > 0
    assert (tmp_path / "web-limits.json").stat().st_mode & 0o777 == 0o600


def host_check(framework: Framework) -> Any:
    """A check as a host has it: a header of its own, 401 without."""
    if framework == "fastapi":
        from fastapi import Header, HTTPException

        def depends(x_user: str = Header()) -> None:
            if x_user != "ada":
                raise HTTPException(401, "who are you?")

        return depends

    def aborts() -> bool:
        if flask.request.headers.get("X-User") != "ada":
            flask.abort(401)
        return True

    return aborts


def test_a_host_checks_who_reads(serve: Make, store: Path, framework: Framework) -> None:
    recorded(store, phi=0.2)
    web = serve(host_check(framework), access=Access(environ={}, heal=HEAL))
    known: Any = {"token": None, "headers": {"X-User": "ada"}}
    stranger: Any = {"token": None, "headers": {"X-User": "eve"}}
    assert (web("trends", **known).status, web("trends", **stranger).status) == (200, 401)
    assert web("trends", token=READ).status in (401, 422)  # the token is no longer asked for
    assert "metrics" in web("health", **known).json
    for nobody in (stranger, {"token": None}):
        assert (web("health", **nobody).status, len(web("health", **nobody).json)) == (503, 2)
    assert web.post("heal", **known).status == 401
    assert web.post("heal", token=HEAL, headers={"X-User": "ada"}).json["error"] == "no_host"


async def _never_awaited() -> bool:
    return True


def _unawaited() -> Any:
    return _never_awaited()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (lambda: True, 200),
        (lambda: False, 401),
        (lambda: None, 401),
        (lambda: 1, 401),
        (lambda: {"user": "ada"}, 401),
        (lambda: (True, "ada"), 401),  # no response can be made of it
        (_unawaited, 401),
        (lambda: ("who are you?", 403), 403),
        (lambda: flask.redirect("/login"), 302),
        (lambda: flask.Response("no", 418), 418),
    ],
)
def test_only_true_permits_in_flask(store: Path, said: Any, status: int) -> None:
    recorded(store)
    web = Web("flask", Api(store, access=Access(environ={})), said)
    assert web("trends", token=None).status == status
    assert len(web("health", token=None).json) == (2 if status != 200 else 11)


def test_an_async_check_is_no_check_in_flask(store: Path) -> None:
    class Async:
        async def __call__(self) -> bool:
            return False

    for check in (_never_awaited, Async()):
        with pytest.raises(SetupError, match="plain function"):
            Web("flask", Api(store, access=Access(environ={})), check)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (lambda: True, 200),
        (lambda: None, 200),
        (lambda: {"user": "ada"}, 200),
        (lambda: False, 401),
        (_unawaited, 401),
        (lambda: RedirectResponse("/login"), 307),
        (lambda: PlainTextResponse("no", 403), 403),
    ],
)
def test_what_a_dependency_returns_counts_in_fastapi(store: Path, said: Any, status: int) -> None:
    recorded(store)
    web = Web("fastapi", Api(store, access=Access(environ={})), said)
    assert web("trends", token=None).status == status
    assert web("trends", token=None, method="HEAD").status == status
    assert len(web("health", token=None).json) == (2 if status != 200 else 11)


def test_health_stays_open_beside_a_scheme_that_refuses(store: Path) -> None:
    recorded(store)
    key = APIKeyHeader(name="X-Key")  # raises the exception of Starlette
    web = Web("fastapi", Api(store, access=Access(environ={})), key)
    assert web("trends", token=None).status in (401, 403)
    assert (web("health", token=None).status, len(web("health", token=None).json)) == (200, 2)
    assert web("trends", token=None, headers={"X-Key": "any"}).status == 200


def test_one_client_has_many_addresses_of_its_own(serve: Make, store: Path) -> None:
    recorded(store)
    web = serve(access=access(wrong_per_minute=2))
    for address in ("2001:db8::1", "2001:db8::2"):
        assert web("trends", token=WRONG, client=address).status == 401
    assert web("trends", client="2001:db8::3").status == 429
    assert web("trends", client="2001:db8:0:1::1").status == 200
