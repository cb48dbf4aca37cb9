"""A drill: a rollback performed for real, that touches nobody's branch or work, and counts for the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qigheal.errors import EngineError, RepoError
from qigheal.healing import drill as drilling
from qigheal.healing import phases
from qigheal.healing.drill import drill
from qigheal.healing.forge.local import LocalForge
from qigheal.healing.ledger import Ledger
from qigheal.healing.stored import drills_on
from qigheal.records import Change
from qigheal.repo import Repo
from tests.heal.gitfix import Place, picture

MANIFEST = '[probe]\ncommand = ["true"]\n[patch]\nallow = ["a.py", "picture.dat"]\n'
NOW = 1_700_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def manifest(place: Place, text: str = MANIFEST) -> None:
    place.write("qigheal.toml", text)
    place.base = place.commit("a manifest")


def perform(place: Place, ledger: Ledger, at: float = NOW) -> phases.Drilled:
    return drill(Repo(place.path), ledger, clock=lambda: at, on_step=lambda stage, sentence: None)


def performed(ledger: Ledger, place: Place) -> phases.Criterion:
    evidence = phases.StoreEvidence(drills=drills_on(ledger, Repo(place.path)))
    (line,) = (c for c in phases.gate_status(ledger, evidence) if "drills" in c.name)
    return line


def test_it_merges_takes_back_and_leaves_nothing(place: Place, ledger: Ledger) -> None:
    manifest(place)
    place.write("kept.txt", "somebody's unfinished work\n")
    before, refs, head = picture(place.path), place.git("for-each-ref"), place.git("symbolic-ref", "HEAD")
    assert not performed(ledger, place).met
    assert "phase drill" in performed(ledger, place).advice
    done = perform(place, ledger)
    assert (done.ok, done.reason) == (True, "")
    assert picture(place.path) == before
    assert (place.git("for-each-ref"), place.git("symbolic-ref", "HEAD")) == (refs, head)
    assert place.locks() == []
    assert len(place.owners()) == 1
    assert performed(ledger, place).met
    assert [entry.kind for entry in ledger.entries()] == ["drill", "drilled"]

    tree = place.git("rev-parse", f"{place.base}^{{tree}}")
    assert place.git("rev-parse", f"{done.merge_commit}^1") == place.base
    assert place.git("rev-parse", f"{done.merge_commit}^{{tree}}") != tree
    assert place.git("rev-parse", f"{done.revert_commit}^") == done.merge_commit
    assert place.git("rev-parse", f"{done.revert_commit}^{{tree}}") == tree


def test_each_drill_is_one_of_its_own(mine: Place, ledger: Ledger) -> None:
    manifest(mine)
    first, second = perform(mine, ledger), perform(mine, ledger, NOW + 60)
    assert first.ok
    assert second.ok
    assert first.branch != second.branch
    assert performed(ledger, mine).found == "2"


def test_it_counts_for_its_own_repository(mine: Place, ledger: Ledger, tmp_path: Path) -> None:
    manifest(mine)
    assert perform(mine, ledger).ok
    other = Place(tmp_path / "other", {"a.py": "other = 1\n"})
    assert "another repository" in performed(ledger, other).advice
    assert not performed(ledger, other).met
    other.git("fetch", "-q", str(mine.path), "main:refs/remotes/theirs/main")
    assert not performed(ledger, other).met, "to know somebody's commits is not to be their repository"
    mine.write("a.py", "later = 1\n")
    mine.commit("later")
    assert performed(ledger, mine).met
    mine.git("clone", "-q", str(mine.path), str(tmp_path / "clone"))
    assert drills_on(ledger, Repo(tmp_path / "clone")) == 1


@pytest.mark.parametrize(("killed_in", "call"), [("create_ref", 1), ("advance", -2), ("delete_ref", -1)])
def test_killed_it_is_gone_through_again(
    mine: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, killed_in: str, call: int
) -> None:
    class Killed(BaseException):
        pass

    real, calls = getattr(Repo, killed_in), []

    def dying(self: Repo, *arguments: Any) -> Any:
        calls.append(1)
        if call == len(calls):
            raise Killed
        result = real(self, *arguments)
        if call == -len(calls):
            raise Killed
        return result

    manifest(mine)
    refs = mine.git("for-each-ref")
    monkeypatch.setattr(Repo, killed_in, dying)
    with pytest.raises(Killed):
        perform(mine, ledger)
    monkeypatch.undo()
    assert not performed(ledger, mine).met
    done = perform(mine, ledger, NOW + 3600)
    assert done.ok, done.reason
    assert int(mine.git("log", "-1", "--format=%ct", done.merge_commit)) == NOW, (
        "begun anew, not gone on with"
    )
    assert mine.git("for-each-ref") == refs
    assert [entry.kind for entry in ledger.entries()] == ["drill", "drilled"]


def moved_by_somebody(place: Place, forge: LocalForge, change: Change) -> None:
    place.git("update-ref", f"refs/heads/{change.target}", place.git("commit-tree", "HEAD^{tree}", "-m", "x"))


def held(place: Place, forge: LocalForge, change: Change) -> None:
    place.write(f".git/refs/heads/{change.target}.lock", "")


@pytest.mark.parametrize(("hinder", "reason"), [(moved_by_somebody, "did not make"), (held, "lock")])
def test_a_rollback_that_fails_is_said_and_does_not_count(
    mine: Place,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    hinder: Callable[[Place, LocalForge, Change], None],
    reason: str,
) -> None:
    real = LocalForge.revert

    def hindered(self: LocalForge, change: Change) -> Change:
        hinder(mine, self, change)
        return real(self, change)

    manifest(mine)
    monkeypatch.setattr(LocalForge, "revert", hindered)
    done = perform(mine, ledger)
    assert not done.ok
    assert reason in done.reason
    assert "\n" not in done.reason
    assert not performed(ledger, mine).met
    assert mine.head() == mine.base
    if hinder is moved_by_somebody:
        assert mine.git("branch", "--list", "qigheal/drill-*") == done.branch, "somebody's work was deleted"


def test_a_file_changed_by_the_revert_is_a_failure(
    mine: Place, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(mine)
    monkeypatch.setattr(drilling.LocalForge, "revert", lambda self, change: change)
    assert "could not be taken back" in perform(mine, ledger).reason


def test_a_host_in_which_nothing_may_be_patched_has_nothing_to_drill_with(
    mine: Place, ledger: Ledger
) -> None:
    mine.write("picture.dat", b"\x00\xff\x00")
    manifest(mine, MANIFEST.replace('"a.py", ', ""))
    with pytest.raises(EngineError, match=r"\[patch\] allow"):
        perform(mine, ledger)
    mine.git("checkout", "-q", "--detach")
    with pytest.raises(RepoError, match="HEAD is detached"):
        perform(mine, ledger)
    assert ledger.entries() == ()


def test_not_while_a_healer_is_at_work(mine: Place, ledger: Ledger) -> None:
    manifest(mine)
    with Repo(mine.path).lock("heal"), pytest.raises(RepoError, match="holds"):
        perform(mine, ledger)
    assert ledger.entries() == ()


def test_a_drill_of_another_repository_is_not_gone_on_with(
    mine: Place, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(mine)
    monkeypatch.setattr(LocalForge, "open", lambda self, change: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        perform(mine, ledger)
    monkeypatch.undo()
    other = Place(tmp_path / "other", {"a.py": "other = 1\n"})
    manifest(other)
    assert perform(other, ledger).ok
    assert other.git("branch", "--list", "qigheal/*") == ""
