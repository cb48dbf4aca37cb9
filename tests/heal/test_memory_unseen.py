"""What a proof by names cannot see: names that are set, read or reached in other ways than by being written."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import bound

PRICE = """
    from functools import cache
    from json import dumps

    import helper

    RATE = 2
    rate = 3


    def retune(r):
        global rate
        rate = r


    @cache
    def price(n: int):
        return {value}
"""
HELPER = "def compute(n):\n    return n\n"


@pytest.mark.parametrize(
    ("value", "more"),
    [
        ("n * RATE", "def configure(name, value):\n    globals()[name] = value\n"),
        ("n * RATE", "def configure(code):\n    exec(code)\n"),
        ("n * RATE", "def configure(name, value, put=setattr):\n    put(helper, name, value)\n"),
        ("sum(rate for rate in range(n)) * rate", ""),
        ("max((1, n), key=lambda rate: -rate) * rate", ""),
        ("[rate for rate in (n,)][0] + rate", ""),
    ],
)
def test_a_name_that_may_change_ends_the_proof(tmp_path: Path, value: str, more: str) -> None:
    code = dedent(PRICE.format(value=value)) + f"\n\n{more}"
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "price", code, helper=HELPER)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("n * RATE", "import app\n\ndef f(r):\n    setattr(app, 'RATE', r)\n"),
        ("n * RATE", "import app\n\ndef f(k, r):\n    setattr(app, k.upper(), r)\n"),
        ("n * RATE", "import app\n\ndef f(r):\n    vars(app).update(r)\n"),
        ("n * RATE", "import app\n\ndef f(k, r):\n    app.__dict__[k] = r\n"),
        ("n * RATE", "import app\n\ndef f(r):\n    app.price.__globals__.update(r)\n"),
        ("helper.compute(n)", "import helper, time\nhelper.compute = lambda n: time.time()\n"),
        ("helper.compute(n)", "import helper, time\nsetattr(helper, 'compute', time.time)\n"),
        ("dumps(n)", "import json, time\njson.dumps = lambda n: time.time()\n"),
    ],
)
def test_what_another_file_puts_in_its_place_ends_the_proof(tmp_path: Path, value: str, other: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "price", PRICE.format(value=value), helper=HELPER, other=other)


@pytest.mark.parametrize(
    "value", ["n * RATE", "helper.compute(n)", "sum(m for m in range(n)) * RATE", "dumps(n)"]
)
def test_what_an_object_sets_of_its_own_changes_no_module(tmp_path: Path, value: str) -> None:
    other = "class Box:\n    def __init__(self, k, v):\n        setattr(self, k, v)\n"
    code = PRICE.format(value=value)
    assert bound(tmp_path, "lru_cache", "price", code, helper=HELPER, other=other).tier == "safe"


METHOD = """
    from functools import cache


    class Shop:
        def __init__(self, rate: int):
            self.rate = rate

        @cache
        def price(self, n: int):
            return n * self.rate
"""


@pytest.mark.parametrize(
    "other",
    [
        "def tweak(a, name, v):\n    setattr(a, name, v)\n",
        "def tweak(a, v):\n    a.__dict__.update(rate=v)\n",
        "def tweak(a, v):\n    vars(a).update(v)\n",
        "def tweak(a, name, v):\n    object.__setattr__(a, name, v)\n",
    ],
)
def test_an_attribute_that_is_set_by_a_name_worked_out_does_not_stand_still(
    tmp_path: Path, other: str
) -> None:
    assert bound(tmp_path, "lru_cache", "Shop.price", METHOD).tier == "safe"
    with pytest.raises(Unproven, match="rate may change"):
        bound(tmp_path, "lru_cache", "Shop.price", METHOD, other=other)


@pytest.mark.parametrize("given", ["n, seen=[]", "n, *, seen={}", "n, seen=list()"])
def test_a_default_that_may_change_ends_the_proof(tmp_path: Path, given: str) -> None:
    code = f"from functools import cache\n\n@cache\ndef price({given}):\n    return len(seen) + n\n"
    with pytest.raises(Unproven, match="default"):
        bound(tmp_path, "lru_cache", "price", code)
    code = "from functools import cache\n\n@cache\ndef price(n, seen=(), more=-1):\n    return len(seen) + n + more\n"
    assert bound(tmp_path, "lru_cache", "price", code).tier == "safe"


ROWS = """
    from collections import Counter
    from functools import cache

    LAST = None


    @cache
    def rows(n):
        return {value}


    def load(n):
        {use}


    def add():
        LAST.append(5)
"""


@pytest.mark.parametrize(
    ("value", "use"),
    [
        ("[n, n + 1]", "global LAST\n        LAST = rows(n)"),
        ("+Counter(str(n))", "found = rows(n)\n        found['x'] += 1"),
        ("-Counter(str(n))", "found = rows(n)\n        found.update('x')"),
    ],
)
def test_what_a_caller_keeps_or_changes_is_not_made_again(tmp_path: Path, value: str, use: str) -> None:
    assert (
        bound(tmp_path, "lru_cache", "rows", ROWS.format(value=value, use="return len(rows(n))")).tier
        == "safe"
    )
    with pytest.raises(Unproven):
        bound(tmp_path, "lru_cache", "rows", ROWS.format(value=value, use=use))


KEEPS = """
    import asyncio
    import hashlib
    import tempfile
    import time

    KEPT = {empty}
    LIMIT = 3


    def text(n) -> str:
        return open(str(n)).read()


    def number(n):
        return n * 2 if n > 2 else 0


    class Thing:
        def strip(self):
            return self


    def keep(n: int, said: "str | None", other, *rest: int):
        made = hashlib.sha256(said.encode()).hexdigest() * 3
        held = tempfile.TemporaryDirectory()
        {keeps}
"""
PLAIN = [
    "n", "said", "rest", "made", "made[:8]", "f'{other}'", "'%s' % other", "(n, said, LIMIT)", "str(other)",
    "{'n': [n, time.time()]}", "text(other)", "number(n)", "other is None", "[str(x) for x in other]",
    "max(n, LIMIT)", "other.lower()",
]  # fmt: skip
HELD = [
    "tempfile.TemporaryDirectory()", "held", "held.name", "other", "(n, other)", "[n, held]", "{'a': held}",
    "asyncio.create_task(other)", "open(said)", "Thing()", "[x for x in other]", "n or other", "other.strip()",
    "number(other)", "text", "lambda: n", "max(other, held)", "rest and held",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN)
def test_plain_data_that_nothing_reads_may_be_dropped(tmp_path: Path, value: str) -> None:
    code = KEEPS.format(empty="[]", keeps=f"KEPT.append({value})")
    found = bound(tmp_path, "list", "KEPT", code)
    assert found.tier == "review"
    assert "No file of the repository names it" in found.why
    code = KEEPS.format(empty="{}", keeps=f"KEPT[n] = {value}")
    assert bound(tmp_path, "dict", "KEPT", code).tier == "review"


@pytest.mark.parametrize("value", HELD)
def test_what_may_hold_a_resource_stays(tmp_path: Path, value: str) -> None:
    for keeps in (f"KEPT.append({value})", f"KEPT.extend([{value}])", f"KEPT += ({value},)"):
        with pytest.raises(Unproven, match="plain data"):
            bound(tmp_path, "list", "KEPT", KEEPS.format(empty="[]", keeps=keeps))
    for keeps in (f"KEPT[n] = {value}", f"KEPT[{value}] = n"):
        with pytest.raises(Unproven):
            bound(tmp_path, "dict", "KEPT", KEEPS.format(empty="{}", keeps=keeps))


AUDIT = """
    class Audit:
        def __init__(self):
            self.entries = []

        def note(self, n: int):
            self.entries.append(n)
"""


@pytest.mark.parametrize(
    "other",
    [
        "import json\n\ndef f(audit):\n    return json.dumps(vars(audit))\n",
        "def f(audit):\n    return audit.__dict__\n",
        "def f(audit, name):\n    return getattr(audit, name)\n",
        "def f(audits, name):\n    return map(vars, audits)\n",
        "import pickle\n\ndef f(audit):\n    return pickle.dumps(audit)\n",
        "from pickle import dumps as save\n\ndef f(audit):\n    return save(audit)\n",
        "import copy\n\ndef f(audit):\n    return copy.deepcopy(audit)\n",
        "import dataclasses\n\ndef f(audit):\n    return dataclasses.asdict(audit)\n",
        "def f(audit):\n    return '{0.entries}'.format(audit)\n",
        "PAGE = '{% for e in audit.entries %}{{ e }}{% endfor %}'\n",
    ],
)
def test_a_list_that_may_be_read_without_being_named_is_left_alone(tmp_path: Path, other: str) -> None:
    assert bound(tmp_path, "list", "Audit.entries", AUDIT).tier == "review"
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "Audit.entries", AUDIT, other=other)


def test_a_list_whose_object_pickles_itself_is_left_alone(tmp_path: Path) -> None:
    save = "\n        def save(self, file):\n            import pickle\n            pickle.dump(self, file)\n"
    with pytest.raises(Unproven, match="pickle"):
        bound(tmp_path, "list", "Audit.entries", AUDIT + save)


def test_a_list_that_a_template_names_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/audit.html").write_text("{% for e in audit.entries %}{{ e }}{% endfor %}\n")
    with pytest.raises(Unproven, match=r"audit\.html"):
        bound(tmp_path, "list", "Audit.entries", AUDIT)
    (tmp_path / "pages/audit.html").write_text("All entries.\n")
    assert bound(tmp_path, "list", "Audit.entries", AUDIT).tier == "review"


@pytest.mark.parametrize(
    "peek",
    [
        "import sys\n\ndef peek(k):\n    return getattr(sys.modules[__name__], k.upper())\n",
        "def peek(k):\n    return note.__globals__[k]\n",
        "def peek(k):\n    return vars()[k]\n",
    ],
)
def test_a_module_that_reads_its_own_names_is_left_alone(tmp_path: Path, peek: str) -> None:
    code = "LOG = []\n\ndef note(n: int):\n    LOG.append(n)\n\n"
    assert bound(tmp_path, "list", "LOG", code).tier == "review"
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "LOG", code + peek)
