"""JSON read one value at a time, so that a file need not fit into memory.

What the values mean is the caller's to know. As in the module json, NaN and Infinity are numbers: the
files of Python programs have them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_PIECE = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_LONGEST_TAIL = 8  # a number or a word cut off closer to the end of a piece than this may go on in the next


class JsonText:
    """A file of JSON text in UTF-8. limit: characters that one value may take.

    Every method raises ValueError for what is no JSON, or longer than that, and says where.
    """

    def __init__(self, file: BinaryIO, limit: int = 1 << 24) -> None:
        self._file = file
        self._limit = limit
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._passed = 0  # characters of the file before `_text`
        self._ended = False

    def peek(self) -> str:
        """The next character that is not white space; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read()

    def take(self, character: str) -> None:
        """Pass over one character that must come next."""
        if (found := self.peek()) != character:
            raise self._error(f"expected {character!r}, got {found or 'the end'!r}")
        self._at += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end - self._at > self._limit:  # pieces are read whole, and may hold more than that
                    raise self._too_long()
                if self._ended or end + _LONGEST_TAIL < len(self._text):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._error(error.msg.removesuffix(" at"), error.pos) from None
            except RecursionError:
                raise self._error("nested beyond reason") from None
            if len(self._text) - self._at > self._limit + _LONGEST_TAIL:
                raise self._too_long()
            self._read()

    def items(self) -> Iterator[str]:
        """The keys of an object; whoever gets one takes its value before the next."""
        for _ in self._listed("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise self._error("expected a string as the key")
            self.take(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Once for each element of an array; whoever gets it takes the value."""
        yield from self._listed("[", "]")

    def end(self) -> None:
        """Nothing but white space may come."""
        if found := self.peek():
            raise self._error(f"expected the end, got {found!r}")

    def _listed(self, opening: str, closing: str) -> Iterator[None]:
        self.take(opening)
        if self.peek() != closing:
            yield
            while self.peek() != closing:
                self.take(",")
                yield
        self.take(closing)

    def _read(self) -> None:
        """As much again as is held, so that a long value is not looked at once for every piece."""
        held = self._text[self._at :]
        piece = self._file.read(max(_PIECE, len(held)))
        self._ended = not piece
        self._passed += self._at
        self._text, self._at = held + self._utf8.decode(piece, self._ended), 0

    def _too_long(self) -> ValueError:
        return self._error(f"no value within {self._limit} characters")

    def _error(self, what: str, at: int | None = None) -> ValueError:
        return ValueError(f"{what} at character {self._passed + (self._at if at is None else at)}")
