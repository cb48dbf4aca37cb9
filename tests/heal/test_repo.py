"""What stages ask of a repository: objects, refs, exports, and nothing of the repository's own running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qigheal.errors import PatchError, RepoError
from qigheal.repo import Repo
from tests.heal.gitfix import Place, plant, real_git

FILES = {
    "app/model.py": "def f(x):\n    return x + 1\n",
    "app/naïve file.py": "y = 2\n",
    "config/app.toml": "[a]\nb = 1\n",
    "-dash": "first\n",
}


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


names = st.text(st.sampled_from("ab é\n\"'\\-*[]?:\t"), min_size=1, max_size=8).filter(
    lambda s: s.strip(" .") == s
)
contents = st.one_of(
    st.lists(st.sampled_from([b"one", b"two", b"", b"\ttab", b"cr\r", "é".encode(), b"-- a", b"@@ -1 +1 @@"]))
    .map(b"\n".join),
    st.binary(max_size=40).map(lambda b: b"\0" + b),
)  # fmt: skip


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


GOOD = """\
diff --git a/app/model.py b/app/model.py
--- a/app/model.py
+++ b/app/model.py
@@ -1,2 +1,2 @@
 def f(x):
-    return x + 1
+    return x + 2
"""


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


def test_a_diff_without_prefixes_is_applied_where_it_says(place: Place) -> None:
    diff = (
        "--- app/model.py\n+++ app/model.py\n@@ -1,2 +1,2 @@\n def f(x):\n-    return x + 1\n+    return x\n"
    )
    repo = Repo(place.path)
    assert repo.read(repo.apply("HEAD", diff, strip=0), "app/model.py") == b"def f(x):\n    return x\n"
    with pytest.raises(PatchError, match="does not apply"):
        repo.apply("HEAD", diff)


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
