"""The bench, with probes that keep the protocol and probes that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qigheal.errors import ProbeError
from qigheal.healing.bench import LINES_CAP
from qigheal.sandbox import Sandbox
from qigheal.sandbox.processes import queued
from tests.heal.probed_host import Host


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

    def test_digests_of_each_request_and_one_of_all_that_follows_from_them(self, host: Host) -> None:
        probe = """
            for line in sys.stdin:
                batch = json.loads(line)["batch"]
                answer(output_digest=None, output_digests=["a", None, "b" * batch])
        """
        with host.bench(probe) as bench, bench.probe() as running:
            answers = [running.ask(batch, 1) for batch in (1, 2, 1)]
        assert [answer.output_digests for answer in answers[:2]] == [("a", None, "b"), ("a", None, "bb")]
        assert answers[0].output_digest == answers[2].output_digest != answers[1].output_digest

    def test_a_digest_that_is_the_text_itself_is_digested(self, host: Host) -> None:
        probe = """
            for line in sys.stdin:
                batch = json.loads(line)["batch"]
                answer(output_digest=["\\ud800" + "x" * batch, "x" * 400_000, "é", "plain"][batch])
        """
        with host.bench(probe) as bench, bench.probe() as running:
            digests = [running.ask(batch, 1).output_digest for batch in range(4)]
        assert digests[3] == "plain"
        assert [len(digest or "") for digest in digests[:3]] == [64, 64, 64]
        assert len(set(digests)) == 4

    @pytest.mark.parametrize("wrong", ["'a'", "[1]", "{'a': 'b'}"])
    def test_digests_of_each_request_that_are_none(self, host: Host, wrong: str) -> None:
        told = failing(host, f"for line in sys.stdin: answer(output_digests={wrong})")
        assert "output_digests: expected a list of texts and nulls" in told

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
        assert ("no answer within" if host.sandbox.level == "namespaces" else "closed its output") in told

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
            answer = str(running.ask(1, 1).output_digest)
        assert ("Address family" if host.sandbox.level == "partial" else "Network is unreachable") in answer


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
