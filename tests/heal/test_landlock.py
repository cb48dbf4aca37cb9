"""Level "partial": on kernels of every version, with few capabilities, and cleaning up after the worst."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qigheal.sandbox import Sandbox, landlock
from qigheal.sandbox import launcher as launching
from qigheal.sandbox.launcher import Rights, remove, rights
from tests.heal.hostile.programs import PROGRAMS
from tests.heal.hostile.stage import Program, objections, staged
from tests.heal.isolated import content
from tests.heal.ordinary_user import CONTAINED, run_as_ordinary_user

CHOSEN = [
    program
    for program in PROGRAMS
    if program.name
    in (
        "changes files of others",
        "changes what a file is, without opening it",
        "writes into the tree",
        "reads files of others",
        "connects to a server of this machine",
        "sends from a paired socket",
        "a daemon past the timeout",
        "processes that hand over faster than they can be killed",
        "links that cleaning up might follow",
    )
]
OLDER = """
import importlib.util, sys
found = importlib.util.spec_from_file_location("launcher", sys.argv[1])
launcher = importlib.util.module_from_spec(found)
found.loader.exec_module(launcher)
launcher.version = lambda: int(sys.argv[2])
sys.exit(launcher.main(int(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (0, Rights(0, 0, 0)),
        (1, Rights(0x1FFF, 0, 0)),
        (2, Rights(0x3FFF, 0, 0)),
        (3, Rights(0x7FFF, 0, 0)),
        (4, Rights(0x7FFF, 3, 0)),
        (5, Rights(0xFFFF, 3, 0)),
        (6, Rights(0xFFFF, 3, 3)),
        (7, Rights(0xFFFF, 3, 3)),
        (99, Rights(0xFFFF, 3, 3)),
    ],
)
def test_rights_by_version(version: int, expected: Rights) -> None:
    assert rights(version) == expected


@pytest.fixture
def older(request: pytest.FixtureRequest, partly: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as it would be on a kernel whose Landlock has an earlier version."""
    if launching.version() < request.param:
        pytest.skip(f"this kernel's Landlock has no version {request.param}")

    file = landlock.command_line(0)[-2]

    def line(descriptor: int) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", OLDER, file, str(request.param), str(descriptor)]

    monkeypatch.setattr("qigheal.sandbox.landlock.command_line", line)
    monkeypatch.setattr("qigheal.sandbox.landlock.version", lambda: request.param)
    return Sandbox("partial")


@pytest.mark.parametrize("older", [1, 5], indirect=True)
@pytest.mark.parametrize("program", CHOSEN, ids=lambda program: program.name)
def test_no_harm_on_older_kernels(open_folder: Path, older: Sandbox, program: Program) -> None:
    with staged(open_folder) as stage:
        done = stage.run(older, program)
        assert objections(program, done, stage.harm(done)) == []


@pytest.mark.parametrize("older", [1, 5, 6], indirect=True)
def test_what_cannot_be_had_is_said(older: Sandbox, request: pytest.FixtureRequest) -> None:
    version = request.node.callspec.params["older"]
    assert f"(version {version})" in older.note
    assert ("signalled" in older.note) == (version < 6)
    assert "list of processes" in older.note


def test_a_writable_tree_is_a_copy(partly: Sandbox, tree: Path, clean: str) -> None:
    before = content(tree)
    script = """
import os, subprocess
open("written", "w").write("x")
open("package/__init__.py", "a").write("MORE = 1")
os.rename("package/tool", "tool")
print(sorted(os.listdir()), subprocess.run(["./tool"], check=True, capture_output=True).stdout)
"""
    done = partly.run(["python", "-c", script], tree=tree, timeout_s=20, writable=True)
    assert done.stdout == b"['package', 'tool', 'written'] b'tool\\n'\n", done.stderr
    assert content(tree) == before


def test_other_users_cannot_enter_its_folder(partly: Sandbox, tree: Path, clean: str) -> None:
    with partly.start(["python", "-c", "print('on', flush=True); input()"], tree=tree) as running:
        assert running.stdout.read(1) == b"o"
        (folder,) = Path(tempfile.gettempdir()).glob("qigheal-*")
        assert folder.stat().st_mode & 0o007 == 0


def test_locks_of_other_programs_do_not_outlive_it(partly: Sandbox, tree: Path, clean: str) -> None:
    """What is closed here and open inside namespaces, so that its text stays true."""
    script = "import multiprocessing; multiprocessing.Lock()"
    done = partly.run(["python", "-c", script], tree=tree, timeout_s=20)
    assert b"PermissionError" in done.stderr


def test_copies_keep_working(partly: Sandbox, tree: Path, clean: str) -> None:
    """Modes, times and attributes cannot be set as they are, and copying must not fail for it."""
    script = """
import asyncio, os, shutil, subprocess, tempfile
with tempfile.TemporaryDirectory() as folder:
    shutil.copytree(".", folder + "/copy")
    shutil.copy2("package/tool", folder)
    os.rename(folder + "/tool", folder + "/copy/tool")
    print(sorted(os.listdir(folder + "/copy")), asyncio.run(asyncio.sleep(0, "slept")))
    print(subprocess.run(["sh", "package/tool"], capture_output=True, text=True).stdout)
"""
    done = partly.run(["python", "-c", script], tree=tree, timeout_s=20)
    assert done.stdout == b"['package', 'tool'] slept\ntool\n\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user stays itself and can enter its folders")
def test_root_that_may_not_mount_is_told_what_to_open(partly: Sandbox, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    script = "from qigheal.sandbox import Sandbox; Sandbox('partial')"
    done = subprocess.run(
        [*drop, sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(closed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "cannot pass" in done.stderr
    assert "chmod o+x" in done.stderr
    assert list(closed.iterdir()) == []


CONTAINED_ROOT = """
import json, os, sys
from pathlib import Path
from qigheal.sandbox import Sandbox

sandbox = Sandbox("auto")
tree = Path(sys.argv[1]) / "tree"
tree.mkdir()
done = sandbox.run(["python", "-c", "import os; print(os.getuid())"], tree=tree, timeout_s=20)
print(json.dumps([os.getuid(), sandbox.level, sandbox.note, int(done.stdout)]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root with fewer capabilities")
def test_root_in_a_container_that_makes_no_namespaces(partly: Sandbox, open_folder: Path) -> None:
    said = run_as_ordinary_user(CONTAINED_ROOT, open_folder, str(open_folder), become=CONTAINED)
    user, level, note, inside = json.loads(said)
    assert (user, level, inside) == (0, partly.level, 65534)
    assert "CAP_SYS_ADMIN" in note


class TestRemove:
    def test_what_resists(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.mkdir(mode=0o750)
        (kept / "file").write_text("kept")
        folder = tmp_path / "folder"
        (folder / "closed" / "inner").mkdir(parents=True)
        (folder / "closed" / "inner" / "file").write_text("")
        (folder / "link").symlink_to(kept)
        (folder / "closed" / "dangling").symlink_to("nowhere")
        os.link(kept / "file", folder / "closed" / "hard")
        os.mkfifo(folder / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "socket"))
        for name in (b"\xff\xfe", b"new\nline", b"-rf"):
            (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).touch()
        for path in (folder / "closed" / "inner", folder / "closed", folder):
            path.chmod(0)
        folder.chmod(0o500)
        assert remove(str(folder)) == ""
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]
        assert kept.stat().st_mode & 0o777 == 0o750
        assert (kept / "file").read_text() == "kept"

    def test_deeper_than_a_path_can_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        script = "import os, sys; [(os.mkdir(p), os.chdir(p)) for p in sys.argv[1:] + ['d' * 9] * 1200]"
        subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
        assert remove(str(folder)) == ""
        assert not folder.exists()

    def test_what_stands_in_the_way_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "Not a directory" in remove(str(tmp_path / "file"))
        assert "No such file" in remove(str(tmp_path / "missing"))


def test_a_launcher_that_was_killed_leaves_nothing(partly: Sandbox, tree: Path, clean: str) -> None:
    """As the kernel may kill it where memory runs out."""
    env = {"QIGHEAL_TEST": clean.partition("=")[2]}
    script = "import os, time; os.fork() or os.setsid(); print('on', flush=True); time.sleep(600)"
    with partly.start(["python", "-c", script], tree=tree, env=env) as running:
        assert b"".join(running.stdout.read(1) for _ in range(6)) == b"on\non\n"
        os.kill(running.pid, signal.SIGKILL)
    assert running.close().returncode == 137


ALLOCATES = """\
import ctypes, os, tempfile
libc = ctypes.CDLL(None, use_errno=True)
with tempfile.NamedTemporaryFile() as file:
    taken = libc.fallocate(file.fileno(), 0, ctypes.c_long(0), ctypes.c_long(1 << 20))
    print(taken, os.strerror(ctypes.get_errno()))
    os.posix_fallocate(file.fileno(), 0, 1 << 16)
    print(os.stat(file.name).st_size)
"""


def test_the_disk_is_taken_by_writing_alone(partly: Sandbox, tree: Path) -> None:
    done = partly.run(["python", "-c", ALLOCATES], tree=tree, timeout_s=30)
    assert done.stdout.decode().split("\n")[:2] == [f"-1 {os.strerror(errno.EOPNOTSUPP)}", "65536"], (
        done.stderr
    )


def test_a_command_that_ends_before_it_is_looked_at_is_looked_at_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: Any = SimpleNamespace(folder=str(tmp_path))
    for excess, expected in (("", 0), ("9 MB, 8 MB are allowed", 137)):
        monkeypatch.setattr(launching, "_excess", lambda *_, said=excess: said)
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            monkeypatch.setattr(signal, "sigtimedwait", lambda *_: None)
            assert launching._watch(plan, child.pid) == expected


def test_the_launcher_needs_no_package() -> None:
    """It runs in isolated mode, where nothing that is installed can be imported."""
    line = landlock.command_line(0)
    assert line[1:3] == ["-I", "-S"]
    code = f"import runpy; runpy.run_path({line[3]!r}, run_name='looked at')"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
