"""What is told of a service and its changes, and that it is told once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.alerts.records import Said
from qigheal.alerts.seeing import Turn
from qigheal.records import Severity
from qigheal.settings import HealSettings
from tests.alerts.scenes import START, Story, change, finding, move, report


def kinds(alerts: object) -> list[str]:
    return [alert.kind for alert in alerts]  # type: ignore[attr-defined]


def test_a_degradation_is_told_once_with_what_moved_since_when() -> None:
    story = Story()
    (alert,) = story.look(report("critical"), dashboard="https://digits.example/api/self-healing/dashboard")
    assert alert.title == "digits: critical: Φ degraded: 0.550 < 0.65"
    assert (alert.kind, alert.subject, alert.severity) == ("degraded", "service", "critical")
    assert alert.since == START - 600
    text = "\n".join(alert.lines)
    assert "(value 0.55, limit 0.65), since 2023-11-14 22:03 UTC, 10 snapshots" in text
    assert "components that moved: 12 (34%), 3 (20%)" in text
    assert alert.lines[-1] == "look at: https://digits.example/api/self-healing/dashboard"
    assert story.look(report("critical")) == []
    assert story.look(report("critical", finding(since=START))) == []


def test_a_warning_that_becomes_critical_is_told_again_and_a_lesser_one_is_not() -> None:
    story = Story()
    assert [alert.severity for alert in story.look(report("warning"))] == ["warning"]
    assert [alert.severity for alert in story.look(report("critical"))] == ["critical"]
    assert story.look(report("warning")) == []
    assert story.look(report("critical")) == []


def test_recovery_is_told_when_it_lasts_and_says_how_long_it_was() -> None:
    story = Story(recover_after_s=120)
    story.look(report("critical"))
    assert story.look(report()) == []
    assert story.look(report(), after=119) == []
    (alert,) = story.look(report(), after=1)
    assert alert.title == "digits: healthy again after 12 min"
    assert "it was: digits: critical: Φ degraded" in alert.lines[0]
    assert story.look(report()) == []
    assert kinds(story.look(report("critical", finding(since=story.now)))) == ["degraded"]


def test_flapping_is_one_episode() -> None:
    story = Story(recover_after_s=120)
    assert kinds(story.look(report("critical"))) == ["degraded"]
    for _ in range(20):
        assert story.look(report(), after=60) == []
        assert story.look(report("critical", finding(since=story.now))) == []
    assert story.look(report(), after=60) == []
    assert kinds(story.look(report(), after=120)) == ["recovered"]


def test_learning_and_an_unreadable_store_say_nothing() -> None:
    story = Story()
    story.look(report("critical"))
    for nothing in (None, report(state="learning")):
        for _ in range(10):
            assert story.look(nothing, after=100) == []


def test_a_change_that_waits_is_told_when_the_loop_has_not_approved_it() -> None:
    story = Story(review_after_s=5)
    assert story.look(report("critical"), change("opening"), change("open"))[-1].kind == "degraded"
    (alert,) = story.look(report("critical"), after=5)
    assert (alert.kind, alert.change, alert.state) == ("review", "3f2a", "open")
    assert alert.title == "digits: change 3f2a (attention) waits for a review"
    assert "qigheal review 3f2a --approve --store /srv/digits/.qigheal (or --reject)" in alert.lines
    assert "files: config/app.toml" in alert.lines
    assert story.look(report("critical")) == []
    story.look(report("critical"), change("approved"))
    assert story.look(report("critical"), change("open", reason="the breaker is open"), after=0.0) == []
    assert kinds(story.look(report("critical"))) == ["review"]  # handed back: it waits again


def test_what_the_loop_approves_by_itself_is_no_review() -> None:
    story = Story()
    assert story.look(report(), change("open"), change("approved"), change("merged")) == []
    assert story.look(report()) == []


def test_rollbacks_contested_and_unconfirmed_changes_are_told_once_each() -> None:
    story = Story()
    begun = story.look(report(), change("reverting", reason="Φ fell\nafter the merge", merge_commit="c" * 40))
    done = story.look(report(), change("reverted"), change("rolled_back", revert_commit="d" * 40))
    assert [(alert.kind, alert.severity) for alert in begun + done] == [
        ("rollback", "critical"),
        ("rollback", "info"),
    ]
    assert "why: Φ fell after the merge" in begun[0].lines
    assert any("dddddddddd" in line for line in done[0].lines)
    assert kinds(story.look(report(), change("contested", "4b"), change("unconfirmed", "5c"))) == [
        "contested",
        "unconfirmed",
    ]
    assert story.look(report()) == []


def test_the_breaker_is_told_when_it_opens_and_again_after_it_was_shut() -> None:
    story = Story()
    assert "breaker" not in kinds(story.look(report(), change("reverting", "1a")))
    assert "breaker" not in kinds(story.look(report(), change("reverted", "1a")))
    (told,) = [a for a in story.look(report(), change("reverting", "2b"), after=3600) if a.kind == "breaker"]
    assert "2 changes were taken back within 24 h" in told.title
    assert story.look(report(), change("rolled_back", "2b"), after=60)[0].kind == "rollback"
    assert story.look(report(), after=86_400) == []
    assert "breaker" not in kinds(story.look(report(), change("reverting", "3c")))
    assert "breaker" in kinds(story.look(report(), change("reverting", "4d")))


def test_the_breaker_is_the_healers_own() -> None:
    strict, patient = HealSettings(breaker_rollbacks=1, breaker_window_s=3600.0), HealSettings()
    story = Story()
    told = story.look(report(), change("reverting", "1a"), brakes=strict)
    (breaker,) = [alert for alert in told if alert.kind == "breaker"]
    assert breaker.title == "digits: healing has stopped: 1 change was taken back within 60 min"
    assert "until 2023-11-14 23:14 UTC no change is made" in breaker.lines
    assert story.look(report(), brakes=strict) == []
    story.look(report(), brakes=patient)  # for a while, by another healer's settings
    assert story.look(report(), brakes=strict) == [], "told before"


@pytest.mark.parametrize(
    ("how", "before", "to", "severity", "title"),
    [
        ("advance", 1, 2, "info", "digits: the healer is in phase 2 through its gate; it was in 1"),
        ("override", 1, 4, "warning", "digits: the healer is in phase 4 by override; it was in 1"),
        ("demote", 4, 3, "warning", "digits: the healer went back from phase 4 to 3"),
    ],
)
def test_a_move_between_phases_is_told_once(
    how: str, before: int, to: int, severity: str, title: str
) -> None:
    story = Story()
    (alert,) = story.look(report(), moves=(move(how, before, to, "below\n70 %"),))
    assert (alert.kind, alert.subject, alert.severity, alert.title) == ("phase", "healing", severity, title)
    assert alert.since == story.now
    assert "why: below 70 %" in alert.lines
    assert ("by: Ada" in alert.lines) == (how != "demote")
    assert story.look(report()) == []


def test_an_override_that_changes_nothing_is_no_alert() -> None:
    story = Story()
    moves = move("override", 2, 2, "again"), move("override", 2, 3, "on")
    (alert,) = story.look(report(), moves=moves)
    assert "is in phase 3" in alert.title
    assert story.look(report(), moves=(move("override", 3, 3, "again"),)) == []


def test_moves_of_one_moment_are_two_and_a_demotion_is_no_breaker() -> None:
    story = Story()
    moves = move("override", 1, 4, "a try"), move("demote", 4, 3, "only 3 of 5 were confirmed")
    told = story.look(report(), moves=moves)
    assert [(alert.kind, alert.severity) for alert in told] == [("phase", "warning")] * 2
    assert len({alert.key for alert in told}) == 2


def test_moves_of_before_the_first_look_are_not_told() -> None:
    story = Story()
    story.said = Said()
    assert story.look(report(), moves=(move("advance", 1, 2),)) == []
    old = Turn(story.now, move("override", 2, 3))
    new = Turn(story.now + 1.0, move("demote", 3, 2))
    assert [alert.since for alert in story.look(report(), turns=(old, new), anew=True)] == [new.at]


def test_what_was_done_stands_in_the_message() -> None:
    story = Story()
    story.look(report(), change("open", "aa"))
    (alert,) = [a for a in story.look(report("critical")) if a.kind == "degraded"]
    assert any("change aa (attention: config/app.toml) is open and waits" in line for line in alert.lines)
    story.look(report("critical"), change("watching", "aa"))
    story.look(report("critical"), change("confirmed", "aa"))
    story.look(report())
    (recovered,) = story.look(report(), after=120)
    assert any("change aa (attention: config/app.toml) is confirmed" in line for line in recovered.lines)


def test_silence_is_told_once_and_its_end_too() -> None:
    story = Story()
    last = story.now
    assert story.look(report(), last_at=last, after=299) == []
    (alert,) = story.look(report(), last_at=last, after=2)
    assert (alert.kind, alert.title) == ("silent", "digits: no snapshot for 5 min")
    assert story.look(report(), last_at=last, after=3600) == []
    (again,) = story.look(report())
    assert (again.kind, again.subject) == ("recovered", "monitor")
    assert story.look(report()) == []


def test_the_usual_interval_decides_what_silence_is() -> None:
    story = Story()
    last = story.now
    assert story.look(report(), last_at=last, interval_s=600.0, after=2999) == []
    assert kinds(story.look(report(), last_at=last, interval_s=600.0, after=2)) == ["silent"]


def test_a_service_that_is_just_being_started_is_not_silent() -> None:
    story = Story()
    story.said = Said()
    assert story.look(report(), last_at=START - 1e6, after=0) == []


def test_losses_are_told_when_they_grow() -> None:
    story = Story()
    (alert,) = story.look(report(), damage={"damaged blocks": 2})
    assert alert.kind == "losses"
    assert "2 damaged blocks" in alert.title
    assert story.look(report(), damage={"damaged blocks": 2}) == []
    assert kinds(story.look(report(), damage={"damaged blocks": 3})) == ["losses"]
    (lost,) = story.look(report(), damage={"damaged blocks": 3}, losses=7)
    assert "7 snapshots could not be written" in lost.title
    assert story.look(report(), losses=0) == []  # the process began anew
    assert "2 snapshots" in story.look(report(), losses=2)[0].title


def test_a_ledger_met_for_the_first_time_tells_only_what_waits() -> None:
    story = Story()
    story.said = Said()
    old = [change("rolled_back", "1a"), change("contested", "2b"), change("open", "3c")]
    assert story.look(report(), *old) == []
    assert [(a.kind, a.change) for a in story.look(report())] == [("review", "3c")]


def test_another_ledger_in_its_place_is_told_from_there_on() -> None:
    story = Story()
    story.look(report(), change("open", "1a"))
    was = story.said.looked_at
    fresh = [change("contested", "9f")]
    assert kinds(story.look(report(), *fresh, anew=True)) == ["contested"]
    assert "1a" not in story.said.notes
    assert story.said.looked_at > was


def test_figures_that_no_number_can_say() -> None:
    (alert,) = Story().look(report("critical", finding(value=math.nan, limit=math.inf, since=1e300)))
    assert alert.findings[0].value is None
    assert alert.findings[0].limit is None


SEVERITY = st.sampled_from(["normal", "warning", "critical"])


@given(st.lists(st.tuples(SEVERITY, st.floats(0.0, 600.0)), max_size=60))
def test_degradations_and_recoveries_alternate(course: list[tuple[Severity, float]]) -> None:
    story = Story(recover_after_s=100)
    told = [alert for severity, after in course for alert in story.look(report(severity), after=after)]
    rank = 0
    for alert in told:
        if alert.kind == "recovered":
            assert rank > 0
            rank = 0
        else:
            now = ("info", "warning", "critical").index(alert.severity)
            assert now > rank
            rank = now
    assert len({alert.key for alert in told}) == len(told)


@pytest.mark.parametrize(
    "text", ["x\ny", "a\x1b[31mred", "\N{RIGHT-TO-LEFT OVERRIDE}evil", "\udcff", "z" * 5000]
)
def test_text_of_others_is_one_printable_line(text: str) -> None:
    story = Story()
    told = story.look(
        report("critical", finding(message=text)),
        change("contested", "1a", reason=text),
        moves=(move("override", 1, 2, text),),
    )
    assert len(told) == 3
    for alert in told:
        for line in (alert.title, *alert.lines, *(each.message for each in alert.findings)):
            assert line.isprintable()
            assert len(line) <= 400
        assert len(alert.title) <= 80
