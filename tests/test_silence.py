"""A service that no longer writes is not taken for a healthy one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.standing import Standing

LAST = 1.7e9


def recorded(history: History, every_s: float, count: int = 20) -> None:
    heads = np.zeros(count, HEAD)
    heads["timestamp"] = LAST - every_s * np.arange(count)[::-1]
    heads["phi"], heads["kappa_eff"], heads["regime"] = 0.75, 64.0, 1
    history.append_rows(heads, np.ones((count, 64)), ("",))


def at(age_s: float) -> Callable[[], float]:
    return lambda: LAST + age_s


def test_no_writer_and_an_old_snapshot_is_a_warning(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        recorded(history, 1.0)
    found = Standing(tmp_path, clock=at(6.7 * 86_400)).report()
    assert (found.healthy, found.severity, found.last_at) == (False, "warning", LAST)
    assert found.issues == ("silent: no process writes here, and the last snapshot is 6.7 days old",)
    finding = found.findings[0]
    assert (finding.kind, finding.metric, finding.since) == ("silent", "measurement", LAST)
    assert (finding.value, finding.limit) == (pytest.approx(6.7 * 86_400), 60.0)


@pytest.mark.parametrize(
    ("every_s", "age_s", "silent"),
    [(1.0, 59.0, False), (1.0, 61.0, True), (100.0, 499.0, False), (100.0, 501.0, True), (1.0, -1e6, False)],
)
def test_how_old_is_too_old(tmp_path: Path, every_s: float, age_s: float, silent: bool) -> None:
    with History(tmp_path) as history:
        recorded(history, every_s)
    found = Standing(tmp_path, clock=at(age_s)).report()
    assert found.healthy is not silent
    assert found.last_at == LAST


def test_of_a_living_writer_it_is_a_note(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        recorded(history, 1.0)
        found = Standing(tmp_path, clock=at(3600.0)).report()
    assert found.healthy
    assert found.notes == ("the last snapshot is 60 min old, though a living process writes here",)


def test_the_worst_comes_first(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        recorded(history, 1.0)
        heads = np.zeros(14, HEAD)
        heads["timestamp"], heads["phi"], heads["kappa_eff"] = LAST, 0.2, 64.0
        history.append_rows(heads, np.ones((14, 64)), ("",))
    found = Standing(tmp_path, clock=at(1e6)).report()
    assert found.severity == "critical"
    assert {"phi_low", "silent"} <= {finding.kind for finding in found.findings}
    assert found.findings[0].severity == "critical"


def test_an_empty_store_is_not_silent(tmp_path: Path) -> None:
    found = Standing(tmp_path).report()
    assert (found.state, found.last_at, found.findings) == ("learning", None, ())


def test_rows_that_cannot_be_read_are_told_and_not_judged(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        recorded(history, 1.0, 300)
    for segment in tmp_path.glob("*.qigh"):
        whole = segment.read_bytes()
        segment.write_bytes(whole[:200] + b"\xff" * (len(whole) - 200))
    found = Standing(tmp_path, clock=at(0.0)).report()
    assert (found.state, found.snapshots) == ("learning", 0)
    assert found.notes[1].startswith("parts of the store could not be read: ")
