"""A move of a checked-out branch that is cut off anywhere: doing it again completes it, and work is kept."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qigheal.errors import Blocked, RepoError
from qigheal.repo import Repo
from qigheal.repo.indexlock import MARK, IndexLock
from tests.heal.gitfix import Place
from tests.heal.worktrees import FILES, assert_moved, successor

STEPS = {
    "lock taken": "IndexLock.fresh_copy = die",
    "noted": "Checkout._update_files = die",
    "half of the files": "Checkout._update_files = half",
    "files": "Checkout._move = files_only",
    "prepared": "IndexLock.put_copy = die",
    "index renamed": "put = IndexLock.put_copy\nIndexLock.put_copy = lambda self: (put(self), die())",
    "committed": "IndexLock._release = die",
}
KILLED = """\
import os, signal, sys
from pathlib import Path
from qigheal.repo.indexlock import IndexLock
from qigheal.repo import Repo
from qigheal.repo.worktree import Checkout

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(self, lock, note):
    whole = self._git.run("cat-file", "blob", note.new + ":a.py").stdout
    (self.path / "a.py").unlink()
    (self.path / "a.py").write_bytes(whole[:100])
    (self.path / "b.py").unlink()
    os.makedirs(self.path / "new/deep")
    (self.path / "new/deep/c.py").write_bytes(b"")
    (self.path / "old/gone.py").unlink()
    die()

def files_only(self, lock, note, message):
    self._update_files(lock, note)
    die()

STEP
Repo(sys.argv[1]).advance("main", sys.argv[2], sys.argv[3], "move")
"""


def killed_at(step: str, place: Place, new: str) -> None:
    """Let another process begin the move and be killed at a step."""
    script = KILLED.replace("STEP", STEPS[step])
    done = subprocess.run(
        [sys.executable, "-c", script, str(place.path), new, place.base], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    if place.uid is not None and step == "half of the files":  # which root wrote in the user's stead
        subprocess.run(["chown", "-R", f"{place.uid}:{place.uid}", str(place.path)], check=True)


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_doing_it_again_completes_it(place: Place, step: str) -> None:
    new = successor(place)
    killed_at(step, place, new)
    assert (place.path / ".git/index.lock").exists()  # keeps the user's git out of the half-done tree
    Repo(place.path).advance("main", new, place.base, "move")
    assert_moved(place, new)
    assert len(place.owners()) == 1


@pytest.mark.parametrize("step", ["half of the files", "files", "index renamed"])
def test_killed_and_then_something_else_is_wanted(mine: Place, step: str) -> None:
    new = successor(mine)
    killed_at(step, mine, new)
    other = Repo(mine.path).commit(new, (mine.base,), "another\n", 1_700_000_005)
    Repo(mine.path).advance("main", other, mine.base, "move")
    assert_moved(mine, other)


@pytest.mark.parametrize("step", ["half of the files", "files", "index renamed"])
def test_work_done_after_the_kill_is_kept(mine: Place, step: str) -> None:
    new = successor(mine)
    killed_at(step, mine, new)
    mine.write("b.py", "written by a person\n")
    mine.write("new/notes.txt", "also by a person\n")
    with pytest.raises(Blocked, match=r"b\.py changed while"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert (mine.path / "b.py").read_text() == "written by a person\n"
    assert (mine.path / "new/notes.txt").read_text() == "also by a person\n"
    assert (mine.path / "a.py").read_text() == FILES["a.py"]
    assert sorted(mine.status().split("\n")) == ["?? new/", "M b.py"]
    assert mine.head() == mine.base
    assert mine.locks() == []


def test_a_person_who_removed_the_lock_is_in_charge(mine: Place) -> None:
    new = successor(mine)
    killed_at("half of the files", mine, new)
    (mine.path / ".git/index.lock").unlink()
    mine.git("rm", "-q", "--cached", "b.py")
    before = mine.status()
    with pytest.raises(Blocked, match="uncommitted"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    assert mine.status() == before
    mine.git("reset", "-q", "--hard")
    shutil.rmtree(mine.path / "new")
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)


def test_a_lock_whose_git_still_runs_is_respected(mine: Place) -> None:
    new = successor(mine)
    killed_at("noted", mine, new)
    with (mine.path / ".git" / MARK).open() as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        with pytest.raises(Blocked, match="another healer"):
            Repo(mine.path).advance("main", new, mine.base, "move")
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)


def test_an_error_in_the_middle_leaves_nothing_behind(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    new = successor(mine)

    def full(self: IndexLock) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(IndexLock, "put_copy", full)
    with pytest.raises(OSError, match="no space left"):
        Repo(mine.path).advance("main", new, mine.base, "move")
    monkeypatch.undo()
    assert (mine.path / "a.py").read_text() == FILES["a.py"]
    Repo(mine.path).advance("main", new, mine.base, "move")
    assert_moved(mine, new)


def test_the_mark_is_not_written_through_a_link(mine: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (mine.path / ".git" / MARK).symlink_to(victim)
    with pytest.raises(RepoError, match="cannot be opened"):
        Repo(mine.path).advance("main", successor(mine), mine.base, "move")
    assert victim.read_text() == "precious\n"
