"""What the snapshots say: health by its status code, pages that lose and repeat nothing, odd stores."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.baseline import Baseline
from qigcore.errors import InvalidSnapshot
from qigcore.history import History
from qigheal import GeometricHealthMonitor
from qigheal.api import reading
from qigheal.settings import MonitorSettings
from tests.web.conftest import Make
from tests.web.serving import WRONG, Answer, Web
from tests.web.stores import DIM, append, recorded


def pages(web: Web, since: float, limit: int) -> list[float]:
    """Every time that following `next_since` gives, until a page is empty."""
    found: list[float] = []
    skip = 0
    while True:
        page = web(f"snapshots?since={since!r}&limit={limit}&skip={skip}").json
        assert len(page["snapshots"]) <= limit
        if not page["snapshots"]:
            return found
        found += [row["timestamp"] for row in page["snapshots"]]
        since, skip = page["next_since"], page["next_skip"]


@pytest.mark.parametrize(
    ("figures", "code", "status"),
    [({}, 200, "healthy"), ({"avg_latency_ms": 2500.0}, 207, "warning"), ({"phi": 0.3}, 503, "critical")],
)
def test_health_by_its_code(web: Web, store: Path, figures: Any, code: int, status: str) -> None:
    last = recorded(store, **figures)
    answer = web("health")
    assert (answer.status, answer.json["status"]) == (code, status)
    assert answer.json["healthy"] == (code == 200)
    assert answer.json["snapshots"] == 30
    assert answer.json["last_at"] == last
    assert bool(answer.json["findings"]) == (code != 200)


def test_anybody_sees_status_and_severity_alone(web: Web, store: Path) -> None:
    recorded(store, phi=0.3)
    answer = web("health", token=None)
    assert answer.status == 503
    assert answer.json == {"status": "critical", "severity": "critical"}


def test_health_follows_what_is_recorded(web: Web, store: Path) -> None:
    with History(store) as history:
        append(history, 1.75e9 + np.arange(30))
        assert web("health").status == 200
        append(history, 1.75e9 + 30 + np.arange(10), phi=0.2)
        assert web("health").status == 503


def missing(store: Path) -> None:
    pass


def empty(store: Path) -> None:
    History(store).close()


def no_folder(store: Path) -> None:
    store.write_text("a file")


def bad_baseline(store: Path) -> None:
    recorded(store)
    (store / "baseline.json").write_text("{")


def other_baseline(store: Path) -> None:
    recorded(store)
    states = np.random.default_rng(0).dirichlet(np.full(8, 9.0), 50)
    Baseline.learn(states).save(store / "baseline.json")


def bad_settings(store: Path) -> None:
    recorded(store)
    (store / "monitor.json").write_bytes(b"\xff\xfe")


def garbage(store: Path) -> None:
    recorded(store)
    for path in store.glob("*.qigh"):
        path.write_bytes(b"\0" * 5000)


def bad_ledger(store: Path) -> None:
    recorded(store)
    (store / "ledger.db").write_bytes(b"no ledger" * 100)


def a_folder_for_a_file(store: Path) -> None:
    recorded(store)
    for name in ("baseline.json", "ledger.db", "jobs", "web-limits.json"):
        (store / name).mkdir()


ODD = [
    missing,
    empty,
    no_folder,
    bad_baseline,
    other_baseline,
    bad_settings,
    garbage,
    bad_ledger,
    a_folder_for_a_file,
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_stores_are_answers(web: Web, store: Path, odd: Any) -> None:
    odd(store)
    paths = ("snapshots", "snapshots?since=0", "trends", "state", "patches")
    answers: dict[str, Answer] = {path: web(path) for path in paths}
    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(paths, 200)
    health = web("health")
    assert health.status == 200
    if odd not in (bad_ledger, missing):
        assert health.json["status"] == "learning"
    if odd in (missing, no_folder, bad_baseline, other_baseline, bad_settings, garbage, a_folder_for_a_file):
        assert health.json["notes"]
    assert web("phase").status in (200, 409)
    assert web("patches/0123456789abcdef").status in (404, 409)
    assert web("jobs/0123456789abcdef").status == 404
    if odd in (bad_baseline, other_baseline, a_folder_for_a_file):
        assert len(answers["snapshots"].json["snapshots"]) == 30
        assert "drift is as it was recorded" in answers["snapshots"].json["notes"][0]
    if odd in (bad_ledger, a_folder_for_a_file):
        assert answers["patches"].json["notes"]


@pytest.mark.parametrize("name", ["ledger.db", "baseline.json", "monitor.json", "web-limits.json", "x.qigh"])
def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(web: Web, store: Path, name: str) -> None:
    recorded(store)
    os.mkfifo(store / name)
    paths = ("health", "snapshots", "snapshots?since=0", "trends", "state", "patches", "phase", "patches/x")
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.extend(map(web, paths)), daemon=True)
    asking.start()
    asking.join(60.0)
    assert [answer.status for answer in answers[:6]] == [200] * 6
    assert {answer.status for answer in answers[6:]} <= {200, 404, 409}


def test_the_newest_without_since(web: Web, store: Path) -> None:
    recorded(store, 150, start=1.75e9)
    page = web("snapshots").json
    assert [row["timestamp"] for row in page["snapshots"]] == [1.75e9 + i for i in range(50, 150)]
    assert page["next_since"] == 1.75e9 + 149
    assert web(f"snapshots?since={page['next_since']!r}").json == {
        "snapshots": [],
        "next_since": 1.75e9 + 149,
        "next_skip": 0,
        "notes": [],
    }
    row = page["snapshots"][0]
    assert (row["regime"], row["code_hash"], row["module_name"]) == (
        "geometric",
        "a1b2c3d4",
        "digits.service",
    )
    assert (row["basin"], row["confidence"], row["repaired"]) == (None, None, [])
    assert len(web("snapshots?limit=1&basins=true").json["snapshots"][0]["basin"]) == DIM


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_following_pages_loses_and_repeats_nothing(web: Web, store: Path, limit: int) -> None:
    times = np.repeat(1.75e9 + np.arange(8) / 4, 3)  # three workers at the same moments
    with History(store) as one, History(store) as two, History(store) as three:
        for number, history in enumerate((one, two, three)):
            append(history, times[number::3])
        later = 1.75e9 + 10 + np.arange({1: 5, 2: 5, 7: 600}.get(limit, 3000))  # in blocks of 256
        append(two, later)
        append(two, [1.75e9 + 0.1])  # its clock was set back
    expected = sorted([*times.tolist(), *later.tolist(), 1.75e9 + 0.1])
    assert pages(web, 0.0, limit) == pytest.approx(expected, abs=1e-6)


def test_many_snapshots_of_one_time_come_in_pages_each_once(web: Web, store: Path) -> None:
    with History(store) as one, History(store) as two:
        append(one, np.full(1300, 1.75e9))
        append(two, [1.75e9] * 700 + [1.75e9 + 1])
    found: list[tuple[float, ...]] = []
    page = web("snapshots?since=0&limit=1000&basins=true").json
    while page["snapshots"]:
        found += [tuple(row["basin"]) for row in page["snapshots"]]
        assert len(page["snapshots"]) <= 1000
        since, skip = page["next_since"], page["next_skip"]
        page = web(f"snapshots?since={since!r}&skip={skip}&limit=1000&basins=true").json
    assert len(found) == len(set(found)) == 2001
    assert (
        web("snapshots?since=1750000000.0&limit=5").json["next_since"] == 1.75e9 + 1
    )  # as it was: later ones


def test_large_basins_make_short_pages(web: Web, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_VALUES", 10 * DIM)
    recorded(store, 30, start=1.75e9)
    first = web("snapshots?since=0&limit=20&basins=true").json
    assert [len(first["snapshots"]), first["next_since"]] == [10, 1.75e9 + 9]
    assert len(web("snapshots?basins=true").json["snapshots"]) == 10
    assert len(web("snapshots?since=0&limit=20").json["snapshots"]) == 20


def test_a_page_ends_before_what_other_workers_may_still_write(
    web: Web, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    early = round(now - MonitorSettings().flush_every_s - reading.LATE_S - 1.0)
    late = round(now + 1000.0)
    with History(store) as history:
        append(history, [early, late])
        assert pages(web, 0.0, 10) == [early, late]  # this process knows what it has not written
        monkeypatch.setattr("os.getpid", lambda: -1)  # the writer is another process now
        assert pages(web, 0.0, 10) == [early]
        page = web("snapshots").json
        assert [row["timestamp"] for row in page["snapshots"]] == [early, late]
        assert early <= page["next_since"] < late
    assert pages(web, 0.0, 10) == [early, late]  # nobody writes any more


def test_what_the_monitor_holds_is_in_the_answer(serve: Make, store: Path) -> None:
    with GeometricHealthMonitor(history=store, dim=DIM, flush_every_s=5.0, false_alarm_every=None) as monitor:
        web = serve(monitor=monitor)
        for _ in range(3):
            monitor.record(0.75, 64.0, np.full(DIM, 1.0))
            assert len(web("snapshots").json["snapshots"]) == len(monitor.snapshots)
        monitor.record(math.nan, 64.0, np.full(DIM, math.inf))
        row = web("snapshots").json["snapshots"][-1]
        assert set(row["repaired"]) == {"phi", "basin_coords"}
        assert web("health").json["snapshots"] == 4


def test_a_service_that_has_ended_is_a_warning(web: Web, store: Path) -> None:
    recorded(store, start=1.75e9)
    answer = web("health")
    assert (answer.status, answer.json["status"]) == (207, "warning")
    assert answer.json["issues"][0].startswith("silent: no process writes here, and the last snapshot is ")
    with History(store) as living:
        append(living, [1.75e9 + 60.0])
        assert web("health").status == 200


def test_what_only_the_monitor_knows_is_said(serve: Make, store: Path) -> None:
    recorded(store)
    with GeometricHealthMonitor(
        history=store, dim=DIM, on_invalid="raise", false_alarm_every=None
    ) as monitor:
        web = serve(monitor=monitor)
        assert web("health").status == 200
        for _ in range(10):
            with pytest.raises(InvalidSnapshot):
                monitor.record(math.nan, 64.0, np.ones(DIM))
        answer = web("health")
        assert (answer.status, answer.json["findings"][0]["kind"]) == (503, "unmeasurable")
        assert answer.json["snapshots"] == 30


def test_the_state_of_a_store_that_is_gone_has_the_monitors_settings(serve: Make, store: Path) -> None:
    with GeometricHealthMonitor(history=store, dim=8, geometry="sphere") as monitor:
        shutil.rmtree(store)
        found = serve(monitor=monitor)("state").json
    assert (found["geometry"], found["dim"], found["learned"]) == ("sphere", 8, False)


def test_a_store_that_cannot_be_written_hides_nothing(serve: Make) -> None:
    monitor = GeometricHealthMonitor(dim=DIM, false_alarm_every=None)
    web = serve(monitor=monitor)
    for _ in range(12):
        monitor.record(0.2, 64.0, np.ones(DIM))
    answer = web("health")
    assert (answer.status, answer.json["snapshots"]) == (503, 12)
    assert answer.json["last_at"] == monitor.snapshots[-1].timestamp
    assert any("nothing can be said" in note for note in answer.json["notes"])


def test_what_no_number_can_say_is_flagged(web: Web, store: Path) -> None:
    with History(store, precision="exact") as history:
        append(history, [1.75e9], phi=math.nan, avg_latency_ms=math.inf, basin_drift=-math.inf)
    row = web("snapshots").json["snapshots"][0]
    assert (row["phi"], row["avg_latency_ms"], row["basin_drift"]) == (0.0, 0.0, None)
    assert row["repaired"] == ["phi", "avg_latency_ms"]


def test_trends_and_state(web: Web, store: Path) -> None:
    with History(store) as history:
        append(history, 1.75e9 + np.arange(300))
        Baseline.learn(history.last(300)).save(store / "baseline.json")
    trends = web("trends?window=60").json
    assert trends["window"] == 60
    assert set(trends["trends"]) == {"phi", "kappa", "basin_drift", "latency", "errors", "memory"}
    assert trends["trends"]["phi"]["snapshots"] == 60
    state = web("state").json
    assert (state["learned"], state["dim"], state["geometry"]) == (True, DIM, "simplex")
    for name in ("baseline", "current", "shares"):
        assert sum(state[name]) == pytest.approx(1.0)
    assert 0 < state["distance"] < state["drift_limit"]
    assert state["bands"]["phi"]["low"] == pytest.approx(state["phi_min"])


def test_a_degrading_trend_says_when(web: Web, store: Path) -> None:
    with History(store) as history:
        for i in range(60):
            append(history, [1.75e9 + 60.0 * i], phi=0.9 - 0.002 * i)
    phi = web("trends").json["trends"]["phi"]
    assert phi["direction"] == "degrading"
    assert phi["reaches"]["limit"] == 0.65
    assert phi["reaches"]["seconds"] == pytest.approx(60.0 * 66, rel=0.1)
    assert phi["sentence"].startswith("Φ reaches 0.65")


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=1_0", "limit=x", "limit=", "limit=-1", "limit=%D9%A1"),
        *("limit=1&limit=2", "since=nan", "since=inf", "since=1e400", "since=", "since=1,5"),
        *("basins=1", "basins=True"),
    ],
)
def test_parameters_are_checked(web: Web, query: str) -> None:
    answer = web(f"snapshots?{query}")
    assert answer.status == 422
    assert answer.json["error"] == "invalid"
    assert web("trends?window=9").status == 422


def test_parameters_of_others_are_not_ours(web: Web) -> None:
    assert web("snapshots?utm_source=x&utm_source=y").status == 200


def test_unknown_paths_and_methods(web: Web) -> None:
    for path, method in (("", "GET"), ("nothing", "GET"), ("patches/", "DELETE"), ("health/x", "POST")):
        answer = web(path, method=method)
        assert (answer.status, answer.json["error"]) in ((404, "not_found"), (405, "method")), path
    for path in ("health/", "snapshots/", "patches/x/", "heal/"):
        answer = web(path)
        assert (answer.status, answer.json["error"]) == (404, "not_found"), path
    wrong = web("health", method="DELETE")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert web("heal").headers["allow"] == "POST"
    assert web("health", method="OPTIONS").status == 405


@pytest.mark.parametrize(
    "path", ["health", "snapshots", "stream", "patches/x", "jobs/x", "openapi.json", "nothing"]
)
def test_head_is_get_without_the_body(web: Web, path: str) -> None:
    head = web(path, method="HEAD")
    assert head.body == b""
    assert web(path, method="HEAD", token=WRONG).status == {"openapi.json": 200, "nothing": 404}.get(
        path, 401
    )
    if path == "stream":
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
    else:
        assert head.status == web(path).status
        assert head.headers["content-length"] == web(path).headers["content-length"]


def test_every_answer_says_that_it_is_not_to_be_kept(web: Web) -> None:
    asked = [web(path) for path in ("health", "snapshots", "patches/x", "nothing", "snapshots?limit=0")]
    asked += [web("health", token=WRONG), web.post("health"), web("health", method="HEAD")]
    for answer in asked:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "application/json"
    assert asked[-1].body == b""
    assert int(asked[-1].headers["content-length"]) == len(web("health").body)


def test_a_name_that_is_markup_stays_text(web: Web, store: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>"
    with GeometricHealthMonitor(history=store, dim=DIM, false_alarm_every=None) as monitor:
        monitor.capture(phi=0.75, kappa_eff=64.0, basin_coords=np.ones(DIM), module_name=name)
    assert web("snapshots").json["snapshots"][0]["module_name"] == name
    assert json.loads(web("snapshots").body)


@pytest.mark.parametrize("method", ["PROPFIND", "ANY"])
def test_methods_that_nobody_knows_are_refused_by_a_document(web: Web, method: str) -> None:
    answer = web("health", method=method)
    assert (answer.status, answer.json["error"], answer.headers["allow"]) == (405, "method", "GET, HEAD")
    assert web("nothing", method=method).json["error"] == "not_found"
