"""Several processes on one store: killed, forked, unprivileged, written while read."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qigcore.history import History

from .stores import append, counted, file_of

PREAMBLE = """
import os, sys
import numpy as np
from qigcore.errors import HistoryError
from qigcore.history import History
from qigcore.rows import HEAD

def rows(count, start):
    heads = np.zeros(count, HEAD)
    heads["timestamp"] = heads["phi"] = start + np.arange(count)
    heads["code"] = 1
    return heads, np.full((count, 3), 0.5), ("", f"code {start}")

def say(text):
    os.write(1, f"{text}\\n".encode())

def counted():
    return [int(phi) for batch in history.scan() for phi in batch.phi]

path, total = sys.argv[1], 0
history = History(path, dim=3, precision="exact", durability=(sys.argv[2:] or ["block"])[0])
"""

ENDLESS = """
rng = np.random.default_rng(int(sys.argv[3]))
while True:
    count = int(rng.choice([1, 2, 30, 200, 700], p=[0.5, 0.2, 0.2, 0.05, 0.05]))
    history.append_rows(*rows(count, total))
    total += count
    say(total)
"""


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def output_of(script: str, *arguments: object) -> list[str]:
    with running(script, *arguments) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.split()


def acknowledged(process: subprocess.Popen[str], least: int) -> int:
    """Read what the writer has acknowledged until it is at least so much."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= least:
            return int(line)
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("durability", ["block", "snapshot"])
def test_a_killed_writer_loses_nothing_that_append_returned_for(path: Path, durability: str) -> None:
    for turn in range(6):
        store = path / str(turn)
        with running(ENDLESS, store, durability, turn) as process:
            least = acknowledged(process, (1, 3, 150, 400, 900, 2500)[turn])
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate()
        least = max([least, *map(int, rest.split()[:-1])])
        reader = History.read_only(store)
        found = counted(reader.scan())
        assert found == list(range(len(found)))
        assert len(found) >= least
        assert reader.damage.missing_rows == reader.damage.bad_blocks == reader.damage.bad_rows == 0
        assert not reader.segments()[0].alive
        assert {name for batch in reader.scan() for name in batch.code_hash[batch.phi == 0]} == {"code 0"}


def test_readers_beside_living_writers_miss_nothing_and_repeat_nothing(path: Path) -> None:
    """One follows, one scans, one asks for the end, while two processes write, seal and begin anew."""
    script = """
    step = int(sys.argv[3])
    rng = np.random.default_rng(step)
    say("ready")
    for turn in range(400):
        count = int(rng.choice([1, 20, 120], p=[0.6, 0.3, 0.1]))
        heads, basins, names = rows(count, total)
        heads["phi"] += 1_000_000 * step
        history.append_rows(heads, basins, names)
        total += count
        if turn % 50 == 49:
            history.close()
            history = History(path, dim=3, precision="exact")
    history.close()
    say(total)
    """.replace("\n    ", "\n")
    path.mkdir()
    reader = History(path, dim=3)
    over = threading.Event()
    followed: list[int] = []

    def follow() -> None:
        followed.extend(counted(reader.follow(poll_s=0.001, stop=over.is_set)))

    thread = threading.Thread(target=follow)
    thread.start()
    scans = 0
    try:
        with running(script, path, "block", 1) as one, running(script, path, "block", 2) as two:
            while one.poll() is None or two.poll() is None:
                found = counted(reader.scan())
                for step in (1, 2):
                    mine = [row - 1_000_000 * step for row in found if row // 1_000_000 == step]
                    assert mine == list(range(len(mine)))
                assert not reader.damage
                end = counted([reader.last(40)])
                assert len(end) == len(set(end)) >= min(40, len(found))
                scans += 1
            written = [int(process.communicate()[0].split()[-1]) for process in (one, two)]
    finally:
        over.set()
        thread.join(60)
    assert scans > 5
    for step, total in zip((1, 2), written, strict=True):
        assert [row - 1_000_000 * step for row in followed if row // 1_000_000 == step] == list(range(total))
    assert len(followed) == sum(written) == len(counted(reader.scan()))
    assert not list(path.glob("*.journal"))


def test_a_forked_child_writes_a_segment_of_its_own(path: Path) -> None:
    script = """
history.append_rows(*rows(10, 0))
if (child := os.fork()) == 0:
    history.append_rows(*rows(5, 100))
    assert len(history.segments()) == 2
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
history.append_rows(*rows(5, 10))
if os.fork() == 0:
    history.close()  # what the parent has pending is not the child's to seal
    os._exit(0)
os.wait()
history.append_rows(*rows(2, 15))
say(",".join(map(str, counted())))
say(sum(1 for info in history.segments() if info.alive))
history.close()
"""
    found, alive = output_of(script, path)
    assert [int(row) for row in found.split(",")] == [*range(17), *range(100, 105)]
    assert alive == "1"
    assert sorted(info.rows for info in History.read_only(path).segments()) == [5, 17]
    assert len({info.pid for info in History.read_only(path).segments()}) == 2


def test_a_child_that_outlives_its_parent_does_not_keep_it_alive(path: Path) -> None:
    script = """
history.append_rows(*rows(1, 0))
if os.fork() == 0:
    say("child")
    os.read(0, 1)
os._exit(0)
"""
    with running(script, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "child\n"
        process.wait(60)
        assert not History.read_only(path).segments()[0].alive
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout.read() == ""  # the child has ended too


def test_a_fork_while_another_thread_writes_does_not_hang_the_child(path: Path) -> None:
    script = """
import threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the fork beside a thread is the point
held, release = threading.Event(), threading.Event()
write = os.write
def slow(descriptor, data):
    if threading.current_thread() is not threading.main_thread():
        held.set()
        release.wait()
    return write(descriptor, data)
os.write = slow
thread = threading.Thread(target=lambda: history.append_rows(*rows(3, 0)))
thread.start()
held.wait()
if (child := os.fork()) == 0:
    history.append_rows(*rows(2, 50))
    os._exit(0)
_, status = os.waitpid(child, 0)
release.set()
thread.join()
say(status)
say(",".join(map(str, counted())))
"""
    assert output_of(script, path) == ["0", "0,1,2,50,51"]


def test_a_full_file_system_leaves_no_half_row(path: Path) -> None:
    """A limit on the size of files cuts writes short like a disk that fills up, in the middle of a row."""
    script = """
import resource
stored = []
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for turn in range(40):
    resource.setrlimit(resource.RLIMIT_FSIZE, (97 * turn + 50, most))
    try:
        history.append_rows(*rows(turn % 7 + 1, 100 * turn))
        stored += range(100 * turn, 100 * turn + turn % 7 + 1)
    except HistoryError as error:
        assert "File too large" in str(error), error
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert counted() == stored and not history.damage, history.damage
history.append_rows(*rows(300, 5000))
assert counted() == stored + [*range(5000, 5300)]
history.close()
assert counted() == stored + [*range(5000, 5300)]
say(len(stored))
"""
    (stored,) = output_of(script, path)
    assert 5 < int(stored) < 150
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.getrlimit(resource.RLIMIT_FSIZE)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_a_folder_that_may_not_be_written_can_still_be_read() -> None:
    script = """
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
assert counted() == [0, 1, 2], counted()
try:
    history.append_rows(*rows(1, 3))
except HistoryError as error:
    say(str(error).replace(" ", "_"))
say("refused")
sys.stdin.readline()
history.append_rows(*rows(1, 3))
say(len(counted()))
"""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        store = folder / "store"
        with History(store, dim=3) as history:
            append(history, 3)
        store.chmod(0o755)
        file_of(store, ".qigh").chmod(0o644)
        command = [sys.executable, "-c", PREAMBLE + script, str(store)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            said = process.stdout.readline()
            assert "Permission_denied;_1_rows_were_not_stored;_let_this_user_write" in said
            assert process.stdout.readline() == "refused\n"
            store.chmod(0o777)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "4\n"
    finally:
        shutil.rmtree(folder)


def test_importing_the_history_starts_nothing_and_loads_no_compiler() -> None:
    script = "import sys, threading, qigcore.history; print('numba' in sys.modules, threading.active_count())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
