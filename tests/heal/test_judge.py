"""The judge, on whole trials of simulated hosts: how often it errs, and what each veto and guard sees."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from benchmarks import judging
from qigcore.errors import TooLittleData
from qigheal.healing import judge
from qigheal.healing.diagnosis import UNSEEN_ERRORS
from qigheal.records import Answer, Guard, Trial, Verdict
from qigheal.settings import HealSettings
from tests.heal.simulated import World, diagnosis, judged, patch

SETTINGS = HealSettings()
QUIET: dict[str, Any] = {"wall_noise": 0.01, "waits": 0.0, "process_noise": 0.002}
# A temperature of 5 on the digits host: Φ gone, κ 15-fold, the basin smooth and aside.
FAULT: dict[str, Any] = {
    "phi": 0.04, "phi_sd": 0.004, "kappa": 1019.0, "kappa_sd": 8.0, "tilt": 0.05, "concentration": 4000.0,
}  # fmt: skip
CALM = World(**QUIET)
HOT = World(**FAULT, **QUIET)
BOTH = ("phi", "kappa")


def guard(verdict: Verdict, metric: str) -> Guard:
    return next(found for found in verdict.guards if found.metric == metric)


def replace_world(world: World, rare: float, rare_ms: float) -> World:
    return dataclasses.replace(world, rare=rare, rare_ms=rare_ms)


def with_after(trial: Trial, **changed: Any) -> Trial:
    """The trial with other answers of the patched side."""
    pairs = tuple(replace(pair, after=replace(pair.after, **changed)) for pair in trial.pairs)
    return replace(trial, pairs=pairs)


@pytest.fixture(scope="module")
def healed() -> Trial:
    return judged(HOT, CALM, 1, heals=BOTH)[1]


# How often it errs


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


# Good patches and bad ones


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


# What it could have seen


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


# Vetoes


def test_a_constant_phi_is_vetoed(healed: Trial) -> None:
    verdict = judge.verdict(with_after(healed, phi=0.77), SETTINGS)
    assert verdict.decision == "refused"
    assert "Φ no longer varies" in verdict.vetoes[0]


def test_a_constant_basin_is_vetoed(healed: Trial) -> None:
    verdict = judge.verdict(with_after(healed, basin=healed.pairs[0].after.basin), SETTINGS)
    assert verdict.decision == "refused"
    assert "the basin no longer varies" in verdict.vetoes[0]


def test_a_signal_that_is_steady_when_healthy_may_be_steady(healed: Trial) -> None:
    bands = healed.target.bands
    steady = replace(healed.target, bands={**bands, "phi": replace(bands["phi"], sd=0.0)})
    verdict = judge.verdict(with_after(replace(healed, target=steady), phi=0.77), SETTINGS)
    assert verdict.accepted


def digests(trial: Trial, before: str | None, after: str | None, control: str | None) -> Trial:
    def told(answer: Answer, digest: str | None) -> Answer:
        return replace(answer, output_digest=digest)

    return replace(
        trial,
        patch=patch(heals=BOTH, same_output=True),
        pairs=tuple(
            replace(pair, before=told(pair.before, before), after=told(pair.after, after))
            for pair in trial.pairs
        ),
        control=tuple(
            replace(pair, before=told(pair.before, before), after=told(pair.after, control))
            for pair in trial.control
        ),
    )


@pytest.mark.parametrize(
    ("before", "after", "control", "veto"),
    [
        ("x", "x", "x", ""),
        ("x", "y", "x", "80 of 80 outputs differ"),
        ("x", "x", "z", "answers one request in two ways"),
        (None, None, None, "reports no output_digest"),
    ],
)
def test_outputs_must_be_equal_where_the_patch_says_so(
    healed: Trial, before: str | None, after: str | None, control: str | None, veto: str
) -> None:
    verdict = judge.verdict(digests(healed, before, after, control), SETTINGS)
    assert verdict.accepted is not bool(veto)
    assert veto in " ".join(verdict.vetoes)


@pytest.mark.parametrize(
    ("trial", "decision", "said"),
    [
        (
            {"refusals": ("Makefile: decides how the code is built",)},
            "refused",
            "the patch is refused: Makefile",
        ),
        (
            {"tests_passed": False, "tests_output": "..\n2 failed"},
            "refused",
            "tests fail with the patch: 2 failed",
        ),
        ({"tests_passed": False}, "refused", "they print nothing"),
        ({"problems": ("patched code: hangs",), "failed_side": "after"}, "refused", "patched code: hangs"),
        ({"problems": ("unpatched code: hangs",), "failed_side": "before"}, "inconclusive", "incomplete"),
        ({"problems": ("no bubblewrap",)}, "inconclusive", "no bubblewrap"),
    ],
)
def test_what_no_measurement_can_change(
    healed: Trial, trial: dict[str, Any], decision: str, said: str
) -> None:
    spoiled = replace(healed, **trial)
    verdict = judge.verdict(spoiled, SETTINGS)
    assert verdict.decision == decision
    assert not verdict.accepted
    assert said in verdict.reason
    assert verdict.fitness is None
    assert not judge.needs_more(spoiled, SETTINGS)


# Effects that take longer than a start


def filling(most_mb: float) -> World:
    return World(leak_mb=0.8, leak_most_mb=most_mb, **QUIET)


LEAK: dict[str, Any] = {"observed": {"memory": 0.8}, "named": ("memory",), "heals": ("memory",)}


def test_a_bound_that_takes_forty_answers_shows() -> None:
    verdict, _ = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    assert verdict.accepted, verdict.reason
    assert verdict.fitness is not None
    assert verdict.fitness.components["service"] == 1.0
    assert verdict.pairs == 8 * 50
    # Told to need no longer than usual, the same patch shows nothing: no start ever sees it full.
    verdict, _ = judged(filling(math.inf), filling(28.0), 1, settings=HealSettings(max_pairs=80), **LEAK)
    assert not verdict.accepted


def test_what_a_patch_costs_once_its_bound_is_reached_counts_whole() -> None:
    _, trial = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    first = {number: next(i for i, p in enumerate(trial.pairs) if p.round == number) for number in range(8)}
    slower = tuple(
        replace(pair, after=replace(pair.after, wall_ms=1.2 * pair.after.wall_ms))
        if i - first[pair.round] >= 40
        else pair
        for i, pair in enumerate(trial.pairs)
    )
    verdict = judge.verdict(replace(trial, pairs=slower), SETTINGS)
    assert not verdict.accepted
    assert guard(verdict, "latency").estimate == pytest.approx(0.2, abs=0.03)


def test_failures_before_the_bound_is_reached_count_too() -> None:
    _, trial = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    first = {number: next(i for i, p in enumerate(trial.pairs) if p.round == number) for number in range(8)}
    failing = tuple(
        replace(pair, after=replace(pair.after, error_rate=0.05)) if i - first[pair.round] < 30 else pair
        for i, pair in enumerate(trial.pairs)
    )
    verdict = judge.verdict(replace(trial, pairs=failing), SETTINGS)
    assert not verdict.accepted
    assert guard(verdict, "errors").estimate == pytest.approx(0.03, abs=0.001)


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


# The long form of these: python -m benchmarks.judging


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
