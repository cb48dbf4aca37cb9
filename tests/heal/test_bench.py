"""The bench, with probes that keep the protocol and probes that do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from qigheal.errors import PatchError, ProbeError, RepoError, SandboxError
from qigheal.healing.bench import LINES_CAP, WARM_UP, Bench
from qigheal.host import Manifest
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.sandbox.processes import marked, queued
from tests.heal.ordinary_user import run_as_ordinary_user

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = {timeout}
protect = ["data/**"]
[tests]
command = ["python", "-m", "unittest", "discover", "-s", "tests"]
[patch]
allow = ["app/*.py"]
"""
PROBE = """
import json, os, sys, time
ANSWER = {"phi": 0.75, "kappa_eff": 64.5, "basin_coords": [1.0, 2.0, 3.0, 4.0]}

def answer(**changes):
    print(json.dumps(ANSWER | changes), flush=True)

"""
GOOD = """
from app.model import LEVEL
for line in sys.stdin:
    asked = json.loads(line)
    answer(batch=asked["batch"], phi=LEVEL, error_rate=asked["seed"] / 2**32, output_digest="same")
"""
TESTS = """
import unittest
from pathlib import Path
from typing import Any, Literal
from app.model import LEVEL

class Test(unittest.TestCase):
    def test_level(self):
        Path("written").write_text("by a test")
        self.assertEqual(LEVEL, 0.75)
"""
WORSE = """\
diff --git a/app/model.py b/app/model.py
--- a/app/model.py
+++ b/app/model.py
@@ -1 +1 @@
-LEVEL = 0.75
+LEVEL = 0.25
"""


@cache
def isolated() -> Sandbox | str:
    try:
        return Sandbox("auto")
    except SandboxError as error:
        return str(error)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class FilesRepo:
    """A repository of one commit, without git."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        self.files = files

    def export(self, commit: str, dest: Path) -> None:
        assert commit == "base"
        for name, text in self.files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_text(text)


class Host:
    """A host whose probe is the common beginning and what the test gives."""

    def __init__(self, folder: Path, workdir: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.workdir = workdir
        self.sandbox = sandbox
        self.timeout = 20.0

    def files(self, probe: str) -> dict[str, str]:
        return {
            "qigheal.toml": MANIFEST.format(timeout=self.timeout),
            "app/__init__.py": "",
            "app/model.py": "LEVEL = 0.75\n",
            "app/probe.py": PROBE + textwrap.dedent(probe),
            "data/requests.txt": "recorded\n",
            "tests/test_model.py": TESTS,
        }

    def bench(self, probe: str = GOOD, **changed: str) -> Bench:
        files = self.files(probe) | changed
        repo: Any = FilesRepo(self.folder, files)
        return Bench(repo, Manifest.parse(files["qigheal.toml"]), self.sandbox, "base", self.workdir)

    def bench_in_git(self) -> Bench:
        self.folder.mkdir()
        git(self.folder, "init", "-q", "-b", "main")
        base = self.commit(self.files(GOOD))
        repo = Repo(self.folder)
        return Bench(repo, Manifest.at(repo, base), self.sandbox, base, self.workdir)

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", "Files")
        return git(self.folder, "rev-parse", "HEAD")


@pytest.fixture(params=["namespaces", "none"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found = Sandbox("none") if request.param == "none" else isolated()
    if isinstance(found, str):
        pytest.skip(found)
    return found


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


def belongs(pid: int, folder: Path) -> bool:
    """Whether a process works below `folder`, by its mounts: tests run side by side."""
    try:
        return str(folder) in Path(f"/proc/{pid}/mountinfo").read_text() + os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


def failing(host: Host, probe: str, questions: int = 1) -> str:
    """What ProbeError says of a probe, which must be dead afterwards."""
    with host.bench(probe) as bench, bench.probe() as running:
        for n in range(questions - 1):
            running.ask(n, n)
        with pytest.raises(ProbeError) as caught:
            running.ask(questions, questions)
        with pytest.raises(ProbeError, match="no longer running"):
            running.ask(99, 99)
        assert str(caught.value).startswith(f"probe asked for batch {questions}: ")
        return str(caught.value)


@pytest.fixture
def one_processor() -> Iterator[None]:
    """This process and what it starts share one processor; skipped where the kernel keeps no count."""
    if not queued():
        pytest.skip("no /proc/thread-self/schedstat on this kernel")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class TestAnswers:
    def test_measures(self, host: Host) -> None:
        with host.bench() as bench, bench.probe() as probe:
            answers = [probe.ask(batch, 2**31 - 1 - batch) for batch in range(3)]
        for batch, answer in enumerate(answers):
            assert (answer.batch, answer.phi, answer.kappa_eff) == (batch, 0.75, 64.5)
            assert answer.basin == (1.0, 2.0, 3.0, 4.0)
            assert answer.error_rate == pytest.approx((2**31 - 1 - batch) / 2**32)
            assert (answer.avg_latency_ms, answer.output_digest) == (0.0, "same")
            assert 0.0 < answer.wall_ms < 10_000.0
            assert 0.0 <= answer.cpu_ms < 10_000.0
            assert 2.0 < answer.rss_mb < 200.0
        assert bench.level == host.sandbox.level

    def test_time_and_cpu_are_the_parents_own(self, host: Host) -> None:
        """A probe that claims to be quick is measured all the same; sleeping costs wall time alone."""
        probe = """
            for line in sys.stdin:
                batch = json.loads(line)["batch"]
                end = time.process_time() + (0.1 if batch == 1 else 0.0)
                while time.process_time() < end: pass
                time.sleep(0.1 if batch == 2 else 0.0)
                answer(avg_latency_ms=0.001)
        """
        with host.bench(probe) as bench, bench.probe() as running:
            running.ask(0, 0)
            burnt, slept = running.ask(1, 0), running.ask(2, 0)
        assert burnt.wall_ms >= 100
        assert 95 <= burnt.cpu_ms < 500
        assert slept.wall_ms >= 100
        assert slept.cpu_ms < 50

    def test_time_that_other_programs_took_is_told_apart(self, host: Host, one_processor: None) -> None:
        """A busy neighbour on the only processor: half of the wall time is not the probe's."""
        probe = host.bench("""
            for line in sys.stdin:
                end = time.thread_time() + 0.1
                while time.thread_time() < end:
                    pass
                answer()
        """)
        busy = [sys.executable, "-c", "while True: pass"]
        with probe, probe.probe() as running:
            alone = running.ask(0, 1)
            with subprocess.Popen(busy) as neighbour:
                try:
                    crowded = [running.ask(batch, 1) for batch in range(1, 5)]
                finally:
                    neighbour.kill()
        assert alone.waited_ms < alone.wall_ms
        assert sum(answer.waited_ms for answer in crowded) > 100
        own = [answer.wall_ms - answer.waited_ms for answer in crowded]
        assert all(90 < time_ms < 200 for time_ms in own), own

    def test_sleeping_and_threads_of_ones_own_are_no_excuse(self, host: Host, one_processor: None) -> None:
        """A patch may not hide its time by sleeping, nor by threads that take each other's processor."""
        probe = host.bench("""
            import hashlib, threading
            def work():
                hashlib.pbkdf2_hmac("sha256", b"x", b"y", 150_000)  # without the interpreter's lock
            for line in sys.stdin:
                if json.loads(line)["batch"] == 0:
                    time.sleep(0.1)
                else:
                    threads = [threading.Thread(target=work) for _ in range(3)]
                    for thread in threads: thread.start()
                    work()
                    for thread in threads: thread.join()
                answer()
        """)
        with probe, probe.probe() as running:
            asleep, threaded = running.ask(0, 1), running.ask(1, 1)
        assert asleep.wall_ms - asleep.waited_ms > 90
        assert threaded.waited_ms == 0.0

    def test_work_done_in_advance_is_not_free(self, host: Host) -> None:
        probe = """
            for n, line in enumerate(sys.stdin):
                answer()
                end = time.process_time() + 0.1
                while time.process_time() < end: pass
                open(os.path.join(os.environ["TMPDIR"], "done"), "w").close()
        """
        with host.bench(probe) as bench, bench.probe() as running:
            running.ask(0, 0)
            assert sum(running.ask(n, 0).cpu_ms for n in (1, 2)) >= 95

    def test_log_between_answers(self, host: Host) -> None:
        probe = """
            print("starting")
            for line in sys.stdin:
                print("thinking ...", flush=True)
                print(repr({"a": "dict"}), [1, 2], "3", "null", sep="\\n")
                print("x" * 100_000, file=sys.stderr)
                answer()
                print("thought", flush=True)
        """
        with host.bench(probe) as bench, bench.probe() as running:
            assert [running.ask(n, n).phi for n in range(4)] == [0.75] * 4
            running.finish()

    def test_an_answer_in_pieces(self, host: Host) -> None:
        probe = """
            for line in sys.stdin:
                for character in json.dumps(ANSWER):
                    sys.stdout.write(character)
                    sys.stdout.flush()
                print(flush=True)
        """
        with host.bench(probe) as bench, bench.probe() as running:
            assert running.ask(1, 1).kappa_eff == 64.5

    def test_phi_is_rounded_into_its_range(self, host: Host) -> None:
        with host.bench("for line in sys.stdin: answer(phi=1 + 1e-12)") as bench, bench.probe() as running:
            assert running.ask(1, 1).phi == 1.0

    def test_an_environment_without_the_healers(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "token")
        probe = "for line in sys.stdin: answer(output_digest=repr(os.environ))"
        with host.bench(probe) as bench, bench.probe() as running:
            assert "SECRET" not in str(running.ask(1, 1).output_digest)


class TestFaults:
    def test_hangs(self, host: Host) -> None:
        host.timeout = 1.5
        told = failing(host, "print('loading', end='', flush=True); time.sleep(600)")
        assert "no answer within 1.5 s (after 'loading')" in told
        assert "timeout_s" in told

    def test_answers_late(self, host: Host) -> None:
        host.timeout = 0.5
        assert "no answer within 0.5 s" in failing(host, "sys.stdin.readline(); time.sleep(1); answer()")

    @pytest.mark.parametrize("end", ["", "sys.exit(0)", "os._exit(0)"])
    def test_exits_with_nothing(self, host: Host, end: str) -> None:
        assert "ended with code 0 instead of answering" in failing(host, end)

    def test_dies_with_its_last_words(self, host: Host) -> None:
        told = failing(
            host, "for line in sys.stdin:\n    answer()\n    raise RuntimeError('the model is gone')", 2
        )
        assert "ended with code 1 instead of answering" in told
        assert "RuntimeError: the model is gone" in told

    def test_is_killed(self, host: Host) -> None:
        assert "ended with code 137" in failing(host, "sys.stdin.readline(); os.kill(os.getpid(), 9)")

    def test_closes_its_output(self, host: Host) -> None:
        """Inside namespaces bubblewrap holds the pipe too, so that only time tells."""
        host.timeout = 1.5
        told = failing(host, "os.close(1); time.sleep(600)")
        assert ("closed its output" if host.sandbox.level == "none" else "no answer within") in told

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_floods(self, host: Host, stream: str) -> None:
        host.timeout = 20.0 if stream == "stdout" else 1.0
        told = failing(host, f"while True: sys.{stream}.write('flood\\n' * 1000)")
        assert (
            f"wrote more than {LINES_CAP} bytes" in told if stream == "stdout" else "no answer within" in told
        )

    def test_one_endless_line(self, host: Host) -> None:
        told = failing(
            host, "sys.stdout.write('{\"phi\": ' + '1' * (1 << 20)); sys.stdout.flush(); time.sleep(600)"
        )
        assert f"wrote more than {LINES_CAP} bytes" in told

    def test_many_answers_are_no_flood(self, host: Host) -> None:
        probe = "for line in sys.stdin: print('x' * 600_000); answer()"
        with host.bench(probe) as bench, bench.probe() as running:
            assert [running.ask(n, n).phi for n in range(4)] == [0.75] * 4

    @pytest.mark.parametrize(
        "line",
        ["""'{"phi": 0.7,'""", """'{"phi": 0.7} trailing'""", """'{"phi": .5}'""", """'{"a": ' * 100_000"""],
    )
    def test_broken_json(self, host: Host, line: str) -> None:
        told = failing(host, f"sys.stdin.readline(); print({line}, flush=True); time.sleep(600)")
        assert "expected a JSON object in one line" in told

    def test_answers_before_the_question(self, host: Host) -> None:
        """The early answer may be taken for the first one; the true one is then one too many."""
        with host.bench("answer()\nfor line in sys.stdin: answer()") as bench:

            def trial() -> None:
                with bench.probe() as running:
                    running.ask(1, 1)
                    running.finish()

            with pytest.raises(ProbeError, match="out of turn"):
                trial()

    def test_answers_twice(self, host: Host) -> None:
        probe = "for line in sys.stdin: print(json.dumps(ANSWER), json.dumps(ANSWER), sep='\\n', flush=True)"
        told = failing(host, probe, 2)
        assert "answered out of turn, without a question" in told

    def test_answers_twice_at_the_end(self, host: Host) -> None:
        probe = "for line in sys.stdin: pass\nanswer()"
        with (
            host.bench("answer() if sys.stdin.readline() else 0\n" + probe) as bench,
            bench.probe() as running,
        ):
            assert running.ask(1, 1).phi == 0.75
            with pytest.raises(ProbeError, match="the end of its input: answered out of turn"):
                running.finish()

    def test_answers_another_question(self, host: Host) -> None:
        told = failing(host, "for line in sys.stdin: answer(batch=json.loads(line)['batch'] + 1)")
        assert "answered out of turn: this is the answer to batch 2" in told

    def test_answers_without_reading(self, host: Host) -> None:
        """What it has not been asked for comes too early, sooner or later."""
        with host.bench("while True: answer()") as bench, bench.probe() as running:

            def trial() -> None:
                for n in range(10_000):
                    running.ask(n, n)

            with pytest.raises(ProbeError, match=r"out of turn|more than"):
                trial()

    def test_forks_and_leaves_a_daemon(self, host: Host) -> None:
        """The fixture sees that it is gone."""
        probe = """
            if not os.fork():
                os.setsid()
                if not os.fork():
                    time.sleep(600)
                os._exit(0)
            os.wait()
            for line in sys.stdin: answer()
        """
        with host.bench(probe) as bench, bench.probe() as running:
            assert running.ask(1, 1).phi == 0.75

    def test_takes_all_memory(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qigheal.healing.bench.MEMORY_MB", 300)
        probe = """
            for _ in range(3):
                if not os.fork():
                    hold = b"x" * (150 << 20)
                    time.sleep(600)
            time.sleep(600)
        """
        assert "expected at most 300 MB of memory, got" in failing(host, probe)

    def test_does_not_end(self, host: Host) -> None:
        host.timeout = 1.5
        probe = "for line in sys.stdin: answer()\ntime.sleep(600)"
        with host.bench(probe) as bench, bench.probe() as running:
            running.ask(1, 1)
            with pytest.raises(ProbeError, match="end of its input: no answer within"):
                running.finish()

    def test_writes_into_the_tree(self, host: Host) -> None:
        probe = """
            try:
                open("app/model.py", "w").write("LEVEL = 1.0")
                wrote = True
            except OSError:
                wrote = False
            for line in sys.stdin: answer(output_digest=str(wrote))
        """
        with host.bench(probe) as bench:
            before = {p: p.read_bytes() for p in bench.tree().rglob("*") if p.is_file()}
            with bench.probe() as running:
                assert running.ask(1, 1).output_digest == str(bench.level == "none")
            assert {p: p.read_bytes() for p in bench.tree().rglob("*") if p.is_file()} == before

    def test_reads_the_network(self, host: Host) -> None:
        if host.sandbox.level == "none":
            pytest.skip("level none does not keep the network away, and says so")
        probe = """
            import socket
            try:
                socket.create_connection(("192.0.2.1", 80), 5)
            except OSError as error:
                for line in sys.stdin: answer(output_digest=str(error))
        """
        with host.bench(probe) as bench, bench.probe() as running:
            assert "Network is unreachable" in str(running.ask(1, 1).output_digest)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ("phi=math.nan", "phi: expected a number from"),
        ("phi=1.5", "phi: expected a number from"),
        ("phi=True", "got True"),
        ("phi='0.7'", "got '0.7'"),
        ("phi=None", "got None"),
        ("kappa_eff=math.inf", "kappa_eff: expected a number"),
        ("kappa_eff=10**400", "kappa_eff: expected a number"),
        ("kappa_eff=[1]", "kappa_eff: expected a number"),
        ("error_rate=2", "error_rate: expected a number from 0 to 1, got 2"),
        ("avg_latency_ms=-1", "avg_latency_ms: expected a number from 0 to"),
        ("basin_coords=[1.0, 2.0, math.nan, 4.0]", "basin_coords: expected finite numbers"),
        ("basin_coords=[1.0, 2.0, 3.0, '4']", "basin_coords: expected finite numbers"),
        ("basin_coords=[1.0, 2.0, True, 4.0]", "basin_coords: expected finite numbers"),
        ("basin_coords=[1.0, 2.0, None, 4.0]", "basin_coords: expected finite numbers"),
        ("basin_coords=[0.0] * 4", "not all 0"),
        ("basin_coords=[1.0] * 5", "expected 4 numbers as before, got 5"),
        ("basin_coords=[1.0]", "expected a list of at least 2 numbers"),
        ("basin_coords={'0': 1.0}", "expected a list of at least 2 numbers"),
        ("output_digest=5", "output_digest: expected text, got 5"),
        ("batch='2'", "out of turn"),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, changes: str, complaint: str) -> None:
    host = Host(tmp_path / "host", tmp_path, Sandbox("none"))
    probe = f"import math\nanswer() if sys.stdin.readline() else 0\nfor line in sys.stdin: answer(**dict({changes}))"
    assert complaint in failing(host, probe, 2)


@pytest.mark.parametrize("name", ["phi", "kappa_eff", "basin_coords"])
def test_values_that_are_missing(tmp_path: Path, name: str) -> None:
    host = Host(tmp_path / "host", tmp_path, Sandbox("none"))
    told = failing(host, f"del ANSWER[{name!r}]\nfor line in sys.stdin: answer()")
    assert f"{name}: expected" in told


class TestTrees:
    def test_a_diff_and_a_commit(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            worse = host.commit({"app/model.py": "LEVEL = 0.5\n"})
            for name, phi in ((None, 0.75), (WORSE, 0.25), (worse, 0.5), ("main", 0.5)):
                with bench.probe(name) as probe:
                    assert probe.ask(1, 1).phi == phi
                assert bench.tree(name) == bench.tree(name)

    def test_is_readable_for_others_whatever_the_umask(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            before = os.umask(0o077)
            try:
                bench.tree(WORSE)
            finally:
                os.umask(before)
            with bench.probe(WORSE) as probe:
                assert probe.ask(1, 1).phi == 0.25

    def test_a_tree_does_not_bring_what_measures_it(self, host: Host) -> None:
        """Also where a commit removed or added some of it."""
        with host.bench_in_git() as bench:
            (host.folder / "tests" / "test_model.py").unlink()
            changed = host.commit(
                {
                    "qigheal.toml": "[probe]\ncommand = ['true']\n",
                    "app/probe.py": "print('mine')\n",
                    "data/requests.txt": "easier\n",
                    "data/more.txt": "easier still\n",
                    "sitecustomize.py": "import sys\n",
                    "app/other.py": "kept = True\n",
                    "app/model.py": "LEVEL = 0.5\n",
                }
            )
            base, tree = bench.tree(), bench.tree(changed)
            names = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
            assert names == {p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()} | {
                "app/other.py"
            }
            for name in ("qigheal.toml", "app/probe.py", "data/requests.txt", "tests/test_model.py"):
                assert (tree / name).read_bytes() == (base / name).read_bytes()
            assert (tree / "app/model.py").read_text() == "LEVEL = 0.5\n"

    def test_what_names_no_tree(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            with pytest.raises(PatchError):
                bench.tree(WORSE.replace("0.75", "0.9"))
            with pytest.raises(RepoError):
                bench.tree("no-such-branch")


class TestTests:
    def test_pass_and_fail_on_a_copy(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            good, bad = bench.run_tests(), bench.run_tests(WORSE)
            assert good is not None
            assert bad is not None
            assert (good.returncode, bad.returncode) == (0, 1), good.stderr
            assert b"0.25 != 0.75" in bad.stderr
            assert not (bench.tree() / "written").exists()

    def test_a_host_without_tests(self, host: Host) -> None:
        manifest = '[probe]\ncommand = ["python", "-m", "app.probe"]\n'
        with host.bench(**{"qigheal.toml": manifest}) as bench:
            assert bench.run_tests() is None

    def test_that_run_for_too_long(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qigheal.healing.bench.TESTS_TIMEOUT_S", 0.5)
        with host.bench(**{"tests/test_model.py": "import time; time.sleep(600)\n"}) as bench:
            done = bench.run_tests()
            assert done is not None
            assert done.killed_for == "timeout"


class TestRequests:
    @pytest.fixture
    def bench(self, host: Host) -> Iterator[Bench]:
        with host.bench_in_git() as bench:
            yield bench

    def test_sets_are_disjoint_and_the_same_each_time(self, bench: Bench) -> None:
        search, trial = bench.search_requests(500), bench.trial_requests(500)
        assert not {batch for batch, _ in search} & {batch for batch, _ in trial}
        assert len({batch for batch, _ in search + trial}) == 1000
        assert len({seed for _, seed in search + trial}) == 1000
        assert all(0 <= seed < 2**31 for _, seed in search + trial)
        assert search == bench.search_requests(500)
        assert bench.search_requests(400, start=100) == search[100:]
        assert bench.trial_requests(400, start=100) == trial[100:]

    def test_batches_are_the_first_search_requests(self, bench: Bench) -> None:
        answers = bench.batches(WORSE, 5)
        assert [(answer.batch, answer.phi) for answer in answers] == [
            (b, 0.25) for b, _ in bench.search_requests(5)
        ]
        seeds = [round(answer.error_rate * 2**32) for answer in answers]
        assert seeds == [seed for _, seed in bench.search_requests(5)]

    def test_batches_leave_out_the_start(self, host: Host) -> None:
        probe = f"""
            for n, line in enumerate(sys.stdin):
                time.sleep(0.4 if n < {WARM_UP} else 0)
                answer()
        """
        with host.bench(probe) as bench:
            assert max(answer.wall_ms for answer in bench.batches(None, 3)) < 400


def test_another_interpreter(host: Host) -> None:
    other = shutil.which("python3", path="/usr/bin")
    if other is None:
        pytest.skip("there is only one Python here")
    probe = "for line in sys.stdin: answer(output_digest=sys.prefix)"
    manifest = MANIFEST.format(timeout=20).replace("[tests]", f'interpreter = "{other}"\n[tests]')
    with host.bench(probe, **{"qigheal.toml": manifest}) as bench, bench.probe() as running:
        assert running.ask(1, 1).output_digest == "/usr"


AS_USER = """
import json, os, sys
from pathlib import Path
from qigheal.errors import ProbeError
from qigheal.healing.bench import Bench
from qigheal.host import Manifest
from qigheal.sandbox import Sandbox

class FilesRepo:
    root = Path("/")
    def export(self, commit, dest):
        for name, text in files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_text(text)

files = json.loads(sys.argv[2])
os.mkdir("work")
told = []
with Bench(FilesRepo(), Manifest.parse(files["qigheal.toml"]), Sandbox(sys.argv[1]), "base", Path("work")) as bench:
    with bench.probe() as probe:
        told.append(probe.ask(1, 1).phi)
        try:
            probe.ask(2, 2)
        except ProbeError as error:
            told.append(str(error))
    told.append(bench.run_tests().returncode)
print(json.dumps([os.getuid(), bench.level, told, os.listdir("work")]))
"""


@pytest.mark.parametrize("level", ["namespaces", "none"])
def test_as_an_ordinary_user(tmp_path: Path, level: Literal["namespaces", "none"]) -> None:
    if level == "namespaces" and isinstance(missing := isolated(), str):
        pytest.skip(missing)
    host = Host(tmp_path, tmp_path, Sandbox("none"))
    host.timeout = 1.5
    files = host.files("sys.stdin.readline()\nanswer()\ntime.sleep(600)")
    folder = tmp_path / "user"
    script = f"import os; os.chdir({str(folder)!r})\n{AS_USER}"
    user, used, told, left = json.loads(run_as_ordinary_user(script, folder, level, json.dumps(files)))
    assert user != 0
    assert (used, left) == (level, [])
    assert told[0] == 0.75
    assert "no answer within 1.5 s" in told[1]
    assert told[2] == 0


def test_close_removes_only_its_own(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", tmp_path, Sandbox("none"))
    (tmp_path / "other").write_text("kept")
    with host.bench() as bench:
        place = bench.tree()
        assert place.is_dir()
    assert not place.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]
