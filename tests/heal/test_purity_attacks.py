"""Functions that look pure and are not: none may be proven. Each is a way in which a cache would be noticed."""

from __future__ import annotations

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
