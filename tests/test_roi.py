"""Cost and return: the published example, what is recorded, and that the two never mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qigcore.history import History
from qigcore.rows import HEAD, Batch
from qigheal.cli.roi_command import roi
from qigheal.errors import LedgerError
from qigheal.healing.ledger import Ledger
from qigheal.health import replay
from qigheal.records import Change, HealingPatch
from qigheal.roi import Recorded, Result, RoiError, _degradations, _replayed, calculate, read
from qigheal.standing import Standing

DAY = 86_400.0
BEGUN = 1.7e9


def recorded(**other: Any) -> Recorded:
    """A month of which all is round."""
    known = Recorded(
        history="here",
        first=BEGUN,
        until=BEGUN + 30.4375 * DAY,
        days=30.4375,
        watched_days=30.0,
        snapshots=1000,
        limits="learned",
        degradations=8,
        warnings=3,
        degraded_hours=10.0,
        longest_hours=4.0,
        uptime_share=0.999,
        ledger="there",
        confirmed=5,
        taken_back=1,
    )
    return msgspec.structs.replace(known, **other)


def by_record(found: Recorded, **given: Any) -> Result:
    result = calculate(given, found).by_record
    assert result is not None
    return result


def test_the_published_example() -> None:
    found = calculate({}, None)
    plan = found.by_assumption
    assert (plan.up_front, plan.saved_month, plan.watching_month) == (9000.0, 9100.0, 600.0)
    assert {line.what: line.amount for line in plan.lines} == {
        "detection": 1200.0,
        "debugging": 2400.0,
        "incidents": 5000.0,
        "uptime": 500.0,
    }
    assert plan.payback_months == 1.06
    assert plan.first_year_percent == 1033.3
    assert not any(each.given for each in found.assumptions)
    assert found.by_record is None
    assert "nothing is recorded" in found.notes[0]


def test_what_is_given_is_told_from_what_is_a_default() -> None:
    found = calculate({"hourly_rate": 110, "hours_per_detection": 1.5}, None)
    assert [each.name for each in found.assumptions if each.given] == ["hourly_rate", "hours_per_detection"]
    assert "uptime_before" not in {each.name for each in found.assumptions}
    assert found.by_assumption.up_front == 6600.0


@pytest.mark.parametrize("watching", [9100 / 150, 100.0])
def test_no_gain_never_pays_back(watching: float) -> None:
    plan = calculate({"watching_hours_month": watching}, None).by_assumption
    assert plan.net_month <= 0
    assert plan.payback_months is None
    assert plan.first_year_percent is not None
    assert plan.first_year_percent <= -100.0


def test_nothing_up_front_has_no_return_to_speak_of() -> None:
    plan = calculate({"development_hours": 0, "deployment_hours": 0}, None).by_assumption
    assert (plan.payback_months, plan.first_year_percent) == (0.0, None)


def test_money_is_rounded_half_up() -> None:
    zeros = dict.fromkeys(("detection_hours_week", "debugging_hours_week", "incidents_month"), 0)
    plan = calculate({**zeros, "uptime_gain": 0.00025, "revenue_month": 100.2}, None).by_assumption
    assert plan.saved_month == 0.03  # 0.02505
    plan = calculate({**zeros, "uptime_gain": 0.5, "revenue_month": 0.05}, None).by_assumption
    assert plan.saved_month == 0.03  # 0.025, which floats and bankers would make 0.02
    largest = calculate(dict.fromkeys(("hourly_rate", "detection_hours_week", "weeks_month"), 1e9), None)
    assert largest.by_assumption.saved_month == pytest.approx(1e27, rel=0.01)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"hourly_rate": -1}, "hourly_rate: expected a number from 0 to 1e\\+09, got -1"),
        ({"hourly_rate": float("nan")}, "hourly_rate: .* got nan"),
        ({"hourly_rate": float("inf")}, "hourly_rate: .* got inf"),
        ({"hourly_rate": True}, "hourly_rate: .* got True"),
        ({"hourly_rate": "150"}, "hourly_rate: .* got '150'"),
        ({"hourly_rate": None}, "hourly_rate: .* got None"),
        ({"uptime_gain": 1.5}, "uptime_gain: expected a number from 0 to 1, got 1.5"),
        ({"uptime_before": 99.5}, "uptime_before: expected a number from 0 to 1"),
        ({"rate": 1}, "expected some of hourly_rate, .* got rate"),
    ],
)
def test_a_rate_that_makes_no_sense(given: dict[str, Any], told: str) -> None:
    with pytest.raises(RoiError, match=told):
        calculate(given, None)


def test_what_is_recorded_counts_at_the_users_rates() -> None:
    result = by_record(
        recorded(),
        hourly_rate=100,
        hours_per_detection=0.5,
        hours_per_debugging=3,
        hours_per_incident=2,
        uptime_before=0.99,
    )
    assert {line.what: line.amount for line in result.lines} == {
        "detection": 400.0,
        "debugging": 1500.0,
        "changes taken back": -200.0,
        "uptime": 900.0,
    }
    assert (result.saved_month, result.watching_month, result.net_month) == (2600.0, 400.0, 2200.0)
    assert (result.up_front, result.payback_months) == (6000.0, 2.73)


def test_two_months_count_half() -> None:
    result = by_record(recorded(days=2 * 30.4375), hourly_rate=100, hours_per_debugging=3)
    assert result.saved_month == 750.0
    assert [line.what for line in result.lines] == ["debugging"]


def test_a_loss_of_uptime_is_a_loss() -> None:
    assert by_record(recorded(uptime_share=0.98), uptime_before=0.99).saved_month == -1000.0


@pytest.mark.parametrize(
    ("found", "given", "told"),
    [
        (recorded(snapshots=0), {"hours_per_debugging": 1}, "nothing is recorded"),
        (recorded(watched_days=27.9), {"hours_per_debugging": 1}, "27.9 days were watched; less than 28"),
        (recorded(), {"hourly_rate": 1}, "has no price yet: give one of hours_per_detection"),
    ],
)
def test_what_cannot_be_said_is_not_said(found: Recorded, given: dict[str, Any], told: str) -> None:
    answer = calculate(given, found)
    assert answer.by_record is None
    assert told in answer.notes[0]
    assert answer.by_assumption.up_front > 0


def test_an_unknown_uptime_is_left_out() -> None:
    answer = calculate({"uptime_before": 0.9}, recorded(uptime_share=None))
    assert answer.by_record is not None
    assert answer.by_record.lines == ()
    assert any("uptime is not known" in note for note in answer.notes)


def stored(folder: Path, hours: int = 24 * 30, sick: tuple[slice, ...] = (), errors: float = 0.0) -> None:
    """A store of a healthy service, a snapshot an hour; Φ is low in `sick`."""
    heads = np.zeros(hours, HEAD)
    heads["timestamp"] = BEGUN + 3600.0 * np.arange(hours)
    heads["phi"], heads["kappa_eff"], heads["regime"] = 0.75, 64.0, 1
    heads["confidence"] = heads["surprise"] = heads["agency"] = np.nan
    for part in sick:
        heads["phi"][part] = 0.1
    heads["error_rate"][:10] = errors
    with History(folder) as history:
        history.append_rows(heads, np.full((hours, 64), 1 / 64), ("",))
        history.flush()


def change(number: int, state: Any) -> Change:
    patch = HealingPatch(
        strategy="errors", tier="safe", base="0" * 40, diff=f"+{number}", rationale="", heals=("errors",)
    )
    return Change(
        id=str(number), state=state, patch=patch, verdict=None, branch="b", target="main", opened_at=BEGUN
    )


def test_a_store_is_counted(tmp_path: Path) -> None:
    stored(tmp_path, sick=(slice(100, 120), slice(400, 410)))
    ledger = Ledger(tmp_path / "ledger.db")
    for number, state, at in (
        (1, "confirmed", BEGUN - DAY),
        (2, "merged", BEGUN + DAY),
        (2, "confirmed", BEGUN + 2 * DAY),
        (3, "rolled_back", BEGUN + 3 * DAY),
        (4, "open", BEGUN + 3 * DAY),
        (5, "confirmed", BEGUN + 31 * DAY),
    ):
        ledger.record_change(change(number, state), at)
    found = read(tmp_path)
    assert (found.snapshots, found.first, found.limits) == (720, BEGUN, "absolute")
    assert (found.days, found.until) == (31.0, BEGUN + 31 * DAY)
    assert (found.confirmed, found.taken_back, found.before) == (2, 1, 1)
    assert found.watched_days == pytest.approx(30.0)
    assert found.uptime_share == 1.0
    assert (found.degradations, found.warnings) == (2, 0)
    # A rule holds for some snapshots after the last bad one, and no longer than 14.
    assert 30.0 <= found.degraded_hours <= 30.0 + 2 * 14
    assert 20.0 <= found.longest_hours <= 34.0


def test_degradations_are_those_of_a_replay_however_the_history_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, sick=(slice(95, 130), slice(300, 301), slice(500, 540)))
    with History.read_only(tmp_path) as history:
        whole = Batch.concat(history.scan())
    standing = Standing(tmp_path)
    from qigheal.health import rules_for

    rules = rules_for(standing.settings, None)
    monkeypatch.setattr(History, "scan", lambda self: (whole.take(slice(i, i + 7)) for i in range(0, 720, 7)))
    times, levels = _replayed(standing, rules)
    assert np.array_equal(levels, replay(whole, rules))
    assert np.array_equal(times, whole.timestamp)
    assert levels.max() == 2


def test_time_in_which_nothing_came_is_not_counted_as_degraded() -> None:
    times = np.array([0.0, 60.0, 120.0, 180.0, 1e6, 1e6 + 60.0])
    found = _degradations(times, np.array([0, 1, 2, 2, 0, 1], np.uint8))
    assert (found["degradations"], found["warnings"]) == (1, 1)
    assert found["degraded_hours"] == pytest.approx((60 + 60 + 600 + 60) / 3600)
    assert found["watched_days"] == pytest.approx((60 + 60 + 60 + 600 + 60 + 60) / DAY)
    assert _degradations(np.empty(0), np.empty(0, np.uint8))["degraded_hours"] == 0.0
    assert _degradations(np.array([5.0]), np.array([2], np.uint8))["degradations"] == 1


def test_a_ledger_whose_chain_is_broken_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, 50)
    Ledger(tmp_path / "ledger.db").record_change(change(1, "confirmed"), BEGUN)
    monkeypatch.setattr(Ledger, "verify", lambda self: ("entry 1 was altered",))
    with pytest.raises(LedgerError, match="entry 1 was altered; what it says is not counted"):
        read(tmp_path)


def test_the_command_keeps_assumed_and_recorded_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "store", sick=(slice(100, 120),))
    assert roi(store=tmp_path / "store", hourly_rate=100.0, hours_per_detection=2.0) == 0
    said = capsys.readouterr().out
    places = [
        said.index(part)
        for part in ("assumed", "recorded from", "by assumption alone", "by what was recorded")
    ]
    assert places == sorted(places)
    assert "yours" in said
    assert "default" in said
    roi(store=tmp_path / "store", hourly_rate=100.0, hours_per_detection=2.0, json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["recorded"]["degradations"] == 1
    assert document["by_record"]["lines"][0]["what"] == "detection"
    assert document["by_assumption"]["basis"] == "assumed"
    monkeypatch.chdir(tmp_path)
    roi(json=True)
    assert json.loads(capsys.readouterr().out)["recorded"] is None
    with pytest.raises(LedgerError, match="no store here"):
        roi(store=tmp_path / "nowhere")
    roi(watching_hours=1000.0)
    assert "never pays back" in capsys.readouterr().out
