"""The corpus is as large and as varied as it says; and a short form of `make efficacy`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qigheal.healing.strategies import builtin
from qigheal.host import Manifest
from qigheal.repo import Repo
from qigheal.settings import HealSettings
from tests.faults.corpus import Case, make
from tests.faults.efficacy import cases, run
from tests.heal.isolated import isolated

EVERY = cases()
SHORT = (
    "attention-one-lever",
    "basin-too-hot",
    "latency-formula",
    "errors-retry-removed",
    "memory-cache-decorator",
    "revert-nested-constant",
    "revert-faster-and-wrong",
    "revert-validation",
    "latency-none-clock",
    "memory-list-whose-contents-are-read",
)


def test_every_strategy_has_its_faults_and_there_are_enough_of_each_kind() -> None:
    healable = Counter(case.strategy for case in EVERY if case.strategy)
    assert set(healable) == {strategy.name for strategy in builtin(HealSettings())}
    assert min(healable.values()) >= 5
    assert sum(healable.values()) >= 30
    assert sum(not case.strategy for case in EVERY) >= 12


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_a_case_can_be_made_and_is_not_healed_as_it_stands(case: Case, tmp_path: Path) -> None:
    healthy = make(case, tmp_path / "host")
    repo = Repo(tmp_path / "host")
    Manifest.at(repo, repo.head())
    assert repo.resolve(healthy) == healthy
    if case.healed is not None:
        assert not case.healed(tmp_path / "host")


@pytest.mark.alone
@pytest.mark.parametrize("name", SHORT)
def test_a_few_of_each_kind_end_as_they_should(name: str) -> None:
    if isinstance(found := isolated(), str):
        pytest.skip(found)
    [case] = [case for case in EVERY if case.name == name]
    row = run(case)
    assert row.good, row
