"""One healer at a time, and what one that was killed leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qigheal.errors import RepoError
from qigheal.repo import Repo
from tests.heal.gitfix import Place
from tests.heal.repofix import FILES


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


def test_one_healer_at_a_time(place: Place) -> None:
    tree = place.path.parent / "linked"
    place.git("worktree", "add", "-q", str(tree), "-b", "side")
    held = pytest.raises(RepoError, match=f"process {os.getpid()} holds")
    with Repo(place.path).lock("heal"), Repo(tree).lock("other"), held, Repo(tree).lock("heal"):
        pass
    with Repo(tree).lock("heal"):
        pass
    with pytest.raises(RepoError, match="lower-case"), Repo(tree).lock("../x"):
        pass


def test_a_killed_healer_s_lock_is_free(place: Place) -> None:
    script = (
        "import sys\nfrom qigheal.repo import Repo\n"
        "with Repo(sys.argv[1]).lock('heal'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(place.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RepoError, match=f"process {holder.pid} holds"), Repo(place.path).lock("heal"):
        pass
    holder.kill()
    holder.communicate()
    with Repo(place.path).lock("heal"):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (place.path / ".git/qigheal-heal.lock").symlink_to(victim)
    with pytest.raises(RepoError, match="cannot be opened"), Repo(place.path).lock("heal"):
        pass
    assert victim.read_text() == "precious\n"


def test_scratch_folders_of_the_killed_are_swept(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    repo = Repo(place.path)
    left = tmp_path / "qigheal-git-left"
    left.mkdir()
    (left / "index").write_text("x")
    foreign = tmp_path / "qigheal-gitless"
    foreign.mkdir()
    with repo._git.scratch() as used, repo._git.scratch() as new:
        for folder in (left, foreign, used):
            os.utime(folder, (1.0, 1.0))
        with repo.lock("heal"):
            assert not left.exists()
            assert foreign.exists()
            assert used.exists(), "one in use was taken away"
            assert new.exists()
