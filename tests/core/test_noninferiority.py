from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from qigcore.errors import TooLittleData
from qigcore.noninferiority import (
    MOST_RANKED,
    UNBOUNDED,
    Estimate,
    SignedRank,
    Student,
    block_mean,
    detectable,
    holm,
    t_quantile,
    t_tail,
)
from tests import reference

VALUES = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=9)


@pytest.mark.parametrize("freedom", [1, 2, 5, 9, 39, 199, 5000])
@pytest.mark.parametrize("t", [-4.0, -0.3, 0.0, 0.1, 1.0, 4.0, 12.0])
def test_t_tail_agrees_with_scipy(t: float, freedom: int) -> None:
    assert t_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 3, 9, 40, 1000])
@pytest.mark.parametrize("level", [0.5, 0.05, 0.00625, 2.4e-5])
def test_t_quantile_agrees_with_scipy(level: float, freedom: int) -> None:
    assert t_quantile(level, freedom) == pytest.approx(scipy.stats.t.isf(level, freedom), rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("level", [0.0, 0.6, -1.0])
def test_t_quantile_refuses_what_is_no_upper_level(level: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most"):
        t_quantile(level, 3)


@given(VALUES, st.floats(-5, 5))
def test_signed_rank_tail_is_that_of_all_signs(values: list[float], shift: float) -> None:
    away = [abs(value - shift) for value in values]
    if min(away) == 0 or len({round(a, 9) for a in away}) < len(away):
        return  # ties: the exact law is another one
    found = SignedRank(np.array(values)).tail(shift)
    assert found == pytest.approx(reference.signed_rank_tail(values, shift))


def test_signed_rank_is_scipys() -> None:
    values = np.random.default_rng(3).normal(0.4, 1.0, 24)
    expected = scipy.stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    assert SignedRank(values).tail(0.0) == pytest.approx(expected)


@given(VALUES, st.sampled_from([0.05, 0.02, 0.3]))
def test_bounds_and_tail_tell_the_same(values: list[float], level: float) -> None:
    for estimate in (SignedRank(np.array(values)), block_mean(np.array(values))):
        low, high = estimate.low(level), estimate.high(level)
        assert low <= estimate.value <= high
        if low > -UNBOUNDED and high - low > 1e-6:
            step = 1e-7 * max(1.0, abs(low))
            assert estimate.tail(low - step) <= level * (1 + 1e-6)
            assert estimate.tail(low + step) > level * (1 - 1e-6)


@given(VALUES)
def test_bounds_mirror(values: list[float]) -> None:
    one, other = SignedRank(np.array(values)), SignedRank(-np.array(values))
    assert one.low(0.05) == pytest.approx(-other.high(0.05))
    assert one.value == pytest.approx(-other.value)


def test_few_differences_give_no_strict_bound() -> None:
    differences = SignedRank(np.array([0.5, 0.6, 0.7]))
    assert differences.low(0.2) == pytest.approx(0.5)
    assert differences.low(0.1) == -UNBOUNDED
    assert differences.high(0.1) == UNBOUNDED


def test_eight_differences_speak_at_one_in_256() -> None:
    differences = SignedRank(np.linspace(0.01, 0.02, 8))
    assert differences.high(1 / 256) == pytest.approx(0.02)
    assert differences.high(1 / 257) == UNBOUNDED


def test_a_quarter_of_outliers_does_not_move_the_centre_far() -> None:
    # A mean would say 0.25: the speed of processes has such outliers (allocators that give memory back).
    values = np.random.default_rng(0).normal(0.0, 0.01, 40)
    values[:10] += 1.0
    assert SignedRank(values).value < 0.02


def test_many_differences_are_averaged_in_runs() -> None:
    values = np.random.default_rng(5).normal(0.1, 1.0, 5 * MOST_RANKED)
    found = SignedRank(values)
    assert found.value == pytest.approx(0.1, abs=0.1)
    assert found.low(0.025) < 0.1 < found.high(0.025)


@pytest.mark.parametrize("value", [0.0, 0.2])
def test_values_without_spread_are_taken_at_their_word(value: float) -> None:
    for estimate in (SignedRank(np.full(2, value)), block_mean(np.full(2, value)), Student(value, 0.0, 1)):
        assert estimate.low(1e-6) == estimate.high(1e-6) == value
        assert estimate.tail(0.1) == (0.0 if value > 0.1 else 1.0)


def test_one_value_bounds_nothing() -> None:
    for make in (SignedRank, block_mean):
        with pytest.raises(TooLittleData, match="at least 2 values, got 1"):
            make(np.array([1.0]))


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=8), st.sampled_from([0.05, 0.001]))
def test_holm_is_the_step_down_procedure(tails: list[float], level: float) -> None:
    levels = holm(tails, level)
    rejected = {i for i, (tail, own) in enumerate(zip(tails, levels, strict=True)) if tail <= own}
    assert rejected == reference.holm_rejects(tails, level)


def test_holm_grants_later_tests_more() -> None:
    assert holm([0.2, 0.001, 0.01], 0.06) == pytest.approx((0.06, 0.02, 0.03))


def test_bounds_hold_as_often_as_they_say() -> None:
    # Level 5 %, 2,000 samples of 10: more than 6.6 % wrong would be 3.3 standard errors too many.
    draw = np.random.default_rng(17)
    wrong = {"student": 0, "ranks": 0}
    for _ in range(2000):
        values = draw.normal(0.0, 1.0, 10)
        wrong["student"] += block_mean(values).low(0.05) > 0
        wrong["ranks"] += SignedRank(values).low(0.05) > 0
    assert 60 <= wrong["student"] <= 132
    assert 40 <= wrong["ranks"] <= 132
    assert math.isfinite(block_mean(np.array([1.0, 2.0])).low(0.01))


# What a trial could have seen


@pytest.mark.parametrize("make", [block_mean, SignedRank], ids=["t", "ranks"])
@pytest.mark.parametrize("count", [16, 64])
def test_a_shift_of_the_detectable_size_is_seen_in_four_cases_of_five(
    make: Callable[[np.ndarray], Estimate], count: int
) -> None:
    draw, level = np.random.default_rng(5), 0.00625
    sizes = [detectable(make(draw.normal(size=count)), level) for _ in range(200)]
    size = float(np.mean([found for found in sizes if found is not None]))
    seen = np.mean([make(size + draw.normal(size=count)).low(level) > 0.0 for _ in range(1000)])
    assert 0.77 < seen < 0.9  # a little more than 0.8 for few data


def test_detectable_shrinks_with_more_data_and_grows_with_power() -> None:
    values = np.random.default_rng(6).normal(size=400)
    few, many = (detectable(block_mean(values[:n]), 0.025) for n in (25, 400))
    assert few is not None
    assert many is not None
    assert many == pytest.approx(2.8 * values.std() / 20, rel=0.02)  # Bloom's multiplier
    assert few > 3 * many
    surer = detectable(block_mean(values), 0.025, power=0.95)
    assert surer is not None
    assert surer > many


def test_nothing_is_detectable_without_noise_or_with_too_few_data() -> None:
    assert detectable(block_mean(np.zeros(10)), 0.025) is None
    assert detectable(SignedRank(np.array([0.1, 0.2, 0.3])), 0.025) is None
