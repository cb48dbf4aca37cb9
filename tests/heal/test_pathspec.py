"""Patterns select what git says that `:(glob)` pathspecs select."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qigheal.host.pathspec import selects

PATHS = [
    "a", "b.py", "a.py", "ab.py", "abc.py", "é.py", "-x", "a b.py", "A.py", "1.py", "!.py", "].py", "[.py",
    "a]b", "^",
    "dir/a.py", "dir/b.toml", "dir/sub/a.py", "dir/sub/deep/a.py", "dir/sub.py/x", "dirty/a.py",
    "dir2/dir/a.py",
    "*", "a*b", "a?b", "a[b", "a\\b", "**/x", "x/**", "x/y", "x/\tq", "_/_", "a/b/a/b/c.py", "aa/ab/ba/bb.py",
]  # fmt: skip


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose index has all of PATHS; files are not needed."""
    folder = tmp_path_factory.mktemp("paths")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    lines = "".join(f"100644 {'1' * 40}\t{path}\0" for path in PATHS if path not in ("a", "x/y"))
    subprocess.run(
        ["git", "update-index", "-z", "--add", "--index-info"], cwd=folder, input=lines.encode(), check=True
    )
    return folder


def by_git(listing: Path, pattern: str) -> set[str]:
    out = subprocess.run(
        ["git", "ls-files", "-z", "--", f":(glob){pattern}"], cwd=listing, capture_output=True, check=True
    ).stdout
    return set(out.decode().split("\0")[:-1])


def all_paths(listing: Path) -> set[str]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=listing, capture_output=True, check=True).stdout
    return set(out.decode().split("\0")[:-1])


TABLE = [
    "*", "**", "***", "*.py", "**/*.py", "**/a.py", "dir", "dir/", "dir/*", "dir/**", "dir/**/*.py",
    "dir/**/a.py",
    "dir/***/a.py", "dir**/a.py", "d**r/a.py", "dir/sub**", "dir*/a.py", "*/a.py", "*/*/a.py", "**/sub/**",
    "dir/*.toml", "?.py", "??.py", "???.py", "[ab].py", "[!ab].py", "[^ab].py", "[a-c].py", "[]].py",
    "[!]].py", "[[].py",
    "[]-a].py", "[a-].py", "[-a].py", "[a-c-z].py", "[[:alpha:]].py", "[[:digit:]].py", "[[:upper:]].py",
    "[[:punct:]].py",
    "[[:alpha:][:digit:]].py", "[[:nothing:]].py", "[[:alpha].py", "[[:]].py", "[[::]].py", "[a", "a[", "a\\",
    "a\\*b",
    "a\\?b", "\\*", "\\a.py", "a\\[b", "a\\\\b", "[\\]].py", "[\\!].py", "[a\\-c].py", "dir[/]a.py",
    "dir?a.py", "dir[!x]a.py",
    "x/\\**", "x/**\\/", "**\\/a.py", "[[:space:]]*", "x/[[:cntrl:]]q", "x/[[:blank:]]*", "x/[[:space:]]*",
    "[[:graph:]]",
    "[[:print:]].py", "[[:xdigit:]].py", "[[:lower:]][[:alnum:]].py", "é.py", "[é].py", "*é*", "*a*b*c*",
    "**/**/a.py",
    "a*b", "a?b", "_**/_", "dir/sub/*/a.py", "dir/**/sub/a.py", "**/dir/**/a.py", "*/**", "**/*/**/*.py",
]  # fmt: skip


@pytest.mark.parametrize("pattern", TABLE)
def test_patterns_of_a_table(listing: Path, pattern: str) -> None:
    ours = {path for path in all_paths(listing) if selects(pattern, path)}
    assert ours == by_git(listing, pattern)


atoms = st.sampled_from(
    ["a", "b", "dir", "sub", "x", "/", "/", "*", "**", "?", "[ab]", "[!a]", "[a-d]", "[", "]", "\\", ".py",
    "-", ":", "!", "."]
)  # fmt: skip
patterns = (
    st.lists(atoms, min_size=1, max_size=7)
    .map("".join)
    .filter(lambda p: not any(part in ("", ".", "..") for part in p.removesuffix("/").split("/")))
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=patterns)
@example(pattern="dir**/[a-d].py")
def test_patterns_by_chance(listing: Path, pattern: str) -> None:
    ours = {path for path in all_paths(listing) if selects(pattern, path)}
    assert ours == by_git(listing, pattern)
