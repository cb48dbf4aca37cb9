"""The judge, on whole trials of simulated hosts: good patches and bad ones, and when it has seen enough."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from qigcore.errors import TooLittleData
from qigheal.healing import judge
from qigheal.healing.diagnosis import UNSEEN_ERRORS
from qigheal.records import Trial, Verdict
from qigheal.settings import HealSettings
from tests.heal.judgedworlds import BOTH, CALM, FAULT, HOT, QUIET, SETTINGS, cured, guard, with_after
from tests.heal.simulated import World, diagnosis, judged, patch


@pytest.fixture(scope="module")
def healed() -> Trial:
    return cured()


def test_the_digits_fault_is_healed() -> None:
    verdict, trial = judged(HOT, CALM, 1, heals=BOTH)
    assert verdict.accepted
    assert verdict.decision == "improved"
    assert verdict.fitness is not None
    assert verdict.fitness.point == pytest.approx(0.74975)  # 0.75 less two lines
    assert verdict.fitness.low > SETTINGS.fitness_threshold
    assert verdict.fitness.components["phi"] == 1.0
    assert verdict.vetoes == ()
    assert {found.result for found in verdict.guards} == {"pass"}
    assert verdict.pairs == len(trial.pairs) == 80
    assert verdict.sandbox_level == "namespaces"


def test_its_reverse_is_worse_as_soon_as_starts_can_tell() -> None:
    verdict, _ = judged(CALM, HOT, 1)
    assert verdict.decision == "worse"
    assert not verdict.accepted
    assert verdict.pairs <= 2 * SETTINGS.min_pairs
    assert guard(verdict, "phi").result == guard(verdict, "kappa").result == "worse"
    assert "Φ is worse by 23" in verdict.reason


def test_a_smoother_basin_alone_heals_nothing_and_its_cure_harms_nothing() -> None:
    # Raw drift falls when a basin is smoothed, and rises when that is undone: neither is health.
    smooth, rough = World(concentration=4000.0, **QUIET), World(concentration=400.0, **QUIET)
    for before, after in ((smooth, rough), (rough, smooth)):
        verdict, _ = judged(before, after, 2)
        assert verdict.decision == "equivalent"
        assert guard(verdict, "basin_drift").estimate == 0.0


def test_a_cure_that_helps_halfway_is_told_from_none() -> None:
    verdict, _ = judged(HOT, World(**{**FAULT, **QUIET, "phi": 0.5, "kappa": 300.0}), 1, heals=BOTH)
    assert verdict.accepted  # three quarters of the excess are gone
    verdict, _ = judged(HOT, World(**{**FAULT, **QUIET, "phi": 0.2, "kappa": 900.0}), 1, heals=BOTH)
    assert verdict.decision == "refused"
    assert "is not healed" in verdict.reason


def test_slow_requests_are_healed_by_the_parents_clock() -> None:
    slow = {"observed": {"latency": 50.0}, "named": ("latency",), "heals": ("latency",)}
    verdict, _ = judged(World(wall_ms=30.0, **QUIET), World(wall_ms=2.7, **QUIET), 1, **slow)
    assert verdict.accepted, verdict.reason  # 50 ms become 4.5 ms, though this machine is a faster one
    assert verdict.fitness is not None
    assert verdict.fitness.components["service"] == 1.0
    verdict, _ = judged(World(wall_ms=30.0, **QUIET), World(wall_ms=30.0, **QUIET), 1, **slow)
    assert verdict.decision == "refused"


def test_what_a_probe_says_of_its_own_speed_is_not_heard(healed: Trial) -> None:
    told = with_after(healed, avg_latency_ms=1e-6)
    assert judge.verdict(told, SETTINGS) == judge.verdict(healed, SETTINGS)


def test_a_leak_is_healed_by_the_kernels_count() -> None:
    leak = {"observed": {"memory": 12.0}, "named": ("memory",), "heals": ("memory",)}
    verdict, _ = judged(World(leak_mb=0.8, **QUIET), CALM, 1, **leak)
    assert verdict.accepted, verdict.reason
    assert verdict.fitness is not None
    assert verdict.fitness.components["service"] == 1.0
    verdict, _ = judged(World(leak_mb=0.8, **QUIET), World(leak_mb=0.79, **QUIET), 1, **leak)
    assert verdict.decision == "refused"


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        ({"wall_ms": 10.0}, "latency"),
        ({"errors": 0.02}, "errors"),
        ({"rss_mb": 143.0}, "memory"),
        ({"leak_mb": 1.0}, "memory_growth"),
        ({"tilt": 0.6}, "basin_drift"),
    ],
)
def test_harm_of_each_kind_is_worse_even_beside_a_cure(change: dict[str, Any], metric: str) -> None:
    verdict, _ = judged(HOT, World(**{**QUIET, **change}), 3, heals=BOTH)
    assert verdict.decision == "worse", verdict.reason
    assert guard(verdict, metric).result == "worse"


def test_kappa_just_outside_its_band_is_harm_for_a_healthy_host_only() -> None:
    outside = World(**QUIET, kappa=75.0)
    verdict, _ = judged(CALM, outside, 3)
    assert verdict.decision == "worse"
    assert guard(verdict, "kappa").result == "worse"
    assert judged(HOT, outside, 3, heals=BOTH)[0].accepted  # it was 1019


def test_a_price_may_be_paid_within_the_healthy_band_only() -> None:
    failing = {"named": ("errors",), "heals": ("errors",)}
    errors = World(errors=0.10, **QUIET)
    slower, too_slow = World(wall_ms=6.0, **QUIET), World(wall_ms=12.0, **QUIET)  # the band ends at 8 ms
    assert judged(errors, slower, 1, price="latency", **failing)[0].accepted
    assert judged(errors, slower, 1, **failing)[0].decision == "worse"
    verdict, _ = judged(errors, too_slow, 1, price="latency", **failing)
    assert verdict.decision == "worse"
    assert guard(verdict, "latency").margin == 0.0
    assert guard(verdict, "latency").estimate == pytest.approx(0.5, abs=0.03)


def test_a_price_that_was_too_high_without_the_patch_is_not_held_against_it() -> None:
    failing = {"named": ("errors",), "heals": ("errors",), "price": "latency"}
    outside = QUIET | {"wall_ms": 20.0}  # the band ends at 8 ms
    errors = World(errors=0.10, **outside)
    for after_ms, accepted in ((20.0, True), (26.0, False)):
        _, trial = judged(errors, World(**outside | {"wall_ms": after_ms}), 1, **failing)
        live = replace(trial, observed={"latency": 20.0})
        assert judge.verdict(live, SETTINGS).accepted == accepted


def test_errors_of_a_service_that_never_failed_are_scored_by_the_band_it_is_told_by() -> None:
    """Without a band, the term of errors would say that nothing changed, and no cure could be accepted."""
    unmoved = {**diagnosis().target.bands, "errors": UNSEEN_ERRORS}
    bare = {name: band for name, band in unmoved.items() if name != "errors"}
    failing = {"named": ("errors",), "heals": ("errors",)}
    _, trial = judged(World(errors=0.05, **QUIET), World(**QUIET), 1, **failing)
    for bands, accepted in ((unmoved, True), (bare, False)):
        told = replace(trial, target=replace(trial.target, bands=bands))
        assert judge.verdict(told, SETTINGS).accepted == accepted


def test_the_price_may_be_errors_or_memory_growth() -> None:
    for price, paid, unpaid in (
        ("errors", {"errors": 0.004}, {"errors": 0.05}),
        ("memory", {"leak_mb": 0.1}, {"leak_mb": 2.0}),
    ):
        assert judged(HOT, World(**paid, **QUIET), 1, heals=BOTH, price=price)[0].accepted
        assert judged(HOT, World(**unpaid, **QUIET), 1, heals=BOTH, price=price)[0].decision == "worse"


def test_several_prices_may_be_paid_each_within_its_healthy_band() -> None:
    both = {"heals": BOTH, "prices": ("latency", "memory")}
    verdict, _ = judged(HOT, World(**QUIET | {"wall_ms": 6.0, "rss_mb": 150.0}), 1, **both)
    assert verdict.accepted
    assert "latency is worse by 20." in verdict.reason  # and is told all the same
    assert "within its healthy band" in verdict.reason
    assert guard(verdict, "memory").estimate == pytest.approx(0.15, abs=0.02)
    for unpaid in ({"wall_ms": 12.0}, {"rss_mb": 300.0}, {"leak_mb": 2.0}, {"errors": 0.02}):
        assert judged(HOT, World(**QUIET | unpaid), 1, **both)[0].decision == "worse"
    # A leak within the band is doubted all the same where memory is one price among others.
    assert not judged(HOT, World(**QUIET | {"leak_mb": 0.1}), 1, **both)[0].accepted


def test_what_is_healed_is_no_price() -> None:
    paying = patch(heals=("latency",), price="memory", prices=("latency", "memory", "errors"))
    assert paying.paid == {"memory", "errors"}
    assert patch().paid == frozenset()


def test_an_accepted_patch_of_tier_safe_ends_with_a_person_where_one_is_needed() -> None:
    slow = {"observed": {"latency": 50.0}, "named": ("latency",), "heals": ("latency",)}
    verdict, trial = judged(World(wall_ms=30.0, **QUIET), World(wall_ms=2.7, **QUIET), 1, **slow)
    assert verdict.accepted
    assert verdict.needs_person == ()
    assert [verdict.tier(tier) for tier in ("safe", "guarded", "review")] == ["safe", "guarded", "review"]
    taken = judge.verdict(replace(trial, loosens=("one", "two", "three", "four")), SETTINGS)
    assert taken.accepted
    assert taken.needs_person == ("one", "two", "three", "four")
    assert taken.reason.endswith("A person must decide: one; two; three; and 1 more")
    assert [taken.tier(tier) for tier in ("safe", "guarded", "review")] == ["review", "guarded", "review"]
    failing = replace(trial, tests_passed=False, loosens=("one",))
    assert judge.verdict(failing, SETTINGS).needs_person == ()


def test_two_faults_are_healed_one_at_a_time() -> None:
    both = World(**FAULT, wall_ms=30.0, **QUIET)
    slow, well = World(wall_ms=30.0, **QUIET), World(wall_ms=2.7, **QUIET)
    seen = {"observed": {"latency": 50.0}, "named": ("phi", "kappa", "latency")}
    first, _ = judged(both, slow, 1, heals=BOTH, **seen)
    assert first.accepted, first.reason  # though latency is where it was
    second, _ = judged(slow, well, 1, heals=("latency",), **{**seen, "named": ("latency",)})
    assert second.accepted, second.reason
    claimed, _ = judged(both, slow, 1, heals=(*BOTH, "latency"), **seen)
    assert not claimed.accepted
    assert "latency is not healed" in claimed.reason


# Looks
def test_looks_double_and_end_at_the_most() -> None:
    assert judge.looks(10, SETTINGS) == (20, 40, 80, 160, 320, 640)
    # Starts of 16 + 10 pairs: 2, 4, 8, 16 of them, and as many as 640 pairs make.
    assert judge.looks(16, SETTINGS) == (52, 104, 208, 416, 624)
    # Longer ones: 16 starts at the most, so that two looks can accept.
    assert judge.looks(256, SETTINGS) == (532, 1064, 2128, 4256)
    assert judge.looks(10, HealSettings(min_pairs=21, max_pairs=81)) == (22, 44, 82)


def test_more_pairs_are_wanted_until_a_look_decides(healed: Trial) -> None:
    def cut(pairs: int) -> Trial:
        return replace(healed, pairs=healed.pairs[:pairs], control=healed.control[: pairs // 2])

    assert judge.needs_more(cut(10), SETTINGS)
    assert judge.verdict(cut(10), SETTINGS).reason == "10 pairs were measured, 20 are needed"
    assert judge.needs_more(cut(20), SETTINGS)  # too few starts to be sure of latency
    assert judge.verdict(cut(20), SETTINGS).decision == "inconclusive"
    assert judge.needs_more(cut(60), SETTINGS)  # no look is due, whatever it would say
    assert not judge.needs_more(healed, SETTINGS)
    needing = replace(healed, patch=patch(heals=BOTH, batches_needed=50))
    assert judge.needs_more(needing, SETTINGS)


def test_an_undecided_trial_ends_at_the_most() -> None:
    few = HealSettings(max_pairs=80)
    verdict, trial = judged(
        World(**FAULT, wall_noise=0.4), World(wall_noise=0.4), 1, settings=few, heals=BOTH
    )
    assert len(trial.pairs) == 80
    assert verdict.decision == "inconclusive"
    assert "latency may be worse" in verdict.reason
    assert not judge.needs_more(trial, few)


def test_a_score_that_is_not_certain_asks_for_more() -> None:
    noisy = {"phi_sd": 0.05, "shared": 0.0}
    verdict, _ = judged(
        World(phi=0.70, **noisy, **QUIET), World(phi=0.714, **noisy, **QUIET), 4,
        settings=HealSettings(max_pairs=80),
    )  # fmt: skip
    assert verdict.decision == "inconclusive"
    assert verdict.fitness is not None
    assert verdict.fitness.low <= SETTINGS.fitness_threshold < verdict.fitness.high


def test_a_healthy_host_has_nothing_to_heal() -> None:
    verdict, _ = judged(CALM, CALM, 1, heals=BOTH)
    assert verdict.decision == "equivalent"
    assert "nothing to heal" in verdict.reason


def test_an_answer_of_a_fifth_of_a_millisecond_is_not_judged_to_the_microsecond() -> None:
    quick = {"wall_ms": 0.2, "wall_noise": 0.1}
    verdict, _ = judged(World(**FAULT, **quick), World(**{**quick, "wall_ms": 0.21}), 1, heals=BOTH)
    assert verdict.accepted
    assert guard(verdict, "latency").margin == pytest.approx(0.25, rel=0.3)


# Pure and plain
def test_the_same_trial_gets_the_same_verdict_and_both_can_be_stored(healed: Trial) -> None:
    verdict = judge.verdict(healed, SETTINGS)
    stored = msgspec.json.decode(msgspec.json.encode(healed), type=Trial)
    assert judge.verdict(stored, SETTINGS) == verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    figures = [value for found in verdict.guards for value in (found.estimate, found.low, found.high)]
    assert all(map(math.isfinite, figures))


def test_verdicts_without_a_bound_can_be_stored_too() -> None:
    few, trial = judged(CALM, CALM, 1, settings=HealSettings(max_pairs=80))
    early = judge.verdict(replace(trial, pairs=trial.pairs[:20]), SETTINGS)
    assert "any amount" in early.reason
    assert msgspec.json.decode(msgspec.json.encode(early), type=Verdict) == early
    assert few.decision == "equivalent"


def test_one_start_of_the_processes_is_no_trial(healed: Trial) -> None:
    flat = replace(healed, pairs=tuple(replace(pair, round=0) for pair in healed.pairs))
    with pytest.raises(TooLittleData, match="2 starts of its processes"):
        judge.verdict(flat, SETTINGS)


def test_a_metric_without_a_band_is_neither_scored_nor_guarded() -> None:
    bands = {name: band for name, band in diagnosis().target.bands.items() if name == "basin_drift"}
    _, trial = judged(CALM, CALM, 1, settings=HealSettings(max_pairs=80))
    bare = replace(trial, target=replace(trial.target, bands=bands), observed={})
    verdict = judge.verdict(bare, SETTINGS)
    assert {found.metric for found in verdict.guards} == {
        "basin_drift", "errors", "latency", "memory", "memory_growth",
    }  # fmt: skip
    assert verdict.fitness is not None
    assert verdict.fitness.components["phi"] == 0.5
