"""What stands in a change's way: said once, stopping nothing else, and a person can always end it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qigheal.errors import EngineError, LedgerError, RepoError
from qigheal.healing import phases
from qigheal.healing.bench import Bench
from qigheal.healing.engine import SelfHealingEngine
from qigheal.records import Change, Diagnosis, HealingPatch
from qigheal.repo import Repo
from tests.heal.test_engine import deploys, engine, harmful, sick, waiting
from tests.heal.toyhost import ToyHost, git


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    host = ToyHost(tmp_path)
    monkeypatch.setenv("TOY_DEPLOYS", str(host.deploys))
    return host


def drilled(toy: ToyHost) -> tuple[SelfHealingEngine, Change]:
    """A harmful change that is merged and live, and has been seen to be worse."""
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    change = healer.put_through(harmful(toy, healer), actor="Ada", reason="a drill")
    toy.live(9.0, 40, change.merge_commit)
    return healer, change


def dirty(toy: ToyHost) -> None:
    config = toy.path / "config/app.toml"
    config.write_text("# unfinished\n" + config.read_text())


def cleaned(toy: ToyHost) -> None:
    git(toy.path, "checkout", "-q", "--", ".")


def test_an_open_change_is_not_proposed_again(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    asked.clock += 7200
    again = healer.check_and_heal()
    assert [(c.id, c.state) for c in again.changes] == [(change.id, "open")]
    assert again.patches == ()
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "watching"


def test_apply_takes_up_the_change_that_is_open(asked: ToyHost) -> None:
    _, change = waiting(asked)
    result = engine(asked, auto_apply=True).check_and_heal()
    assert [(c.id, c.state) for c in result.changes] == [(change.id, "watching")], result.message


def test_a_blocked_change_writes_no_rows(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    dirty(asked)
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "approved"
    rows = len(healer.ledger.entries())
    for _ in range(3):
        assert healer.check_and_heal().changes[0].state == "approved"
    assert len(healer.ledger.entries()) == rows
    cleaned(asked)
    assert healer.bring_along()[0].state == "watching"


def test_a_lock_held_by_a_user_is_seen_before_anything_is_written(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    lock = asked.path / ".git/index.lock"
    lock.touch()
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "approved"
    assert "index.lock" in change.reason
    rows = len(healer.ledger.entries())
    healer.bring_along()
    assert len(healer.ledger.entries()) == rows
    lock.unlink()
    assert healer.bring_along()[0].state == "watching"


def test_watching_alone_writes_the_same_diagnosis_once(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy, phase=1)
    for _ in range(3):
        assert healer.check_and_heal().triggered
    assert len(healer.ledger.entries(kind="diagnosis")) == 1


def test_the_loop_does_not_measure_until_it_comes_out_well(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy, phase=2)
    (first,) = healer.check_and_heal(again=False).verdicts
    if first.decision == "inconclusive":
        pytest.skip("too loaded a machine to decide")
    assert healer.check_and_heal(again=False).verdicts == ()
    assert len(healer.check_and_heal().verdicts) == 1, "a person may ask again"


class Silent:
    """A strategy that counts how often it is asked, and has no patch."""

    name, tier, metrics = "silent", "safe", ("phi", "basin_drift")

    def __init__(self) -> None:
        self.asked = 0

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        self.asked += 1
        yield from ()


def test_the_loop_asks_a_strategy_once_that_has_no_patch(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick(toy)
    silent = Silent()
    monkeypatch.setattr("qigheal.healing.engine.askable", lambda *_: ((silent,), ()))
    healer = engine(toy)
    for _ in range(3):
        assert "no strategy has a patch" in healer.check_and_heal(again=False).message
    assert silent.asked == 1
    healer.check_and_heal()
    assert silent.asked == 2, "a person may ask again"
    (entry,) = healer.ledger.entries("asked")
    asked = entry.read(phases.Asked)
    assert (entry.subject, asked.base, asked.patches) == ("silent", healer.repo.head(), 0)
    assert asked.metrics
    toy.break_it(7.0)
    healer.check_and_heal(again=False)
    assert silent.asked == 3, "other code may have another answer"


def test_a_target_that_moved_gives_way_to_a_new_change(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    (asked.path / "notes.txt").write_text("mine\n")
    tip = asked.commit("A person's work")
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "superseded"
    assert "measured again" in change.reason
    asked.clock += 7200
    asked.live(6.0, 60, tip)
    (new,) = healer.check_and_heal().changes
    assert (new.state, new.patch.base) == ("open", tip)

    # The base comes back, and with it the first patch: its branch is still there.
    git(asked.path, "reset", "-q", "--hard", "HEAD~1")
    asked.clock += 7200
    asked.live(6.0, 60, change.patch.base)
    again = healer.check_and_heal().changes
    assert {(c.id, c.state) for c in again} == {(new.id, "superseded"), (change.id, "open")}
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "watching"


def test_the_commit_of_a_rollback_says_why_whatever_was_in_the_way(toy: ToyHost) -> None:
    healer, _ = drilled(toy)
    dirty(toy)
    (change,) = healer.bring_along()
    assert change.state == "reverting"
    assert "uncommitted" in change.reason
    cleaned(toy)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back"
    assert "healthy band" in change.reason
    assert "healthy band" in " ".join(git(toy.path, "log", "-1", "--format=%B").split())


def test_a_target_that_is_gone_ends_the_change(toy: ToyHost) -> None:
    healer, _ = drilled(toy)
    git(toy.path, "checkout", "-q", "-b", "other")
    git(toy.path, "branch", "-D", "main")
    assert [c.state for c in healer.bring_along()] == ["contested"]


def test_a_merge_that_a_person_took_out_ends_without_an_alarm(
    toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    healer, change = drilled(toy)
    git(toy.path, "reset", "-q", "--hard", change.patch.base)
    (ended,) = healer.bring_along()
    assert ended.state == "contested"
    assert "no longer in main" in ended.reason
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_commit_on_the_changes_branch_is_said_with_the_ways_out(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    git(asked.path, "update-ref", f"refs/heads/{change.branch}", change.patch.base)
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "approved"
    said = healer.check_and_heal().message
    assert "has to end first" in said
    assert f"git branch -f {change.branch} {change.head}" in said
    assert f"qigheal review {change.id} --reject" in said
    git(asked.path, "branch", "-f", change.branch, change.head)
    assert healer.bring_along()[0].state == "watching"


def test_a_person_can_end_a_change_whatever_its_state(toy: ToyHost) -> None:
    healer, change = drilled(toy)
    dirty(toy)
    assert [c.state for c in healer.bring_along()] == ["reverting"]
    taken = healer.review(change.id, approve=False, reviewer="Ada", reason="I mend it")
    assert taken.state == "rejected"
    assert taken.reason == "Ada took it over while it was reverting: I mend it"
    cleaned(toy)
    assert healer.bring_along() == ()
    assert toy.gain() == 9.0, "what was merged stays: it is Ada's now"
    assert healer.ledger.quarantined(change.patch)
    with pytest.raises(EngineError, match="has ended"):
        healer.review(change.id, approve=False, reviewer="Ada")


def test_without_a_baseline_the_watch_ends_at_its_deadline(toy: ToyHost) -> None:
    healer, _ = drilled(toy)
    (toy.store / "baseline.json").unlink()
    assert [c.state for c in healer.bring_along()] == ["watching"]
    toy.clock += healer.settings.watch_deadline_s + 1
    assert [c.state for c in healer.bring_along()] == ["unconfirmed"]


def test_a_patch_forced_again_after_its_rollback_uses_its_branch(toy: ToyHost) -> None:
    healer, change = drilled(toy)
    assert [c.state for c in healer.bring_along()] == ["rolled_back"]
    git(toy.path, "reset", "-q", "--hard", toy.healthy)
    again = healer.put_through(change.patch.diff, actor="Ada", reason="another drill")
    assert (again.id, again.state) == (change.id, "watching")
    assert again.merge_commit != change.merge_commit
    assert healer.ledger.verify() == ()


def test_a_store_of_two_hosts_touches_only_the_one_it_is_asked_for(asked: ToyHost, tmp_path: Path) -> None:
    healer, change = waiting(asked)
    (tmp_path / "other").mkdir()
    other = ToyHost(tmp_path / "other")
    (other.path / "notes.txt").write_text("another host\n")
    other.commit("Apart")
    other.store, other.clock = asked.store, asked.clock
    stranger = engine(other)
    with pytest.raises(EngineError, match=r"is not in .*other"):
        stranger.review(change.id, approve=True, reviewer="Ada")
    (seen,) = stranger.bring_along()
    assert seen.state == "open"
    assert healer.ledger.changes()[change.id] == change
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "watching"


def test_history_rewritten_under_an_open_change_stops_nothing(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    git(asked.path, "commit", "-q", "--amend", "-m", "Amended")
    git(asked.path, "branch", "-D", change.branch)
    git(asked.path, "reflog", "expire", "--expire=now", "--all")
    git(asked.path, "gc", "-q", "--prune=now")
    with pytest.raises(EngineError, match="--reject"):
        healer.review(change.id, approve=True, reviewer="Ada")
    assert healer.check_and_heal().triggered
    assert healer.review(change.id, approve=False, reviewer="Ada").state == "rejected"


def test_what_the_loop_approved_waits_for_a_person_in_a_lower_phase(toy: ToyHost) -> None:
    sick(toy)
    dirty(toy)
    result = engine(toy, phase=4).check_and_heal()
    assert [c.state for c in result.changes] == ["approved"], result.message
    cleaned(toy)
    healer = engine(toy, phase=3)
    (change,) = healer.bring_along()
    assert (change.state, change.reviewer) == ("open", "")
    assert deploys(toy) == []
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "watching"


def test_without_a_branch_nothing_is_measured(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy)
    git(toy.path, "checkout", "-q", "--detach")
    with pytest.raises(RepoError, match="HEAD is detached"):
        healer.check_and_heal()
    assert healer.ledger.entries(kind="trial") == ()


@pytest.mark.parametrize("error", [OSError("disk full"), sqlite3.OperationalError("locked"), KeyError("x")])
def test_the_loop_outlives_every_error_and_ends_when_cancelled(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    healer = engine(toy)
    passes = 0

    def failing(**_: object) -> None:
        nonlocal passes
        passes += 1
        raise error

    monkeypatch.setattr(healer, "check_and_heal", failing)

    async def run() -> None:
        loop = asyncio.create_task(healer.autonomous_loop(0.01))
        while passes < 3 and not loop.done():
            await asyncio.sleep(0.01)
        assert not loop.done()
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(asyncio.wait_for(run(), 20))


def test_nothing_is_merged_on_the_word_of_a_forged_row(asked: ToyHost) -> None:
    healer, _ = waiting(asked)
    tip = git(asked.path, "rev-parse", "main")
    with contextlib.closing(sqlite3.connect(healer.ledger.path)) as forger, forger:
        forger.execute("DROP TRIGGER entry_kept")
        forger.execute(
            """UPDATE entry SET data = replace(data, '"state":"open"', '"state":"approved"') WHERE kind = 'change'"""
        )
    with pytest.raises(LedgerError, match="chain is broken"):
        healer.check_and_heal()
    assert git(asked.path, "rev-parse", "main") == tip


def test_what_a_killed_healer_left_confined_is_ended(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy)
    with healer._bench(healer.repo.head()) as bench:
        tree = bench.tree()
    # What bubblewrap's second process looks like that was never told to go on.
    stuck = ["bwrap", "-c", "import time; time.sleep(60)", "--ro-bind", str(tree), "/tree"]
    elsewhere = [*stuck[:-2], f"{toy.path}", "/tree"]
    with (
        subprocess.Popen(stuck, executable=sys.executable) as left,
        subprocess.Popen(elsewhere, executable=sys.executable) as foreign,
    ):
        try:
            with healer._bench(healer.repo.head()):
                left.wait(20)  # else TimeoutExpired
            assert foreign.poll() is None
        finally:
            left.kill()
            foreign.kill()


def test_a_probe_that_fails_on_the_present_code_is_named(toy: ToyHost) -> None:
    probe = toy.path / "app/probe.py"
    probe.write_text(
        probe.read_text().replace("for line in sys.stdin:", "for line in sys.stdin:\n    sys.exit(7)")
    )
    toy.healthy = toy.commit("A probe that gives up")
    sick(toy)
    result = engine(toy).check_and_heal()
    assert result.patches == ()
    assert "the present code cannot be measured" in result.message
    assert "code 7" in result.message
