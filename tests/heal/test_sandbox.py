"""The sandbox, with real processes that try what a bad probe would."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import timeit
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from qigheal.errors import SandboxError
from qigheal.sandbox import Completed, Sandbox
from qigheal.sandbox.processes import marked
from tests.heal.ordinary_user import run_as_ordinary_user

Level = Literal["namespaces", "none"]
Run = Callable[..., Completed]


@cache
def isolated() -> Sandbox | str:
    """The isolating sandbox, or why there is none here."""
    try:
        return Sandbox("auto")
    except SandboxError as error:
        return str(error)


@pytest.fixture(params=["namespaces", "none"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "none":
        return Sandbox("none")
    found = request.getfixturevalue("confining")
    assert isinstance(found, Sandbox)
    return found


@pytest.fixture
def confining() -> Sandbox:
    found = isolated()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("VALUE = 42\n")
    (folder / "package" / "tool").write_text("#!/bin/sh\necho tool\n")
    (folder / "package" / "tool").chmod(0o755)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Nothing is left behind: no process that carries the test's marker, no temporary folder."""
    isolated()
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


def told(done: Completed) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


class TestRun:
    def test_reports_what_the_command_did(self, run: Run, sandbox: Sandbox) -> None:
        done = run("""
            import sys
            from package import VALUE
            print(VALUE)
            print("a word", file=sys.stderr)
            sys.exit(3)
        """)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"42\n", b"a word\n")
        assert (done.level, done.killed_for) == (sandbox.level, None)
        assert 0.0 < done.cpu_s < 5.0
        assert 0.0 < done.wall_s < 10.0
        assert 2.0 < done.max_rss_mb < 200.0

    def test_python_is_the_one_that_runs_qigheal(self, run: Run) -> None:
        script = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.version]))"
        assert told(run(script)) == [sys.prefix, sys.base_prefix, sys.version]

    def test_a_child_named_python_is_the_same_one(self, run: Run) -> None:
        done = run(
            "import subprocess; subprocess.run(['python', '-c', 'import sys; print(sys.prefix)'], check=True)"
        )
        assert done.stdout.decode().strip() == sys.prefix

    def test_environment_is_cleared(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "in the healer's environment")
        monkeypatch.setenv("PYTHONPATH", "/nowhere")
        found = told(run("import json, os; print(json.dumps(dict(os.environ)))", env={"GIVEN": "a b"}))
        assert found["GIVEN"] == "a b"
        assert found["PYTHONHASHSEED"] == "0"
        assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "1"
        assert not {"SECRET", "PYTHONPATH", "USER", "LD_LIBRARY_PATH"} & set(found)

    def test_no_open_files_are_inherited(self, run: Run) -> None:
        found = told(run("import json, os; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))"))
        assert found == [0, 1, 2, 3]  # the last one reads the list

    def test_death_by_a_signal_is_told_as_by_a_shell(self, run: Run) -> None:
        assert run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)").returncode == 143

    def test_a_program_that_does_not_exist(self, sandbox: Sandbox, tree: Path) -> None:
        done = sandbox.run(["no-such-program"], tree=tree, timeout_s=10)
        assert done.returncode == 127
        assert b"no-such-program" in done.stderr

    def test_another_program_than_python(self, sandbox: Sandbox, tree: Path) -> None:
        assert sandbox.run(["./package/tool"], tree=tree, timeout_s=10).stdout == b"tool\n"

    def test_much_input_and_much_output_at_once(self, run: Run) -> None:
        """A parent that writes all before it reads would hang: both pipes hold 64 KiB."""
        sent = os.urandom(1 << 20).hex().encode()
        script = """
            import sys
            for piece in iter(lambda: sys.stdin.buffer.read(4096), b""):
                sys.stdout.buffer.write(piece)
                sys.stderr.buffer.write(piece[:2048])
        """
        done = run(script, stdin=sent, output_cap=1 << 23)
        assert done.stdout == sent
        assert len(done.stderr) == 65_536

    def test_input_that_nobody_reads(self, run: Run) -> None:
        assert run("print('done')", stdin=b"x" * (1 << 20)).stdout == b"done\n"

    @pytest.mark.parametrize("argv", [[], ["python"]])
    def test_nothing_to_run(self, sandbox: Sandbox, tree: Path, argv: list[str]) -> None:
        with pytest.raises(SandboxError, match="expected a command and a folder"):
            sandbox.run(argv, tree=tree / "missing", timeout_s=1)


class TestEnds:
    def test_timeout(self, run: Run) -> None:
        done = run("print('waiting', flush=True)\nimport time; time.sleep(600)", timeout_s=1.5)
        assert (done.killed_for, done.returncode, done.stdout) == ("timeout", 137, b"waiting\n")
        assert 1.5 <= done.wall_s < 15.0

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_flood(self, run: Run, stream: str) -> None:
        script = f"import sys\nwhile True: sys.{stream}.write('flood ' * 1000)"
        done = run(script, output_cap=200_000)
        assert (done.killed_for, done.returncode) == ("output", 137)
        assert len(done.stdout) <= 200_000

    def test_output_over_the_cap_of_a_command_that_has_ended(self, run: Run) -> None:
        """What still lies in the pipe at the end counts too, or the verdict would depend on speed."""
        assert run("print('x' * 30_000)", output_cap=10_000).killed_for == "output"
        assert run("print('x' * 9_000)", output_cap=10_000).killed_for is None

    def test_memory_of_one_process(self, run: Run) -> None:
        done = run("x = bytearray(1 << 30)", memory_mb=512)
        assert b"MemoryError" in done.stderr
        assert done.returncode == 1

    def test_memory_of_all_processes_together(self, run: Run) -> None:
        script = """
            import os, time
            for _ in range(4):
                if not os.fork():
                    x = b"x" * (150 << 20)
                    time.sleep(600)
            time.sleep(600)
        """
        assert run(script, memory_mb=400).killed_for == "memory"

    def test_core_and_file_size(self, run: Run) -> None:
        done = run("""
            import json, resource
            print(json.dumps([resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
                              for name in ("CORE", "FSIZE", "AS")]))
        """, memory_mb=1000)  # fmt: skip
        assert told(done) == [[0, 0], [256 << 20] * 2, [1000 << 20] * 2]

    @pytest.mark.parametrize("ends", ["sys.exit()", "time.sleep(600)"], ids=["parent ends", "parent hangs"])
    def test_a_daemon_does_not_survive(self, run: Run, ends: str) -> None:
        """Forked twice, in a session of its own, holding the pipes: it is no child of ours any more."""
        script = f"""
            import os, sys, time
            told, tell = os.pipe()
            if not os.fork():
                os.setsid()
                if not os.fork():
                    print("daemon", flush=True)
                    os.write(tell, b"up")
                    time.sleep(600)
                os._exit(0)
            os.read(told, 2)
            {ends}
        """
        done = run(script, timeout_s=20 if "exit" in ends else 1.5)
        assert done.stdout == b"daemon\n"
        assert done.killed_for == (None if "exit" in ends else "timeout")

    def test_processes_that_keep_starting_others(self, run: Run) -> None:
        """A chain of processes, each started by one that ends at once, is caught between two links."""
        script = """
            import os, time
            if os.fork():
                time.sleep(0.2)
                os._exit(0)
            for _ in range(3000):
                if os.fork():
                    os._exit(0)
                os.setsid()
        """
        assert run(script).returncode == 0


class TestMeasures:
    def test_cpu_of_children_counts(self, run: Run) -> None:
        script = """
            import os, time
            def burn(seconds):
                end = time.process_time() + seconds
                while time.process_time() < end: pass
            if not os.fork():
                burn(0.3)
                os._exit(0)
            os.wait()
            burn(0.2)
        """
        assert 0.4 < run(script).cpu_s < 1.5

    def test_usage_of_a_live_tree(self, sandbox: Sandbox, tree: Path) -> None:
        script = """
            import os, sys, time
            if not os.fork():
                x = b"x" * (50 << 20)
                print("ready", flush=True)
                time.sleep(600)
            for line in sys.stdin:
                end = time.process_time() + 0.1
                while time.process_time() < end: pass
                print("burnt", flush=True)
        """
        with sandbox.start(["python", "-c", textwrap.dedent(script)], tree=tree) as running:
            assert running.stdout.read(6) == b"ready\n"
            before = running.usage()
            assert before.rss_mb > 50.0
            running.stdin.write(b"go\n")
            assert running.stdout.read(6) == b"burnt\n"
            burnt = running.usage().cpu_s - before.cpu_s
            assert 0.1 <= burnt < 0.5
            # A process asleep uses nothing: the clock is its own, and steady to the nanosecond.
            assert running.usage().cpu_s - before.cpu_s == pytest.approx(burnt, abs=0.005)
        done = running.close()
        assert done.cpu_s >= before.cpu_s
        assert done.max_rss_mb >= before.rss_mb
        assert running.usage().cpu_s == done.cpu_s

    def test_usage_is_cheap(self, confining: Sandbox, tree: Path) -> None:
        """It stands around every answer that is measured. The quickest of many, as others use the machine."""
        with confining.start(["python", "-c", "print('on', flush=True); input()"], tree=tree) as running:
            running.stdout.read(2)
            assert min(timeit.repeat(running.usage, number=10, repeat=50)) / 10 < 200e-6


class TestRunning:
    def test_conversation_and_stderr_flood(self, sandbox: Sandbox, tree: Path) -> None:
        """Standard error is drained between answers: a megabyte of it would block the process otherwise."""
        script = """
            import sys
            for line in sys.stdin:
                print("e" * 300_000, file=sys.stderr)
                print(line.upper(), end="", flush=True)
        """
        with sandbox.start(["python", "-c", textwrap.dedent(script)], tree=tree) as running:
            for _ in range(3):
                running.stdin.write(b"hello\n")
                assert running.stdout.read(6) == b"HELLO\n"
            running.stdin.close()
            assert running.exit_code(10.0) == 0
        done = running.close()
        assert (done.returncode, done.killed_for, len(done.stderr)) == (0, None, 65_536)
        assert running.stderr_tail() == done.stderr

    def test_kill_gives_the_first_reason(self, sandbox: Sandbox, tree: Path) -> None:
        running = sandbox.start(["python", "-c", "input()"], tree=tree)
        assert running.exit_code(0.0) is None
        running.kill("bored")
        running.kill("again")
        done = running.close()
        assert (done.returncode, done.killed_for) == (137, "bored")
        assert running.close() is done

    def test_a_block_that_fails_ends_the_process(self, sandbox: Sandbox, tree: Path, clean: str) -> None:
        env = {"QIGHEAL_TEST": clean.partition("=")[2]}
        running = sandbox.start(["python", "-c", "print('on', flush=True); input()"], tree=tree, env=env)

        def fail() -> None:
            with running:
                running.stdout.read(2)
                assert marked(clean)
                raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            fail()
        assert not marked(clean)

    def test_a_killed_healer_takes_its_processes_along(
        self, confining: Sandbox, tree: Path, clean: str
    ) -> None:
        script = """
            import sys
            from pathlib import Path
            from qigheal.sandbox import Sandbox
            env = {"QIGHEAL_TEST": sys.argv[2]}
            command = ["python", "-c", "import time; print('on', flush=True); time.sleep(600)"]
            running = Sandbox().start(command, tree=Path(sys.argv[1]), env=env)
            running.stdout.read(2)
            print("started", flush=True)
            sys.stdin.read()
        """
        healer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tree), clean.partition("=")[2]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with healer:
            assert healer.stdout is not None
            assert healer.stdout.readline() == b"started\n"
            inside = [pid for pid in marked(clean) if "sleep" in Path(f"/proc/{pid}/cmdline").read_text()]
            ends = {pid: os.pidfd_open(pid) for pid in inside}
            assert ends
            healer.send_signal(signal.SIGKILL)
            for pid, end in ends.items():
                waiting = select.poll()
                waiting.register(end, select.POLLIN)
                assert waiting.poll(10_000), f"{pid} outlived its healer"
                os.close(end)


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
    @pytest.mark.parametrize("level", ["partial", "", "NONE", None])
    def test_unknown_level(self, level: Any) -> None:
        with pytest.raises(SandboxError, match="expected 'auto', 'namespaces' or 'none', got"):
            Sandbox(level)

    @pytest.mark.parametrize("level", ["auto", "namespaces"])
    def test_without_bubblewrap(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: Level) -> None:
        for tool in ("setpriv", "prlimit"):
            found = shutil.which(tool)
            assert found is not None
            (tmp_path / tool).symlink_to(found)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SandboxError, match=r"bwrap not on PATH; install bubblewrap.*sandbox='none'"):
            Sandbox(level)

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
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, complaint: str
    ) -> None:
        fake = tmp_path / "bin" / "bwrap"
        fake.parent.mkdir()
        fake.write_text(text)
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
        with pytest.raises(SandboxError, match=f"{complaint}.*sandbox='none'"):
            Sandbox("auto")

    def test_auto_is_the_full_isolation(self, confining: Sandbox) -> None:
        assert confining.level == "namespaces"
        assert "bubblewrap" in confining.note


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


@pytest.mark.parametrize("level", ["namespaces", "none"])
def test_as_an_ordinary_user(
    request: pytest.FixtureRequest, tmp_path: Path, level: Level, clean: str
) -> None:
    if level == "namespaces":
        request.getfixturevalue("confining")
    folder = tmp_path / "user"
    found = json.loads(run_as_ordinary_user(AS_USER, folder, str(folder), level, clean.partition("=")[2]))
    assert found["healer"] != 0
    assert found["level"] == level
    assert found["inside"]["prefix"] == sys.prefix, found
    assert found["killed"] == [None, "output", "timeout"]
    assert (found["kept"], found["left"], found["folders"]) == ("kept", [], ["script.py", "tree"])
    if level == "namespaces":
        assert (found["inside"]["uid"], found["inside"]["wrote"], found["inside"]["devices"]) == (
            65534,
            False,
            1,
        )
