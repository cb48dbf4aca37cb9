"""Evidence of a store: gaps count as missing, and nothing is claimed of an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigcore.errors import HistoryError
from qigheal.healing.stored import store_evidence
from tests.heal.toyhost import ToyHost


def test_a_steady_service_is_fully_present(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.learn(200)
    found = store_evidence(toy.store)
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
    found = store_evidence(toy.store)
    assert found.present_share == pytest.approx(2 / 3, abs=0.01)
    assert found.baseline_learned is False


def test_an_empty_store_is_not_measured(tmp_path: Path) -> None:
    found = store_evidence(tmp_path)
    assert found.snapshots == 0
    assert found.present_share is None
    assert found.trends_known == 0
    with pytest.raises(HistoryError):
        store_evidence(tmp_path / "none")


def test_rows_that_damage_hides_are_not_present(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 300, toy.healthy)
    (segment,) = toy.store.glob("*.qigh")
    intact = segment.read_bytes()
    for at in range(0, len(intact) - 400, 20):  # until a flip meets the column of times
        segment.write_bytes(
            intact[:at] + bytes(byte ^ 0xFF for byte in intact[at : at + 20]) + intact[at + 20 :]
        )
        found = store_evidence(toy.store)
        if found.snapshots == 300 and found.present_share == 0.0:
            break
    else:
        pytest.fail("no flip hid the rows")
