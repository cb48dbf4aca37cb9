"""Which calls may be repeated, by what they are called with: nothing that the first attempt uses up."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from qigheal.healing.strategies.repeating.callsites import Source, call_sites, callees
from qigheal.healing.strategies.repeating.definitions import Definitions

STORE = """
    asked = {}

    def put(key, rows, *rest, **more):
        for row in rows:
            asked.setdefault(key % 10, []).append(row)
        return [*rest, *more]

    def send(body, note=None):
        return list(body)

    def plain(body, note=None):
        asked[body] = note
        if body is None:
            raise KeyError(body)
        return check(body), f"{note}"

    def check(body):
        return len(str(body))

    def first(body):
        return body[0]

    def rebound(body):
        body = list(body)
        return body[0]

    def later(body):
        return forward(body)

    def forward(rows):
        return [row for row in rows]

    def method(body):
        return body.read()
"""
HELPERS = """
    from digits import store

    def rows_of(k):
        yield k

    def text_of(k):
        if k:
            return str(k)
        return "none"

    def passed(k):
        return k

    KEYS = [1, 2]
    STREAM = iter(KEYS)
"""
DECLARED = tuple(
    f"digits.store:{name}" for name in ("put", "send", "plain", "first", "rebound", "later", "method")
)


def refused(folder: Path, body: str, given: str = "k, records", extra: str = "") -> str:
    """Why the one call of the store in a function may not be repeated."""
    service = (
        textwrap.dedent(HELPERS)
        + textwrap.dedent(extra)
        + f"\ndef f({given}):\n{textwrap.indent(body, '    ')}\n"
    )
    (folder / "digits").mkdir(exist_ok=True)
    (folder / "digits/__init__.py").write_text("")
    (folder / "digits/store.py").write_text(textwrap.dedent(STORE))
    (folder / "digits/service.py").write_text(service)
    definitions = Definitions(folder)
    source = Source("digits/service.py", service.encode())
    [site] = call_sites(source, callees(DECLARED, definitions), definitions, ("OSError",), range(1, 100))
    return site.refused


@pytest.mark.parametrize(
    "body",
    [
        "rows = (r * 2 for r in records)\nreturn store.put(k, rows)",
        "rows = map(str, records)\nreturn store.put(k, rows)",
        "rows = zip(records, records)\nreturn store.put(k, rows=rows)",
        "rows = rows_of(k)\nreturn store.put(k, rows)",
        "return store.put(k, rows_of(k))",
        "rows = [] if k else iter(records)\nreturn store.put(k, rows)",
        "rows = list(records)\nif k:\n    rows = filter(None, rows)\nreturn store.put(k, rows)",
        "file = open(k)\nreturn store.send(file)",
        "with open(k) as file:\n    return store.send(file)",
        "return store.send(records)",
        "return store.send(passed(records))",
        "return store.send(STREAM)",
        "return store.send([records, iter(k)])",
        "return store.send(*records)",
        "return store.send(**records)",
        "for k, rows in records:\n    store.send(rows)",
        "rows = k.rows\nreturn store.send(rows)",
        "return store.send(k['rows'])",
        "import itertools\nreturn store.send(itertools.chain(records, records))",
        "print(f'{records}')\nreturn store.send(records)",
        "return store.put(1, [], records, iter(k))",
        "return store.rebound(records)",
        "return store.later(records)",
        "return store.method(records)",
        "return store.send('é', map(str, records))",
    ],
)
def test_what_may_be_used_up_is_not_given_twice(tmp_path: Path, body: str) -> None:
    assert "only once" in refused(tmp_path, body)


@pytest.mark.parametrize(
    "body",
    [
        "return store.put(k + 1, [r * 2 for r in records])",
        "rows = list(records)\nreturn store.put(k, rows)",
        "rows = [1]\nrows += records\nreturn store.put(k, rows)",
        "print(len(records))\nreturn store.send(records)",
        "if records[0] > 3:\n    return store.send(records)",
        "return store.send(records[1:])",
        "return store.send(text_of(records))",
        "return store.send(KEYS)",
        "return store.send({'k': k + 1, 'n': (1, 'é', None)})",
        "return store.send(f'{k}'.encode(), note=str(k))",
        "for n in range(3):\n    store.send(n)",
        "rows = sorted(records) if k else ()\nreturn store.send(rows)",
        "return store.plain(k)",
        "return store.plain(k, note=records)",
        "return store.first(records)",
        "return store.put(k, 'é'.split(), *[1, 2], more=k > 2)",
    ],
)
def test_what_can_be_gone_through_again_is(tmp_path: Path, body: str) -> None:
    assert refused(tmp_path, body) == ""


@pytest.mark.parametrize(
    "kind", ["int", "str", "list[int]", "'dict[str, int] | None'", "typing.Sequence[str]"]
)
def test_an_annotated_parameter(tmp_path: Path, kind: str) -> None:
    assert refused(tmp_path, "return store.send(k)", f"k: {kind}") == ""


@pytest.mark.parametrize(
    "kind", ["Iterator[int]", "Iterable[str]", "list[int] | Iterator[int]", "IO[str]", "Any"]
)
def test_a_parameter_that_may_be_an_iterator(tmp_path: Path, kind: str) -> None:
    assert "only once" in refused(tmp_path, "return store.send(k)", f"k: {kind}")


CLASS = """
    class Box:
        def __init__(self, given):
            self.rows = {made}

        def give(self):
            return store.send(self.rows)
"""


@pytest.mark.parametrize(("made", "once"), [("list(given)", False), ("iter(given)", True), ("given", True)])
def test_an_attribute_is_what_is_put_into_it(tmp_path: Path, made: str, once: bool) -> None:
    assert ("only once" in refused(tmp_path, "return k", extra=CLASS.format(made=made))) is once


def test_an_attribute_that_another_file_sets_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def f(box, rows):\n    box.rows = iter(rows)\n")
    assert "only once" in refused(tmp_path, "return k", extra=CLASS.format(made="list(given)"))
