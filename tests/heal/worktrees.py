"""A repository whose branch is to be moved, and what must hold of it before and after."""

from __future__ import annotations

import pytest

from qigheal.errors import Blocked
from qigheal.repo import Repo
from tests.heal.gitfix import Place, picture

FILES = {
    "a.py": "a = 1\n" * 30,
    "b.py": "b = 1\n",
    "old/gone.py": "gone = 1\n",
    "kept.txt": "kept\n",
    ".gitignore": "*.log\n",
}
NEW = {"a.py": b"a = 2\n" * 40, "b.py": b"b = 2\n", "new/deep/c.py": b"c = 1\n"}


def successor(place: Place) -> str:
    """A commit on top that modifies two files, adds one, and deletes one with its folder."""
    repo = Repo(place.path)
    edited = repo.edit(place.base, NEW)
    tree = repo.apply(
        edited,
        "diff --git a/old/gone.py b/old/gone.py\ndeleted file mode 100644\n--- a/old/gone.py\n+++ /dev/null\n"
        "@@ -1 +0,0 @@\n-gone = 1\n",
    )
    return repo.commit(tree, (place.base,), "change\n", 1_700_000_000)


def assert_moved(place: Place, new: str) -> None:
    assert place.head() == new
    assert place.status() == ""
    assert (place.path / "a.py").read_bytes() == NEW["a.py"]
    assert (place.path / "new/deep/c.py").read_bytes() == NEW["new/deep/c.py"]
    assert not (place.path / "old").exists()
    assert place.locks() == []
    assert place.git("fsck", "--strict", "--no-dangling") == ""


def assert_refused(place: Place, new: str, reason: str) -> None:
    before, refs = picture(place.path), place.git("for-each-ref")
    with pytest.raises(Blocked, match=reason) as caught:
        Repo(place.path).advance("main", new, place.base, "move")
    assert "\n" not in str(caught.value)
    assert picture(place.path) == before
    assert place.git("for-each-ref") == refs
    assert [name for name in place.locks() if name != ".git/index.lock"] == []
