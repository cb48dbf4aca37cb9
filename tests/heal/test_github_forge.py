"""The life of a change on GitHub: what is sent, what people may do to it, and what the healer then leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import PatchError, RepoError
from qigheal.healing.forge import Forge
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo
from tests.heal.fake_github import BOT, FakeGitHub, serving
from tests.heal.gitfix import Place, picture
from tests.heal.githubfix import FILES, TOKEN, Killed, Reaper, Scene
from tests.heal.test_forge import DIFF

NEW_FILE = """\
diff --git a/app/new.py b/app/new.py
new file mode 100755
--- /dev/null
+++ b/app/new.py
@@ -0,0 +1 @@
+print("é")
diff --git a/app/model.py b/app/model.py
deleted file mode 100644
--- a/app/model.py
+++ /dev/null
@@ -1,2 +0,0 @@
-def f(x):
-    return x + 1
"""


@pytest.fixture
def github(tmp_path: Path, mine_forge: Place) -> Iterator[FakeGitHub]:
    yield from serving(tmp_path / "remote", mine_forge.path)


@pytest.fixture
def mine_forge(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


@pytest.fixture
def scene(mine_forge: Place, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("QIGHEAL_GITHUB_API", github.api)
    return Scene(mine_forge, github)


def whole(scene: Scene) -> None:
    """git itself finds nothing wrong with what the server was sent."""
    assert scene.github.git("fsck", "--strict", "--no-dangling") == ""


def test_it_is_a_forge(scene: Scene) -> None:
    forge: Forge = scene.forge()
    assert forge.tip("main") == scene.place.base
    assert forge.tip("mai") is None


@pytest.mark.parametrize("diff", [DIFF, NEW_FILE])
def test_the_commit_on_github_is_the_one_that_would_be_made_here(scene: Scene, diff: str) -> None:
    before = picture(scene.place.path)
    change = scene.forge().open(scene.begun(diff))
    assert change.state == "open"
    assert scene.github.store.refs() == {"main": scene.place.base, change.branch: change.head}
    assert picture(scene.place.path) == before
    whole(scene)
    repo = Repo(scene.place.path)
    local = LocalForge(repo, Manifest.at(repo, scene.place.base)).open(scene.begun(diff))
    assert local.head == change.head


def test_the_pull_request_says_what_it_is(scene: Scene) -> None:
    change = scene.opened()
    (pull,) = scene.github.pulls
    assert (pull["head"]["ref"], pull["head"]["sha"]) == (change.branch, change.head)
    assert pull["base"]["ref"] == "main"
    assert [label["name"] for label in pull["labels"]] == ["qigheal", "strategy: attention", "tier: safe"]
    for words in (
        "Φ 0.2 is outside its band.",
        "Lower the temperature",
        "0.910",
        "+temperature = 0.85",
        "Reject",
    ):
        assert words in pull["body"]


def test_opening_again_changes_nothing(scene: Scene) -> None:
    change = scene.opened()
    scene.github.log.clear()
    assert scene.forge().open(scene.begun()) == change
    assert {method for method, _ in scene.github.log} == {"GET"}


def test_a_patch_that_may_not_be_made_reaches_nobody(scene: Scene) -> None:
    with pytest.raises(PatchError):
        scene.forge().open(scene.begun(DIFF.replace("config/app.toml", "qigheal.toml")))
    assert scene.github.log == []


def test_a_branch_of_somebody_else_is_left_alone(scene: Scene) -> None:
    change = scene.begun()
    scene.github.store.set_ref(change.branch, scene.place.base)
    theirs = scene.github.push(change.branch, {"notes.txt": "mine\n"})
    with pytest.raises(RepoError, match="exists on GitHub with other contents"):
        scene.forge().open(change)
    assert scene.github.store.ref(change.branch) == theirs
    assert scene.github.pulls == []


def test_of_two_healers_at_once_both_end_in_one_branch_and_one_request(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scene.forge()
    asked: list[str] = []
    create = FakeGitHub._create_ref

    def raced(self: FakeGitHub, name: str, sha: str) -> dict[str, object]:
        if not asked:  # the other one is faster by a moment
            asked.append(name)
            self.store.set_ref(name, sha)
        return create(self, name, sha)

    monkeypatch.setattr(FakeGitHub, "_create_ref", raced)
    change = first.open(scene.begun())
    assert asked == [change.branch]
    assert scene.forge().open(scene.begun()).head == change.head
    assert len(scene.github.pulls) == 1


def test_a_request_from_a_fork_with_the_same_name_is_not_taken_for_the_healers(scene: Scene) -> None:
    change = scene.opened()
    theirs = {
        **scene.github.pulls[0],
        "number": 2,
        "head": {**scene.github.pulls[0]["head"]},
        "state": "closed",
    }
    theirs["head"] |= {"label": f"eve:{change.branch}", "sha": scene.place.base}
    scene.github.pulls.append(theirs)
    assert scene.forge().refresh(change) == change


def test_an_unknown_base_must_be_pushed_first(scene: Scene) -> None:
    scene.place.write("notes.txt", "not pushed\n")
    scene.place.base = scene.place.commit("Not pushed")
    assert "git push" in scene.forge().stale(scene.place.base, "main")
    with pytest.raises(RepoError, match="not on GitHub"):
        scene.forge().open(scene.begun())
    assert scene.github.pulls == []


# --- what people do ---------------------------------------------------------------------------------


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
    whole(scene)


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


def test_a_target_that_moved_is_not_merged_into(scene: Scene) -> None:
    change = scene.merging()
    scene.github.push("main", {"notes.txt": "mine\n"})
    assert "measured again" in scene.forge().moved(change)
    held = scene.forge().merge(change)
    assert (held.state, scene.github.merges) == ("merging", 0)
    assert "measured again" in held.reason
    assert "git pull" in scene.forge().stale(scene.place.base, "main")


def test_a_target_that_moves_at_the_last_moment_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = scene.merging()
    ask = FakeGitHub._asked_to_merge

    def late(self: FakeGitHub, pull: dict[str, object], body: dict[str, object]) -> dict[str, object]:
        moved.append(self.push("main", {"notes.txt": "mine\n"}))
        return ask(self, pull, body)

    moved: list[str] = []
    monkeypatch.setattr(FakeGitHub, "_asked_to_merge", late)
    merged = scene.forge().merge(change)
    assert (merged.state, merged.merge_parent) == ("merged", moved[0])
    assert "not at" in merged.reason


@pytest.mark.parametrize(
    ("what", "words"),
    [("draft", "draft"), ("closed", "closed"), ("base", "another branch"), ("gone", "gone")],
)
def test_obstacles(scene: Scene, what: str, words: str) -> None:
    change = scene.merging()
    pull = scene.github.pulls[0]
    if what == "draft":
        pull["draft"] = True
    elif what == "closed":
        pull["state"] = "closed"
    elif what == "base":
        pull["base"]["ref"] = "other"
    else:
        scene.github.store.set_ref("main", None)
    assert words in scene.forge().obstacle(change)
    assert scene.github.merges == 0


# --- checks -----------------------------------------------------------------------------------------


def run(name: str, status: str, conclusion: str | None) -> dict[str, object]:
    return {"name": name, "status": status, "conclusion": conclusion}


@pytest.mark.parametrize(
    ("statuses", "runs", "required", "words"),
    [
        ([("ci", "success")], [run("lint", "completed", "neutral")], (), ""),
        ([("ci", "failure")], [], (), "checks fail: ci"),
        ([("ci", "pending")], [], (), "not passed yet: ci"),
        ([], [run("lint", "in_progress", None)], (), "not passed yet: lint"),
        ([], [run("lint", "completed", "timed_out")], (), "checks fail: lint"),
        ([("ci", "success")], [run("ci", "completed", "failure")], (), "checks fail: ci"),
        ([("ci", "success"), ("coverage", "failure")], [], ("ci",), ""),
        ([("coverage", "success")], [], ("ci",), "not passed yet: ci"),
        ([("ci", "error")], [], ("ci",), "checks fail: ci"),
    ],
)
def test_checks(
    scene: Scene,
    statuses: list[tuple[str, str]],
    runs: list[dict[str, object]],
    required: tuple[str, ...],
    words: str,
) -> None:
    change = scene.merging()
    scene.github.statuses[change.head] = [{"context": name, "state": state} for name, state in statuses]
    scene.github.runs[change.head] = runs
    scene.github.required["main"] = required
    found = scene.forge().obstacle(change)
    assert found.endswith(words) if words else found == ""
    assert (scene.forge().merge(change).state == "merged") == (not words)


def test_checks_that_a_ruleset_asks_for(scene: Scene) -> None:
    change = scene.merging()
    scene.github.rules["main"] = [
        {"type": "pull_request", "parameters": {"required_approving_review_count": 1}},
        {"type": "deletion"},
        {"type": "required_status_checks", "parameters": {"required_status_checks": [{"context": "ci"}]}},
    ]
    scene.github.statuses[change.head] = [{"context": "coverage", "state": "failure"}]
    assert scene.forge().obstacle(change).endswith("not passed yet: ci")
    scene.github.statuses[change.head].append({"context": "ci", "state": "success"})
    assert scene.forge().obstacle(change) == ""


def test_what_the_branch_asks_for_is_said_in_githubs_words(scene: Scene) -> None:
    scene.github.protected.add("main")
    change = replace(scene.opened(), state="merging", reviewer="Operator", merged_at=1_700_000_100.0)
    held = scene.forge().merge(change)
    assert held.state == "merging"
    assert "approving review is required" in held.reason


# --- taking back ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2], ids=["opened again", "label"])
def test_killed_while_a_request_is_taken_up_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    change = scene.opened()
    scene.forge().close(replace(change, state="superseded", reason="main moved"))
    reaper = Reaper(monkeypatch)
    reaper.at = (number, when)
    with pytest.raises(Killed):
        scene.forge().open(scene.begun())
    reaper.at = None
    assert scene.forge().open(scene.begun()) == change
    (pull,) = scene.github.pulls
    assert pull["state"] == "open"
    assert {"name": "qigheal-withdrawn"} not in pull["labels"]


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


# --- ending, and beginning again --------------------------------------------------------------------


def test_a_request_that_ended_is_closed_with_its_reason_and_may_be_taken_up_again(scene: Scene) -> None:
    change = replace(scene.opened(), state="superseded", reason="main moved; @ada fixes #1")
    scene.forge().close(change)
    scene.forge().close(change)
    assert scene.github.pulls[0]["state"] == "closed"
    (comment,) = scene.github.comments[1]
    assert "```text\nmain moved; @ada fixes #1\n```" in comment
    again = scene.forge().open(scene.begun())
    assert (again.state, len(scene.github.pulls), scene.github.pulls[0]["state"]) == ("open", 1, "open")
    assert {"name": "qigheal-withdrawn"} not in scene.github.pulls[0]["labels"]


def test_labels_that_cannot_be_set_stop_nothing(scene: Scene) -> None:
    change = scene.begun()
    forge = scene.forge()
    forge.open(change)
    scene.github.pulls[0]["labels"].clear()
    scene.github.answers = []
    original = scene.github.answer
    scene.github.answer = lambda m, p, q, b: refuse() if p.endswith("/labels") else original(m, p, q, b)  # type: ignore[method-assign]
    assert scene.forge().open(change).state == "open"


def refuse() -> tuple[int, object]:
    from tests.heal.fake_github import No

    raise No(403, "Resource not accessible by personal access token")


# --- ancestry ---------------------------------------------------------------------------------------


def test_ancestry_is_githubs_where_the_clone_lacks_the_commits(scene: Scene) -> None:
    merged, forge = scene.merged(), scene.forge()
    above = scene.github.push("main", {"notes.txt": "mine\n"})
    assert forge.resolve("refs/heads/main") == above
    assert forge.resolve(merged.merge_commit[:8]) == merged.merge_commit
    assert forge.is_ancestor(merged.merge_commit, above)
    assert not forge.is_ancestor(above, merged.merge_commit)
    assert forge.is_ancestor(scene.place.base, merged.merge_commit)
    assert forge.is_ancestor(above, above)
    for unknown in ("refs/heads/none", "0123abc"):
        with pytest.raises(RepoError):
            forge.resolve(unknown)
