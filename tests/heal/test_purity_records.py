"""Named tuples and frozen dataclasses as arguments: which a cache tells apart well enough, and which not."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

HEAD = """
from dataclasses import dataclass, field
from typing import NamedTuple, Optional
class Point(NamedTuple):
    x: int
    y: int = 0
    def area(self):
        return self.x * self.y
@dataclass(frozen=True, slots=True, order=True)
class Order:
    \"\"\"What is ordered.\"\"\"
    name: str
    count: int
    path: tuple[int, ...] = ()
    price: float = 1.0
"""
POINT = "app.model.Point(x: int; y: int)"
ORDER = "app.model.Order(name: str; count: int; path: tuple of int; price: float)"

PROVEN = {
    "fields": ("def target(p: Point):\n    return p.x * 2 + p.y", {}),
    "seen alone": ("def target(p):\n    return p.x * 2 + p.y", {"p": [POINT]}),
    "seen and said": ("def target(p: 'Point'):\n    return p.x > p.y", {"p": [POINT]}),
    "none": (
        "def target(p: Optional[Point]):\n    return 0 if p is None else p.x + 1",
        {"p": [POINT, "NoneType"]},
    ),
    "none by |": ("def target(p: Point | None):\n    return 0 if p is None else p.x + 1", {}),
    "as a tuple": ("def target(p: Point):\n    x, y = p\n    return x * 2 + p[1] * 2 + len(p) + sum(p)", {}),
    "dataclass": ("def target(o: Order):\n    return o.name + str(o.count * 2) + str(sum(o.path))", {}),
    "dataclass seen": ("def target(o):\n    return o.name.upper(), len(o.path)", {"o": [ORDER]}),
    "helper": ("def h(q):\n    return q.x + 1\ndef target(p: Point):\n    return h(p)", {}),
    "compared": ("def target(p: Point, q: Point):\n    return p == q or p < q", {}),
    "static method": ("class A:\n    @staticmethod\n    def target(p: Point):\n        return p.x + 1", {}),
}


def run(source: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "app.model"}
    exec(compile(source, "model.py", "exec", dont_inherit=True), scope)  # noqa: S102  the text is this test's own
    return scope


@pytest.mark.parametrize(("body", "seen"), PROVEN.values(), ids=PROVEN.keys())
def test_a_record_that_a_cache_tells_apart(body: str, seen: dict[str, list[str]]) -> None:
    assert proof(HEAD + body, seen)


REFUSED = {
    # What a cache takes for the same
    "text of a number": ("def target(p: Point):\n    return str(p.x)", {}),
    "number": ("def target(p: Point):\n    return p.x", {}),
    "itself": ("def target(p: Point):\n    return p", {}),
    "within a tuple": ("def target(p: Point):\n    return (p, 1)", {}),
    "its text": ("def target(p: Point):\n    return f'{p}'", {}),
    "its text by %": ("def target(p: Point):\n    return '%s %s' % p", {}),
    "elements": ("def target(p: Point):\n    return tuple(p)", {}),
    "maximum": ("def target(p: Point):\n    return max(p)", {}),
    "kind": ("def target(p: Point):\n    return isinstance(p.x, bool)", {}),
    "identity": ("def target(p: Point):\n    return p.x is True", {}),
    "pattern": (
        "def target(p: Point):\n    match p:\n        case [True, _]:\n            return 1\n    return 2",
        {},
    ),
    "float field": ("def target(o: Order):\n    return o.price > 1", {}),
    "int where a float was seen": ("def target(o):\n    return str(o.price)", {"o": [ORDER]}),
    "float seen where an int is said": (
        "def target(o: Order):\n    return o.count + 1",
        {"o": [ORDER.replace("count: int", "count: float")]},
    ),
    "floats of a named tuple": (
        "class P(NamedTuple):\n    x: float\ndef target(p: P):\n    return p.x > 1",
        {},
    ),
    "numbers of a named tuple": (
        "def target(p: Point):\n    return p.x > 1",
        {"p": [POINT.replace("y: int", "y: float")]},
    ),
    "record within a tuple": ("def target(p: tuple[Point, int]):\n    return p[1] > 1", {}),
    "record within a record": (
        "class P(NamedTuple):\n    q: Point\ndef target(p: P):\n    return p.q.x > 1",
        {},
    ),
    # What does more than hold fields
    "part": ("def target(p: Point):\n    return p[:1]", {}),
    "sum of two": ("def target(p: Point):\n    return p + (1,)", {}),
    "more of it": ("def target(p: Point):\n    return p * 2", {}),
    "method": ("def target(p: Point):\n    return p.area()", {}),
    "method of a tuple": ("def target(p: Point):\n    return p.count(1)", {}),
    "replaced": ("def target(p: Point):\n    return p._replace(x=1).x + 1", {}),
    "dictionary": ("def target(p: Point):\n    return p._asdict()['x'] + 1", {}),
    "no field": ("def target(p: Point):\n    return p.z + 1", {}),
    "attribute of another": ("def target(p: Point | int):\n    return p.real + 1", {}),
    "class": ("def target(p: Point):\n    return p.__class__", {}),
    "list": ("@dataclass(frozen=True)\nclass P:\n    x: list\ndef target(p: P):\n    return 3", {}),
    "open": ("@dataclass\nclass P:\n    x: int\ndef target(p: P):\n    return p.x + 1", {}),
    "open by a word": (
        "@dataclass(frozen=False)\nclass P:\n    x: int\ndef target(p: P):\n    return p.x + 1",
        {},
    ),
    "by identity": (
        "@dataclass(frozen=True, eq=False)\nclass P:\n    x: int\ndef target(p: P):\n    return 3",
        {},
    ),
    "not compared": (
        "@dataclass(frozen=True)\nclass P:\n    x: int = field(compare=False)\ndef target(p: P):\n    return p.x + 1",
        {},
    ),
    "compared otherwise": (
        "class P(NamedTuple):\n    x: int\n    def __eq__(s, o):\n        return True\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "hashed otherwise": (
        "@dataclass(frozen=True)\nclass P:\n    x: int\n    def __hash__(s):\n        return 1\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "read otherwise": (
        "@dataclass(frozen=True)\nclass P:\n    x: int\n    def __getattribute__(s, n):\n        return open(n)\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "property in a field's place": (
        "@dataclass(frozen=True)\nclass P:\n    x: int\n    @property\n    def x(s):\n        return open('x')\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "property": (
        "@dataclass(frozen=True)\nclass P:\n    x: int\n    @property\n    def y(s):\n        return open('x')\n"
        "def target(p: P):\n    return p.y",
        {},
    ),
    "of the class": (
        "from typing import ClassVar\n@dataclass(frozen=True)\nclass P:\n    x: int\n    y: ClassVar[int] = 1\n"
        "def target(p: P):\n    return p.y + 1",
        {},
    ),
    "derived": (
        "class B:\n    x = 1\n@dataclass(frozen=True)\nclass P(B):\n    y: int\ndef target(p: P):\n    return 1",
        {},
    ),
    "derived from": ("class P(Order):\n    pass\ndef target(o: Order):\n    return o.count + 1", {}),
    "decorated by more": (
        "def d(c):\n    return c\n@d\n@dataclass(frozen=True)\nclass P:\n    x: int\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "another dataclass": (
        "def dataclass(**k):\n    return list\n@dataclass(frozen=True)\nclass P:\n    x: int\n"
        "def target(p: P):\n    return p.x + 1",
        {},
    ),
    "field set": ("def target(p: Point):\n    return p.x + 1\ndef f(p):\n    p.x = 3", {}),
    "class set": ("def target(p: Point):\n    return p.x + 1\nPoint.__eq__ = len", {}),
    "plain class": ("class P:\n    x: int\ndef target(p: P):\n    return 1", {}),
    "other class seen": (
        "def target(p: Point):\n    return p.x + 1",
        {"p": ["elsewhere.Point(x: int; y: int)"]},
    ),
    "other fields seen": (
        "def target(p: Point):\n    return p.x + 1",
        {"p": ["app.model.Point(x: int; z: int)"]},
    ),
    "of the main program": ("def target(p):\n    return p.x + 1", {"p": ["__main__.Point(x: int; y: int)"]}),
    "of nothing that can be read": ("def target(p):\n    return 3", {"p": ["app.model.Point(; : )"]}),
    "name of the owner": (
        "class A:\n    Point = list\n    @staticmethod\n    def target(p: Point):\n        return 3",
        {},
    ),
}


@pytest.mark.parametrize(("body", "seen"), REFUSED.values(), ids=REFUSED.keys())
def test_a_record_that_a_cache_may_confuse(body: str, seen: dict[str, list[str]]) -> None:
    with pytest.raises(Unprovable) as caught:
        proof(HEAD + body, seen)
    assert "cannot be read" not in str(caught.value)


def test_a_class_of_another_file_is_found() -> None:
    model = "from app.kinds import Point\ndef target(p: Point):\n    return p.x * 2\n"
    assert proof(model, {"p": ["app.kinds.Point(x: int; y: int)"]}, app__kinds=HEAD)
    with pytest.raises(Unprovable, match="derived"):
        proof(
            model, {}, app__kinds=HEAD, app__more="from app.kinds import Point as P\nclass Q(P):\n    pass\n"
        )


LEAVES = ("p.x", "p.y", "p[0]", "len(p)", "1", "2.5", "o.count", "o.name", "len(o.path)", "sum(o.path)")
FORMS = (
    "{} + {}",
    "{} * {}",
    "max({}, {})",
    "({}, {})",
    "{} == {}",
    "({} and {})",
    "[{}, {}][0]",
    "f'{{{}}}{{{}}}'",
)
ONES = ("str({})", "-{}", "float({})", "bool({})", "{}", "isinstance({}, bool)")
EXPRESSIONS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(FORMS), inner, inner),
        st.builds(str.format, st.sampled_from(ONES), inner),
    ),
    max_leaves=5,
)
NUMBERS = (0, 1, True, False, 2)
CALLS = [(x, y, n) for x in NUMBERS for y in (1, True) for n in NUMBERS]


@given(expression=EXPRESSIONS, calls=st.permutations(CALLS))
def test_whatever_is_proven_is_the_same_behind_a_cache(expression: str, calls: list[tuple[Any, ...]]) -> None:
    source = textwrap.dedent(HEAD) + f"def target(p: Point, o: Order):\n    return {expression}\n"
    try:
        proof(source, {})
    except Unprovable:
        return
    scope = run(source)
    cached = lru_cache(maxsize=None, typed=True)(scope["target"])
    for x, y, n in calls:
        arguments = scope["Point"](x, y), scope["Order"]("a", n, (n, y))

        def said(function: Any, given: tuple[Any, ...] = arguments) -> str:
            try:
                return repr(function(*given))
            except (TypeError, ValueError) as error:
                return type(error).__name__

        assert said(cached) == said(scope["target"]), expression
