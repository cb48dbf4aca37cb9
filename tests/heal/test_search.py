"""The search of settings: numbers in, numbers out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.healing.strategies.turning.search import Axis, Point, Residuals, loss, search

RATIOS = Axis(0.05, 20.0)
DIFFERENCES = Axis(-3.0, 5.0)


def best(tried: dict[Point, Residuals | None]) -> Point:
    return min(tried, key=lambda point: loss(tried[point]))


@pytest.mark.parametrize("axis", [RATIOS, DIFFERENCES, Axis(1.0, 4096.0, whole=True), Axis(0.1, 0.9)])
@given(positions=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_values_lie_in_the_range_in_order_and_lead_back(axis: Axis, positions: tuple[float, float]) -> None:
    near, far = (axis.value(position) for position in sorted(positions))
    assert axis.low <= near <= far <= axis.high
    assert axis.value(axis.position(near)) == near


def test_a_range_of_many_magnitudes_is_searched_by_ratios() -> None:
    assert RATIOS.logarithmic
    assert RATIOS.value(0.5) == 1.0
    assert not DIFFERENCES.logarithmic
    assert DIFFERENCES.value(0.5) == 1.0
    assert not Axis(1.0, 20.0).logarithmic


def test_a_value_outside_the_range_is_a_legal_start() -> None:
    assert RATIOS.position(30.0) == 1.0
    assert RATIOS.position(0.0) == 0.0


@pytest.mark.parametrize("wanted", [0.06, 0.2, 0.85, 3.3, 19.0])
def test_one_setting_is_found_in_a_dozen_measurements(wanted: float) -> None:
    def measure(point: Point) -> Residuals:
        away = math.log(point[0] / wanted)
        return np.array([25 * math.tanh(away), 30 * (math.exp(1.5 * away) - 1)])

    tried = search([RATIOS], (5.0,), measure, 14, seed=1)
    assert len(tried) <= 14
    assert best(tried)[0] == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("wanted", np.geomspace(0.06, 18, 15).tolist())
def test_a_steep_far_side_does_not_stall_it(wanted: float) -> None:
    """Plain interpolation creeps here: its steps shrink while the best point is still far away."""
    tried = search(
        [RATIOS], (5.0,), lambda point: np.array([10 * ((point[0] / wanted) ** 3 - 1)]), 14, seed=1
    )
    assert best(tried)[0] == pytest.approx(wanted, rel=0.01)


def test_settings_that_fail_are_walls() -> None:
    def measure(point: Point) -> Residuals | None:
        return None if point[0] < 0.7 or point[0] > 3 else np.array([10 * math.log(point[0] / 0.85)])

    assert best(search([RATIOS], (5.0,), measure, 14, seed=1))[0] == pytest.approx(0.85, rel=0.02)


def test_one_working_setting_is_still_a_start() -> None:
    def measure(point: Point) -> Residuals | None:
        return np.array([10 * math.log(point[0] / 0.85)]) if 0.8 < point[0] < 1.1 else None

    tried = search([RATIOS], (5.0,), measure, 14, seed=1)
    assert len(tried) > 7
    assert loss(tried[best(tried)]) < 1.7


def test_nothing_that_works_ends_the_search() -> None:
    tried = search([RATIOS], (5.0,), lambda point: None, 14, seed=1)
    assert set(tried.values()) == {None}
    assert loss(tried[best(tried)]) == math.inf


@pytest.mark.parametrize("evaluations", [1, 2, 3, 5, 20])
def test_the_budget_holds(evaluations: int) -> None:
    def measure(point: Point) -> Residuals:
        return np.array([math.log(point[0]) - 0.3, 0.2])

    assert 1 <= len(search([RATIOS], (5.0,), measure, evaluations, seed=1)) <= evaluations


@pytest.mark.parametrize("evaluations", [4, 7, 30])
def test_the_budget_holds_for_several_settings(evaluations: int) -> None:
    tried = search([RATIOS, DIFFERENCES], (5.0, 0.0), np.array, evaluations, seed=1)
    assert 1 <= len(tried) <= evaluations


def test_several_settings_come_near_and_the_same_way_twice() -> None:
    def measure(point: Point) -> Residuals | None:
        if point[1] > 4.5:
            return None
        return np.array([10 * math.log(point[0] / 0.85), 5 * (point[1] - 1.0)])

    first, second = (search([RATIOS, DIFFERENCES], (5.0, 4.0), measure, 60, seed=7) for _ in range(2))
    assert list(first) == list(second)
    assert loss(first[best(first)]) < 2.0
    assert loss(measure((5.0, 4.0))) > 20.0


@pytest.mark.parametrize("wanted", [(0.3, 0.0, 0.2), (1.0, 3.0, 0.5), (6.0, -2.0, 0.7)])
@pytest.mark.parametrize("count", [2, 3])
def test_settings_that_act_together_are_told_apart(count: int, wanted: Point) -> None:
    """Each figure depends on every setting, and not in a straight line."""
    axes = [RATIOS, DIFFERENCES, Axis(0.0, 1.0)][:count]

    def figures(point: Point) -> Residuals:
        x = np.array([axis.position(value) for axis, value in zip(axes, point, strict=True)])
        return np.array([x.sum() ** 2, *(x[i] * (1 + x[i - 1]) for i in range(1, count))]) / 0.03

    aim = figures(wanted[:count])
    tried = search(axes, (18.0, 4.5, 0.95)[:count], lambda point: figures(point) - aim, 16 * count - 2, 3)
    assert loss(tried[best(tried)]) < 1.0


def test_whole_settings_get_whole_numbers() -> None:
    tried = search(
        [Axis(1.0, 4096.0, whole=True)], (3.0,), lambda point: np.array([math.log(point[0] / 300)]), 14, 1
    )
    assert all(point[0] == int(point[0]) for point in tried)
    assert best(tried)[0] == pytest.approx(300, rel=0.02)
