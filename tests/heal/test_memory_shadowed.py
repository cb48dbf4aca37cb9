"""A variable that is called like the function whose results are remembered is another thing; an alias is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import bound

SHELF = """
    from other import given


    class Shelf:
        def __init__(self):
            self.kept = {{}}

        def rows(self, k: int):
            found = self.kept.get(k)
            if found is None:
                found = [k, k * 2]
                self.kept[k] = found
            return found


    SHELF = Shelf()
    {above}


    def answer(k: int, more=None):
        {use}
"""
USES = [
    "rows = SHELF.rows(k)\n        return sum(rows)",
    "rows: list = SHELF.rows(k)\n        return rows[0]",
    "for rows in ([1], [2]):\n            print(rows)\n        return sum(SHELF.rows(k))",
    "rows = SHELF.rows(k)\n        return sum(x for x in rows)",
    "rows = [3]\n        def inner():\n            return rows\n        return inner()[0] + SHELF.rows(k)[0]",
    "keep = [rows for rows in more]\n        return keep, SHELF.rows(k)[0]",
    "return sorted(more, key=lambda rows: rows)[0], SHELF.rows(k)[0]",
]
ALIASES = {
    "the method itself": "rows = SHELF.rows\n        return rows(k)",
    "kept": "rows = SHELF.rows(k)\n        given(rows)\n        return 1",
    "changed": "rows = SHELF.rows(k)\n        rows.append(1)\n        return 1",
    "stored": "rows = SHELF.rows(k)\n        more[0] = rows\n        return 1",
    "of the module": "global rows\n        rows = [1]\n        given(rows)\n        return SHELF.rows(k)[0]",
    "imported": "from other import rows\n        given(rows)\n        return SHELF.rows(k)[0]",
    "defined": "def rows():\n            return 1\n        given(rows)\n        return SHELF.rows(k)[0]",
    "in a comprehension only": "[rows for rows in more]\n        given(rows)\n        return SHELF.rows(k)[0]",
    "the first loop's": "return [rows for rows in rows], SHELF.rows(k)[0]",
    "a default": "def inner(rows=rows):\n            return rows\n        return inner(), SHELF.rows(k)[0]",
    "another function's": "def inner():\n            rows = 3\n        given(rows)\n        return SHELF.rows(k)[0]",
    "of the outer one": "rows = 1\n        def inner():\n            nonlocal rows\n            given(rows)\n"
    "        return SHELF.rows(k)[0]",
    "in a class": "class Inner:\n            rows = rows\n        return SHELF.rows(k)[0]",
}


@pytest.mark.parametrize("use", USES)
def test_a_variable_called_like_the_method_is_not_the_method(tmp_path: Path, use: str) -> None:
    found = bound(
        tmp_path, "dict", "Shelf.kept", SHELF.format(above="", use=use), other="def given(x): ...\n"
    )
    assert found.tier == "safe"


@pytest.mark.parametrize("name", ALIASES)
def test_what_may_be_the_method_after_all_ends_the_proof(tmp_path: Path, name: str) -> None:
    code = SHELF.format(above="", use=ALIASES[name])
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "Shelf.kept", code, other="def given(x): ...\n")


def test_an_alias_in_the_module_is_seen_beside_a_variable(tmp_path: Path) -> None:
    code = SHELF.format(above="rows = SHELF.rows", use=USES[0])
    with pytest.raises(Unproven, match="passes rows on"):
        bound(tmp_path, "dict", "Shelf.kept", code)


def test_another_file_may_call_a_variable_like_an_imported_function(tmp_path: Path) -> None:
    code = "from functools import cache\n\n@cache\ndef rows(n: int):\n    return [n]\n"
    other = "import app\n\ndef f(n):\n    rows = app.rows(n)\n    return sum(rows)\n"
    assert bound(tmp_path, "lru_cache", "rows", code, other=other).tier == "safe"
    imported = "from app import rows\n\ndef f(n):\n    {0} = n\n    return rows\n"
    assert bound(tmp_path, "lru_cache", "rows", code, other=imported.format("rows")).tier == "safe"
    with pytest.raises(Unproven, match="passes rows on"):
        bound(tmp_path, "lru_cache", "rows", code, other=imported.format("other"))
