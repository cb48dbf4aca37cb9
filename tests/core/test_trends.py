import math

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from qigcore.recorder import Recorder
from qigcore.trends import ENOUGH, RECENT, Slope, Trend, slope, trend
from tests.reference import autoregression, corrected_line, exact_line

NAN = math.nan
numbers = st.floats(-1e6, 1e6).map(lambda x: x if abs(x) > 1e-100 else 0.0)  # the twin's floats underflow
series = st.lists(numbers, min_size=3, max_size=60)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


# --- slope ------------------------------------------------------------------------------------------


@given(series)
def test_slope_is_that_of_exact_arithmetic(values):
    line, error, mean = exact_line(values)
    found = slope(values)
    size = max(abs(value) for value in values)
    assert found.slope == pytest.approx(line, rel=1e-9, abs=1e-13 * size)
    assert found.stderr_independent == pytest.approx(error, rel=1e-6, abs=1e-13 * size)
    assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-13 * size)
    assert (found.count, found.skipped) == (len(values), 0)


@given(st.lists(st.one_of(st.integers(-1000, 1000).map(float), st.just(NAN)), min_size=3, max_size=60))
def test_the_corrected_error_is_that_of_the_formulas(values):
    found = slope(values)
    if found.count < 3:
        assert math.isnan(found.stderr)
        return
    assume(found.stderr_independent > 1e-9)  # of residuals that are rounding alone, all digits differ
    error, correlation, effective, t = corrected_line(values)
    assert found.stderr == pytest.approx(error, rel=1e-8, abs=1e-9)
    assert found.autocorrelation == pytest.approx(correlation, rel=1e-8, abs=1e-8, nan_ok=True)
    assert found.effective == pytest.approx(effective, rel=1e-7)
    assert found.t == pytest.approx(t, rel=2e-6)
    assert 3.0 <= found.effective <= found.count
    assert found.stderr >= found.stderr_independent


def test_the_uncorrected_slope_and_error_are_those_of_numpy():
    values = 3.0 + 0.2 * np.arange(80) + noise(80)
    (line, _), covariance = np.polyfit(np.arange(80), values, 1, cov=True)
    found = slope(values)
    assert found.slope == pytest.approx(line, rel=1e-12)
    assert found.stderr_independent == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-12)


def test_a_large_offset_costs_no_digits():
    # What broke: mean(xy) − mean(x)·mean(y) keeps no digit of a slope of 1e-6 on memory of 1e9 bytes.
    values = 1e9 + 1e-6 * np.arange(50)
    assert slope(values).slope == pytest.approx(exact_line(values)[0], rel=1e-12)


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-600, 2.0**600, 2.0**1000])
def test_scale_does_not_matter_from_denormal_to_huge(scale):
    values = np.round(noise(40) * 1000)
    plain, scaled = slope(values), slope(values * scale)
    for name in ("slope", "stderr", "mean", "stderr_independent"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name) * scale, rel=1e-10)


def test_a_series_of_both_ends_of_the_range_has_a_slope():
    found = slope([-1.7e308, 1.7e308] * 10)
    assert math.isfinite(found.slope)
    assert math.isfinite(found.stderr)
    assert abs(found.mean) < 1e293


@given(series, st.lists(st.integers(0, 59), max_size=20))
def test_skipped_values_keep_their_place(values, gaps):
    holed = np.array(values)
    holed[[gap for gap in gaps if gap < len(values)]] = NAN
    found = slope(holed)
    usable = np.flatnonzero(np.isfinite(holed))
    assert (found.count, found.skipped) == (len(usable), len(values) - len(usable))
    if len(usable) >= 3:
        size = np.nanmax(np.abs(holed))
        assert found.slope == pytest.approx(exact_line(holed)[0], rel=1e-9, abs=1e-13 * size)


def test_infinities_are_skipped_too():
    # repr: a series this short has an autocorrelation of NaN, which equals nothing
    assert repr(slope([math.inf, 1.0, 2.0, -math.inf, 4.0])) == repr(slope([NAN, 1.0, 2.0, NAN, 4.0]))


def test_too_few_values_give_nan_and_no_error():
    def fields(values):
        found = slope(values)
        assert math.isnan(found.autocorrelation)
        assert math.isnan(found.t) == (found.count < 3)
        return msgspec.structs.astuple(found)[:5]

    assert fields([]) == pytest.approx((NAN, NAN, NAN, 0, 0), nan_ok=True)
    assert fields([NAN, NAN]) == pytest.approx((NAN, NAN, NAN, 0, 2), nan_ok=True)
    assert fields([4.0]) == pytest.approx((NAN, NAN, 4.0, 1, 0), nan_ok=True)
    assert fields([4.0, 6.0]) == pytest.approx((2.0, NAN, 5.0, 2, 0), nan_ok=True)
    assert fields([4.0, 6.0, 8.0]) == (2.0, 0.0, 6.0, 3, 0)


def test_a_constant_series_has_slope_0_exactly():
    t = stats.t.ppf(0.975, 35)
    assert slope([0.1] * 37) == Slope(
        0.0, 0.0, pytest.approx(0.1, rel=1e-15), 37, 0, 0.0, 0.0, 37.0, pytest.approx(t, rel=1e-6)
    )


def test_any_array_like_gives_the_slope_of_the_plain_one():
    values = np.round(noise(30) * 100)
    recorder = Recorder(dim=2, capacity=30)
    for value in values:
        recorder.record(0.5, value, np.ones(2))
    expected = slope(values)
    for other in (
        values.tolist(),
        values.astype("f4"),
        values.astype(">f8"),
        values.astype(int),
        values[::-1][::-1],
    ):
        assert slope(other) == expected
    assert slope(recorder.heads(30)["kappa_eff"]) == expected


def test_what_is_no_series_is_refused():
    with pytest.raises(ValueError, match=r"expected one series, shape \[n\], got shape \[2, 1\]"):
        slope([[1.0], [2.0]])
    with pytest.raises(ValueError, match="could not convert"):
        slope(["a", "b"])


# --- trend ------------------------------------------------------------------------------------------

RISING = np.arange(50) + 0.1 * noise(50)


@pytest.mark.parametrize(
    ("values", "better", "target", "direction"),
    [
        (RISING, "up", None, "improving"),
        (RISING, "down", None, "degrading"),
        (-RISING, "up", None, "degrading"),
        (-RISING, "down", None, "improving"),
        (noise(50, 1), "up", None, "stable"),
        (np.full(50, 0.75), "up", None, "stable"),
        (RISING, "toward", 100.0, "improving"),
        (RISING, "toward", -5.0, "degrading"),
        (RISING, "toward", 24.5, "stable"),
        (np.full(50, 60.0), "toward", 64.21, "stable"),
        (RISING[: ENOUGH - 1], "up", None, "unknown"),
        (RISING[:ENOUGH], "up", None, "improving"),
        ([], "up", None, "unknown"),
        (np.full(50, NAN), "toward", 1.0, "unknown"),
    ],
)
def test_direction(values, better, target, direction):
    assert trend(values, better, target).direction == direction


@pytest.mark.parametrize(
    ("n", "rho", "least", "most"),
    [
        (20, 0.0, 0.02, 0.05),
        (50, 0.0, 0.025, 0.055),
        (200, 0.0, 0.03, 0.06),
        (20, 0.5, 0.045, 0.09),
        (50, 0.5, 0.035, 0.075),
        (200, 0.5, 0.03, 0.07),
        (20, 0.9, 0.07, 0.14),
        (50, 0.9, 0.05, 0.10),
        (200, 0.9, 0.03, 0.08),
    ],
)
def test_flat_autoregressions_are_seldom_given_a_direction(n, rho, least, most):
    # What broke: errors of independent residuals named one for 25 % of them at rho = 0.5 and for 65 % at 0.9.
    # The bounds are the rates of 20,000 series ± 4 standard errors of the 2,000 here, or wider.
    moving = np.mean([trend(row, "up").direction != "stable" for row in autoregression(n, rho, 2000, 11)])
    assert least < moving < most


@pytest.mark.parametrize(
    ("n", "rho", "ratio"),
    [
        (20, 0.0, 1.08),
        (50, 0.0, 1.04),
        (200, 0.0, 1.02),
        (20, 0.5, 1.04),
        (50, 0.5, 1.02),
        (200, 0.5, 1.00),
        (20, 0.9, 0.94),
        (50, 0.9, 1.13),
        (200, 0.9, 1.05),
    ],
)
def test_the_standard_error_is_about_the_spread_of_slopes(n, rho, ratio):
    # The ratios are the documented ones, of 20,000 series; of 2,000 here their own error is up to 0.025.
    found = [slope(row) for row in autoregression(n, rho, 2000, 12)]
    spread = np.std([each.slope for each in found])
    assert np.median([each.stderr for each in found]) / spread == pytest.approx(ratio, abs=0.08)


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_a_trend_of_four_standard_errors_is_found_in_spite_of_the_correction(rho):
    # Power: with the error known, a slope of 4 of them is found in 98 % of cases.
    rows = autoregression(50, rho, 1000, 13)
    spread = np.std([slope(row).slope for row in rows])
    rows += 4.0 * spread * np.arange(50)
    assert np.mean([trend(row, "up").direction == "improving" for row in rows]) > (0.95, 0.85)[rho > 0.0]


@pytest.mark.parametrize("size", [3.0, 20.0, 100.0, 1e9])
@pytest.mark.parametrize("begin", [25, 40])
def test_a_bend_or_a_step_is_not_taken_for_autocorrelation(size, begin):
    # What broke: with the effective number of values alone, a step or a bend of 30 times the noise was `stable`.
    x = np.arange(50)
    step, bend = x >= begin, np.maximum(0, x - begin + 1) / (50 - begin)
    rows = [noise(50, seed) for seed in range(100)]
    assert np.mean([trend(row + size * step, "up").direction == "improving" for row in rows]) > 0.6
    if begin == 25:
        assert np.mean([trend(row + size * bend, "up").direction == "improving" for row in rows]) > 0.9


def test_missing_values_do_not_hide_autocorrelation():
    rows = autoregression(200, 0.8, 200, 14)
    rows[:, 5::7] = NAN
    rows[:, 60:80] = NAN
    assert np.mean([slope(row).autocorrelation for row in rows]) == pytest.approx(0.8, abs=0.03)


def test_without_neighbours_the_autocorrelation_is_unknown_and_counts_as_none():
    values = noise(60)
    values[::2] = NAN
    found = slope(values)
    assert math.isnan(found.autocorrelation)
    assert found.stderr == found.stderr_independent


def test_the_recent_mean_is_of_the_last_usable_values():
    values = np.arange(50.0)
    values[44:48] = NAN
    found = trend(values, "up")
    expected = [value for value in values if math.isfinite(value)][-RECENT:]
    assert found.recent_avg == pytest.approx(np.mean(expected), rel=1e-15)
    assert found.snapshots == 46
    assert trend([1.0, 2.0], "up").recent_avg == 1.5
    assert math.isnan(trend([NAN], "up").recent_avg)


def test_toward_a_target_the_slope_is_that_of_the_distance_and_the_mean_that_of_the_values():
    found = trend(RISING, "toward", 100.0)
    assert found.slope == pytest.approx(-slope(RISING).slope, rel=1e-12)
    assert found.recent_avg == pytest.approx(RISING[-10:].mean(), rel=1e-14)


def test_a_trend_of_flagged_values_only_is_unknown():
    nan = pytest.approx(NAN, nan_ok=True)
    assert trend([NAN] * 100, "down") == Trend("unknown", nan, nan, nan, 0, nan, None)


@pytest.mark.parametrize(
    ("better", "target", "message"),
    [
        ("sideways", None, "^better: expected 'up', 'down' or 'toward', got 'sideways'"),
        ("toward", None, "^target: expected a number"),
    ],
)
def test_what_cannot_be_asked_is_refused(better, target, message):
    with pytest.raises(ValueError, match=message):
        trend(RISING, better, target)
