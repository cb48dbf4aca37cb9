"""The live stream: what comes is told, slow clients are dropped, and it ends when it is to end."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import numpy as np
import pytest

from qigcore.history import History
from qigheal import GeometricHealthMonitor
from qigheal.api import Access, Api
from qigheal.api import stream as module
from qigheal.api.exchange import Refused
from qigheal.api.records import Glance
from qigheal.api.stream import Client, Stream
from qigheal.integrations.flask_routes import blueprint
from tests.web.serving import FRAMEWORKS, READ, REVIEW
from tests.web.stores import DIM, append, judge, ledger, patch, recorded

PATIENCE = 60.0


class Listener:
    """One client of a `Stream`, read by a thread of its own."""

    def __init__(self, stream: Stream) -> None:
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.ended = threading.Event()
        self._source = stream.listen()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for part in self._source:
            for event in part.decode().split("\n\n")[:-1]:
                if event.startswith(":"):
                    self.events.put(("comment", event))
                    continue
                name, data = event.split("\n")
                self.events.put((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        self.ended.set()

    def next(self, kind: str) -> Any:
        """The next event of a kind; queue.Empty when none comes."""
        while True:
            name, document = self.events.get(timeout=PATIENCE)
            if name == kind:
                return document

    def join(self) -> None:
        assert self.ended.wait(PATIENCE)
        self._thread.join()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stream]]:
    made: list[Stream] = []

    def make(store: Path = tmp_path / "store", **options: Any) -> Stream:
        stream = Stream(
            store,
            lambda event: (
                Glance(status="healthy", severity="normal") if event == "health" else {"patches": event}
            ),
            **{"poll_s": 0.02, "keep_alive_s": 5.0} | options,
        )
        made.append(stream)
        return stream

    yield make
    for stream in made:
        stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "qigheal-stream"]


def test_what_comes_is_told(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, 20, start=1.75e9)
    listener = Listener(make())
    assert listener.next("health") == {"status": "healthy", "severity": "normal"}
    with History(store) as one, History(store) as two:
        append(one, [1.75e9 + 100.0])
        assert listener.next("snapshot")["timestamp"] == 1.75e9 + 100.0
        append(two, [1.75e9 + 99.0])  # a worker that writes later what was recorded earlier
        row = listener.next("snapshot")
        assert (row["timestamp"], row["module_name"], row["basin"]) == (1.75e9 + 99.0, "digits.service", None)
        assert listener.next("health")
    judge(ledger(store), patch())
    assert listener.next("patches") == {"patches": "patches"}


def test_what_was_there_before_is_not(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, 20, start=1.75e9)
    listener = Listener(make())
    with History(store) as history:
        append(history, [1.75e9 + 500.0])
        assert listener.next("snapshot")["timestamp"] == 1.75e9 + 500.0


def test_a_store_may_come_later(make: Callable[..., Stream], store: Path) -> None:
    listener = Listener(make())
    recorded(store, 3, start=1.75e9)
    assert [listener.next("snapshot")["timestamp"] for _ in range(3)] == [1.75e9, 1.75e9 + 1, 1.75e9 + 2]


def test_the_monitor_of_this_process_is_written(make: Callable[..., Stream], store: Path) -> None:
    with GeometricHealthMonitor(history=store, dim=DIM, false_alarm_every=None) as monitor:
        listener = Listener(make(flush=monitor.flush))
        monitor.record(0.7, 64.0, np.ones(DIM))
        assert listener.next("snapshot")["phi"] == pytest.approx(0.7, rel=1e-4)


def test_closing_ends_every_stream(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    stream = make(keep_alive_s=1000.0)
    listeners = [Listener(stream) for _ in range(3)]
    stream.close()
    for listener in listeners:
        listener.join()
    late = Listener(stream)
    late.join()


def test_a_stream_ends_by_itself_with_what_waits(make: Callable[..., Stream], store: Path) -> None:
    recorded(store)
    stream = make(life_s=0.0)
    listener = Listener(stream)
    assert listener.next("health")
    listener.join()
    assert stream.join(lambda: None).over
    assert not make().join(lambda: None).over


def test_a_thread_looks_whether_its_server_ends(make: Callable[..., Stream], store: Path) -> None:
    recorded(store)
    going = threading.Event()
    source = make(keep_alive_s=1000.0, life_s=1000.0).listen(stopping=going.is_set)
    assert next(source).startswith(b"event: health")
    reading = threading.Thread(target=lambda: list(source))
    reading.start()
    going.set()
    reading.join(PATIENCE)
    assert not reading.is_alive()


def test_a_server_of_threads_keeps_some_for_others(store: Path) -> None:
    recorded(store)
    api = Api(store, access=Access(environ={}, read="r"))
    app = flask.Flask("host")
    app.register_blueprint(blueprint(api))
    token = {"Authorization": "Bearer r"}

    def ask(threads: bool = True) -> Any:
        return app.test_client().get(
            "/api/self-healing/stream",
            headers=token,
            environ_overrides={"wsgi.multithread": threads},
            buffered=False,
        )

    try:
        alone = ask(threads=False)
        assert (alone.status_code, alone.json["error"]) == (429, "too_many")
        assert int(alone.headers["Retry-After"]) > 0
        one, other, third = ask(), ask(), ask()
        assert [each.status_code for each in (one, other, third)] == [200, 200, 429]
        one.close()
        again = ask()
        assert again.status_code == 200
        other.close()
        again.close()
    finally:
        api.close()


def test_a_quiet_stream_is_kept_open(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    listener = Listener(make(keep_alive_s=0.01))
    assert listener.next("comment") == ": still here"


def test_a_slow_client_is_dropped_and_nobody_waits(
    make: Callable[..., Stream], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUED", 10)
    recorded(store, start=1.75e9)
    stream = make()
    slow = stream.join(lambda: None)
    quick = Listener(stream)
    with History(store) as history:
        for number in range(15):  # each with its health: more than fits
            append(history, [1.76e9 + number])
            assert quick.next("snapshot")["timestamp"] == 1.76e9 + number
    assert slow.ended
    assert slow.take().count(b"event: ") == 10
    assert not quick.ended.is_set()


def test_of_very_many_an_even_selection_is_told(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    listener = Listener(make())
    with History(store) as history:
        append(history, 1.76e9 + np.arange(5000))
        times = [listener.next("snapshot")["timestamp"]]
        while times[-1] < 1.76e9 + 4999:
            times.append(listener.next("snapshot")["timestamp"])
    assert 100 <= len(times) <= 20 * module.TOLD
    assert times == sorted(times)
    assert not listener.ended.is_set()


def test_there_is_room_for_so_many(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    stream = make(most=2)
    one, _ = stream.join(lambda: None), stream.join(lambda: None)
    with pytest.raises(Refused) as refused:
        stream.join(lambda: None)
    assert (refused.value.status, dict(refused.value.headers)["Retry-After"]) == (429, "5")
    stream.leave(one)
    assert isinstance(stream.join(lambda: None), Client)


def test_a_client_that_never_read_leaves_too(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    stream = make(most=1)
    for _ in range(3):
        stream.listen().close()


def test_nobody_listening_nothing_runs(make: Callable[..., Stream], store: Path) -> None:
    recorded(store, start=1.75e9)
    stream = make()
    client = stream.join(lambda: None)
    thread = stream._thread
    assert thread is not None
    stream.leave(client)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    again = Listener(stream)  # and it begins anew
    with History(store) as history:
        append(history, [1.76e9])
    assert again.next("snapshot")["timestamp"] == 1.76e9


SERVER = """
import sys
from pathlib import Path
framework, store, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
from qigheal.api import Access, Api
access = Access(environ={}, read="read-Φ")
if framework == "fastapi":
    import uvicorn
    from qigheal.integrations.fastapi_routes import standalone
    uvicorn.run(standalone(store, access=access), fd=number, log_level="error")
else:
    import flask
    from werkzeug.serving import make_server
    from qigheal.integrations.flask_routes import blueprint
    app = flask.Flask("host")
    app.register_blueprint(blueprint(Api(store, access=access)))
    make_server("127.0.0.1", 0, app, threaded=True, fd=number).serve_forever()
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_real_server_streams_and_ends(store: Path, framework: str) -> None:
    recorded(store, start=1.75e9)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, framework, str(store), str(listening.fileno())],
            pass_fds=[listening.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
    url = f"http://127.0.0.1:{port}/api/self-healing"
    headers = {b"Authorization": b"Bearer " + READ.encode()}
    try:
        with httpx.Client(timeout=PATIENCE) as browser:
            with browser.stream("GET", f"{url}/stream", headers=headers) as gone:
                assert next(gone.iter_lines()) == "event: health"
            with browser.stream("GET", f"{url}/stream", headers=headers) as stream:
                assert stream.status_code == 200
                assert stream.headers["content-type"].startswith("text/event-stream")
                assert stream.headers["cache-control"] == "no-store"
                lines = stream.iter_lines()
                assert next(lines) == "event: health"
                with History(store) as history:
                    append(history, [1.76e9])
                    assert next(line for line in lines if line.startswith("event")) == "event: snapshot"
                    assert json.loads(next(lines).removeprefix("data: "))["timestamp"] == 1.76e9
                assert browser.get(f"{url}/health", headers=headers).json()["snapshots"] == 31
                wrong = browser.get(f"{url}/stream", headers={"Authorization": f"Bearer {REVIEW}"})
                assert wrong.status_code == 401
                server.send_signal(signal.SIGTERM)
                if framework == "fastapi":
                    assert all(not line.startswith("event: snapshot") for line in lines)  # to its end
        assert server.wait(PATIENCE) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.communicate()
