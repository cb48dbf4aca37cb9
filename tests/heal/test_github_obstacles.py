"""What keeps an approved change on GitHub from being merged: its target, its state, its checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.heal.fake_github import FakeGitHub
from tests.heal.githubfix import Scene, staged


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    yield from staged(tmp_path, monkeypatch)


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
