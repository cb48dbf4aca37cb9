"""What the instrument says of a probe's errors and of calls that may be repeated."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from qigheal.sandbox import Sandbox
from tests.heal.probed_host import Host

STORE = """
import asyncio
import functools
import time

class Down(ConnectionError):
    pass

def dressed(function):
    @functools.wraps(function)
    def inside(*args):
        return function(*args)
    return inside

def fetch(key):
    if key % 3 == 0:
        time.sleep(0.02)
        raise Down(f"no {key}\\n\\x1b[31m" + "x" * 500)
    return key

async def load(key):
    await asyncio.sleep(0)
    if key == 4:
        raise TimeoutError
    await asyncio.sleep(0)
    return key

class Client:
    @dressed
    def read(self, key):
        return int("x" if key == 1 else "3")
    def go(self, key):
        return self.read(key)
"""
MODEL = """
LEVEL = 0.75
from app import store

def one(key):
    try:
        return store.fetch(key)
    finally:
        key += 1
        key += 1

def caught(key):
    try:
        return one(key)
    except OSError:
        return None

async def later(key):
    row = await store.load(key)
    return row

def numbers(n):
    for i in range(n):
        yield i
"""
BEGINNING = """
import asyncio
from app import model, store
"""
NAMES = ("app.store:fetch", "app.store:load", "app.store:Client.read", "app.nowhere:gone", "json:loads")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox("none")


def seen(host: Host, body: str, answers: int = 1) -> dict[str, Any]:
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    probe = f"{BEGINNING}\nfor question in sys.stdin:\n{lines}    answer()\n"
    with host.bench(probe, **{"app/store.py": STORE, "app/model.py": MODEL}) as bench:
        options = {"functions": list(NAMES)}
        return bench.inspect("tracebacks", bench.search_requests(answers), dict, options=options)


def line_of(text: str, part: str) -> int:
    [line] = [i for i, line in enumerate(text.splitlines(), 1) if part in line]
    return line


FETCHED, FAILED = line_of(MODEL, "store.fetch(key)"), line_of(STORE, "raise Down")


def test_the_way_of_an_exception_that_is_caught(host: Host) -> None:
    found = seen(host, "model.caught(3)\nmodel.caught(4)", answers=3)
    [error] = found["errors"]
    assert error["bases"][:3] == ["app.store.Down", "ConnectionError", "OSError"]
    ways = [(file, function.rpartition(".")[2]) for file, _, function in error["frames"]]
    assert ways == [("app/model.py", "caught"), ("app/model.py", "one"), ("app/store.py", "fetch")]
    assert [line for _, line, _ in error["frames"]][1:] == [FETCHED, FAILED]
    assert error["caught"] is True
    assert error["count"] == 3


def test_a_message_is_short_and_printable(host: Host) -> None:
    [error] = seen(host, "model.caught(3)")["errors"]
    assert error["message"].startswith("no 3  [31mxxx")
    assert len(error["message"]) == 200


def test_an_exception_that_leaves_the_host_is_told_so(host: Host) -> None:
    found = seen(host, "import threading\nmodel.caught(3)\nlist(map(int, model.numbers(3)))\n"
                       "thread = threading.Thread(target=model.one, args=(6,))\n"
                       "threading.excepthook = print\nthread.start()\nthread.join()")  # fmt: skip
    assert sorted(error["caught"] for error in found["errors"]) == [False, True]


def test_how_the_calls_of_a_function_fare(host: Host) -> None:
    found = seen(host, "for key in (1, 3, 6, 2, 9, 4, 5): model.caught(key)")
    [site] = found["sites"]
    assert (site["function"], site["file"], site["line"]) == ("app.store:fetch", "app/model.py", FETCHED)
    assert (site["calls"], site["returned"], site["longest_row"]) == (7, 4, 2)
    [failed] = site["failed"]
    assert failed["bases"][0] == "app.store.Down"
    assert failed["count"] == 3
    assert failed["median_s"] >= 0.02 > site["slow_s"] >= site["median_s"] > 0


def test_coroutines_are_one_call_however_often_they_pause(host: Host) -> None:
    body = """
async def all_of_it():
    rows = await asyncio.gather(*(model.later(key) for key in range(8)), return_exceptions=True)
    try:
        await model.later(4)
    except TimeoutError:
        await asyncio.sleep(0)
asyncio.run(all_of_it())
"""
    [site] = seen(host, body)["sites"]
    assert site["line"] == line_of(MODEL, "await store.load")
    assert (site["calls"], site["returned"]) == (9, 7)
    assert [(failed["bases"][0], failed["count"]) for failed in site["failed"]] == [("TimeoutError", 2)]


def test_a_wrapped_method_is_called_from_where_the_wrapper_is(host: Host) -> None:
    body = "for key in (1, 2, 3):\n    try: store.Client().go(key)\n    except ValueError: pass"
    [site] = seen(host, body)["sites"]
    assert (site["function"], site["line"]) == ("app.store:Client.read", line_of(STORE, "self.read(key)"))
    assert (site["calls"], site["returned"]) == (3, 2)


def test_functions_of_other_packages_are_seen_too(host: Host) -> None:
    found = seen(host, "try: json.loads(question + '{')\nexcept ValueError: pass")
    [site] = found["sites"]
    assert (site["function"], site["file"]) == ("json:loads", "app/probe.py")
    [error] = found["errors"]
    assert [file for file, _, _ in error["frames"]] == ["app/probe.py"]
    assert error["bases"][0] == "json.decoder.JSONDecodeError"


def test_ends_of_loops_are_no_errors(host: Host) -> None:
    found = seen(host, "sum(model.numbers(5))\nnext(model.numbers(0), None)\nfor n in model.numbers(2): pass")
    assert found["errors"] == []


def test_the_same_exception_raised_again_is_one_and_another_is_another(host: Host) -> None:
    body = """
for key in range(4):
    try:
        try:
            model.one(3)
        except OSError:
            raise
    except OSError as error:
        try:
            raise RuntimeError("because of it") from error
        except RuntimeError:
            pass
"""
    found = seen(host, body)["errors"]
    assert sorted((error["bases"][0], error["count"]) for error in found) == [
        ("RuntimeError", 4), ("app.store.Down", 4),
    ]  # fmt: skip


def test_a_message_that_cannot_be_told_does_no_harm(host: Host) -> None:
    body = """
class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")
def odd():
    raise Odd
try: odd()
except Odd: pass
"""
    [error] = seen(host, body)["errors"]
    assert error["message"] == ""
    assert error["bases"][0] == "__main__.Odd"


BESIDE = """
async def all_of_it():
    await asyncio.gather(*(model.later(key) for key in range(5, 305)))
asyncio.run(all_of_it())
"""


def test_what_other_tasks_do_while_a_coroutine_is_paused_is_told_apart(host: Host) -> None:
    [site] = seen(host, BESIDE, answers=3)["sites"]
    assert (site["calls"], site["returned"]) == (900, 900)
    # Each call is paused twice while 299 others have their turn.
    assert 0.0 < site["alone_s"] < site["median_s"] / 20


def test_what_a_coroutine_itself_waits_for_is_its_own(host: Host) -> None:
    slow = STORE.replace("await asyncio.sleep(0)\n    return", "await asyncio.sleep(0.1)\n    return")
    body = BESIDE.replace("305", "35")
    probe = f"{BEGINNING}\nfor question in sys.stdin:\n{textwrap.indent(body, '    ')}    answer()\n"
    with host.bench(probe, **{"app/store.py": slow, "app/model.py": MODEL}) as bench:
        found = bench.inspect(
            "tracebacks", bench.search_requests(1), dict, options={"functions": list(NAMES)}
        )
    [site] = found["sites"]
    assert 0.02 < site["alone_s"] <= site["median_s"]


def test_calls_that_do_not_pause_have_one_duration(host: Host) -> None:
    [site] = seen(host, "for key in (1, 2, 4, 5): model.caught(key)")["sites"]
    assert site["alone_s"] == site["median_s"] > 0
