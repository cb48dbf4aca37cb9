"""How often the judge errs, and how small a harm it sees: whole trials of simulated hosts, many of each.

The long form of these is `python -m benchmarks.judging`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from benchmarks import judging
from qigheal.healing import judge
from qigheal.records import Trial
from qigheal.settings import HealSettings
from tests.heal.judgedworlds import BOTH, CALM, FAULT, HOT, LEAK, QUIET, SETTINGS, cured, guard
from tests.heal.simulated import World, judged


@pytest.fixture(scope="module")
def healed() -> Trial:
    return cured()


def replace_world(world: World, rare: float, rare_ms: float) -> World:
    return dataclasses.replace(world, rare=rare, rare_ms=rare_ms)


@pytest.mark.parametrize(
    ("world", "trials"),
    [
        (World(wall_noise=0.08), 90),
        (World(**FAULT, wall_noise=0.08), 50),
        (World(phi=0.738, shared=0.3), 15),  # just outside its band, with noise of its own
        (World(process_noise=0.03, waits=0.1), 15),  # an unruly machine
        (World(unlucky=0.25), 30),  # as measured of numpy programs whose allocator gives memory back
    ],
    ids=["noisy", "degraded", "edge", "unruly", "unlucky"],
)
def test_identical_code_is_hardly_ever_called_worse_or_better(world: World, trials: int) -> None:
    # Of 200 such trials at most 1 may be called worse, and at most 5 accepted.
    found = Counter(judged(world, world, seed)[0].decision for seed in range(trials))
    assert found["worse"] == 0, found
    assert found["improved"] <= trials // 40, found


def test_a_level_that_each_process_has_of_its_own_is_no_cure() -> None:
    """A hundred answers of one process say no more of the next one than ten do."""
    world = World(phi=0.45, phi_process=0.15, **QUIET)
    found = [judged(world, world, seed, heals=("phi",), named=("phi",))[0] for seed in range(60)]
    assert sum(verdict.accepted for verdict in found) <= 3
    assert sum(verdict.decision == "worse" for verdict in found) <= 1


PAYING: dict[str, Any] = {"heals": BOTH, "prices": ("latency", "memory")}


@pytest.mark.parametrize(
    "world", [World(wall_noise=0.08), World(unlucky=0.25), World(phi=0.738, shared=0.3)], ids=repr
)
def test_identical_code_that_may_pay_is_called_better_or_worse_as_seldom(world: World) -> None:
    found = Counter(
        judged(world, world, seed, settings=HealSettings(max_pairs=160), **PAYING)[0].decision
        for seed in range(30)
    )
    assert found["worse"] == found["improved"] == 0, found


def test_a_cure_that_leaves_the_healthy_band_of_its_price_is_not_accepted_under_noise() -> None:
    """The band ends at 8 ms: just inside it may be paid, at its edge in one trial of forty at the most."""
    few = HealSettings(max_pairs=160)
    sick = World(**FAULT, wall_noise=0.08)

    def accepted(after_ms: float, trials: int) -> int:
        after = World(wall_noise=0.08, wall_ms=after_ms)
        return sum(judged(sick, after, seed, settings=few, **PAYING)[0].accepted for seed in range(trials))

    assert accepted(8.0, 40) <= 3
    assert accepted(5.25, 15) >= 14


def test_a_slowdown_of_5_percent_is_not_accepted_under_8_percent_noise() -> None:
    before, after = World(**FAULT, wall_noise=0.08), World(wall_noise=0.08, wall_ms=5.25)
    settings = HealSettings(max_pairs=320)
    found = Counter(
        judged(before, after, seed, settings=settings, heals=BOTH)[0].accepted for seed in range(60)
    )
    assert found[False] >= 57, found


def test_the_same_cure_without_the_slowdown_is_accepted() -> None:
    before, after = World(**FAULT, wall_noise=0.08), World(wall_noise=0.08)
    found = Counter(judged(before, after, seed, heals=BOTH)[0].accepted for seed in range(20))
    assert found[True] >= 18, found


def test_a_cure_is_accepted_where_processes_differ_by_luck() -> None:
    found = Counter(
        judged(World(**FAULT, unlucky=0.2), World(unlucky=0.2), seed, heals=BOTH)[0].decision
        for seed in range(8)
    )
    assert found["improved"] + found["inconclusive"] == 8, found
    assert found["improved"] >= 4, found


def test_a_noisier_trial_sees_less_and_says_so(healed: Trial) -> None:
    quiet = judge.verdict(healed, SETTINGS)
    noisy, _ = judged(World(**FAULT), World(), 1, settings=HealSettings(max_pairs=80), heals=BOTH)
    few, many = guard(quiet, "latency").detectable, guard(noisy, "latency").detectable
    assert few is not None
    assert many is not None
    assert 0.0 < 2 * few < many
    assert guard(quiet, "errors").detectable is None  # there were none, so no noise of them was seen
    assert quiet.detectable is not None
    assert SETTINGS.fitness_threshold <= quiet.detectable < 0.65


def test_a_slowdown_of_the_detectable_size_shows_in_most_such_trials() -> None:
    few = HealSettings(max_pairs=80, latency_margin=1.0)
    sizes = [guard(judged(CALM, CALM, seed, settings=few)[0], "latency").detectable for seed in range(10)]
    size = sum(found or 0.0 for found in sizes) / len(sizes)
    assert 0.001 < size < 0.02
    slower = World(**{**QUIET, "wall_ms": 5.0 * (1 + size)})
    level = judge.PASS_LEVEL  # of a trial with one look at 80 pairs
    seen = 0
    for seed in range(40):
        trial = judged(CALM, slower, 100 + seed, settings=few)[1]
        seen += judge.gather(trial, few).guards["latency"].estimate.low(level) > 0.0
    assert 26 <= seen <= 40  # 32 expected


@pytest.mark.parametrize(
    ("rare", "rare_ms"), [(1 / 16, 1000.0), (1 / 20, 1000.0), (1 / 25, 5000.0), (1 / 12, 50.0)]
)
def test_rare_answers_that_take_very_long_keep_a_cure_from_being_accepted(
    rare: float, rare_ms: float
) -> None:
    found = [judged(HOT, replace_world(CALM, rare, rare_ms), seed, heals=BOTH)[0] for seed in range(3)]
    assert not any(verdict.accepted for verdict in found)
    assert all("mean answer" in verdict.reason for verdict in found)


def test_answers_that_wait_by_chance_on_both_sides_are_no_tail() -> None:
    waiting: dict[str, Any] = QUIET | {"waits": 0.03}
    assert all(
        judged(World(**FAULT, **waiting), World(**waiting), seed, heals=BOTH)[0].accepted for seed in range(6)
    )


@pytest.mark.parametrize(("leak_mb", "rss_mb"), [(0.1, 130.0), (0.1, 2000.0), (1.9, 2000.0)])
def test_a_leak_that_is_small_beside_the_process_keeps_a_cure_from_being_accepted(
    leak_mb: float, rss_mb: float
) -> None:
    steady = {**QUIET, "rss_mb": rss_mb}
    for seed in range(3):
        verdict, _ = judged(World(**FAULT, **steady), World(leak_mb=leak_mb, **steady), seed, heals=BOTH)
        assert not verdict.accepted
    assert judged(World(**FAULT, **steady), World(**steady), 1, heals=BOTH)[0].accepted


@pytest.mark.parametrize("batches_needed", [10, 30])
@pytest.mark.parametrize("jitter", [0.02, 0.5])
def test_a_host_that_leaks_alike_on_both_sides_is_not_called_healed_or_worse(
    batches_needed: int, jitter: float
) -> None:
    world = World(leak_mb=0.8, rss_noise_mb=jitter)
    settings = HealSettings(max_pairs=160)
    found = Counter(
        judged(world, world, seed, settings=settings, batches_needed=batches_needed, **LEAK)[0].decision
        for seed in range(25)
    )
    assert found["improved"] == found["worse"] == 0, found


def test_the_benchmark_says_which_limit_is_missed() -> None:
    always = judging.Scenario("x", CALM, CALM, at_most={"accepted": 2.5}, at_least={"equivalent": 50.0})
    assert always.missed(judging.counted(always, 2), 2) == []
    never = judging.Scenario("x", CALM, CALM, at_most={"equivalent": 50.0}, at_least={"accepted": 90.0})
    assert never.missed(judging.counted(never, 2), 2) == ["equivalent ≤ 50 %", "accepted ≥ 90 %"]


@pytest.mark.alone
def test_the_bootstrap_takes_no_longer_than_scipys() -> None:
    took = judging.bootstrap()  # about half of it; both in the same run, since machines differ
    ours, peer = took["qigheal"], took["SciPy"]
    assert ours is not None
    assert peer is not None
    assert ours < peer
