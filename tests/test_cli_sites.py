"""What `qigheal doctor --host` says of calls and errors that a manifest declares and that mean nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qigheal.cli.checks import Check, host
from qigheal.cli.checks.sites import declared
from qigheal.healing.hostcode.program import Program
from qigheal.host import Manifest
from tests.heal.probed_host import git

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
[patch]
allow = ["app/*.py"]
[sites]
idempotent = {idempotent}
transient = {transient}
"""
FILES = {
    "app/__init__.py": "from app.store import Down, fetch\n",
    "app/store.py": """
import requests

class Down(Exception):
    class Hard(Exception): ...

class Client:
    def read(self, key): ...

class Heir(Client): ...

def fetch(key): ...

try:
    def twice(key): ...
except ImportError:
    def twice(key): ...
""",
    "requirements.txt": "Some-Thing>=1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def checked(folder: Path, idempotent: list[str], transient: list[str]) -> list[Check]:
    (folder / "qigheal.toml").write_text(MANIFEST.format(idempotent=idempotent, transient=transient))
    return [*declared(folder, Manifest.load(folder))]


@pytest.mark.parametrize(
    ("idempotent", "transient"),
    [
        (["app.store:fetch", "app:fetch", "app.store:Client.read"], ["TimeoutError", "app.store.Down"]),
        (["requests:get", "some_thing:call", "urllib.request:urlopen"], ["requests.exceptions.Timeout"]),
        ([], ["app.store.Down.Hard", "json.JSONDecodeError"]),
    ],
)
def test_what_means_something_is_passed_over(
    folder: Path, idempotent: list[str], transient: list[str]
) -> None:
    assert checked(folder, idempotent, transient) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("app.store:fetsch", "names no single function"),
        ("app.stor:fetch", "names no single function"),
        ("app.store:Client.reed", "names no single function"),
        ("app.store:Heir.read", "names no single function"),
        ("app.store:twice", "names no single function"),
        ("app.store:Client", "names no single function"),
        ("requets:get", "no package 'requets'"),
    ],
)
def test_a_call_that_names_nothing(folder: Path, name: str, why: str) -> None:
    [check] = checked(folder, ["app.store:fetch", name], [])
    assert (check.name, check.state) == ("sites", "warn")
    assert repr(name) in check.found
    assert why in check.found
    assert "package.module:Class.method" in check.remedy


@pytest.mark.parametrize(
    "name",
    ["TimeOutError", "Down", "app.store.Dwon", "app.Down", "len", "requets.Timeout", "app.store.fetch"],
)
def test_an_error_that_names_nothing(folder: Path, name: str) -> None:
    [check] = checked(folder, [], ["OSError", name])
    assert (check.state, check.found) == ("warn", f"transient {name!r} names no error that is known")


def test_the_look_at_a_host_holds_it(folder: Path) -> None:
    assert len(checked(folder, ["app.store:fetsch"], [])) == 1
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Files")
    assert "sites" in [check.name for check in host.manifest(folder)]


def test_files_that_cannot_be_read_as_code_are_passed_over(folder: Path) -> None:
    """Each of them once ended the command, or kept it waiting or reading for ever."""
    (folder / "app" / "deep.py").write_text("x = " + "-" * 30_000 + "1\n")
    (folder / "app" / "sum.py").write_text("x = " + "1 + " * 1_500 + "1\n")
    (folder / "app" / "long.py").write_text("#" * 2_000_001)
    (folder / "app" / "zeros.py").symlink_to("/dev/zero")
    os.mkfifo(folder / "app" / "pipe.py")
    os.mkfifo(folder / "requirements-pipe.txt")
    (folder / "pyproject.toml").write_text("a = " + "[" * 100_000)
    names = [f"app.{name}:x" for name in ("deep", "long", "zeros", "pipe", "sum")]
    found = checked(folder, ["app.store:fetch", "some_thing:call", *names], [])
    assert [check.found.partition(" names")[0] for check in found] == [f"idempotent {n!r}" for n in names]
    assert "app/store.py" in Program(folder).sources
