from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from qigcore.fitness import Fitness
from qigheal.errors import LedgerError, PhaseError
from qigheal.healing import phases
from qigheal.healing.ledger import Ledger
from qigheal.records import (
    Answer,
    BandOf,
    Change,
    ChangeState,
    Diagnosis,
    HealingPatch,
    Pair,
    Target,
    Tier,
    Trial,
    Verdict,
)
from qigheal.settings import HealSettings

SETTINGS = HealSettings(breaker_rollbacks=2, breaker_window_s=86400.0, new_change_every_s=3600.0)
FULL = phases.StoreEvidence(
    snapshots=1440,
    present_share=0.9995,
    baseline_learned=True,
    trends_known=4,
    memory_mb=42.0,
    strategies=("attention",),
    uptime_share=0.999,
    hours_saved=4.0,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def a_patch(number: int, strategy: str = "attention", heals: tuple[str, ...] = ("phi",)) -> HealingPatch:
    diff = f"--- a/config\n+++ b/config\n@@ -1 +1 @@\n-t = 5\n+t = 0.{number:03d}\n"
    return HealingPatch(strategy=strategy, tier="safe", base="a" * 40, diff=diff, rationale="", heals=heals)


def a_verdict(score: float | None = 0.75, **components: float) -> Verdict:
    terms = {"phi": 1.0, "basin": 0.5, "service": 0.5, "quality": 1.0} | components
    fitness = score and Fitness(point=score, low=score - 0.05, high=score + 0.05, components=terms)
    return Verdict(
        decision="improved" if score else "inconclusive",
        accepted=bool(score),
        fitness=fitness or None,
        guards=(),
        vetoes=(),
        pairs=20,
        sandbox_level="namespaces",
        reason="",
    )


def a_change(number: int, state: ChangeState, **fields: Any) -> Change:
    patch = a_patch(number)
    given: dict[str, Any] = {"verdict": a_verdict(), "opened_at": 0.0, "merge_commit": "m"} | fields
    return Change(id=patch.fingerprint, state=state, patch=patch, branch="b", target="main", **given)


def a_diagnosis(*metrics: str) -> Diagnosis:
    return Diagnosis(
        metrics=metrics,
        findings=(),
        severity="warning",
        target=Target(geometry="simplex", basin=(0.6, 0.8), drift_limit=0.2, bands={}),
        observed={},
        code_hash="",
        healthy_code_hash="",
        since=None,
        snapshots=50,
    )


def facts(**fields: Any) -> phases.TrialFacts:
    given: dict[str, Any] = {
        "strategy": "attention", "pairs": 20, "problems": (), "refusals": (),
        "unpatched_healthy": False, "sandbox_level": "namespaces", "seconds": 9.0,
    } | fields  # fmt: skip
    return phases.TrialFacts(**given)


def criterion(
    ledger: Ledger, gate: str, name: str, evidence: phases.StoreEvidence = FULL
) -> phases.Criterion:
    (found,) = (
        line for line in phases.gate_status(ledger, evidence) if line.gate == gate and name in line.name
    )
    return found


def judged(ledger: Ledger, number: int, verdict: Verdict, strategy: str = "attention") -> None:
    patch = a_patch(number, strategy)
    ledger.append("trial", patch.fingerprint, facts(strategy=strategy), 1.0)
    ledger.append("verdict", patch.fingerprint, {"patch": patch, "verdict": verdict}, 1.0)


def passed(ledger: Ledger, number: int, final: ChangeState, at: float = 10.0, **fields: Any) -> None:
    """A change that a person approved, that was rehearsed and merged, and ended as `final`."""
    ledger.record_change(a_change(number, "open", merge_commit="", **fields), at)
    ledger.record_change(a_change(number, "approved", merge_commit="", reviewer="Ada", **fields), at)
    ledger.append("rehearsal", a_change(number, "open").id, phases.Rehearsal(ok=True), at)
    ledger.record_change(a_change(number, "watching", reviewer="Ada", **fields), at)
    if final == "rolled_back":
        ledger.record_change(a_change(number, "reverting", reviewer="Ada", **fields), at)
    ledger.record_change(a_change(number, final, reviewer="Ada", **fields), at)


def test_the_table() -> None:
    table = {
        (phase, tier): [
            name for name, may in phases.allowed(phase, tier).to_dict().items() if may
        ]
        for phase in phases.PHASES
        for tier in get_args(Tier)
    }  # fmt: skip
    for tier in get_args(Tier):
        assert table[1, tier] == []
        assert table[2, tier] == ["evaluate"]
    assert table[3, "safe"] == table[3, "guarded"] == ["evaluate", "open", "merge_reviewed"]
    assert table[4, "safe"] == ["evaluate", "open", "merge_reviewed", "merge_alone"]
    assert table[4, "guarded"] == ["evaluate", "open", "merge_reviewed"]
    assert table[3, "review"] == table[4, "review"] == ["evaluate", "open"]


@pytest.mark.parametrize("level", ["none", "partial", ""])
def test_without_full_isolation_nothing_merges_alone(level: str) -> None:
    assert not phases.allowed(4, "safe", level).merge_alone
    assert phases.allowed(4, "safe", level).merge_reviewed


def test_the_first_phase_is_monitoring(ledger: Ledger) -> None:
    assert phases.current(ledger) == 1
    assert phases.demote(ledger, "a reason", 1.0) == 1
    assert ledger.entries() == ()


def test_an_override_is_logged_with_name_and_reason(ledger: Ledger) -> None:
    assert phases.override(ledger, 3, "Ada", "  a drill ", 5.0) == 3
    assert phases.current(ledger) == 3
    (entry,) = ledger.entries("phase")
    move = entry.read(phases.Move)
    assert (move.before, move.to, move.how, move.actor, move.reason) == (1, 3, "override", "Ada", "a drill")
    assert entry.at == 5.0


@pytest.mark.parametrize(("actor", "reason"), [("Ada", ""), ("Ada", " \n"), ("", "a drill")])
def test_an_override_without_name_or_reason_is_refused(ledger: Ledger, actor: str, reason: str) -> None:
    with pytest.raises(PhaseError, match="reason"):
        phases.override(ledger, 3, actor, reason, 1.0)
    assert ledger.entries() == ()


@pytest.mark.parametrize("to", [0, 5, -1])
def test_there_are_four_phases(ledger: Ledger, to: int) -> None:
    with pytest.raises(PhaseError, match="1 to 4"):
        phases.override(ledger, to, "Ada", "a drill", 1.0)


def test_demotion_goes_back_one(ledger: Ledger) -> None:
    phases.override(ledger, 4, "Ada", "a drill", 1.0)
    assert phases.demote(ledger, "two rollbacks", 2.0) == 3
    assert phases.current(ledger) == 3
    assert ledger.entries("phase")[-1].read(phases.Move).reason == "two rollbacks"


def test_a_phase_of_a_later_version_is_an_error_not_a_guess(ledger: Ledger) -> None:
    move = {"before": 4, "to": 5, "how": "advance", "actor": "Ada", "reason": ""}
    ledger.append("phase", "5", move, 1.0)
    with pytest.raises(LedgerError, match="upgrade"):
        phases.current(ledger)


def test_nothing_measured_meets_nothing(ledger: Ledger) -> None:
    lines = phases.gate_status(ledger, phases.StoreEvidence())
    assert {line.gate for line in lines} == set(phases.GATES.values())
    assert not [line for line in lines if line.met]
    shown = {line.name: line.found for line in lines if line.gate == "1→2"}
    assert set(shown.values()) == {phases.NOT_MEASURED}


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ({"snapshots": 999}, "snapshots"),
        ({"present_share": 0.9989}, "present"),
        ({"silent_s": 7200.0}, "present: needed ≥ 99.9 %, found 99.9 %, none for 2 h"),
        ({"baseline_learned": False}, "baseline"),
        ({"trends_known": 3}, "trends"),
        ({"memory_mb": 100.0}, "memory"),
        ({"memory_mb": None}, "memory"),
    ],
)
def test_the_first_gate_needs_everything(ledger: Ledger, short: dict[str, Any], name: str) -> None:
    evidence = replace(FULL, **short)
    with pytest.raises(PhaseError) as caught:
        phases.advance(ledger, evidence, "Ada", 1.0)
    message = str(caught.value)
    assert name in message
    assert message.count("needed") == 1, "names what is met"
    assert "\n" not in message
    assert phases.current(ledger) == 1
    assert phases.advance(ledger, FULL, "Ada", 2.0) == 2


def test_an_advance_keeps_its_evidence(ledger: Ledger) -> None:
    phases.advance(ledger, FULL, "Ada", 1.0)
    move = ledger.entries("phase")[0].read(phases.Move)
    assert move.how == "advance"
    assert {line.name: line.found for line in move.criteria}["expected snapshots present"] == "99.9 %"
    assert all(line.met and line.gate == "1→2" for line in move.criteria)


def test_the_second_gate(ledger: Ledger) -> None:
    phases.advance(ledger, FULL, "Ada", 1.0)
    with pytest.raises(PhaseError, match="patches judged: needed ≥ 10, found 0"):
        phases.advance(ledger, FULL, "Ada", 2.0)
    for number in range(10):
        judged(ledger, number, a_verdict(0.75 if number < 5 else None))
    with pytest.raises(PhaseError, match="approved: needed ≥ 80 % of at least 3, found not measured"):
        phases.advance(ledger, FULL, "Ada", 3.0)
    for number in range(5):
        review = phases.Review(approved=number > 0, reviewer="Ada")
        ledger.append("review", a_patch(number).fingerprint, review, 4.0)
    assert phases.advance(ledger, FULL, "Ada", 5.0) == 3


def test_patches_are_counted_once_however_often_they_are_judged(ledger: Ledger) -> None:
    for _ in range(3):
        judged(ledger, 1, a_verdict())
    assert phases.figures(ledger).patches == 1


def test_every_strategy_that_applies_must_have_been_tried(ledger: Ledger) -> None:
    judged(ledger, 1, a_verdict())
    evidence = replace(FULL, strategies=("attention", "basin"))
    assert not criterion(ledger, "2→3", "strategies", evidence).met
    judged(ledger, 2, a_verdict(), strategy="basin")
    assert criterion(ledger, "2→3", "strategies", evidence).met
    unknown = criterion(ledger, "2→3", "strategies", replace(FULL, strategies=None))
    assert (unknown.found, unknown.met) == (phases.NOT_MEASURED, False)
    assert not criterion(ledger, "2→3", "strategies", replace(FULL, strategies=())).met


def test_a_strategy_that_was_asked_and_had_no_patch_was_tried(ledger: Ledger) -> None:
    judged(ledger, 1, a_verdict())
    evidence = replace(FULL, strategies=("attention", "memory"))
    unmet = criterion(ledger, "2→3", "strategies", evidence)
    assert (unmet.met, "--strategy memory" in unmet.advice) == (False, True)
    ledger.append("asked", "memory", phases.Asked(base="a" * 40, metrics=("phi",), patches=0), 1.0)
    assert criterion(ledger, "2→3", "strategies", evidence).met


def test_one_approval_is_not_yet_a_share(ledger: Ledger) -> None:
    for number in range(3):
        assert not criterion(ledger, "2→3", "approved").met, number
        review = phases.Review(approved=True, reviewer="Ada")
        ledger.append("review", a_patch(number).fingerprint, review, 1.0)
    assert criterion(ledger, "2→3", "approved").met


def test_a_patch_tried_again_counts_by_its_last_trial(ledger: Ledger) -> None:
    for problems in (("the probe hung",), ("the probe hung",), ()):
        ledger.append("trial", "a", facts(problems=problems, unpatched_healthy=bool(problems)), 1.0)
    found = phases.figures(ledger)
    assert (found.trials, found.completed, found.cases, found.false_positives) == (1, 1, 1, 0)


def test_trials_completed(ledger: Ledger) -> None:
    for number in range(19):
        ledger.append("trial", str(number), facts(), 1.0)
    ledger.append("trial", "refused", facts(refusals=("touches the tests",), problems=("not run",)), 1.0)
    ledger.append("trial", "hung", facts(problems=("the probe hung",)), 1.0)
    assert criterion(ledger, "2→3", "trials completed").met
    ledger.append("trial", "hung too", facts(problems=("the probe hung",)), 1.0)
    found = criterion(ledger, "2→3", "trials completed")
    assert (found.found, found.met) == ("90.4 %", False)


@pytest.mark.parametrize(
    ("score", "terms", "met"),
    [(0.75, {}, True), (0.85, {}, False), (0.9, {"basin": 1.0}, True), (0.59, {}, False), (0.6, {}, True)],
)
def test_scores_of_accepted_patches(ledger: Ledger, score: float, terms: dict[str, float], met: bool) -> None:
    judged(ledger, 1, a_verdict(score, **terms))
    assert criterion(ledger, "2→3", "scores").met is met


def test_reviews_are_a_persons_last_word(ledger: Ledger) -> None:
    ledger.record_change(a_change(1, "approved", reviewer="Ada"), 1.0)
    ledger.record_change(a_change(1, "rejected", reviewer="Ada"), 2.0)
    ledger.record_change(a_change(2, "approved", reviewer="Ada"), 3.0)
    ledger.record_change(a_change(3, "approved", reviewer=phases.ALONE), 4.0)
    ledger.record_change(a_change(4, "approved", reviewer="Ada", verdict=None), 5.0)
    found = phases.figures(ledger)
    assert (found.reviewed, found.approved) == (2, 1)


def test_the_third_gate(ledger: Ledger) -> None:
    phases.override(ledger, 3, "Ada", "a drill", 1.0)
    for number, final in enumerate(["confirmed"] * 4 + ["rolled_back"]):
        ledger.append("trial", str(number), facts(), 1.0)
        passed(ledger, number, final)  # type: ignore[arg-type]
    assert phases.advance(ledger, FULL, "Ada", 20.0) == 4
    with pytest.raises(PhaseError, match="last"):
        phases.advance(ledger, FULL, "Ada", 21.0)


def test_the_third_gate_unmet(ledger: Ledger) -> None:
    phases.override(ledger, 3, "Ada", "a drill", 1.0)
    for number in range(7):
        passed(ledger, number, "confirmed")
    for number in range(7, 10):
        passed(ledger, number, "unconfirmed")
    ledger.record_change(a_change(10, "watching"), 1.0)  # not settled, and never rehearsed
    for number in range(10):
        ledger.append("trial", str(number), facts(unpatched_healthy=number == 0), 1.0)
    with pytest.raises(PhaseError) as caught:
        phases.advance(ledger, FULL, "Ada", 2.0)
    message = str(caught.value)
    assert "confirmed: needed > 70 %, found 70 %" in message
    assert "false positives: needed < 10 % of cases, found 1 of 10" in message
    assert "rehearsed: needed of every change merged, found 10 of 11" in message
    assert "rollbacks performed, drills included: needed ≥ 1, found 0" in message
    assert "changes applied" not in message


def test_overrides_count_for_rollbacks_and_for_nothing_else(ledger: Ledger) -> None:
    passed(ledger, 1, "rolled_back", verdict=None)
    found = phases.figures(ledger)
    assert (found.rolled_back, found.merges) == (1, 1)
    assert (found.applied, found.settled, found.confirmed_share, found.reviewed) == (0, 0, None, 0)
    assert criterion(ledger, "3→4", "rollbacks performed").met
    assert criterion(ledger, "3→4", "confirmed").found == phases.NOT_MEASURED


def test_changes_not_merged_are_not_applied(ledger: Ledger) -> None:
    ledger.record_change(a_change(1, "open", merge_commit=""), 1.0)
    ledger.record_change(a_change(2, "rejected", merge_commit=""), 1.0)
    found = phases.figures(ledger)
    assert (found.applied, found.pending) == (0, 1)


def test_a_false_alarm_is_told_from_the_unpatched_side() -> None:
    def answer(phi: float, basin: tuple[float, float], errors: float = 0.0) -> Answer:
        return Answer(
            batch=1, phi=phi, kappa_eff=66.0, basin=basin, error_rate=errors, avg_latency_ms=1.0,
            wall_ms=1.0, cpu_ms=1.0, rss_mb=1.0,
        )  # fmt: skip

    def told(heals: tuple[str, ...], before: Answer, pairs: int = 20) -> bool | None:
        target = Target(
            geometry="simplex",
            basin=(0.6, 0.8),
            drift_limit=0.2,
            bands={
                "phi": BandOf(mean=0.77, sd=0.01, low=0.74, high=0.8),
                "errors": BandOf(mean=0.01, sd=0.003, low=0.001, high=0.019),
            },
        )
        patched = answer(0.77, (0.36, 0.64))
        trial = Trial(
            patch=a_patch(1, heals=heals),
            target=target,
            observed={},
            pairs=tuple(Pair(block=i // 2, before=before, after=patched) for i in range(pairs)),
        )
        return phases.trial_facts(trial).unpatched_healthy

    healthy, ill = answer(0.77, (0.36, 0.64)), answer(0.3, (0.9, 0.1), errors=0.2)
    for heals in (("phi",), ("basin_drift",), ("errors",), ("phi", "kappa", "basin_drift")):
        assert told(heals, healthy) is True, heals
        assert told(heals, ill) is False, heals
    assert told(("phi", "basin_drift"), answer(0.77, (0.9, 0.1))) is False
    assert told(("latency",), healthy) is None
    assert told(("phi",), healthy, pairs=9) is None


def test_breaker_opens_on_rollbacks_within_its_window(ledger: Ledger) -> None:
    now = 1e6
    passed(ledger, 1, "rolled_back", at=now - 90000)
    passed(ledger, 2, "rolled_back", at=now - 1000)
    passed(ledger, 3, "confirmed", at=now - 900)
    assert not phases.breaker_open(ledger, SETTINGS, now)
    passed(ledger, 4, "reverting", at=now - 10)
    assert phases.breaker_open(ledger, SETTINGS, now)
    assert not phases.breaker_open(ledger, SETTINGS, now + 86400)


def test_a_rollback_that_did_not_come_about_does_not_count(ledger: Ledger) -> None:
    for number in (1, 2):
        passed(ledger, number, "reverting", at=10.0)
        ledger.record_change(a_change(number, "contested"), 11.0)
    assert not phases.breaker_open(ledger, SETTINGS, 12.0)


def test_the_next_change_waits(ledger: Ledger) -> None:
    assert phases.next_change_at(ledger, SETTINGS) == 0.0
    ledger.record_change(a_change(1, "open", opened_at=5000.0), 5000.0)
    ledger.record_change(a_change(2, "open", opened_at=9000.0, verdict=None), 9000.0)
    ledger.record_change(a_change(1, "approved", opened_at=5000.0), 9500.0)
    assert phases.next_change_at(ledger, SETTINGS) == 8600.0


def test_an_open_breaker_demotes_once(ledger: Ledger) -> None:
    phases.override(ledger, 4, "Ada", "a drill", 1.0)
    for number in (1, 2):
        passed(ledger, number, "rolled_back", at=10.0)
    reason = phases.demotion_due(ledger, SETTINGS, 20.0)
    assert "taken back within 24 h" in reason
    phases.demote(ledger, reason, 20.0)
    assert phases.demotion_due(ledger, SETTINGS, 30.0) == ""
    passed(ledger, 3, "rolled_back", at=40.0)
    phases.demote(ledger, phases.demotion_due(ledger, SETTINGS, 50.0), 50.0)
    assert phases.current(ledger) == 2
    assert phases.demotion_due(ledger, SETTINGS, 60.0) == ""


def test_too_few_successes_end_phase_four(ledger: Ledger) -> None:
    phases.override(ledger, 4, "Ada", "a drill", 1.0)
    for number in range(4):
        passed(ledger, number, "unconfirmed")
    assert phases.demotion_due(ledger, SETTINGS, 20.0) == "", "four changes say little"
    for number in range(4, 11):
        passed(ledger, number, "confirmed")
    assert "7 of 11" in phases.demotion_due(ledger, SETTINGS, 20.0)
    for number in range(11, 14):
        passed(ledger, number, "confirmed")
    assert phases.demotion_due(ledger, SETTINGS, 20.0) == ""


def test_the_first_phase_has_nothing_to_go_back_to(ledger: Ledger) -> None:
    for number in (1, 2):
        passed(ledger, number, "rolled_back", at=10.0)
    assert phases.demotion_due(ledger, SETTINGS, 20.0) == ""


def test_where_the_healer_stands_says_what_comes_next(ledger: Ledger) -> None:
    found = phases.standing(ledger, phases.StoreEvidence(), SETTINGS, 0.0)
    assert (found.phase, found.gate, found.move, found.since) == (1, "1→2", None, None)
    assert {line.gate for line in found.missing} == {"1→2"}
    assert all(line.advice for line in found.missing)
    assert phases.standing(ledger, FULL, SETTINGS, 0.0).missing == ()
    assert not any(line.advice for line in phases.gate_status(ledger, FULL) if line.met)

    phases.override(ledger, 4, "Ada", "a test", 5.0)
    for number in (1, 2):
        passed(ledger, number, "rolled_back", at=100.0)
    due = phases.standing(ledger, FULL, SETTINGS, 200.0)
    assert due.breaker_open
    assert "taken back within 24 h" in due.demotion
    assert due.move is not None
    assert (due.move.how, due.since, due.gate) == ("override", 5.0, "stay in 4")
    phases.demote(ledger, due.demotion, 200.0)
    after = phases.standing(ledger, FULL, SETTINGS, 200.0)
    assert (after.phase, after.demotion, after.breaker_open) == (3, "", True)
    assert after.move is not None
    assert (after.move.how, after.move.reason) == ("demote", due.demotion)


def test_a_drill_counts_as_a_rollback_performed_when_it_succeeded(ledger: Ledger) -> None:
    ledger.append("drilled", "x", phases.Drilled(ok=False, branch="b", reason="held"), 1.0)
    assert not criterion(ledger, "3→4", "drills included").met
    ledger.append("drilled", "x", phases.Drilled(ok=True, branch="b"), 1.0)
    line = criterion(ledger, "3→4", "drills included")
    assert (line.found, line.met) == ("1 drilled, on a repository that is not named", False)
    line = criterion(ledger, "3→4", "drills included", replace(FULL, drills=1))
    assert (line.found, line.met) == ("1", True)
    assert not criterion(ledger, "3→4", "drills included", replace(FULL, drills=0)).met
    assert phases.figures(ledger).rolled_back == 0
    assert not phases.breaker_open(ledger, SETTINGS, 1.0), "a drill is no failure"


def test_one_rollback_is_enough_where_the_settings_say_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    phases.override(ledger, 3, actor="Ada", reason="a test", at=0.0)
    passed(ledger, 1, "rolled_back", at=10.0)
    assert phases.demotion_due(ledger, HealSettings(), 20.0) == ""
    strict = HealSettings(breaker_rollbacks=1, breaker_window_s=1800.0)
    assert phases.demotion_due(ledger, strict, 20.0) == "1 change or more was taken back within 0.5 h"
