"""Which functions are proven to be the same behind a cache, and which are not."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from qigheal.healing.strategies.caching.purity import Host, Proof, Unprovable, prove

INT = {"n": ["int"]}


def proof(source: str, seen: Mapping[str, Sequence[str]] = INT, **others: str) -> Proof:
    """The proof of the function `target` of app/model.py; `others` are more files, by module name."""
    text = textwrap.dedent(source).lstrip()
    lines = text.splitlines()
    at = next(
        i for i, line in enumerate(lines) if line.strip().startswith(("def target", "async def target"))
    )
    while at and lines[at - 1].strip().startswith("@"):
        at -= 1
    files = {"app/__init__.py": "", "app/model.py": text}
    files |= {f"{name.replace('__', '/')}.py": textwrap.dedent(code) for name, code in others.items()}
    return prove(Host({path: code.encode() for path, code in files.items()}), "app/model.py", at + 1, seen)


PURE: dict[str, Any] = {
    "arithmetic": "def target(n):\n    return n * n + 3",
    "annotated": "def target(n: int = 3, *, up: bool = False) -> int:\n    return n if up else -n",
    "loop": """
        def target(n):
            total = 0.0
            for k in range(1, n):
                total += 1 / k
            return round(total, 4)
    """,
    "recursion": "def target(n):\n    return n if n < 2 else target(n - 1) + target(n - 2)",
    "mutual recursion": """
        def target(n):
            return n == 0 or odd(n - 1)
        def odd(n):
            return n != 0 and target(n - 1)
    """,
    "local list": """
        def target(n):
            sieve = [True] * (n + 1)
            found = []
            for k in range(2, n):
                if sieve[k]:
                    found.append(k)
                    for m in range(k * k, n, k):
                        sieve[m] = False
            return tuple(found)
    """,
    "local dict": """
        def target(n):
            seen: dict[int, int] = {}
            while n not in seen:
                seen[n] = len(seen)
                n = n // 2 if n % 2 == 0 else 3 * n + 1
            return len(seen), max(seen)
    """,
    "helper that changes a list of its caller": """
        def fill(found, n):
            found.append(n)
        def target(n):
            found = []
            fill(found, n)
            return sum(found)
    """,
    "constants": """
        import math as m
        WIDTH = 4
        NAMES = ("a", "b")
        CODES = frozenset(NAMES)
        def target(n):
            return NAMES[n % 2] if "a" in CODES else str(m.floor(m.pi * WIDTH))
    """,
    "static method": """
        class Grid:
            @staticmethod
            def target(n):
                return n + 1
    """,
    "exceptions": """
        class BadInput(ValueError):
            \"\"\"Too small.\"\"\"
        def target(n):
            try:
                return 10 // n
            except ZeroDivisionError as error:
                raise BadInput("n must not be zero", n) from error
    """,
    "sorting by a key": """
        def target(n):
            words = [f"w{k}" for k in range(n)]
            return ",".join(sorted(words, key=lambda w: (len(w), w)))
    """,
    "powers": "def target(n):\n    return pow(n, 3, 11) + pow(n, 2)",
    "comparison with None": "def target(n):\n    return 0 if n is None else n",
    "pattern": """
        import re
        WORD = re.compile("[a-z]+")
        def target(n):
            return len(WORD.sub("", str(n)))
    """,
    "hash of a text": """
        from hashlib import sha256
        def target(n):
            return sha256(str(n).encode()).hexdigest()
    """,
}


@pytest.mark.parametrize("source", PURE.values(), ids=PURE.keys())
def test_it_is_proven(source: str) -> None:
    assert proof(source).function.name == "target"


IMPURE: dict[str, tuple[str, str]] = {
    # What it depends on
    "clock": ("import time\ndef target(n):\n    return n + int(time.time())", "time.time"),
    "clock under another name": (
        "from time import monotonic as now\ndef target(n):\n    return n + int(now())",
        "time.monotonic",
    ),
    "environment": (
        "import os\ndef target(n):\n    return os.environ.get('X', 'y') * n",
        "os.environ.get is not known",
    ),
    "random": ("import random\ndef target(n):\n    return random.randrange(n)", "random.randrange"),
    "file": ("def target(n):\n    return open('x').read()[n]", "open"),
    "output": ("def target(n):\n    print(n)\n    return n", "print"),
    "input": ("def target(n):\n    return int(input()) + n", "input"),
    "mutable global": (
        "RATES = {1: 2}\ndef target(n):\n    return RATES[n]\ndef change():\n    RATES[1] = 3",
        "may be changed",
    ),
    "list within a tuple": (
        "RATES = ([1], [2])\ndef target(n):\n    return RATES[n][0]\ndef change():\n    RATES[1][0] = 3",
        "may be changed",
    ),
    "global that is bound again": (
        "STEP = 1\nSTEP = 2\ndef target(n):\n    return n + STEP",
        "bound 2 times",
    ),
    "global that another function binds": (
        "STEP = 1\ndef raise_it():\n    global STEP\n    STEP = 2\ndef target(n):\n    return n + STEP",
        "bound 2 times",
    ),
    "global statement": (
        "CALLS = 0\ndef target(n):\n    global CALLS\n    CALLS = n\n    return n",
        "Global in target",
    ),
    "conditional global": ("if 1:\n    STEP = 1\ndef target(n):\n    return n + STEP", "not followed"),
    "from anywhere": ("from os.path import *\ndef target(n):\n    return len(n)", "something else"),
    "unknown library": ("import numpy as np\ndef target(n):\n    return int(np.sum(n))", "numpy.sum"),
    "unknown name": ("def target(n):\n    return whatever(n)", "not certain what whatever is"),
    "impure helper": (
        "import time\ndef helper(n):\n    return time.time()\ndef target(n):\n    return helper(n) > n",
        "time.time",
    ),
    "address": ("def target(n):\n    return id(n)", "id is not known"),
    "address in a text": ("def target(n):\n    return str(range(n)) + str(iter([n]))", "address"),
    "hash": ("def target(n):\n    return hash(str(n))", "hash is not known"),
    "attribute of an argument": ("def target(n):\n    return n.real", "attribute is read"),
    "depth of the stack": (
        "def target(n):\n    try:\n        return target(n + 1)\n    except RecursionError:\n        return n",
        "exception that is not known",
    ),
    "anything caught": (
        "def target(n):\n    try:\n        return 1 // n\n    except:\n        return n",
        "depth of the stack",
    ),
    # What it does
    "attribute write": ("class A:\n    pass\ndef target(n):\n    A.n = n\n    return n", "written to"),
    "nonlocal": (
        "def target(n):\n    k = 0\n    def f():\n        nonlocal k\n        k += 1\n    f()\n    return k",
        "Nonlocal",
    ),
    "generator": ("def target(n):\n    yield n", "Yield"),
    "coroutine": ("async def target(n):\n    return n", "neither a function"),
    "mutable default": (
        "def count(n, seen=[]):\n    seen.append(n)\n    return len(seen)\ndef target(n):\n    return count(n)",
        "may be changed",
    ),
    "context": ("def target(n):\n    with open('x') as f:\n        return n", "With is not followed"),
    "import inside": ("def target(n):\n    import time\n    return n", "Import is not followed"),
    "nothing": ("def target(n):\n    n + 1", "returns nothing"),
    # What it returns
    "list": ("def target(n):\n    return [n]", "may be changed by who gets it"),
    "dict": ("def target(n):\n    return {'n': n}", "may be changed by who gets it"),
    "list in a tuple": ("def target(n):\n    return (n, [n])", "may be changed by who gets it"),
    "list under another name": (
        "def target(n):\n    a = []\n    b = a\n    b.append([n])\n    return tuple(a)",
        "may be changed by who gets it",
    ),
    "list put in by setdefault": (
        "def target(n):\n    d = {}\n    d.setdefault(n, []).append(n)\n    return tuple(d.values())",
        "may be changed by who gets it",
    ),
    "list put in by augmented assignment": (
        "def target(n):\n    a = []\n    b = a\n    b += [[n]]\n    return tuple(a)",
        "may be changed by who gets it",
    ),
    "iterator": ("def target(n):\n    return (k for k in range(n))", "may be changed by who gets it"),
    "map": ("def target(n):\n    return map(str, range(n))", "may be changed by who gets it"),
    "function": ("def other(n):\n    return n\ndef target(n):\n    return other", "used as a value"),
    "what a helper returns": (
        "def helper(n):\n    return [n]\ndef target(n):\n    return helper(n)",
        "may be changed by who gets it",
    ),
    "unknown object": ("class A:\n    pass\ndef target(n):\n    return A()", "not followed what is called"),
    # How it is made and used
    "decorated": (
        "import functools\n@functools.wraps(len)\ndef target(n):\n    return n",
        "decorated",
    ),
    "cached already": (
        "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef target(n):\n    return n",
        "decorated",
    ),
    "method": ("class A:\n    def target(self, n):\n        return n", "no static method"),
    "class method": (
        "class A:\n    @classmethod\n    def target(cls, n):\n        return n",
        "no static method",
    ),
    "static method of a decorated class": (
        "def d(c):\n    return c\n@d\nclass A:\n    @staticmethod\n    def target(n):\n        return n",
        "not a plain one",
    ),
    "static method of a derived class": (
        "class A(dict):\n    @staticmethod\n    def target(n):\n        return n",
        "not a plain one",
    ),
    "any number of arguments": ("def target(n, *more):\n    return len(more)", "any number"),
    "any keywords": ("def target(n, **more):\n    return n", "any number"),
    "no arguments": ("def target():\n    return 3", "no arguments"),
    "bound twice": ("def target(n):\n    return n\ndef target(n):\n    return -n", "bound 2 times"),
    "callback": ("def target(n):\n    return n\nTABLE = {'t': target}", "another way"),
    "passed on": ("def target(n):\n    return n\ndef all_of(xs):\n    return map(target, xs)", "another way"),
    "compared": ("def target(n):\n    return n\ndef f(g):\n    return g == target", "another way"),
    "asked for its name": ("def target(n):\n    return n\nLABEL = target.__name__", "another way"),
    "asked for by name": ("import app\ndef target(n):\n    return n\nT = getattr(app, 'target')", "by name"),
    "given a list elsewhere": (
        "def target(n):\n    return n\ndef f():\n    return target([1])",
        "cannot hold",
    ),
    "identity of its argument": ("def target(n):\n    return n is LIMIT\nLIMIT = 7", "identity"),
    "identity of its result": (
        "def target(n):\n    return str(n)\ndef f(x):\n    return target(x) is x",
        "identity of a result",
    ),
}


@pytest.mark.parametrize(("source", "reason"), IMPURE.values(), ids=IMPURE.keys())
def test_it_is_not_proven(source: str, reason: str) -> None:
    with pytest.raises(Unprovable, match=reason):
        proof(source)


PLAIN = "STEP = 2\ndef target(n):\n    return n + STEP\n"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("from app import model\nmodel.STEP = 3\n", "written to"),
        ("import app.model as m\nm.target = len\n", "something else"),
        ("from app import model\ndel model.STEP\n", "written to"),
        ("from app import model\nsetattr(model, 'STEP', 3)\n", "written to"),
        (
            "from unittest.mock import patch\n@patch('app.model.STEP', 3)\ndef test():\n    pass\n",
            "written to",
        ),
        ("def test(monkeypatch, m):\n    monkeypatch.setattr(m, 'target', len)\n", "something else"),
        ("from app import model\nname = 'STEP'\nsetattr(model, name, 3)\n", "cannot be seen"),
        ("exec('import app.model; app.model.STEP = 3')\n", "cannot be seen"),
        ("from app import model\nmodel.__dict__['STEP'] = 3\n", "cannot be seen"),
        ("import sys\nsys.modules['app.model'] = None\n", "sys.modules"),
        ("import importlib\nfrom app import model\nimportlib.reload(model)\n", "cannot be seen"),
        ("from app.model import target as t\nHANDLERS = [t]\n", "another way"),
        ("def f():\n    from app.model import target\n    return [target]\n", "another way"),
        ("from app import model\nimport pickle\npickle.dumps(model.target)\n", "another way"),
        ("def (:\n", "cannot be read"),
    ],
)
def test_another_file_takes_the_proof_away(other: str, reason: str) -> None:
    assert proof(PLAIN)
    with pytest.raises(Unprovable, match=reason):
        proof(PLAIN, app__other=other)


def test_a_builtin_that_is_replaced_is_not_trusted() -> None:
    source = "def target(n):\n    return len(str(n))\n"
    assert proof(source)
    with pytest.raises(Unprovable, match="not certain what len is"):
        proof(source, app__other="import builtins\nbuiltins.len = lambda x: 3\n")
    with pytest.raises(Unprovable, match="bound"):
        proof("def len(x):\n    return [x]\nlen = 3\n" + source)


@pytest.mark.parametrize(
    "import_",
    [
        "from app.helper import double\n",
        "from .helper import double\n",
        "from app.helper import double as d\ndouble = 3\n",
        "from app import helper\n",
        "from . import helper as helper\n",
        "import app.helper as helper\n",
        "import app.helper\n",
    ],
)
def test_helpers_are_followed_through_imports(import_: str) -> None:
    called = {"as d": "d", "import double": "double", "import app.helper\n": "app.helper.double"}
    call = next((name for part, name in called.items() if part in import_), "helper.double")
    source = f"{import_}def target(n):\n    return {call}(n) + 1\n"
    pure, impure = (
        "def double(n):\n    return 2 * n\n",
        "import time\ndef double(n):\n    return time.time()\n",
    )
    found = proof(source, app__helper=pure)
    assert {function.shown for function in found.reached} == {"app/model.py:target", "app/helper.py:double"}
    with pytest.raises(Unprovable, match=r"time\.time"):
        proof(source, app__helper=impure)


@pytest.mark.parametrize(
    "others",
    [
        {"time": "def time():\n    return 5\n"},  # the interpreter takes the library's
        {"app__time": "def time():\n    return 5\n"},
        {"tools__time": "def time():\n    return 5\n"},
    ],
)
def test_a_file_called_like_a_library_is_not_taken_for_it(others: dict[str, str]) -> None:
    with pytest.raises(Unprovable, match="time"):
        proof("import time\ndef target(n):\n    return time.time() + n\n", **others)


def test_a_module_that_may_be_another_is_not_followed() -> None:
    source = "from helpers import double\ndef target(n):\n    return double(n)\n"
    double = "def double(n):\n    return 2 * n\n"
    assert proof(source, helpers=double)
    for others in ({"tools__helpers": double}, {"helpers": double, "app__helpers": double}):
        with pytest.raises(Unprovable, match="may be"):
            proof(source, **others)


def test_a_name_of_a_comprehension_hides_none_outside() -> None:
    with pytest.raises(Unprovable, match="may be changed"):
        proof("CACHE = {}\ndef target(n):\n    return sum(CACHE for CACHE in range(n)) + len(CACHE)\n")


@pytest.mark.parametrize(
    ("annotation", "kinds", "reason"),
    [
        ("list", ["int"], "annotation"),
        ("Sequence[int]", ["tuple of int"], "annotation"),
        ("", ["list"], "no plain value"),
        ("", ["int", "Colour"], "no plain value"),
        ("", [], "not seen"),
        ("", ["tuple of float, int"], "mixed numbers"),
        ("", ["tuple of int", "tuple of bool"], "mixed numbers"),
        ("tuple[int, ...]", ["tuple of float"], "mixed numbers"),
        ("tuple[tuple[int, float], str]", ["tuple of str"], "mixed numbers"),
    ],
)
def test_arguments_that_a_cache_confuses_or_cannot_hold(
    annotation: str, kinds: list[str], reason: str
) -> None:
    said = f": {annotation}" if annotation else ""
    with pytest.raises(Unprovable, match=reason):
        proof(f"def target(n{said}):\n    return 3\n", {"n": kinds})


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        ("int | None", ["int"]),
        ("'str'", []),
        ("tuple[str, int]", []),
        ("Optional[tuple[str, ...]]", ["NoneType"]),
        ("", ["int", "bool", "str"]),
        ("", ["tuple of int, str"]),
    ],
)
def test_arguments_that_a_cache_can_hold(annotation: str, kinds: list[str]) -> None:
    said = f": {annotation}" if annotation else ""
    assert proof(f"def target(n{said}):\n    return 3\n", {"n": kinds})
