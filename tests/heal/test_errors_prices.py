"""What a cure of errors may cost: time and room within health, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from qigheal.healing.strategies.repeating.errors import PRICES
from tests.heal.judgedworlds import QUIET, guard
from tests.heal.simulated import World, judged

FAILS: dict[str, Any] = {"named": ("errors",), "heals": ("errors",), "observed": {"errors": 0.1}}
PAYING: dict[str, Any] = {**FAILS, "prices": PRICES}
SMALL: dict[str, Any] = {**QUIET, "rss_mb": 20.0}
FAILING = World(errors=0.1, **SMALL)
LEAKING = {"observed": {"errors": 0.1, "memory": 2.0}}


def test_a_cure_may_hold_a_package_more() -> None:
    cured = World(**SMALL | {"rss_mb": 20.6})
    verdict, _ = judged(FAILING, cured, 1, **PAYING)
    assert verdict.accepted
    assert "% more memory is held" in verdict.reason
    alike, _ = judged(FAILING, World(**SMALL), 1, **PAYING)
    assert alike.accepted
    assert "memory" not in alike.reason
    unpaid, _ = judged(FAILING, cured, 1, **FAILS, prices=("latency",))
    assert unpaid.decision == "worse"
    assert guard(unpaid, "memory").estimate == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize(
    "cured",
    [{"rss_mb": 44.0}, {"leak_mb": 2.0}, {"leak_mb": 0.35}, {"wall_ms": 12.0}],
    ids=["holds more than twice", "grows", "grows out of its band", "takes too long"],
)
def test_what_lies_outside_of_health_is_no_price(cured: dict[str, float]) -> None:
    verdict, _ = judged(FAILING, World(**SMALL | cured), 1, **PAYING)
    assert not verdict.accepted
    assert verdict.decision == "worse"


def test_growth_within_its_band_is_doubted_all_the_same() -> None:
    assert not judged(FAILING, World(**SMALL | {"leak_mb": 0.1}), 1, **PAYING)[0].accepted


def test_a_growth_that_was_there_is_not_held_against_the_cure() -> None:
    """The price of a service whose memory grows out of its band anyway is judged by what the cure adds."""
    sick, cured = World(errors=0.1, leak_mb=2.0, **SMALL), World(leak_mb=2.0, **SMALL)
    assert judged(sick, cured, 1, **PAYING | LEAKING)[0].accepted
    worse = World(**SMALL | {"leak_mb": 3.0})
    assert not judged(sick, worse, 1, **PAYING | LEAKING)[0].accepted


def test_a_growth_that_health_does_not_know_may_not_be_added_to_one_within_it() -> None:
    sick, cured = World(errors=0.1, leak_mb=0.2, **SMALL), World(leak_mb=0.6, **SMALL)
    assert judged(sick, cured, 1, **PAYING)[0].decision == "worse"
