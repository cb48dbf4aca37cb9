"""A change is sent to GitHub once, says what it is, and is closed and taken up again there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import PatchError, RepoError
from qigheal.healing.forge import Forge
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Manifest
from qigheal.repo import Repo
from tests.heal.fake_github import FakeGitHub, No
from tests.heal.gitfix import picture
from tests.heal.githubfix import DIFF, Killed, Reaper, Scene, staged

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
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    yield from staged(tmp_path, monkeypatch)


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
    scene.whole()
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
    raise No(403, "Resource not accessible by personal access token")


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
