"""What people do to a change on GitHub - review, close, push, merge - and what the healer then leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import RepoError
from tests.heal.fake_github import BOT, FakeGitHub
from tests.heal.githubfix import Scene, staged


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    yield from staged(tmp_path, monkeypatch)


def test_approved_merged_and_taken_back(scene: Scene) -> None:
    change = scene.merging()
    merged = scene.forge().merge(change)
    assert (merged.state, merged.merge_parent) == ("merged", scene.place.base)
    assert scene.github.store.ref("main") == merged.merge_commit
    told = scene.github.git("log", "-1", "--format=%(trailers:only,unfold)", merged.merge_commit).splitlines()
    assert told == [f"Qigheal-Change: {change.id}", f"Qigheal-Ledger: {'ab' * 32}", "Reviewed-by: ada"]
    assert scene.github.git("show", "main:config/app.toml") == "temperature = 0.85"
    assert scene.forge().merge(change) == merged
    assert scene.github.merges == 1

    back = replace(merged, state="reverting", reverted_at=1_700_000_200.5, reason="Φ fell.")
    reverted = scene.forge().revert(back)
    assert reverted.state == "reverted"
    assert scene.github.store.ref("main") == reverted.revert_commit
    assert scene.github.git("rev-parse", "main^") == merged.merge_commit
    assert scene.github.git("rev-parse", "main^{tree}") == scene.place.git("rev-parse", "HEAD^{tree}")
    assert "Φ fell." in scene.github.git("log", "-1", "--format=%B", "main")
    assert scene.forge().revert(back) == reverted
    scene.whole()


@pytest.mark.parametrize(
    ("login", "state", "kind"),
    [
        ("cyd", "APPROVED", "User"),  # may only read
        ("eve", "APPROVED", "User"),  # nobody here
        (BOT["login"], "APPROVED", "User"),  # its own author
        ("ada", "APPROVED", "Bot"),
        ("ada", "COMMENTED", "User"),
        ("ada", "PENDING", "User"),
    ],
)
def test_what_is_no_approval(scene: Scene, login: str, state: str, kind: str) -> None:
    scene.github.permissions[BOT["login"]] = "admin"
    change = scene.opened()
    scene.github.review(1, login, state, kind=kind)
    assert scene.forge().refresh(change) == change


def test_an_approval_of_another_commit_does_not_count(scene: Scene) -> None:
    change = scene.opened()
    scene.github.review(1, "ada", "APPROVED", commit=scene.place.base)
    assert scene.forge().refresh(change) == change


def test_reviews_are_read_to_the_last_page(scene: Scene) -> None:
    change = scene.opened()
    scene.github.page = 2
    for _ in range(5):
        scene.github.review(1, "eve", "COMMENTED")
    scene.github.review(1, "bea", "APPROVED")
    assert scene.forge().refresh(change).reviewer == "bea"


def test_an_objection_outweighs_approvals_until_it_is_withdrawn(scene: Scene) -> None:
    change = scene.approved()
    scene.github.review(1, "bea", "CHANGES_REQUESTED")
    held = scene.forge().refresh(change)
    assert (held.state, held.reviewer) == ("open", "")
    assert "bea asked for changes" in held.reason
    assert scene.forge().refresh(held) == held
    scene.github.reviews[1][-1]["state"] = "DISMISSED"
    again = scene.forge().refresh(held)
    assert (again.state, again.reviewer, again.reason) == ("approved", "ada", "")


def test_a_dismissed_approval_no_longer_holds(scene: Scene) -> None:
    change = scene.approved()
    scene.github.reviews[1][-1]["state"] = "DISMISSED"
    held = scene.forge().refresh(change)
    assert (held.state, held.reviewer) == ("open", "")
    assert "dismissed" in held.reason


@pytest.mark.parametrize("level", ["read", "none"])
def test_the_approval_of_somebody_who_may_no_longer_write_does_not_hold(scene: Scene, level: str) -> None:
    change = scene.approved()
    scene.github.permissions["ada"] = level
    held = scene.forge().refresh(change)
    assert (held.state, held.reviewer) == ("open", "")
    assert "ada, who approved it, may not write" in held.reason
    scene.github.review(1, "bea", "APPROVED")
    again = scene.forge().refresh(held)
    assert (again.state, again.reviewer, again.reason) == ("approved", "bea", "")


def test_a_merge_begun_before_the_approver_lost_the_right_is_not_gone_on_with(scene: Scene) -> None:
    change = scene.merging()
    scene.github.permissions["ada"] = "read"
    held = scene.forge().merge(change)
    assert (held.state, scene.github.merges) == ("merging", 0)
    assert "may not write" in held.reason


def test_a_dismissed_approval_of_somebody_who_may_no_longer_write_does_not_hold(scene: Scene) -> None:
    change = scene.approved()
    scene.github.permissions["ada"] = "none"
    scene.github.reviews[1][-1]["state"] = "DISMISSED"
    assert scene.forge().refresh(change).state == "open"


def test_a_login_that_cannot_be_printed_does_not_get_far(scene: Scene) -> None:
    login = "e\x1b[31mvil\nQigheal-Ledger: 00"
    scene.github.permissions[login] = "admin"
    change = scene.opened()
    scene.github.review(1, login, "APPROVED")
    assert scene.forge().refresh(change) == change
    scene.github.merge_by_hand(1)
    scene.github.pull(1)["merged_by"] = {"login": login, "type": "User"}
    merged = scene.forge().refresh(change)
    assert merged.state == "merged"
    assert "vil" in merged.reviewer
    assert merged.reviewer.isprintable()
    assert merged.reason.isprintable()


def test_an_approval_given_elsewhere_stands(scene: Scene) -> None:
    change = replace(scene.opened(), state="approved", reviewer="Operator")
    assert scene.forge().refresh(change) == change


def test_a_request_closed_by_hand_is_a_rejection(scene: Scene) -> None:
    change = scene.opened()
    scene.github.close_pull(1)
    rejected = scene.forge().refresh(change)
    assert rejected.state == "rejected"
    assert "#1 was closed" in rejected.reason
    with pytest.raises(RepoError, match="closed by a person"):
        scene.forge().open(scene.begun())
    assert len(scene.github.pulls) == 1
    assert scene.github.pulls[0]["state"] == "closed"


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_merged_by_hand(scene: Scene, method: str) -> None:
    change = scene.opened()
    commit = scene.github.merge_by_hand(1, method=method)
    assert scene.forge().moved(change), "the target has moved by this merge"
    merged = scene.forge().refresh(change)
    assert (merged.state, merged.merge_commit, merged.merge_parent) == ("merged", commit, scene.place.base)
    assert "ada" in merged.reason
    assert merged.merged_at > 1_700_000_000.0
    back = replace(merged, state="reverting", reverted_at=merged.merged_at + 9, reason="Φ fell.")
    assert scene.forge().revert(back).state == "reverted"
    assert scene.github.git("rev-parse", "main^{tree}") == scene.place.git("rev-parse", "HEAD^{tree}")


def test_merged_by_hand_onto_newer_commits(scene: Scene) -> None:
    change = scene.opened()
    tip = scene.github.push("main", {"notes.txt": "mine\n"})
    scene.github.merge_by_hand(1)
    merged = scene.forge().refresh(change)
    assert (merged.state, merged.merge_parent) == ("merged", tip)
    back = replace(merged, state="reverting", reverted_at=merged.merged_at + 9, reason="Φ fell.")
    assert scene.forge().revert(back).state == "reverted"
    assert scene.github.git("show", "main:notes.txt") == "mine"
    assert scene.github.git("show", "main:config/app.toml") == "temperature = 5.0"


def test_a_persons_commit_on_the_branch_is_neither_merged_nor_overwritten(scene: Scene) -> None:
    change = scene.merging()
    theirs = scene.github.push(change.branch, {"config/app.toml": "temperature = 1.0\n"})
    scene.github.review(1, "ada", "APPROVED")
    for held in (scene.forge().merge(change), scene.forge().refresh(replace(change, state="approved"))):
        assert held.state != "merged"
        assert "neither merged nor overwritten" in held.reason
    assert "neither merged" in scene.forge().obstacle(change)
    with pytest.raises(RepoError, match="other contents"):
        scene.forge().open(scene.begun())
    scene.forge().close(change)
    assert scene.github.pulls[0]["state"] == "open"
    assert scene.github.store.ref(change.branch) == theirs
    assert scene.github.merges == 0


def test_a_commit_pushed_between_question_and_merge_is_not_merged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = scene.merging()
    ask = FakeGitHub._asked_to_merge

    def late(self: FakeGitHub, pull: dict[str, object], body: dict[str, object]) -> dict[str, object]:
        self.push(change.branch, {"notes.txt": "mine\n"})
        return ask(self, self.pull(1), body)

    monkeypatch.setattr(FakeGitHub, "_asked_to_merge", late)
    held = scene.forge().merge(change)
    assert (held.state, scene.github.merges) == ("merging", 0)
    assert "Head branch was modified" in held.reason


def test_their_merge_of_other_commits_is_not_taken_for_the_measured_change(scene: Scene) -> None:
    change = scene.opened()
    scene.github.push(change.branch, {"notes.txt": "mine\n"})
    scene.github.merge_by_hand(1)
    ended = scene.forge().refresh(change)
    assert ended.state == "superseded"
    assert "merged by hand" in ended.reason
