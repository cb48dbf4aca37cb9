"""Functions within functions, `match`, and regular expressions: what of them is proven, and near misses."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

SEEN = {"n": ["int"], "s": ["str"], "t": ["tuple of int"]}
PROVEN = {
    "closure": """
        def target(n):
            step = 2
            def inner(k, *, more: int = 1) -> int:
                return k * step + more
            step = 3
            return inner(n) + inner(k=n, more=2)
    """,
    "recursive closures": """
        def target(n):
            def even(k):
                return k <= 0 or odd(k - 1)
            def odd(k):
                return k > 0 and even(k - 1)
            return even(n)
    """,
    "closure that keeps something for the call": """
        def target(n):
            known = {}
            def ways(k):
                if k not in known:
                    known[k] = 1 if k < 2 else ways(k - 1) + ways(k - 2)
                return known[k]
            return ways(n)
    """,
    "key": """
        def target(n):
            def far(k):
                return abs(k - n), k
            return tuple(sorted(range(5), key=far)) + tuple(map(far, (1, 2)))
    """,
    "values": """
        def target(n):
            match n % 4:
                case 0 | 1:
                    return "few"
                case 2 if n > 4:
                    return "some"
                case other:
                    return str(other)
    """,
    "parts": """
        def target(n):
            match (n, "a", 3, {"x": n, "y": 2}):
                case [int(first), str(text), *rest, {"x": found, **more}]:
                    return first, text, len(rest), found, len(more)
                case _:
                    return None
    """,
    "constants of the module": """
        import math
        FEW = 1
        def target(n):
            match n:
                case math.pi:
                    return 1
                case int() as whole:
                    return whole
                case None | True:
                    return 3
    """,
    "pattern": """
        import re
        WORD = re.compile(r"(?P<first>[a-z])(\\d)?")
        def target(n):
            text = f"a{n} b c{n}"
            found = WORD.findall(text) + re.findall("[a-z]+", text)
            spans = [m.span() for m in WORD.finditer(text)]
            names = tuple(m.groupdict() for m in re.finditer(WORD, text))
            parts = tuple(re.split("[ ]", text)), WORD.subn("-", text)
            m = WORD.search(text)
            return len(found), tuple(spans), len(names), parts, m["first"], m.groups("none"), tuple(found)
    """,
    "patterns in a table": """
        import re
        KINDS = {"word": re.compile("[a-z]+"), "number": re.compile("[0-9]+")}
        def target(n):
            return tuple(name for name, pattern in KINDS.items() if pattern.fullmatch(str(n)))
    """,
}


@pytest.mark.parametrize("source", PROVEN.values(), ids=PROVEN.keys())
def test_it_is_proven_and_the_same_behind_a_cache(source: str) -> None:
    assert proof(source, SEEN)
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(source), scope)  # noqa: S102  the text is this test's own
    cached = lru_cache(maxsize=None, typed=True)(scope["target"])
    for n in (0, 1, 2, 6, 7, 1, True, 0, False):
        assert repr(cached(n)) == repr(scope["target"](n))


REFUSED = {
    # Functions within it
    "clock": "import time\ndef target(n):\n    def f():\n        return time.time()\n    return f() > n",
    "default": "import time\ndef target(n):\n    def f(at=time.time()):\n        return at\n    return n",
    "default that is called": "def target(n):\n    def f(at=print(n)):\n        return 1\n    return f()",
    "annotation": "def target(n):\n    def f(k: print(n)):\n        return 1\n    return f(n)",
    "result annotation": "def target(n):\n    def f(k) -> print(n):\n        return 1\n    return f(n)",
    "decorated": "def target(n):\n    @print\n    def f(k):\n        return 1\n    return f(n)",
    "given out": "def target(n):\n    def f(k):\n        return k\n    return f",
    "given out in a tuple": "def target(n):\n    def f(k):\n        return k\n    return (f, 1)",
    "kept": "def target(n):\n    def f(k):\n        return k\n    g = f\n    return g(n)",
    "passed on": (
        "def h(g, n):\n    return g(n)\ndef target(n):\n    def f(k):\n        return k\n    return h(f, n)"
    ),
    "shown": "def target(n):\n    def f(k):\n        return k\n    return f'{f}'",
    "one of two": """
        import time
        def target(n):
            if n:
                def f():
                    return 1
            else:
                def f():
                    return time.time()
            return f()
    """,
    "bound again": "def target(n):\n    def f():\n        return 1\n    f = open\n    return f('x')",
    "argument": "def target(n):\n    def n():\n        return 1\n    return n()",
    "nonlocal": "def target(n):\n    def f():\n        nonlocal n\n        n = 3\n    f()\n    return n",
    "generator": "def target(n):\n    def f():\n        yield n\n    return tuple(f())",
    "coroutine": "def target(n):\n    async def f():\n        return n\n    return n",
    "list of the call": "def target(n):\n    kept = []\n    def f():\n        return kept\n    return f()",
    "list by default": "def target(n):\n    def f(kept=[]):\n        return kept\n    return f()",
    "list through a closure": """
        def target(n):
            kept = []
            def add(k):
                kept.append([k])
            add(n)
            return tuple(kept)
    """,
    "callback of sub": """
        import re, time
        def target(n):
            def f(m):
                return str(time.time())
            return re.sub("a", f, str(n))
    """,
    "global hidden by a name within": """
        rate = 1
        def change():
            global rate
            rate += 1
        def target(n):
            def f():
                return (rate := 3)
            return f() + rate * n
    """,
    # match
    "list bound": "def target(n):\n    match [n]:\n        case found:\n            return found",
    "list in a list": "def target(n):\n    match [[n]]:\n        case [found]:\n            return found",
    "rest of a list": "def target(n):\n    match (n, 1):\n        case [_, *rest]:\n            return rest",
    "rest of a dict": "def target(n):\n    match {1: n}:\n        case {**rest}:\n            return rest",
    "value of a dict": (
        "def target(n):\n    match {1: [n]}:\n        case {1: found}:\n            return found"
    ),
    "list in an or": (
        "def target(n):\n    match [n]:\n"
        "        case [0] | [1] as found:\n            return found\n    return 1"
    ),
    "class of the host": (
        "class A:\n    pass\ndef target(n):\n"
        "    match n:\n        case A():\n            return 1\n    return 2"
    ),
    "attribute": (
        "def target(n):\n    match n:\n        case int(real=found):\n            return found\n    return 2"
    ),
    "guard": (
        "import time\ndef target(n):\n    match n:\n"
        "        case 1 if time.time() > 3:\n            return 1\n    return 2"
    ),
    "value": (
        "import time\ndef target(n):\n    match n:\n"
        "        case time.timezone:\n            return 1\n    return 2"
    ),
    "bool in a tuple": (
        "def target(t):\n    match t:\n        case [True]:\n            return 1\n    return 2"
    ),
    "kind in a tuple": (
        "def target(t):\n    match t:\n        case [bool()]:\n            return 1\n    return 2"
    ),
    "caught": "def target(n):\n    match n:\n        case 1:\n            return open('x')\n    return 2",
    "name of the module": """
        rate = 1
        match 3:
            case rate:
                pass
        def target(n):
            return n * rate
    """,
    # Regular expressions
    "list of words": "import re\ndef target(s):\n    return re.findall('a', s)",
    "iterator": "import re\ndef target(s):\n    return re.finditer('a', s)",
    "match in a tuple": "import re\ndef target(s):\n    return tuple(re.finditer('a', s))",
    "dict of groups": "import re\ndef target(s):\n    return re.match('a', s).groupdict()",
    "locale": "import re\ndef target(s):\n    return re.findall(b'(?L)a', s.encode())[0]",
    "locale by keyword": (
        "import re\ndef target(s):\n    return re.sub(repl=b'', pattern=b'(?L)a', string=b'b')"
    ),
    "locale of a compiled one": (
        "import re\nP = re.compile(b'(?L)a')\ndef target(s):\n    return P.findall(s)[0]"
    ),
    "locale flag": "import re\nP = re.compile('a', re.L)\ndef target(s):\n    return P.findall(s)[0]",
    "list for groups": "import re\ndef target(s):\n    return re.match('(a)?', s).groups([1])",
    "list for named groups": (
        "import re\ndef target(s):\n    return tuple(re.match('(?P<x>a)?', s).groupdict([1]).values())"
    ),
    "replaced": "import re\nre.findall = print\ndef target(s):\n    return len(re.findall('a', s))",
    "text of a match": "import re\ndef target(s):\n    return str(re.match('a', s))",
    "scanner": "import re\nP = re.compile('a')\ndef target(s):\n    return P.scanner(s)",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_not_proven(source: str) -> None:
    with pytest.raises(Unprovable) as caught:
        proof(source, SEEN)
    assert "cannot be read" not in str(caught.value)


PIECES = (
    "n[0]",
    "len(n)",
    "first",
    "first + 1",
    "n[0] + n[-1]",
    "str(n[0])",
    "inner(n[0])",
    "inner(n[0]) + 1",
    "'a' if n[0] else 'b'",
)
CASES = (
    "case [first, *_]",
    "case (0 | 1 as first,)",
    "case [True]",
    "case [int(first)]",
    "case [bool()]",
    "case first",
)
TUPLES = ((0,), (1,), (True,), (False,), (2, 1), (1, True))


@given(
    cases=st.lists(st.tuples(st.sampled_from(CASES), st.sampled_from(PIECES)), min_size=1, max_size=3),
    inside=st.sampled_from(("k", "k + 1", "k is True", "-k", "k == first")),
    calls=st.permutations(TUPLES),
)
def test_whatever_is_proven_is_the_same_behind_a_cache(
    cases: list[tuple[str, str]], inside: str, calls: list[tuple[int, ...]]
) -> None:
    branches = "".join(
        f"            {case} if True:\n                return {piece}\n" for case, piece in cases
    )
    head = f"def target(n):\n    first = 3\n    def inner(k):\n        return {inside}\n    match n:\n"
    source = f"{head}{branches}    return 0\n"
    source = source.replace("            case", "        case").replace(
        "                return", "            return"
    )
    try:
        proof(source, SEEN | {"n": ["tuple of int"]})
    except Unprovable:
        return
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102  the text is this test's own
    cached = lru_cache(maxsize=None, typed=True)(scope["target"])

    def said(function: Any, arguments: tuple[int, ...]) -> str:
        try:
            return repr(function(arguments))
        except TypeError:
            return "TypeError"

    for arguments in calls:
        assert said(cached, arguments) == said(scope["target"], arguments), source
