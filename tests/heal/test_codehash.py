"""The running commit, as git itself would name it, without git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qigheal import GeometricHealthMonitor
from qigheal.monitor.codehash import VARIABLE, code_hash


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_the_branch_that_is_checked_out(repo: Path) -> None:
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "-b", "topic/with/slashes")
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")


def test_from_a_folder_below(repo: Path) -> None:
    (repo / "a" / "b").mkdir(parents=True)
    assert code_hash(repo / "a" / "b") == git(repo, "rev-parse", "HEAD")


def test_packed_refs_and_what_was_committed_after_packing(repo: Path) -> None:
    git(repo, "tag", "-a", "-m", "annotated", "v1")
    git(repo, "pack-refs", "--all")
    assert not (repo / ".git" / "refs" / "heads" / "main").exists()
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")


def test_a_detached_head(repo: Path) -> None:
    git(repo, "checkout", "-q", "--detach")
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")


@pytest.mark.parametrize("packed", [False, True])
def test_a_linked_worktree(repo: Path, tmp_path: Path, packed: bool) -> None:
    git(repo, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    git(tmp_path / "linked", "commit", "-q", "--allow-empty", "-m", "elsewhere")
    if packed:
        git(repo, "pack-refs", "--all")
    assert code_hash(tmp_path / "linked") == git(tmp_path / "linked", "rev-parse", "HEAD")
    assert code_hash(tmp_path / "linked") != code_hash(repo)


def test_a_git_file_with_a_relative_path(repo: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / ".git").write_text("gitdir: ../repo/.git\n")
    assert code_hash(outer) == git(repo, "rev-parse", "HEAD")


def test_the_environment_comes_first(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " release-7 ")
    assert code_hash(repo) == "release-7"
    monkeypatch.setenv(VARIABLE, "")
    assert code_hash(repo) == git(repo, "rev-parse", "HEAD")


def test_nothing_to_say_is_no_error(tmp_path: Path, repo: Path) -> None:
    assert code_hash(tmp_path) == ""
    assert code_hash(tmp_path / "absent") == ""
    for head in ("ref: refs/heads/unborn", "ref: HEAD", "garbage", "ref: refs/heads/.invalid", ""):
        (repo / ".git" / "HEAD").write_text(head)
        assert code_hash(repo) == ""
    (repo / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert code_hash(repo) == ""
    (repo / ".git" / "HEAD").unlink()
    assert code_hash(repo) == ""


def test_a_monitor_stores_it_with_every_row(repo: Path) -> None:
    host = GeometricHealthMonitor(repo=repo, dim=2)
    assert host.code_hash == git(repo, "rev-parse", "HEAD")
    assert host.capture(phi=0.7, kappa_eff=64.0, basin_coords=[1, 1]).code_hash == host.code_hash
    assert GeometricHealthMonitor(repo=repo, code_hash="abc").code_hash == "abc"
