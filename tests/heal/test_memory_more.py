"""Further bounds that are proven: text that is searched, `setdefault`, counters, and fields of a dataclass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import added, bound

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
    assert list(scope["D"]) == list(range(100 - len(scope["D"]), 100))
    assert len(scope["D"]) in (63, 64)


def test_a_default_that_finds_its_key_drops_nothing_twice(tmp_path: Path) -> None:
    assert added(tmp_path, "dict", "D", SETS.format(body="return D.setdefault(k, work(k))")) == [
        "if len(D) >= 64:  # at most 64 entries stay",
        "for oldest in list(D)[:-62]:",
        "D.pop(oldest, None)",
    ]


@pytest.mark.parametrize("given", ["len", "list"])
def test_a_name_that_the_bound_needs_and_the_function_hides(tmp_path: Path, given: str) -> None:
    code = SETS.format(body="return D.setdefault(k, work(k))").replace("other=None", f"{given}=None")
    with pytest.raises(Unproven, match=f"{given} is something else"):
        bound(tmp_path, "dict", "D", code)


def test_a_default_whose_list_is_only_read(tmp_path: Path) -> None:
    assert (
        bound(tmp_path, "dict", "D", SETS.format(body="return sum(D.setdefault(k, rows(k)))")).tier == "safe"
    )


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


CLASS = """
    from dataclasses import KW_ONLY, dataclass, field
    from typing import ClassVar


    {decorator}
    class Audit:
        name: str
        LIMITS: ClassVar[tuple] = (1, 2)
        entries: list[tuple[str, int]] = field({field})

        def note(self, n: int) -> int:
            self.entries.append((self.name, n))
            return {note}
"""
USES = """
    from app import Audit

    audit = Audit("main")


    def answer(n):
        return audit.note(n)
"""


def klass(decorator: str = "@dataclass", field: str = "default_factory=list", note: str = "n") -> str:
    return CLASS.format(decorator=decorator, field=field, note=note)


@pytest.mark.parametrize(
    ("decorator", "field"),
    [
        ("@dataclass", "default_factory=list"),
        ("@dataclass(slots=True, eq=False)", "default_factory=list, repr=False"),
        ("@dataclass(frozen=True)", "init=False, default_factory=list"),
    ],
)
def test_a_field_of_a_dataclass_whose_objects_go_nowhere(tmp_path: Path, decorator: str, field: str) -> None:
    code = klass(decorator, field)
    found = bound(tmp_path, "list", "Audit.entries", code, other=USES)
    assert found.tier == "review"
    made = field.replace("=list", "=lambda: deque(maxlen=64)")
    assert added(tmp_path, "list", "Audit.entries", code, other=USES) == [
        "from collections import deque",
        f"entries: deque[tuple[str, int]] = field({made})",
    ]
    scope: dict[str, Any] = {"__name__": __name__}  # dataclass looks its module up
    exec(compile(found.content, "app.py", "exec"), scope)  # noqa: S102  # the code under test
    one = scope["Audit"]("a")
    assert [one.note(n) for n in range(100)] == list(range(100))
    assert (len(one.entries), len(scope["Audit"]("b").entries)) == (64, 0)


@pytest.mark.parametrize(
    "use",
    [
        "audit = Audit(name='main')\naudit.note(3)",
        "def f():\n    audit = Audit('x')\n    return audit.note(3)",
        "Audit('x').note(3)",
        "import app\n\nclass Desk:\n    def __init__(self):\n        self.audit = app.Audit('x')\n"
        "    def f(self):\n        return self.audit.note(3)",
        "audit: Audit = Audit('x')\n\ndef f(n: int) -> Audit: ...",
        "def f(audit: Audit):\n    return audit.note(3)",
        "__all__ = ['Audit']",
    ],
)
def test_objects_that_are_only_asked(tmp_path: Path, use: str) -> None:
    other = f"from app import Audit\n\n{use}\n"
    assert bound(tmp_path, "list", "Audit.entries", klass(), other=other).tier == "review"


@pytest.mark.parametrize(
    "use",
    [
        "print(Audit('x'))",
        "audit = Audit('x')\n\ndef f():\n    return f'{audit}'",
        "def f(a, b):\n    first = Audit(a)\n    return first == Audit(b)",
        "def f(a):\n    return Audit(a)",
        "AUDITS = [Audit('x')]",
        "audit = Audit('x', [])",
        "audit = Audit('x', entries=[])",
        "audit = Audit(*['x'])",
        "audit = Audit(**{'name': 'x'})",
        "class Late(Audit):\n    pass",
        "def f(audit: Audit):\n    return str(audit)",
        "def f(audits: list[Audit]):\n    return [str(one) for one in audits]",
        "@route\ndef f(audit: Audit):\n    return audit.note(3)",
        "class Box:\n    audit: Audit",
        "make = Audit",
        "audit = Audit('x')\nrun(audit.note)",
        "audit = Audit('x')\naudit.__class__('y', [])",
        "audit = Audit('x')\n\ndef f(n):\n    match n:\n        case Audit(name='x'):\n            return 1",
        "class Box:\n    audit = Audit('x')",
        "import app\n\ndef f():\n    return getattr(app, 'Audit')('x')",
        "audit = Audit('x')\nother = audit",
        "class Desk:\n    def __init__(self):\n        self.audit = Audit('x')\n\ndef f(desk):\n"
        "    return repr(desk.audit)",
        "def f(x):\n    match x:\n        case object(entries=found):\n            return found",
        "audit = Audit('x')\nlen(audit.entries)",
    ],
)
def test_objects_that_something_may_print_compare_or_make_otherwise(tmp_path: Path, use: str) -> None:
    assert bound(tmp_path, "list", "Audit.entries", klass(), other=USES).tier == "review"
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "Audit.entries", klass(), other=f"from app import Audit\n\n{use}\n")


@pytest.mark.parametrize(
    "code",
    [
        klass("@dataclass\n    @register"),
        klass("@register"),
        klass("@dataclass(init=FLAG)"),
        klass(field="default_factory=make"),
        klass(field="default_factory=list, metadata=META"),
        klass(note="str(self)"),
        klass(note="len(self.entries)"),
        klass(note="super().__repr__()"),
        klass(note="[self]"),
        klass(note="len(self.__dict__)"),
        klass().replace("class Audit:", "class Audit(Model):"),
        klass().replace("def note", "def __init__(self, name): ...\n\n        def note"),
        klass().replace(
            "def note", "@classmethod\n        def make(cls): return cls('x', [])\n\n        def note"
        ),
        klass().replace(
            "import KW_ONLY, dataclass, field", "import KW_ONLY, dataclass\n    from web import field"
        ),
        klass().replace(
            "import KW_ONLY, dataclass, field", "import KW_ONLY, field\n    from web import dataclass"
        ),
    ],
)
def test_a_dataclass_that_may_be_more(tmp_path: Path, code: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "list", "Audit.entries", code, other=USES)


def test_a_class_variable_is_no_argument(tmp_path: Path) -> None:
    code = klass().replace("        name: str\n", "").replace("self.name", "'x'")
    with pytest.raises(Unproven, match="may give entries"):
        bound(tmp_path, "list", "Audit.entries", code, other="from app import Audit\n\naudit = Audit([])\n")


SHELF = """
    from dataclasses import dataclass, field


    @dataclass
    class Shelf:
        width: {width}
        kept: dict[int, str] = field(default_factory=dict)

        def get(self, k):
            v = self.kept.get(k)
            if v is None:
                v = str(k) * self.width
                self.kept[k] = v
            return v
"""


def test_a_dict_that_remembers_in_a_dataclass(tmp_path: Path) -> None:
    use = "from app import Shelf\n\nshelf = Shelf(3)\nshelf.get(4)\n"
    code = SHELF.format(width="int")
    assert bound(tmp_path, "dict", "Shelf.kept", code, other=use).tier == "safe"
    assert added(tmp_path, "dict", "Shelf.kept", code, other=use) == [
        "if len(self.kept) >= 64:  # at most 64 entries stay",
        "for oldest in list(self.kept)[:-62]:",
        "self.kept.pop(oldest, None)",
    ]
    for width in ("list[int]", "int | None", "Width"):
        with pytest.raises(Unproven, match="width may change"):
            bound(tmp_path, "dict", "Shelf.kept", SHELF.format(width=width), other=use)
    with pytest.raises(Unproven, match="width may change"):
        bound(tmp_path, "dict", "Shelf.kept", code, other=use + "shelf.width = 4\n")


COUNTS = """
    import collections
    from collections import defaultdict

    D = {made}


    def count(k: str, n: int, other=None):
        {body}
        return n
"""


@pytest.mark.parametrize(
    ("made", "body"),
    [
        ("defaultdict(int)", "D[k] += 1"),
        ("collections.defaultdict(float)", "D[k, n] += n * 0.5"),
        ("defaultdict(list)", "D[k].append(n)"),
        ("defaultdict(list)", "D[k] += [n]"),
        ("defaultdict(set)", "D[k].add((k, n))"),
    ],
)
def test_counts_that_nothing_reads_drop_the_oldest(tmp_path: Path, made: str, body: str) -> None:
    found = bound(tmp_path, "defaultdict", "D", COUNTS.format(made=made, body=body))
    assert found.tier == "review"
    scope: dict[str, Any] = {}
    exec(compile(found.content, "app.py", "exec"), scope)  # noqa: S102  # the code under test
    assert [scope["count"](str(n), n) for n in range(100)] == list(range(100))
    assert len(scope["D"]) in (63, 64)


@pytest.mark.parametrize(
    ("made", "body"),
    [
        ("defaultdict(int)", "D[k] += 1; n = D[k]"),
        ("defaultdict(int)", "n = D[k]"),
        ("defaultdict(int)", "D[k] -= 1"),
        ("defaultdict(int)", "D[k] += 1; n = len(D)"),
        ("defaultdict(int)", "D[other] += 1"),
        ("defaultdict(list)", "D[k].append(other)"),
        ("defaultdict(list)", "n = D[k].pop()"),
        ("defaultdict(list)", "other = D[k].append(n)"),
        ("defaultdict(list)", "D[k].sort(key=other)"),
        ("defaultdict(list)", "D[k][0] += 1"),
        ("defaultdict(int, {'a': 1})", "D[k] += 1"),
        ("defaultdict(lambda: 0)", "D[k] += 1"),
        ("defaultdict()", "D[k] += 1"),
        ("dict()", "D[k] += 1"),
    ],
)
def test_other_defaults_are_left_alone(tmp_path: Path, made: str, body: str) -> None:
    with pytest.raises(Unproven):
        bound(tmp_path, "defaultdict", "D", COUNTS.format(made=made, body=body))


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_a_container_of_another_kind_than_was_seen(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Unproven, match=f"no {kind}"):
        bound(tmp_path, kind, "D", COUNTS.format(made="defaultdict(int)", body="D[k] += 1"))
