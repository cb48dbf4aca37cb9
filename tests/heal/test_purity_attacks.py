"""Functions that look pure and are not: none may be proven. Each is a way in which a cache would be noticed."""

from __future__ import annotations

from typing import Any

import pytest

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

RATE = "RATE = 1\ndef target(n):\n    return n * RATE\n"
MAIN = "import app.model as main\n"
WRITERS = {
    "dict": "main.__dict__['RATE'] = 3",
    "dict by name": "getattr(main, '__dict__')['RATE'] = 3",
    "dict by an operator": "import operator\noperator.attrgetter('__dict__')(main)['RATE'] = 3",
    "exec": "exec('import app.model; app.model.RATE = 3')",
    "exec of builtins": "import builtins as b\nb.exec('main.RATE = 3')",
    "exec under another name": "from builtins import exec as e\ne('main.RATE = 3')",
    "builtins.setattr": "import builtins\nbuiltins.setattr(main, 'RATE', 3)",
    "setattr mapped": "list(map(setattr, [main], ['RATE'], [3]))",
    "setattr under another name": "s = setattr\ns(main, 'RATE', 3)",
    "setattr imported": "from builtins import setattr as s\ns(main, 'RATE', 3)",
    "setattr of a name and a text": "def f(name):\n    setattr(main, name, 'text')",
    "setattr of anything": "def f(**given):\n    setattr(**given)",
    "bound __setattr__": "s = main.__setattr__\ns('RATE', 3)",
    "reload imported": "from importlib import reload as again\nagain(main)",
    "loaded again": "main.__spec__.loader.exec_module(main)",
    "sys under another name": "import sys as s\ns.modules['app.model'] = None",
    "self of a function": "def set(self, rate):\n    self.RATE = rate\nset(main, 3)",
    "self that is a module": "def set():\n    import app.model as self\n    self.RATE = 3",
    "self of a method": "class A:\n    def set(self):\n        self = main\n        self.RATE = 3",
    "self with any name": "def set(name, rate):\n    self = main\n    setattr(self, name, rate)",
    "target of a loop": "for main.RATE in range(3):\n    pass",
    "mock under another name": "import unittest.mock as um\num.patch.object(main, 'RATE', 3).start()",
    "patch under another name": "from unittest.mock import patch as p\np('app.model.RATE', 3).start()",
    "garbage": "import gc\nfor d in gc.get_referrers(main):\n    d['RATE'] = 3",
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize("file", ["app__rates", "app__test_rates"])
def test_a_constant_that_another_file_may_change(writer: str, file: str) -> None:
    with pytest.raises(Unprovable):
        proof(RATE, **{file: MAIN + writer + "\n"})


def test_a_constant_beside_a_file_that_cannot_be_read() -> None:
    with pytest.raises(Unprovable, match="cannot be read"):
        proof(RATE, app__rates=MAIN + "main.RATE = 3\nprint 'done'\n")


def test_an_object_may_set_its_own_attributes_by_any_name() -> None:
    kept = "class Kept:\n    def __init__(self, **given):\n        for name in given:\n"
    assert proof(RATE, app__kept=kept + "            setattr(self, name, given[name])\n")


REBOUND = {
    "self": """
        import sys
        RATE = 1
        def set_rate(rate):
            self = sys.modules[__name__]
            self.RATE = rate
        def target(n):
            return n * RATE
    """,
    "match of a mapping": """
        RATE = 1
        match {"a": 1}:
            case {**RATE}:
                pass
        def target(n):
            return n * RATE
    """,
    **{
        f"in the head of {name}": f"RATE = 1\n{head}\ndef target(n):\n    return n * RATE\n"
        for name, head in {
            "a default": "def f(n=(RATE := 3)):\n    pass",
            "a decorator": "@(RATE := lambda f: f)\ndef f(n):\n    pass",
            "an annotation": "def f(n: (RATE := 3)):\n    pass",
            "a base": "class A((RATE := object)):\n    pass",
            "a lambda": "f = lambda n=(RATE := 3): n",
        }.items()
    },
}


@pytest.mark.parametrize("source", REBOUND.values(), ids=REBOUND.keys())
def test_a_constant_that_is_bound_twice(source: str) -> None:
    with pytest.raises(Unprovable):
        proof(source)


HELPER = "def g(n, k=1, *, m=1):\n    return n * k * m\ndef target(n):\n    return g(n)\n"


@pytest.mark.parametrize(
    "change",
    [
        "g.__defaults__ = (2,)",
        "g.__kwdefaults__ = {'m': 2}",
        "g.__kwdefaults__.update(m=2)",
        "g.__code__ = (lambda n, k=1: k).__code__",
        "setattr(g, '__defaults__', (2,))",
    ],
)
def test_a_helper_that_may_be_changed(change: str) -> None:
    assert proof(HELPER)
    with pytest.raises(Unprovable):
        proof(HELPER, app__other=f"from app.model import g\ndef change():\n    {change}\n")


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("def target(n):\n    return len(str(n))\n", "import builtins\nbuiltins.len = id\n"),
        ("def target(n):\n    return len(str(n))\n", "import builtins as self\nself.len = id\n"),
        ("def target(n):\n    return len(str(n))\n", "import builtins\nsetattr(builtins, 'len', id)\n"),
        ("import math\ndef target(n):\n    return math.floor(n)\n", "import math\nmath.floor = id\n"),
        ("from math import floor as f\ndef target(n):\n    return f(n)\n", "import math\nmath.floor = id\n"),
    ],
)
def test_what_is_not_the_hosts_may_be_replaced_too(source: str, change: str) -> None:
    assert proof(source)
    with pytest.raises(Unprovable):
        proof(source, app__other=change)


GLOBAL = "rate = 1\ndef set_rate(to):\n    global rate\n    rate = to\n"


@pytest.mark.parametrize(
    "body",
    [
        "rate * sum(rate for rate in range(3)) * n",
        "max((1, n), key=lambda rate: -rate) * rate",
        "sum(rate for rate in range(rate))",
        "max((1, n), key=lambda k: sum(rate for rate in (1, 2)) + rate)",
    ],
)
def test_a_name_of_an_inner_scope_hides_no_global(body: str) -> None:
    with pytest.raises(Unprovable, match="rate is bound 2 times"):
        proof(f"{GLOBAL}def target(n):\n    return {body}\n")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("helper", "from app.pure import helper\n"),
        ("helper", "def helper(n):\n    return n\n"),
        ("RATES", "RATES = (1, 2)\n"),
    ],
)
def test_a_star_import_may_bind_any_name(name: str, own: str) -> None:
    used = "helper(n)" if name == "helper" else "RATES[n]"
    others = {
        "app__pure": "def helper(n):\n    return n\n",
        "app__live": "import time\nRATES = [1]\ndef helper(n):\n    return time.time()\n",
    }
    for star in ("from app.live import *\n", "if True:\n    from app.live import *\n"):
        with pytest.raises(Unprovable, match=r"import \*"):
            proof(
                f"from app.other import {name}\ndef target(n):\n    return {used}\n",
                app__other=own + star,
                **others,
            )


HELD = [
    "for i, v in enumerate([[n]]):\n        return v\n    return 1",
    "for i, v in zip((1,), [[n]]):\n        return v\n    return 1",
    "for i, v in {n: [n]}.items():\n        return v\n    return 1",
    "return max(enumerate([[n]]))[1]",
    "return sorted({n: [n]}.items())[0][1]",
    "d = {}\n    d.update(a=[n])\n    return d['a']",
    "d = {}\n    d.update(zip((1,), [[n]]))\n    return d[1]",
    "return dict(a=[n])['a']",
    "return +Counter(str(n))",
    "for v in itertools.chain([[n]]):\n        return v\n    return 1",
    "return tuple(itertools.repeat([n], 1))",
    "a = [0]\n    b = a\n    b += [[n]]\n    return a[1]",
    "a = [0]\n    grow(a, n)\n    return a[1]",
    "a = [0]\n    a[1:] = [[n]]\n    return a[1]",
    "d = {}\n    e = d\n    e |= [(1, [n])]\n    return d[1]",
    "return {1: [n]}.popitem()[1]",
    "return dict.fromkeys((1,), [n])[1]",
    "return math.prod([[n]])",
    "return math.prod((1,), start=[n])",
]


@pytest.mark.parametrize("body", HELD)
def test_what_is_held_may_be_changed_by_who_gets_it(body: str) -> None:
    head = "import itertools, math\nfrom collections import Counter\ndef grow(acc, n):\n    acc += [[n]]\n"
    with pytest.raises(Unprovable):
        proof(f"{head}def target(n):\n    {body}\n")


WHOLE = {"n": ["tuple of int"]}
TWINS_APART = [
    "return n",
    "return n[0]",
    "return str(n)",
    "return f'{n[0]}'",
    "return n[0] is True",
    "return isinstance(n[0], bool)",
    "return n[0] & n[0]",
    "return max(n)",
    "return (n[0],)",
    "return tuple([v for v in n])",
]
TWINS_ALIKE = [
    "return n[0] + n[0]",
    "return sum(n)",
    "return -n[0]",
    "return n[0] / 3",
    "return n[0] ** 2 * 0.5",
    "return str(n[0] * 2)",
    "return n[0] > 0",
    "return 'ab'[n[0]]",
    "return len(n)",
    "return tuple([v * 3 for v in n])",
    "return 'yes' if n[0] else 'no'",
    "return sum([v << 1 for v in range(n[0])])",
]


@pytest.mark.parametrize("body", TWINS_APART)
@pytest.mark.parametrize("annotation", ["", ": tuple[int, ...]"])
def test_1_and_true_are_one_to_a_cache_within_a_tuple(body: str, annotation: str) -> None:
    with pytest.raises(Unprovable):
        proof(f"def target(n{annotation}):\n    {body}\n", {} if annotation else WHOLE)


@pytest.mark.parametrize("body", TWINS_ALIKE)
def test_a_function_that_takes_1_and_true_for_the_same_is_proven(body: str) -> None:
    source = f"def target(n: tuple[int, ...]):\n    {body}\n"
    assert proof(source, {})
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102  the text is this test's own
    assert repr(scope["target"]((1,))) == repr(scope["target"]((True,)))


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("FMT = '%.1f'\ndef target(n):\n    return FMT % n\n", {"n": ["float"]}),
        ("def target(n: float):\n    return n and [1] * n or 3\n", {}),  # an int is a float to an annotation
        ("def target(n: tuple[float, ...]):\n    return len(n)\n", {}),
    ],
)
def test_arguments_that_are_more_than_they_seem(source: str, seen: dict[str, list[str]]) -> None:
    with pytest.raises(Unprovable):
        proof(source, seen)


@pytest.mark.parametrize(
    "body",
    [
        "f'{float(n):n}'",
        "f'{n:{FMT}}'",
        "format(float(n), 'n')",
        "format(n, FMT)",
        "'{:n}'.format(n)",
        "'{:{}}'.format(n, 'n')",
        "FMT.format(n)",
        "'{0.__str__}'.format(n)",
        "','.join(map(format, (n,), ('n',)))",
        "str(n).encode('mine')",
        "str(n).encode(FMT)",
        "b'1'.decode('utf-8', 'mine')",
    ],
)
def test_a_text_in_which_more_shows_than_its_arguments(body: str) -> None:
    with pytest.raises(Unprovable, match=r"locale|codec|passed here"):
        proof(f"FMT = 'n'\ndef target(n):\n    return {body}\n")


def test_texts_in_which_nothing_else_shows() -> None:
    assert proof("def target(n):\n    return f'{n:05d}{n!r:>8}' + '{:.2f}{}{x}'.format(n, 1, x=2)\n")
    assert proof("def target(n):\n    return format(n, 'x') + str(n).encode('utf-8', 'replace').hex()\n")


@pytest.mark.parametrize(
    "body",
    [
        "try:\n        return target(n + 1)\n    except RecursionError:\n        return -1",
        "try:\n        return target(n + 1)\n    except RuntimeError:\n        return -1",
        "try:\n        return target(n + 1)\n    except Exception:\n        return -1",
        "try:\n        return target(n + 1)\n    finally:\n        return -1",
        "for _ in (1,):\n        try:\n            return target(n)\n        finally:\n            break\n    return 1",
    ],
)
def test_a_result_that_the_depth_of_the_stack_decides(body: str) -> None:
    with pytest.raises(Unprovable):
        proof(f"def target(n):\n    {body}\n")


ANNOTATIONS = {
    "imported": ("from app.other import int\ndef target(n: int):\n    return 3", "int = list"),
    "tuple imported": (
        "from app.other import tuple\ndef target(n: tuple[int]):\n    return 3",
        "tuple = list",
    ),
    "attribute": ("import app.other as o\ndef target(n: o.tuple[int]):\n    return 3", "tuple = list"),
    "Optional": (
        "from app.other import Optional\ndef target(n: Optional[int]):\n    return 3",
        "Optional = {int: list}",
    ),
    "replaced": ("def target(n: int):\n    return 3", "import builtins\nbuiltins.int = list"),
    "of a class": (
        "class A:\n    int = list\n    @staticmethod\n    def target(n: int):\n        return 3",
        "",
    ),
}


@pytest.mark.parametrize(("source", "other"), ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_an_annotation_that_is_not_the_builtin_type(source: str, other: str) -> None:
    with pytest.raises(Unprovable):
        proof(source, {}, app__other=other)


def test_an_annotation_from_typing_is_known() -> None:
    source = "def target(n: {}[str, ...]):\n    return len(n)\n"
    assert proof("from typing import Tuple\n" + source.format("Tuple"), {})
    assert proof("import typing as t\n" + source.format("t.Tuple"), {})
    with pytest.raises(Unprovable, match="annotation"):
        proof("from typing import List as Tuple\n" + source.format("Tuple"), {})


def test_a_library_beside_a_file_of_its_name() -> None:
    for name, call in {
        "statistics": "mean([n])",
        "math": "floor(n)",
        "hashlib": "md5(b'').hexdigest()",
    }.items():
        with pytest.raises(Unprovable):
            proof(
                f"import {name}\ndef target(n):\n    return {name}.{call}\n",
                **{name: "def mean(x):\n    return 1\n"},
            )


LINEAR = "def target(n):\n    return (n - 1) * 3\n"


@pytest.mark.parametrize("given", ["np.ones(3)", "values", "n=values", "(1, values)", "2 * values"])
def test_an_array_may_be_given(given: str) -> None:
    use = f"from app.model import target\nvalues = np.ones(3)\ndef f():\n    return target({given})\n"
    with pytest.raises(Unprovable, match="array"):
        proof(LINEAR, app__other="import numpy as np\n" + use)
    with pytest.raises(Unprovable, match="array"):
        proof(f"from numpy import ones\ndef f(values):\n    return target({given})\n" + LINEAR)


def test_plain_arguments_beside_arrays() -> None:
    use = "import numpy as np\nfrom app.model import target\ndef f(x):\n    return target(int(x) + 1)\n"
    assert proof(LINEAR, app__other=use)
    use = use.replace("int(x) + 1", "x")
    assert proof(LINEAR.replace("n)", "n: int)", 1), app__other=use)


@pytest.mark.parametrize(
    "body",
    [
        "return target((n, [1]))",
        "return target(n or [])",
        "return target([1] if n else 1)",
        "given = [n]\n    return target(given)",
        "given = dict(a=n)\n    return target(n=given)",
        "return target(given)",
    ],
)
def test_a_list_may_be_given(body: str) -> None:
    with pytest.raises(Unprovable, match="cannot hold"):
        proof(LINEAR, app__other=f"from app.model import target\ndef f(n, given: list[int]):\n    {body}\n")
