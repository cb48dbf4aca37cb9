"""What a patch may not touch, in every spelling, and the limits of its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.host import Manifest, refusals
from qigheal.host.refusals import refused_path, refused_text
from qigheal.records import FileChange

EVERYTHING = Manifest.parse(
    """
    [probe]
    command = ["python", "-m", "app.probe", "--config", "config/app.toml", "scripts/measure.py"]
    protect = ["app/guarded/**", "data/*.csv"]
    [tests]
    command = ["sh", "-c", "python checks/all.py --rootdir=spec/conf.toml 'qa/one.py::Case'"]
    [patch]
    allow = ["**"]
    max_files = 3
    max_lines = 10
    [deploy]
    command = ["python", "-m", "app.deploy"]
    """
)


def modified(path: str, **fields: object) -> FileChange:
    plain = {"status": "M", "old_path": path, "new_path": path, "old_mode": "100644", "new_mode": "100644",
             "added": 1, "deleted": 1}  # fmt: skip
    return FileChange(**(plain | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        # what git, builds, starts and test runs read
        ".gitignore", ".gitattributes", ".gitmodules", ".git/config", "a/.git/hooks/x",
        ".github/workflows/ci.yml",
        ".gitlab-ci.yml", ".ci/run", "a/.ci/run", "Makefile", "app/Makefile", "makefile", "GNUmakefile",
        "pyproject.toml", "lib/pyproject.toml", "setup.py", "setup.cfg", "sub/setup.py", "setup.toml",
        "tox.ini", "pytest.ini",
        ".pytest.ini", "conftest.py", "app/conftest.py", "conftest.pyc", "sitecustomize.py",
        "app/sitecustomize.py",
        "sitecustomize/__init__.py", "sitecustomize.so", "usercustomize.py", "a.pth",
        "lib/site-packages/evil.pth", "qigheal.toml",
        # the same names as other file systems see them
        ".GIT/config", ".GitHub/x", ".git /config", ".git./config", ".git::$INDEX_ALLOCATION/config",
        "git~1/config",
        "GIT~1", ".g\u200cit/config", ".gi\ufefft/config", "MAKEFILE", "Makefile.", "makefile ",
        "PyProject.TOML", "pyproject.toml::$DATA",
        "PYPROJ~1.TOM", "ConfTest.py", "CONFTEST.PY", "Setup.Py", "SITECUSTOMIZE.PY", "x.PTH", "ma\u212aefile",
        "QigHeal.toml",
        # tests
        "tests/x.py", "tests/data/x.json", "app/tests/x.py", "app/test/x.py", "Tests/x.py", "test_app.py",
        "app/test_model.py",
        "app/model_test.py", "app/TEST_model.PY",
        # what the manifest names
        "app/guarded/x.py", "app/guarded/deep/x.py", "APP/Guarded/x.py", "data/x.csv", "app/probe.py",
        "app/probe/__init__.py",
        "src/app/probe.py", "app/probe/__main__.py", "scripts/measure.py", "checks/all.py", "spec/conf.toml",
        "qa/one.py",
        "app/deploy.py",
        # what is no path
        "", "/etc/passwd", "../x.py", "a/../x.py", "a/./x.py", "./x.py", "a//x.py", "a/", "a\\b.py", "a\nb.py",
        "a\tb.py", "a\x7fb.py",
        "a\x00b.py", "a\udc80.py", "..", ".",
    ],
)  # fmt: skip
def test_refused_whatever_is_allowed(path: str) -> None:
    assert refused_path(EVERYTHING, path) is not None
    [first, *_] = refusals(EVERYTHING, [modified(path)], [path])
    assert first.isprintable()


@pytest.mark.parametrize(
    "path",
    [
        "app/model.py", "app/probes.py", "config/app.toml", "app/git.py", "app/gitignore", "app/setuptools.py",
        "setup/x.py",
        "app/testing.py", "app/latest.py", "app/contest.py", "app/test_data.json", "app/attest/x.py",
        "docs/Makefile.md",
        "app/naïve file.py", "app/x.py~", "data/x.tsv", "app/deployment.py", "a-b/c_d.py", "app/measure.py",
        "README",
    ],
)  # fmt: skip
def test_not_refused_when_allowed(path: str) -> None:
    assert refused_path(EVERYTHING, path) is None
    assert refusals(EVERYTHING, [modified(path)], [path, "other.py"]) == ()


def test_what_is_not_allowed_is_refused_on_either_path() -> None:
    manifest = Manifest.parse('[probe]\ncommand = ["p"]\n[patch]\nallow = ["app/**/*.py", "config/*.toml"]')
    for path in ("app/a.py", "app/b/c/a.py", "config/x.toml"):
        assert refused_path(manifest, path) is None
    for path in ("a.py", "app/a.toml", "config/sub/x.toml", "apps/a.py", "App/a.py"):
        assert refused_path(manifest, path) == "not allowed by [patch] allow"
    moved = modified("x", old_path="secret.py", new_path="app/a.py")
    assert refusals(manifest, [moved], []) == ("secret.py: not allowed by [patch] allow",)
    moved = modified("x", old_path="app/a.py", new_path="secret.py")
    assert refusals(manifest, [moved], []) == ("secret.py: not allowed by [patch] allow",)
    nothing = Manifest.parse('[probe]\ncommand = ["p"]')
    assert refused_path(nothing, "app/a.py") == "not allowed by [patch] allow"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (modified("a.py", status="T", new_mode="120000"), "a.py: is a link"),
        (modified("a.py", status="A", old_path=None, old_mode="000000", new_mode="120000"), "a.py: is a link"),
        (modified("a.py", status="D", new_path=None, old_mode="120000", new_mode="000000"), "a.py: is a link"),
        (modified("a.py", status="A", old_path=None, old_mode="000000", new_mode="160000"),
        "a.py: is a submodule"),
        (modified("a.py", old_mode="160000", new_mode="160000"), "a.py: is a submodule"),
        (modified("a.py", new_mode="100664"), "a.py: has mode 100664"),
        (modified("a.py", new_mode="104755"), "a.py: has mode 104755"),
        (modified("a.py", new_mode="100755"), "a.py: changes its mode from 100644 to 100755"),
        (modified("a.py", binary=True, added=0, deleted=0), "a.py: is binary"),
    ],
)  # fmt: skip
def test_kinds_of_change(change: FileChange, reason: str) -> None:
    assert reason in refusals(EVERYTHING, [change], ["a.py"])


def test_new_and_deleted_files_are_no_change_of_mode() -> None:
    added = modified("new.py", status="A", old_path=None, old_mode="000000", new_mode="100755")
    gone = modified("old.py", status="D", new_path=None, old_mode="100755", new_mode="000000")
    assert refusals(EVERYTHING, [added, gone], ["old.py"]) == ()


def test_names_that_differ_only_in_case() -> None:
    added = modified("App/Model.py", status="A", old_path=None, old_mode="000000")
    assert refusals(EVERYTHING, [added], ["app/model.py"]) == (
        "App/Model.py: the same name as app/model.py where case does not count",
    )


def test_size_limits() -> None:
    fits = [modified(f"{i}.py", added=2, deleted=1) for i in range(3)]
    assert refusals(EVERYTHING, fits, []) == ()
    assert refusals(EVERYTHING, [*fits, modified("3.py", added=0, deleted=0)], []) == (
        "4 files are changed, [patch] max_files is 3",
    )
    assert refusals(EVERYTHING, [modified("a.py", added=6, deleted=5)], []) == (
        "11 lines are changed, [patch] max_lines is 10",
    )
    assert refusals(EVERYTHING, [], []) == ("the patch changes nothing",)


@given(
    st.lists(
        st.sampled_from(["app", "a.py", ".git", "..", "", "tests", "Makefile", "b"]), min_size=1, max_size=5
    )
)
def test_a_forbidden_part_is_found_at_any_depth(parts: list[str]) -> None:
    forbidden = {".git", "..", "", "Makefile"} & set(parts) or "tests" in parts[:-1]
    assert (refused_path(EVERYTHING, "/".join(parts)) is not None) == bool(forbidden)


@pytest.mark.parametrize("character", [*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"])
def test_added_lines_are_read_in_the_order_in_which_they_stand(character: str) -> None:
    marked = f"a = 1\nb = 2  # {character}\n".encode()
    reason = "holds characters that change the order in which it is read"
    assert refused_text(b"a = 1\n", marked) == reason
    assert refused_text(b"", b"x\x0c" + character.encode()) == reason
    assert refused_text(marked, marked + b"c = 3\n") is None  # it was there


def test_other_writing_is_no_reason_to_refuse() -> None:
    assert refused_text(b"", "name = 'שלום \u200f عالم \u2065'\n".encode()) is None
