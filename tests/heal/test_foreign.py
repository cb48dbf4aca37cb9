"""Strategies of other packages: found by entry point, of tier review whatever they say, and held apart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qigheal.healing import phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.strategies import builtin, every
from qigheal.settings import HealSettings
from tests.heal.toyhost import ToyHost

PACKAGE = """
from dataclasses import dataclass
from qigheal.records import HealingPatch


@dataclass
class Strategy:
    settings: object
    name = "its own name"
    tier = "safe"
    metrics = ("phi", "kappa")

    def propose(self, diagnosis, bench, repo):
        text = repo.read(bench.base, "config/app.toml").replace(b"gain = 6.0", b"gain = 1.0")
        tree = repo.edit(bench.base, {"config/app.toml": text})
        yield HealingPatch(
            strategy="attention", tier="safe", base=bench.base, diff=repo.diff(bench.base, tree),
            rationale="Sets the gain back.", heals=("phi",),
        )


class Failing(Strategy):
    def propose(self, diagnosis, bench, repo):
        raise RuntimeError("a mistake in the package")


class Lying(Strategy):
    def propose(self, diagnosis, bench, repo):
        yield "no patch"


class Elsewhere(Strategy):
    def propose(self, diagnosis, bench, repo):
        from msgspec.structs import replace

        for patch in super().propose(diagnosis, bench, repo):
            yield replace(patch, base="0" * 40)


def unusable(settings):
    raise ValueError("no licence")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a package with these entry points importable, as an installation does."""

    def install(**points: str) -> None:
        folder = tmp_path / "site"
        (folder / "acme-1.0.dist-info").mkdir(parents=True)
        (folder / "acme_healing.py").write_text(PACKAGE)
        (folder / "acme-1.0.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n"
        )
        lines = [f"{name.replace('_', '-')} = acme_healing:{target}" for name, target in points.items()]
        (folder / "acme-1.0.dist-info/entry_points.txt").write_text(
            "[qigheal.strategies]\n" + "\n".join(lines) + "\n"
        )
        monkeypatch.syspath_prepend(str(folder))

    return install


def propose(name: str, host: ToyHost) -> list[Any]:
    engine = SelfHealingEngine(host=host.path, store=host.store)
    [strategy] = [s for s in every(engine.settings) if s.name == name]
    diagnosis: Any = SimpleNamespace(metrics=("phi",))
    bench: Any = SimpleNamespace(base=engine.repo.head())
    return list(strategy.propose(diagnosis, bench, engine.repo))


@pytest.fixture
def broken(tmp_path: Path) -> ToyHost:
    host = ToyHost(tmp_path)
    host.break_it()
    host.store.mkdir()
    return host


def test_one_is_asked_after_the_built_in_ones(install: Install) -> None:
    install(acme="Strategy")
    settings = HealSettings()
    names = [strategy.name for strategy in every(settings)]
    assert names == [*(strategy.name for strategy in builtin(settings)), "acme"]


def test_its_patches_carry_its_name_and_tier_review(install: Install, broken: ToyHost) -> None:
    install(acme="Strategy")
    [patch] = propose("acme", broken)
    assert (patch.strategy, patch.tier) == ("acme", "review")
    assert "+gain = 1.0" in patch.diff


@pytest.mark.parametrize("target", ["Failing", "Lying", "Elsewhere"])
def test_what_goes_wrong_in_it_is_logged_and_stops_nothing(
    install: Install, broken: ToyHost, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    install(acme=target)
    assert propose("acme", broken) == []
    assert "strategy acme" in caplog.text
    assert "asked no further" in caplog.text


def test_one_that_cannot_be_made_is_left_out(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install(acme="unusable", gone="Missing", good="Strategy")
    with caplog.at_level(logging.WARNING, "qigheal"):
        names = [strategy.name for strategy in every(HealSettings())]
    assert "good" in names
    assert not {"acme", "gone"} & set(names)
    assert "no licence" in caplog.text


@pytest.mark.parametrize("name", ["attention", "Upper", "with space", "a/b", "x" * 41])
def test_a_name_that_is_taken_or_unfit_is_refused(
    install: Install, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    install(**{name: "Strategy"})
    settings = HealSettings()
    assert len(every(settings)) == len(builtin(settings))
    assert "left out" in caplog.text


def test_only_a_person_merges_what_it_proposes(install: Install, tmp_path: Path) -> None:
    install(acme="Strategy")
    host = ToyHost(tmp_path)
    host.learn()
    host.live(6.0, 60, host.break_it())
    engine = SelfHealingEngine(
        host=host.path, store=host.store, auto_apply=True, clock=lambda: host.clock, settings=HealSettings()
    )
    phases.override(engine.ledger, 4, "test", "everything that a phase may allow", host.clock)
    result = engine.check_and_heal(strategy="acme")
    [change] = result.changes
    assert (change.state, change.patch.tier, change.branch.split("-")[0]) == (
        "open",
        "review",
        "qigheal/acme",
    )
    assert "only a person" in result.message
    merged = engine.review(change.id, approve=True, reviewer="somebody")
    assert merged.state == "watching"
