from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qigheal.healerchild import LOCK, LOG, LONGEST_S, STEADY_S, Pauses, reason
from qigheal.integrations.web.healer import MOST_LOG_BYTES, Healer
from tests.hosts.serving import until
from tests.test_inherited import SECRETS

HEALER = """
import fcntl, json, os, sys, time
from pathlib import Path
store = Path(sys.argv[1])
handle = int(os.environ["QIGHEAL_HEALER_LOCK"])
same = os.path.samestat(os.fstat(handle), (store / "healer.lock").stat())
time.sleep(0.05)
said = {
    "same": same, "pid": os.getpid(), "args": sys.argv[2:],
    "tokens": [name for name in os.environ if "TOKEN" in name or "SMTP" in name or "ALERT" in name],
}
(store / "said.tmp").write_text(json.dumps(said))
(store / "said.tmp").rename(store / f"said.{os.getpid()}")
if (store / "fail").exists():
    print("qigheal: no such extra", flush=True)
    sys.exit(7)
time.sleep(600)
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Healer]]:
    healers: list[Healer] = []
    yield healers
    for healer in healers:
        healer.close()
    until(lambda: not held(tmp_path), "the end of the healers")


def held(store: Path) -> bool:
    with open(store / LOCK, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def healer(made: list[Healer], store: Path, every_s: float = 300.0) -> Healer:
    command = (sys.executable, "-c", HEALER, str(store))
    made.append(Healer(store, store / "host", every_s, command=command))
    return made[-1]


def said(store: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in store.glob("said.[0-9]*")]


def test_one_for_all_workers_with_the_lock_and_without_tokens(
    made: list[Healer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    one, other = healer(made, tmp_path), healer(made, tmp_path)
    for _ in range(3):
        one.look()
        other.look()
    until(lambda: said(tmp_path), "a healer")
    (child,) = said(tmp_path)
    assert child["same"]
    assert child["args"] == ["--with-parent", str(os.getpid())]
    assert child["tokens"] == []
    assert held(tmp_path)
    one.close()
    until(lambda: not held(tmp_path), "the end of the healer")
    other.look()
    until(lambda: len(said(tmp_path)) == 2, "another healer")


def test_none_beside_a_sidecar(made: list[Healer], tmp_path: Path) -> None:
    with open(tmp_path / LOCK, "wb") as sidecar:
        fcntl.flock(sidecar, fcntl.LOCK_EX)
        one = healer(made, tmp_path)
        one.look()
        assert one._child is None
        assert one.note == ""
    one.look()
    until(lambda: said(tmp_path), "a healer")


def test_one_that_fails_is_told_of_once_and_not_started_at_once(
    made: list[Healer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fail").touch()
    one = healer(made, tmp_path)
    one.look()
    assert one._child is not None
    one._child.wait()
    one.look()
    one.look()
    assert one.note == f"the healer ended with 7: no such extra; see {tmp_path / LOG}"
    assert len(said(tmp_path)) == 1
    one._not_before = float("-inf")  # the time has come
    one.look()
    assert one.note, "it is not seen yet that this one lives"
    until(lambda: len(said(tmp_path)) == 2, "another try")
    assert one._child is not None
    one._child.wait()
    one.look()
    assert one._not_before - time.monotonic() > 300.0, "twice the first pause"
    assert len([each for each in caplog.messages if "ended with 7" in each]) == 1


def test_one_that_lives_and_cannot_work_is_told_of_once(
    made: list[Healer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LOG).write_text("qigheal: of an earlier one\n")
    one = healer(made, tmp_path)
    one.look()
    until(lambda: said(tmp_path), "a healer")
    monkeypatch.setattr(one._pauses, "steady", lambda: True)
    one.look()
    assert one.note == ""
    with (tmp_path / LOG).open("a") as file:
        file.write("qigheal: no manifest here; trying again every 300s\n")
    for _ in range(2):
        one._next_read = float("-inf")  # the time has come
        one.look()
    assert one.note == "the healer cannot work: no manifest here; trying again every 300s"
    assert caplog.messages == [one.note]
    with (tmp_path / LOG).open("a") as file:
        file.write("healthy: nothing to heal\n")
    one._next_read = float("-inf")
    one.look()
    assert one.note == ""


def test_pauses_double_up_to_an_hour_while_it_cannot_start() -> None:
    now = 0.0
    pauses = Pauses(300.0, clock=lambda: now)
    waits = []
    for _ in range(6):
        pauses.began()
        now += 1.0
        waits.append(pauses.ended())
    assert waits == [300.0, 600.0, 1200.0, 2400.0, LONGEST_S, LONGEST_S]
    pauses.began()
    now += STEADY_S
    assert pauses.steady()
    assert pauses.ended() == 300.0
    assert Pauses(86_400.0).ended() == 86_400.0


def test_the_reason_is_the_last_line_of_this_one_and_no_markup_of_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / LOG
    assert reason(path, 0) == ""
    path.write_text("of an earlier one\n")
    begin = path.stat().st_size
    assert reason(path, begin) == ""
    with path.open("a") as file:
        file.write("first\nqigheal: numba is \x1b[31mmissing\n")
    assert reason(path, begin) == "numba is  [31mmissing"


def test_a_program_that_is_not_there_is_a_note(tmp_path: Path) -> None:
    one = Healer(tmp_path, tmp_path, 300.0, command=("/nowhere/to/be/found",))
    one.look()
    assert one.note.startswith("the healer could not be started: ")
    assert not held(tmp_path)


def test_a_forked_child_does_not_end_it(made: list[Healer], tmp_path: Path) -> None:
    one = healer(made, tmp_path)
    one.look()
    pid = os.fork()
    if pid == 0:
        one.after_fork()
        one.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert held(tmp_path)
    assert one._child is not None
    assert one._child.poll() is None


def test_it_runs_the_command_line_by_the_same_interpreter(tmp_path: Path) -> None:
    command = Healer(tmp_path / "store", Path("/srv/digits"), 300.0)._command
    assert command[:6] == (sys.executable, "-P", "-m", "qigheal", "heal", "/srv/digits")
    assert command[6:] == ("--store", str(tmp_path / "store"), "--every", "300s")


@pytest.mark.parametrize("name", [LOCK, LOG])
def test_a_fifo_in_the_place_of_its_files_is_told_of_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    one = Healer(tmp_path, tmp_path, 300.0, command=(sys.executable, "-c", ""))
    one.look()
    assert one._child is None
    assert "could not be started: " in one.note
    assert "it is a FIFO and no regular file" in one.note
    assert name in one.note
    assert reason(tmp_path / name, 0) == ""


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else\n")
    (tmp_path / LOG).symlink_to("other")
    one = Healer(tmp_path, tmp_path, 300.0, command=(sys.executable, "-c", ""))
    one.look()
    assert one._child is None
    assert LOG in one.note
    assert (tmp_path / "other").read_text() == "of somebody else\n"


def test_a_log_that_is_full_begins_anew(made: list[Healer], tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b"x" * (MOST_LOG_BYTES + 1))
    healer(made, tmp_path).look()
    until(lambda: said(tmp_path), "a healer")
    assert (tmp_path / LOG).stat().st_size == 0
