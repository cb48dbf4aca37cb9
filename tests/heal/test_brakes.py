"""What holds the healer back, on a host: breaker, demotion, rates, rehearsals, and alerts to a person."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import RepoError
from qigheal.healing import phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.forge.local import LocalForge
from qigheal.healing.phases import Move, Rehearsal, StoreEvidence
from qigheal.records import Change, HealingPatch
from tests.heal.lives import ACCEPTED
from tests.heal.test_engine import deploys, engine, harmful, sick
from tests.heal.toyhost import CONFIG, ToyHost, git


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    host = ToyHost(tmp_path)
    monkeypatch.setenv("TOY_DEPLOYS", str(host.deploys))
    return host


def taken_back(toy: ToyHost, healer: SelfHealingEngine, gain: float) -> Change:
    change = healer.put_through(harmful(toy, healer, gain), actor="Ada", reason="a test")
    toy.live(gain, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back", change.reason
    return change


def begun(toy: ToyHost, healer: SelfHealingEngine, gain: float, heals: tuple[str, ...] = ()) -> Change:
    """A change that was measured, as far as the ledger knows, and is open."""
    repo = healer.repo
    base = repo.head()
    diff = repo.diff(base, repo.edit(base, {"config/app.toml": CONFIG.format(gain=gain).encode()}))
    patch = HealingPatch(
        strategy="attention", tier="safe", base=base, diff=diff, rationale="Set the gain.", heals=heals
    )
    with healer._opened() as (_, passage):
        return passage.begin(patch, ACCEPTED, "main")


def test_two_rollbacks_in_a_day_stop_healing_and_demote_once(toy: ToyHost) -> None:
    toy.learn(100)
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy, phase=4)
    taken_back(toy, healer, 9.0)
    toy.live(1.0, 60, git(toy.path, "rev-parse", "main"))
    assert "breaker" not in healer.check_and_heal().message
    assert healer.phase == 4, "one rollback is none too many"
    toy.clock += 600
    taken_back(toy, healer, 12.0)
    toy.live(12.0, 60, git(toy.path, "rev-parse", "main"))
    for _ in range(2):
        held = healer.check_and_heal()
        assert held.triggered
        assert held.patches == ()
        assert "breaker is open" in held.message
        assert healer.phase == 3, "demoted, and once"
    move = healer.ledger.entries("phase")[-1].read(Move)
    assert (move.how, move.before, move.to) == ("demote", 4, 3)
    standing = phases.standing(healer.ledger, StoreEvidence(), healer.settings, toy.clock)
    assert standing.breaker_open
    assert standing.move == move
    assert "2 changes or more were taken back within 24 h" in move.reason

    toy.clock += healer.settings.breaker_window_s
    toy.live(12.0, 60, git(toy.path, "rev-parse", "main"))
    assert "breaker" not in healer.check_and_heal().message, "a day later"


def test_one_new_change_an_hour_and_three_at_a_time(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy)
    changes = [begun(toy, healer, 1.0 + number / 10) for number in range(3)]
    assert {change.state for change in changes} == {"open"}
    assert "3 changes already wait for a review" in healer.check_and_heal().message
    healer.review(changes[0].id, approve=False, reviewer="Ada")
    toy.clock += healer.settings.new_change_every_s - 10
    assert "the next change may be opened in" in (held := healer.check_and_heal()).message
    assert held.patches == ()


def test_a_revert_that_fails_in_rehearsal_stops_the_merge(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.learn(100)
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    change = begun(toy, healer, 1.1)

    def fail(self: LocalForge, change: Change) -> None:
        raise RepoError("taking it back would not restore config/app.toml")

    monkeypatch.setattr(LocalForge, "rehearse_revert", fail)
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert (change.state, "not restore" in change.reason) == ("approved", True)
    healer.bring_along()
    assert [e.read(Rehearsal).ok for e in healer.ledger.entries("rehearsal")] == [False], "said once"
    assert git(toy.path, "rev-parse", "main") == toy.healthy
    monkeypatch.undo()
    assert healer.bring_along()[0].state == "watching"
    assert [e.read(Rehearsal).ok for e in healer.ledger.entries("rehearsal")] == [False, True]
    assert phases.figures(healer.ledger).rehearsed == 1


def test_worse_under_a_persons_commit_alerts_and_reverts_nothing(
    toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    toy.learn(100)
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    change = healer.put_through(harmful(toy, healer), actor="Ada", reason="a test")
    toy.live(9.0, 40, change.merge_commit)
    (toy.path / "notes.txt").write_text("mine\n")
    tip = toy.commit("A person's work")
    with caplog.at_level(logging.WARNING, "qigheal"):
        (change,) = healer.bring_along()
    assert change.state == "contested"
    assert git(toy.path, "rev-parse", "main") == tip
    (alert,) = [record.getMessage() for record in caplog.records]
    assert change.id in alert
    assert "a person must see to it" in alert
    assert "other commits lie on top" in healer.ledger.changes()[change.id].reason
    assert not any(key.endswith("-rollback") for key in deploys(toy))
    assert healer.bring_along() == (), "it has ended; the alert is not repeated"


def test_a_conflict_with_newer_commits_is_measured_again_and_not_merged(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy)
    change = begun(toy, healer, 1.0, ("phi", "kappa"))
    (toy.path / "config/app.toml").write_text(CONFIG.format(gain=7.0))
    tip = toy.commit("The same line, by a person")
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "superseded"
    assert git(toy.path, "rev-parse", "main") == tip
    assert toy.gain() == 7.0
    assert not healer.ledger.quarantined(replace(change.patch, base=tip)), "nobody said that it was bad"
