"""The figures of a ledger, entry by entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigheal.errors import LedgerError
from qigheal.healing import phases
from qigheal.healing.ledger import Ledger
from qigheal.integrations.metrics.healed import HealingFigures
from qigheal.integrations.metrics.reading import Reading
from qigheal.settings import HealSettings
from tests.heal.test_phases import a_change, facts
from tests.metrics.scraped import confirmed, healed_store, judged, taken_back


def told(figures: HealingFigures, now: float = 1e6) -> Reading:
    reading = Reading()
    figures.tell(reading, now)
    return reading


def value(reading: Reading, name: str, label: str = "") -> float:
    return reading.values[name][label]


def counters(reading: Reading) -> dict[str, float]:
    return {
        name.removeprefix("healing_").removesuffix("_total"): labels[""]
        for name, labels in reading.values.items()
        if name.endswith("_total") and "" in labels
    }


def test_what_was_tried_and_what_came_of_it(tmp_path: Path) -> None:
    healed_store(tmp_path, at=1.0)
    reading = told(HealingFigures(tmp_path))
    # One was not accepted, one taken back; one confirmed; one waits.
    assert counters(reading) == {"attempts": 4, "success": 1, "failures": 2, "rollbacks": 1}
    assert value(reading, "healing_patches_total", "improved") == 3
    assert value(reading, "healing_patches_total", "inconclusive") == 1
    assert value(reading, "healing_changes", "open") == 1
    assert value(reading, "healing_changes", "rolled_back") == 1
    assert value(reading, "healing_changes", "merging") == 0
    assert value(reading, "healing_fitness_score") == 0.75
    assert value(reading, "healing_phase") == 3
    durations = {name: (each.count, each.sum) for name, each in reading.distributions.items()}
    assert durations == {
        "healing_patch_generation_duration_seconds": (4, 8.0),
        "healing_patch_test_duration_seconds": (4, 36.0),
        "healing_patch_apply_duration_seconds": (2, 4.0),
    }
    assert reading.distributions["healing_patch_test_duration_seconds"].counts[4] == 4, "9 s lies below 15 s"


def test_the_same_however_often_it_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    followed = HealingFigures(tmp_path)
    for number in range(4):
        judged(ledger, number)
        told(followed)
        ledger.record_change(a_change(number, "merging"), 10.0)
        told(followed)
        ledger.record_change(a_change(number, "merged"), 11.0)
        ledger.record_change(a_change(number, "watching"), 13.5)
        told(followed)
        ledger.record_change(a_change(number, "confirmed"), 20.0)
    once, often = told(HealingFigures(tmp_path)), told(followed)
    assert often.values == once.values
    assert counters(often)["success"] == 4
    for name, each in often.distributions.items():
        assert (each.counts, each.sum) == (once.distributions[name].counts, once.distributions[name].sum)
    assert often.distributions["healing_patch_apply_duration_seconds"].sum == 14.0


def test_a_state_that_is_written_again_is_entered_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    judged(ledger, 1)
    for reason in ("work in progress", "a lock"):
        ledger.record_change(a_change(1, "approved", reason=reason), 1.0)
    for reason in ("by Ada", "by Bob"):
        ledger.record_change(a_change(1, "rejected", reason=reason), 2.0)
    assert counters(told(HealingFigures(tmp_path)))["failures"] == 1


def test_an_override_is_no_success_and_no_failure_of_the_healer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    taken_back(ledger, 1, override=True)
    ledger.record_change(a_change(2, "superseded"), 1.0)
    found = counters(told(HealingFigures(tmp_path)))
    assert found == {"attempts": 0, "success": 0, "failures": 0, "rollbacks": 1}


def test_a_refused_patch_was_not_tried(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").append("trial", "f", facts(refusals=("touches the tests",)), 1.0)
    assert told(HealingFigures(tmp_path)).distributions["healing_patch_test_duration_seconds"].count == 0


def test_the_breaker_opens_and_closes_with_time(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    figures = HealingFigures(tmp_path)
    taken_back(ledger, 1, at=1000.0)
    assert value(told(figures, 1001.0), "healing_breaker_open") == 0
    taken_back(ledger, 2, at=2000.0)
    assert value(told(figures, 2001.0), "healing_breaker_open") == 1
    assert value(told(figures, 2001.0 + 86400), "healing_breaker_open") == 0


def test_the_breaker_goes_by_the_settings_of_the_healer(tmp_path: Path) -> None:
    taken_back(Ledger(tmp_path / "ledger.db"), 1, at=1000.0)
    figures = HealingFigures(tmp_path)
    assert value(told(figures, 1001.0), "healing_breaker_open") == 0
    HealSettings(breaker_rollbacks=1, breaker_window_s=100.0).save(tmp_path)
    assert value(told(figures, 1001.0), "healing_breaker_open") == 1
    assert value(told(figures, 1101.0), "healing_breaker_open") == 0


def test_unusable_settings_are_said_and_hide_no_figure(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    taken_back(ledger, 1, at=1000.0)
    taken_back(ledger, 2, at=1000.0)
    (tmp_path / "healer.json").write_text('{"breaker_rollbacks": 0}')
    figures, reading = HealingFigures(tmp_path), Reading()
    with pytest.raises(LedgerError, match=r"healer\.json"):
        figures.tell(reading, 1001.0)
    assert value(reading, "healing_breaker_open") == 1, "by the usual settings"
    assert counters(reading)["rollbacks"] == 2
    (tmp_path / "healer.json").unlink()
    assert value(told(figures, 1001.0), "healing_breaker_open") == 1


def test_without_a_ledger_all_is_nothing_and_phase_one(tmp_path: Path) -> None:
    reading = told(HealingFigures(tmp_path))
    assert counters(reading) == dict.fromkeys(("attempts", "success", "failures", "rollbacks"), 0)
    assert value(reading, "healing_phase") == 1
    assert "healing_fitness_score" not in reading.values
    assert not list(tmp_path.iterdir()), "reading made a file"


def test_another_ledger_begins_at_nothing(tmp_path: Path) -> None:
    ledger = healed_store(tmp_path, at=1.0)
    figures = HealingFigures(tmp_path)
    told(figures)
    ledger.path.rename(tmp_path / "old.db")
    judged(Ledger(tmp_path / "ledger.db"), 1)
    assert counters(told(figures))["attempts"] == 1


def test_an_entry_of_a_later_version_hides_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    judged(ledger, 1)
    ledger.append("change", "f", {"state": "teleported"}, 1.0)
    ledger.append("a kind of later", "f", {}, 1.0)
    confirmed(ledger, 1)
    phases.override(ledger, 2, actor="test", reason="a test", at=1.0)
    figures = HealingFigures(tmp_path)
    for _ in range(2):
        reading = Reading()
        with pytest.raises(LedgerError, match="upgrade"):
            figures.tell(reading, 1e6)
        assert counters(reading) == {"attempts": 1, "success": 1, "failures": 0, "rollbacks": 0}
        assert value(reading, "healing_phase") == 2
