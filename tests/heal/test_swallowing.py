"""Handlers that swallow errors are told from those that raise, and new ones from old ones."""

from __future__ import annotations

import textwrap

import pytest

from qigheal.healing.swallowing import silencers, swallowers

PLAIN = "def answer(request):\n    return fetch(request)\n"


def new(after: str, before: str = PLAIN) -> list[tuple[int, str]]:
    return swallowers(before, textwrap.dedent(after).lstrip())


@pytest.mark.parametrize(
    ("after", "line", "named"),
    [
        (
            """
            def answer(request):
                try:
                    return fetch(request)
                except Exception:
                    return None
            """,
            4,
            "handler of Exception",
        ),
        ("try:\n    fetch(1)\nexcept:\n    pass\n", 3, "handler of everything"),
        ("try:\n    fetch(1)\nexcept* OSError:\n    pass\n", 3, "handler of OSError"),
        ("import contextlib\nwith contextlib.suppress(OSError):\n    fetch(1)\n", 2, "contextlib.suppress"),
        ("def f():\n    try:\n        return fetch(1)\n    finally:\n        return 2\n", 2, "finally"),
        (
            """
            try:
                fetch(1)
            except OSError:
                def later():
                    raise
            """,
            3,
            "handler of OSError",
        ),
    ],
)
def test_one_that_swallows_is_named_with_its_line(after: str, line: int, named: str) -> None:
    [(found, text)] = new(after)
    assert found == line
    assert named in text


def test_one_that_raises_in_the_end_is_none() -> None:
    retry = """
    def answer(request):
        for attempt in range(3):
            try:
                return fetch(request)
            except ConnectionError:
                if attempt == 2:
                    raise
                time.sleep(0.01)
    """
    assert new(retry) == []


def test_one_that_was_there_before_is_not_new_where_it_has_moved() -> None:
    before = "def f():\n    try:\n        g()\n    except KeyError:\n        pass\n"
    assert new("import functools\n\n\n" + before, before) == []
    assert [line for line, _ in new(before + before.replace("f()", "h()"), before)] == [9]
    twice = before + "    try:\n        g()\n    except KeyError:\n        pass\n"
    assert len(new(twice, before)) == 1


def test_a_file_that_did_not_parse_before_had_none() -> None:
    assert len(new("try:\n    f()\nexcept OSError:\n    pass\n", "def (")) == 1


def test_code_that_cannot_be_read_is_said_to_be() -> None:
    assert new("def (") == [(1, "code that this Python cannot read is added")]
    deep = "-" * 100_000
    assert new(f"x = {deep}1\n") == [(0, "code that this Python cannot read is added")]
    assert [what for _, what in new("x = 1\0")] == ["code that this Python cannot read is added"]


ATTEMPTS = """
def again(call, *args):
    for pause in (0.1, 0.2):
        try:
            return call(*args)
        except ConnectionError:
            time.sleep(pause)
    return call(*args)
"""


def test_attempts_whose_last_one_is_not_handled_swallow_nothing() -> None:
    assert new(ATTEMPTS) == []
    head, _, tail = ATTEMPTS.rpartition("    return call(*args)\n")
    assert new(f"{head}    else:\n        return call(*args)\n{tail}") == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("    return call(*args)\n", "    return None\n"),
        ("    return call(*args)\n", "    return other(*args)\n"),
        ("            time.sleep(pause)\n", "            return None\n"),
        ("            time.sleep(pause)\n", "            break\n"),
    ],
)
def test_attempts_that_end_in_silence_swallow(text: str, instead: str) -> None:
    head, _, tail = ATTEMPTS.rpartition(text)
    assert [line for line, _ in new(head + instead + tail)] == [5]


HANDLER = """
def answer(request):
    try:
        record = fetch(request)
    except Exception:
{body}
    return record
"""


@pytest.mark.parametrize(
    "body",
    [
        "if request < 0:\n    raise\nrecord = 0",
        "if request < 0:\n    raise\nelse:\n    record = 0",
        "for _ in ():\n    raise\nrecord = 0",
        "for _ in range(request):\n    raise",
        "while request:\n    raise",
        "if request:\n    return 0\nraise",
        "try:\n    raise\nexcept ValueError:\n    record = 0",
        "with Quiet():\n    raise",
    ],
)
def test_a_handler_that_raises_on_some_paths_swallows(body: str) -> None:
    text = HANDLER.format(body=textwrap.indent(body, " " * 8))
    assert any("a handler of Exception" in what for _, what in new(text))


@pytest.mark.parametrize(
    "body",
    [
        "raise",
        "log(request)\nraise Failed from None",
        "if request < 0:\n    raise\nelif request:\n    raise Failed()\nelse:\n    raise Other()",
        "try:\n    close()\nfinally:\n    raise",
    ],
)
def test_a_handler_that_raises_on_every_path_swallows_nothing(body: str) -> None:
    assert new(HANDLER.format(body=textwrap.indent(body, " " * 8))) == []


LAST_OF = """
def answer(request):
    for attempt in range({count}):
        try:
            return fetch(request)
        except OSError:
            if {test}:
                raise
            {then}
"""


@pytest.mark.parametrize(
    ("count", "test", "then", "swallows"),
    [
        ("3", "attempt >= 2", "wait()", False),
        ("TIMES", "attempt == TIMES - 1", "wait()", False),
        ("3", "attempt == 3", "wait()", True),
        ("3", "attempt == 2 and request < 0", "wait()", True),
        ("3", "attempt == 2", "attempt = 0", True),
        ("3", "attempt == 2", "return 0", True),
        ("4", "attempt == 2", "break", True),
        ("TIMES", "attempt == 2", "wait()", True),
    ],
)
def test_attempts_that_are_counted_raise_in_the_last(
    count: str, test: str, then: str, swallows: bool
) -> None:
    assert bool(new(LAST_OF.format(count=count, test=test, then=then))) is swallows


MANAGER = """
class Quiet:
    def __enter__(self):
        return self

    {kind} {name}(self, *error):
        {body}
"""


@pytest.mark.parametrize("name", ["__exit__", "__aexit__"])
@pytest.mark.parametrize("body", ["return True", "return error[0] is OSError", "return self.quiet(*error)"])
def test_a_way_out_that_may_say_true_swallows(name: str, body: str) -> None:
    kind = "async def" if name == "__aexit__" else "def"
    silent = MANAGER.format(kind=kind, name=name, body=body)
    honest = MANAGER.format(kind=kind, name=name, body="return None")
    assert [what for _, what in new(silent)] == [f"an {name} that may drop the error is added"]
    assert len(new(silent, honest)) == 1
    assert len(new(silent, silent.replace("return ", "return not "))) == 1
    assert new(silent, silent) == []
    assert new(honest) == []
    assert new(MANAGER.format(kind=kind, name=name, body="self.close()\n        return")) == []


def test_a_way_out_that_is_assigned_swallows() -> None:
    assert len(new("class Quiet:\n    __exit__ = lambda *error: True\n")) == 1


STORE = """
import threading

LOCK = threading.Lock()


def fetch(key):
    if key < 0:
        raise KeyError(key)
    if key % 7 == 0:
        raise ConnectionError(key)
    return key


class Client:
    def read(self, key):
        raise NotImplementedError
"""


@pytest.mark.parametrize(
    ("old", "instead", "where"),
    [
        ("raise ConnectionError(key)", "return -1", "fetch"),
        ("raise NotImplementedError", "return 0", "Client.read"),
    ],
)
def test_a_raise_that_is_taken_away_silences(old: str, instead: str, where: str) -> None:
    [(line, what)] = silencers(STORE, STORE.replace(old, instead))
    assert what == f"a raise is taken away in {where}"
    assert f"def {where.rpartition('.')[2]}(" in STORE.splitlines()[line - 1]


def test_a_raise_that_goes_with_its_function_or_is_another_silences_nothing() -> None:
    assert silencers(STORE, STORE[: STORE.index("class Client")]) == []
    assert silencers(STORE, STORE.replace("raise KeyError(key)", "raise ValueError(key)")) == []
    assert silencers(STORE, STORE.replace("return key\n", "raise OSError(key)\n")) == []


@pytest.mark.parametrize(
    ("manager", "silences"),
    [
        ("Quiet()", True),
        ("quiet", True),
        ("pool.attempt(key)", True),
        ("clock()", True),
        ("threading.RLock()", True),  # a name that the file did not have
        ("open(key)", False),
        ("LOCK", False),
        ("threading.Lock()", False),
        ("LOCK, Quiet()", True),
    ],
)
@pytest.mark.parametrize("word", ["with", "async with"])
def test_a_new_context_is_to_be_a_file_or_a_known_lock(manager: str, silences: bool, word: str) -> None:
    after = STORE.replace("    return key\n", f"    {word} {manager}:\n        return key\n")
    if word == "async with":
        after = after.replace("def fetch", "async def fetch")
    assert bool(silencers(STORE, after)) is silences
    assert silencers(after, after) == []


@pytest.mark.parametrize(
    "own", ["def open(x): ...", "from quiet import open", "open = Quiet", "class open: ..."]
)
def test_an_open_of_the_files_own_is_not_known(own: str) -> None:
    after = STORE.replace("    return key\n", "    with open(key):\n        return key\n") + own
    assert len(silencers(STORE, after)) == 1
