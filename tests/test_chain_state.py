"""What a chain does beside its runs: it is asked for metrics, and keeps its state."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError
from qigcore.history import History
from qigheal import GeometricHealthMonitor
from qigheal.cli import show
from qigheal.healing.ledger import Judged, Ledger
from qigheal.integrations.chain import statedir
from qigheal.integrations.chain.statedir import HealerHistory, StateDir, StateError
from qigheal.records import HealingPatch, Verdict
from tests.chains import (
    BASIN,
    Chain,
    Measured,
    Result,
    classes_as_before,  # noqa: F401  # by being here it is around every test
    heads,
    monitored,
    step,
)


def test_metrics_methods_are_read_by_start(caplog: pytest.LogCaptureFixture) -> None:
    async def use() -> Measured:
        chain = Measured(
            {"phi": 0.7, "kappa_eff": 60.0, "basin_coords": BASIN, "unknown": object()}, {"error_rate": 0.25}
        )
        monitored(chain)
        await chain.self_healing.start(interval_seconds=3600)
        await chain.self_healing.start(interval_seconds=3600)
        await asyncio.wait_for(chain.asked.wait(), 60)
        await chain.self_healing.look()
        await chain.self_healing.stop()
        await chain.self_healing.stop()
        return chain

    chain = asyncio.run(use())
    batch = heads(chain)
    assert (batch.phi[0], batch.kappa_eff[0], batch.error_rate[0]) == (0.7, 60.0, 0.25)
    assert [record.message for record in caplog.records] == ["the chain's metrics have no avg_latency_ms"]
    chain.self_healing.remove()


@pytest.mark.parametrize("odd", [RuntimeError("down"), None, [1], {"phi": "high"}])
def test_odd_metrics_are_flagged_and_told_once(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def use() -> Any:
        chain: Any = monitored(Measured(odd, {}))
        await chain.self_healing.look()
        told = len(caplog.records)
        await chain.self_healing.look()
        assert len(caplog.records) == told >= 1
        return chain

    chain = asyncio.run(use())
    assert {s.repaired for s in chain.self_healing.monitor.snapshots} == {
        ("phi", "kappa_eff", "basin_coords")
    }
    chain.self_healing.remove()


class Hanging(Measured):
    """Its performance is never known; it may not even heed that it is to end."""

    heeds = True

    async def get_performance_metrics(self) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.heeds:
                    raise


@pytest.mark.parametrize("heeds", [True, False])
def test_a_method_that_hangs_does_not_end_the_recording(
    heeds: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> Any:
        chain: Any = Hanging({"phi": 0.7, "kappa_eff": 60.0, "basin_coords": BASIN}, None)
        chain.heeds = heeds
        healing = monitored(chain).self_healing
        healing._patience_s = 0.01
        for _ in range(3):
            await asyncio.wait_for(healing.look(), 60)
        assert chain.calls == (3 if heeds else 1)
        chain.heeds = True
        for task in healing._asked.values():
            task.cancel()
        return chain

    chain = asyncio.run(use())
    assert heads(chain).phi.tolist() == [0.7] * 3
    assert [r.message for r in caplog.records if "nothing within" in r.message] == [
        "get_performance_metrics() gave nothing within 0.01 s"
    ]
    chain.self_healing.remove()


class Quitting(Measured):
    async def get_performance_metrics(self) -> Any:
        raise self.performance


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError])
def test_a_method_that_wants_to_end_all_is_told(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> Any:
        chain: Any = Quitting({"phi": 0.7, "kappa_eff": 60.0, "basin_coords": BASIN}, kind("enough"))
        monitored(chain)
        await chain.self_healing.look()
        await chain.self_healing.look()
        return chain

    chain = asyncio.run(use())
    assert heads(chain).phi.tolist() == [0.7] * 2
    assert len([r for r in caplog.records if "get_performance_metrics() " in r.message]) == 1
    chain.self_healing.remove()


def test_start_wants_positive_intervals() -> None:
    async def use() -> None:
        chain = monitored(Chain())
        with pytest.raises(ValueError, match="interval_seconds: expected a number of seconds above 0, got 0"):
            await chain.self_healing.start(0)
        chain.self_healing.remove()

    asyncio.run(use())


def test_stop_and_start_in_another_event_loop(tmp_path: Path) -> None:
    chain = Measured({"phi": 0.7, "kappa_eff": 60.0, "basin_coords": BASIN}, {"error_rate": 0.25})
    healing = monitored(chain, store=tmp_path / "s").self_healing

    async def begin() -> None:
        before = healing.monitor.snapshots.total
        await healing.start(interval_seconds=3600)
        async with asyncio.timeout(60):
            while healing.monitor.snapshots.total == before:
                await asyncio.sleep(0)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(begin())  # it ends with the task pending, as a dropped one does
        second.run_until_complete(begin())
        assert len(healing.monitor.snapshots) == 2
        first.run_until_complete(asyncio.sleep(0))  # the task that was left ends by itself
        first.run_until_complete(asyncio.gather(*asyncio.all_tasks(first), return_exceptions=True))
    finally:
        left = list(asyncio.all_tasks(second))
        first.close()
        second.close()
    asyncio.run(healing.stop())
    with History.read_only(tmp_path / "s") as history:
        assert len(history.last(10)) == 2
    asyncio.run(begin())
    assert len(healing.monitor.snapshots) == 3
    healing.remove()
    for task in left:  # nobody else will ever say so
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_stop_waits_for_what_runs_in_the_loop_of_another_thread() -> None:
    chain = Measured({"phi": 0.7, "kappa_eff": 60.0, "basin_coords": BASIN}, {"error_rate": 0.25})
    healing = monitored(chain).self_healing
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(healing.start(interval_seconds=3600), loop).result(60)
        task = healing._watching
        asyncio.run(asyncio.wait_for(healing.start(), 60))
        assert healing._watching is task
        asyncio.run(asyncio.wait_for(healing.stop(), 60))
        assert task.done()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    healing.remove()


def test_state_goes_out_and_comes_in(tmp_path: Path) -> None:
    chain = monitored(Chain())
    for number in range(320):
        chain.answers = [Result([step(number, phi_after=0.7 + (number % 5) / 100)])]
        chain.run(BASIN)
    was = chain.self_healing.get_health()
    trends = chain.self_healing.get_trends()
    chain.self_healing.save_state(tmp_path / "state")
    chain.self_healing.remove()

    state = StateDir(tmp_path / "state")
    report = state.report()
    assert (report.healthy, report.severity, list(report.issues)) == (
        was["healthy"], was["severity"], was["issues"]
    )  # fmt: skip
    assert report.snapshots == 320
    assert state.trends()["phi"].slope == pytest.approx(trends["phi"]["slope"])
    read = state.last(5)
    assert (len(read.batch), read.total) == (5, 320)
    assert read.batch.module_name.tolist() == [f"project-{i % 3}" for i in range(315, 320)]
    assert isinstance(state.baseline, Baseline)

    fresh = monitored(Chain())
    fresh.self_healing.load_state(tmp_path / "state")
    assert fresh.self_healing.get_health() == was
    fresh.self_healing.remove()


def test_loading_twice_records_once(tmp_path: Path) -> None:
    chain = monitored(Chain())
    for number in range(20):
        odd = {"phi_after": math.nan} if number in (0, 7) else {}
        chain.answers = [Result([step(number, **odd)])]
        chain.run(BASIN)
    chain.self_healing.save_state(tmp_path)
    chain.self_healing.load_state(tmp_path)
    assert chain.self_healing.monitor.snapshots.total == 20
    chain.self_healing.remove()
    for place in (None, tmp_path / "store"):
        fresh = monitored(Chain(), store=place)
        for _ in range(3):
            fresh.self_healing.load_state(tmp_path)
            assert fresh.self_healing.monitor.snapshots.total == 20
            assert fresh.self_healing.monitor.invalid["phi"] == 2
        fresh.self_healing.remove()


def test_state_and_store_at_each_start_do_not_double_the_history(tmp_path: Path) -> None:
    for turn in range(1, 4):
        chain = monitored(Chain(), store=tmp_path / "store")
        if turn > 1:
            chain.self_healing.load_state(tmp_path / "state")
        for _ in range(15):
            chain.run(BASIN)
        chain.self_healing.save_state(tmp_path / "state")
        chain.self_healing.remove()
        with History.read_only(tmp_path / "store") as history:
            assert len(history.last(1000)) == 15 * turn


def test_what_is_new_in_a_state_is_taken_in(tmp_path: Path) -> None:
    chain = monitored(Chain(), store=tmp_path / "store")
    for number in range(12):
        chain.run(BASIN)
        if number in (5, 11):
            chain.self_healing.save_state(tmp_path / str(number))
    chain.self_healing.remove()
    fresh = monitored(Chain())
    for name, total in (("5", 6), ("11", 12), ("5", 12)):
        fresh.self_healing.load_state(tmp_path / name)
        assert fresh.self_healing.monitor.snapshots.total == total
    times = heads(fresh).timestamp
    assert (times[1:] > times[:-1]).all()
    fresh.self_healing.remove()


def earlier_state(folder: Path) -> dict[str, Any]:
    """A folder as the earlier modules left it, and its patches."""
    folder.mkdir()
    monitor = GeometricHealthMonitor(geometry="sphere", code_hash="ab")
    for _ in range(20):
        monitor.record(0.5, 64.0, BASIN)
    monitor.save_history(folder / "monitor_history.json")
    patch = {
        "module_path": "m.py",
        "patch_code": "x = 1",
        "reason": "low",
        "timestamp": "2025-01-01T00:00:00",
        "fitness_score": None,
        "applied": False,
        "unknown": [1],
    }
    patches = {
        "fitness_threshold": 0.7,
        "auto_apply": True,
        "patches_generated": [patch],
        "patches_applied": [],
    }
    (folder / "healer_history.json").write_text(json.dumps(patches))
    return patches


def test_an_earlier_folder_is_read_and_its_patches_are_kept(tmp_path: Path) -> None:
    patches = earlier_state(tmp_path / "old")
    report = StateDir(tmp_path / "old").report()
    assert (report.snapshots, report.severity) == (20, "critical")
    store = tmp_path / "store"
    chain = monitored(Chain(), store=store)
    chain.self_healing.load_state(tmp_path / "old")
    patch = HealingPatch(
        strategy="errors",
        tier="safe",
        base="0" * 40,
        diff="--- a/x.py\n+++ b/x.py\n",
        rationale="why",
        heals=(),
    )
    verdict = Verdict(
        decision="worse",
        accepted=False,
        fitness=None,
        guards=(),
        vetoes=(),
        pairs=20,
        sandbox_level="none",
        reason="r",
    )
    Ledger(store / "ledger.db").append(
        "verdict", patch.fingerprint, Judged(patch=patch, verdict=verdict), 1e9
    )
    for _ in range(2):  # the second time nothing is there twice
        chain.self_healing.save_state(tmp_path / "new")
        chain.self_healing.load_state(tmp_path / "new")
    chain.self_healing.remove()
    written = json.loads((tmp_path / "new" / "healer_history.json").read_bytes())
    assert (written["fitness_threshold"], written["auto_apply"]) == (0.7, True)
    assert written["patches_generated"][0] == patches["patches_generated"][0]
    added = written["patches_generated"][1:]
    assert [(p["module_path"], p["applied"], p["reason"]) for p in added] == [("x.py", False, "why")]
    assert set(added[0]) == set(patches["patches_generated"][0]) - {"unknown"}


def test_a_state_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    chain = monitored(Chain())
    with pytest.raises(StateError, match="got neither"):
        chain.self_healing.load_state(tmp_path)
    (tmp_path / "healer_history.json").write_text("{")
    with pytest.raises(StateError, match="move the file away"):
        chain.self_healing.load_state(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        chain.self_healing.save_state(tmp_path / "file" / "below")
    with pytest.raises(StateError, match="cannot be written"):
        HealerHistory().save(tmp_path / "nowhere")
    chain.self_healing.remove()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["healer_history.json", "monitor_history.json"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a FIFO", os.mkfifo),
        ("a folder", os.mkdir),
        ("a device", lambda path: path.symlink_to("/dev/zero")),
    ],
    ids=["fifo", "folder", "device"],
)
def test_a_state_that_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, name: str, kind: str, make: Any
) -> None:
    earlier_state(tmp_path / "old")
    (tmp_path / "old" / name).unlink()
    make(tmp_path / "old" / name)
    chain = monitored(Chain())
    with pytest.raises((StateError, HistoryError), match=f"{name}.*it is {kind} and no regular file"):
        chain.self_healing.load_state(tmp_path / "old")
    with pytest.raises((StateError, HistoryError), match=f"{name}.*it is {kind} and no regular file"):
        StateDir(tmp_path / "old").healer()
    assert len(chain.self_healing.monitor.snapshots) == 0
    chain.self_healing.remove()


def test_patches_beyond_reason_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier_state(tmp_path / "old")
    size = (tmp_path / "old" / "healer_history.json").stat().st_size
    monkeypatch.setattr(statedir, "MOST_BYTES", size)
    assert HealerHistory.load(tmp_path / "old").patches_generated
    monkeypatch.setattr(statedir, "MOST_BYTES", size - 1)
    with pytest.raises(StateError, match=f"got: more than {size - 1} bytes; move the file away"):
        HealerHistory.load(tmp_path / "old")


def test_the_commands_can_show_a_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier_state(tmp_path / "old")
    state = StateDir(tmp_path / "old")
    show.status(state.report(), json=True)
    assert json.loads(capsys.readouterr().out)["snapshots"] == 20
    show.trends(state.trends(10, show.METRIC_NAMES), json=True)
    assert set(json.loads(capsys.readouterr().out)) == set(show.METRIC_NAMES)
    read = state.last(3)
    show.history(read.batch, read.segments, read.damage, json=True)
    shown = json.loads(capsys.readouterr().out)["snapshots"]
    assert [row["code_hash"] for row in shown] == ["ab"] * 3
    with pytest.raises(HistoryError, match="--state-dir"):
        StateDir(tmp_path)
