"""The latency strategy: which functions it caches, how the files look afterwards, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qigheal.errors import ProbeError
from qigheal.healing.inspection import MARK, looked_into
from qigheal.healing.strategies.caching.latency import Latency, Profile, Profiled
from qigheal.host import Manifest
from qigheal.records import BandOf, Diagnosis, HealingPatch, Target
from qigheal.repo import Repo
from qigheal.settings import HealSettings
from tests.heal.probed_host import git

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
protect = ["app/kept.py"]
[patch]
allow = ["app/**/*.py"]
"""
FUTURE = '"""Words."""\n\nfrom __future__ import annotations\n\n\n'
CACHED = "@lru_cache(maxsize=128, typed=True)"
PURE = "def work(n: int) -> int:\n    return n + 1\n"


def diagnosis(latency: float = 20.0) -> Diagnosis:
    band = BandOf(mean=5.0, sd=0.3, low=4.0, high=6.0)
    return Diagnosis(
        metrics=("latency",), findings=(), severity="warning",
        target=Target(geometry="simplex", basin=(1.0, 0.0), drift_limit=1.0, bands={"latency": band}),
        observed={"latency": latency}, code_hash="", healthy_code_hash="", since=None, snapshots=50,
    )  # fmt: skip


def seen(line: int = 1, name: str = "work", **fields: Any) -> Profiled:
    found: dict[str, Any] = {
        "file": "app/main.py", "calls": 100, "plain": 100, "distinct": 5, "repeats": 95, "total_s": 0.9,
        "own_s": 0.9, "repeat_s": 0.85, "arguments": ("int",), "results": ("int",),
    }  # fmt: skip
    return Profiled(line=line, name=name, **(found | fields))


class FakeBench:
    """A bench whose profile is given."""

    def __init__(self, repo: Repo, *functions: Profiled) -> None:
        self.base = repo.head()
        self.manifest = Manifest.at(repo, self.base)
        self.functions = functions

    def search_requests(self, n: int, start: int = 0) -> list[tuple[int, int]]:
        return [(2 * i, i) for i in range(start, start + n)]

    def inspect(self, instrument: str, requests: Any, kind: Any, **_: Any) -> Profile:
        assert (instrument, kind) == ("profile", Profile)
        return Profile(cpu_s=1.0, functions=self.functions)


Propose = Callable[..., list[HealingPatch]]


@pytest.fixture
def propose(tmp_path: Path) -> Propose:
    """Patches for a host of these files, by path, with this profile."""

    def propose(files: dict[str, str], *functions: Profiled, latency: float = 20.0) -> list[HealingPatch]:
        folder = tmp_path / "host"
        for name, text in {"qigheal.toml": MANIFEST, "app/__init__.py": "", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text.encode())
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", "Files")
        repo = Repo(folder)
        bench: Any = FakeBench(repo, *functions)
        return list(Latency(HealSettings()).propose(diagnosis(latency), bench, repo))

    return propose


def changed(patch: HealingPatch) -> list[str]:
    return [line for line in patch.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_the_patch_is_two_lines_and_says_what_it_saves(propose: Propose) -> None:
    [patch] = propose({"app/main.py": f"import math\n\n# kept\n\n\n{PURE}"}, seen(6))
    assert changed(patch) == ["+from functools import lru_cache", f"+{CACHED}"]
    assert (patch.tier, patch.heals, patch.same_output) == ("safe", ("latency",), True)
    assert "95 of 100 results again, 85 % of the time" in patch.rationale


@pytest.mark.parametrize(
    ("head", "added"),
    [
        ("import functools\n\n\n", ["+@functools.lru_cache(maxsize=128, typed=True)"]),
        ("import functools as ft\n\n\n", ["+@ft.lru_cache(maxsize=128, typed=True)"]),
        ("from functools import lru_cache as kept\n\n\n", ["+@kept(maxsize=128, typed=True)"]),
        ("from functools import partial\n\n\n", ["+from functools import lru_cache", f"+{CACHED}"]),
        (FUTURE, ["+from functools import lru_cache", "+", "+", f"+{CACHED}"]),
        ("", ["+from functools import lru_cache", "+", "+", f"+{CACHED}"]),
    ],
)  # fmt: skip
def test_functools_is_named_as_the_file_does(propose: Propose, head: str, added: list[str]) -> None:
    [patch] = propose({"app/main.py": head + PURE}, seen(head.count("\n") + 1))
    assert changed(patch) == added


@pytest.mark.parametrize(
    "head",
    [
        '"""Words."""\n\nfrom __future__ import annotations\n\n',
        "# -*- coding: utf-8 -*-\n",
        '"""Words\nin lines."""\n',
    ],
)
def test_the_patched_file_runs_and_remembers(tmp_path: Path, propose: Propose, head: str) -> None:
    text = f"{head}\nCALLS = 3\n\n\n{PURE}"
    [patch] = propose({"app/main.py": text}, seen(text[: text.index("def ")].count("\n") + 1))
    git(tmp_path / "host", "apply", _written(tmp_path, patch))
    script = "from app.main import work; work(1); work(1); work(1.0); print(work.cache_info().hits, work(1))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "host", capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 2\n"


def _written(folder: Path, patch: HealingPatch) -> str:
    (folder / "patch.diff").write_text(patch.diff)
    return str(folder / "patch.diff")


def test_a_static_method_keeps_its_place_and_line_ends_stay(propose: Propose) -> None:
    text = "import math\r\n\r\nclass A:\r\n    @staticmethod\r\n    def work(n: int) -> int:\r\n        return n\r\n"
    [patch] = propose({"app/main.py": text}, seen(4))
    assert "+    @lru_cache(maxsize=128, typed=True)\r" in patch.diff.split("\n")
    assert not [line for line in patch.diff.split("\n") if line[:1] == "-" and line[:3] != "---"]


def test_the_bound_follows_what_was_asked_for(propose: Propose) -> None:
    [small] = propose({"app/main.py": PURE}, seen(distinct=5))
    assert small.parameters == {"app.main.work": 128.0}
    [large] = propose({}, seen(distinct=300))
    assert large.parameters == {"app.main.work": 1024.0}
    [most] = propose({}, seen(distinct=20_000))
    assert most.parameters == {"app.main.work": 16_384.0}


@pytest.mark.parametrize(
    ("why", "profile"),
    [
        ("some calls had arguments that are no plain values", seen(plain=99)),
        ("nothing was asked twice", seen(repeats=0, repeat_s=0.0)),
        ("it would save too little", seen(repeat_s=0.05)),
        ("no function stands there", seen(line=7)),
        ("the file is protected", seen(file="app/kept.py")),
        ("the file is missing", seen(file="app/gone.py")),
    ],
)
def test_what_cannot_help_is_not_proposed(propose: Propose, why: str, profile: Profiled) -> None:
    assert propose({"app/main.py": PURE, "app/kept.py": PURE}, profile) == [], why


@pytest.mark.parametrize(
    "text",
    [
        "import time\ndef work(n: int):\n    return n + time.time()\n",
        "def work(n: int):\n    return [n]\n",
        "async def work(n: int):\n    return n\n",
        "if True:\n    def work(n: int):\n        return n\n",
        "def work(n: int):\n    return n\ndef work(n: int):\n    return n\n",
        "lru_cache = print\ndef work(n: int):\n    return n\n",
        "def broken(:\n",
    ],
)
def test_what_is_not_proved_is_not_proposed(propose: Propose, text: str) -> None:
    line = next((i for i, row in enumerate(text.splitlines(), 1) if "def work" in row), 1)
    assert propose({"app/main.py": text}, seen(line)) == []


def test_two_that_are_not_enough_alone_are_cached_together(propose: Propose) -> None:
    text = "def work(n: int):\n    return n\n\n\ndef other(n: int):\n    return n\n"
    found = propose(
        {"app/main.py": text, "app/more.py": text},
        seen(1, repeat_s=0.33), seen(5, "other", repeat_s=0.32, file="app/more.py"),
    )  # fmt: skip
    assert found[0].files == ("app/main.py", "app/more.py")
    assert sorted(len(patch.files) for patch in found) == [1, 1, 2]


def test_one_that_calls_the_other_counts_once(propose: Propose) -> None:
    text = "def work(n: int):\n    return other(n)\n\n\ndef other(n: int):\n    return n\n"
    found = propose({"app/main.py": text}, seen(1, repeat_s=0.16), seen(5, "other", repeat_s=0.15))
    assert found == []


def test_a_service_within_its_band_is_left_alone(propose: Propose) -> None:
    assert propose({"app/main.py": PURE}, seen(), latency=5.9) == []


def test_no_profile_no_patch(tmp_path: Path, propose: Propose, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ProbeError("expected a probe that is started as python -m MODULE")

    monkeypatch.setattr(FakeBench, "inspect", fail)
    assert propose({"app/main.py": PURE}, seen()) == []


# The instrument


def profiled(folder: Path, program: str) -> Profile:
    (folder / "program.py").write_text(textwrap.dedent(program))
    command = looked_into(["python", "program.py"], "profile", {})
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder, capture_output=True, check=True, timeout=60
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return msgspec.json.decode(line.removeprefix(MARK), type=Profile)


def test_the_profile_counts_calls_and_repeats(tmp_path: Path) -> None:
    program = """
    def work(n, by=1):
        return sum(range(n * by))

    def other(values):
        return values

    for i in range(60):
        work(100 + i % 3)
    work(100, by=2)
    work(100.5 * 0 == 0)
    other([1])
    other((1, ("a", None)))
    """
    functions = {function.name: function for function in profiled(tmp_path, program).functions}
    work = functions["work"]
    assert (work.file, work.line, work.calls, work.plain) == ("program.py", 2, 62, 62)
    assert (work.distinct, work.repeats) == (5, 57)  # True is not 1
    assert work.arguments == ("bool", "int")
    assert 0 < work.repeat_s < work.total_s
    assert (functions["other"].calls, functions["other"].plain) == (2, 1)


def test_of_a_recursion_the_outermost_call_alone_takes_time(tmp_path: Path) -> None:
    program = """
    def down(n):
        return down(n - 1) if n else 0

    for _ in range(3):
        down(50)
    """
    profile = profiled(tmp_path, program)
    [down] = profile.functions
    assert (down.calls, down.distinct, down.repeats) == (153, 51, 102)
    assert down.total_s <= profile.cpu_s
