"""The strategy against failing calls, on small hosts in git whose probes run."""

from __future__ import annotations

import logging
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.healing.bench import Bench
from qigheal.healing.diagnosis import UNSEEN_ERRORS
from qigheal.healing.strategies import builtin
from qigheal.healing.strategies.repeating.errors import (
    Errors,
    Failed,
    Place,
    Raised,
    Seen,
    _innermost,
    _rounded,
)
from qigheal.host import Manifest
from qigheal.records import Diagnosis, HealingPatch
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.settings import HealSettings
from tests.heal.probed_host import git
from tests.heal.simulated import diagnosis

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = 20
protect = ["app/store.py"]
[patch]
allow = ["app/**/*.py", "backoff/*.py"]
[sites]
idempotent = ["app.store:fetch", "app.store:load", "app.middle:row"]
transient = ["ConnectionError", "TimeoutError"]
"""
PROBE = """
import json, random, sys
from app import service
for line in sys.stdin:
    asked = json.loads(line)
    draw = random.Random(asked["seed"])
    failed = 0
    for _ in range(10):
        try:
            service.answer(draw.randrange(1000))
        except Exception:
            failed += 1
    print(json.dumps({"phi": 0.75, "kappa_eff": 64.0, "basin_coords": [1, 2], "error_rate": failed / 10}), flush=True)
"""
STORE = """
import collections, time
asked = collections.Counter()

def fetch(key, timeout=0.04):
    asked[key] += 1
    FAILS
    return key

def send(key):
    return fetch(key)

async def load(key):
    return fetch(key)
"""
ONCE = 'if key % 10 == 3 and asked[key] % 2: raise ConnectionResetError(f"gone: {key}")'
SERVICE = """
from app import store


def answer(key):
    return store.fetch(key)  # one row
"""


def host_files(service: str = SERVICE, fails: str = ONCE) -> dict[str, str]:
    return {
        "qigheal.toml": MANIFEST,
        "app/__init__.py": "",
        "app/probe.py": PROBE,
        "app/store.py": STORE.replace("FAILS", fails),
        "app/service.py": service,
    }


class Hosts:
    """Hosts in git, and what the strategy proposes for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str | None] = []

    def proposed(self, files: dict[str, str], found: Diagnosis | None = None) -> list[HealingPatch]:
        host, work = self.folder / "host", self.folder / "work"
        host.mkdir()
        work.mkdir()
        git(host, "init", "-q", "-b", "main")
        for name, text in files.items():
            (host / name).parent.mkdir(parents=True, exist_ok=True)
            (host / name).write_text(textwrap.dedent(text).lstrip("\n"))
        git(host, "add", "-A")
        git(host, "commit", "-q", "-m", "Files")
        repo = Repo(host)
        base = git(host, "rev-parse", "HEAD")
        with Bench(repo, Manifest.at(repo, base), Sandbox("none"), base, work) as bench:
            patches = list(Errors(HealSettings()).propose(found or failing(), bench, repo))
        for patch in patches:
            assert patch.base == base
            subprocess.run(
                ["git", "-C", str(host), "apply", "--index", "-"], input=patch.diff, text=True, check=True
            )
        return patches

    def text(self, path: str = "app/service.py") -> str:
        return (self.folder / "host" / path).read_text()


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="qigheal"):
        yield


def failing(metrics: tuple[str, ...] = ("errors",)) -> Diagnosis:
    found = diagnosis()
    bands = {**found.target.bands, "errors": UNSEEN_ERRORS}
    return replace(
        found, metrics=metrics, target=replace(found.target, bands=bands), observed={"errors": 0.1}
    )


def test_a_call_that_fails_is_repeated(hosts: Hosts) -> None:
    [patch] = hosts.proposed(host_files())
    assert (patch.strategy, patch.tier, patch.heals) == ("errors", "guarded", ("errors",))
    assert patch.paid == {"latency", "memory"}
    assert patch.same_output is False
    assert patch.files == ("app/service.py",)
    assert "_repeated(store.fetch, key)  # one row" in hosts.text()
    assert "except (ConnectionError, TimeoutError):" in hosts.text()
    assert "app.store:fetch at app/service.py:5" in patch.rationale
    assert "gone" not in patch.rationale
    assert "→ 0.00%" in patch.rationale
    assert patch.searched == 80
    assert patch.batches_needed == 10


def test_the_first_wait_is_no_longer_than_twice_a_healthy_call(hosts: Hosts) -> None:
    files = host_files(fails=f"{ONCE}\n    time.sleep(0.002)")
    hosts.proposed(files)
    [line] = [line for line in hosts.text().splitlines() if "for pause in" in line]
    pauses = [float(word) for word in line.partition("(")[2].rstrip("):").split(",")]
    assert 0.002 <= pauses[0] <= 0.004
    assert pauses[1] == pytest.approx(2 * pauses[0])


def test_calls_beside_one_another_do_not_lengthen_the_wait(hosts: Hosts) -> None:
    files = host_files(
        "from app import store\n\n\nasync def answer(key):\n    return await store.load(key)\n"
    )
    files["app/store.py"] = """
        import asyncio, collections
        asked = collections.Counter()

        async def load(key: int):
            await asyncio.sleep(0)
            asked[key] += 1
            if key % 10 == 3 and asked[key] % 2:
                raise TimeoutError
            return key
        """
    files["app/probe.py"] = """
        import asyncio, json, sys
        from app import service

        async def batch():
            return await asyncio.gather(*map(service.answer, range(300)), return_exceptions=True)

        for line in sys.stdin:
            failed = sum(isinstance(given, Exception) for given in asyncio.run(batch()))
            print(json.dumps({"phi": 0.75, "kappa_eff": 64.0, "basin_coords": [1, 2], "error_rate": failed / 300}),
                  flush=True)
        """
    [patch] = hosts.proposed(files)
    [line] = [line for line in hosts.text().splitlines() if "for pause in" in line]
    # By the clock each takes as long as all 300 together: 10 ms and more.
    assert float(line.partition("(")[2].partition(",")[0]) <= 0.001
    assert "→ 0.00%" in patch.rationale


def test_the_wait_of_a_call_by_itself_and_among_others() -> None:
    place = Place(
        function="f",
        file="a",
        line=1,
        calls=9,
        returned=5,
        median_s=0.03,
        slow_s=0.1,
        longest_row=1,
        alone_s=3e-5,
    )
    assert [place.pause(busy) for busy in (False, True)] == pytest.approx([2e-5, 0.02])
    assert replace(place, alone_s=None).pause(busy=False) == pytest.approx(0.02)


def test_a_method_that_is_called_through_an_attribute(hosts: Hosts) -> None:
    service = """
        from app.store import Client

        class Desk:
            def __init__(self, client: Client):
                self.client = client

            def row(self, key: int):
                return self.client.read(key)

        desk = Desk(Client())

        def answer(key):
            return desk.row(key)
        """
    files = host_files(service)
    files["app/store.py"] = (
        STORE.replace("FAILS", "pass")
        + """
class Client:
    def read(self, key):
        asked[key] += 1
        if key % 10 == 3 and asked[key] % 2: raise ConnectionResetError
        return key
"""
    )
    files["qigheal.toml"] = MANIFEST.replace("app.middle:row", "app.store:Client.read")
    [patch] = hosts.proposed(files)
    assert "return _repeated(self.client.read, key)" in hosts.text()
    assert "app.store:Client.read at app/service.py:8" in patch.rationale


def test_rare_errors_ask_for_more_answers(hosts: Hosts) -> None:
    [patch] = hosts.proposed(host_files(fails=ONCE.replace("% 10", "% 50")))
    # About 1 answer of 6 fails; a trial should see ten that do, in twice as many pairs.
    assert 20 <= patch.batches_needed <= 60
    assert patch.searched >= 120


def test_twice_the_same_patch(tmp_path: Path) -> None:
    diffs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        [patch] = Hosts(tmp_path / name).proposed(host_files(fails=f"{ONCE}\n    time.sleep(0.003)"))
        diffs.append(patch.diff)
    assert diffs[0] == diffs[1]


def test_a_library_that_the_host_has_is_used(hosts: Hosts) -> None:
    library = """
        def expo():
            yield 1

        def on_exception(wait, errors, *, max_tries, factor, jitter, logger):
            def decorate(call):
                def again(*args, **kwargs):
                    for _ in range(max_tries - 1):
                        try:
                            return call(*args, **kwargs)
                        except errors:
                            pass
                    return call(*args, **kwargs)
                return again
            return decorate
        """
    [patch] = hosts.proposed(
        {**host_files(), "backoff/__init__.py": library, "app/mail.py": "import backoff\n"}
    )
    assert "backoff.on_exception" in hosts.text()
    assert "backoff, which the host has already" in patch.rationale


def test_a_library_that_is_declared_and_does_not_work_is_not(hosts: Hosts) -> None:
    [patch] = hosts.proposed(
        {**host_files(), "requirements.txt": "backoff>=99\n", "backoff/__init__.py": "1/0\n"}
    )
    assert "for pause in" in hosts.text()
    assert "plain Python" in patch.rationale


def test_a_hanging_call_is_given_a_time_limit(hosts: Hosts) -> None:
    hangs = (
        "if key % 10 == 3 and asked[key] % 2:\n        time.sleep(timeout)\n        raise TimeoutError\n    "
        "time.sleep(0.0005)"
    )
    [patch] = hosts.proposed(host_files(fails=hangs))
    [line] = [line for line in hosts.text().splitlines() if "store.fetch" in line]
    limit = float(line.partition("timeout=")[2].partition(")")[0])
    assert 0.005 <= limit <= 0.02
    assert "given up after" in patch.rationale


def test_a_default_that_counts_no_seconds_is_left_alone(hosts: Hosts) -> None:
    hangs = "if key % 10 == 3 and asked[key] % 2:\n        time.sleep(0.01)\n        raise TimeoutError"
    assert hosts.proposed(host_files(fails=hangs))
    assert "timeout=" not in hosts.text()


def test_of_calls_inside_one_another_the_inner_one(hosts: Hosts) -> None:
    service = "from app.middle import row\n\n\ndef answer(key):\n    return row(key)\n"
    middle = "from app.store import fetch\n\n\ndef row(key):\n    return fetch(key)\n"
    [patch] = hosts.proposed({**host_files(service), "app/middle.py": middle})
    assert patch.files == ("app/middle.py",)


def test_the_outer_one_where_the_inner_one_may_not_be_touched(hosts: Hosts) -> None:
    service = "from app.middle import row\n\n\ndef answer(key):\n    return row(key)\n"
    middle = "from app.store import fetch\n\n\ndef row(key):\n    return fetch(key)\n"
    files = {**host_files(service), "app/middle.py": middle}
    files["qigheal.toml"] = MANIFEST.replace('"app/store.py"]', '"app/store.py", "app/middle.py"]')
    [patch] = hosts.proposed(files)
    assert patch.files == ("app/service.py",)


def test_files_are_left_out_until_the_patch_is_as_small_as_it_may_be(hosts: Hosts) -> None:
    service = """
        from app import rare, store

        def answer(key):
            if key % 8 == 0:
                return rare.row(key)
            return store.fetch(key)
        """
    files = host_files(service, "if key % 10 in (3, 8) and asked[key] % 2: raise TimeoutError")
    files["app/rare.py"] = "from app import store\n\n\ndef row(key):\n    return store.fetch(key)\n"
    files["qigheal.toml"] = MANIFEST.replace("[sites]", "max_files = 1\n[sites]")
    [patch] = hosts.proposed(files)
    assert patch.files == ("app/service.py",)
    assert "rare" not in patch.rationale


NOTHING: dict[str, tuple[dict[str, str], str]] = {
    "undeclared": (host_files(SERVICE.replace("fetch", "send").replace("one row", "paid")), ""),
    "permanent": (
        host_files(fails="if key % 10 == 3: raise ValueError(key)"),
        "app/service.py:5 is not repeated: it fails with ValueError, which [sites] transient does not name",
    ),
    "not in plain sight": (
        host_files("from app import store\n\n\ndef answer(key):\n    return [store.fetch][0](key)\n"),
        "app/service.py:5 calls app.store:fetch in a way that is not told: no call on that line has its name",
    ),
    "misspelt": (
        {**host_files(), "qigheal.toml": MANIFEST.replace("store:fetch", "store:fetsch")},
        "nothing in the repository called app.store:fetsch",
    ),
    "fails elsewhere": (
        host_files(
            "from app import store\n\n\ndef answer(key):\n    store.fetch(key)\n    return 1 // (key % 10)\n",
            "pass",
        ),
        "no call that [sites] declares fails; what fails most is ZeroDivisionError at app/service.py:6",
    ),
    "never succeeds": (
        host_files(fails="if key % 10 == 3: raise ConnectionError"),
        "repeating app.store:fetch at app/service.py:5 (plain Python, first wait ",
    ),
    "all fail": (host_files(fails="raise ConnectionError"), "no call of it came back"),
    "none fails": (host_files(fails="pass"), "within their band"),
    "in a comprehension": (
        host_files(
            "from app import store\n\n\ndef answer(key):\n    return [store.fetch(k) for k in (key,)]\n"
        ),
        "in a comprehension",
    ),
    "protected": (
        {**host_files(), "qigheal.toml": MANIFEST.replace('"app/store.py"]', '"app/s*.py"]')},
        "a call in 'app/service.py' cannot be changed: protected",
    ),
    "nothing declared": (
        {**host_files(), "qigheal.toml": MANIFEST.partition("[sites]")[0]},
        "declares no call",
    ),
    "no Python": ({**host_files(), "qigheal.toml": MANIFEST.replace('"-m", "app.probe"', '"-c", "1"')}, ""),
    "no room": (
        {**host_files(), "qigheal.toml": MANIFEST.replace("[sites]", "max_lines = 3\n[sites]")},
        "max_lines is 3",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_is_proposed(hosts: Hosts, name: str, caplog: pytest.LogCaptureFixture) -> None:
    files, why = NOTHING[name]
    assert hosts.proposed(files) == []
    assert why in caplog.text


@pytest.mark.parametrize("metrics", [("latency",), ("phi", "kappa")])
def test_other_troubles_are_left_to_others(hosts: Hosts, metrics: tuple[str, ...]) -> None:
    assert hosts.proposed(host_files(), failing(metrics)) == []


def test_without_a_band_of_errors_that_is_said(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    found = failing()
    bands = {name: band for name, band in found.target.bands.items() if name != "errors"}
    assert hosts.proposed(host_files(), replace(found, target=replace(found.target, bands=bands))) == []
    assert "no band of errors was learned" in caplog.text


def test_the_strategy_is_among_the_built_in_ones() -> None:
    assert "errors" in [strategy.name for strategy in builtin(HealSettings())]


def raised(*frames: tuple[str, int]) -> Raised:
    ways = tuple((file, line, "f") for file, line in frames)
    return Raised(bases=("TimeoutError", "OSError"), frames=ways, caught=True, message="", count=1)


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        ([[("a", 1), ("b", 2), ("c", 3)]], {("b", 2)}),
        ([[("a", 1), ("c", 3)], [("b", 2)]], {("a", 1), ("b", 2)}),
        ([[("a", 1), ("b", 2)], [("a", 1)]], {("a", 1)}),
        ([[("c", 3)]], set()),
    ],
)
def test_no_error_passes_two_calls_that_are_repeated(ways: list[Any], chosen: set[tuple[str, int]]) -> None:
    seen = Seen(errors=tuple(raised(*way) for way in ways), sites=())
    assert _innermost(seen, {("a", 1): 0, ("b", 2): 0}, ["TimeoutError"]) == chosen
    assert _innermost(seen, {("a", 1): 0, ("b", 2): 0}, ["ValueError"]) == set()


def test_errors_count_by_what_catches_them() -> None:
    failed = Failed(bases=("app.Down", "ConnectionError", "OSError"), count=4, median_s=0.1)
    place = Place(
        function="f",
        file="a",
        line=1,
        calls=9,
        returned=5,
        median_s=0.1,
        slow_s=0.1,
        longest_row=1,
        failed=(failed,),
    )
    assert place.passing(["ConnectionError"]) == place.passing(["app.Down", "OSError"]) == 4
    assert place.passing(["Down", "TimeoutError"]) == 0


def test_seconds_are_rounded_coarsely() -> None:
    down = [_rounded(x, up=False) for x in (0.00234, 0.0999, 0.005, 1.0, 1e-6)]
    assert down == pytest.approx([0.002, 0.05, 0.005, 1.0, 1e-6])
    up = [_rounded(x, up=True) for x in (0.00234, 0.0999, 0.005, 12.0)]
    assert up == pytest.approx([0.005, 0.1, 0.005, 20.0])
