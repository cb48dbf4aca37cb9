"""Moving a branch that somebody has checked out: it comes along or stays, and nothing of theirs is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qigheal.errors import Blocked, RepoError
from qigheal.repo import Repo
from qigheal.repo.worktree import Checkout
from tests.heal.gitfix import Place, picture, plant
from tests.heal.worktrees import FILES, assert_moved, assert_refused, successor


def test_files_index_and_branch_move_together(place: Place) -> None:
    new = successor(place)
    owners = place.owners()
    Repo(place.path).advance("main", new, place.base, "qigheal: merge x")
    assert_moved(place, new)
    assert place.owners() == owners  # nothing of root's lies in a user's repository
    assert "qigheal: merge x" in place.git("reflog", "-1", "HEAD")
    kept = picture(place.path)
    Repo(place.path).advance("main", new, place.base, "again")
    assert picture(place.path) == kept
    place.write("kept.txt", "the user goes on\n")
    place.commit("as before")


def test_and_back(place: Place) -> None:
    new = successor(place)
    repo = Repo(place.path)
    repo.advance("main", new, place.base, "there")
    repo.advance("main", place.base, new, "back")
    assert place.head() == place.base
    assert place.status() == ""
    assert (place.path / "old/gone.py").exists()
    assert not (place.path / "new").exists()


def test_from_a_linked_worktree_and_in_one(mine: Place, tmp_path: Path) -> None:
    new = successor(mine)
    mine.git("worktree", "add", "-q", str(tmp_path / "side"), "-b", "side")
    Repo(tmp_path / "side").advance("main", new, mine.base, "move")
    assert_moved(mine, new)
    Repo(mine.path).advance("side", new, mine.base, "move")
    assert mine.git("rev-parse", "side") == new
    assert mine.status(at=tmp_path / "side") == ""
    assert (tmp_path / "side/new/deep/c.py").exists()


def test_a_branch_that_is_not_checked_out_moves_alone(mine: Place) -> None:
    new = successor(mine)
    mine.git("checkout", "-q", "--detach")
    before = picture(mine.path)
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert mine.head() == new
    assert picture(mine.path) == before
    with pytest.raises(Blocked, match="no longer at"):
        Repo(mine.path).advance("main", mine.git("hash-object", "a.py"), mine.base, "move")


def dirty_file(place: Place) -> None:
    place.write("kept.txt", "work\n")


def dirty_touched(place: Place) -> None:
    place.write("a.py", "work\n")


def staged(place: Place) -> None:
    place.write("kept.txt", "work\n")
    place.git("add", "kept.txt")


def staged_and_taken_back(place: Place) -> None:
    staged(place)
    place.write("kept.txt", FILES["kept.txt"])


def same_size_same_time(place: Place) -> None:
    index = (place.path / ".git/index").stat()
    os.utime(place.write("kept.txt", "kepT\n"), ns=(index.st_atime_ns, index.st_mtime_ns))


def deleted(place: Place) -> None:
    (place.path / "kept.txt").unlink()


def executable(place: Place) -> None:
    (place.path / "kept.txt").chmod(0o755)


def intent(place: Place) -> None:
    place.write("later.py", "x\n")
    place.git("add", "-N", "later.py")


def conflict(place: Place) -> None:
    place.git("checkout", "-q", "-b", "other")
    place.write("b.py", "b = 3\n")
    place.commit("other")
    place.git("checkout", "-q", "main")
    place.write("b.py", "b = 4\n")
    place.base = place.commit("mine")
    place.git("merge", "other", check=False)


def merge_without_conflict(place: Place) -> None:
    place.git("checkout", "-q", "-b", "other")
    place.commit("other")
    place.git("checkout", "-q", "main")
    place.git("merge", "--no-ff", "--no-commit", "other")


def bisecting(place: Place) -> None:
    place.git("bisect", "start")


def rebasing(place: Place) -> None:
    place.git("checkout", "-q", "-b", "other")
    place.write("b.py", "b = 3\n")
    place.commit("other")
    place.git("checkout", "-q", "main")
    place.write("b.py", "b = 4\n")
    place.base = place.commit("mine")
    place.git("rebase", "other", check=False)
    assert place.git("symbolic-ref", "-q", "HEAD", check=False) == ""


def untracked(place: Place) -> None:
    place.write("new/deep/c.py", "mine\n")


def ignored(place: Place) -> None:
    place.write(".git/info/exclude", "new/\n")
    place.write("new/deep/c.py", "mine\n")


def a_file_for_a_folder(place: Place) -> None:
    place.write("new", "mine\n")


def a_folder_for_a_file(place: Place) -> None:
    place.write("new/deep/c.py/x", "mine\n")


def a_link_for_a_folder(place: Place) -> None:
    (place.path / "new").symlink_to("/tmp")


def another_repository(place: Place) -> None:
    (place.path / "new").mkdir()
    subprocess.run(["git", "init", "-q", str(place.path / "new")], check=True)


def assumed_unchanged(place: Place) -> None:
    place.git("update-index", "--assume-unchanged", "a.py")
    place.write("a.py", "local\n")


def skipped(place: Place) -> None:
    place.git("update-index", "--skip-worktree", "a.py")
    place.write("a.py", "local\n")


def locked(place: Place) -> None:
    place.write(".git/index.lock", "")


def filtered(place: Place) -> None:
    place.write(".git/info/attributes", "a.py filter=lfs\n")


def checked_out_twice(place: Place) -> None:
    place.git("worktree", "add", "-q", "--force", str(place.path.parent / "twice"), "main")


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (dirty_file, r"uncommitted changes \(kept.txt\)"),
        (dirty_touched, r"uncommitted changes \(a.py\)"),
        (staged, r"uncommitted changes \(kept.txt\)"),
        (staged_and_taken_back, r"uncommitted changes \(kept.txt\)"),
        (same_size_same_time, r"uncommitted changes \(kept.txt\)"),
        (deleted, r"uncommitted changes \(kept.txt\)"),
        (executable, r"uncommitted changes \(kept.txt\)"),
        (intent, r"uncommitted changes \(later.py\)"),
        (conflict, "a merge is in progress"),
        (merge_without_conflict, "a merge is in progress"),
        (bisecting, "a bisection is in progress"),
        (rebasing, "a rebase is in progress"),
        (untracked, r"in the way \(new/deep/c.py\)"),
        (ignored, r"in the way \(new/deep/c.py\)"),
        (a_file_for_a_folder, r"in the way \(new\)"),
        (a_folder_for_a_file, r"in the way \(new/deep/c.py\)"),
        (a_link_for_a_folder, r"in the way \(new\)"),
        (another_repository, r"in the way \(new\)"),
        (assumed_unchanged, "assume-unchanged"),
        (skipped, "skip-worktree"),
        (locked, r"index\.lock exists"),
        (filtered, "filter 'lfs'"),
        (checked_out_twice, "several worktrees"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_stays_as_it_is(mine: Place, hinder: Callable[[Place], None], reason: str) -> None:
    hinder(mine)
    assert_refused(mine, successor(mine), reason)


def test_a_stale_looking_user_lock_is_kept(mine: Place) -> None:
    new = successor(mine)
    lock = mine.write(".git/index.lock", "")
    with pytest.raises(Blocked, match=r"index\.lock exists"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert lock.exists()
    lock.unlink()
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)


def test_reasons_name_three_paths_and_count_the_rest(mine: Place) -> None:
    new = successor(mine)
    for path in ("a.py", "b.py", "kept.txt", "old/gone.py"):
        mine.write(path, "work\n")
    assert_refused(mine, new, r"\(a.py, b.py, kept.txt and 1 more\)")


def test_untracked_files_elsewhere_and_touched_times_are_no_hindrance(place: Place) -> None:
    new = successor(place)
    work = place.write("notes.log", "ignored\n")
    other = place.write("old/notes.txt", "untracked, in a folder that empties\n")
    os.utime(place.path / "kept.txt", (1, 1))
    Repo(place.path).advance("main", new, place.base, "move")
    assert place.head() == new
    assert place.status() == "?? old/"
    assert work.read_text() == "ignored\n"
    assert other.exists()


def test_line_ends_are_the_repository_s(mine: Place) -> None:
    mine.git("config", "core.autocrlf", "true")
    new = successor(mine)
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert (mine.path / "b.py").read_bytes() == b"b = 2\r\n"
    assert mine.status() == ""


def test_filters_do_not_run_even_to_compare(mine: Place, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    mine.write("table.dat", "1\n")
    mine.base = mine.commit("data")
    new = successor(mine)
    plant(mine, marker)
    os.utime(mine.path / "table.dat", (1, 1))  # to be compared by content, through the filter
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert mine.head() == new
    assert not marker.exists()


@pytest.mark.parametrize(
    "kind", ["split", "version 4", "untracked cache", "sparse", "worktree config", "ignorecase"]
)
def test_every_kind_of_index(mine: Place, kind: str) -> None:
    if kind == "split":
        mine.git("config", "core.splitIndex", "true")
        mine.git("update-index", "--split-index")
    elif kind == "version 4":
        mine.git("update-index", "--index-version", "4")
    elif kind == "untracked cache":
        mine.git("update-index", "--force-untracked-cache")
        mine.status()
    elif kind == "sparse":
        mine.git("sparse-checkout", "set", "--cone", "--sparse-index", "old", "new")
    elif kind == "worktree config":
        mine.git("config", "extensions.worktreeConfig", "true")
        mine.git("config", "--worktree", "core.worktree", str(mine.path))
    else:
        mine.git("config", "core.ignoreCase", "true")
    new = successor(mine)
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)
    mine.write("kept.txt", "the user goes on\n")
    mine.commit("as before")


def test_a_user_who_switches_in_the_last_moment(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    new = successor(mine)
    original = Checkout.uses

    def switched(self: Checkout, ref: str) -> bool:
        found = original(self, ref)
        mine.git("switch", "-q", "-c", "elsewhere")
        return found

    monkeypatch.setattr(Checkout, "uses", switched)
    with pytest.raises(Blocked, match="not what is checked out"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert mine.status() == ""


def test_several_healers_at_once(mine: Place) -> None:
    new = successor(mine)
    script = (
        "import sys\nfrom qigheal.errors import Blocked\nfrom qigheal.repo import Repo\n"
        "repo = Repo(sys.argv[1])\nprint('ready', flush=True)\nsys.stdin.read()\n"
        "try:\n    repo.advance('main', *sys.argv[2:4], 'move')\nexcept Blocked:\n    pass\n"
    )
    healers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(mine.path), new, mine.base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for healer in healers:
        assert healer.stdout is not None
        assert healer.stdout.readline() == b"ready\n"
    for healer in healers:
        assert healer.stdin is not None
        healer.stdin.close()
        healer.stdin = None
    errors = [healer.communicate()[1] for healer in healers]
    assert errors == [b""] * 4
    assert_moved(mine, new)


@pytest.mark.parametrize("mode", ["link", "attributes", "swap"])
def test_changes_that_a_person_must_bring_along(mine: Place, mode: str) -> None:
    if mode == "link":
        (mine.path / "kept.txt").unlink()
        (mine.path / "kept.txt").symlink_to("a.py")
    elif mode == "attributes":
        mine.write(".gitattributes", "*.py text\n")
    else:
        (mine.path / "kept.txt").unlink()
        mine.write("kept.txt/inside", "x\n")
    new = mine.commit(mode)
    mine.git("reset", "-q", "--hard", mine.base)
    assert_refused(mine, new, "link" if mode == "link" else "says how" if mode == "attributes" else "becomes")


def test_symbolic_branches_are_not_followed(mine: Place) -> None:
    mine.git("symbolic-ref", "refs/heads/master", "refs/heads/main")
    with pytest.raises(Blocked, match="symbolic"):
        Repo(mine.path).advance("master", successor(mine), mine.base, "move")


def test_a_target_that_moves_at_the_last_moment(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    new, before = successor(mine), picture(mine.path)
    original = Checkout._update_files

    def overtaken(self: Checkout, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        mine.git("update-ref", "refs/heads/main", mine.git("commit-tree", "-m", "x", "HEAD^{tree}"))

    monkeypatch.setattr(Checkout, "_update_files", overtaken)
    with pytest.raises(Blocked, match="could not be moved"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert {k: v[2] for k, v in picture(mine.path).items() if k != ".git/index"} == {
        k: v[2] for k, v in before.items() if k != ".git/index"
    }
    assert mine.status() == ""
    assert mine.locks() == []


def test_a_ref_that_somebody_has_locked(mine: Place) -> None:
    new = successor(mine)
    lock = mine.write(".git/refs/heads/main.lock", "")
    with pytest.raises(Blocked, match=r"could not be moved: .*main\.lock.*File exists") as caught:
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert "\n" not in str(caught.value)
    assert lock.exists()
    assert (mine.path / "a.py").read_text() == FILES["a.py"]
    assert mine.status() == ""
    lock.unlink()
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)


def test_root_does_not_write_where_the_owner_could_not(place: Place, tmp_path: Path) -> None:
    if place.uid is None:
        pytest.skip("needs a repository of somebody else")
    root_s = tmp_path / "root-s"
    root_s.write_text("precious\n")
    try:
        os.link(root_s, place.path / ".git/qigheal-heal.lock")
    except OSError as error:
        pytest.skip(f"no link can be made between the folders: {error}")
    with pytest.raises(RepoError, match="owner 0"), Repo(place.path).lock("heal"):
        pass
    assert root_s.read_text() == "precious\n"


def test_questions_about_a_worktree_write_nothing(mine: Place) -> None:
    mine.write("kept.txt", "work\n")
    mine.write("free.log", "x\n")
    os.utime(mine.path / "a.py", (1, 1))
    before = picture(mine.path)
    repo = Repo(mine.path)
    assert repo.dirty(mine.path) == ("kept.txt",)
    assert picture(mine.path) == before
