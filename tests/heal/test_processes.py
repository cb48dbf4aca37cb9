"""What a process tree uses, and which processes carry a marker, held against processes that say it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from qigheal.sandbox.processes import available, carries, descendants, end_marked, end_space, marked, usage


def test_available_memory_is_a_part_of_all() -> None:
    assert 0.0 < available() < 1.0


def start(script: str, **env: str) -> subprocess.Popen[bytes]:
    """A Python process that has printed the first line of what it has to say, or is about to."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_usage_is_what_the_process_says() -> None:
    script = """
        import sys, time
        end = time.process_time() + 0.2
        while time.process_time() < end: pass
        with open("/proc/self/statm") as file:
            print(time.process_time(), int(file.read().split()[1]) / 256, flush=True)
        sys.stdin.read()
    """
    with start(script) as process:
        cpu_s, rss_mb = map(float, line(process).split())
        found = usage(process.pid)
        assert found.cpu_s == pytest.approx(cpu_s, abs=0.02)
        assert found.rss_mb == pytest.approx(rss_mb, abs=2.0)
    assert usage(process.pid) == (0.0, 0.0)


def test_usage_keeps_what_ended_children_used() -> None:
    script = """
        import os, sys, time
        if not os.fork():
            end = time.process_time() + 0.2
            while time.process_time() < end: pass
            os._exit(0)
        os.wait()
        print("waited", flush=True)
        sys.stdin.read()
    """
    with start(script) as process:
        assert line(process) == b"waited"
        assert 0.18 <= usage(process.pid).cpu_s < 1.0


def test_descendants_of_every_thread() -> None:
    script = """
        import os, subprocess, sys, threading
        def work():
            child = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
            print(child.pid, flush=True)
            child.wait()
        threading.Thread(target=work, daemon=True).start()
        sys.stdin.read()
        os.system(f"pkill -P {os.getpid()}")
    """
    with start(script, QIGHEAL_TEST="descendants") as process:
        child = int(line(process))
        while len(found := descendants(process.pid)) < 3:
            os.sched_yield()  # the shell is about to start its child
        assert found[0] == process.pid
        assert child in found
        process.kill()
        end_marked("QIGHEAL_TEST=descendants")
    assert descendants(process.pid) == []
    assert not marked("QIGHEAL_TEST=descendants")


def test_threads_that_come_and_go_take_nothing_along() -> None:
    script = """
        import sys, threading
        print("on", flush=True)
        while True:
            threads = [threading.Thread(target=lambda: None) for _ in range(20)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
    """
    with start(script) as process:
        assert line(process) == b"on"
        found = [usage(process.pid).cpu_s for _ in range(500)]
        process.kill()
    assert found == sorted(found)
    assert found[0] > 0.0


def test_a_name_in_comm_that_looks_like_fields() -> None:
    """The command's name stands in brackets in /proc/PID/stat and may hold brackets and spaces itself."""
    script = """
        import sys
        with open("/proc/self/comm", "w") as file:
            file.write("a) R 1 (b")
        print("named", flush=True)
        sys.stdin.read()
    """
    with start(script) as process:
        assert line(process) == b"named"
        assert 2.0 < usage(process.pid).rss_mb < 200.0


def test_marker_is_a_whole_setting() -> None:
    with start("print('on', flush=True); input()", QIGHEAL_TEST_MARK="one") as process:
        assert line(process) == b"on"
        assert carries(process.pid, "QIGHEAL_TEST_MARK=one")
        assert not carries(process.pid, "QIGHEAL_TEST_MARK=on")
        process.kill()


def test_end_space_of_a_process_that_is_gone() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        pidfd = os.pidfd_open(process.pid)
        process.kill()
    end_space(process.pid, pidfd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)
