"""What hostile programs achieve at each level that this machine has: nothing, and every one has tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from qigheal.sandbox import Sandbox
from tests.heal.hostile.programs import PROGRAMS
from tests.heal.hostile.stage import Program, objections, play, staged
from tests.heal.isolated import isolated
from tests.heal.ordinary_user import run_as_ordinary_user

Isolating = Literal["namespaces", "partial"]


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found = isolated(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_there_are_enough() -> None:
    names = [program.name for program in PROGRAMS]
    assert len(set(names)) == len(names) >= 40
    assert all(program.attempts or program.says or program.killed_for for program in PROGRAMS)


@pytest.mark.parametrize("sandbox", ["namespaces", "partial"], indirect=True)
@pytest.mark.parametrize(
    "program",
    # Alone, as sandboxes of a healer that is root share one limit of processes.
    [pytest.param(p, marks=pytest.mark.alone if p.crowds else ()) for p in PROGRAMS],
    ids=[program.name for program in PROGRAMS],
)
def test_no_harm(open_folder: Path, sandbox: Sandbox, program: Program) -> None:
    with staged(open_folder) as stage:
        done = stage.run(sandbox, program)
        assert objections(program, done, stage.harm(done)) == []


@pytest.mark.alone
@pytest.mark.parametrize("level", ["namespaces", "partial"])
def test_no_harm_to_an_ordinary_user(tmp_path: Path, level: Isolating) -> None:
    if isinstance(missing := isolated(level), str):
        pytest.skip(missing)
    script = "from tests.heal.hostile.stage import main; main()"
    names = [program.name for program in PROGRAMS]
    found = json.loads(
        run_as_ordinary_user(script, tmp_path / "user", level, str(tmp_path / "user"), *names, timeout=200)
    )
    assert found["user"] != 0
    assert found["wrong"] == {}


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.limits], ids=lambda program: program.name)
def test_limits_hold_without_isolation(open_folder: Path, program: Program) -> None:
    assert play("none", open_folder, [program]) == {}


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.bare], ids=lambda program: program.name)
def test_without_isolation_the_harm_is_done_and_seen(open_folder: Path, program: Program) -> None:
    """Neither the programs nor the stage that shows their harm are dummies."""
    with staged(open_folder) as stage:
        done = stage.run(Sandbox("none"), program)
        assert b"did it" in done.stdout, done.stderr
        assert stage.harm(done)
