"""Fixtures that several of the rooms' tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from qigheal.sandbox import Completed, Sandbox
from qigheal.sandbox.processes import marked
from tests.heal.gitfix import USER, Place
from tests.heal.isolated import Run, isolated
from tests.heal.probed_host import Host, belongs
from tests.heal.toyhost import ToyHost
from tests.heal.worktrees import FILES


@pytest.fixture(params=["mine", "theirs"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A repository of the present user, and when that is root also one of somebody else."""
    if request.param == "theirs" and os.geteuid() != 0:
        pytest.skip("only root works in other people's repositories")
    folder = Path(tempfile.mkdtemp(prefix="qigheal-test-"))  # not below tmp_path: others may not enter that
    folder.chmod(0o755)
    yield Place(folder / "host", FILES, uid=USER if request.param == "theirs" else None)
    shutil.rmtree(folder)


@pytest.fixture
def mine(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


@pytest.fixture(params=["namespaces", "partial", "none"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox("none") if request.param == "none" else _of(request.param)


@pytest.fixture
def confining() -> Sandbox:
    return _of("namespaces")


@pytest.fixture
def partly() -> Sandbox:
    return _of("partial")


def _of(level: Literal["namespaces", "partial"]) -> Sandbox:
    found = isolated(level)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def opened_once(tmp_path_factory: pytest.TempPathFactory) -> ToyHost:
    """A sick toy whose first pass opened a change. Only to copy: the pass is what takes the time."""
    from tests.heal.test_engine import opened, sick

    made = ToyHost(tmp_path_factory.mktemp("opened"))
    sick(made)
    opened(made)
    return made


@pytest.fixture
def asked(opened_once: ToyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    """The same, of the test's own: what its healer and its change are, `tests.heal.test_engine.waiting` says."""
    copy = opened_once.copied(tmp_path)
    monkeypatch.setenv("TOY_DEPLOYS", str(copy.deploys))
    return copy


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter, unlike those below tmp_path."""
    place = Path(tempfile.mkdtemp(prefix="qigheal-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("VALUE = 42\n")
    (folder / "package" / "tool").write_text("#!/bin/sh\necho tool\n")
    (folder / "package" / "tool").chmod(0o755)
    return folder


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Nothing is left behind: no process that carries the test's marker, no temporary folder."""
    for level in ("namespaces", "partial"):
        isolated(level)  # what it makes to try itself is made before
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    marker = f"QIGHEAL_TEST={tmp_path}"
    yield marker
    assert not marked(marker)
    assert not list(place.iterdir())


@pytest.fixture
def run(sandbox: Sandbox, tree: Path, clean: str) -> Run:
    def run(script: str, **options: Any) -> Completed:
        argv = ["python", "-c", textwrap.dedent(script)]
        env = {"QIGHEAL_TEST": clean.partition("=")[2]} | options.pop("env", {})
        return sandbox.run(argv, tree=tree, env=env, **({"timeout_s": 20} | options))

    return run


@pytest.fixture
def host(tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host; afterwards no probe runs any more and nothing lies in the folders that were used."""
    temporary, workdir = tmp_path / "temporary", tmp_path / "work"
    temporary.mkdir()
    workdir.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = set(marked("OMP_NUM_THREADS=1"))
    host = Host(tmp_path / "host", workdir, sandbox)
    yield host
    mine = {pid for pid in set(marked("OMP_NUM_THREADS=1")) - before if belongs(pid, tmp_path)}
    assert not mine
    assert not list(temporary.iterdir())
    assert not list(workdir.iterdir())
