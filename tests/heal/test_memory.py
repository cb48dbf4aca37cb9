"""What is bounded, what is written, and the many things that are left alone."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from qigheal.healing.hostcode.program import Program
from qigheal.healing.strategies.bounding.bounds import Bound, bounded
from qigheal.healing.strategies.bounding.edits import AT_ONCE
from qigheal.healing.strategies.bounding.repeatable import Prover, Unproven

MOST = 64


def bound(folder: Path, kind: str, name: str, code: str, **others: str) -> Bound:
    """The bound of a container of `app.py`; `others` are further files by their module's name."""
    for module, text in {"app": code, **others}.items():
        (folder / f"{module}.py").write_text(dedent(text).lstrip("\n"))
    content = (folder / "app.py").read_bytes()
    program = Program(folder)
    assert "app.py" in program.sources, "the test's own code does not parse"
    return bounded(Prover(program), kind, "app.py", name, content, MOST)


def added(folder: Path, kind: str, name: str, code: str, **others: str) -> list[str]:
    """The lines that the bound adds or changes."""
    found = bound(folder, kind, name, code, **others).content.decode()
    ast.parse(found)
    before = dedent(code).lstrip("\n").splitlines()
    return [line.strip() for line in found.splitlines() if line not in before]


def lines(*parts: str) -> str:
    """A function's body, as the templates below take it."""
    return "\n        ".join(parts)


# Caches of functools

CACHED = """
    {imports}


    # What is slow.
    {decorator}  # asked for often
    def square(x):
        return x * x
"""


@pytest.mark.parametrize(
    ("imports", "decorator", "lines"),
    [
        ("import functools", "@functools.cache", ["@functools.lru_cache(maxsize=64)  # asked for often"]),
        ("import functools as ft", "@ft.cache", ["@ft.lru_cache(maxsize=64)  # asked for often"]),
        (
            "import functools as ft",
            "@ft.lru_cache(maxsize=None, typed=True)",
            ["@ft.lru_cache(maxsize=64, typed=True)  # asked for often"],
        ),
        (
            "from functools import cache",
            "@cache",
            ["from functools import lru_cache", "@lru_cache(maxsize=64)  # asked for often"],
        ),
        (
            "from functools import cache, lru_cache as lru",
            "@cache",
            ["from functools import lru_cache as lru", "@lru(maxsize=64)  # asked for often"],
        ),
        ("from functools import lru_cache", "@lru_cache(None)", ["@lru_cache(64)  # asked for often"]),
        (
            "from functools import lru_cache\nkeep = lru_cache".replace("\n", "\n    "),
            "@keep(maxsize = None)",
            ["@keep(maxsize = 64)  # asked for often"],
        ),
        (
            "from tools import remember",
            "@remember(maxsize=None)",
            ["@remember(maxsize=64)  # asked for often"],
        ),
    ],
)
def test_a_cache_without_a_bound_gets_one(
    tmp_path: Path, imports: str, decorator: str, lines: list[str]
) -> None:
    code = CACHED.format(imports=imports, decorator=decorator)
    tools = "from functools import lru_cache as remember\n"
    assert added(tmp_path, "lru_cache", "square", code, tools=tools) == lines
    assert bound(tmp_path, "lru_cache", "square", code, tools=tools).tier == "safe"


@pytest.mark.parametrize(
    ("imports", "decorator"),
    [
        ("from functools import lru_cache", "@lru_cache(maxsize=128)"),
        ("from functools import lru_cache", "@lru_cache"),
        ("from functools import lru_cache", "@lru_cache(maxsize=SIZE)"),
        ("from cachetools import cache", "@cache"),
        ("from functools import cache\n    from other import register", "@cache\n    @register"),
        ("from functools import cache", "@cache\n    @cache"),
    ],
)
def test_other_decorators_are_left_alone(tmp_path: Path, imports: str, decorator: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "square", CACHED.format(imports=imports, decorator=decorator))


BODIES_THAT_REPEAT = {
    "arithmetic": "return x ** 2 + LIMIT",
    "text": "return f'{x}:{SEP}'.upper().encode()",
    "digest": "return hashlib.sha256(str(x).encode()).hexdigest() * 10",
    "loop": lines("total = 0", "for n in range(x):", "    total += n", "return total"),
    "built here": lines(
        "parts = []", "for n in range(x):", "    parts.append(str(n))", "return ','.join(parts)"
    ),
    "own function": "return helper(x, 2)",
    "other file": "return tools.twice(x)",
    "passes a builtin": "return ','.join(map(str, sorted(range(x), key=lambda n: -n)))",
    "tuple": "return tuple(sorted(n * 2 for n in range(x)))",
    "seeded": "return random.Random(x).random()",
    "recursive": "return 1 if x < 2 else x * value(x - 1)",
    "slow": lines("time.sleep(0.001)", "return x"),
    "raises": lines("if x < 0:", "    raise ValueError(x)", "return math.sqrt(x)"),
}
BODIES_THAT_DO_NOT = {
    "clock": "return time.time() + x",
    "chance": "return random.random() * x",
    "no seed": "return random.Random().random()",
    "counter": "return next(COUNTER)",
    "identity": "return object()",
    "object": "return Thing(x)",
    "file": "return open(str(x)).read()",
    "changing table": "return STATE['n'] + x",
    "changing global": lines("global COUNT", "COUNT += 1", "return COUNT"),
    "count": "return COUNT + x",
    "environment": "return os.environ[str(x)]",
    "client": "return client.get(x)",
    "argument's method": "return x.fetch()",
    "argument's attribute": "return x.balance",
    "iterator": "return (n for n in range(x))",
    "map": "return map(str, range(x))",
    "generator": "yield x",
    "nested lists": "return [[x]]",
    "print": lines("print(x)", "return x"),
    "unknown module": "return requests.get(x)",
    "unknown function": "return mystery(x)",
    "closure": "return (lambda: COUNT)()",
    "appends outside": lines("SEEN.append(x)", "return x"),
}
AROUND = """
    import functools, hashlib, itertools, math, os, random, time
    import requests
    import tools
    from elsewhere import client

    LIMIT, SEP = 3, ";"
    LIMIT_2 = 4
    COUNTER = itertools.count()
    COUNT = 0
    STATE = {{"n": 1}}
    SEEN = []


    def bump():
        global COUNT
        COUNT += 1
        STATE["n"] += 1


    class Thing:
        def __init__(self, x):
            self.x = x


    def helper(x, n):
        return [x] * n == [n]


    @functools.cache
    def value(x):
        {body}
"""


@pytest.mark.parametrize("name", BODIES_THAT_REPEAT)
def test_a_function_of_its_arguments_may_be_asked_again(tmp_path: Path, name: str) -> None:
    code = AROUND.format(body=BODIES_THAT_REPEAT[name]).replace(
        'LIMIT, SEP = 3, ";"', 'LIMIT = 3\n    SEP = ";"'
    )
    assert (
        bound(tmp_path, "lru_cache", "value", code, tools="def twice(x):\n    return 2 * x\n").tier == "safe"
    )


@pytest.mark.parametrize("name", BODIES_THAT_DO_NOT)
def test_what_might_give_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    code = AROUND.format(body=BODIES_THAT_DO_NOT[name])
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "value", code)


def test_a_coroutine_is_used_up_by_the_first_who_awaits_it(tmp_path: Path) -> None:
    code = "import functools\n@functools.cache\nasync def value(x):\n    return x\n"
    with pytest.raises(Unproven, match="coroutine"):
        bound(tmp_path, "lru_cache", "value", code)


ROWS = """
    import functools


    @functools.cache
    def rows(n):
        return [i * i for i in range(n)]


    def use(n):
        found = rows(n)
        {use}
"""


@pytest.mark.parametrize(
    "use",
    ["return found[0]", "return sum(found)", "return 3 in found", "return ','.join(map(str, found))",
     "for i in found:\n            print(i)", "return rows(n)[1:]", "return len(rows(n)) + found.index(4)"],
)  # fmt: skip
def test_a_list_that_callers_only_read_may_be_made_again(tmp_path: Path, use: str) -> None:
    code = ROWS.format(use=use)
    assert "maxsize=64" in bound(tmp_path, "lru_cache", "rows", code).content.decode()


@pytest.mark.parametrize(
    "use",
    ["found.append(1)", "found[0] = 1", "del found[0]", "found += [1]", "KEPT.append(found)", "self.x = found",
     "return found is rows(n)", "return id(found)", "change(found)", "return use_it(rows)",
     "other = found\n        other.sort()", "return getattr(app, 'rows')(n)"],
)  # fmt: skip
def test_a_list_that_somebody_may_change_or_keep_is_left_alone(tmp_path: Path, use: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "rows", ROWS.format(use=use))


def test_a_list_that_another_file_changes_is_left_alone(tmp_path: Path) -> None:
    other = "from app import rows as r\n\ndef f():\n    r(3).append(4)\n"
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "rows", ROWS.format(use="return sum(found)"), other=other)


METHOD = """
    import functools


    class Shop:
        def __init__(self, rate: float):
            self.rate = {rate}

        @functools.lru_cache(maxsize=None)
        def price(self, n):
            return n * self.rate
"""


def test_attributes_of_a_cached_method_must_stand_still(tmp_path: Path) -> None:
    assert bound(tmp_path, "lru_cache", "Shop.price", METHOD.format(rate="rate")).tier == "safe"
    with pytest.raises(Unproven, match=r"rate may change"):
        bound(tmp_path, "lru_cache", "Shop.price", METHOD.format(rate="[rate]"))
    with pytest.raises(Unproven, match=r"rate may change"):
        bound(
            tmp_path,
            "lru_cache",
            "Shop.price",
            METHOD.format(rate="rate"),
            other="def f(s):\n    s.rate = 2\n",
        )


# Dicts that remember

SHAPES = {
    "get": lines("v = D.get(k)", "if v is None:", "    v = work(k)", "    D[k] = v", "return v"),
    "get, early": lines(
        "v = D.get(k, None)", "if v is not None:", "    return v", "v = work(k)", "D[k] = v", "return v"
    ),
    "walrus": lines("if (v := D.get(k)) is None:", "    D[k] = v = work(k)", "return v"),
    "exception": lines(
        "try:", "    return D[k]", "except KeyError:", "    v = D[k] = work(k)", "    return v"
    ),
    "exception, after": lines(
        "try:", "    return D[k]", "except KeyError:", "    pass", "v = work(k)", "D[k] = v", "return v"
    ),
}
TESTED = {
    "not in": lines("if k not in D:", "    D[k] = work(k)", "return D[k]"),
    "in": lines("if k in D:", "    return D[k]", "v = work(k)", "D[k] = v", "return v"),
    "else": lines("if k in D:", "    v = D[k]", "else:", "    v = work(k)", "    D[k] = v", "return v"),
}
NO_CACHE = {
    "iterated": lines("for x in D:", "    print(x)", "D[k] = work(k)", "return D[k]"),
    "counted": lines("if len(D) > 3:", "    return 0", "D[k] = work(k)", "return D[k]"),
    "returned": lines("D[k] = work(k)", "return D"),
    "passed on": lines(
        "v = D.get(k)", "if v is None:", "    v = work(k)", "    D[k] = v", "publish(D)", "return v"
    ),
    "default": lines("v = D.get(k, 0)", "D[k] = v + 1", "return v"),
    "counter": lines("D[k] = D[k] + 1 if k in D else 1", "return D[k]"),
    "other key": lines("v = D.get(k)", "if v is None:", "    v = work(k)", "    D[k + 1] = v", "return v"),
    "other value": lines("v = D.get(k)", "if v is None:", "    v = work(other)", "    D[k] = v", "return v"),
    "key changes": lines(
        "v = D.get(k)", "if v is None:", "    k = k + 1", "    v = work(k)", "    D[k] = v", "return v"
    ),
    "first wins": lines("v = D.get(k)", "if v is None:", "    v = stamp()", "    D[k] = v", "return v"),
    "read late": lines("if k not in D:", "    D[k] = work(k)", "lookup(k - 1)", "return D[k]"),
    "registry": lines("D[k] = work(k)", "return D.get(k - 1)"),
}
REMEMBERS = """
    import time

    D = {{}}


    def work(k):
        return k * 1000


    def stamp():
        return time.time()


    def lookup(k, other=None):
        {body}
"""


@pytest.mark.parametrize("shape", [*SHAPES, *TESTED])
def test_a_dict_that_remembers_drops_its_oldest(tmp_path: Path, shape: str) -> None:
    code = REMEMBERS.format(body={**SHAPES, **TESTED}[shape])
    found = bound(tmp_path, "dict", "D", code)
    assert found.tier == ("review" if shape in TESTED else "safe")
    assert ("thread" in found.why) is (shape in TESTED)
    scope: dict[str, Any] = {}
    exec(compile(found.content, "app.py", "exec"), scope)  # noqa: S102  # the code under test
    assert [scope["lookup"](k % 150) for k in range(400)] == [k % 150 * 1000 for k in range(400)]
    assert list(scope["D"]) == list(range(100 - len(scope["D"]), 100))
    assert MOST - MOST // AT_ONCE < len(scope["D"]) <= MOST


@pytest.mark.parametrize("shape", NO_CACHE)
def test_a_dict_that_is_more_than_a_memory_is_left_alone(tmp_path: Path, shape: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "D", REMEMBERS.format(body=NO_CACHE[shape]))


@pytest.mark.parametrize(
    "more",
    [
        "__all__ = ['lookup', 'D']",
        "def size():\n    return len(D)",
        "def dump():\n    return dict(D)",
        "def put(k):\n    D[k] = 0",
        "STATS = {'cache': D}",
        "def reach():\n    return globals()['x']",
        "D['warm'] = 1",
    ],
)
def test_a_dict_that_something_else_uses_is_left_alone(tmp_path: Path, more: str) -> None:
    code = dedent(REMEMBERS.format(body=SHAPES["get"])) + f"\n\n{more}\n"
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "D", code)


@pytest.mark.parametrize(
    "other",
    [
        "from app import D\n",
        "import app\n\ndef size():\n    return len(app.D)\n",
        "from app import *\n\nprint(D)\n",
        "import app\n\ndef size():\n    return len(getattr(app, 'D'))\n",
        "TARGET = 'app.D'\n",
        "def broken(:\n    D\n",
    ],
)
def test_a_dict_that_another_file_may_use_is_left_alone(tmp_path: Path, other: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "D", REMEMBERS.format(body=SHAPES["get"]), other=other)


def test_emptying_a_cache_is_no_reading(tmp_path: Path) -> None:
    code = dedent(REMEMBERS.format(body=SHAPES["get"])) + "\n\ndef forget():\n    D.clear()\n"
    assert bound(tmp_path, "dict", "D", code).tier == "safe"


SHELF = """
    class Shelf{bases}:
        \"\"\"Remembers what it made.\"\"\"

        def __init__(self, width: int):
            self.width = width
            self.kept = {{}}

        def make(self, k):
            return str(k) * self.width

        def get(self, k, n):
            key = (k, n)
            v = self.kept.get(key)
            if v is None:
                # Made once.
                v = self.make(k) * n
                self.kept[key] = v
            return v
"""


def test_an_attribute_that_remembers_is_bounded_in_its_method(tmp_path: Path) -> None:
    code = SHELF.format(bases="")
    assert bound(tmp_path, "dict", "Shelf.kept", code).tier == "safe"
    assert added(tmp_path, "dict", "Shelf.kept", code) == [
        "if len(self.kept) >= 64:  # at most 64 entries stay",
        "for oldest in list(self.kept)[:-62]:",
        "self.kept.pop(oldest, None)",
    ]


@pytest.mark.parametrize(
    ("bases", "other"),
    [
        ("(Framework)", ""),
        (
            "",
            "from app import Shelf\n\nclass Wide(Shelf):\n    def make(self, k):\n        return next(self)\n",
        ),
        (
            "",
            "from app import Shelf\n\nclass Wide(Shelf):\n    def size(self):\n        return len(self.kept)\n",
        ),
        ("", "def size(shelf):\n    return len(shelf.kept)\n"),
        ("", "def size(shelf):\n    return len(getattr(shelf, 'kept'))\n"),
        ("", "def widen(shelf):\n    shelf.width = 3\n"),
    ],
)
def test_an_attribute_that_others_may_use_is_left_alone(tmp_path: Path, bases: str, other: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "Shelf.kept", SHELF.format(bases=bases), other=other)


# Lists that nothing reads


def test_a_list_that_nothing_reads_becomes_a_deque_for_a_person_to_judge(tmp_path: Path) -> None:
    code = """
        import sys

        SEEN: list[str] = []  # for later


        def answer(x):
            SEEN.append(x)
            return x
    """
    assert bound(tmp_path, "list", "SEEN", code).tier == "review"
    assert added(tmp_path, "list", "SEEN", code) == [
        "from collections import deque",
        "SEEN: deque[str] = deque(maxlen=64)  # for later",
    ]


@pytest.mark.parametrize(
    "more",
    ["return SEEN", "return len(SEEN)", "return SEEN[-1]", "for x in SEEN: print(x)", "return x in SEEN",
     "keep(SEEN)", "y = SEEN.append(x)", "SEEN.insert(0, x)", "SEEN.sort()", "return [*SEEN]",
     "return getattr(app, 'SEEN')", "return SEEN.append", "z = SEEN", "SEEN.pop()"],
)  # fmt: skip
def test_a_list_that_is_read_is_left_alone(tmp_path: Path, more: str) -> None:
    code = f"SEEN = []\n\ndef answer(x):\n    SEEN.append(x)\n    {more}\n"
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "SEEN", code)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("list", "SEEN = [1]\n\ndef answer(x):\n    SEEN.append(x)\n"),
        ("list", "SEEN: Sequence = []\n\ndef answer(x):\n    SEEN.append(x)\n"),
        ("list", "from web import deque\nSEEN = []\n\ndef answer(x):\n    SEEN.append(x)\n"),
        ("set", "SEEN = set()\n\ndef answer(x):\n    SEEN.add(x)\n"),
        ("deque", "from collections import deque\nSEEN = deque()\n\ndef answer(x):\n    SEEN.append(x)\n"),
        ("list", "SEEN = []\n\ndef answer(x):\n    global SEEN\n    SEEN = [x]\n    SEEN.append(x)\n"),
    ],
)
def test_other_containers_are_left_alone(tmp_path: Path, kind: str, code: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, kind, "SEEN", code)
