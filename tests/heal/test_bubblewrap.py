"""What is bound for an interpreter, and what bubblewrap is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qigheal.sandbox.bubblewrap import (
    Interpreter,
    command_line,
    first_process,
    interpreter_at,
    interpreter_mounts,
)


def installed(folder: Path, name: str) -> Path:
    executable = folder / name / "bin" / "python3"
    executable.parent.mkdir(parents=True)
    executable.write_text("")
    return executable


def test_a_virtual_environment_brings_its_base(tmp_path: Path) -> None:
    base = installed(tmp_path, "base")
    venv = tmp_path / "venv" / "bin" / "python"
    venv.parent.mkdir(parents=True)
    venv.symlink_to(base)
    found = interpreter_mounts(Interpreter(str(venv), str(tmp_path / "venv"), str(tmp_path / "base")))
    assert found == ([str(tmp_path / "base"), str(tmp_path / "venv")], [])


def test_links_on_the_way_are_recreated_not_their_folders(tmp_path: Path) -> None:
    """A link in a personal bin folder must not bring that folder along."""
    real = installed(tmp_path, "python-3.99")
    personal = tmp_path / "personal" / "bin" / "python"
    personal.parent.mkdir(parents=True)
    (tmp_path / "current").symlink_to("python-3.99")
    personal.symlink_to("../../current/bin/python3")
    roots, links = interpreter_mounts(
        Interpreter(str(personal), str(real.parent.parent), str(real.parent.parent))
    )
    assert roots == [str(tmp_path / "python-3.99")]
    assert links == [(str(personal), "../../current/bin/python3"), (str(tmp_path / "current"), "python-3.99")]


def test_a_linked_parent_of_a_root_is_a_folder_inside(tmp_path: Path) -> None:
    """Where /home is a link, what is bound below it is bound under both names."""
    real = installed(tmp_path, "var/home/venv")
    (tmp_path / "home").symlink_to("var/home")
    prefix = str(tmp_path / "home" / "venv")
    found = interpreter_mounts(Interpreter(f"{prefix}/bin/python3", prefix, prefix))
    assert found == ([prefix, str(real.parent.parent)], [])


def test_a_base_below_a_root_is_bound_once(tmp_path: Path) -> None:
    inner = installed(tmp_path, "outer/inner")
    found = interpreter_mounts(
        Interpreter(str(inner), str(tmp_path / "outer"), str(tmp_path / "outer/inner"))
    )
    assert found == ([str(tmp_path / "outer")], [])


@pytest.mark.parametrize("folder", ["/", "/home", "/root", "/tmp", "/etc", str(Path.home())])
def test_folders_that_hold_more_than_an_interpreter(folder: str) -> None:
    assert interpreter_mounts(Interpreter("/usr/bin/env", folder, folder)) == ([], [])


def test_what_usr_holds_needs_nothing() -> None:
    assert interpreter_mounts(Interpreter("/usr/bin/env", "/usr", "/usr")) == ([], [])


def test_interpreter_at_asks_the_interpreter() -> None:
    assert interpreter_at(sys.executable) == interpreter_at(None)


def test_every_parent_of_a_bind_can_be_passed(tmp_path: Path) -> None:
    executable = installed(tmp_path, "deep/down/python")
    prefix = str(executable.parent.parent)
    line = command_line(
        ["true"],
        interpreter=Interpreter(str(executable), prefix, prefix),
        tree=tmp_path,
        environment={},
        writable=False,
        info=3,
        filtered=None,
        root=True,
    )
    made = [line[i + 3] for i, word in enumerate(line) if word == "--perms" and line[i + 2] == "--dir"]
    assert set(map(str, executable.parent.parent.parents)) - {"/", "/tmp"} <= set(made)
    assert line.index(made[-1]) < line.index(prefix)


@pytest.mark.parametrize(
    ("told", "expected"),
    [(b'{\n    "child-pid": 4711\n}\n', 4711), (b'{"child-pid": 1, "ipc-namespace": 2}', 1), (b"", None)],
)
def test_first_process(told: bytes, expected: int | None) -> None:
    reader, writer = os.pipe()
    os.write(writer, told)
    os.close(writer)
    try:
        assert first_process(reader) == expected
    finally:
        os.close(reader)
