"""Lengths of time as a person writes them: "30d", "12h", "90s"."""

from __future__ import annotations

import math
import numbers
import re
import reprlib

from qigcore.errors import InvalidLimit

_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def seconds(text: str | float, name: str) -> float:
    """Seconds of a text such as "30d", or a number of seconds; errors call it `name`.

    Units: s, min (or m), h, d, w. Raises InvalidLimit for anything else, and for what is not above 0.
    """
    value = math.nan
    if isinstance(text, str):
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([a-z]+)\s*", text)
        if found and found[2] in _SECONDS:
            value = float(found[1]) * _SECONDS[found[2]]
    elif isinstance(text, numbers.Real) and not isinstance(text, bool) and abs(text) < 1e300:
        value = float(text)
    if not 0.0 < value < math.inf:
        raise InvalidLimit(
            f"{name}: expected a length of time such as '30d', '12h', '10min' or '90s', or seconds, got "
            f"{shown(text)}"
        )
    return value


def shown(value: object) -> str:
    """As an error quotes it: shortened, and in words where Python refuses to print so many digits."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def worded(value: float) -> str:
    """Seconds as a person says them: the largest unit of which there are at least two, with two digits."""
    for unit, name in ((604_800.0, "weeks"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if value >= 2.0 * unit:
            return f"{_two_digits(value / unit)} {name}"
    return f"{_two_digits(value)} s"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
