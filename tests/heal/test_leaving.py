"""What the healer goes by is what others tell of it: its settings are left in the store, by each pass."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
from pathlib import Path

import pytest
import typer

from qigcore.errors import HistoryError
from qigheal.alerts import AlertWatch
from qigheal.api import judged
from qigheal.cli.app import app
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.leaving import leave
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
