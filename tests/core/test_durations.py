"""Lengths of time, as they are written and said."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore.durations import seconds, worded
from qigcore.errors import InvalidLimit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", 2_592_000.0),
        ("12h", 43_200.0),
        ("10min", 600.0),
        ("10m", 600.0),
        ("90s", 90.0),
        ("2w", 1_209_600.0),
        (" 1.5 h ", 5400.0),
        (".5d", 43_200.0),
        ("1e3s", 1000.0),
        (7, 7.0),
        (0.25, 0.25),
    ],
)
def test_lengths_are_read(text: str | float, expected: float) -> None:
    assert seconds(text, "every") == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        *("", "d", "30", "30 d d", "-1d", "0s", "1y", "1D", "1e999d", "nan s", "inf", "1,5h", "३d", "1_0s"),
        *(0, -1, True, math.nan, math.inf, None, b"1d", [1], 10**400, -(10**400)),
    ],
)
def test_what_is_no_length_is_refused_by_name(text: Any) -> None:
    # What broke: float() of a large integer raises OverflowError, and printing a larger one ValueError.
    with pytest.raises(InvalidLimit, match="false_alarm_every: expected a length of time") as caught:
        seconds(text, "false_alarm_every")
    assert len(str(caught.value)) < 250


def test_a_number_that_python_does_not_print_is_refused_in_words() -> None:
    with pytest.raises(InvalidLimit, match="thousands of digits"):
        seconds(10**5000, "every")


@given(st.floats(1e-3, 1e9))
def test_a_number_and_its_text_are_one_length(value: float) -> None:
    assert seconds(f"{value!r}s", "every") == seconds(value, "every") == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "0.5 s"),
        (45.0, "45 s"),
        (99.7, "100 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (99.7 * 60, "100 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (86_400.0, "24 h"),
        (2 * 86_400.0, "2 days"),
        (13 * 86_400.0, "13 days"),
        (14 * 86_400.0, "2 weeks"),
        (99.7 * 604_800.0, "100 weeks"),
        (5200 * 604_800.0, "5200 weeks"),
    ],
)
def test_lengths_are_said(value: float, expected: str) -> None:
    assert worded(value) == expected


@given(st.floats(1.0, 1e12))
def test_what_is_said_is_within_five_percent(value: float) -> None:
    number, unit = worded(value).split()
    assert "e" not in number
    size = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86_400.0, "weeks": 604_800.0}[unit]
    assert float(number) * size == pytest.approx(value, rel=0.05)
