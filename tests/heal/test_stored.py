"""Evidence of a store: gaps count as missing, and nothing is claimed of an empty one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from qigcore.errors import HistoryError
from qigcore.history import History
from qigcore.rows import BIT
from qigheal.healing.ledger import Ledger
from qigheal.healing.stored import applicable, store_evidence
from qigheal.repo import Repo
from qigheal.settings import HealSettings
from tests.heal.gitfix import Place
from tests.heal.test_phases import a_change, a_diagnosis
from tests.heal.toyhost import ToyHost

SIX = ("attention", "basin", "latency", "errors", "memory", "revert")


def test_a_steady_service_is_fully_present(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.learn(200)
    found = store_evidence(toy.store, now=toy.clock)
    assert found.snapshots == 200
    assert found.present_share == 1.0
    assert found.baseline_learned is True
    assert found.trends_known == 4
    assert found.memory_mb == pytest.approx(0.6)


def test_a_pause_counts_as_missing(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 100, toy.healthy)
    toy.clock += 100
    toy.live(1.0, 100, toy.healthy)
    found = store_evidence(toy.store, now=toy.clock)
    assert found.present_share == pytest.approx(2 / 3, abs=0.01)
    assert found.baseline_learned is False


def test_time_since_the_last_snapshot_is_missing_once_the_service_is_silent(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 100, toy.healthy)
    last = toy.clock - 1  # of its last snapshot
    soon = store_evidence(toy.store, now=last + 59)
    assert (soon.present_share, soon.uptime_share, soon.silent_s) == (1.0, 1.0, None)
    later = store_evidence(toy.store, now=last + 100)
    assert later.silent_s == pytest.approx(100)
    assert later.present_share == pytest.approx(0.5, abs=0.01)
    assert later.uptime_share == pytest.approx(0.5, abs=0.01)
    ended = store_evidence(toy.store, now=None)  # a record that has ended
    assert (ended.present_share, ended.silent_s) == (1.0, None)


def test_an_empty_store_is_not_measured(tmp_path: Path) -> None:
    found = store_evidence(tmp_path, now=0.0)
    assert found.snapshots == 0
    assert found.present_share is None
    assert found.trends_known == 0
    with pytest.raises(HistoryError):
        store_evidence(tmp_path / "none", now=0.0)


def test_rows_that_damage_hides_are_not_present(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 300, toy.healthy)
    (segment,) = toy.store.glob("*.qigh")
    intact = segment.read_bytes()
    for at in range(0, len(intact) - 400, 20):  # until a flip meets the column of times
        segment.write_bytes(
            intact[:at] + bytes(byte ^ 0xFF for byte in intact[at : at + 20]) + intact[at + 20 :]
        )
        found = store_evidence(toy.store, now=toy.clock)
        if found.snapshots == 300 and found.present_share == 0.0:
            break
    else:
        pytest.fail("no flip hid the rows")


def test_uptime_counts_time_without_snapshots_and_snapshots_of_a_service_that_failed(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 100, toy.healthy)
    assert store_evidence(toy.store, now=toy.clock).uptime_share == 1.0
    failing = toy.rows(1.0, 100, toy.healthy)
    failing.columns["error_rate"][:50] = 0.5
    failing.columns["error_rate"][50:60] = 0.04  # some errors are no outage
    with History(toy.store) as history:
        history.append(failing)
    assert store_evidence(toy.store, now=toy.clock).uptime_share == pytest.approx(150 / 200, abs=0.01)
    toy.clock += 100
    toy.live(1.0, 100, toy.healthy)
    found = store_evidence(toy.store, now=toy.clock)
    assert found.uptime_share == pytest.approx(250 / 400, abs=0.01)
    assert found.present_share == pytest.approx(300 / 400, abs=0.01)


def test_an_unwell_service_that_answers_is_up_and_one_that_cannot_be_measured_is_not(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(6.0, 100, toy.healthy)
    unmeasured = toy.rows(1.0, 100, toy.healthy)
    unmeasured.columns["repaired"][:] = BIT["error_rate"]
    with History(toy.store) as history:
        history.append(unmeasured)
    assert store_evidence(toy.store, now=toy.clock).uptime_share == pytest.approx(0.5, abs=0.01)


def test_hours_saved_are_by_the_operators_word_and_of_confirmed_changes_alone(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 100, toy.healthy)
    assert store_evidence(toy.store, now=toy.clock).hours_saved is None
    assert store_evidence(toy.store, now=toy.clock, hours_per_repair=3.0).hours_saved == 0.0
    ledger = Ledger(toy.store / "ledger.db")
    for number, state in enumerate(("confirmed", "confirmed", "rolled_back", "unconfirmed", "watching"), 1):
        ledger.record_change(a_change(number, state), 1.0)  # type: ignore[arg-type]
    assert store_evidence(toy.store, now=toy.clock, hours_per_repair=3.0).hours_saved == 6.0
    assert store_evidence(toy.store, now=toy.clock).hours_saved is None


MANIFEST = """
[probe]
command = ["true"]
[patch]
allow = [{allow}]
[[levers]]
name = "gain"
strategy = "{strategy}"
file = "{file}"
key = "attention.gain"
min = 0.1
max = 9.0
[sites]
idempotent = [{sites}]
"""


@pytest.mark.parametrize(
    ("strategy", "allow", "sites", "commits", "expected"),
    [
        ("attention", '"config/*.toml"', "", 1, {"attention"}),
        ("basin", '"config/*.toml"', "", 1, {"basin"}),
        ("attention", '"app/*.py", "config/gone.toml"', "", 1, {"latency", "memory"}),
        ("attention", '"app/*.py", "config/*.toml"', '"app.store:fetch"', 2, {*SIX} - {"basin"}),
        ("basin", '"config/*.toml"', '"app.store:fetch"', 2, {"basin", "revert"}),
        ("attention", '"config/gone.toml"', "", 2, set()),
    ],
)
def test_which_strategies_have_something_to_work_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    allow: str,
    sites: str,
    commits: int,
    expected: set[str],
) -> None:
    def six(settings: HealSettings) -> tuple[SimpleNamespace, ...]:
        return tuple(SimpleNamespace(name=name) for name in SIX)

    monkeypatch.setattr("qigheal.healing.strategies.builtin", six)
    files = {"app/store.py": "", "config/app.toml": "[attention]\ngain = 1.0\n"}
    file = "config/gone.toml" if "gone" in allow else "config/app.toml"
    manifest = MANIFEST.format(allow=allow, strategy=strategy, sites=sites, file=file)
    place = Place(tmp_path / "host", {**files, "qigheal.toml": manifest})
    for _ in range(commits - 1):
        place.commit("another")
    assert set(applicable(Repo(place.path))) == expected


def test_the_host_tells_the_gate_what_must_have_been_tried(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 100, toy.healthy)
    assert store_evidence(toy.store, now=toy.clock).strategies is None
    assert store_evidence(toy.store, now=toy.clock, host=Repo(toy.path)).strategies == ()
    Ledger(toy.store / "ledger.db").append("diagnosis", "", a_diagnosis("phi"), 1.0)
    found = store_evidence(toy.store, now=toy.clock, host=Repo(toy.path)).strategies
    assert found is not None
    assert "attention" in found
    assert "memory" not in found, "no memory growth was ever diagnosed, so nobody asks it"
