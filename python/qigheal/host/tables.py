"""Takes values out of a TOML document, and says in one line what is wrong with one.

    qigheal.toml: [probe] timeout_s: expected a number above 0, got the string '60'; write it without quotes

What the values mean is the business of the caller.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, NoReturn

from qigheal.errors import ManifestError


class Table:
    """One table of the manifest; each method takes out one value or says what is wrong with it."""

    def __init__(self, data: dict[str, Any], where: str, prefix: str, name: str) -> None:
        self.data = data
        self._where = where
        self._prefix = prefix
        self._name = name

    def fail(self, key: str, expected: str, got: str, remedy: str) -> NoReturn:
        table = f"[{self._prefix}{self._name}] " if self._name else ""
        if not self._name and self._prefix:
            key = f"[{self._prefix}{key[1:]}" if key.startswith("[") else f"[{self._prefix[:-1]}] {key}"
        raise ManifestError(
            one_line(f"{self._where}: {table}{key}: expected {expected}, got {got}; {remedy}")
        )

    def table(self, key: str) -> Table:
        found = self.data.get(key, {})
        if not isinstance(found, dict):
            self.fail(key, "a table", _kind(found), f"write it as [{self._prefix}{key}]")
        return Table(found, self._where, self._prefix, key)

    def tables(self, key: str) -> list[Table]:
        found = self.data.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            self.fail(key, "a list of tables", _kind(found), f"write each as [[{self._prefix}{key}]]")
        return [Table(one, self._where, self._prefix, f"{key} {n}") for n, one in enumerate(found, 1)]

    def end(self, *known: str) -> None:
        """Nothing but `known` may stand here."""
        for key in self.data:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else "remove it"
                self.fail(repr(key), f"one of {', '.join(known)}", "an unknown key", hint)

    def word(self, key: str) -> str:
        found = self._needed(key, "a string")
        if not isinstance(found, str) or not found.strip() or not found.isprintable():
            self.fail(key, "a string in one line that is not empty", _kind(found), 'write it in "quotes"')
        return found

    def number(
        self, key: str, default: float | None = None, above: float = -math.inf, most: float = math.inf
    ) -> float:
        found = self.data.get(key, default) if default is not None else self._needed(key, "a number")
        expected = "a number"
        if above > -math.inf:
            expected += f" above {above:g}, at most {most:g}"
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            self.fail(key, expected, _kind(found), "write it without quotes")
        if not math.isfinite(found) or not above < found <= most:
            self.fail(key, expected, f"{found!r}", "choose a value in that range")
        return float(found)

    def count(self, key: str, default: int) -> int:
        found = self.data.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int):
            self.fail(key, "a whole number", _kind(found), "write it without quotes and point")
        if not 1 <= found <= 1_000_000:
            self.fail(key, "a whole number from 1 to 1000000", str(found), "choose a value in that range")
        return found

    def command(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        found = self.data.get(key, []) if empty else self._needed(key, "a list of strings")
        words = self._strings(key, found, 'write ["program", "argument"]')
        if not words and not empty:
            self.fail(key, "a command", "an empty list", 'write ["program", "argument"]')
        for word in words:
            if "\0" in word or (word is words[0] and not word.strip()):
                self.fail(key, "words without NUL, the first not empty", repr(word), "correct the command")
        return words

    def patterns(self, key: str) -> tuple[str, ...]:
        found = self._strings(key, self.data.get(key, []), 'write ["folder/**/*.py"]')
        for pattern in found:
            parts = pattern.removesuffix("/").split("/")
            if pattern.startswith((":", "/")) or any(part in ("", ".", "..") for part in parts):
                self.fail(
                    key, "paths from the repository's root, without '.', '..' and a leading ':' or '/'",
                    repr(pattern), "write it as git lists the path",
                )  # fmt: skip
        return found

    def words(self, key: str, shape: re.Pattern[str], expected: str) -> tuple[str, ...]:
        found = self._strings(key, self.data.get(key, []), "write a list of strings")
        for word in found:
            if not shape.fullmatch(word):
                self.fail(key, expected, repr(word), "correct the name")
        return found

    def _needed(self, key: str, expected: str) -> Any:
        if key not in self.data:
            self.fail(key, expected, "nothing", f"add {key} = …")
        return self.data[key]

    def _strings(self, key: str, found: object, remedy: str) -> tuple[str, ...]:
        if not isinstance(found, list):
            self.fail(key, "a list of strings", _kind(found), remedy)
        for number, one in enumerate(found):
            if not isinstance(one, str):
                self.fail(f"{key}[{number}]", "a string", _kind(one), remedy)
        return tuple(found)


def _kind(value: object) -> str:
    names: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"), (str, f"the string {value!r}"), (int, f"the number {value!r}"),
        (float, f"the number {value!r}"), (list, "a list"), (dict, "a table"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
