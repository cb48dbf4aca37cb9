"""Handlers that swallow errors are told from those that raise, and new ones from old ones."""

from __future__ import annotations

import textwrap

import pytest

from qigheal.healing.swallowing import swallowers

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
    assert new("def (") == [(1, "code that this Python cannot read")]


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
