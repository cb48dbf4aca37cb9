"""The lines that the latency strategy writes into a host."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import pytest

from qigheal.healing.strategies.caching.edits import decorated
from qigheal.healing.strategies.caching.purity import Host

FUNCTION = "def target(n):\n    return n\n"
CACHED = "@lru_cache(maxsize=64, typed=True)\n" + FUNCTION
IMPORT = "from functools import lru_cache\n"
EDITS = {
    "nothing before it": (FUNCTION, f"{IMPORT}\n\n{CACHED}"),
    "a docstring": (f'"""Doc."""\n\n\n{FUNCTION}', f'"""Doc."""\n\n\n{IMPORT}\n\n{CACHED}'),
    "a docstring and a future": (
        f'"""Doc."""\nfrom __future__ import annotations\n\nX = 1\n\n\n{FUNCTION}',
        f'"""Doc."""\nfrom __future__ import annotations\n\n{IMPORT}\nX = 1\n\n\n{CACHED}',
    ),
    "imports of the library": (
        f"import math\nfrom re import sub\n\nfrom app import x\n\n\n{FUNCTION}",
        f"import math\n{IMPORT}from re import sub\n\nfrom app import x\n\n\n{CACHED}",
    ),
    "imports of the host": (
        f"# first\nfrom app import x\n\n\n{FUNCTION}",
        f"# first\n{IMPORT}from app import x\n\n\n{CACHED}",
    ),
    "functools": (
        f"import functools\n\n\n{FUNCTION}",
        f"import functools\n\n\n@functools.lru_cache(maxsize=64, typed=True)\n{FUNCTION}",
    ),
    "functools under another name": (
        f"import functools as ft\n\n\n{FUNCTION}",
        f"import functools as ft\n\n\n@ft.lru_cache(maxsize=64, typed=True)\n{FUNCTION}",
    ),
    "lru_cache": (f"{IMPORT}\n\n{FUNCTION}", f"{IMPORT}\n\n{CACHED}"),
    "lru_cache under another name": (
        f"from functools import lru_cache as kept\n\n\n{FUNCTION}",
        f"from functools import lru_cache as kept\n\n\n@kept(maxsize=64, typed=True)\n{FUNCTION}",
    ),
    "others of functools": (
        f"from functools import cache, wraps  # both\n\n\n{FUNCTION}",
        f"from functools import cache, lru_cache, wraps  # both\n\n\n{CACHED}",
    ),
    "functools after it": (
        f"{FUNCTION}\n\nimport functools\n",
        f"{IMPORT}\n\n{CACHED}\n\nimport functools\n",
    ),
    "functools shadowed": (
        f"import functools\nfunctools = None\n\n\n{FUNCTION}",
        f"import functools\n{IMPORT}functools = None\n\n\n{CACHED}",
    ),
    "comments": (
        f"import math\n\n\n# About it.\n{FUNCTION}    # the end\n",
        f"import math\n{IMPORT}\n\n# About it.\n{CACHED}    # the end\n",
    ),
    "a class": (
        "import math\n\n\nclass A:\n    @staticmethod\n    def target(n):\n        return n\n",
        f"import math\n{IMPORT}\n\nclass A:\n    @staticmethod\n    @lru_cache(maxsize=64, typed=True)\n"
        "    def target(n):\n        return n\n",
    ),
    "other line ends": (
        f"import math\n\n\n{FUNCTION}".replace("\n", "\r\n"),
        f"import math\n{IMPORT}\n\n{CACHED}".replace("\n", "\r\n"),
    ),
}


def edited(text: str) -> str | None:
    host = Host({"app/model.py": text.encode()})
    module = host.modules["app/model.py"]
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "def target" in row or "@static" in row)
    found = decorated(text.encode(), module, {host.at("app/model.py", line): 64})
    return None if found is None else found.decode()


@pytest.mark.parametrize(("before", "after"), EDITS.values(), ids=EDITS.keys())
def test_a_line_for_the_decorator_and_one_for_the_import(before: str, after: str) -> None:
    assert edited(before) == after


@pytest.mark.parametrize(
    "head", ["lru_cache = 3\n", "def lru_cache(f):\n    return f\n", "class lru_cache:\n    pass\n"]
)
def test_no_edit_where_the_name_is_taken(head: str) -> None:
    assert edited(f"{head}\n\n{FUNCTION}") is None


def test_an_edited_file_runs_and_caches() -> None:
    after = edited(
        textwrap.dedent('''
        """Doc."""
        from __future__ import annotations
        CALLS = 0
        class A:
            @staticmethod
            def target(n):
                return n
    ''').lstrip()
    )
    assert after is not None
    scope: dict[str, Any] = {}
    exec(after, scope)  # noqa: S102  the text is this test's own
    assert [scope["A"].target(3), scope["A"]().target(3)] == [3, 3]
    assert isinstance(scope["A"].target, type(lru_cache(len)))
    assert scope["A"].target.cache_info()[:3] == (1, 1, 64)
