"""What may be cached is proved, and what may not is told why."""

from __future__ import annotations

import ast
import textwrap

import pytest

from qigheal.healing.strategies.caching.purity import Unproven, prove
from qigheal.healing.strategies.caching.sources import Sources

OTHER = """
import math
from app import deep
LIMIT = 7
TABLE = {"a": 1}

def scaled(x: int) -> float:
    return math.sqrt(x) * LIMIT

def listed(x: int):
    return [x, x + 1]

def mean(values):
    return sum(values) / len(values)

def looked_up(x: str):
    return TABLE[x]

def even(n: int):
    return n == 0 or deep.odd(n - 1)
"""
DEEP = """
from app.other import even

def odd(n: int):
    return n != 0 and even(n - 1)
"""


def proved(text: str, *, numeric: bool = False, **more: str) -> None:
    files = {
        "app/__init__.py": "",
        "app/other.py": OTHER,
        "app/deep.py": DEEP,
        "app/main.py": textwrap.dedent(text),
    }
    files |= {f"app/{name}.py": textwrap.dedent(content) for name, content in more.items()}
    program = Sources.of(files, files.__getitem__)
    module = program.module("app.main")
    assert module is not None
    function = next(n for n in ast.walk(module.tree) if isinstance(n, ast.FunctionDef) and n.name == "f")
    prove(program, module, function, numeric)


@pytest.mark.parametrize(
    "text",
    [
        "def f(n: int) -> int:\n    return n if n < 2 else f(n - 1) + f(n - 2)",
        "import math\ndef f(x: int):\n    return math.sin(x) + math.pi",
        "from math import sqrt as root\ndef f(x: float):\n    return root(x) * 2.5",
        "LIMIT = 10\nNAMES = ('a', 'b')\ndef f(x: int):\n    return NAMES[x % 2] if x < LIMIT else ''",
        "KNOWN = frozenset({'a', 'b'})\ndef f(x: str):\n    return x in KNOWN",
        "def f(text: str, sep: str = ','):\n    return tuple(part.strip() for part in text.split(sep))",
        """
        def f(n: int):
            table = [0] * (n + 1)
            for i in range(2, n + 1):
                table[i] = table[i - 1] + i
            return table[n]
        """,
        """
        def f(n: int):
            grid = [[0] * n for _ in range(n)]
            grid[0][0] = 1
            return grid[n - 1][n - 1]
        """,
        """
        def f(n: int):
            found = []
            for i in range(n):
                if i % 3 == 0:
                    found.append(i)
            return sum(found) + max(found, default=0)
        """,
        """
        def f(text: str):
            counts = {}
            for letter in text:
                counts[letter] = counts.get(letter, 0) + 1
            return max(counts.values())
        """,
        "import hashlib\ndef f(data: bytes):\n    return hashlib.sha256(data).hexdigest()",
        "from app.other import scaled\ndef f(x: int):\n    return scaled(x) + 1",
        "from app import other\ndef f(x: int):\n    return other.mean([x, x + 1])",
        "import app.other as o\ndef f(x: int):\n    return o.even(x)",
        "def f(x: int):\n    if x < 0:\n        raise ValueError(f'negative: {x}')\n    return x",
        "def f(x: int):\n    try:\n        return 10 // x\n    except ZeroDivisionError:\n        return 0",
        "def f(x: 'int | None'):\n    return 0 if x is None else x",
        "def f(x: tuple[int, ...]):\n    return sum(x)",
        "class A:\n    @staticmethod\n    def f(x: int):\n        return x + 1",
        "def f(x: int):\n    a, *rest = sorted([x, x + 1, x + 2])\n    return a + len(rest)",
    ],
)  # fmt: skip
def test_a_pure_function_is_proved(text: str) -> None:
    proved(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import time\ndef f(x: int):\n    return time.time() + x", "time.time"),
        ("from time import monotonic as now\ndef f(x: int):\n    return now() + x", "time.monotonic"),
        ("from datetime import datetime\ndef f(x: int):\n    return datetime.now().year + x", "attribute year"),
        ("import os\ndef f(x: int):\n    return os.environ['A'] + str(x)", "environ|os"),
        ("import os\ndef f(x: str):\n    return os.getenv(x)", "os.getenv"),
        ("import random\ndef f(x: int):\n    return random.random() + x", "random"),
        ("def f(x: str):\n    return open(x).read()", "open"),
        ("def f(x: int):\n    print(x)\n    return x", "print"),
        ("def f(x: str):\n    return input(x)", "input"),
        ("def f(x: str):\n    return eval(x)", "eval"),
        ("def f(x: str):\n    return hash(x)", "hash"),
        ("def f(x: str):\n    return id(x)", "id"),
        ("COUNT = 0\ndef f(x: int):\n    global COUNT\n    COUNT += 1\n    return x", "statement|COUNT"),
        ("C = 0\ndef g():\n    global C\n    C += 1\ndef f(x: int):\n    return x + C", "more than once"),
        ("RATES = {'a': 1}\ndef f(x: str):\n    return RATES[x]", "RATES is a variable that may change"),
        ("SEEN = []\ndef f(x: int):\n    SEEN.append(x)\n    return x", "SEEN|its own"),
        ("from app.other import looked_up\ndef f(x: str):\n    return looked_up(x)", "TABLE"),
        ("import tomllib\nG = tomllib.loads('g = 1')['g']\ndef f(x: int):\n    return x * G", "G is a variable"),
        ("G = 1\nG = 2\ndef f(x: int):\n    return x * G", "more than once"),
        ("if True:\n    G = 1\nelse:\n    G = 2\ndef f(x: int):\n    return x * G", "more than once"),
        ("def f(x: int):\n    return [x]", "a caller can change"),
        ("def f(x: int):\n    return {x: 1}", "a caller can change"),
        ("from app.other import listed\ndef f(x: int):\n    return listed(x)", "a caller can change"),
        ("def f(x: int):\n    return ([x], 1)", "a caller can change"),
        ("def f(x: int):\n    for i in range(x):\n        yield i", "yield"),
        ("def f(x: int):\n    return (i for i in range(x))", "a caller can change"),
        ("def f(x: list):\n    return len(x)", "cannot be hashed"),
        ("def f(x: dict[str, int]):\n    return len(x)", "cannot be hashed"),
        ("def f(x):\n    return x", "no annotation"),
        ("def f(*x: int):\n    return sum(x)", "any number"),
        ("def f(**x: int):\n    return sum(x.values())", "any number"),
        ("def f(x: int, y=[]):\n    return x", "no constant"),
        ("def f(x: tuple[float, ...]):\n    return sum(x)", "tuple in which"),
        ("def f(x: tuple[int, float]):\n    return x[0]", "tuple in which"),
        ("import math\ndef f(x: float):\n    return math.copysign(1.0, x)", "copysign"),
        ("def f(x: float):\n    return str(x)", "str\\(\\)"),
        ("def f(x: float):\n    return f'{x}'", "formatting"),
        ("def f(x: float):\n    return '%s' % x", "formatting"),
        ("def f(x: int):\n    y = x\n    return x is y", "one object"),
        ("def f(x: int):\n    def g():\n        return x\n    return g()", "statement|g"),
        ("def f(x: int):\n    return (lambda: x)()", "lambda|followed"),
        ("def f(x: int, g: int):\n    return g(x)", "any function"),
        ("class A:\n    def f(self, x: int):\n        return x", "self has no annotation"),
        ("class A:\n    @classmethod\n    def f(cls, x: int):\n        return x", "decorated"),
        ("import functools\n@functools.wraps(print)\ndef f(x: int):\n    return x", "decorated"),
        ("from os import *\ndef f(x: int):\n    return x", "imports everything"),
        ("def f(x: int):\n    import math\n    return math.sqrt(x)", "import"),
        ("def f(x: int):\n    with open('a') as g:\n        return x", "with"),
        ("class E(Exception):\n    pass\ndef f(x: int):\n    raise E(x)", "not built in"),
        ("def f(x: str):\n    return x.unknown()", "the method unknown"),
        ("def f(x: str):\n    return x.attribute", "attribute"),
        ("import app.missing\ndef f(x: int):\n    return app.missing.g(x)", "calls|app"),
        ("len = print\ndef f(x: str):\n    return len(x)", "len|calls"),
        ("def f(n: int):\n    a = [[0]]\n    b = a[0]\n    b.append(a)\n    return a[0][0]", "another name"),
        ("def g(values):\n    values.append(1)\n    return 1\ndef f(x: int):\n    return g([x])", "another name|own"),
        ("async def g(x):\n    return x\ndef f(x: int):\n    return g(x)", "no plain function"),
        ("def f(x: int):\n    return max([x], key=print)", "key of max"),
        ("def f(x: int):\n    return tuple(map(print, [x]))", "maps a function"),
    ],
)  # fmt: skip
def test_what_is_not_proved_is_told_why(text: str, why: str) -> None:
    with pytest.raises(Unproven, match=why):
        proved(text)


@pytest.mark.parametrize(
    ("elsewhere", "why"),
    [
        ("from app import main\nmain.LIMIT = 3", "LIMIT may be set from elsewhere"),
        ("from app import main\nsetattr(main, 'LIMIT', 3)", "LIMIT may be set from elsewhere"),
        ("import app.main, sys\nsetattr(app.main, sys.argv[1], 3)", "LIMIT may be set from elsewhere"),
    ],
)
def test_a_name_that_another_file_sets_may_change(elsewhere: str, why: str) -> None:
    text = "LIMIT = 10\ndef f(x: int):\n    return x < LIMIT"
    proved(text, setter="from app import main\nprint(main.LIMIT)")
    with pytest.raises(Unproven, match=why):
        proved(text, setter=elsewhere)


def test_numbers_without_annotations_are_shown_by_what_is_done_with_them() -> None:
    text = "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)"
    proved(text, numeric=True)
    with pytest.raises(Unproven, match="no annotation"):
        proved(text, numeric=False)
    with pytest.raises(Unproven, match="no annotation"):  # an array takes part in arithmetic, and has no hash
        proved("import numpy as np\n" + text, numeric=True)
    with pytest.raises(Unproven, match="no annotation"):  # [1] * 2 works as well
        proved("def f(n):\n    return len(n * 2)", numeric=True)


def test_a_recursion_whose_results_differ_in_kind_is_no_proof() -> None:
    text = """
    def f(n: int):
        return g(n)
    def g(n: int):
        return a(n) and 1
    def a(n: int):
        return b(n - 1) if n else [n]
    def b(n: int):
        return a(n - 1)
    """
    with pytest.raises(Unproven):
        proved(text)
