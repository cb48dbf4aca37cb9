"""What the healer goes by is what others tell of it: its settings are left in the store, by each pass."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from msgspec.structs import replace

from qigcore.errors import HistoryError
from qigheal.alerts import AlertWatch
from qigheal.api import judged
from qigheal.cli import heal_loop
from qigheal.cli.app import app
from qigheal.errors import ManifestError
from qigheal.healerchild import LOCK
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.leaving import leave
from qigheal.healing.looping import lock
from qigheal.host import Manifest
from qigheal.integrations.metrics.healed import HealingFigures
from qigheal.integrations.metrics.reading import Reading
from qigheal.settings import HEALER_FILE, HealSettings
from tests.heal.toyhost import ToyHost
from tests.metrics.scraped import taken_back

STRICT = HealSettings(breaker_rollbacks=1)


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    """A healthy service, in the present: who tells of a breaker asks the clock of the machine."""
    host = ToyHost(tmp_path)
    host.clock = time.time() - 500
    host.learn()
    host.live(1.0, 60, host.healthy)
    return host


def healer(toy: ToyHost, settings: HealSettings) -> SelfHealingEngine:
    return SelfHealingEngine(host=toy.path, store=toy.store, settings=settings, clock=lambda: toy.clock)


def phase_status(store: Path) -> dict[str, object]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        arguments = ["phase", "status", "--json", "--store", str(store)]
        typer.main.get_command(app)(arguments, standalone_mode=False)
    found: dict[str, object] = json.loads(said.getvalue())
    return found


@pytest.mark.parametrize(("settings", "is_open"), [(STRICT, True), (HealSettings(), False)])
def test_all_who_tell_of_the_breaker_go_by_the_healers_settings(
    toy: ToyHost, settings: HealSettings, is_open: bool
) -> None:
    made = healer(toy, settings)
    watch = AlertWatch(toy.store, (), clock=lambda: toy.clock)
    watch.look()
    toy.clock += 30
    taken_back(made.ledger, 1, at=toy.clock)
    assert made.check_and_heal().message.startswith("healthy")
    figures = Reading()
    HealingFigures(toy.store).tell(figures, toy.clock)
    told = [alert for alert in watch.look() if alert.kind == "breaker"]
    watch.close()
    assert figures.values["healing_breaker_open"][""] == is_open
    assert judged.phase(toy.store).breaker_open == is_open
    assert phase_status(toy.store)["breaker_open"] == is_open
    assert len(told) == is_open


def test_a_persons_word_carried_out_by_another_process_changes_nothing(toy: ToyHost) -> None:
    healer(toy, STRICT).check_and_heal()
    assert healer(toy, HealSettings()).bring_along() == ()
    assert HealSettings.load(toy.store) == STRICT
    healer(toy, HealSettings()).check_and_heal()
    assert HealSettings.load(toy.store) == HealSettings()


def test_settings_that_cannot_be_written_end_no_pass(toy: ToyHost, caplog: pytest.LogCaptureFixture) -> None:
    (toy.store / HEALER_FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        assert healer(toy, STRICT).check_and_heal().message.startswith("healthy")
    assert f"{HEALER_FILE}: the healer's settings cannot be kept: Is a directory" in caplog.text
    with pytest.raises(HistoryError, match="it is a folder"):
        phase_status(toy.store)


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    leave(STRICT, tmp_path)
    before = (tmp_path / HEALER_FILE).stat().st_ino
    leave(STRICT, tmp_path)
    assert (tmp_path / HEALER_FILE).stat().st_ino == before
    leave(HealSettings(), tmp_path)
    assert (tmp_path / HEALER_FILE).stat().st_ino != before


def declare(toy: ToyHost, table: str) -> None:
    path = toy.path / "qigheal.toml"
    path.write_text(path.read_text() + table)
    toy.commit("The brakes")


def typed(toy: ToyHost, *options: str) -> int:
    """`qigheal heal` as a person types it."""
    with contextlib.redirect_stdout(io.StringIO()):
        arguments = ["heal", str(toy.path), "--store", str(toy.store), "--json", *options]
        found: int = typer.main.get_command(app)(arguments, standalone_mode=False)
    return found


def test_a_pass_typed_beside_a_healer_goes_by_its_settings_and_leaves_them(toy: ToyHost) -> None:
    # What broke: it wrote the defaults, and all who tell of the breaker then judged the running healer by these.
    told = replace(STRICT, fitness_threshold=0.7, new_change_every_s=60.0)
    healer(toy, told).check_and_heal()
    before = (toy.store / HEALER_FILE).read_bytes()
    assert typed(toy) == typed(toy, "--sandbox", "partial") == 0
    assert (toy.store / HEALER_FILE).read_bytes() == before
    beside = SelfHealingEngine(host=toy.path, store=toy.store)
    assert beside.settings == replace(HealSettings(), breaker_rollbacks=1, new_change_every_s=60.0)
    taken_back(beside.ledger, 1, at=time.time())
    assert phase_status(toy.store)["breaker_open"] is True
    assert typed(toy) == 0
    assert phase_status(toy.store)["breaker_open"] is True


def test_only_the_brakes_are_taken_from_a_store(toy: ToyHost) -> None:
    HealSettings(
        sandbox="none", fitness_threshold=0.56, seed=1, latency_margin=1.0, breaker_rollbacks=1
    ).save(toy.store)
    beside = SelfHealingEngine(host=toy.path, store=toy.store)
    assert beside.settings == STRICT


def test_the_manifest_sets_the_brakes(toy: ToyHost) -> None:
    declare(toy, "[healer]\nbreaker_rollbacks = 1\nwatch_snapshots = 12\n")
    assert typed(toy) == 0
    assert HealSettings.load(toy.store) == replace(STRICT, watch_snapshots=12)
    # It is the word of now; what stands in the store is that of the pass before.
    healer(toy, HealSettings(breaker_rollbacks=3)).check_and_heal()
    assert HealSettings.load(toy.store).breaker_rollbacks == 3
    assert typed(toy) == 0
    assert HealSettings.load(toy.store) == replace(STRICT, watch_snapshots=12)


MANY = "[healer]\nbreaker_rollbacks = 9\nwatch_snapshots = 12\n"

HOLDER = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(handle, fcntl.LOCK_EX)
os.write(handle, b"%d\\n" % int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def healer_beside(store: Path) -> Iterator[None]:
    """Another process that holds the store as a loop does, in another container, where its number is this one's."""
    command = [sys.executable, "-c", HOLDER, str(store / LOCK), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline()
            yield
        finally:
            child.stdin.close()
            child.wait()


def test_a_pass_typed_beside_a_loop_goes_by_what_that_goes_by_whatever_is_declared(toy: ToyHost) -> None:
    # What broke: it wrote the manifest's brakes, and the breaker of the running loop was told of by these.
    declare(toy, MANY)
    healer(toy, STRICT).check_and_heal()
    before = (toy.store / HEALER_FILE).read_bytes()
    with healer_beside(toy.store):
        assert SelfHealingEngine(host=toy.path, store=toy.store).settings == STRICT
        assert typed(toy) == 0
        assert (toy.store / HEALER_FILE).read_bytes() == before
        healer(toy, replace(STRICT, watch_snapshots=30)).check_and_heal()  # somebody chose them
        assert HealSettings.load(toy.store) == replace(STRICT, watch_snapshots=30)
    assert typed(toy) == 0
    assert HealSettings.load(toy.store) == replace(HealSettings(), breaker_rollbacks=9, watch_snapshots=12)


@pytest.mark.parametrize("text", [None, '{"breaker_rollbacks": 0}'], ids=["not yet", "unusable"])
def test_a_loop_that_left_nothing_to_go_by_writes_it_itself(toy: ToyHost, text: str | None) -> None:
    declare(toy, MANY)
    if text is not None:
        (toy.store / HEALER_FILE).write_text(text)
    with healer_beside(toy.store):
        assert SelfHealingEngine(host=toy.path, store=toy.store).settings.breaker_rollbacks == 9
        assert typed(toy) == 0
        left = (toy.store / HEALER_FILE).read_text() if text is not None else None
        assert left == text
        assert text is not None or not (toy.store / HEALER_FILE).exists()


def test_a_loop_is_not_beside_itself(toy: ToyHost) -> None:
    """A program of the host's own that goes round with `loop` and gives no settings goes by what is declared."""
    declare(toy, MANY)
    STRICT.save(toy.store)
    with lock(toy.store):
        assert typed(toy) == 0
        assert HealSettings.load(toy.store).breaker_rollbacks == 9


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_a_lock_that_is_none_is_nobodys(toy: ToyHost, make: Callable[[Path], None]) -> None:
    declare(toy, MANY)
    STRICT.save(toy.store)
    make(toy.store / LOCK)
    assert typed(toy) == 0
    assert HealSettings.load(toy.store).breaker_rollbacks == 9


class Ended(Exception):
    """Ends a loop that has no end."""


def test_a_loop_goes_by_the_manifest_of_each_pass_or_else_by_the_defaults(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[HealSettings] = []

    def passes(one_pass: Callable[[], object], *_: object, **__: object) -> None:
        for table in ("", "[healer]\nbreaker_window_s = 60\nnew_change_every_s = 1.5\n"):
            declare(toy, f"\n# {len(left)}\n{table}")
            one_pass()
            left.append(HealSettings.load(toy.store))
        raise Ended

    STRICT.save(toy.store)
    monkeypatch.setattr(heal_loop, "loop", passes)
    monkeypatch.setattr(heal_loop, "be_nice", lambda: None)
    with pytest.raises(Ended):
        typed(toy, "--every", "5m")
    assert left == [HealSettings(), HealSettings(breaker_window_s=60, new_change_every_s=1.5)]


def test_settings_in_the_store_that_make_no_sense_are_written_again(
    toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    (toy.store / HEALER_FILE).write_text('{"breaker_rollbacks": 0}')
    with caplog.at_level(logging.WARNING):
        assert typed(toy) == 0
    assert "this pass goes by the usual settings" in caplog.text
    assert HealSettings.load(toy.store) == HealSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("breaker_rollback = 2", r"\[healer\] 'breaker_rollback': expected one of max_open_changes, .*did you mean"),
        ('sandbox = "none"', r"\[healer\] 'sandbox': expected one of .*; remove it"),
        ("fitness_threshold = 0.56", r"\[healer\] 'fitness_threshold': expected one of"),
        ("breaker_rollbacks = 0", r"\[healer\] breaker_rollbacks: expected a whole number from 1 to 1000, got 0"),
        ('breaker_rollbacks = "2"', r"expected a whole number from 1 to 1000, got '2'; correct the value"),
        ("breaker_rollbacks = true", "expected a whole number from 1 to 1000, got True"),
        ("breaker_window_s = nan", "expected a number from 0 to 1e.09, got nan"),
        ("breaker_window_s = 1979-05-27", "expected a number from 0 to 1e.09, got datetime"),
        ("breaker_rollbacks = 500", "expected a limit that can fire, got 500"),
    ],
)  # fmt: skip
def test_a_brake_that_makes_no_sense_is_refused_where_it_stands(text: str, told: str) -> None:
    probe = '[probe]\ncommand = ["python", "-m", "app.probe"]\n'
    with pytest.raises(ManifestError, match=f"^qigheal.toml: .*{told}") as refused:
        Manifest.parse(f"{probe}[healer]\n{text}\n")
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ManifestError, match=r"healer: expected a table"):
        Manifest.parse(f"healer = 3\n{probe}")
