"""What a program in the sandbox cannot reach, at each level that this machine has."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from qigheal.errors import SandboxError
from qigheal.sandbox import Sandbox
from tests.heal.isolated import Run, content, told
from tests.heal.ordinary_user import run_as_ordinary_user

Level = Literal["namespaces", "partial", "none"]
pytestmark = pytest.mark.usefixtures("clean")


class TestIsolation:
    """Level "namespaces" alone."""

    @pytest.fixture
    def sandbox(self, confining: Sandbox) -> Sandbox:
        return confining

    def test_network_is_away(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            done = run(f"import socket; socket.create_connection({server.getsockname()!r}, 2)")
        assert b"ConnectionRefusedError" in done.stderr

    def test_other_processes_are_away(self, run: Run) -> None:
        found = told(
            run("import json, os; print(json.dumps([p for p in os.listdir('/proc') if p.isdigit()]))")
        )
        assert len(found) <= 3

    def test_files_of_others_are_away(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        paths = [str(tmp_path / "secret"), "/etc/shadow", "/etc/machine-id", "/var", "/home", "/sys"]
        found = told(run(f"import json, os; print(json.dumps([p for p in {paths!r} if os.path.exists(p)]))"))
        assert found == []

    def test_nothing_can_be_written_but_scratch(self, run: Run) -> None:
        found = told(run("""
            import json, os, sys
            written = []
            for folder in (".", "package", "/", "/etc", "/usr", "/usr/lib", "/dev", sys.prefix, sys.base_prefix,
                           "/tmp", "/dev/shm"):
                try:
                    open(f"{folder}/written", "w").close()
                    written.append(folder)
                except OSError:
                    pass
            for change in (lambda: os.chmod("package", 0o777), lambda: os.unlink("package/__init__.py"),
                           lambda: os.rename("package", "other")):
                try:
                    change()
                    written.append("changed")
                except OSError:
                    pass
            print(json.dumps(written))
        """))  # fmt: skip
        assert found == ["/tmp", "/dev/shm"]

    @pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
    def test_scratch_is_bounded(self, run: Run, folder: str) -> None:
        done = run(f"""
            for n in range(20):
                with open(f"{folder}/{{n}}", "wb") as file:
                    file.write(bytes(20 << 20))
        """)
        assert b"No space left" in done.stderr

    def test_rights_and_ways_to_them(self, run: Run) -> None:
        found = told(run("""
            import ctypes, errno, json, os, platform
            libc = ctypes.CDLL(None, use_errno=True)
            arm = platform.machine() == "aarch64"
            def call(number, *arguments):
                ctypes.set_errno(0)
                libc.syscall(number, *arguments)
                return errno.errorcode.get(ctypes.get_errno())
            print(json.dumps({
                "unshare user": call(97 if arm else 272, 0x10000000),
                "clone user": call(220 if arm else 56, 0x10000011, 0, 0, 0, 0),
                "clone3": call(435, 0, 0),
                "ptrace": call(117 if arm else 101, 0, 0, 0, 0),
                "keyctl": call(219 if arm else 250, 0, -3, 0),
                "bpf": call(280 if arm else 321, 0, 0, 0),
                "io_uring": call(425, 1, 0),
                "TIOCSTI": call(29 if arm else 16, 0, 0x5412, 0),
                "netlink": call(198 if arm else 41, 16, 3, 0),
                "mount": call(40 if arm else 165, 0, 0, 0, 0, 0),
                "setuid": call(146 if arm else 105, 0),
            }))
        """))  # fmt: skip
        assert found.pop("clone3") == found.pop("io_uring") == "ENOSYS"
        assert found.pop("netlink") == "EAFNOSUPPORT"
        # In a user namespace 0 is no user at all, hence "invalid".
        assert found.pop("setuid") in ("EPERM", "EINVAL")
        assert set(found.values()) == {"EPERM"}, found

    def test_threads_and_children_work(self, run: Run) -> None:
        """clone3 is hidden: libc must have fallen back to clone."""
        done = run("""
            import multiprocessing, subprocess, threading
            threads = [threading.Thread(target=lambda: None) for _ in range(8)]
            [t.start() for t in threads], [t.join() for t in threads]
            lock = multiprocessing.Lock()
            with lock:
                print(subprocess.run(["true"]).returncode)
        """)
        assert done.stdout == b"0\n"

    def test_names_are_still_found(self, run: Run) -> None:
        """libc asks netlink for addresses first, and must manage without."""
        done = run(
            "import socket; print(socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)[0][4][1])"
        )
        assert done.stdout == b"80\n"

    def test_a_writable_tree_is_a_copy(self, run: Run, tree: Path) -> None:
        before = content(tree)
        done = run(
            """
            import os, subprocess
            open("written", "w").write("x")
            open("package/__init__.py", "a").write("MORE = 1")
            subprocess.run(["package/tool"], check=True)
            print(os.getcwd(), sorted(os.listdir()))
            """,
            writable=True,
        )
        assert done.stdout == b"tool\n/tree ['package', 'written']\n"
        assert content(tree) == before

    def test_another_interpreter(self, confining: Sandbox, tree: Path) -> None:
        other = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        if other is None or os.path.realpath(other) == os.path.realpath(sys.executable):
            pytest.skip("there is only one Python here")
        done = confining.run(
            ["python", "-c", "import sys; print(sys.prefix)"], tree=tree, timeout_s=20, interpreter=other
        )
        assert done.stdout in (b"/usr\n", b"/usr/local\n")

    def test_an_interpreter_that_is_none(self, confining: Sandbox, tree: Path) -> None:
        with pytest.raises(SandboxError, match=r"/bin/false: expected a Python that starts.*qigheal\.toml"):
            confining.run(["python"], tree=tree, timeout_s=20, interpreter="/bin/false")

    @pytest.mark.skipif(os.geteuid() != 0, reason="another user inside only when root starts it")
    def test_a_tree_that_the_user_inside_cannot_read(self, confining: Sandbox, tree: Path) -> None:
        tree.chmod(0o700)
        with pytest.raises(SandboxError, match="could not read it; chmod"):
            confining.run(["true"], tree=tree, timeout_s=5)


class TestNone:
    def test_says_what_it_is(self) -> None:
        sandbox = Sandbox("none")
        assert sandbox.level == "none"
        assert "no isolation" in sandbox.note
        assert "install bubblewrap" in sandbox.note

    @pytest.mark.parametrize("writable", [False, True])
    def test_the_tree_is_a_copy(self, tree: Path, writable: bool) -> None:
        before = content(tree)
        script = "open('written', 'w').write('x'); open('package/__init__.py', 'w').close()"
        done = Sandbox("none").run(["python", "-c", script], tree=tree, timeout_s=20, writable=writable)
        assert done.returncode == 0
        assert content(tree) == before


FAKE = """#!/bin/sh
# A bubblewrap that confines nothing: it reports a process and runs the rest as it stands.
info=
while [ "$1" != --chdir ]; do
    [ "$1" = --info-fd ] && info=$2
    if [ "$1" = --setenv ]; then export "$2=$3"; fi
    shift
done
shift 2
while :; do case $1 in *setpriv|--re*|--clear*|--inh*|--amb*|--bound*|--no-new*) shift ;; *) break ;; esac; done
printf '{"child-pid": %s}' $$ > /proc/self/fd/$info
exec "$@"
"""


class TestLevels:
    @pytest.mark.parametrize("level", ["half", "", "NONE", None])
    def test_unknown_level(self, level: Any) -> None:
        with pytest.raises(SandboxError, match="expected 'auto', 'namespaces', 'partial' or 'none', got"):
            Sandbox(level)

    def test_without_bubblewrap(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for tool in ("setpriv", "prlimit", "choom"):
            found = shutil.which(tool)
            assert found is not None
            (tmp_path / tool).symlink_to(found)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SandboxError, match=r"bwrap not on PATH; install bubblewrap.*sandbox='none'"):
            Sandbox("namespaces")

    def test_with_neither(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = shutil.which("prlimit")
        assert found is not None
        (tmp_path / "prlimit").symlink_to(found)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("qigheal.sandbox.landlock.version", lambda: 0)
        with pytest.raises(
            SandboxError, match=r"bwrap and setpriv and choom not on PATH.*no Landlock.*sandbox='none'"
        ):
            Sandbox("auto")

    def test_without_any_tool(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SandboxError, match="prlimit is not on PATH; install"):
            Sandbox("none")

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (
                "#!/bin/sh\necho 'bwrap: no permission to create a namespace' >&2; exit 1\n",
                "no permission to create",
            ),
            (FAKE, "does not hold: .*system-call filter: expected"),
        ],
        ids=["refused", "pretends"],
    )
    def test_a_bubblewrap_that_does_not_work(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, complaint: str, partly: Sandbox
    ) -> None:
        fake = tmp_path / "bin" / "bwrap"
        fake.parent.mkdir()
        fake.write_text(text)
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
        with pytest.raises(SandboxError, match=f"{complaint}.*sandbox='none'"):
            Sandbox("namespaces")
        second = Sandbox("auto")
        assert second.level == partly.level == "partial"
        assert re.search(complaint, second.note)

    def test_auto_is_the_full_isolation(self, confining: Sandbox) -> None:
        found = Sandbox("auto")
        assert found.level == confining.level == "namespaces"
        assert "bubblewrap" in found.note


AS_USER = '''
import json, os, sys
from pathlib import Path
from qigheal.sandbox.processes import marked
from qigheal.sandbox import Sandbox

folder = Path(sys.argv[1])
tree = folder / "tree"
tree.mkdir()
(tree / "file").write_text("kept")
SCRIPT = """
import json, os, sys
try:
    open("file", "w")
    wrote = True
except OSError:
    wrote = False
if not os.fork():
    os.setsid()
    if not os.fork():
        import time
        time.sleep(600)
    os._exit(0)
os.wait()
devices = open("/proc/net/dev").read().count(":")
print(json.dumps({"uid": os.getuid(), "wrote": wrote, "prefix": sys.prefix, "devices": devices}))
"""
sandbox = Sandbox(sys.argv[2])
env = {"QIGHEAL_TEST": sys.argv[3]}
done = sandbox.run(["python", "-c", SCRIPT], tree=tree, timeout_s=20, env=env)
flood = sandbox.run(["python", "-c", "while True: print('flood')"], tree=tree, timeout_s=20, env=env)
hang = sandbox.run(["python", "-c", "import time; time.sleep(600)"], tree=tree, timeout_s=0.3, env=env)
print(json.dumps({
    "healer": os.getuid(), "level": sandbox.level,
    "inside": json.loads(done.stdout or "{}"), "stderr": done.stderr.decode(),
    "killed": [done.killed_for, flood.killed_for, hang.killed_for], "kept": (tree / "file").read_text(),
    "left": marked(f"QIGHEAL_TEST={sys.argv[3]}"), "folders": sorted(os.listdir(folder)),
}))
'''


@pytest.mark.parametrize("level", ["namespaces", "partial", "none"])
def test_as_an_ordinary_user(
    request: pytest.FixtureRequest, tmp_path: Path, level: Level, clean: str
) -> None:
    if level != "none":
        request.getfixturevalue("confining" if level == "namespaces" else "partly")
    folder = tmp_path / "user"
    found = json.loads(run_as_ordinary_user(AS_USER, folder, str(folder), level, clean.partition("=")[2]))
    assert found["healer"] != 0
    assert found["level"] == level
    assert found["inside"]["prefix"] == sys.prefix, found
    assert found["killed"] == [None, "output", "timeout"]
    assert (found["kept"], found["left"], found["folders"]) == ("kept", [], ["script.py", "tree"])
    if level != "none":
        assert (found["inside"]["uid"], found["inside"]["wrote"]) == (65534, False)
    if level == "namespaces":
        assert found["inside"]["devices"] == 1
