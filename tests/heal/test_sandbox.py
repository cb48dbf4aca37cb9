"""The sandbox, with real processes that try what a bad probe would."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import timeit
from pathlib import Path
from typing import Literal

import pytest

from qigheal.errors import SandboxError
from qigheal.sandbox import Sandbox
from qigheal.sandbox.processes import descendants, marked, newest
from tests.heal.isolated import Run, told

Level = Literal["namespaces", "none"]
pytestmark = pytest.mark.usefixtures("clean")


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

    def test_memory_of_the_machine(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever took it and however it is counted: the sandbox ends before the machine does."""
        monkeypatch.setattr("qigheal.sandbox.processes.LEAST_AVAILABLE", 1.01)
        done = run("import time; time.sleep(600)")
        assert (done.killed_for, done.returncode) == ("memory", 137)
        assert done.wall_s < 10.0

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

    def test_processes_that_keep_starting_others(self, run: Run, clean: str) -> None:
        """A chain of processes, each started by one that ends at once, is caught between two links."""
        script = """
            import os, time
            if os.fork():
                time.sleep(0.2)
                os._exit(0)
            for _ in range(200_000):
                if os.fork():
                    os._exit(0)
                os.setsid()
        """
        assert run(script).returncode == 0
        assert not newest(clean, 0.2)


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

    @pytest.mark.parametrize("level", ["namespaces", "partial"])
    def test_a_killed_healer_takes_its_processes_along(
        self, request: pytest.FixtureRequest, level: str, tree: Path, tmp_path: Path, clean: str
    ) -> None:
        request.getfixturevalue("confining" if level == "namespaces" else "partly")
        script = """
            import sys
            from pathlib import Path
            from qigheal.sandbox import Sandbox
            env = {"QIGHEAL_TEST": sys.argv[2]}
            inside = "import os, time; os.fork() or os.setsid(); print('on', flush=True); time.sleep(600)"
            command = ["python", "-c", inside]
            running = Sandbox(sys.argv[3]).start(command, tree=Path(sys.argv[1]), env=env)
            for _ in range(6):
                running.stdout.read(1)
            print("started", flush=True)
            sys.stdin.read()
        """
        healer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tree), clean.partition("=")[2], level],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "temporary")},
        )
        with healer:
            assert healer.stdout is not None
            assert healer.stdout.readline() == b"started\n"
            inside = [pid for pid in marked(clean) if "sleep" in Path(f"/proc/{pid}/cmdline").read_text()]
            # The launcher goes last, when it has cleaned up.
            below = [pid for pid in descendants(healer.pid) if pid != healer.pid]
            ends = {pid: os.pidfd_open(pid) for pid in {*inside, *below}}
            assert len(inside) >= 2
            healer.send_signal(signal.SIGKILL)
            for pid, end in ends.items():
                waiting = select.poll()
                waiting.register(end, select.POLLIN)
                assert waiting.poll(10_000), f"{pid} outlived its healer"
                os.close(end)
