"""Which strategies are asked, by how far the sandbox isolates."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from qigheal.healing import strategies
from qigheal.healing.strategies.foreign import GROUP
from qigheal.settings import HealSettings


@dataclasses.dataclass
class Quantise:
    settings: HealSettings
    metrics: tuple[str, ...] = ("phi",)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("quantise", f"{__name__}:Quantise", GROUP)
    found = EntryPoints([point])
    monkeypatch.setattr("qigheal.healing.strategies.foreign.entry_points", lambda **_: found)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("level", "left_out"), [("namespaces", ()), ("none", ()), ("partial", ("quantise",))]
)
def test_foreign_code_needs_more_than_partial_isolation(level: str, left_out: tuple[str, ...]) -> None:
    settings = HealSettings()
    asked, without = strategies.askable(settings, level)
    assert without == left_out
    own = [strategy.name for strategy in strategies.builtin(settings)]
    assert [strategy.name for strategy in asked] == own + ([] if left_out else ["quantise"])
