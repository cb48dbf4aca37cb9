from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g

from qigheal.api import PREFIX
from qigheal.integrations.flask import setup_self_healing
from qigheal.integrations.web.hosting import SelfHealing, SetupError
from qigheal.standing import Standing
from tests.hosts.serving import state, threads, until

HEALTH = f"{PREFIX}/health"


def made() -> Flask:
    app = Flask("host")

    @app.get("/items/<int:item>")
    def one(item: int) -> str:
        if item == 500:
            raise ValueError("broken")
        return str(item)

    @app.before_request
    def before() -> None:
        g.host = True

    app.gary_telemetry = state()  # type: ignore[attr-defined]
    return app


def shape(app: Flask) -> dict[str, Any]:
    """What of an application self-healing could leave something in."""
    return {
        "attributes": {name: value for name, value in vars(app).items() if name != "url_map"},
        "tables": {
            name: dict(value)
            for name, value in vars(app).items()
            if isinstance(value, dict) and name not in ("config", "__dict__")
        },
        "rules": sorted((rule.rule, str(rule.endpoint)) for rule in app.url_map.iter_rules()),
    }


def test_it_records_measures_and_answers(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store", every_s=0.02) as handle:
        assert app.extensions["qigheal"] is handle
        until(lambda: len(handle.monitor.snapshots) >= 2)  # without a request
        seen: list[Any] = []
        client = app.test_client()
        assert client.get("/items/7").text == "7"
        assert client.get("/items/500").status_code == 500

        def measured() -> bool:
            seen.append(handle.interval)
            return any(each.requests for each in seen)

        until(measured)
        answer = client.get(HEALTH)
        status = answer.json["status"]  # type: ignore[index]
        # How many snapshots there are by now depends on how busy the machine is.
        assert (
            answer.status_code == {"learning": 200, "healthy": 200, "warning": 207, "critical": 503}[status]
        )
    batch = Standing(tmp_path / "store").last().batch
    assert len(batch) == len(handle.monitor.snapshots)
    until(lambda: not threads(), "the end of the threads")


def test_figures_of_requests(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        client = app.test_client()
        for item in (1, 2, 3, 500):
            client.get(f"/items/{item}")
        client.get("/nowhere")
        client.get(HEALTH)
        taken = handle.take()
        assert taken is not None
        assert handle.interval[:3] == (5, 1, 0)
        assert taken.error_rate == pytest.approx(0.2)
        assert taken.avg_latency_ms > 0.0


def test_closed_it_leaves_the_application_as_it_was(tmp_path: Path) -> None:
    app = made()
    before = shape(app)
    handle = setup_self_healing(app, store=tmp_path / "store")
    assert shape(app) != before
    handle.close()
    handle.close()
    assert shape(app) == before
    assert not threads()
    client = app.test_client()
    assert client.get(HEALTH).status_code == 404
    assert client.get("/items/7").text == "7"


def test_closed_after_requests_it_answers_as_before(tmp_path: Path) -> None:
    app = made()
    handle = setup_self_healing(app, store=tmp_path / "store")
    client = app.test_client()
    assert client.get(HEALTH).status_code == 200
    assert client.get("/items/7").text == "7"
    handle.close()
    assert client.get(HEALTH).status_code == 404
    assert client.get("/items/7").text == "7"
    assert client.post("/items/7").status_code == 405
    with app.test_request_context():
        from flask import url_for

        assert url_for("one", item=3) == "/items/3"


def test_an_application_factory_makes_as_many_as_it_likes(tmp_path: Path) -> None:
    handles: list[SelfHealing] = []

    def create_app(name: str) -> Flask:
        app = made()
        handles.append(setup_self_healing(app, store=tmp_path / name))
        return app

    apps = [create_app("a"), create_app("b")]
    for app, handle in zip(apps, handles, strict=True):
        app.test_client().get("/items/1")
        assert handle.meter.read().requests == 1
        handle.close()


def test_twice_and_too_late_are_refused(tmp_path: Path) -> None:
    app = made()
    with (
        setup_self_healing(app, store=tmp_path / "a"),
        pytest.raises(SetupError, match="has it already; close"),
    ):
        setup_self_healing(app, store=tmp_path / "b")
    app.test_client().get("/items/7")
    with pytest.raises(SetupError, match="answered no request yet"):
        setup_self_healing(app, store=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_async_telemetry_runs_in_the_tickers_thread(tmp_path: Path) -> None:
    async def telemetry() -> dict[str, Any]:
        await asyncio.sleep(0)
        return state(0.6)

    with setup_self_healing(made(), store=tmp_path / "store", every_s=0.02, telemetry=telemetry) as handle:
        until(lambda: len(handle.monitor.snapshots))
        assert handle.monitor.snapshots[0].phi == 0.6


def test_telemetry_among_the_extensions(tmp_path: Path) -> None:
    app = Flask("host")
    app.extensions["gary_telemetry"] = lambda: state(0.6)
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        taken = handle.take()
        assert taken is not None
        assert taken.phi == 0.6


def test_the_requests_themselves_as_telemetry(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store", telemetry="requests") as handle:
        client = app.test_client()
        for number in range(501):
            client.get(f"/items/{number + 1000}")
        taken = handle.take()
        assert taken is not None
        assert taken.kappa_eff == pytest.approx(1.0)  # one kind of request


def test_the_parent_of_the_reloader_waits_for_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WERKZEUG_RUN_MAIN", raising=False)
    app = made()
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        assert not handle.ticker.idle
        app.debug = True
        assert handle.ticker.idle
        monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")
        assert not handle.ticker.idle
        monkeypatch.delenv("WERKZEUG_RUN_MAIN")
        app.test_client().get("/items/7")
        assert not handle.ticker.idle


def test_another_prefix(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store", prefix="/ops/heal"):
        assert app.test_client().get("/ops/heal/health").status_code == 200
        assert app.test_client().get(HEALTH).status_code == 404


def test_an_application_that_matches_hosts_is_refused(tmp_path: Path) -> None:
    app = Flask("host", host_matching=True, static_host="example.org")
    before = shape(app)
    with pytest.raises(SetupError, match="host_matching"):
        setup_self_healing(app, store=tmp_path / "store")
    assert shape(app) == before
    assert not threads()


def test_refusals_of_bodies_and_methods_are_documents(tmp_path: Path) -> None:
    app = made()
    app.config["MAX_CONTENT_LENGTH"] = 10
    with setup_self_healing(app, store=tmp_path / "store"):
        client = app.test_client()
        for answer, error in (
            (client.post(f"{PREFIX}/heal", data=b"x" * 11), (413, "too_large")),
            (client.put(f"{PREFIX}/nothing", data=b"x" * 11), (413, "too_large")),
            (client.open(HEALTH, method="PROPFIND"), (405, "method")),
            (client.open(f"{PREFIX}/nothing", method="ANY"), (404, "not_found")),
        ):
            assert answer.json is not None
            assert (answer.status_code, answer.json["error"]) == error
    assert app.test_client().open("/items/7", method="PROPFIND").status_code == 405
