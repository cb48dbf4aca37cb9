"""JSON read a value at a time: the same values as the module json gives, however the file is cut into pieces."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore import jsontext
from qigcore.jsontext import JsonText

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Dribble(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__(data)
        self._piece = piece

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._piece)


def walked(data: bytes, piece: int = 1 << 20, limit: int = 1 << 24) -> tuple[dict[str, Any], list[Any]]:
    """An object whose key "many" holds an array: the rest, and the array."""
    text = JsonText(Dribble(data, piece), limit)
    rest, many = {}, []
    for key in text.items():
        if key == "many":
            many = [text.value() for _ in text.elements()]
        else:
            rest[key] = text.value()
    text.end()
    return rest, many


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES), st.lists(VALUES), st.integers(1, 40), st.sampled_from([None, 1]))
def test_it_reads_what_json_reads(
    rest: dict[str, Any], many: list[Any], piece: int, indent: int | None
) -> None:
    rest.pop("many", None)
    for ascii_only in (True, False):
        try:
            data = json.dumps({**rest, "many": many}, ensure_ascii=ascii_only, indent=indent).encode()
        except UnicodeEncodeError:
            continue
        found = walked(data, piece)
        assert repr(found) == repr((rest, json.loads(data)["many"]))  # NaN equals itself in this form


def test_numbers_and_words_of_python_programs() -> None:
    _, many = walked(b'{"many": [NaN, -Infinity, 1e5, -0.0, 12345678901234567890]}', 1)
    assert math.isnan(many[0])
    assert many[1:] == [-math.inf, 1e5, 0.0, 12345678901234567890]


def test_a_mark_at_the_beginning_and_white_space_around() -> None:
    assert walked(b'\xef\xbb\xbf \r\n{\t"many" : [ 1 , 2 ] } \n', 1) == ({}, [1, 2])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected '{', got 'the end' at character 0"),
        (b"[]", "expected '{', got '\\[' at character 0"),
        (b'{"a": 1', "expected ',', got 'the end' at character 7"),
        (b'{"a": 1,}', "at character 8"),
        (b'{"a" 1}', "expected ':', got '1' at character 5"),
        (b"{1: 2}", "string as the key"),
        (b'{"many": [1, 2', "got 'the end' at character 14"),
        (b'{"many": [1 2]}', "expected ',', got '2' at character 12"),
        (b'{"a": tru}', "Expecting value at character 6"),
        (b'{"a": "x', "Unterminated string"),
        (b'{"a": 1} 2', "expected the end, got '2' at character 9"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": "\xc3', "utf-8"),
        (b'{"a": ' + b"[" * 100_000, "nested beyond reason"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
    ],
)
@pytest.mark.parametrize("piece", [1 << 20, 3])
def test_what_is_no_json_is_refused_with_its_place(data: bytes, said: str, piece: int) -> None:
    with pytest.raises(ValueError, match=said):
        walked(data, piece)


def test_one_value_may_not_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "_PIECE", 1000)
    endless = io.BytesIO(b'{"a": "' + b"x" * 1_000_000)
    text = JsonText(endless, 10_000)
    with pytest.raises(ValueError, match="no value within 10000 characters at character 6"):
        [text.value() for _ in text.items()]
    assert endless.tell() < 50_000


def test_a_value_that_a_piece_holds_whole_may_not_be_longer_either() -> None:
    assert walked(b'{"a": "' + b"x" * 998 + b'"}', limit=1000)[0]["a"] == "x" * 998
    with pytest.raises(ValueError, match="no value within 1000 characters at character 6"):
        walked(b'{"a": "' + b"x" * 999 + b'"}', limit=1000)


def test_what_was_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "_PIECE", 1000)
    text = JsonText(io.BytesIO(json.dumps({"many": list(range(100_000))}).encode()))
    for _ in text.items():
        for number, _ in enumerate(text.elements()):
            assert text.value() == number
            assert len(text._text) < 5000
