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
