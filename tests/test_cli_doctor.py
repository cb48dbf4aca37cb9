"""`qigheal doctor`: each thing that can be wrong is found, said, and given a remedy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import HEAD, Batch
from qigheal.cli import checks
from qigheal.cli.checks import Check, alerting, host, machine
from qigheal.cli.checks import store as stored
from qigheal.healerchild import LOCK, LOG
from qigheal.healing.ledger import Ledger
from qigheal.healing.looping import lock
from qigheal.settings import MonitorSettings
from tests.heal.ordinary_user import run_as_ordinary_user
from tests.heal.toyhost import ToyHost
from tests.test_cli import qigheal


def by_name(found: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store with ten snapshots of now."""
    with History(tmp_path / "store", dim=4) as history:
        write(history, time.time() - 10)
    return tmp_path / "store"


def write(history: History, at: float, count: int = 10) -> None:
    heads = np.zeros(count, HEAD)
    heads["timestamp"] = at + np.arange(count) * 0.1
    history.append_rows(heads, np.ones((count, 4)), ("",))


def test_a_machine_a_store_and_a_host_as_they_should_be(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.learn()
    with History(toy.store) as running:
        running.append(toy.rows(1.0, 5, toy.healthy))
        said = qigheal("doctor", "--store", toy.store, "--host", toy.path, "--quick", "--json", cwd=tmp_path)
    document = json.loads(said.stdout)
    states = {check["name"]: check["state"] for check in document["checks"]}
    wrong = [check for check in document["checks"] if check["state"] != "ok" and check["name"] != "sandbox"]
    assert not wrong
    assert states.keys() >= {
        "python", "numpy", "git", "compiled core", "sandbox", "environment", "store", "permissions", "disk",
        "snapshots", "damage", "writers", "segments", "size", "baseline", "ledger", "host", "manifest",
        "files", "lever attention.gain", "clock", "time zone",
    }  # fmt: skip
    assert not states.keys() & {"probe", "tests"}, "--quick starts nothing"
    assert document["ok"] + document["warn"] + document["fail"] == len(document["checks"])
    assert said.returncode == {"ok": 0, "warn": 2, "fail": 1}[document["state"]]
    assert {p.name for p in toy.store.iterdir()} >= {"baseline.json"}


def test_what_fails_is_said_with_a_remedy(tmp_path: Path) -> None:
    said = qigheal("doctor", "--store", "nowhere", cwd=tmp_path)
    assert said.returncode == 1
    assert "fail  store              nowhere: nothing and no folder" in said.stdout
    assert "--store" in said.stdout
    assert not (tmp_path / "nowhere").exists()


def test_a_default_store_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    said = qigheal("doctor", "--json", cwd=tmp_path)
    assert said.returncode in (0, 2)
    assert "snapshots" not in {check["name"] for check in json.loads(said.stdout)["checks"]}


def test_secrets_are_named_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("QIGHEAL_READ_TOKEN", "QIGHEAL_REVIEW_TOKEN", "QIGHEAL_SMTP_PASSWORD", "QIGHEAL_ALERT_WEBHOOK")
    for name in secrets:
        monkeypatch.setenv(name, "the-secret-itself")
    monkeypatch.setenv("QIGHEAL_STORE", str(tmp_path / "place"))
    found = by_name(machine.environment())
    assert all(name in found["environment"].found for name in secrets)
    assert f"QIGHEAL_STORE={tmp_path / 'place'}" in found["environment"].found
    assert found["tokens"].state == "warn"
    assert "the-secret-itself" not in str(found)


def test_alerts_are_tried_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("QIGHEAL_ALERT_WEBHOOK", f"http://127.0.0.1:{port}/the-secret-path")  # nobody is there
    assert by_name(alerting.configured())["alerts"].found == "would go to log, webhook 127.0.0.1"
    log, webhook = alerting.delivered()
    assert log.state == "ok"
    assert webhook.state == "fail"
    assert "the-secret-path" not in str(webhook)
    monkeypatch.setenv("QIGHEAL_ALERT_WEBHOOK", "no address")
    broken = by_name(checks.looked_at([("alerts", alerting.configured)]))["alerts"]
    assert broken.state == "fail"


def test_an_open_folder_is_warned_of(place: Path) -> None:
    assert by_name(stored.folder(place))["permissions"].state == "ok"
    place.chmod(0o750)
    found = by_name(stored.folder(place))["permissions"]
    assert (found.state, found.found) == ("warn", "0750: others may look in")
    assert found.remedy == f"chmod 700 {place}"


@pytest.mark.parametrize(("free_mb", "state"), [(5, "fail"), (100, "warn"), (10_000, "ok")])
def test_a_disk_that_runs_full(
    place: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, free_mb * 1_000_000))  # type: ignore[attr-defined]
    assert by_name(stored.folder(place))["disk"].state == state


def test_writers_that_live_and_that_ended(place: Path) -> None:
    ended = by_name(stored.contents(place))
    assert ended["writers"].state == "warn"
    assert ended["segments"].found == "1, 1 of ended processes"
    with History(place, dim=4) as history:
        write(history, time.time())
        found = by_name(stored.contents(place))
    assert found["writers"].found.startswith(f"now written by process {os.getpid()} on ")
    assert found["snapshots"].found.startswith("20 readable")


def test_many_small_segments_are_to_be_made_few(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MANY_SEGMENTS", 0)
    found = by_name(stored.contents(place))["segments"]
    assert found.state == "warn"
    assert "qigheal compact" in found.remedy


def test_damage_is_counted(place: Path) -> None:
    assert by_name(stored.contents(place))["damage"].state == "ok"
    (segment,) = place.glob("*.qigh")
    data = bytearray(segment.read_bytes())
    data[-40] ^= 1
    segment.write_bytes(data)
    found = by_name(stored.contents(place))["damage"]
    assert found.state == "warn"
    assert "missing rows" in found.found


def test_snapshots_of_the_future(place: Path) -> None:
    with History(place, dim=4) as history:
        write(history, time.time() + 7200)
    found = by_name(stored.contents(place))
    assert found["future"].state == "warn"
    assert "2 h ahead" in found["future"].found


def test_a_size_that_nobody_keeps_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SLACK_MB", 0.0)
    MonitorSettings(dim=4, keep_mb=0.0001).save(place)
    found = by_name(stored.contents(place))["size"]
    assert found.state == "warn"
    assert "qigheal compact --keep-mb 0.0001" in found.remedy
    MonitorSettings(dim=4, keep_mb=None).save(place)
    assert by_name(stored.contents(place))["size"].state == "ok"


def test_a_baseline_that_was_learned_while_the_service_failed(place: Path) -> None:
    assert "baseline errors" not in by_name(stored.baseline(place))
    learned(place, error_rate=0.75)
    found = by_name(stored.baseline(place))["baseline errors"]
    assert (found.state, found.found) == ("warn", "error rate 75.0% while it was learned, above 0.05")
    assert "learn again with set_baseline()" in found.remedy


def learned(place: Path, **columns: float) -> None:
    """A baseline for the store, of a hundred snapshots that are all alike."""
    heads = np.zeros(100, HEAD)
    for name, value in columns.items():
        heads[name] = value
    Baseline.learn(Batch.of_rows(heads, np.ones((100, 4)), ("",))).save(place / "baseline.json")


def test_a_baseline_that_is_late_or_broken(place: Path) -> None:
    assert by_name(stored.baseline(place))["baseline"].state == "ok"
    MonitorSettings(dim=4, learn_after=30).save(place)
    with History(place, dim=4) as history:
        write(history, time.time(), 60)
    late = by_name(stored.baseline(place))["baseline"]
    assert (late.state, late.found) == ("warn", "none yet: 70 of 30 snapshots")
    (place / "baseline.json").write_text("{")
    broken = by_name(checks.looked_at([("baseline", lambda: stored.baseline(place))]))["baseline"]
    assert broken.state == "fail"
    assert "baseline.json" in broken.found


def test_a_ledger_that_somebody_rewrote(place: Path) -> None:
    assert "nothing was ever healed" in by_name(stored.ledger(place))["ledger"].found
    ledger = Ledger(place / "ledger.db")
    for number in range(3):
        ledger.append("note", str(number), {"of": number}, at=float(number))
    whole = by_name(stored.ledger(place))
    assert whole["ledger"].found == "3 entries, the chain is whole"
    assert whole["phase"].found == "1"
    connection = sqlite3.connect(place / "ledger.db")
    connection.execute("DROP TRIGGER entry_kept")
    connection.execute("UPDATE entry SET data = '{}' WHERE seq = 2")
    connection.commit()
    connection.close()
    assert by_name(stored.ledger(place))["ledger"].state == "fail"


def test_hosts_that_cannot_be_used(tmp_path: Path) -> None:
    def look(folder: Path) -> dict[str, Check]:
        return by_name(checks.looked_at([("host", lambda: host.manifest(folder))]))

    assert look(tmp_path)["host"].state == "fail"
    toy = ToyHost(tmp_path)
    assert {check.state for check in look(toy.path).values()} == {"ok"}
    manifest = toy.path / "qigheal.toml"
    manifest.write_text('[probe]\ncommand = ["python", "-m", "app.probe"]\n')
    found = look(toy.path)
    assert set(found) >= {"patch", "commit"}, found
    assert (found["patch"].state, found["commit"].state) == ("warn", "warn")
    manifest.write_text("[probe")
    assert "qigheal.toml" in look(toy.path)["host"].found


def test_a_clock_that_is_set_meanwhile() -> None:
    began = time.time() - 100.0, time.monotonic()
    assert by_name(machine.clock(began))["clock"].state == "warn"
    assert by_name(machine.clock((time.time(), time.monotonic())))["clock"].state == "ok"


def test_what_is_missing_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name(machine.compiled())["compiled core"].state == "ok"
    monkeypatch.setattr(machine, "COMPILED", ("_geometry", "_absent"))
    broken = by_name(machine.compiled())["compiled core"]
    assert broken.state == "fail"
    assert "_absent" in broken.found

    def version(name: str) -> str:
        if name in ("numba", "numpy"):
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["numpy>=2", 'numba>=0.6; extra == "heal"', 'rich; extra == "cli"']
    )
    monkeypatch.setenv("PATH", "/nowhere")
    found = by_name([*machine.versions(), *machine.extras()])
    assert found["numpy"].state == "fail"
    assert "pip install 'qigheal[heal]'" in found["extra heal"].remedy
    assert "(numba)" in found["extra heal"].found
    assert found["extra cli"].found.startswith("installed")
    assert found["extra heal"].state == "ok"
    to_heal = by_name(machine.extras(healing=True))
    assert (to_heal["extra heal"].state, to_heal["extra heal"].remedy) == (
        "fail",
        "pip install 'qigheal[heal]'",
    )
    assert to_heal["extra cli"].state == "ok"
    assert found["git"].state == "warn"
    assert by_name(machine.sandbox(needed=True))["sandbox"].state == "fail"
    assert by_name(machine.sandbox(needed=False))["sandbox"].state == "warn"


def test_from_its_source_what_healing_needs_is_looked_for_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> NoReturn:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert "extra heal" not in by_name(machine.extras(healing=True))
    monkeypatch.setitem(sys.modules, "numba", None)
    assert by_name(machine.extras(healing=True))["extra heal"].state == "fail"
    assert "extra heal" not in by_name(machine.extras())


def test_every_compiled_module_is_known() -> None:
    import qigcore

    there = {path.name.split(".")[0] for path in Path(qigcore.__path__[0]).glob("_*.so")}
    assert there == set(machine.COMPILED)


def test_every_extra_for_users_is_told_of() -> None:
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    assert set(machine.EXTRAS) == set(project["optional-dependencies"]) - {
        "test",
        "bench",
        "embeddings",
        "docs",
    }


UNREADABLE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from qigheal.cli import main
found = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["qigheal", *words]
    out, complaints = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(complaints):
        try:
            main()
        except SystemExit as end:
            code = end.code
    found[" ".join(words)] = code, out.getvalue(), complaints.getvalue()
print(json.dumps(found))
"""


def test_a_store_that_may_not_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    closed = tmp_path / "work" / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o000)
    names = ("status", "trends", "history", "watch --once", "patches", "phase status", "compact", "doctor")
    calls = [[*name.split(), "--store", str(closed)] for name in names]
    calls += [["baseline", "show", str(closed)], ["backtest", str(closed)]]
    try:
        printed = run_as_ordinary_user(UNREADABLE, tmp_path / "work", json.dumps(calls))
    finally:
        closed.chmod(0o700)
    found: dict[str, Any] = json.loads(printed)
    assert len(found) == len(calls)
    for call, (code, out, complaints) in found.items():
        if call.startswith("doctor"):
            assert code == 1
            assert "cannot be read" in out
            continue
        assert code == (69 if "--store" in call else 64), (call, out, complaints)
        assert complaints.startswith("qigheal: ")
        assert len(complaints.splitlines()) == 1, complaints
        assert str(closed) in complaints


def test_it_runs_where_a_terminal_has_no_greek(tmp_path: Path) -> None:
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", "from qigheal.cli import main; main()", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode in (0, 2), done.stdout


def test_a_healer_that_cannot_start_is_told_of_with_its_reason(place: Path) -> None:
    assert [*stored.healer(place)] == [], "none was ever there"
    with lock(place):
        (at_work,) = stored.healer(place)
        assert (at_work.state, at_work.found) == ("ok", f"process {os.getpid()} works for this store")
    assert (place / LOCK).exists()
    (ended,) = stored.healer(place)
    assert (ended.state, ended.found) == ("ok", "none now")
    (place / LOG).write_text("healthy: nothing to heal\nqigheal: no numba here; install qigheal[heal]\n")
    (failed,) = stored.healer(place)
    assert failed.state == "warn"
    assert failed.found == "none now; the last one ended with: no numba here; install qigheal[heal]"
    with lock(place):
        (in_vain,) = stored.healer(place)
    assert (in_vain.state, in_vain.found.endswith("in vain: no numba here; install qigheal[heal]")) == (
        "warn",
        True,
    )
    (place / LOG).write_text("qigheal: no numba here\nhealthy: nothing to heal\n")
    assert by_name(stored.healer(place))["healer"].state == "ok"


@pytest.mark.parametrize("name", [LOCK, LOG])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_file_of_a_healer_is_told_of_and_not_opened(
    place: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(place / name)
    (found,) = stored.healer(place)
    assert found.state == "fail"
    assert found.found == f"{place / name} is no regular file: no healer can be started"
    assert "remove it" in found.remedy


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("{")])
def test_settings_of_the_healer_that_cannot_be_used_are_told_of(
    place: Path, make: Callable[[Path], None]
) -> None:
    assert [*stored.healer_settings(place)] == []
    make(place / "healer.json")
    said = qigheal("doctor", "--store", place, "--json", cwd=place)
    (found,) = [each for each in json.loads(said.stdout)["checks"] if each["name"] == "healer settings"]
    assert said.returncode == 1
    assert found["state"] == "fail"
    assert found["found"].startswith(f"{place / 'healer.json'}: expected the settings")
    assert found["remedy"] == "remove the file, and its next pass writes it again"


@pytest.mark.parametrize(
    ("error", "found"),
    [(RecursionError("too\ndeep"), "RecursionError: too deep"), (MemoryError(), "MemoryError")],
)
def test_a_look_that_fails_in_a_way_nobody_foresaw_is_a_finding(error: Exception, found: str) -> None:
    def bad() -> Iterator[Check]:
        raise error

    after = Check(name="after", state="ok", found="")
    failed, last = checks.looked_at([("bad", bad), ("after", lambda: [after])])
    assert (failed.name, failed.state, failed.found, last) == ("bad", "fail", found, after)
    assert failed.remedy
