"""A merged change is taken back on GitHub, by the healer or, where it may not, by a person it asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qigheal.records import Change
from tests.heal.fake_github import FakeGitHub
from tests.heal.githubfix import Killed, Reaper, Scene, staged


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    yield from staged(tmp_path, monkeypatch)


def test_commits_of_others_on_top_are_not_taken_back(scene: Scene) -> None:
    change = scene.reverting()
    theirs = scene.github.push("main", {"notes.txt": "mine\n"})
    held = scene.forge().revert(change)
    assert held.state == "reverting"
    assert "for a person to do" in held.reason
    assert scene.github.store.ref("main") == theirs


def test_a_merge_that_a_person_took_out_is_not_said_to_lie_under_others(scene: Scene) -> None:
    change = scene.reverting()
    scene.github.store.set_ref("main", scene.place.base)
    done = scene.forge().revert(change)
    assert (done.state, done.revert_commit) == ("contested", "")
    assert "no longer in main" in done.reason
    assert scene.github.store.ref("main") == scene.place.base


def test_a_commit_that_comes_at_the_last_moment_is_not_taken_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = scene.reverting()
    update = FakeGitHub._update_ref

    def late(self: FakeGitHub, name: str, body: dict[str, object]) -> dict[str, object]:
        self.push("main", {"notes.txt": "mine\n"})
        return update(self, name, body)

    monkeypatch.setattr(FakeGitHub, "_update_ref", late)
    held = scene.forge().revert(change)
    assert "for a person to do" in held.reason
    assert scene.github.git("show", "main:notes.txt") == "mine"
    assert scene.github.git("show", "main:config/app.toml") == "temperature = 0.85"


def test_a_revert_with_commits_on_top_stays_done(scene: Scene) -> None:
    change = scene.reverting()
    reverted = scene.forge().revert(change)
    scene.github.push("main", {"notes.txt": "mine\n"})
    assert scene.forge().revert(change) == reverted


def asked_to_revert(scene: Scene) -> Change:
    change = scene.reverting()
    scene.github.protected.add("main")
    held = scene.forge().revert(change)
    assert held.state == "reverting"
    assert "merge pull request #2" in held.reason
    assert scene.forge().revert(change) == held
    assert len(scene.github.pulls) == 2
    assert "Φ fell." in scene.github.pulls[1]["body"]
    return change


def test_where_the_branch_is_protected_a_person_is_asked_to_take_it_back(scene: Scene) -> None:
    change = asked_to_revert(scene)
    scene.github.merge_by_hand(2)
    assert scene.forge().revert(change).state == "reverted"
    assert scene.github.git("show", "main:config/app.toml") == "temperature = 5.0"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 6), ids=["commit", "target", "branch", "request", "labels"])
def test_killed_while_a_person_is_asked_to_take_it_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    change = scene.reverting()
    scene.github.protected.add("main")
    reaper = Reaper(monkeypatch)
    reaper.at = (number, when)
    with pytest.raises(Killed):
        scene.forge().revert(change)
    reaper.at = None
    assert "merge pull request #2" in scene.forge().revert(change).reason
    assert len(scene.github.pulls) == 2
    assert set(scene.github.store.refs()) == {"main", change.branch, f"qigheal/revert-{change.id}"}


def test_a_squashed_revert_counts_too(scene: Scene) -> None:
    change = asked_to_revert(scene)
    commit = scene.github.merge_by_hand(2, method="squash")
    reverted = scene.forge().revert(change)
    assert (reverted.state, reverted.revert_commit) == ("reverted", commit)


def test_a_person_may_keep_a_change_that_is_worse(scene: Scene) -> None:
    change = asked_to_revert(scene)
    scene.github.close_pull(2)
    kept = scene.forge().revert(change)
    assert kept.state == "contested"
    assert "person's decision" in kept.reason


def test_a_rehearsal_asks_nobody(scene: Scene) -> None:
    change = scene.opened()
    scene.github.log.clear()
    scene.forge().rehearse_revert(change)
    assert scene.github.log == []
