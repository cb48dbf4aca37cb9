"""Further bounds that are proven: text that is searched, `setdefault`, counters, and fields of a dataclass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import MOST, added, bound

WORDS = """
    from functools import cache


    @cache
    def f({given}):
        {body}
"""


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ("w: str", "return w.count('a') + w.index('b')"),
        ("w: 'bytes'", "return w.count(b'a')"),
        ("w: str", "return ','.join([f'{x}={w.count(x)}' for x in 'abc'])"),
    ],
)
def test_text_may_be_searched(tmp_path: Path, given: str, body: str) -> None:
    assert bound(tmp_path, "lru_cache", "f", WORDS.format(given=given, body=body)).tier == "safe"


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ("w", "return w.count('a')"),
        ("w: list", "return w.count('a')"),
        ("w: str | None", "return w.count('a')"),
        ("w: Word", "return w.index('a')"),
        ("w: str", "w = w[0]; return w.count('a')"),
        ("w: str, *v", "return v.count('a')"),
        ("*w: str", "return w.count('a')"),
        ("w: str", "return w.format('a')"),
        ("w: str, v=None", "return sorted(v, key=lambda w: w.count('a'))[0] * 2"),
        ("w: str", "return max(w.count('a') for w in w)"),
    ],
)
def test_what_is_not_said_to_be_text_may_not(tmp_path: Path, given: str, body: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "f", WORDS.format(given=given, body=body))


def test_text_that_the_file_gives_another_meaning(tmp_path: Path) -> None:
    code = WORDS.format(given="w: str", body="return w.count('a')").replace(
        "\n\n    @cache", "\n    from tools import str\n\n    @cache"
    )
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "f", code)


SETS = """
    D = {{}}
    KEPT = []


    def work(k):
        return k * 1000


    def rows(k):
        return [k, k]


    def lookup(k, other=None):
        {body}
"""


def lines(*parts: str) -> str:
    return "\n        ".join(parts)


@pytest.mark.parametrize(
    "body",
    [
        "return D.setdefault(k, work(k))",
        lines("v = work(k)", "return D.setdefault(k, v)"),
        lines("found = D.setdefault(k, work(k))", "return found"),
        lines("if k >= 0:", "    return D.setdefault(k, work(k)) + 0", "return -1"),
    ],
)
def test_a_default_that_remembers_drops_its_oldest(tmp_path: Path, body: str) -> None:
    found = bound(tmp_path, "dict", "D", SETS.format(body=body))
    assert (found.tier, "thread" in found.why) == ("safe", False)
    scope: dict[str, Any] = {}
    exec(compile(found.content, "app.py", "exec"), scope)  # noqa: S102  # the code under test
    assert [scope["lookup"](k % 150) for k in range(400)] == [k % 150 * 1000 for k in range(400)]
    assert list(scope["D"]) == list(range(36, 100))


def test_a_default_whose_list_is_only_read(tmp_path: Path) -> None:
    assert bound(tmp_path, "dict", "D", SETS.format(body="return sum(D.setdefault(k, rows(k)))")).tier == "safe"


@pytest.mark.parametrize(
    "body",
    [
        "D.setdefault(k, []).append(other)",
        "return D.setdefault(k, rows(k)).pop()",
        lines("v = D.setdefault(k, rows(k))", "v.append(k)", "return v"),
        lines("v = rows(k)", "found = D.setdefault(k, v)", "v.append(k)", "return found[0]"),
        lines("v = rows(k)", "v = KEPT[0] = D.setdefault(k, v)", "return v"),
        "return D.setdefault(k, other)",
        "return D.setdefault(k, work(other))",
        "return D.setdefault(k)",
        "return D.setdefault(k, object())",
        "return D.setdefault(k, len(D))",
        lines("v = D.setdefault(k, work(k))", "return v + len(D)"),
        lines("if not D.setdefault(k, work(k)):", "    return 1", "return 2"),
        "return [D.setdefault(k, work(k)) for k in (1, k)]",
        "return lambda: D.setdefault(k, work(k))",
        lines("if other:", "    return 0", "return D.setdefault(k, work(k))"),
        lines("k = k + other", "return D.setdefault(k, work(k))"),
    ],
)
def test_a_default_that_is_more_than_a_memory_is_left_alone(tmp_path: Path, body: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "dict", "D", SETS.format(body=body))
