"""A patch says how long its strategy took to propose it, and not what was done with the one before meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qigheal.healing.asking import proposals
from qigheal.healing.ledger import Ledger
from qigheal.integrations.metrics.healed import HealingFigures
from qigheal.integrations.metrics.reading import Reading
from qigheal.reasons import Reasons
from qigheal.records import HealingPatch
from tests.heal.test_phases import a_diagnosis, a_patch


class Slow:
    """Takes 3 s for its first patch and 5 s for its second."""

    name = "slow"
    metrics = ("phi",)

    def __init__(self) -> None:
        self.clock = 100.0

    def propose(self, *_: Any) -> Iterator[HealingPatch]:
        self.clock += 3
        yield a_patch(1)
        self.clock += 5
        yield a_patch(2)


def test_only_the_strategys_own_time_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    slow: Any = Slow()
    bench: Any = SimpleNamespace(base="a" * 40, failure="")
    repo: Any = None
    asked = proposals(
        ledger, slow, a_diagnosis("phi"), bench, repo, Reasons(), lambda: 1.0, timer=lambda: slow.clock
    )
    for patch in asked:
        ledger.append("patch", patch.fingerprint, patch, 1.0)
        slow.clock += 1000  # the trial
    assert [entry.read(HealingPatch).found_s for entry in ledger.entries("patch")] == [3.0, 5.0]
    ledger.append("patch", "f", a_patch(3), 1.0)  # nobody measured it
    reading = Reading()
    HealingFigures(tmp_path).tell(reading, 2.0)
    found = reading.distributions["healing_patch_generation_duration_seconds"]
    assert (found.count, found.sum) == (2, 8.0)
