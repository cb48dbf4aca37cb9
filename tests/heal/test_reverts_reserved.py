"""A person takes commits back, whatever an older verdict said, but where the manifest leaves it to the healer."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.healing import phases, trial
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.ledger import Ledger
from qigheal.records import HealResult
from tests.heal.test_engine import engine, git, sick, toy
from tests.heal.toyhost import ToyHost

__all__ = ["toy"]

HOUR_S = 3600.0


def reverted(healer: SelfHealingEngine, *, again: bool = False) -> HealResult:
    result = healer.check_and_heal(strategy="revert", again=again)
    assert [verdict.decision for verdict in result.verdicts] in ([], ["improved"]), result.message
    return result


def judged_before_the_rule(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open change with the verdict of a version that had no such rule."""
    sick(toy)
    with monkeypatch.context() as older:
        older.setattr(trial, "not_left_to_the_healer", lambda manifest, paths: ())
        [change] = reverted(engine(toy, phase=3)).changes
    assert (change.state, change.patch.tier) == ("open", "safe")
    toy.clock += 2 * HOUR_S


@pytest.mark.parametrize(("phase", "auto_apply"), [(4, False), (3, True), (4, True)])
def test_it_waits_for_a_person(toy: ToyHost, phase: int, auto_apply: bool) -> None:
    sick(toy)
    result = reverted(engine(toy, phase=phase, auto_apply=auto_apply))
    [change] = result.changes
    assert (change.state, change.patch.tier) == ("open", "review")
    assert "config/app.toml: takes back what a person committed" in result.message
    assert toy.gain() == 6.0


@pytest.mark.parametrize("auto_apply", [False, True])
def test_so_does_an_open_one_that_was_judged_before_the_rule(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, auto_apply: bool
) -> None:
    judged_before_the_rule(toy, monkeypatch)
    result = reverted(engine(toy, phase=4, auto_apply=auto_apply))
    assert [change.state for change in result.changes] == ["open"]
    assert "config/app.toml: takes back what a person committed" in result.message
    assert toy.gain() == 6.0


def test_so_does_one_that_the_loop_had_approved_before(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_before_the_rule(toy, monkeypatch)
    healer = engine(toy, phase=4)
    [change] = Ledger(toy.store / "ledger.db").changes().values()
    with healer._opened() as (_, passage):
        passage.review(change, approve=True, reviewer=phases.ALONE, reason="")
    healer.bring_along()
    [change] = healer.ledger.changes().values()
    assert (change.state, change.reviewer) == ("open", "")
    assert "only a person may merge it: config/app.toml" in change.reason
    assert toy.gain() == 6.0


def test_so_does_one_whose_base_is_gone(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it stands in the way of no other change."""
    judged_before_the_rule(toy, monkeypatch)
    healer = engine(toy, phase=4)
    [change] = healer.ledger.changes().values()
    gone = replace(change, patch=replace(change.patch, base="0" * 40))
    with healer._opened() as (_, passage):
        [why] = passage.reserved(gone)
    assert why.startswith("what it takes back cannot be told: ")


def test_so_does_one_that_ended_and_is_measured_again(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_before_the_rule(toy, monkeypatch)
    base = git(toy.path, "rev-parse", "HEAD")
    git(toy.path, "commit", "-q", "--allow-empty", "-m", "on top")
    engine(toy, phase=3).bring_along()
    git(toy.path, "reset", "-q", "--hard", base)
    toy.clock += 2 * HOUR_S
    [change] = reverted(engine(toy, phase=4), again=True).changes
    assert (change.state, change.patch.tier) == ("open", "review"), change.reason
    assert toy.gain() == 6.0


def test_one_that_the_manifest_leaves_to_the_healer_is_merged(toy: ToyHost, tmp_path: Path) -> None:
    manifest = toy.path / "qigheal.toml"
    text = manifest.read_text()
    assert "[patch]\n" in text
    manifest.write_text(text.replace("[patch]\n", '[patch]\nunattended_reverts = ["config/*.toml"]\n'))
    toy.commit("Reverts in the configuration are left to the healer")
    sick(toy)
    [change] = reverted(engine(toy, phase=4)).changes
    assert (change.state, change.patch.tier, change.reviewer) == ("watching", "safe", phases.ALONE)
    assert toy.gain() == 1.0
