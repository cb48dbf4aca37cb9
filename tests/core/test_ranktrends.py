"""Theil–Sen and Mann–Kendall, held against SciPy, against a published implementation's numbers, and by simulation."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qigcore.ranktrends import MOST
from qigcore.trends import MannKendall, mann_kendall, slope, theil_sen
from tests.reference import autoregression, concordant_less_discordant, hamed_rao_factor

NAN = math.nan
few = st.integers(-5, 5).map(float)  # many ties
many = st.floats(-1e6, 1e6)
series = st.one_of(st.lists(few, min_size=2, max_size=60), st.lists(many, min_size=2, max_size=60))


def pseudo(n, step):
    """A persistent series of whole numbers with a trend, the same wherever it is made."""
    made, level, seed = [], 0, 12345
    for i in range(n):
        seed = (1103515245 * seed + 12345) % 2**31
        level = 7 * level // 10 + (seed >> 16) % 41 - 20
        made.append(level + step * i)
    return made


# --- Theil–Sen --------------------------------------------------------------------------------------


@given(series)
def test_line_and_interval_are_those_of_scipy(values):
    found = theil_sen(values)
    expected = stats.theilslopes(values, np.arange(len(values)), method="separate")
    size = max(abs(value) for value in values)
    assert found.slope == pytest.approx(expected.slope, rel=1e-12, abs=1e-15 * size)
    assert found.intercept == pytest.approx(expected.intercept, rel=1e-9, abs=1e-12 * size)
    # Where there are too few pairs for 95 %, SciPy gives the outermost slope: less than 95 %.
    for ours, theirs in ((found.low, expected.low_slope), (found.high, expected.high_slope)):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-15 * size) or math.isinf(ours)
    if len(values) >= 6:
        assert math.isfinite(found.low)
        assert math.isfinite(found.high)
    assert found.low <= found.slope <= found.high


@given(series, st.lists(st.integers(0, 59), max_size=20))
def test_skipped_values_keep_their_place(values, gaps):
    holed = np.array(values)
    holed[[gap for gap in gaps if gap < len(values)]] = NAN
    usable = np.flatnonzero(np.isfinite(holed))
    found = theil_sen(holed)
    assert (found.count, found.skipped) == (len(usable), len(values) - len(usable))
    if len(usable) >= 2:
        expected = stats.theilslopes(holed[usable], usable, method="separate")
        assert found.slope == pytest.approx(expected.slope, rel=1e-12, abs=1e-9)
        assert found.intercept == pytest.approx(expected.intercept, rel=1e-9, abs=1e-8)


@given(st.lists(few, min_size=2, max_size=40), st.integers(1, 8), st.integers(-9, 9))
def test_the_line_moves_with_the_values(values, scale, lift):
    plain, moved = theil_sen(values), theil_sen([scale * value + lift for value in values])
    for name in ("slope", "low", "high"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(plain, name), rel=1e-12, abs=1e-12)
    assert moved.intercept == pytest.approx(scale * plain.intercept + lift, rel=1e-12, abs=1e-12)


def test_a_quarter_of_wild_values_does_not_move_the_line():
    values = 0.5 * np.arange(80) + np.random.default_rng(3).normal(size=80)
    wild = values.copy()
    wild[::4] = 1e9
    assert theil_sen(wild).slope == pytest.approx(theil_sen(values).slope, abs=0.15)
    assert abs(slope(wild).slope) > 1e5


def test_too_few_values():
    for values in ([], [NAN], [4.0], [4.0, math.inf]):
        found = theil_sen(values)
        assert all(math.isnan(x) for x in (found.slope, found.low, found.high, found.intercept))
    two = theil_sen([4.0, 6.0])
    assert (two.slope, two.low, two.high, two.intercept) == (2.0, -math.inf, math.inf, 4.0)


def test_a_series_of_both_ends_of_the_range_has_a_line():
    # The differences overflow: infinite slopes would make the median NaN or infinite.
    assert math.isfinite(theil_sen([-1.7e308, 1.7e308] * 5).slope)
    assert theil_sen([1.7e308 * (i / 10 - 1) for i in range(21)]).slope == pytest.approx(1.7e307, rel=1e-12)


def test_more_values_than_pairs_are_looked_at_of_are_gathered():
    rng = np.random.default_rng(4)
    values = 0.001 * np.arange(3 * MOST - 1) + rng.normal(size=3 * MOST - 1)
    values[100] = NAN
    found = theil_sen(values)
    assert (found.count, found.skipped, found.block) == (3 * MOST - 2, 1, 3)
    assert found.low < 0.001 < found.high
    assert found.slope == pytest.approx(slope(values).slope, abs=4 * slope(values).stderr)
    line = theil_sen(np.arange(5.0 * MOST))
    assert line.slope == 1.0
    assert line.intercept == pytest.approx(0.0, abs=1e-9)
    assert theil_sen(values[: MOST + 1]).block == 1


@pytest.mark.parametrize(("correction", "rho", "most"), [("none", 0.0, 0.07), ("ar1", 0.5, 0.09)])
def test_the_interval_holds_the_slope_as_often_as_it_says(correction, rho, most):
    rows = autoregression(50, rho, 1000, 21) + 0.3 * np.arange(50)
    found = [theil_sen(row, correction) for row in rows]
    assert 0.03 < np.mean([not each.low <= 0.3 <= each.high for each in found]) < most


# --- Mann–Kendall -----------------------------------------------------------------------------------


@given(series)
def test_s_and_variance_are_those_of_their_definitions(values):
    found = mann_kendall(values, "none")
    assert found.s == concordant_less_discordant(values)
    n = len(values)
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    assert found.variance == (n * (n - 1) * (2 * n + 5) - ties) / 18
    # Kendall's tau-b of the values with their times has the same sign and, standardised, the same size.
    if found.variance > 0.0 and n >= 3:
        tau = stats.kendalltau(np.arange(n), values, method="asymptotic")
        raw = found.s / math.sqrt(found.variance)
        assert 2.0 * stats.norm.sf(abs(raw)) == pytest.approx(tau.pvalue, rel=1e-9)
        shifted = math.copysign(abs(found.s) - 1, found.s) / math.sqrt(found.variance) if found.s else 0.0
        assert found.z == pytest.approx(shifted, rel=1e-12)
        assert found.p == pytest.approx(2.0 * stats.norm.sf(abs(found.z)), rel=1e-12)


@given(st.lists(few, min_size=10, max_size=40))
def test_the_correction_is_that_of_its_formula(values):
    line = theil_sen(values)
    assert mann_kendall(values).factor == pytest.approx(hamed_rao_factor(values, line.slope), rel=1e-9)


# pymannkendall 1.4.3, hamed_rao_modification_test(pseudo(n, step)) and original_test(…) for the second, whose
# factor of 0.70 is below 1: n, step, s, variance, z, p, slope
FROZEN = [
    (40, 0.0, 137, 8928.937894328565, 1.439259176926784, 0.1500771044972662, 0.4128787878787879),
    (60, 0.25, 665, 24578.333333333332, 4.235374957511804, 2.281706464501987e-05, 0.5983316481294236),
    (100, 0.125, 1097, 315066.7513325304, 1.9525819336976358, 0.05086915362385258, 0.21780792420327305),
    (30, -1.0, -139, 6530.758471941791, -1.7076437587330924, 0.08770246365451584, -1.2222222222222223),
]


@pytest.mark.parametrize(("n", "step", "s", "variance", "z", "p", "line"), FROZEN)
def test_the_numbers_of_another_implementation(n, step, s, variance, z, p, line):
    found = mann_kendall(pseudo(n, step))
    assert found.s == s
    assert found.variance == pytest.approx(variance, rel=1e-11)
    assert found.z == pytest.approx(z, rel=1e-11)
    assert found.p == pytest.approx(p, rel=1e-9)
    assert theil_sen(pseudo(n, step)).slope == pytest.approx(line, rel=1e-12)


@given(st.lists(many, min_size=2, max_size=40))
def test_only_the_order_counts_and_its_reverse_falls(values):
    plain, turned = mann_kendall(values, "none"), mann_kendall([-value for value in values], "none")
    assert (turned.s, turned.variance, turned.p) == pytest.approx(
        (-plain.s, plain.variance, plain.p), nan_ok=True
    )
    ranked = mann_kendall(stats.rankdata(values), "none")
    assert (ranked.s, ranked.variance) == (plain.s, plain.variance)


def test_directions():
    line = np.arange(30.0)
    assert mann_kendall(line).direction == "rising"
    assert mann_kendall(-line).direction == "falling"
    assert mann_kendall(line[:9]).direction == "unknown"
    assert mann_kendall([3.0] * 30) == MannKendall(0, 0.0, 0.0, 1.0, "none", 30, 0, 1.0, 1)
    for values in ([], [NAN] * 20, [1.0, 2.0, NAN]):
        found = mann_kendall(values)
        assert found.direction == "unknown"
        assert math.isnan(found.z)
        assert math.isnan(found.p)


@pytest.mark.parametrize(
    ("correction", "rho", "least", "most"),
    [
        ("none", 0.0, 0.02, 0.08),
        ("hamed-rao", 0.0, 0.02, 0.08),
        ("ar1", 0.0, 0.01, 0.07),
        ("none", 0.5, 0.15, 0.30),  # what the corrections are for
        ("hamed-rao", 0.5, 0.08, 0.22),
        ("ar1", 0.5, 0.03, 0.09),
        ("ar1", 0.9, 0.05, 0.15),
    ],
)
def test_flat_autoregressions_are_called_moving_as_often_as_documented(correction, rho, least, most):
    rows = autoregression(50, rho, 600, 22)
    moving = np.mean([mann_kendall(row, correction).direction != "none" for row in rows])
    assert least < moving < most


@pytest.mark.parametrize("ask", [theil_sen, mann_kendall])
def test_what_cannot_be_asked_is_refused(ask):
    with pytest.raises(ValueError, match=r"^values: expected one series, shape \[n\], got shape \[2, 1\]"):
        ask([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"^correction: expected 'hamed-rao', 'ar1' or 'none', got 'magic'"):
        ask([1.0, 2.0], "magic")
