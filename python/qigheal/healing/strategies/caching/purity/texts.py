"""Texts that a function makes: those in which a locale, an address or a codec of the host's may show."""

from __future__ import annotations

import ast
import string
from typing import TYPE_CHECKING, Final

from qigheal.healing.strategies.caching.purity.values import Unprovable

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.looking import Frame

CODECS: Final = frozenset(("utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1", "utf-16", "utf-32"))
ERRORS: Final = frozenset(("strict", "ignore", "replace", "backslashreplace", "xmlcharrefreplace"))


def check_specification(frame: Frame, node: ast.expr) -> None:
    """Raises Unprovable for a format that may end in "n": it reads the locale."""
    last = node.values[-1] if isinstance(node, ast.JoinedStr) and node.values else node
    empty = isinstance(node, ast.JoinedStr) and not node.values
    if not empty and not (isinstance(last, ast.Constant) and _is_plain(last.value)):
        raise Unprovable(f"{frame.at(node)}: a format that may read the locale")


def _is_plain(specification: object) -> bool:
    return isinstance(specification, str) and not specification.endswith("n")


def check_method(frame: Frame, node: ast.Call, base: ast.expr, name: str) -> None:
    """Raises Unprovable for a method of a text that may give more than its arguments tell."""
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    if name in ("encode", "decode"):
        for argument in given:
            if not (isinstance(argument, ast.Constant) and str(argument.value).lower() in CODECS | ERRORS):
                raise Unprovable(f"{frame.at(node)}: a codec that is not known")
    if name == "format":
        text = base.value if isinstance(base, ast.Constant) else None
        if not isinstance(text, str) or not all(map(_is_plain_field, _fields(text))):
            raise Unprovable(f"{frame.at(node)}: a format that may read the locale, or show an address")


def _fields(text: str) -> list[tuple[str, str]]:
    """The names and formats of a text's fields; one that nobody sees through where it cannot be read."""
    try:
        return [(name, form or "") for _, name, form, _ in string.Formatter().parse(text) if name is not None]
    except ValueError:
        return [(".", "")]


def _is_plain_field(field: tuple[str, str]) -> bool:
    name, specification = field
    return not set(name) & set(".[") and "{" not in specification and _is_plain(specification)
