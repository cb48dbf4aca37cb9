"""`POST snapshot`: the host's own reading, on demand."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.history import History
from qigheal import GeometricHealthMonitor
from tests.web.conftest import Make
from tests.web.serving import HEAL, Web, access
from tests.web.stores import DIM


@pytest.fixture
def monitor(store: Path) -> Iterator[GeometricHealthMonitor]:
    with GeometricHealthMonitor(history=store, dim=DIM, false_alarm_every=None) as made:
        yield made


def test_a_service_that_takes_its_own_says_so(web: Web) -> None:
    answer = web.post("snapshot", token=HEAL)
    assert (answer.status, answer.json["error"]) == (409, "automatic")


@pytest.mark.parametrize("kind", ["plain", "coroutine", "awaitable"])
def test_a_snapshot_is_taken(serve: Make, monitor: GeometricHealthMonitor, kind: str) -> None:
    def plain() -> Any:
        return monitor.capture(phi=0.75, kappa_eff=64.0, basin_coords=np.ones(DIM), confidence=math.nan)

    async def coroutine() -> Any:
        return plain()

    def awaitable() -> Any:
        return coroutine()

    web = serve(
        take_snapshot={"plain": plain, "coroutine": coroutine, "awaitable": awaitable}[kind], monitor=monitor
    )
    taken = web.post("snapshot", token=HEAL)
    assert taken.status == 200
    assert (taken.json["phi"], taken.json["confidence"], taken.json["basin"]) == (0.75, None, None)
    (stored,) = web("snapshots").json["snapshots"]
    assert stored["timestamp"] == pytest.approx(taken.json["timestamp"], abs=1e-5)


def test_a_snapshot_that_cannot_be_stored_is_none(
    serve: Make, monitor: GeometricHealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def plain() -> Any:
        return monitor.capture(phi=0.75, kappa_eff=64.0, basin_coords=np.ones(DIM))

    web = serve(take_snapshot=plain, monitor=monitor)
    with monkeypatch.context() as patched:
        patched.setattr(History, "append_rows", full)
        answer = web.post("snapshot", token=HEAL)
        assert (answer.status, answer.json["error"]) == (409, "store_unusable")
        assert "No space left" in answer.json["detail"]
    assert web.post("snapshot", token=HEAL).status == 200
    assert len(web("snapshots").json["snapshots"]) == 2


def fails() -> Any:
    raise RuntimeError("the password is 1234")


def gives_nothing() -> Any:
    return None


def gives_another() -> Any:
    return {"phi": 1.0}


@pytest.mark.parametrize("take", [fails, gives_nothing, gives_another])
def test_a_reading_that_fails_is_an_answer(serve: Make, take: Any) -> None:
    answer = serve(take_snapshot=take).post("snapshot", token=HEAL)
    assert (answer.status, answer.json["error"]) == (409, "not_taken")
    assert "1234" not in answer.json["detail"]


def test_so_many_a_minute(serve: Make, store: Path) -> None:
    store.mkdir()
    web = serve(take_snapshot=gives_nothing, access=access(snapshots_per_minute=2))
    answers = [web.post("snapshot", token=HEAL) for _ in range(3)]
    assert [answer.status for answer in answers] == [409, 409, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
