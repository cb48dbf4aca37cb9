"""The latency strategy, on profiles and repositories that a test gives."""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.errors import ProbeError
from qigheal.healing.strategies.caching.latency import MOST_PATCHES, Called, Latency, Profile
from qigheal.host import Manifest
from qigheal.records import BandOf, Diagnosis, HealingPatch, Target
from qigheal.settings import HealSettings

SETTINGS = HealSettings()
ANSWERS = SETTINGS.warmup + 4 * SETTINGS.round_pairs
MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
protect = ["app/probe.py"]
[patch]
allow = ["app/*.py"]
"""
MODEL = """\
\"\"\"A model.\"\"\"
# What it weighs.


def weigh(n):
    return n * 2


def price(n):
    return n + 3


def both(n):
    return weigh(n) + 1


def now(n):
    return open("clock").read()
"""
LINES = {name: i for i, line in enumerate(MODEL.splitlines(), 1) for name in [line[4:].split("(")[0]]}


class FakeRepo:
    """One commit of a few files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def export(self, commit: str, dest: Path) -> None:
        for name, text in self.files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_text(text)

    def edit(self, base: str, edits: dict[str, bytes]) -> dict[str, bytes]:
        return edits

    def diff(self, base: str, edits: dict[str, bytes]) -> str:
        lines: list[str] = []
        for path in sorted(edits):
            before, after = self.files[path].splitlines(True), edits[path].decode().splitlines(True)
            lines += difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", n=0)
        return "".join(lines)


class FakeBench:
    """A bench whose probe has been profiled already."""

    base = "c0ffee"

    def __init__(self, profile: Profile | ProbeError) -> None:
        self.manifest = Manifest.parse(MANIFEST)
        self.profile = profile
        self.asked = 0

    def search_requests(self, count: int) -> list[tuple[int, int]]:
        return [(i, 11) for i in range(count)]

    def inspect(self, instrument: str, requests: Sequence[tuple[int, int]], kind: type[Profile]) -> Profile:
        assert (instrument, kind) == ("profile", Profile)
        self.asked += len(requests)
        if isinstance(self.profile, ProbeError):
            raise self.profile
        return self.profile


def called(name: str, share: float, *, distinct: int = 20, each: int = 20, **changed: Any) -> Called:
    """A function that takes `share` of one second over all answers, asked `each` times in each."""
    calls = each * ANSWERS
    fields: dict[str, Any] = {
        "file": "app/model.py",
        "line": LINES.get(name, 1),
        "name": name,
        "parameters": ("n",),
        "kinds": (("int",),),
        "hashable": True,
        "calls": calls,
        "repeats": changed.get("calls", calls) - distinct,
        "curve": ((1, 1), (distinct, distinct), (calls, distinct)),
        "depth": 1,
        "seconds": share,
        "own_s": share,
        "repeated_s": share * (calls - distinct) / calls,
        "returned": ("int",),
        "entry_bytes": 60,
    }
    return Called(**(fields | changed))


def diagnosis(observed: float = 20.0, high: float = 2.0) -> Diagnosis:
    """Answers of `observed` ms where up to `high` are healthy: 20 against 2 have to lose 45 % to be half healed."""
    band = BandOf(mean=high / 2, sd=high / 6, low=0.0, high=high)
    target = Target(geometry="simplex", basin=(1.0, 0.0), drift_limit=1.0, bands={"latency": band})
    return Diagnosis(
        metrics=("latency",),
        findings=(),
        severity="warning",
        target=target,
        observed={"latency": observed},
        code_hash="c0ffee",
        healthy_code_hash="",
        since=None,
        snapshots=50,
    )


def proposed(
    *functions: Called,
    files: dict[str, str] | None = None,
    unwell: Diagnosis | None = None,
    rss_mb: float = 100.0,
    limit: int = 1000,
    settings: HealSettings = SETTINGS,
) -> list[HealingPatch]:
    profile = Profile(seconds=1.0, rss_mb=rss_mb, recursion_limit=limit, functions=functions)
    bench: Any = FakeBench(profile)
    repo: Any = FakeRepo({"app/__init__.py": "", "app/model.py": MODEL} | (files or {}))
    return list(Latency(settings).propose(unwell or diagnosis(), bench, repo))


def changed(patch: HealingPatch) -> list[str]:
    return [
        line
        for line in patch.diff.splitlines()
        if line[:1] in ("+", "-") and line[:3] not in ("+++", "---") and len(line) > 1
    ]


def test_a_hot_function_gets_a_cache() -> None:
    [patch] = proposed(called("weigh", 0.9))
    assert changed(patch) == [
        "+from functools import lru_cache",
        "+@lru_cache(maxsize=32, typed=True)",
    ]
    assert (patch.strategy, patch.tier, patch.heals, patch.base) == (
        "latency",
        "safe",
        ("latency",),
        "c0ffee",
    )
    assert patch.same_output
    assert patch.searched == ANSWERS
    assert patch.parameters == {"app/model.py:weigh maxsize": 32.0}
    assert "90 % of the time" in patch.rationale
    assert "98 % of 860 calls" in patch.rationale


def test_a_recursion_stays_far_below_the_limit() -> None:
    assert proposed(called("weigh", 0.9, depth=50), limit=300)
    assert not proposed(called("weigh", 0.9, depth=51), limit=300)
    assert not proposed(called("weigh", 0.9, depth=101), limit=100_000)
    assert proposed(called("weigh", 0.9, depth=1), limit=5)


@pytest.mark.parametrize("file", ["serve", "serve.pyw"])
def test_scripts_of_the_host_are_read_too(file: str) -> None:
    change = "import app.model as main\nmain.weigh = len\n"
    assert proposed(called("weigh", 0.9), files={file: "import app.model\n"})
    assert not proposed(called("weigh", 0.9), files={file: "#!/usr/bin/env python3\n" + change})
    assert proposed(called("weigh", 0.9), files={"notes": change, "notes.txt": "#!python\n" + change})


DIGESTS = MODEL.replace("    return n * 2", "    return int(sha256(str(n).encode()).hexdigest(), 16)")


def test_a_function_that_computes_digests_is_for_a_person() -> None:
    """It may be slow on purpose, and so may what calls it."""
    files = {"app/model.py": "from hashlib import sha256\n" + DIGESTS}
    for name, tier in (("weigh", "review"), ("both", "review"), ("price", "safe")):
        [patch] = proposed(called(name, 0.9, line=LINES[name] + 1), files=files)
        assert (patch.tier, "on purpose" in patch.rationale) == (tier, tier == "review")


ORDINARY = (
    "n token tokens opinion spinning spin pinned wpw key keys passes passed passenger bypass author pan codes"
)
SECRETS = """
    password userPassword old_passwd client_secret pin api_key apiKey APIKey userPIN userPwd passcode pass_ pw
    user_pwd user_pin pincode passkey otp totp cvv cvc cvv2 ssn iban card_number cardNumber jwt id_token idToken
    authorization auth_header bearer cookie session_id sessionId mnemonic seed_phrase access_key signing_key
    encryption_key ssh_key key_pem api_token login_token creds pepper JWTToken
"""


@pytest.mark.parametrize(
    ("name", "cached"),
    [(name, True) for name in ORDINARY.split()] + [(name, False) for name in SECRETS.split()],
)
def test_what_is_named_like_a_secret_is_not_kept(name: str, cached: bool) -> None:
    text = MODEL.replace("weigh(n):\n    return n * 2", f"weigh({name}):\n    return {name} * 2")
    patches = proposed(called("weigh", 0.9, parameters=(name,)), files={"app/model.py": text})
    assert bool(patches) == cached


def test_a_field_that_is_named_like_a_secret_is_not_kept() -> None:
    """What a record holds, the profile says, though no line of the function names it."""
    for field, cached in (("password", False), ("rank", True)):
        kinds = ((f"app.model.Login(user: str; {field}: str)",),)
        record = (
            "import dataclasses\n\n@dataclasses.dataclass(frozen=True)\nclass Login:\n"
            f"    user: str\n    {field}: str\n\n\ndef weigh(n):\n    return len(n.user)\n"
        )
        given: dict[str, Any] = {"line": 9, "kinds": kinds}
        assert bool(proposed(called("weigh", 0.9, **given), files={"app/model.py": record})) == cached


@pytest.mark.parametrize(
    ("weigh", "name", "secret"),
    [
        ("    user, {name} = n\n    return len(user)", "word", "password"),
        ("    return sum([len({name}) for {name} in n])", "spin", "pin"),
        ("    return inner(n[0])", "user_name", "user_pin"),
    ],
)
def test_a_secret_that_the_function_or_what_it_calls_names_is_not_kept(
    weigh: str, name: str, secret: str
) -> None:
    function = called("weigh", 0.9, kinds=(("tuple of str",),))
    for one, cached in ((name, True), (secret, False)):
        text = MODEL.replace("    return n * 2", weigh.format(name=one))
        text += f"\n\ndef inner({one if 'inner' in weigh else 'x'}):\n    return 3\n"
        assert bool(proposed(function, files={"app/model.py": text})) == cached


@pytest.mark.parametrize(
    ("call", "cached"),
    [
        ("weigh(count)", True),
        ("weigh(login.password)", False),
        ("m.weigh(form['pin'])", False),
        ("weigh(n=otp)", False),
    ],
)
def test_what_is_a_secret_where_the_function_is_called_is_not_kept(call: str, cached: bool) -> None:
    head = "import app.model as m\nfrom app.model import weigh\n\n\ndef f(count, login, form, otp):\n"
    text = f"{head}    return {call}\n"
    assert bool(proposed(called("weigh", 0.9), files={"app/other.py": text})) == cached


def test_which_secret_a_cache_would_keep_is_said(caplog: pytest.LogCaptureFixture) -> None:
    text = MODEL.replace("n * 2", "inner(n)") + "\n\ndef inner(user_pin):\n    return user_pin + 1\n"
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not proposed(called("weigh", 0.9), files={"app/model.py": text})
        assert not proposed(called("price", 0.9, parameters=("userPIN",)))
    assert "'weigh' is not cached: a cache may keep user_pin" in caplog.text
    assert "'price' is not cached: a cache would keep what it is given as userPIN" in caplog.text


def test_the_same_evidence_gives_the_same_patches() -> None:
    functions = (called("weigh", 0.5), called("price", 0.45), called("both", 0.3))
    assert proposed(*functions) == proposed(*functions)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (called("weigh", 0.1), "takes too little of the time"),
        (called("weigh", 0.9, distinct=860), "is never asked the same again"),
        (called("weigh", 0.9, distinct=700), "is hardly asked the same again"),
        (called("weigh", 0.9, hashable=False), "was given what a cache cannot hold"),
        (called("weigh", 0.9, kinds=(("list",),)), "was given a list"),
        (called("weigh", 0.9, depth=400), "goes so deep that a cache would overflow the stack"),
        (called("now", 0.9), "reads a file"),
        (called("gone", 0.9, line=1000), "stands where no function begins"),
        (called("weigh", 0.9, returned=("int", "list")), "was seen to return a list"),
        (called("weigh", 0.9, file="app/probe.py"), "stands in a protected file"),
        (called("weigh", 0.9, file="/usr/lib/python3/json.py"), "is not the host's"),
        (called("weigh", 0.9, file="../../etc/x.py"), "is not the host's either"),
    ],
)
def test_nothing_is_proposed_for_a_function_that(function: Called, why: str) -> None:
    assert proposed(called("price", 0.01), function) == [], why


def test_nothing_is_proposed_where_latency_is_healthy() -> None:
    assert proposed(called("weigh", 0.9), unwell=diagnosis(observed=1.9)) == []
    bench: Any = FakeBench(ProbeError("not to be asked"))
    assert list(Latency(SETTINGS).propose(diagnosis(observed=1.9), bench, bench)) == []
    assert not bench.asked


def test_a_probe_that_cannot_be_profiled_is_said(caplog: pytest.LogCaptureFixture) -> None:
    bench: Any = FakeBench(ProbeError("started by a shell"))
    with caplog.at_level(logging.INFO, "qigheal"):
        assert list(Latency(SETTINGS).propose(diagnosis(), bench, bench)) == []
    assert "started by a shell" in caplog.text


def test_why_a_function_is_not_cached_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "qigheal"):
        assert proposed(called("now", 0.9)) == []
        assert proposed(called("weigh", 0.9), files={"app/other.py": "exec('')\n"}) == []
        odd = (("int", "Point", "tuple of others", "tuple of int", "app.model.P(x: int)"),)
        assert proposed(called("both", 0.9, hashable=False, kinds=odd)) == []
    assert "'now' is not cached: app/model.py:18: open is not known to be pure" in caplog.text
    assert "nothing can be proven of this host: app/other.py:1: exec" in caplog.text
    assert "'both' is not cached: arguments of type Point, tuple of others are not told apart" in caplog.text


def test_arguments_that_are_not_told_apart_are_named_with_their_types(
    caplog: pytest.LogCaptureFixture,
) -> None:
    untold: dict[str, Any] = {"hashable": False, "repeats": 0}
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not proposed(
            called("handle", 0.95, own_s=0.01, kinds=(("Request",),), **untold),
            called("weigh", 0.9, kinds=(("int", "Point"),), **untold),
            called("price", 0.9, kinds=(("tuple of int, str",), ("tuple of ",)), repeats=0),
            called("both", 0.01, kinds=(("Rare",),), **untold),
            called("main", 1.0, calls=1, kinds=(("Once",),), **untold),
        )
    assert [record.message for record in caplog.records] == [
        "latency: 'weigh' is not cached: arguments of type Point are not told apart",
        "latency: 'handle' is not cached: arguments of type Request are not told apart",
        "latency: no other function that repeats its arguments makes up for the excess",
    ]


@pytest.mark.parametrize(
    "others",
    [
        {"functools.py": ""},
        {"app/functools/__init__.py": ""},
        {"app/other.py": "import functools\nfunctools.lru_cache = None\n"},
    ],
)
def test_nothing_is_proposed_where_another_functools_may_be_imported(others: dict[str, str]) -> None:
    assert proposed(called("weigh", 0.9))
    assert proposed(called("weigh", 0.9), files=others) == []


def test_the_one_that_saves_most_comes_first() -> None:
    patches = proposed(called("price", 0.5), called("weigh", 0.9))
    assert [next(iter(patch.parameters)) for patch in patches[:2]] == [
        "app/model.py:weigh maxsize",
        "app/model.py:price maxsize",
    ]


def test_two_functions_are_cached_together_where_one_is_not_enough() -> None:
    first, *others = proposed(called("weigh", 0.48), called("price", 0.44))
    assert changed(first) == [
        "+from functools import lru_cache",
        "+@lru_cache(maxsize=32, typed=True)",
        "+@lru_cache(maxsize=32, typed=True)",
    ]
    assert len(first.parameters) == 2
    assert all(len(patch.parameters) == 1 for patch in others)
    [pair] = proposed(called("weigh", 0.3), called("price", 0.3))
    assert len(pair.parameters) == 2


def test_a_function_is_not_paired_with_one_that_it_calls() -> None:
    patches = proposed(called("weigh", 0.5), called("both", 0.55))
    assert all(len(patch.parameters) == 1 for patch in patches)
    assert len(patches) == 2


def test_there_are_few_patches() -> None:
    model = "".join(f"def f{k}(n):\n    return n + {k}\n" for k in range(9))
    functions = [called(f"f{k}", 0.5, line=2 * k + 1) for k in range(9)]
    assert len(proposed(*functions, files={"app/model.py": model})) == MOST_PATCHES


@given(distinct=st.integers(1, 20_000), rss_mb=st.floats(8.0, 4000.0), entry=st.integers(0, 100_000))
def test_a_cache_holds_what_was_seen_and_stays_within_memory(
    distinct: int, rss_mb: float, entry: int
) -> None:
    function = called("weigh", 1.0, distinct=distinct, each=10_000, entry_bytes=entry)
    for patch in proposed(function, rss_mb=rss_mb):
        [size] = map(int, patch.parameters.values())
        assert size & (size - 1) == 0
        assert 16 <= size <= 65_536
        small = size == 16
        assert small or size * entry <= SETTINGS.memory_margin * rss_mb * 2**20
        enough = 1.25 * distinct <= size
        full = 2 * size * (entry + 320) > SETTINGS.memory_margin / 2 * rss_mb * 2**20 or size == 65_536
        assert enough or full


def filling(domain: int, settings: HealSettings = SETTINGS) -> Called:
    """A function that is asked 20 times an answer, each time with one of `domain` arguments by lot."""
    draw = random.Random(3)
    answers = settings.warmup + 4 * settings.round_pairs
    seen: set[int] = set()
    curve = []
    for number in range(1, 20 * answers + 1):
        seen.add(draw.randrange(domain))
        if number & (number - 1) == 0 or number == 20 * answers:
            curve.append((number, len(seen)))
    repeats = 20 * answers - len(seen)
    repeated_s = 0.9 * repeats / (20 * answers)
    return called(
        "weigh", 0.9, distinct=len(seen), repeated_s=repeated_s, curve=tuple(curve), calls=20 * answers
    )


def test_a_cache_that_fills_slowly_asks_for_a_longer_round() -> None:
    lengths = []
    for domain in (20, 100, 300, 5000):
        patches = proposed(filling(domain))
        lengths.append([patch.batches_needed for patch in patches])
    assert lengths[0] == [10]
    assert lengths[1] in ([10], [20])
    assert lengths[2] == [40]
    assert lengths[3] == []  # no round is long enough to show it


def test_longer_rounds_show_more_repeats() -> None:
    long = HealSettings(round_pairs=100, max_pairs=1000)
    assert proposed(filling(1500)) == []
    assert proposed(filling(1500, long), settings=long)
