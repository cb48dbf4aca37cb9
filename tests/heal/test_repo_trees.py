"""Trees made of others: by a diff, an edit, a merge or a way back; and written out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qigheal.errors import PatchError, RepoError
from qigheal.repo import Repo
from tests.heal.gitfix import Place
from tests.heal.repofix import FILES, GOOD

names = st.text(st.sampled_from("ab é\n\"'\\-*[]?:\t"), min_size=1, max_size=8).filter(
    lambda s: s.strip(" .") == s
)
contents = st.one_of(
    st.lists(st.sampled_from([b"one", b"two", b"", b"\ttab", b"cr\r", "é".encode(), b"-- a", b"@@ -1 +1 @@"]))
    .map(b"\n".join),
    st.binary(max_size=40).map(lambda b: b"\0" + b),
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.dictionaries(names, contents, max_size=4), second=st.dictionaries(names, contents, max_size=4)
)
def test_apply_undoes_what_diff_says(place: Place, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    repo = Repo(place.path)
    a = repo.edit(place.base, first)
    b = repo.edit(a, second)
    diff = repo.diff(a, b)
    changed = {path for path, content in second.items() if first.get(path) != content}
    assert {change.path for change in repo.changes(a, b)} == changed
    if changed:
        assert repo.apply(a, diff) == b
        assert repo.apply(b, repo.diff(b, a)) == a
    else:
        assert diff == ""


def test_diff_does_not_depend_on_the_settings_of_the_user(place: Place) -> None:
    repo = Repo(place.path)
    tree = repo.edit(place.base, {"app/model.py": b"def f(x):\n    return x + 2\n", "new.py": b"z = 1"})
    before = repo.diff(place.base, tree)
    for key, value in {
        "diff.context": "0", "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.renames": "copies",
        "diff.algorithm": "histogram", "diff.suppressBlankEmpty": "true", "core.abbrev": "4", "color.ui": "always",
        "diff.orderFile": "/nonexistent", "diff.relative": "true", "core.quotePath": "true",
        "diff.interHunkContext": "9", "core.worktree": str(place.path), "core.attributesFile": "/nonexistent",
    }.items():  # fmt: skip
        place.git("config", key, value)
    place.write(".git/info/attributes", "*.py diff=odd\n")
    place.git("config", "diff.odd.textconv", "rev")
    assert Repo(place.path / "app").diff(place.base, tree) == before
    assert before.startswith("diff --git a/app/model.py b/app/model.py\nindex ")
    assert "@@ -1,2 +1,2 @@\n" in before


def test_diff_of_other_than_utf8_text_is_refused_by_name(place: Place) -> None:
    repo = Repo(place.path)
    tree = repo.edit(place.base, {"app/model.py": "x = 'é'\n".encode("latin-1")})
    with pytest.raises(PatchError, match=r"UTF-8.*app/model\.py"):
        repo.diff(place.base, tree)


def test_apply_leaves_worktree_index_and_refs_alone(place: Place) -> None:
    repo = Repo(place.path)
    index = (place.path / ".git/index").read_bytes()
    tree = repo.apply(place.base, GOOD)
    assert repo.read(tree, "app/model.py") == b"def f(x):\n    return x + 2\n"
    assert (place.path / ".git/index").read_bytes() == index
    assert place.status() == ""
    assert place.head() == place.base


@pytest.mark.parametrize(
    "diff",
    [
        "",
        "not a diff\n",
        GOOD.replace("x + 1", "x + 7"),
        GOOD.replace("app/model.py", "app/other.py"),
        GOOD.replace("@@ -1,2 +1,2 @@", "@@ -1,9 +1,9 @@"),
        GOOD.replace("app/model.py", "../model.py"),
        "diff --git a/.git/x b/.git/x\nnew file mode 100644\n--- /dev/null\n+++ b/.git/x\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/tmp\n"
        "\\ No newline at end of file\n"
        "diff --git a/x/y b/x/y\nnew file mode 100644\n--- /dev/null\n+++ b/x/y\n@@ -0,0 +1 @@\n+x\n",
        "@@ -1 +1 @@\n-a\n+b\n",
    ],
    ids=["empty", "text", "context", "missing", "short", "dots", "git", "new dots", "through a link", "nameless"],
)  # fmt: skip
def test_a_diff_that_does_not_apply_says_why_in_one_line(place: Place, diff: str) -> None:
    with pytest.raises(PatchError, match="does not apply") as caught:
        Repo(place.path).apply(place.base, diff)
    assert "\n" not in str(caught.value)


def test_changes_of_every_kind(place: Place) -> None:
    place.git("mv", "config/app.toml", "config/moved.toml")
    (place.path / "-dash").chmod(0o755)
    (place.path / "app/model.py").unlink()
    (place.path / "app/model.py").symlink_to("elsewhere")
    place.write("blob.bin", b"\0\1\2")
    after = place.commit("all kinds")
    found = {c.path: c for c in Repo(place.path).changes(place.base, after)}
    assert {path: (c.status, c.old_mode, c.new_mode, c.added, c.deleted, c.binary) for path, c in found.items()} == {
        "-dash": ("M", "100644", "100755", 0, 0, False),
        "app/model.py": ("T", "100644", "120000", 1, 2, False),
        "blob.bin": ("A", "000000", "100644", 0, 0, True),
        "config/app.toml": ("D", "100644", "000000", 0, 2, False),
        "config/moved.toml": ("A", "000000", "100644", 2, 0, False),
    }  # fmt: skip
    assert found["blob.bin"].old_path is None
    assert found["config/app.toml"].new_path is None


def branches(place: Place, ours: dict[str, str | None], theirs: dict[str, str | None]) -> tuple[str, str]:
    """Two commits on the base's files: texts by path, None for a file taken away."""
    made = []
    for name, files in (("ours", ours), ("theirs", theirs)):
        place.git("switch", "-q", "-c", name, place.base)
        for path, text in files.items():
            if text is None:
                (place.path / path).unlink()
            else:
                place.write(path, text)
        made.append(place.commit(name))
    return made[0], made[1]


MODEL = FILES["app/model.py"]
TAIL = "".join(f"line{number} = {number}\n" for number in range(5))


def test_merge_holds_what_both_sides_changed(place: Place) -> None:
    place.write("app/model.py", MODEL + TAIL)
    place.base = place.commit("a longer file")
    ours, theirs = branches(
        place,
        {"app/model.py": MODEL + TAIL.replace("= 3", "= 33"), "-dash": None},
        {"app/model.py": MODEL.replace("+ 1", "+ 2") + TAIL, "new.py": "new\n", "config/app.toml": "b = 2\n"},
    )
    repo = Repo(place.path)
    tree = repo.merge(place.base, ours, theirs)
    assert repo.read(tree, "app/model.py").decode() == MODEL.replace("+ 1", "+ 2") + TAIL.replace(
        "= 3", "= 33"
    )
    assert repo.read(tree, "config/app.toml") == b"b = 2\n"
    assert repo.read(tree, "new.py") == b"new\n"
    assert repo.entry(tree, "-dash") is None
    assert place.status() == ""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"app/model.py": "def f(x):\n    return x\n"}, {"app/model.py": "def f(x):\n    return 2 * x\n"}),
        ({"app/model.py": None}, {"app/model.py": "changed\n"}),
        ({"app/model.py": "changed\n"}, {"app/model.py": None}),
        ({"app/model.py": "a\0b\n"}, {"app/model.py": "c\0d\n"}),
        ({"new.py": "one\n"}, {"new.py": "two\n"}),
    ],
)
def test_a_conflict_is_an_error_with_the_path(
    place: Place, ours: dict[str, str | None], theirs: dict[str, str | None]
) -> None:
    sides = branches(place, ours, theirs)
    [path] = ours
    with pytest.raises(PatchError, match=path):
        Repo(place.path).merge(place.base, *sides)


def test_export_writes_contents_as_stored(place: Place, tmp_path: Path) -> None:
    place.write(".gitattributes", "*.py text eol=crlf ident\n")
    place.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    place.write("ident.py", "# $Id$\n")
    (place.path / "link").symlink_to("/etc/passwd")
    commit = place.commit("odd")
    dest = tmp_path / "out"
    Repo(place.path).export(commit, dest)
    assert (dest / "ident.py").read_bytes() == b"# $Id$\n"
    assert (dest / "app/naïve file.py").read_text() == "y = 2\n"
    assert {p.name: p.stat().st_mode & 0o777 for p in dest.iterdir() if p.is_file()} == {
        "-dash": 0o644, ".gitattributes": 0o644, "ident.py": 0o644, "run.sh": 0o755,
    }  # fmt: skip
    with pytest.raises(RepoError, match="new or empty"):
        Repo(place.path).export(commit, dest)


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
def test_export_refuses_paths_that_lead_out(place: Place, tmp_path: Path, name: str) -> None:
    blob = bytes.fromhex(place.git("hash-object", "-w", "./-dash"))
    inner = _tree(place, b"100644 evil\0" + blob)
    outer = _tree(place, b"40000 " + name.encode() + b"\0" + bytes.fromhex(inner))
    with pytest.raises(RepoError, match="no checkout may have"):
        Repo(place.path).export(outer, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def _tree(place: Place, content: bytes) -> str:
    return subprocess.run(
        ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        cwd=place.path,
        input=content,
        capture_output=True,
        check=True,
    ).stdout.decode().strip()  # fmt: skip


def test_edit_keeps_modes(place: Place) -> None:
    (place.path / "-dash").chmod(0o755)
    base = place.commit("executable")
    repo = Repo(place.path)
    entries = repo.entries(repo.edit(base, {"-dash": b"second", "n/e/w": b""}))
    assert entries["-dash"].mode == "100755"
    assert entries["n/e/w"][0::2] == ("100644", 0)


@pytest.mark.parametrize("path", ["../x", "/x", ".git/config", "a/../b", ""])
def test_edit_takes_paths_of_the_repository_only(place: Place, path: str) -> None:
    with pytest.raises(RepoError, match="no checkout may have"):
        Repo(place.path).edit(place.base, {path: b"x"})


def test_restored_paths_are_the_bases_and_the_rest_is_not(place: Place) -> None:
    place.write("app/model.py", "changed = True\n")
    place.write("config/app.toml", "[a]\nb = 2\n")
    place.git("rm", "-q", "--", "-dash")
    place.git("rm", "-q", "-r", "app/naïve file.py")
    place.write("-dash/now a folder.py", "z = 3\n")
    place.write("new [*].py", "n = 1\n")
    head = place.commit("much")
    repo = Repo(place.path)
    before = place.git("status", "--porcelain", "--ignored")
    paths = ["app/naïve file.py", "config/app.toml", "-dash/now a folder.py", "-dash", "new [*].py"]
    tree = repo.restored(head, place.base, paths)
    assert [change.path for change in repo.changes(place.base, tree)] == ["app/model.py"]
    assert repo.read(tree, "app/model.py") == b"changed = True\n"
    assert repo.restored(head, place.base, ()) == place.git("rev-parse", f"{head}^{{tree}}")
    assert place.git("status", "--porcelain", "--ignored") == before


def test_a_diff_without_prefixes_is_applied_where_it_says(place: Place) -> None:
    diff = (
        "--- app/model.py\n+++ app/model.py\n@@ -1,2 +1,2 @@\n def f(x):\n-    return x + 1\n+    return x\n"
    )
    repo = Repo(place.path)
    assert repo.read(repo.apply("HEAD", diff, strip=0), "app/model.py") == b"def f(x):\n    return x\n"
    with pytest.raises(PatchError, match="does not apply"):
        repo.apply("HEAD", diff)
