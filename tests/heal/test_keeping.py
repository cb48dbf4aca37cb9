"""Retention beside the host: hourly, in the flusher's thread, and a failure is a note and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import Expired, History
from qigcore.rows import HEAD
from qigheal import GeometricHealthMonitor
from qigheal.monitor import keeping
from qigheal.settings import MonitorSettings

DIM = 8
DAY = 86_400.0


def dead(store: Path, day: float, rows: int = 300) -> None:
    heads = np.zeros(rows, HEAD)
    heads["timestamp"] = DAY * day + np.arange(rows)
    basins = np.random.default_rng(0).dirichlet(np.ones(DIM), rows)
    with History(store, dim=DIM, precision="exact", clock=lambda: DAY * day) as history:
        history.append_rows(heads, basins, ("",))


def firsts(store: Path) -> list[float]:
    return [info.first / DAY for info in History.read_only(store).segments()]


class Expiring:
    """A history that notes what it is asked for, and fails on demand."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails = ""

    def expire(self, **how: Any) -> Expired:
        self.asked.append(how)
        if self.fails:
            raise HistoryError(self.fails)
        return Expired()


def test_it_looks_at_first_and_then_every_hour() -> None:
    history, now = Expiring(), [50.0]
    settings = MonitorSettings(keep_days=2.0, keep_mb=3.0)
    keeper = keeping.Keeper(history, settings, clock=lambda: now[0])  # type: ignore[arg-type]
    keeper()
    keeper()
    now[0] += keeping.EVERY_S - 1
    keeper()
    assert history.asked == [{"keep_s": 2 * DAY, "keep_bytes": 3e6}]
    now[0] += 1
    keeper()
    assert len(history.asked) == 2


def test_without_limits_nothing_is_looked_at() -> None:
    history = Expiring()
    keeping.Keeper(history, MonitorSettings(keep_mb=None))()  # type: ignore[arg-type]
    assert history.asked == []
    assert MonitorSettings().keep_mb == 1024.0
    assert MonitorSettings().keep_days is None


def test_a_failure_is_counted_and_a_success_forgets_it() -> None:
    history, now = Expiring(), [0.0]
    keeper = keeping.Keeper(history, MonitorSettings(), clock=lambda: now[0])  # type: ignore[arg-type]
    history.fails = "Permission denied"
    for _ in range(3):
        keeper()
        keeper()
        now[0] += keeping.AGAIN_S
    assert (keeper.failures, keeper.failure) == (3, "Permission denied")
    history.fails = ""
    keeper()
    assert (keeper.failures, keeper.failure) == (3, "")


@pytest.mark.parametrize("given", [False, True])
def test_a_monitor_removes_what_its_settings_do_not_allow(tmp_path: Path, given: bool) -> None:
    for day in (1, 2, 3):
        dead(tmp_path, day)
    size = sum(info.bytes for info in History.read_only(tmp_path).segments())
    history = History(tmp_path, dim=DIM) if given else tmp_path
    with GeometricHealthMonitor(history=history, dim=DIM, code_hash="", keep_mb=0.8 * size / 1e6) as host:
        host.record(0.75, 64.0, np.ones(DIM))
    assert firsts(tmp_path)[:2] == [2, 3]
    with GeometricHealthMonitor(history=tmp_path, dim=DIM, code_hash="", keep_days=1.0) as host:
        host.record(0.75, 64.0, np.ones(DIM))
    assert len(firsts(tmp_path)) == 2  # what the two monitors wrote just now
    assert not [note for note in host.check_health().notes if note.startswith("history")]


def test_what_cannot_be_removed_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path, 1)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    host = GeometricHealthMonitor(history=tmp_path, dim=DIM, code_hash="", keep_days=1.0)
    host.record(0.75, 64.0, np.ones(DIM))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        host.close()
    assert any("not removed 1 times" in note and "Permission" in note for note in host.check_health().notes)
    assert len(firsts(tmp_path)) == 2
