"""The patterns of `match`: what they bind, and what they may tell of a value that a cache does not."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qigheal.healing.strategies.caching.purity import library
from qigheal.healing.strategies.caching.purity.calls import meant
from qigheal.healing.strategies.caching.purity.containers import KEYS
from qigheal.healing.strategies.caching.purity.sources import Library
from qigheal.healing.strategies.caching.purity.values import NOTHING, SCALARS, Unprovable, Value

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.looking import Frame, Look


def compare(look: Look, frame: Frame, pattern: ast.pattern, subject: Value) -> None:
    """Binds what a pattern binds of such a value. Raises Unprovable for one that is not followed."""
    match pattern:
        case ast.MatchValue(value=expected):
            look.value(frame, expected)
        case ast.MatchSingleton(value=expected):
            if expected is not None:
                _check_kind(frame, pattern, subject)
        case ast.MatchOr(patterns=parts):
            _all(look, frame, parts, subject)
        case ast.MatchSequence(patterns=parts):
            _all(look, frame, parts, look.heap.elements(subject))
        case ast.MatchAs(pattern=inner, name=name):
            _all(look, frame, [inner] if inner is not None else [], subject)
            look.bind(frame, name or "", subject)
        case ast.MatchStar(name=name):
            look.bind(frame, name or "", look.heap.made("list", pattern, subject))
        case ast.MatchMapping():
            _mapping(look, frame, pattern, subject)
        case ast.MatchClass():
            _kind(look, frame, pattern, subject)
        case _:
            raise Unprovable(f"{frame.at(pattern)}: a pattern that is not followed")


def is_irrefutable(case: ast.match_case) -> bool:
    return case.guard is None and isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def _check_kind(frame: Frame, pattern: ast.pattern, subject: Value) -> None:
    if subject.zero and "bool" in subject.atoms:
        raise Unprovable(f"{frame.at(pattern)}: a pattern may tell 1 from True within a tuple")


def _all(look: Look, frame: Frame, patterns: Sequence[ast.pattern], subject: Value) -> None:
    for pattern in patterns:
        compare(look, frame, pattern, subject)


def _kind(look: Look, frame: Frame, pattern: ast.MatchClass, subject: Value) -> None:
    """`case int(x)`: x is the whole value."""
    found = meant(look, frame, pattern.cls)
    name = found.name.removeprefix("builtins.") if isinstance(found, Library) else ""
    if name not in library.TYPES or pattern.kwd_patterns or len(pattern.patterns) > 1:
        raise Unprovable(f"{frame.at(pattern)}: a pattern of something else than builtin types")
    _check_kind(frame, pattern, subject)
    allowed = SCALARS & {name, *(("bool",) if name == "int" else ())}
    narrowed = Value(subject.atoms & allowed, zero=subject.zero) if allowed else subject
    _all(look, frame, pattern.patterns, narrowed)


def _mapping(look: Look, frame: Frame, pattern: ast.MatchMapping, subject: Value) -> None:
    items, keys = NOTHING, NOTHING
    for site in subject.sites:
        if site.kind == "dict":
            items, keys = items | look.heap.get(site), keys | look.heap.get(site, KEYS)
    for key, inner in zip(pattern.keys, pattern.patterns, strict=True):
        look.value(frame, key)
        compare(look, frame, inner, items)
    if pattern.rest is not None:
        look.bind(frame, pattern.rest, look.heap.made("dict", pattern, items, keys))
