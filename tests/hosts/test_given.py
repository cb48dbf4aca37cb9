"""What a FastAPI host gives beside its telemetry: broken metrics, who may frame the widget, a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from qigheal.api import PREFIX
from qigheal.integrations.fastapi import setup_self_healing
from qigheal.integrations.web.hosting import SelfHealing, SetupError
from tests.hosts.serving import running, until
from tests.hosts.test_fastapi import made


def raising() -> None:
    raise ZeroDivisionError("broken")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (raising, "metrics: ZeroDivisionError: broken"),
        (7, "metrics: expected a mapping, or a callable that gives one, got int"),
        (
            {"error_rate": "n/a", "memory_mb": math.nan},
            "the application gives no usable error_rate, memory_mb",
        ),
    ],
)
@pytest.mark.parametrize("telemetry", [None, "requests"])
def test_broken_metrics_are_named_once_and_no_longer_than_they_are_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, metrics: Any, said: str, telemetry: Any
) -> None:
    app = made()
    app.metrics = metrics  # type: ignore[attr-defined]
    with setup_self_healing(app, store=tmp_path / "store", telemetry=telemetry) as handle:

        def take() -> None:
            for _ in range(600 if telemetry else 0):
                handle.meter.append(0.01)
                handle.meter.event("GET", "/items/{item}", 200)  # type: ignore[attr-defined]
            assert handle.take() is not None

        with caplog.at_level(logging.WARNING, "qigheal"):
            take()
            take()
        assert handle.notes == (said,)
        assert [record.message for record in caplog.records] == [said]
        app.metrics = {"error_rate": 0.5, "memory_mb": 7.0}  # type: ignore[attr-defined]
        take()
        assert handle.notes == ()
        assert handle.monitor.snapshots[-1].error_rate == 0.5


@pytest.mark.parametrize(
    "ancestors", ["", " ", "https://a.example; script-src *", "https://a, https://b", "a\nb", "a  b", "ä"]
)
def test_ancestors_that_would_say_more_are_refused(tmp_path: Path, ancestors: str) -> None:
    with pytest.raises(SetupError, match=r"^widget_ancestors: expected sites"):
        setup_self_healing(FastAPI(), store=tmp_path / "store", widget_ancestors=ancestors)
    assert not (tmp_path / "store").exists()


def test_the_widget_may_be_framed_by_whom_the_host_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_READ_TOKEN", "read")
    app, sites = made(), "https://status.example.org https://*.example.net:8443"

    def policy(page: str) -> str:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://host"
            ) as browser:
                return await browser.get(f"{PREFIX}/{page}")

        return asyncio.run(ask()).headers["content-security-policy"]

    with setup_self_healing(app, store=tmp_path / "store", widget_ancestors=sites):
        assert policy("widget").endswith(f"; frame-ancestors {sites}")
        assert policy("dashboard").endswith("; frame-ancestors 'none'")


def test_in_a_thread_of_a_lifespan_it_records_at_once(tmp_path: Path) -> None:
    handles: list[SelfHealing] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        handles.append(await asyncio.to_thread(setup_self_healing, app, store=tmp_path / "s", every_s=0.02))
        yield

    async def run() -> None:
        async with running(made(lifespan)):
            await asyncio.to_thread(until, lambda: len(handles[0].monitor.snapshots))  # without a request

    try:
        asyncio.run(run())
    finally:
        for handle in handles:
            handle.close()
