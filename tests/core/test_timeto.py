"""Time to a limit: the interval against its definition and by simulation, the courses, and the words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore.errors import InvalidLimit
from qigcore.trends import TimeTo, slope, time_to
from tests.reference import autoregression, fieller_set

NAN = math.nan
numbers = st.integers(-200, 200).map(float)


@given(st.lists(numbers, min_size=10, max_size=40), st.integers(-400, 400), st.integers(-20, 20))
def test_the_interval_is_the_set_of_its_definition(values, limit, tilt):
    values = [value + tilt * i for i, value in enumerate(values)]
    line = slope(values)
    found = time_to(values, limit)
    if not line.stderr > 1e-6:
        return
    at = np.linspace(0.0, 300.0, 1501)
    inside = fieller_set(values, limit, line, at)
    assert found.count == len(values)
    assert found.level == pytest.approx(line.mean + line.slope * (len(values) - 1) / 2, rel=1e-9, abs=1e-9)
    assert (abs(line.slope) <= line.t * line.stderr) == (found.course == "noise")
    if found.course == "noise":
        assert math.isnan(found.eta)
        assert found.high == math.inf
        assert not inside[at < found.low - 1e-6].any()
        if found.low + 0.4 < 300.0:
            assert inside[(at >= found.low) & (at < found.low + 0.4)].any()
    elif found.course == "reaches":
        assert found.level + line.slope * found.eta == pytest.approx(limit, rel=1e-6, abs=1e-6)
        assert found.low <= found.eta <= found.high
        assert inside[(at > found.low + 1e-6) & (at < found.high - 1e-6)].all()
        assert not inside[(at < found.low - 1e-6) | (at > found.high + 1e-6)].any()
    elif found.course == "passed":
        assert found.level + line.slope * found.eta == pytest.approx(limit, rel=1e-6, abs=1e-6)
        assert 1 - len(values) <= found.eta < 0.0
        assert found.low <= found.eta <= found.high
    else:
        assert math.isnan(found.eta)
        assert (found.level - limit) * line.slope > 0.0


@pytest.mark.parametrize(
    ("n", "rho", "least"), [(20, 0.0, 0.93), (50, 0.0, 0.93), (50, 0.5, 0.91), (200, 0.9, 0.90)]
)
def test_the_interval_holds_the_true_time_as_often_as_it_says(n, rho, least):
    # The true line is at the limit n snapshots from now; noise and slope are such that most intervals are finite.
    rows = autoregression(n, rho, 1500, 31) * math.sqrt(1.0 - rho * rho) * (1.0 - rho)
    rows += 6.0 * (2 * n - 1 - np.arange(n)) / n
    found = [time_to(row, 0.0) for row in rows]
    assert np.mean([math.isfinite(each.high) for each in found]) > 0.5
    covered = np.mean([each.low <= n <= each.high for each in found])  # NaN compares as a miss
    assert least < covered < 0.995


def test_an_exact_line_is_exact():
    found = time_to(100.0 - 2.0 * np.arange(40), 10.0, interval_s=60.0)
    assert (found.course, found.count, found.skipped) == ("reaches", 40, 0)
    assert (found.eta, found.low, found.high, found.level) == pytest.approx((6.0, 6.0, 6.0, 22.0), rel=1e-12)
    assert (found.eta_s, found.low_s, found.high_s) == pytest.approx((360.0, 360.0, 360.0), rel=1e-12)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-500, 2.0**500, 2.0**990])
def test_scale_does_not_matter(scale):
    values = np.round(1000.0 - 20.0 * np.arange(40) + 30.0 * np.random.default_rng(1).normal(size=40))
    plain, scaled = time_to(values, -300.0), time_to(values * scale, -300.0 * scale)
    for name in ("eta", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9)


def test_newest_values_that_are_missing_count_as_time():
    values = 100.0 - 2.0 * np.arange(40)
    values[35:] = NAN
    found = time_to(values, 10.0)
    assert (found.eta, found.skipped) == (pytest.approx(6.0), 5)


def test_courses():
    rng = np.random.default_rng(2)
    falling = 1.0 - 0.01 * np.arange(50) + 0.002 * rng.normal(size=50)
    assert time_to(falling, 0.4).course == "reaches"
    assert time_to(falling, 0.8).course == "passed"
    assert time_to(falling, 2.0).course == "away"
    assert time_to(falling[:9], 0.4).course == "unknown"
    assert time_to([], 0.4).course == "unknown"
    flat = time_to(rng.normal(size=50), 30.0)
    assert (flat.course, flat.high) == ("noise", math.inf)
    assert 0.0 < flat.low < math.inf
    assert time_to(rng.normal(size=50), 0.0).low == 0.0
    constant = time_to([0.5] * 20, 0.4)
    assert (constant.course, constant.low, constant.high) == ("noise", math.inf, math.inf)
    assert time_to([0.5] * 20, 0.5).low == 0.0


def test_seconds_come_from_the_mean_distance_of_timestamps():
    values = 100.0 - 2.0 * np.arange(40)
    times = 1e9 + 30.0 * np.arange(40)
    times[20:] += 390.0  # a pause: the mean distance is 40 s
    assert time_to(values, 10.0, timestamps=times).eta_s == pytest.approx(240.0)
    for odd in (np.full(40, 1e9), times[::-1], np.full(40, NAN)):
        assert math.isnan(time_to(values, 10.0, timestamps=odd).eta_s)
    assert math.isnan(time_to(values, 10.0).eta_s)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"limit": NAN}, "^limit: expected a finite number, got nan"),
        ({"interval_s": 0.0}, "^interval_s: expected seconds above 0, got 0.0"),
        ({"interval_s": 1.0, "timestamps": [1.0] * 12}, "^interval_s: expected it or timestamps, got both"),
        ({"timestamps": [1.0]}, "^timestamps: expected one for each of 12 values, got 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(keywords, said):
    with pytest.raises(ValueError, match=said) as raised:
        time_to(np.arange(12.0), **{"limit": 5.0, **keywords})
    assert ("limit" not in keywords) or isinstance(raised.value, InvalidLimit)


def told(course, eta, low, high, seconds=NAN, limit=0.65):
    return TimeTo(
        course, eta, low, high, limit, 0.7, eta * seconds, low * seconds, high * seconds, 50, 0
    ).sentence("Φ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("reaches", 180.0, 120.0, 360.0, 60.0), "Φ reaches 0.65 in about 3 h, 95 %: 2–6 h"),
        (("reaches", 93.6, 71.2, 118.0), "Φ reaches 0.65 in about 94 snapshots, 95 %: 71–120 snapshots"),
        (("reaches", 2.5, 0.0, 30.44, 60.0), "Φ reaches 0.65 in about 2.5 min, 95 %: 0–30 min"),
        (("reaches", 3.0, 2.0, 6.0, 86400.0, 0.1 + 0.2), "Φ reaches 0.3 in about 3 d, 95 %: 2–6 d"),
        (("reaches", 0.0, 0.0, 1.0, 5.0), "Φ reaches 0.65 in about 0 s, 95 %: 0–5 s"),
        (("passed", -12.0, -20.0, 3.0, 10.0), "Φ reached 0.65 about 2 min ago"),
        (("away", NAN, NAN, NAN), "Φ moves away from 0.65"),
        (("noise", NAN, 0.0, math.inf, 1.0), "Φ does not move towards 0.65 by more than its noise"),
        (("noise", NAN, math.inf, math.inf), "Φ does not move towards 0.65 by more than its noise"),
        (
            ("noise", NAN, 9.96, math.inf, 3600.0),
            "Φ does not move towards 0.65 by more than its noise, and not before 10 h (95 %)",
        ),
    ],
)
def test_sentences(arguments, sentence):
    assert told(*arguments) == sentence


def test_the_sentence_of_too_few_values():
    assert time_to([1.0], 2.0).sentence("κ") == "κ: 1 of the 10 values needed to tell when it reaches 2"
