"""What stages ask of a repository: commits, refs and worktrees, and nothing of the repository's own running."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from qigheal.errors import RepoError
from qigheal.repo import Repo
from tests.heal.gitfix import Place, plant, real_git
from tests.heal.repofix import FILES, GOOD


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


def test_reads_commits_and_not_working_files(place: Place) -> None:
    place.write("app/model.py", "changed = True\n")
    repo = Repo(place.path)
    assert repo.root == place.path
    assert (
        repo.head() == repo.resolve("main") == repo.ref("main") == repo.ref("refs/heads/main") == place.base
    )
    assert repo.branch() == "main"
    assert repo.read("main", "app/model.py").decode() == FILES["app/model.py"]
    assert {path: entry.size for path, entry in repo.entries("HEAD").items()} == {
        path: len(content.encode()) for path, content in FILES.items()
    }
    assert repo.ref("mai") is None
    assert repo.entry(place.base, "app") is None
    with pytest.raises(RepoError, match=r"has no 'missing\.py'"):
        repo.read(place.base, "missing.py")


def test_what_is_raised_while_git_ends_reaches_who_reads(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal's handler may, at any moment: in the collector it would be lost, and a healer not end."""
    repo = Repo(place.path)
    communicate = subprocess.Popen.communicate

    def interrupted(self: subprocess.Popen[bytes], *given: Any, **more: Any) -> object:
        done = communicate(self, *given, **more)
        if "cat-file" in cast("list[str]", self.args):
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        repo.read(place.base, "app/model.py")


def test_opens_from_a_folder_inside_and_says_when_there_is_none(place: Place, tmp_path: Path) -> None:
    assert Repo(place.path / "app").root == place.path
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepoError, match="expected a git repository"):
        Repo(tmp_path / "empty")
    with pytest.raises(RepoError, match="expected the folder"):
        Repo(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["--output=x", "-x", "nothing", "HEAD:app", "main..main", ""])
def test_names_that_are_no_commit(place: Place, name: str) -> None:
    repo = Repo(place.path)
    with pytest.raises(RepoError, match="names none"):
        repo.resolve(name)
    if name != "HEAD:app":  # that one is a tree
        with pytest.raises(RepoError, match="names none"):
            repo.diff(name, "main")


def test_commits_depend_on_their_arguments_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repo(place.path)
    tree = repo.apply(place.base, GOOD)
    first = repo.commit(tree, (place.base,), "why\n\nQigheal-Change: x\n", 1_700_000_000.9)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    place.git("config", "user.name", "somebody")
    place.git("config", "i18n.commitEncoding", "latin-1")
    assert (
        Repo(place.path).commit(tree, (place.base,), "why\n\nQigheal-Change: x\n", 1_700_000_000.1) == first
    )
    shown = place.git("log", "-1", "--format=%an %ae %at %ai %ce %ct|%P|%B", first)
    assert shown.startswith(
        "qigheal qigheal@localhost 1700000000 2023-11-14 22:13:20 +0000 qigheal@localhost 1700000000"
    )
    assert place.base in shown
    assert repo.commit(tree, (place.base,), "why\n", 1_700_000_001) != first
    for date in (0.0, -5.0, float("nan")):
        with pytest.raises(RepoError, match="Unix seconds"):
            repo.commit(tree, (place.base,), "why\n", date)


def test_history_questions(place: Place) -> None:
    commits = [place.base, *(place.commit(str(i)) for i in range(3))]
    repo = Repo(place.path)
    assert repo.commits(commits[0], commits[3]) == tuple(commits[1:])
    assert repo.commits(commits[3], commits[0]) == ()
    assert repo.is_ancestor(commits[0], commits[3])
    assert repo.is_ancestor(commits[3], commits[3])
    assert not repo.is_ancestor(commits[3], commits[0])


def test_the_line_of_first_parents(place: Place) -> None:
    repo = Repo(place.path)
    place.git("switch", "-q", "-c", "side")
    side = [place.commit("one"), place.commit("two")]
    place.git("switch", "-q", "main")
    meanwhile = place.commit("meanwhile")
    place.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    merge, last = place.head(), place.commit("last")
    assert repo.line(place.base, "main") == (place.base, meanwhile, merge, last)
    assert repo.line(meanwhile, merge) == (meanwhile, merge)
    assert repo.line(side[1], "main") == (place.base, meanwhile, merge, last)
    assert repo.line(last, last) == repo.line(last, meanwhile) == ()


def test_messages_are_read_as_they_were_written(place: Place) -> None:
    place.git(
        "-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-m", "naïve\n\nBody\n"
    )
    assert Repo(place.path).message("HEAD") == "naïve\n\nBody\n"


def test_a_ref_is_made_once(place: Place) -> None:
    repo = Repo(place.path)
    other = place.commit("other")
    repo.create_ref("qigheal/a", place.base)
    with pytest.raises(RepoError, match="already exists"):
        repo.create_ref("qigheal/a", other)
    assert repo.ref("qigheal/a") == place.base
    assert repo.ref("qigheal/b") is None
    with pytest.raises(RepoError):
        repo.create_ref("bad..name", other)


def test_commits_are_found_by_what_they_say_on_any_ref(place: Place) -> None:
    side = place.commit("Side\n\nKey: a[b]c\n\nSigned-off: näher")
    place.git("branch", "side")
    place.git("reset", "-q", "--hard", place.base)
    place.git("config", "log.showSignature", "true")
    place.git("config", "grep.patternType", "extended")
    main = place.commit("Main\n\nKey: a[b]c")
    place.commit("Neither\n\nKey: abc")
    found = dict(Repo(place.path).commits_saying("Key: a[b]c"))
    assert set(found) == {side, main}
    assert found[side] == "Side\n\nKey: a[b]c\n\nSigned-off: näher\n"


def test_links_are_not_read(place: Place) -> None:
    (place.path / "link").symlink_to("/etc/passwd")
    commit = place.commit("link")
    with pytest.raises(RepoError, match="mode is 120000"):
        Repo(place.path).read(commit, "link")


def test_nothing_planted_runs(place: Place, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    place.write("table.dat", "1\n")
    base = place.commit("data")
    plant(place, marker)
    repo = Repo(place.path)
    tree = repo.apply(base, GOOD)
    repo.changes(base, tree)
    repo.diff(base, repo.edit(base, {"table.dat": b"2\n"}))
    head = repo.commit(tree, (base,), "x\n", 1e9)
    repo.create_ref("qigheal/a", head)
    repo.export(head, tmp_path / "out")
    repo.worktrees()
    place.write("table.dat", "2\n")
    assert repo.dirty(place.path) == ("table.dat",)
    place.write("table.dat", "1\n")
    assert repo.dirty(place.path) == ()
    repo.advance("main", head, base, "move")
    assert (place.path / "app/model.py").read_text().endswith("x + 2\n")
    assert not marker.exists()
    place.git("status")  # the traps are set: the user's own git does run them
    assert marker.exists()


def test_the_callers_git_environment_is_not_git_s(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Place(tmp_path / "other", {"o": "o\n"})
    marker = tmp_path / "marker"
    for name, value in {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": str(other.path),
        "GIT_INDEX_FILE": "/nonexistent/index",
        "GIT_OBJECT_DIRECTORY": "/nonexistent",
        "GIT_EXTERNAL_DIFF": f"touch {marker}",
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor=touch {marker}'",
        "GIT_NAMESPACE": "elsewhere",
        "GIT_TRACE": str(tmp_path / "trace"),
    }.items():
        monkeypatch.setenv(name, value)
    repo = Repo(place.path)
    assert repo.head() == place.base
    repo.diff(place.base, repo.apply(place.base, GOOD))
    repo.dirty(place.path)
    assert not marker.exists()
    assert not (tmp_path / "trace").exists()


def test_a_git_that_cannot_be_told_to_run_no_hooks_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "git").write_text(f'#!/bin/sh\nunset GIT_CONFIG_COUNT\nexec {real_git()} "$@"\n')
    (shim / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim}:{os.environ['PATH']}")
    with pytest.raises(RepoError, match=r"2\.31 or newer"):
        Repo(place.path)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(RepoError, match="on PATH"):
        Repo(place.path)


def test_bare_repositories(place: Place, tmp_path: Path) -> None:
    place.git("clone", "-q", "--bare", str(place.path), str(tmp_path / "bare"))
    repo = Repo(tmp_path / "bare")
    assert repo.root == tmp_path / "bare"
    assert repo.branch() == "main"
    assert repo.worktrees() == ()
    head = repo.commit(repo.apply("main", GOOD), (place.base,), "x\n", 1e9)
    repo.advance("main", head, place.base, "move")
    assert repo.head() == head


def test_a_submodule_is_a_repository_of_its_own(place: Place, tmp_path: Path) -> None:
    outer = Place(tmp_path / "outer", {"x": "x\n"})
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(place.path), "inner")
    repo = Repo(outer.path / "inner")
    assert repo.root == outer.path / "inner"
    assert [w.path for w in repo.worktrees()] == [outer.path / "inner"]
    head = repo.commit(repo.apply("main", GOOD), (place.base,), "x\n", 1e9)
    assert [change.path for change in repo.changes("main", head)] == ["app/model.py"]
    repo.advance("main", head, place.base, "move")
    assert (outer.path / "inner/app/model.py").read_text().endswith("x + 2\n")
    assert outer.git("status", "--porcelain", at=outer.path / "inner") == ""


def test_worktrees_and_detached_heads(place: Place, tmp_path: Path) -> None:
    place.git("worktree", "add", "-q", str(tmp_path / "side"), "-b", "side")
    place.git("worktree", "add", "-q", "--detach", str(tmp_path / "loose"))
    place.git("worktree", "add", "-q", "--detach", str(tmp_path / "gone"))
    for path in sorted((tmp_path / "gone").iterdir(), reverse=True):
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    (tmp_path / "gone").rmdir()
    found = {w.path: w.branch for w in Repo(tmp_path / "side").worktrees()}
    assert found == {place.path: "main", tmp_path / "side": "side", tmp_path / "loose": None}
    with pytest.raises(RepoError, match="HEAD is detached"):
        Repo(tmp_path / "loose").branch()
