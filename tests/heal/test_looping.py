"""`heal --every`: one loop a store, what fails is said once, and it ends with whoever started it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qigheal.errors import EngineError, RepoError
from qigheal.healerchild import HELD, LOCK
from qigheal.healing import looping
from qigheal.healing.looping import lock, loop
from qigheal.records import HealResult
from tests.heal.toyhost import ToyHost

MAIN = "from qigheal.cli import main; main()"
PATIENCE_S = 120.0


class Enough(BaseException):
    """Ends a loop, as SystemExit does."""


def fine(message: str = "healthy") -> Callable[[], HealResult]:
    return lambda: HealResult(triggered=False, message=message)


def run(
    passes: list[Callable[[], HealResult]], store: Path, between: Callable[[int], object] = lambda _: None
) -> tuple[list[str], list[str], list[float]]:
    """(Messages of the passes that went well, sentences of those that failed, waits)."""
    told: list[str] = []
    failed: list[str] = []
    waits: list[float] = []
    left = iter(passes)

    def one_pass() -> HealResult:
        return next(left)()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        between(len(waits))
        if len(waits) >= len(passes):
            raise Enough

    with pytest.raises(Enough):
        loop(
            one_pass,
            store,
            300.0,
            told=lambda result: told.append(result.message),
            failed=failed.append,
            wait=wait,
        )
    return told, failed, waits


def raising(error: Exception) -> Callable[[], HealResult]:
    def one_pass() -> HealResult:
        raise error

    return one_pass


def test_a_pass_at_once_and_then_every_so_often(tmp_path: Path) -> None:
    told, failed, waits = run([fine("one"), fine("two")], tmp_path)
    assert (told, failed, waits) == (["one", "two"], [], [300.0, 300.0])


def test_what_fails_is_said_once_until_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = RepoError("process 7 holds it")
    passes = [raising(held), raising(held), raising(OSError("disk full")), fine(), raising(held)]
    told, failed, _ = run([*passes, raising(ZeroDivisionError("a mistake"))], tmp_path)
    assert told == ["healthy"]
    assert failed == [
        "process 7 holds it",
        "disk full",
        "process 7 holds it",
        "ZeroDivisionError: a mistake",
    ]
    assert "mistake in qigheal" in caplog.text


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    store = tmp_path / "store"
    told, failed, _ = run([fine("a"), fine("b"), fine("c")], store, lambda n: n == 2 and store.mkdir())
    assert told == ["a"]  # the first two rounds found no store
    assert len(failed) == 1
    assert "no store here yet" in failed[0]


def test_a_store_that_vanishes_is_waited_for_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()

    def between(turn: int) -> None:
        if turn == 1:
            shutil.rmtree(store)
        elif turn == 3:
            assert not store.exists()
            store.mkdir()

    told, failed, _ = run([fine("a"), fine("b"), fine("c"), fine("d")], store, between)
    assert told == ["a", "b"]
    assert len(failed) == 1
    assert "no store here yet" in failed[0]


def test_a_second_healer_is_refused_and_told_who_is_at_work(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(EngineError, match=f"process {os.getpid()}"), lock(tmp_path):
        pass
    with lock(tmp_path):  # let go of
        pass


def test_an_error_of_the_lock_ends_the_loop(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="writable"):
        loop(fine(), tmp_path, 1.0, told=lambda _: None, failed=lambda _: None)


def test_a_lock_that_was_handed_down_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    passed = os.dup(handle)
    os.set_inheritable(passed, True)
    monkeypatch.setenv(HELD, str(passed))
    with lock(tmp_path):
        assert HELD not in os.environ
        assert not os.get_inheritable(passed)
    monkeypatch.setenv(HELD, str(os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)))
    with pytest.raises(EngineError, match="open descriptor"), lock(tmp_path):
        pass
    monkeypatch.setenv(HELD, "seven")
    with pytest.raises(EngineError, match="open descriptor"), lock(tmp_path):
        pass
    os.close(handle)


def test_a_parent_that_has_ended_already(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    looping.end_with(os.getppid() + 1, lambda: ended.append(True))
    assert ended == [True]


@contextlib.contextmanager
def healer(*arguments: str | Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "heal", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyHost:
    host = ToyHost(tmp_path_factory.mktemp("loop"))
    host.learn()
    host.live(1.0, 60, host.healthy)
    return host


def test_one_line_a_pass_and_one_healer_a_store(toy: ToyHost) -> None:
    arguments = (toy.path, "--store", toy.store, "--every", "0.05s", "--json")
    with healer(*arguments) as first:
        assert first.stdout is not None
        lines = [json.loads(first.stdout.readline()) for _ in range(2)]
        for line in lines:  # of a service that wrote long ago
            assert re.fullmatch("healthy when it was last seen, .* ago: nothing to heal", line["message"])
        assert os.getpriority(os.PRIO_PROCESS, first.pid) == min(
            19, os.getpriority(os.PRIO_PROCESS, 0) + looping.NICE
        )
        with healer(*arguments) as second:
            _, said = second.communicate(timeout=PATIENCE_S)
            assert second.returncode == 69
            assert f"another healer (process {first.pid}) works for this store" in said
        first.send_signal(signal.SIGTERM)
        first.stdout.read()
        assert first.wait(PATIENCE_S) == 143


def test_the_lock_of_a_store_that_came_back_is_held_again(toy: ToyHost, tmp_path: Path) -> None:
    store, kept = tmp_path / "store", tmp_path / "kept"
    shutil.copytree(toy.store, store)
    shutil.copytree(toy.store, kept)
    arguments = (toy.path, "--store", store, "--every", "0.2s", "--json")
    with healer(*arguments) as first:
        assert first.stdout is not None
        assert first.stderr is not None
        assert "healthy" in json.loads(first.stdout.readline())["message"]
        store.rename(tmp_path / "removed")  # whole, so that no pass meets half of it
        shutil.rmtree(tmp_path / "removed")
        patience = threading.Timer(PATIENCE_S, first.kill)
        patience.start()
        while "no store here yet" not in (line := first.stderr.readline()):
            assert line, "it ended, or did not see that its store is gone"
        patience.cancel()
        kept.rename(store)
        # What it had said before the store was taken away may lie in the pipe still: its lock says when it is back.
        ended = os.pidfd_open(first.pid)
        with contextlib.closing(open(ended, "rb", buffering=0)) as watched:
            until = time.monotonic() + PATIENCE_S
            while not held_by(store, first.pid):
                assert time.monotonic() < until, "it works without its lock"
                assert not select.select([watched], [], [], 0.05)[0], "it ended"
        with healer(*arguments) as second:
            _, said = second.communicate(timeout=PATIENCE_S)
            assert second.returncode == 69
            assert f"another healer (process {first.pid}) works for this store" in said
        assert first.poll() is None


def held_by(store: Path, pid: int) -> bool:
    """Whether a process has said in the lock's file that it holds it, and does."""
    try:
        with (store / LOCK).open() as file:
            if file.read().strip() != str(pid):
                return False
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        pass
    return False


def test_a_healer_before_its_store_waits_and_ends_at_once(toy: ToyHost, tmp_path: Path) -> None:
    with healer(toy.path, "--store", tmp_path / "later", "--every", "1h") as process:
        assert process.stderr is not None
        assert "no store here yet" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 143
    assert not (tmp_path / "later").exists()


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:], "--with-parent", str(os.getpid())],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
child.stderr.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_it_ends_with_its_parent(toy: ToyHost, tmp_path: Path) -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            MAIN,
            "heal",
            str(toy.path),
            "--store",
            str(tmp_path / "later"),
            "--every",
            "1h",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended = select.poll()
    ended.register(child, select.POLLIN)
    assert ended.poll(PATIENCE_S * 1000), "the healer outlived its parent"
    os.close(child)


@pytest.mark.parametrize("option", [("--apply",), ("--healthy", "HEAD")])
def test_what_a_person_must_watch_is_no_option_of_a_loop(toy: ToyHost, option: tuple[str, ...]) -> None:
    with healer(toy.path, "--store", toy.store, "--every", "5m", *option) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 64
    assert option[0] in said


def test_a_length_of_time_is_asked_for(toy: ToyHost) -> None:
    with healer(toy.path, "--store", toy.store, "--every", "often") as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 64
    assert "expected a length of time" in said
