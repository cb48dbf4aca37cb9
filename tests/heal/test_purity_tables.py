"""Containers that a module keeps: a function may be cached that reads one which nobody can change."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

READ = {
    "dict": "T = {1: 'a', 2: 'b'}\ndef target(n):\n    return T[n]",
    "get": "T = {1: 'a', 2: 'b'}\ndef target(n):\n    return T.get(n, '-') + str(T.get(n))",
    "annotated": "from typing import Final\nT: Final = {1: 'a'}\ndef target(n):\n    return n in T",
    "list": "T = [3, 1, 2]\ndef target(n):\n    return T[n % 3] + T.index(1) + sum(T) + max(T[1:])",
    "set": "T = {3, 1, 2}\ndef target(n):\n    return n in T and not T.isdisjoint((1, n))",
    "keys and items": """
        T = {1: 10, 2: 20}
        def target(n):
            total = len(T)
            for key, value in T.items():
                total += key * value
            return total + sum(T.values()) + sum(k for k in T if k > n) + sum(T.keys())
    """,
    "in others of the file": """
        T = [3, 1, 2]
        COPY = list(T)
        KEYS = frozenset(T)
        def show():
            assert T
            print(T, f"{T}", *T, ",".join(map(str, T)))
            return [*T], T + [4], sorted(T, reverse=True)
        def target(n):
            return T[n % 3] in KEYS
    """,
    "comprehension": """
        T = {letter: number for number, letter in enumerate("abc")}
        def target(n):
            return T["abc"[n % 3]]
    """,
    "made by a function": """
        def sieve(limit):
            found = []
            for k in range(2, limit):
                if all(k % p for p in found):
                    found.append(k)
            return found
        T = sieve(50)
        def target(n):
            return sum(p for p in T if p < n)
    """,
    "within one another": """
        T = {1: {"a": [10, 20]}, 2: {"a": [3]}}
        def target(n):
            return T[1]["a"][n % 2] + T[2]["a"][0] + len(T.get(n, ()))
    """,
    "taken out": """
        T = [[1, 2], [3, 4]]
        D = {"a": [1], "b": [2]}
        def target(n):
            row = T[n % 2]
            total = row[0]
            for other in T:
                total += sum(other)
            for key, found in D.items():
                total += found[0]
            return total + sum(len(values) for values in D.values())
    """,
    "under another name in a function": """
        T = {1: 'a', 2: 'b'}
        def target(n):
            table = T
            return table[n]
    """,
    "read only by its type": """
        from types import MappingProxyType
        T = MappingProxyType({1: 'a', 2: 'b'})
        def target(n):
            return T[n] if n in T else '-'
    """,
    "part of another": """
        T = {1: 'a', 2: 'b'}
        MORE = {**T, 3: 'c'}
        def target(n):
            return MORE[n + 1] + {**MORE, n: 'd'}[n]
    """,
    "beside a text of its name": """
        T = {1: 'a', 2: 'b'}
        __all__ = ["T", "target"]
        def other(body):
            return body["T"] + body.get("T")
        def target(n):
            return T[n]
    """,
}


@pytest.mark.parametrize("source", READ.values(), ids=READ.keys())
def test_a_container_that_is_only_read(source: str) -> None:
    assert proof(source)
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(source), scope)  # noqa: S102  the text is this test's own
    cached = lru_cache(maxsize=None, typed=True)(scope["target"])
    for n in (1, 2, 1, 2):
        assert cached(n) == scope["target"](n)


T = "T = {1: [1], 2: [2]}\nL = [1, 2]\ndef target(n):\n    return len(T[n]) + L[n % 2]\n"
CHANGED = [
    "T[3] = [3]",
    "T[1][0] = 3",
    "T[1] += [3]",
    "del T[1]",
    "del L[0]",
    "L[:] = []",
    "T.update(a=1)",
    "T.setdefault(3, []).append(1)",
    "T.get(1).append(3)",
    "T[1].append(3)",
    "L.append(3)",
    "L.sort()",
    "f = L.append",
    "L.__setitem__(0, 3)",
    "L += [3]",
    "known(L)",
    "known(T[1])",
    "known(key=L)",
    "sum([], L)",
    "max(L, [])",
    "map(L, [])",
    "dict(T)",
    "list(T.values())",
    "sorted(T.items())",
    "held = [L]",
    "held = {1: L}",
    "held = (1, L)",
    "held = L or []\n    held.append(1)",
    "held = L if T else []\n    held.append(1)",
    "held = L\n    held.append(1)",
    "held = T[1]\n    again = held\n    again += [1]",
    "held = L\n    def inner():\n        held.append(1)",
    "global held\n    held = L",
    "class A:\n        held = L",
    "if (held := L):\n        held.append(3)",
    "for held in T.values():\n        held.append(1)",
    "for key, held in T.items():\n        held.append(1)",
    "for pair in T.items():\n        pair[1].append(1)",
    "[held.pop() for held in T.values()]",
    "known(held for held in T.values())",
    "first, second = T.values()",
    "return L",
    "return T[1]",
    "yield L",
    "yield from T.values()",
    "lambda: L",
    "def inner(held=L):\n        held.append(1)",
    "with L as held:\n        pass",
    "match L:\n        case held:\n            held.append(1)",
    "len = known\n    len(L)",
    "L @ known",
    "x = y = L\n    y.append(1)",
    "x = known and L\n    x.append(1)",
    "first, *held = T.values()\n    first.append(1)",
    "for first, second in zip(T.values(), T.values()):\n        first.append(1)",
    "for number, row in enumerate(T.values()):\n        row.append(1)",
    "next(iter(T.values())).append(1)",
    "T.copy()[1].append(1)",
    "[(y := row) for row in T.values()]",
    "assert known, L",
    "raise ValueError(L)",
    "x = sorted(T, key=T.get)\n    T.get.__self__.clear()",
    "y = L\n    y |= {1}",
    "known(*[L])",
    "return known.join(L)",
]


@pytest.mark.parametrize("body", CHANGED)
def test_a_container_that_somebody_may_change(body: str) -> None:
    own = f"{T}def known(*given):\n    pass\ndef change():\n    {body}\n"
    with pytest.raises(Unprovable):
        proof(own)
    if body.startswith(("L +=", "len")):
        return  # a local name there
    others = body.replace("T", "model.T").replace("L", "model.L").replace("for model.", "for ")
    if "held" not in body or "known" in body:
        with pytest.raises(Unprovable, match=r"may be changed|is written to"):
            proof(
                T,
                app__other=f"from app import model\ndef known(*given):\n    pass\ndef change():\n    {others}\n",
            )


ELSEWHERE = {
    "imported": "from app.model import L\nL.append(1)\n",
    "imported under another name": "from app.model import L as M\nM.append(1)\n",
    "imported in a function": "def f():\n    from app.model import L as M\n    M.append(1)\n",
    "imported as a whole": "from app.model import *\nL.append(1)\n",
    "added to": "from app.model import L\nL += [1]\n",
    "added to in a class": "from app.model import L\nclass A:\n    L += [1]\n",
    "bound there too": "from app.model import L\ndef f():\n    global L\n    L += [1]\n",
    "attribute": "import app.model\napp.model.L.append(1)\n",
    "loaded by name": "import importlib\nimportlib.import_module('app.' + 'model').L.append(1)\n",
    "got by name": "from app import model\ngetattr(model, 'L').append(1)\n",
    "got by any name": "from app import model\nfor name in ('K', 'L'):\n    getattr(model, name).clear()\n",
    "got by any name from what is given": "def f(thing, name):\n    getattr(thing, name).clear()\n",
    "got under another name": "from app import model\ng = getattr\ng(model, 'K').clear()\n",
    "got by builtins": "import builtins\ndef f(thing, name):\n    builtins.getattr(thing, name).clear()\n",
    "got by an operator": "import operator\nfrom app import model\noperator.attrgetter('L')(model).clear()\n",
    "got by an operator, any": "from operator import attrgetter\ndef f(m, n):\n    attrgetter(n)(m).clear()\n",
    "got by an operator, renamed": "from operator import attrgetter as a\nx = a('K')\n",
    "resolved": "import pkgutil\npkgutil.resolve_name('app.model:L').clear()\n",
    "resolved by a text kept": "import pkgutil\nP = 'app.model:L'\nx = pkgutil.resolve_name(P)\n",
    "members": "import inspect\nfrom app import model\nfor n, v in inspect.getmembers(model):\n    v.clear()\n",
    "patched": "from unittest.mock import patch\nwith patch.dict('app.model.L', {1: 2}):\n    pass\n",
    "patched in a test": "from app import model\ndef test(monkeypatch):\n    monkeypatch.setitem(model.L, 0, 1)\n",
    "pattern": "from app import model\nmatch model:\n    case object(L=held):\n        held.append(1)\n",
    "parametrized by something else": "import pytest\nfrom app.model import L\npytest.mark.uses(L)\n",
    "copied with its parts": "import copy\nfrom app.model import L\ncopy.copy(L)\n",
    "reduced": "from app.model import L\niter(L).__reduce__()[1][0].append(1)\n",
    "compared by the host": "from app.model import L\nclass A:\n    def __eq__(s, o):\n        o.clear()\nA() == L\n",
    "added by the host": "from app.model import L\nclass A:\n    def __radd__(s, o):\n        o.clear()\nL + A()\n",
    "got by a format": "import string\nfrom app import model\nF = string.Formatter()\nF.get_field('{m.L}', 0, {})\n",
    "locals of the file": "from app.model import *\ndef f(names=locals()):\n    names['L'].clear()\n",
    "locals in a decorator": "from app.model import *\n@print(locals())\ndef f():\n    pass\n",
    "example": "def f():\n    '''Does it.\n\n    >>> from app.model import L\n    >>> L.append(1)\n    '''\n",
    "handed on by a package": "from app.model import L as HANDED\n",
}


@pytest.mark.parametrize("other", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_container_that_another_file_may_change(other: str) -> None:
    flat = "L = [1, 2]\ndef target(n):\n    return L[n % 2]\n"
    more = {"app__more": "from app.other import HANDED\nHANDED.append(1)\n"} if "HANDED" in other else {}
    with pytest.raises(Unprovable, match=r"may be changed|cannot be seen"):
        proof(flat, app__other=other, **more)


@pytest.mark.parametrize(
    "other",
    [
        "from app.model import L\ndef test():\n    assert len(L) == 2 and L == [1, 2] and 1 in L\n",
        "from app import model\ndef test():\n    for one in model.L:\n        assert one in sorted(model.L)\n",
        "import pytest\nfrom app.model import L\n@pytest.mark.parametrize('n', L)\ndef test(n):\n    pass\n",
        "import logging\ndef f(name):\n    return getattr(logging, name)\n",
        "class A:\n    def f(self, name):\n        return getattr(self, name)\n",
        "def f(thing):\n    return getattr(thing, 'other', None)\n",
        "L = []\nL.append(1)\n",  # another file's own
        "def f():\n    '''L is what this is about: L.append.'''\n",
        "from app.model import L\nM = dict(zip(L, L))\nM[3] = 4\n",
    ],
)
def test_a_container_that_others_read(other: str) -> None:
    assert proof("L = [1, 2]\ndef target(n):\n    return L[n % 2]\n", app__other=other)


@pytest.mark.parametrize(
    "held",
    [
        "[open]",
        "[iter(())]",
        "[x for x in (iter(()),)]",
        "[print]",
        "dict(a=object())",
        "[lambda: 1]",
        "[[], A]",
    ],
)
def test_a_container_that_holds_more_than_values(held: str) -> None:
    with pytest.raises(Unprovable):
        proof(f"class A:\n    pass\nL = {held}\ndef target(n):\n    return len(L) + n\n")


@pytest.mark.parametrize(
    "rest",
    [
        "return L",
        "return (L, 1)",
        "L.append(n)\n    return n",
        "held = L\n    held += [n]\n    return n",
        "return grown(L, n)",
        "return M[0]",
        "return next(iter(M))",
        "return {**D}[1]",
        "return {**dict(a=1), **D}[1]",
        "return {1: 1, **{n: [n]}}[1]",
        "return {**n}",
    ],
)
def test_the_function_itself_may_not_change_or_give_it(rest: str) -> None:
    head = "L = [1, 2]\nM = [[1], [2]]\nD = {1: [1]}\ndef grown(x, n):\n    x.append(n)\n    return n\n"
    with pytest.raises(Unprovable):
        proof(f"{head}def target(n):\n    {rest}\n")


def test_a_name_within_a_lambda_hides_no_global() -> None:
    changing = "rate = 1\ndef change():\n    global rate\n    rate += 1\n"
    with pytest.raises(Unprovable, match="bound 2 times"):
        proof(f"{changing}def target(n):\n    return max((1, n), key=lambda k: (rate := k)) * rate\n")


HELD = (
    "L",
    "T[1]",
    "T.get(2)",
    "x",
    "y",
    "z",
    "(x or L)",
    "(L if x else y)",
    "L[:]",
    "T.copy()[1]",
    "{**T}[1]",
    "P[0]",
)
TAKEN = (
    "list(L)",
    "sorted(L)",
    "list(T)",
    "dict(T)",
    "T.copy()",
    "{**T}",
    "[*L]",
    "L + []",
    "L * 2",
    "[r for r in P]",
)
STEPS = st.one_of(
    st.builds(
        str.format,
        st.sampled_from(
            (
                "{0}.append(9)",
                "{0}[0] = 9",
                "{0}[0] += 9",
                "del {0}[0]",
                "grow({0})",
                "len({0})",
                "sum({0}) + max({0}, default=0)",
                "x = {0}",
                "y = {0}",
                "x += [9]",
                "for x in {0}: pass",
                "for x in P: x.append(9)",
                "for x, y in T.items(): y.append(9)",
                "for x, y in T.items(): len(y)",
                "[x.append(9) for x in T.values()]",
                "[z for z in {0}]",
                "x = y = {0}",
                "x = [{0}]",
                "x, *y = P",
                "len(x) and x[0].append(9)",
                "9 in {0} or {0} == [1]",
                "{0}.sort(reverse=True)",
                "z = lambda: {0}",
                "z().append(9)",
            )
        ),
        st.sampled_from(HELD),
    ),
    st.builds(
        str.format, st.sampled_from(("x = {}", "z = {}", "grow({})", "len({})")), st.sampled_from(TAKEN)
    ),
)
MADE = "L = [1, 2]\nT = {1: [1], 2: [3]}\nP = ([1], [2, 3])\n"


def changes(steps: list[str], *, is_whole: bool) -> bool | None:
    """Whether what other code does with the containers changes what the function gives; None if not proven."""
    body = "".join(f"    try:\n        {step}\n    except Exception:\n        pass\n" for step in steps)
    asked = "tuple(L), tuple(T[1]), tuple(P[1]), len(T[2])" if is_whole else "tuple(L), L[0]"
    source = (
        f"{MADE}def grow(it):\n    it.append(9)\ndef change(x=(), y=(), z=()):\n{body}"
        f"def target(n):\n    return n, {asked}\n"
    )
    try:
        proof(source)
    except Unprovable:
        return None
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102  the text is this test's own
    before = scope["target"](1)
    scope["change"]()
    return bool(scope["target"](1) != before)


@settings(max_examples=400)
@given(steps=st.lists(STEPS, min_size=1, max_size=3), is_whole=st.booleans())
def test_no_container_changes_that_a_proof_rests_on(steps: list[str], is_whole: bool) -> None:
    assert changes(steps, is_whole=is_whole) is not True


def test_the_proofs_of_the_test_before_are_some() -> None:
    assert changes(["x = L", "len(x)"], is_whole=True) is False
    assert changes(["x = T[1]", "sum(x)"], is_whole=True) is False
    assert changes(["x = list(L)", "x.append(9)"], is_whole=False) is False
    assert changes(["x = L", "x.append(9)"], is_whole=True) is None
