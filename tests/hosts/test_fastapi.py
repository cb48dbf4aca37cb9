from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from qigheal import GeometricHealthMonitor
from qigheal.api import PREFIX
from qigheal.integrations.fastapi import setup_self_healing
from qigheal.integrations.web.hosting import SelfHealing, SetupError
from qigheal.standing import Standing
from tests.hosts.serving import get, running, state, threads, until

HEALTH = f"{PREFIX}/health"


def made(lifespan: Any = None) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/items/{item}")
    async def one(item: int) -> int:
        if item == 500:
            raise ValueError("broken")
        return item

    app.gary_telemetry = state()  # type: ignore[attr-defined]
    return app


def shape(app: FastAPI) -> dict[str, Any]:
    """What of an application self-healing could leave something in."""
    return {
        "attributes": {name: value for name, value in vars(app).items() if name != "_openapi_routes_version"},
        "state": dict(app.state._state),
        "routes": list(app.router.routes),
        "router": {name: value for name, value in vars(app.router).items() if name != "_routes_version"},
        "middleware": list(app.user_middleware),
    }


def open_files(folder: Path) -> list[str]:
    """Files under a folder that this process holds open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return [name for name in found if name.startswith(str(folder))]


def before_startup(store: Path, handles: list[SelfHealing], **how: Any) -> FastAPI:
    app = made()
    handles.append(setup_self_healing(app, store=store, every_s=0.02, **how))
    return app


def in_lifespan(store: Path, handles: list[SelfHealing], **how: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        handles.append(setup_self_healing(app, store=store, every_s=0.02, **how))
        yield

    return made(lifespan)


def on_startup(store: Path, handles: list[SelfHealing], **how: Any) -> FastAPI:
    app = made()
    app.router.on_startup.append(
        lambda: handles.append(setup_self_healing(app, store=store, every_s=0.02, **how))
    )
    return app


WAYS = pytest.mark.parametrize("way", [before_startup, in_lifespan, on_startup])


@WAYS
def test_it_records_measures_answers_and_ends_with_the_application(way: Any, tmp_path: Path) -> None:
    handles: list[SelfHealing] = []
    app = way(tmp_path / "store", handles)

    async def run() -> None:
        async with running(app):
            (handle,) = handles
            assert app.state.self_healing is handle
            for _ in range(3):
                assert (await get(app, "/items/7"))[0] == 200
            with pytest.raises(ValueError, match="broken"):
                await get(app, "/items/500")
            seen: list[Any] = []

            def recorded() -> bool:
                seen.append(handle.interval)
                return len(handle.monitor.snapshots) >= 3 and any(each.requests for each in seen)

            await asyncio.to_thread(until, recorded)
            status, body = await get(app, HEALTH)
            # How many snapshots there are by now depends on how busy the machine is.
            codes = {"learning": 200, "healthy": 200, "warning": 207, "critical": 503}
            assert status == codes[json.loads(body)["status"]]
            assert PREFIX + "/health" in app.openapi()["paths"]
        assert handles[0].closed
        assert (await get(app, HEALTH))[0] == 404
        assert (await get(app, "/items/7"))[0] == 200

    asyncio.run(run())
    until(lambda: not threads(), "the end of the threads")
    (handle,) = handles
    batch = Standing(tmp_path / "store").last().batch
    assert len(batch) == len(handle.monitor.snapshots)
    assert max(batch.error_rate) > 0.0
    assert max(batch.avg_latency_ms) > 0.0
    assert min(batch.memory_mb) > 10.0


def test_closed_it_leaves_the_application_as_it_was(tmp_path: Path) -> None:
    app = made()
    app.openapi()
    before, paths = shape(app), set(app.openapi()["paths"])
    handle = setup_self_healing(app, store=tmp_path / "store")
    handle.take()
    assert asyncio.run(get(app, HEALTH))[0] == 200
    assert shape(app) != before
    assert open_files(tmp_path)
    handle.close()
    handle.close()
    after = shape(app)
    after["attributes"]["middleware_stack"] = None  # the host's own by now
    assert after == before
    assert not open_files(tmp_path)
    assert set(app.openapi()["paths"]) == paths
    assert not threads()


def test_closed_while_it_runs_it_leaves_the_application_as_it_was(tmp_path: Path) -> None:
    app = made()

    async def run() -> None:
        async with running(app):
            before = shape(app)
            with setup_self_healing(app, store=tmp_path / "store", every_s=0.02) as handle:
                assert (await get(app, HEALTH))[0] == 200
                assert (await get(app, "/items/7"))[0] == 200
                assert handle.meter.read().requests == 1
            assert shape(app) == before
            assert (await get(app, HEALTH))[0] == 404

    asyncio.run(run())


def test_twice_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "a"):
        before = shape(app)
        with pytest.raises(SetupError, match="has it already; close"):
            setup_self_healing(app, store=tmp_path / "b")
        assert shape(app) == before
        assert not (tmp_path / "b").exists()
    setup_self_healing(app, store=tmp_path / "b").close()


def test_a_call_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    app = made()
    before = shape(app)
    for wrong, words in (
        ({"every_s": -1.0}, "every_s: expected seconds"),
        ({"telemetry": 7}, "telemetry: expected a callable"),
        ({"heal": "thread"}, "heal: expected"),
        ({"prefix": "/"}, "prefix: expected a path"),
        ({"telemetry": "requests", "dim": 8}, "dim: expected 64"),
    ):
        with pytest.raises(SetupError, match=words):
            setup_self_healing(app, store=tmp_path / "store", **wrong)
    assert shape(app) == before
    assert not threads()


def test_the_hosts_lifespan_runs_and_its_state_arrives(tmp_path: Path) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append("up")
        yield {"number": 7}
        seen.append("down")

    app = made(lifespan)
    handle = setup_self_healing(app, store=tmp_path / "store")

    async def run() -> None:
        async with running(app):
            assert seen == ["up"]
        assert seen == ["up", "down"]
        assert handle.closed

    asyncio.run(run())
    assert app.router.lifespan_context is lifespan


def test_a_route_for_all_paths_does_not_hide_the_routes(tmp_path: Path) -> None:
    app = made()
    app.router.routes.append(Mount("/", app=PlainTextResponse("everything")))
    with setup_self_healing(app, store=tmp_path / "store"):
        assert asyncio.run(get(app, HEALTH))[0] == 200
        assert asyncio.run(get(app, "/other")) == (200, b"everything")
    assert asyncio.run(get(app, HEALTH)) == (200, b"everything")


def test_an_application_without_a_lifespan_begins_with_its_first_request(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store", every_s=0.02) as handle:
        assert not threads() & {"qigheal-ticker"}

        async def run() -> None:
            await get(app, "/items/7")
            await asyncio.to_thread(until, lambda: len(handle.monitor.snapshots))

        asyncio.run(run())


def test_missing_telemetry_is_named_once_and_the_application_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    with (
        setup_self_healing(app, store=tmp_path / "store") as handle,
        caplog.at_level(logging.WARNING, "qigheal"),
    ):
        assert handle.take() is None
        assert handle.take() is None
        (said,) = handle.notes
        assert said == (
            "no snapshots yet: the application has not given phi, kappa_eff, basin_coords "
            "(app.gary_telemetry or app.state.gary_telemetry: not there)"
        )
        assert [record.message for record in caplog.records] == [said]
        app.state.gary_telemetry = state()
        taken = handle.take()
        assert taken is not None
        assert taken.repaired == ()
        assert handle.notes == ()


def test_telemetry_that_was_there_and_is_gone_is_recorded_as_unusable(tmp_path: Path) -> None:
    app = made()
    app.metrics = {"error_rate": 0.01, "avg_latency_ms": 12.0}  # type: ignore[attr-defined]
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        first = handle.take()
        assert first is not None
        assert (first.error_rate, first.avg_latency_ms, first.repaired) == (0.01, 12.0, ())
        app.gary_telemetry = lambda: 1 / 0  # type: ignore[attr-defined]
        del app.metrics  # type: ignore[attr-defined]
        for _ in range(12):
            handle.take()
        last = handle.monitor.snapshots[-1]
        assert set(last.repaired) == {"phi", "kappa_eff", "basin_coords", "error_rate", "avg_latency_ms"}
        assert handle.monitor.check_health().severity == "critical"
        assert "no longer gives phi" in handle.notes[0]
        assert "ZeroDivisionError" in handle.notes[0]


def test_what_the_host_says_wins_over_what_is_measured(tmp_path: Path) -> None:
    app = made()
    app.metrics = lambda: {"avg_latency_ms": 250.0, "memory_mb": 7.0}  # type: ignore[attr-defined]
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        asyncio.run(get(app, "/items/7"))
        with pytest.raises(ValueError, match="broken"):
            asyncio.run(get(app, "/items/500"))
        taken = handle.take()
        assert taken is not None
        assert (taken.avg_latency_ms, taken.memory_mb, taken.error_rate) == (250.0, 7.0, 0.5)
        assert handle.interval.requests == 2
        assert handle.interval.p99_ms is not None


def test_an_interval_without_requests_holds_the_latency_that_was_measured_last(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store") as handle:
        none = handle.take()
        asyncio.run(get(app, "/items/7"))
        measured, idle = handle.take(), handle.take()
        assert none is not None
        assert measured is not None
        assert idle is not None
        assert none.avg_latency_ms == 0.0
        assert idle.avg_latency_ms == measured.avg_latency_ms > 0.0
        assert idle.error_rate == 0.0
        assert idle.repaired == ()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_telemetry_callable(kind: str, tmp_path: Path) -> None:
    where: list[Any] = []

    def plain() -> dict[str, Any]:
        return state(0.6)

    async def slow() -> dict[str, Any]:
        where.append(asyncio.get_running_loop())
        return state(0.6)

    app = made()
    handle = setup_self_healing(
        app, store=tmp_path / "store", every_s=0.02, telemetry=plain if kind == "plain" else slow
    )

    async def run() -> None:
        async with running(app):
            await asyncio.to_thread(until, lambda: len(handle.monitor.snapshots))
            if kind == "async":
                assert where[0] is asyncio.get_running_loop()

    asyncio.run(run())
    assert handle.monitor.snapshots[0].phi == 0.6


def test_a_telemetry_that_hangs_holds_neither_requests_nor_the_end_up(tmp_path: Path) -> None:
    called = []

    async def hangs() -> None:
        called.append(1)
        await asyncio.Event().wait()

    app = made()
    handle = setup_self_healing(app, store=tmp_path / "store", every_s=0.02, telemetry=hangs)

    async def run() -> None:
        async with running(app):
            await asyncio.to_thread(until, lambda: called)
            assert (await get(app, "/items/7"))[0] == 200

    asyncio.run(run())
    until(lambda: not threads(), "the end of the threads")
    assert not len(handle.monitor.snapshots)


def test_the_requests_themselves_as_telemetry(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/{name}")
    async def one(name: str) -> str:
        return name

    with setup_self_healing(app, store=tmp_path / "store", telemetry="requests") as handle:

        async def ask(count: int) -> None:
            for number in range(count):
                await get(app, f"/{number}", method="POST" if number % 4 == 0 else "GET")

        asyncio.run(ask(10))
        assert handle.take() is None
        assert "they begin after 500 requests, 10 so far" in handle.notes[0]
        asyncio.run(ask(500))
        taken = handle.take()
        assert taken is not None
        assert handle.monitor.settings.geometry == "simplex"
        assert taken.module_name.startswith("event-")
        # Three quarters and one quarter in two bins, as docs/estimators.md has it.
        assert taken.kappa_eff == pytest.approx(
            math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=0.02
        )
        assert handle.take() is None  # nothing new was asked
        assert handle.interval.requests == 510


def test_the_application_records_by_itself(tmp_path: Path) -> None:
    app = FastAPI()
    handle = setup_self_healing(app, store=tmp_path / "store", every_s=None)

    async def run() -> None:
        async with running(app):
            handle.monitor.capture(state())
            status, body = await get(app, HEALTH)
            assert (status, json.loads(body)["status"]) == (200, "learning")

    asyncio.run(run())
    assert handle.notes == ()
    assert len(Standing(tmp_path / "store").last().batch) == 1


def test_a_monitor_of_the_hosts_own_is_flushed_and_left_open(tmp_path: Path) -> None:
    app = made()
    with GeometricHealthMonitor(history=tmp_path / "store", geometry="sphere") as monitor:
        handle = setup_self_healing(app, monitor=monitor)
        assert handle.monitor is monitor
        handle.take()
        handle.close()
        assert len(Standing(tmp_path / "store").last().batch) == 1
        monitor.capture(state())
        with pytest.raises(SetupError, match="store: expected"):
            setup_self_healing(app, monitor=monitor, store=tmp_path / "other")
        with pytest.raises(SetupError, match="phi_min: expected none beside monitor="):
            setup_self_healing(app, monitor=monitor, phi_min=0.5)
        with pytest.raises(SetupError, match="of the simplex"):
            setup_self_healing(app, monitor=monitor, telemetry="requests")
    with pytest.raises(SetupError, match="with a history"):
        setup_self_healing(app, monitor=GeometricHealthMonitor())


def test_limits_reach_the_monitor_and_the_store_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_STORE", str(tmp_path / "elsewhere"))
    with setup_self_healing(made(), phi_min=0.4, learn_after=50) as handle:
        settings = handle.monitor.settings
        assert (settings.phi_min, settings.learn_after, settings.geometry) == (0.4, 50, "sphere")
        assert handle.store == tmp_path / "elsewhere"
        assert Standing(handle.store).settings == settings


def test_alerts_are_watched_for_by_one_of_the_workers(tmp_path: Path) -> None:
    from qigheal.alerts import Log

    app = made()
    handle = setup_self_healing(app, store=tmp_path / "store", every_s=0.02, alerts=[Log()])

    async def run() -> None:
        async with running(app):
            await asyncio.to_thread(until, lambda: "qigheal-alerts" in threads(), "the watch")

    asyncio.run(run())
    assert handle.closed
    until(lambda: not threads(), "the end of the threads")


def test_another_prefix(tmp_path: Path) -> None:
    app = made()
    with setup_self_healing(app, store=tmp_path / "store", prefix="/ops/heal") as handle:
        assert asyncio.run(get(app, "/ops/heal/health"))[0] == 200
        assert asyncio.run(get(app, HEALTH))[0] == 404
        assert handle.meter.read().requests == 1


def test_a_host_that_wraps_once_more_is_not_cut_off(tmp_path: Path) -> None:
    app = made()

    async def run() -> None:
        handle = setup_self_healing(app, store=tmp_path / "store")
        await get(app, "/items/7")
        ours = app.middleware_stack
        assert ours is not None

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            await ours(scope, receive, send)

        app.middleware_stack = outer
        handle.close()
        assert app.middleware_stack is outer
        assert (await get(app, "/items/7"))[0] == 200
        assert handle.meter.read().requests == 1

    asyncio.run(run())


def test_a_snapshot_on_demand_and_the_hosts_own_check_of_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_TOKEN", "heal-token")
    asked: list[int] = []

    async def telemetry() -> dict[str, Any]:
        await asyncio.sleep(0)  # in the loop that serves the request, which must not wait in it
        return state(0.6) if asked else {}

    def reader() -> None:
        asked.append(1)

    app = made()
    handle = setup_self_healing(app, store=tmp_path / "store", telemetry=telemetry, authorize=reader)
    bearer = [(b"authorization", b"Bearer heal-token")]

    async def run() -> None:
        async with running(app):
            status, body = await get(app, f"{PREFIX}/snapshot", "POST", headers=bearer)
            assert status == 409, body
            assert (await get(app, f"{PREFIX}/snapshots"))[0] == 200
            assert asked
            status, body = await get(app, f"{PREFIX}/snapshot", "POST", headers=bearer)
            assert status < 300, body
            assert json.loads(body)["phi"] == pytest.approx(0.6)
            assert len(handle.monitor.snapshots) == 1
            assert (await get(app, f"{PREFIX}/snapshot", "POST"))[0] == 401

    asyncio.run(run())
