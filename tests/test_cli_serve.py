"""`qigheal serve`: what it serves, to whom, and that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qigcore.history import History
from qigheal.cli import main, sidecar
from qigheal.errors import EngineError
from qigheal.healing.looping import lock
from tests.heal.toyhost import ToyHost
from tests.test_cli import qigheal

MAIN = [sys.executable, "-c", "from qigheal.cli import main; main()"]
PATIENCE_S = 60.0
SITES = "'self' https://status.example.org"
SECRET = "a-token-that-is-nowhere-shown"  # noqa: S105  # of nothing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = ToyHost(tmp_path_factory.mktemp("toy"))
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    return toy.path.parent


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toy"))


@contextmanager
def living(place: Path) -> Iterator[None]:
    """A process that writes the store, and has recorded one snapshot more."""
    with History(place / "store") as history:
        history.append(history.last(1))
        yield


class Served:
    """A sidecar that has said where it is."""

    def __init__(self, place: Path, *arguments: str, **environment: str) -> None:
        path = os.pathsep.join(path for path in sys.path if path)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QIGHEAL_")}
        self.process = subprocess.Popen(
            [*MAIN, "serve", *arguments, "--store", str(place / "store"), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, "PYTHONPATH": path, **environment},
        )
        assert self.process.stdout is not None
        self.said = ""
        while "  healing  " not in self.said:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            self.said += line
        self.url = self.said.split(" at ", 1)[1].split()[0]

    @property
    def healer(self) -> int:
        return int(self.said.rsplit("process ", 1)[1])

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        asked = urllib.request.Request(self.url + path)  # noqa: S310  # its own address
        if token:
            asked.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, complaints = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, complaints


@pytest.fixture
def serving(place: Path) -> Iterator[list[Served]]:
    made: list[Served] = []
    yield made
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def wait_until_gone(process: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while not gone(process):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_everything_over_a_store_and_a_clean_end(place: Path, serving: list[Served]) -> None:
    served = Served(
        place,
        str(place / "host"),
        *("--heal", "--alerts", "--widget-ancestors", SITES),
        QIGHEAL_READ_TOKEN=SECRET,
    )
    serving.append(served)
    assert SECRET not in served.said
    assert "reading by QIGHEAL_READ_TOKEN" in served.said
    assert "healing off: QIGHEAL_TOKEN is not set" in served.said
    assert "alerts     to log" in served.said
    status, text = served.get("/metrics")
    assert status == 200
    assert "\ngeometric_health_phi_limit 0.7" in text
    assert served.get("/api/self-healing/snapshots")[0] == 401
    status, text = served.get("/api/self-healing/health", SECRET)
    assert (status, json.loads(text)["status"], json.loads(text)["snapshots"]) == (207, "warning", 360)
    assert [each["kind"] for each in json.loads(text)["findings"]] == ["silent"]
    there = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=PATIENCE_S)
    there.request("GET", "/")
    moved = there.getresponse()
    assert moved.headers["location"] == "/api/self-healing/dashboard"
    moved.read()
    for page, framed in (("widget", SITES), ("dashboard", "'none'")):
        there.request("GET", f"/api/self-healing/{page}")
        shown = there.getresponse()
        assert shown.headers["content-security-policy"].endswith(f" frame-ancestors {framed}")
        shown.read()
    there.close()
    healer = served.healer
    assert not gone(healer)
    environment = Path(f"/proc/{healer}/environ").read_bytes()
    assert SECRET.encode() not in environment
    asked = urllib.request.Request(served.url + "/api/self-healing/stream")  # noqa: S310
    asked.add_header("Authorization", f"Bearer {SECRET}")
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as stream:  # noqa: S310
        assert stream.readline()  # somebody looks on while it is ended
        code, complaints = served.end()
    assert code == 0, complaints
    assert "Traceback" not in complaints
    assert SECRET not in complaints
    wait_until_gone(healer)


def test_ctrl_c_and_nothing_enabled(place: Path, serving: list[Served]) -> None:
    served = Served(place)
    serving.append(served)
    for what in ("reading off", "dashboard, off", "both need HOST", "alerts     off", "healing    off"):
        assert what in served.said
    with living(place):
        assert served.get("/api/self-healing/health") == (200, '{"status":"healthy","severity":"normal"}')
    assert served.get("/api/self-healing/snapshots")[0] == 403
    code, complaints = served.end(signal.SIGINT)
    assert (code, complaints) == (0, "")


def test_the_end_of_its_terminal(place: Path, serving: list[Served]) -> None:
    served = Served(place)
    serving.append(served)
    asked = urllib.request.Request(served.url + "/api/self-healing/health")  # noqa: S310  # its own address
    urllib.request.urlopen(asked, timeout=PATIENCE_S).close()  # noqa: S310  # the loop of events runs
    assert served.end(signal.SIGHUP) == (0, "")


def test_a_healer_does_not_outlive_it(place: Path, serving: list[Served]) -> None:
    served = Served(place, str(place / "host"), "--heal")
    serving.append(served)
    healer = served.healer
    served.end(signal.SIGKILL)
    wait_until_gone(healer)


def test_beside_another_healer_it_serves_on(place: Path, serving: list[Served]) -> None:
    with lock(place / "store"):
        served = Served(place, str(place / "host"), "--heal")
        serving.append(served)
        assert "healing    by another healer now" in served.said
        assert served.get("/api/self-healing/health")[0] in (200, 207)  # the service itself may have ended
        code, complaints = served.end()
    assert code == 0
    assert complaints.count("another healer works for this store") == 1


def test_it_heals_when_the_other_healer_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "AGAIN_S", 0.01)
    said: list[str] = []
    healer = sidecar.Healer(tmp_path, tmp_path, "5m", said.append)
    tried = threading.Semaphore(0)
    took = sidecar.taken

    def counted(store: Path) -> int | None:
        tried.release()
        return took(store)

    monkeypatch.setattr(sidecar, "taken", counted)
    healer._argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    with contextlib.ExitStack() as ending:
        with lock(tmp_path):
            ending.enter_context(healer)
            for _ in range(3):
                assert tried.acquire(timeout=PATIENCE_S)
            assert (healer.pid, healer.ended()) == (0, False)
        until = time.monotonic() + PATIENCE_S
        while not healer.pid:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert took(tmp_path) is None
    assert len(said) == 1
    assert "another healer works for this store" in said[0]


@pytest.mark.parametrize(("code", "final"), [(64, True), (69, False)])
def test_only_an_error_of_usage_ends_it_for_good(code: int, final: bool, tmp_path: Path) -> None:
    again = threading.Event()
    healer = sidecar.Healer(tmp_path, tmp_path, "5m", lambda _: again.set())
    healer._argv = [sys.executable, "-c", f"raise SystemExit({code})"]
    with healer:
        until = time.monotonic() + PATIENCE_S
        while not (healer.ended() or again.is_set()):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert (healer.ended(), again.is_set()) == (final, not final)


def test_one_that_cannot_start_is_told_of_once_and_tried_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "AGAIN_S", 0.001)
    said: list[str] = []
    healer = sidecar.Healer(tmp_path, tmp_path, "5m", said.append)
    healer._argv = [sys.executable, "-c", "raise SystemExit(69)"]
    pauses: list[float] = []
    enough = threading.Event()
    wait = healer._stop.wait

    def waited(seconds: float | None = None) -> bool:
        pauses.append(seconds or 0.0)
        if len(pauses) == 4:
            enough.set()
        return wait(seconds)

    monkeypatch.setattr(healer._stop, "wait", waited)
    with healer:
        assert enough.wait(PATIENCE_S)
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
    assert len(said) == 1, said


NO_ADDRESSES = (
    "digits.example.org",
    "ftp://example.org",
    "https://",
    "https://[::1",
    "http://a:b@example.org",
    "https://example.org/?q",
    "https://example.org/a b",
    "https://example.org:0",
    "https://exämple.org",
)


def test_links_of_alerts_lead_to_where_others_reach_it() -> None:
    with sidecar.bound("0.0.0.0", 0) as listening:  # noqa: S104  # nobody is answered
        port = listening.getsockname()[1]
        assert sidecar.reached(listening) == f"http://{socket.gethostname()}:{port}"
    with sidecar.bound("127.0.0.1", 0) as listening:
        assert sidecar.reached(listening) == sidecar.url_of(listening)


@pytest.mark.parametrize("given", ["https://digits.example.org/health/", None])
def test_alerts_are_given_the_public_address(
    given: str | None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[str] = []

    class Watch(contextlib.nullcontext[None]):
        def __init__(self, store: Path, sinks: object, *, dashboard: str) -> None:
            super().__init__()
            links.append(dashboard)

    monkeypatch.setattr("qigheal.alerts.AlertWatch", Watch)
    monkeypatch.setattr(sidecar, "run", lambda *_: None)
    monkeypatch.setattr(sidecar, "end_children", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("QIGHEAL_READ_TOKEN", SECRET)
    more = () if given is None else ("--public-url", given)
    monkeypatch.setattr(
        sys, "argv",
        ["qigheal", "serve", "--store", str(place / "store"), "--port", "0", "--bind", "0.0.0.0", "--alerts", *more],  # noqa: S104
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    host = "https://digits.example.org/health/" if given else f"http://{socket.gethostname()}:"
    assert links[0].startswith(host)
    assert links[0].endswith("/api/self-healing/dashboard")


def test_what_cannot_be_started_is_one_line(place: Path, tmp_path: Path) -> None:
    store = ("--store", place / "store")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, said in (
            ((*store, "--port", port), 69, "--port"),
            ((*store, "--bind", "0.0.0.0"), 64, "QIGHEAL_READ_TOKEN"),  # noqa: S104  # refused
            ((*store, "--bind", "::"), 64, "QIGHEAL_READ_TOKEN"),
            ((*store, "--heal"), 64, "serve HOST --heal"),
            *(((*store, "--public-url", url), 64, "--public-url") for url in NO_ADDRESSES),
            ((*store, "--heal-every", "soon"), 64, "soon"),
            (("--store", "nowhere"), 69, "no store here"),
            ((place / "store", *store), 69, "store"),
        ):
            done = qigheal("serve", *arguments, cwd=tmp_path)
            assert done.returncode == code, (arguments, done.stderr)
            assert done.stdout == ""
            assert len(done.stderr.splitlines()) == 1
            assert said in done.stderr


def test_without_its_extra_it_says_which(place: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['uvicorn'] = None; from qigheal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", "--store", str(place / "store")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 69
    assert "qigheal[serve]" in done.stderr


def test_addresses() -> None:
    assert all(map(sidecar.loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    others = ("0.0.0.0", "::", "192.168.1.1", "example.org", "")  # noqa: S104  # nothing is bound
    assert not any(map(sidecar.loopback, others))
    with sidecar.bound("127.0.0.1", 0) as listening:
        assert sidecar.url_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(EngineError, match="--bind"):
        sidecar.bound("192.0.2.1", 0)  # an address for documents, and nobody's


CHILDREN = """
import os, subprocess, sys
from qigheal.cli.sidecar import end_children
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
first = subprocess.Popen(["sleep", "600"], start_new_session=True)
second = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
second.stdout.readline()
end_children(0.2)
for child in (first, second):
    try:
        os.kill(child.pid, 0)
    except ProcessLookupError:
        print("gone")
"""


def test_jobs_are_ended_with_it_and_killed_when_they_do_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.split() == ["gone", "gone"], done.stderr


def test_a_killed_healer_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "AGAIN_S", 0.01)
    said: list[str] = []
    healer = sidecar.Healer(tmp_path, tmp_path, "5m", said.append)
    healer._argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    with healer:
        first = healer.pid
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + PATIENCE_S
        while healer.pid == first:
            assert time.monotonic() < until
            time.sleep(0.01)
        second = healer.pid
        assert not healer.ended()
    assert gone(first)
    assert gone(second)
    assert "begins again" in said[0]
