"""The instrument that profiles a probe, in this process on functions of a file of its own."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qigheal.healing.inspection.profile import MOST, start
from qigheal.healing.strategies.caching.latency import Called, Profile
from tests.heal.probed_host import Host


class Watched:
    """Functions of `source`, in a file below a root, and what the instrument saw of them."""

    def __init__(self, folder: Path, source: str) -> None:
        self.root = folder / "root"
        (self.root / "app").mkdir(parents=True)
        file = self.root / "app" / "model.py"
        file.write_text(textwrap.dedent(source).lstrip())
        self.scope: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), self.scope)  # noqa: S102  the text is this test's own
        self.profile: Profile | None = None

    @contextmanager
    def looked_at(self) -> Iterator[dict[str, Any]]:
        before = sys.getprofile()
        report = start(str(self.root), {})
        try:
            yield self.scope
        finally:
            evidence = report()
            sys.setprofile(before)
        self.profile = msgspec.json.decode(msgspec.json.encode(evidence), type=Profile)

    def __getitem__(self, name: str) -> Called:
        assert self.profile is not None
        [found] = [called for called in self.profile.functions if called.name.split(".")[-1] == name]
        return found


Watch = Callable[[str], Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return lambda source: Watched(tmp_path, source)


def test_calls_repeats_and_kinds_are_told(watch: Watch) -> None:
    watched = watch(
        """
        def weigh(kind, scale=1.0, *, name="a"):
            return [kind]


        def unused():
            pass
        """
    )
    with watched.looked_at() as scope:
        for kind in (1, 2, 1, 1.0, True, 1):
            scope["weigh"](kind)
        scope["weigh"](1, name="b" * 1000)
        scope["weigh"](1, name="b" * 1000)
    weigh = watched["weigh"]
    assert (weigh.file, weigh.line, weigh.hashable) == ("app/model.py", 1, True)
    assert (weigh.calls, weigh.repeats, weigh.distinct) == (8, 3, 5)  # 1, 1.0 and True are three
    assert weigh.parameters == ("kind", "scale", "name")
    assert weigh.kinds == (("int", "float", "bool"), ("float",), ("str",))
    assert weigh.returned == ("list",)
    assert weigh.curve[0] == (1, 1)
    assert weigh.curve[-1] == (8, 5)
    assert watched.profile is not None
    assert all(called.name != "unused" for called in watched.profile.functions)


@pytest.mark.parametrize(
    ("argument", "kind", "hashable"),
    [
        ((1, (2.0, "a")), "tuple of float, int, str", True),
        ((), "tuple of ", True),
        ((1, [2]), "tuple of others", False),
        ([1], "list", False),
        (None, "NoneType", True),
        (Path("a"), type(Path("a")).__name__, False),
    ],
)
def test_what_a_cache_cannot_hold_is_told(watch: Watch, argument: Any, kind: str, hashable: bool) -> None:
    watched = watch("def take(value):\n    return 1\n")
    with watched.looked_at() as scope:
        scope["take"](argument)
    assert watched["take"].kinds == ((kind,),)
    assert watched["take"].hashable is hashable


RECORDS = """
    from collections import namedtuple
    from dataclasses import dataclass, field
    from typing import NamedTuple


    class Point(NamedTuple):
        x: int
        names: tuple = ()

        def __iter__(self):
            raise RuntimeError("this runs nothing of the host's")


    @dataclass(frozen=True)
    class Frozen:
        x: int
        y: str = "a"

        def __getattribute__(self, name):
            raise RuntimeError("this runs nothing of the host's")


    @dataclass
    class Open:
        x: int


    @dataclass(frozen=True, eq=False)
    class Same:
        x: int


    @dataclass(frozen=True)
    class Part:
        x: int
        y: int = field(default=1, compare=False)


    class Apart(NamedTuple):
        x: int

        def __eq__(self, other):
            return True


    Old = namedtuple("Old", "x")


    def take(value):
        return 1
"""


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("Point(1, ('a', 2))", "app.model.Point(x: int; names: tuple of int, str)"),
        ("Frozen(True)", "app.model.Frozen(x: bool; y: str)"),
        ("Old(1.5)", "app.model.Old(x: float)"),
        ("Open(1)", "Open"),
        ("Same(1)", "Same"),
        ("Part(1)", "Part"),
        ("Apart(1)", "Apart"),
        ("Point([1])", "Point"),
        ("Point(Old(1))", "Point"),
    ],
)
def test_records_are_told_apart_by_their_fields(watch: Watch, made: str, kind: str) -> None:
    watched = watch(RECORDS)
    first, second = (eval(made, watched.scope) for _ in range(2))  # noqa: S307  the text is this test's own
    with watched.looked_at() as scope:
        scope["take"](first)
        scope["take"](second)
    told = watched["take"]
    assert told.kinds == ((kind.replace("app.model", type(first).__module__),),)
    assert (told.hashable, told.repeats) == ((True, 1) if "(" in kind else (False, 0))
    assert told.hashable or told.entry_bytes == 0


def test_time_of_a_recursion_is_counted_once(watch: Watch) -> None:
    watched = watch(
        """
        def count(n):
            return 1 if n < 2 else count(n - 1) + count(n - 2)


        def outer(n):
            return count(n)
        """
    )
    with watched.looked_at() as scope:
        scope["outer"](14)
    count, outer = watched["count"], watched["outer"]
    assert (count.calls, count.distinct, count.depth) == (1219, 15, 14)
    assert count.seconds <= outer.seconds
    assert outer.own_s <= outer.seconds - count.seconds + 1e-9
    # Repeats within repeats count once too, and nearly all of a naive recursion is one.
    assert 0.3 * count.seconds < count.repeated_s <= count.seconds


def test_threads_generators_and_exceptions(watch: Watch) -> None:
    watched = watch(
        """
        def fails(n):
            raise ValueError(n)


        def some(n):
            for k in range(n):
                yield inner(k)


        def inner(k):
            return k


        async def waits(n):
            return inner(n)
        """
    )

    def work() -> None:
        scope = watched.scope
        with pytest.raises(ValueError, match="3"):
            scope["fails"](3)
        assert list(scope["some"](4)) == [0, 1, 2, 3]
        with pytest.raises(StopIteration):
            scope["waits"](5).send(None)

    with watched.looked_at():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert watched["fails"].calls == 1
    assert (watched["inner"].calls, watched["inner"].hashable) == (5, True)
    assert not watched["some"].hashable  # each resumption looks like a call
    assert not watched["waits"].hashable


def test_imports_and_other_folders_are_left_out(watch: Watch, tmp_path: Path) -> None:
    watched = watch("def mine(n):\n    import slow_to_import\n    return other(n)\n")
    (tmp_path / "slow_to_import.py").write_text("import time\nend = time.perf_counter() + 0.2\n")
    with (tmp_path / "slow_to_import.py").open("a") as file:
        file.write("while time.perf_counter() < end:\n    pass\n")
    elsewhere: dict[str, Any] = {}
    exec(compile("def other(n):\n    return n\n", str(tmp_path / "elsewhere.py"), "exec"), elsewhere)  # noqa: S102  the text is this test's own
    watched.scope["other"] = elsewhere["other"]
    sys.path.insert(0, str(tmp_path))
    try:
        began = time.perf_counter()
        with watched.looked_at() as scope:
            scope["mine"](3)
        elapsed = time.perf_counter() - began
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("slow_to_import", None)
    assert watched.profile is not None
    assert [called.name.split(".")[-1] for called in watched.profile.functions] == ["mine"]
    assert elapsed - watched.profile.seconds > 0.19
    assert watched["mine"].seconds <= watched.profile.seconds


def test_what_has_no_file_is_left_out(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch("def mine(n):\n    return other(n)\n")
    monkeypatch.chdir(watched.root)
    exec(compile("def other(n):\n    return n\n", "<frozen runpy>", "exec"), watched.scope)  # noqa: S102  the text is this test's own
    with watched.looked_at() as scope:
        scope["mine"](3)
    assert watched.profile is not None
    assert [called.name.split(".")[-1] for called in watched.profile.functions] == ["mine"]


def test_the_evidence_stays_small(watch: Watch) -> None:
    watched = watch("".join(f"def f{number}(n):\n    return n\n" for number in range(3 * MOST)))
    with watched.looked_at() as scope:
        for number in range(3 * MOST):
            scope[f"f{number}"]("x" * 10_000)
    assert watched.profile is not None
    assert len(watched.profile.functions) == MOST
    assert len(msgspec.json.encode(watched.profile)) < 100_000


def test_a_probe_is_profiled_in_its_sandbox(host: Host) -> None:
    model = "def level(n):\n    return 0.75 + 0 * n\n"
    probe = """
    from app.model import level
    for line in sys.stdin:
        asked = json.loads(line)
        for k in range(6):
            level(k % 3)
        answer(batch=asked["batch"], phi=level(1))
    """
    with host.bench(probe, **{"app/model.py": model}) as bench:
        profile = bench.inspect("profile", bench.search_requests(4), Profile)
    [level] = [called for called in profile.functions if called.name == "level"]
    assert (level.file, level.line, level.calls, level.distinct) == ("app/model.py", 1, 28, 3)
    assert profile.rss_mb > 1.0
    assert profile.recursion_limit == 1000
    assert 0.0 < level.seconds < profile.seconds
