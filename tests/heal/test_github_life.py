"""A change on GitHub from its fault to its end through the whole chain, and killed at every request that writes.

What a request only reads leaves nothing behind, so that being killed around it is being killed after the
write before it or before the write after it, ledger included.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qigheal.errors import RepoError
from qigheal.healing import phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.records import Change, HealingPatch
from tests.heal.fake_github import REPOSITORY, TOKEN, FakeGitHub, serving
from tests.heal.githubfix import Killed, Reaper
from tests.heal.test_engine import deploys, engine, harmful, sick
from tests.heal.toyhost import MANIFEST, ToyHost, git


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    host = ToyHost(tmp_path)
    monkeypatch.setenv("TOY_DEPLOYS", str(host.deploys))
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
    return host


@pytest.fixture
def github(toy: ToyHost, tmp_path: Path) -> Iterator[FakeGitHub]:
    yield from serving(tmp_path / "remote", toy.path)


@pytest.fixture
def hosted(toy: ToyHost, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    """The toy, with a manifest that names its GitHub."""
    monkeypatch.setenv("QIGHEAL_GITHUB_API", github.api)
    forge = f'\n[forge]\nkind = "github"\nrepository = "{REPOSITORY}"\napi = "{github.api}"\n'
    (toy.path / "qigheal.toml").write_text(MANIFEST + forge)
    toy.healthy = toy.commit("Changes go to GitHub")
    pushed(toy, github)
    return toy


def pushed(toy: ToyHost, github: FakeGitHub) -> None:
    git(toy.path, "push", "-q", str(github.path), "HEAD:refs/heads/main")


def pulled(toy: ToyHost, github: FakeGitHub) -> None:
    git(toy.path, "pull", "-q", "--ff-only", str(github.path), "main")


def proposed(toy: ToyHost, healer: SelfHealingEngine) -> HealingPatch:
    return HealingPatch(
        strategy="attention",
        tier="safe",
        base=healer.repo.head(),
        diff=harmful(toy, healer),
        rationale="Set the gain to 9.",
        heals=("phi",),
    )


def begun(toy: ToyHost) -> tuple[SelfHealingEngine, Change]:
    """A harmful change, open on GitHub, of a service that was healthy."""
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    with healer._opened() as (_, passage):
        return healer, passage.begin(proposed(toy, healer), None, "main")


def test_from_fault_to_confirmed_repair(
    hosted: ToyHost, github: FakeGitHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sick(hosted)
    healer = engine(hosted)
    early = healer.check_and_heal()
    assert "git push" in early.message, "measured what could not be opened"
    assert early.patches == ()
    pushed(hosted, github)

    result = healer.check_and_heal()
    (change,) = result.changes
    assert change.state == "open", result.message
    (pull,) = github.pulls
    assert result.diagnosis is not None
    assert all(finding.message in pull["body"] for finding in result.diagnosis.findings)
    assert str(result.verdicts[0].pairs) in pull["body"]
    assert healer.bring_along()[0].state == "open"

    github.review(1, "ada", "APPROVED")
    (change,) = healer.bring_along()
    assert (change.state, change.reviewer) == ("watching", "ada")
    assert github.store.ref("main") == change.merge_commit
    assert hosted.gain() == 6.0, "the checkout is the deployment's to bring along"
    assert len(deploys(hosted)) == 1
    pulled(hosted, github)
    assert 0.7 < hosted.gain() < 1.4

    hosted.live(hosted.gain(), 40, change.merge_commit)
    assert [c.state for c in healer.bring_along()] == ["confirmed"]
    assert healer.ledger.verify() == ()
    assert TOKEN not in caplog.text
    assert TOKEN.encode() not in b"".join(p.read_bytes() for p in hosted.store.rglob("*") if p.is_file())


def test_worse_is_taken_back(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, change = begun(hosted)
    github.review(1, "ada", "APPROVED")
    (change,) = healer.bring_along()
    hosted.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back", change.reason
    assert github.git("rev-parse", "main^{tree}") == git(hosted.path, "rev-parse", "HEAD^{tree}")
    assert "healthy band" in " ".join(github.git("log", "-1", "--format=%B", "main").split())
    assert len(deploys(hosted)) == 2


def test_commits_of_others_on_top_are_left_there(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, _ = begun(hosted)
    github.review(1, "ada", "APPROVED")
    (change,) = healer.bring_along()
    above = github.push("main", {"notes.txt": "mine\n"})
    hosted.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "contested"
    assert github.store.ref("main") == above


def test_worse_only_with_others_commits_live_is_seen_too(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, _ = begun(hosted)
    github.review(1, "ada", "APPROVED")
    healer.bring_along()
    above = github.push("main", {"notes.txt": "mine\n"})
    hosted.live(9.0, 40, above[:12])  # a commit that this clone has never seen
    (change,) = healer.bring_along()
    assert change.state == "contested"
    assert "other commits lie on top" in change.reason


def test_merged_by_hand_is_watched_and_taken_back_like_any_other(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, _ = begun(hosted)
    github.merge_by_hand(1)
    (change,) = healer.bring_along()
    assert change.state == "watching", change.reason
    assert change.before["phi"] > 0.7
    hosted.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back"
    assert github.git("rev-parse", "main^{tree}") == git(hosted.path, "rev-parse", "HEAD^{tree}")


def test_closed_by_hand_is_never_proposed_again(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, change = begun(hosted)
    github.close_pull(1)
    assert [c.state for c in healer.bring_along()] == ["rejected"]
    assert healer.ledger.quarantined(change.patch)


def test_a_rejection_here_closes_the_request_there(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, change = begun(hosted)
    assert healer.review(change.id, approve=False, reviewer="Ada", reason="no").state == "rejected"
    assert github.pulls[0]["state"] == "closed"
    assert len(github.comments[1]) == 1


def test_a_person_can_reject_while_github_is_away(
    hosted: ToyHost, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    healer, change = begun(hosted)
    monkeypatch.delenv("QIGHEAL_GITHUB_TOKEN")
    assert healer.review(change.id, approve=False, reviewer="Ada").state == "rejected"
    assert github.pulls[0]["state"] == "open"


def test_a_target_that_moved_ends_the_change_and_closes_its_request(
    hosted: ToyHost, github: FakeGitHub
) -> None:
    healer, _ = begun(hosted)
    github.push("main", {"notes.txt": "mine\n"})
    (change,) = healer.bring_along()
    assert change.state == "superseded"
    assert github.pulls[0]["state"] == "closed"
    assert "measured again" in github.comments[1][0]


def test_a_change_that_waits_writes_no_rows(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, change = begun(hosted)
    github.statuses[change.head] = [{"context": "ci", "state": "pending"}]
    github.review(1, "ada", "APPROVED")
    (change,) = healer.bring_along()
    assert (change.state, change.reviewer) == ("approved", "ada")
    assert "not passed yet: ci" in change.reason
    rows = len(healer.ledger.entries())
    for _ in range(3):
        healer.bring_along()
    assert len(healer.ledger.entries()) == rows
    github.statuses[change.head] = [{"context": "ci", "state": "success"}]
    assert healer.bring_along()[0].state == "watching"


def test_an_objection_there_holds_what_the_healer_would_merge_alone(
    hosted: ToyHost, github: FakeGitHub
) -> None:
    sick(hosted)
    pushed(hosted, github)
    (change,) = engine(hosted).check_and_heal().changes
    github.review(1, "bea", "CHANGES_REQUESTED")
    alone = engine(hosted, auto_apply=True)
    alone.bring_along()
    rows = len(alone.ledger.entries())
    for _ in range(2):
        assert "waits for a review" in alone.check_and_heal().message
    assert len(alone.ledger.entries()) == rows
    github.reviews[1][0]["state"] = "DISMISSED"
    assert [c.state for c in alone.check_and_heal().changes] == ["watching"]
    assert github.merges == 1
    assert change.branch in github.store.refs()


def test_a_busy_server_is_said_once_and_stops_no_other_pass(hosted: ToyHost, github: FakeGitHub) -> None:
    healer, _ = begun(hosted)
    busy = (403, {"retry-after": "3600"}, {"message": "You have exceeded a secondary rate limit."})
    github.answers = [busy, busy]
    (change,) = healer.bring_along()
    rows = len(healer.ledger.entries())
    assert change.state == "open"
    assert "asks to wait" in change.reason
    healer.bring_along()
    assert len(healer.ledger.entries()) == rows
    (change,) = healer.bring_along()
    assert (change.state, change.reason) == ("open", "")


def test_without_a_token_nothing_is_measured(hosted: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    sick(hosted)
    monkeypatch.delenv("QIGHEAL_GITHUB_TOKEN")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    with pytest.raises(RepoError, match="QIGHEAL_GITHUB_TOKEN"):
        engine(hosted).check_and_heal()


def test_the_deploy_command_does_not_get_the_token(hosted: ToyHost, github: FakeGitHub) -> None:
    (hosted.path / "deploy.sh").write_text('env > "$TOY_DEPLOYS"\n')
    hosted.healthy = hosted.commit("Deploy by telling")
    pushed(hosted, github)
    healer, _ = begun(hosted)
    github.review(1, "ada", "APPROVED")
    assert healer.bring_along()[0].state == "watching"
    said = hosted.deploys.read_text()
    assert "QIGHEAL_CHANGE=" in said
    assert TOKEN not in said


# --- killed -----------------------------------------------------------------------------------------


def life(toy: ToyHost, github: FakeGitHub, again: Callable[[], SelfHealingEngine]) -> Change:
    """From nothing to a change that was taken back, with people and the service doing their part."""
    healer = again()
    with healer._opened() as (_, passage):
        if not healer.ledger.changes():
            passage.begin(proposed(toy, healer), None, "main")
    for _ in range(6):
        (change,) = healer.ledger.changes().values()
        if change.state == "open" and not github.reviews:
            github.review(1, "ada", "APPROVED")
        if change.state == "watching":
            toy.live(9.0, 40, change.merge_commit)
        if change.state == "rolled_back":
            return change
        healer.bring_along()
    raise AssertionError(f"the change came to no end: {change.state}, {change.reason}")


def ends_well(toy: ToyHost, github: FakeGitHub, change: Change, seen: tuple[str, ...]) -> None:
    assert (len(github.pulls), github.merges) == (1, 1)
    assert github.store.refs() == {"main": change.revert_commit, change.branch: change.head}
    assert github.git("rev-list", "--count", "main") == seen[0]
    assert github.git("rev-parse", "main^{tree}") == git(toy.path, "rev-parse", "HEAD^{tree}")
    assert set(deploys(toy)) == set(seen[1:])


def writes(toy: ToyHost, github: FakeGitHub, reaper: Reaper) -> int:
    """How many writing requests a whole life makes, undisturbed."""
    reaper.count, reaper.at = 0, None
    change = life(toy, github, lambda: engine(toy))
    ends_well(toy, github, change, lived(toy, github, change))
    return reaper.count


def lived(toy: ToyHost, github: FakeGitHub, change: Change) -> tuple[str, ...]:
    base = git(toy.path, "rev-parse", "HEAD")
    count = int(git(toy.path, "rev-list", "--count", "HEAD")) + 3  # the commit, its merge, its revert
    return str(count), f"{change.id} {base}", f"{change.id}-rollback {base}"


WRITES = ("blob", "tree", "commit", "branch", "request", "labels", "merge", "reverting commit", "target")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(WRITES) + 1), ids=WRITES)
def test_killed_and_resumed(
    hosted: ToyHost, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    hosted.learn()
    hosted.live(1.0, 60, hosted.healthy)
    reaper = Reaper(monkeypatch)
    reaper.at = (number, when)
    with pytest.raises(Killed):
        life(hosted, github, lambda: engine(hosted))
    reaper.at = None
    change = life(hosted, github, lambda: engine(hosted))
    ends_well(hosted, github, change, lived(hosted, github, change))


def test_no_writing_request_is_forgotten_above(
    hosted: ToyHost, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.learn()
    hosted.live(1.0, 60, hosted.healthy)
    assert writes(hosted, github, Reaper(monkeypatch)) == len(WRITES)


def test_the_phase_is_asked_as_ever(hosted: ToyHost, github: FakeGitHub) -> None:
    hosted.learn()
    hosted.live(1.0, 60, hosted.healthy)
    healer = engine(hosted, phase=1)
    assert phases.current(healer.ledger) == 1
    assert healer.check_and_heal().changes == ()
    assert github.log == []
