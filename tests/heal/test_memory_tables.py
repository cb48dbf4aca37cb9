"""A cache may be bounded though its function looks into a module's table, where nobody can change the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import bound

HOST = """
    import functools

    TABLE = {table}
    OTHER = []


    @functools.lru_cache(maxsize=None)
    def price(n):
        return {read}


    def more(x, TABLE_OF=None):
        {use}
"""
DICT = '{"a": 1, "b": (2, -3)}'


def host(*, table: str = DICT, read: str = "str(TABLE['a']) + n", use: str = "return x") -> str:
    return HOST.format(table=table, read=read, use=use)


@pytest.mark.parametrize(
    ("table", "read"),
    [
        (DICT, "TABLE['a']"),
        (DICT, "TABLE.get(n, 0)"),
        (DICT, "n in TABLE"),
        (DICT, "len(TABLE)"),
        (DICT, "[k for k in TABLE]"),
        (DICT, "sum(v for _, v in TABLE.items())"),
        ('["a", "b"]', "TABLE.index(n)"),
        ('["a", "b"]', "tuple(TABLE)"),
        ('{"a", "b"}', "n not in TABLE"),
    ],
)
def test_a_table_that_is_only_looked_into(tmp_path: Path, table: str, read: str) -> None:
    found = bound(tmp_path, "lru_cache", "price", host(table=table, read=read, use="return TABLE.get(x)"))
    assert "maxsize=64" in found.content.decode()


@pytest.mark.parametrize(
    "use",
    [
        "TABLE[x] = 1",
        "TABLE[x] += 1",
        "del TABLE[x]",
        "TABLE.update(x)",
        "TABLE.setdefault(x, 1)",
        "TABLE.pop(x)",
        "return TABLE",
        "return TABLE or x",
        "kept = TABLE; kept[x] = 1",
        "OTHER.append(TABLE)",
        "x(TABLE)",
        "x.table = TABLE",
        "return [TABLE]",
        "return {**TABLE}, TABLE.update",
        "return x in TABLE == x",
        "return TABLE in x",
        "for TABLE[x] in x: pass",
        "return TABLE.get",
        "return lambda: TABLE",
        "global TABLE; TABLE = x",
    ],
)
def test_a_table_that_may_be_changed_or_handed_on(tmp_path: Path, use: str) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host(use=use))


@pytest.mark.parametrize(
    "table",
    ['{"a": [1]}', '{"a": OTHER}', '{**{"a": 1}}', "dict(a=1)", "{k: 1 for k in 'ab'}", "[[1]]", "make()"],
)
def test_a_table_of_more_than_constants(tmp_path: Path, table: str) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host(table=table))


@pytest.mark.parametrize(
    "other",
    [
        "from app import TABLE\n",
        "from app import TABLE as t\nt['a'] = 2\n",
        "from app import *\nTABLE['a'] = 2\n",
        "import app\napp.TABLE['a'] = 2\n",
        "import app\nf = app.TABLE\n",
        "import app\nsetattr(app, 'TABLE', {})\n",
        "import app\nvars(app)['TABLE'] = {}\n",
    ],
)
def test_a_table_that_another_file_names(tmp_path: Path, other: str) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host(), other=other)


def test_a_builtin_that_is_another_function_here(tmp_path: Path) -> None:
    code = host(read="len(TABLE)") + "\n\n    def len(x):\n        x.clear()\n"
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "price", code)


@pytest.mark.parametrize(
    "other",
    [
        "import app\ndef load(v, which='rates'): getattr(app, which.upper()).update(v)\n",
        "import app\nfor w in ['TAB' + 'LE', 'FEES']: getattr(app, w).update({})\n",
        "import app\nfor w in ['TABLE', 'FEES']: print(w)\n",
        "import app\nfor w in dir(app): getattr(app, w).update({})\n",
        "import app, operator\ndef f(w): operator.attrgetter(w)(app).update({})\n",
        "import app\nfrom operator import attrgetter as ag\ndef f(w): ag(w)(app).update({})\n",
        "import app\ndef f(w): object.__getattribute__(app, w).update({})\n",
        "import app, operator\ndef f(w): operator.methodcaller('__getattribute__', w)(app).update({})\n",
        "import sys\ndef f(w): getattr(sys.modules['app'], w).update({})\n",
        "import app, builtins\ndef f(w): builtins.getattr(app, w).update({})\n",
        "import app\nfrom builtins import getattr as g\ndef f(w): g(app, w).update({})\n",
        "import app, inspect\nfor _, v in inspect.getmembers(app): v.update({})\n",
        "import app\nfor v in app.__dict__.values(): v.update({})\n",
        "import app\nfor v in getattr(app, '__dict__').values(): v.update({})\n",
        "import app\ndef f(*given): getattr(*given, 'x').update({})\n",
        "import app\nfetch = getattr\n",
        "import app\ngetattr(app, 'TABLE').update({})\n",
        "import app as a\na.TABLE.update({})\n",
        "from . import app\napp.TABLE.update({})\n",
        "from .app import TABLE as t\n",
        "import app\nmatch app:\n    case object(TABLE=t): t.update({})\n",
        "def f(view): view.mapping.update({})\n",
        "class A:\n    def f(self, w): getattr(self, w).update({})\n",
    ],
)
def test_a_table_that_another_file_may_fetch_by_a_name(tmp_path: Path, other: str) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host(), other=other)


@pytest.mark.parametrize(
    "use",
    [
        "globals()[x].update({})",
        "import sys; getattr(sys.modules[__name__], x).update({})",
        "max(TABLE, OTHER, key=len).update(x)",
        "max(OTHER, TABLE).update(x)",
        "max(TABLE, default=x)",
        "min(*TABLE)",
        "sum([], TABLE).insert(0, 'z')",
        "return OTHER[0].get(x, TABLE)",
        "return TABLE.get(x, TABLE)",
        "return x in TABLE in OTHER",
        "len = x; len(TABLE)",
        "return (lambda len: len(TABLE))(x)",
    ],
)
def test_a_table_that_its_own_file_fetches_or_is_handed_back(tmp_path: Path, use: str) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host(use=use))


def test_a_table_that_a_class_adds_to(tmp_path: Path) -> None:
    with pytest.raises(Unproven, match="TABLE may change"):
        bound(tmp_path, "lru_cache", "price", host() + "\n\n    class A:\n        TABLE |= {'a': 9}\n")


@pytest.mark.parametrize(
    "other",
    [
        "import app\ndef f(): return getattr(app, 'OTHER')\n",
        "def f(model): return model.eval()\n",
        "def f(x): return [max(x), dir(x), hasattr(x, 'y')]\n",
    ],
)
def test_what_certainly_reaches_another_name_does_not_matter(tmp_path: Path, other: str) -> None:
    assert b"maxsize=64" in bound(tmp_path, "lru_cache", "price", host(), other=other).content


STORED = """
    class Model:
        def __init__(self):
            self._kept = {made}

        def get(self, n):
            if n not in self._kept:
                self._kept[n] = 2
            return self._kept[n]
"""


@pytest.mark.parametrize("made", ["{}", "dict()"])
def test_an_import_of_everything_may_bind_list_and_len(tmp_path: Path, made: str) -> None:
    code = STORED.format(made=made)
    assert b"list(self._kept)" in bound(tmp_path, "dict", "Model._kept", code).content
    with pytest.raises(Unproven, match=r"list is something else|found 0"):
        bound(tmp_path, "dict", "Model._kept", "\n    from x import *\n" + code)


@pytest.mark.parametrize("call", ["len(str(n))", "sorted(str(n))[0]", "max(n, 1)"])
def test_an_import_of_everything_may_bind_what_a_cached_function_calls(tmp_path: Path, call: str) -> None:
    code = host(read=call)
    assert b"maxsize=64" in bound(tmp_path, "lru_cache", "price", code).content
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "price", "\n    from x import *\n" + code)


def test_an_import_of_everything_may_bind_lru_cache_and_deque(tmp_path: Path) -> None:
    cached = "\n    import functools\n{}\n\n    @functools.cache\n    def f(n):\n        return n + 1\n"
    assert b"lru_cache" in bound(tmp_path, "lru_cache", "f", cached.format("")).content
    named = cached.replace("import functools", "from functools import cache").replace(
        "functools.cache", "cache"
    )
    assert b"lru_cache" in bound(tmp_path, "lru_cache", "f", named.format("")).content
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "f", named.format("    from x import *"))
    listed = "\n    {}\n    SEEN = []\n\n\n    def see(n):\n        SEEN.append(str(n))\n"
    assert b"deque" in bound(tmp_path, "list", "SEEN", listed.format("import re")).content
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "SEEN", listed.format("from x import *"))
