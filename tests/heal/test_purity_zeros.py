"""What is proven is the same behind a cache, for 0.0 and -0.0, and for 1, 1.0 and True."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

FLOAT = {"n": ["float"]}
ZERO_APART = [
    "return n",
    "return -n",
    "return n * 2",
    "return (n, 1)",
    "return 1 / n",
    "return n / 3",
    "return n // 2",
    "return n % 3",
    "return str(n)",
    "return f'{n}'",
    "return '%s' % n",
    "return '{}'.format(n)",
    "return repr([n])",
    "return math.copysign(1.0, n)",
    "return math.atan2(n, -1.0)",
    "return math.sqrt(n)",
    "return float(n)",
    "return max(n, 0)",
    "return n ** 3",
    "return pow(n, 3)",
    "return n - 0",
    "found = [n]\n    return tuple(found)",
    "return n.hex()",
]
ZERO_ALIKE = [
    "return n * n",
    "return n + 1.0",
    "return 1 + n * 2",
    "return n > 0",
    "return abs(n)",
    "return int(n)",
    "return round(n)",
    "return math.exp(n)",
    "return math.floor(n) + math.cos(n)",
    "return n ** 2",
    "return 'low' if n < 0.5 else 'high'",
    "return {n: 'a'}.get(n, 'b')",
    "return str(round(n)) + str(n == 0)",
    "return sum([n, n])",
]


@pytest.mark.parametrize("body", ZERO_APART)
def test_a_function_that_may_tell_zeros_apart_is_not_proven(body: str) -> None:
    with pytest.raises(Unprovable, match=r"0\.0 from -0\.0|tell more"):
        proof(f"import math\ndef target(n):\n    {body}\n", FLOAT)


@pytest.mark.parametrize("body", ZERO_ALIKE)
def test_a_function_that_takes_zeros_for_the_same_is_proven(body: str) -> None:
    source = f"import math\ndef target(n):\n    {body}\n"
    assert proof(source, FLOAT)
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102  the text is this test's own
    assert repr(scope["target"](0.0)) == repr(scope["target"](-0.0))


LEAVES = ("n", "m", "1", "0", "2.5", "-1.0")
ONE = ("abs", "int", "float", "str", "repr", "round", "bool", "math.exp", "math.sin", "-", "not ")
TWO = (
    "({} + {})",
    "({} - {})",
    "({} * {})",
    "({} / {})",
    "({} // {})",
    "({} % {})",
    "max({}, {})",
    "({}, {})[0]",
)
SHORT = [
    *LEAVES,
    *(f"{name}({leaf})" for name in ONE for leaf in LEAVES),
    *(both.format(one, other) for both in TWO for one in LEAVES for other in ("n", "0", "2.5")),
]
EXPRESSIONS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(TWO), inner, inner),
        st.builds(lambda name, of: f"{name}({of})", st.sampled_from(ONE), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)
NUMBERS = (0, False, 0.0, -0.0, 1, True, 1.0, -1.5)
CALLS = [(n, m) for n in NUMBERS for m in NUMBERS]


def is_proven(expression: str, calls: list[tuple[Any, Any]]) -> bool:
    """Whether it is proven pure; it must then be the same behind a cache."""
    source = f"import math\ndef target(n, m):\n    return {expression}\n"
    kinds = ["int", "bool", "float"]
    try:
        proof(source, {"n": kinds, "m": kinds})
    except Unprovable:
        return False
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102  the text is this test's own
    cached = lru_cache(maxsize=None, typed=True)(scope["target"])

    def said(function: Any, arguments: tuple[Any, Any]) -> str:
        try:
            return repr(function(*arguments))
        except Exception as error:
            return type(error).__name__

    for arguments in calls:
        assert said(cached, arguments) == said(scope["target"], arguments), expression
    return True


def test_every_short_function_that_is_proven_is_the_same_behind_a_cache() -> None:
    every = [*SHORT, *(f"{name}({inner})" for name in ("str", "float", "-") for inner in SHORT)]
    proven = sum(is_proven(expression, calls) for expression in every for calls in (CALLS, CALLS[::-1]))
    assert 0.2 < proven / (2 * len(every)) < 0.8


@given(expression=EXPRESSIONS, calls=st.permutations(CALLS))
def test_a_proven_function_is_the_same_behind_a_cache(expression: str, calls: list[tuple[Any, Any]]) -> None:
    is_proven(expression, calls)
