"""What a function may be given: what its annotations say, and what it was seen to be given.

A cache looks arguments up by equality, and tells 1 from 1.0 and True by their types only where they are
arguments themselves: within a tuple they are the same to it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Final

from qigheal.healing.strategies.caching.purity.sources import Function
from qigheal.healing.strategies.caching.purity.values import NOTHING, NUMBERS, Unprovable, Value, holding, of

NAMES: Final = {
    "int": "int",
    "bool": "bool",
    "float": "float",
    "str": "str",
    "bytes": "bytes",
    "None": "none",
}
KINDS: Final = {**NAMES, "NoneType": "none"}
UNIONS: Final = ("Optional", "Union")
TUPLES: Final = ("tuple", "Tuple")


def arguments(function: Function, seen: Mapping[str, Sequence[str]]) -> dict[str, Value]:
    """What each parameter may be. `seen` has the kinds of value that came, by name, as the profile tells them.

    Raises Unprovable for a parameter that may be something that a cache cannot hold, or takes for
    something else.
    """
    node = function.node
    found = {}
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        kinds = seen.get(argument.arg, ())
        value = NOTHING
        for kind in kinds:
            value |= _of_kind(kind, argument.arg)
        if argument.annotation is not None:
            value |= _annotated(function, argument.annotation)
        if value == NOTHING:
            raise Unprovable(f"{function.shown}: it was not seen what {argument.arg} is")
        if value.held is not None and len(_numbers(value.held)) > 1:
            raise Unprovable(f"{function.shown}: {argument.arg} is a tuple of mixed numbers")
        found[argument.arg] = _zero(value)
    if not found:
        raise Unprovable(f"{function.shown}: it takes no arguments")
    return found


def _of_kind(kind: str, name: str) -> Value:
    if kind in KINDS:
        return of(KINDS[kind])
    outer, separator, leaves = kind.partition(" of ")
    if outer == "tuple" and separator:
        names = leaves.split(", ") if leaves else []
        if all(leaf in KINDS for leaf in names):
            held = of(*(KINDS[leaf] for leaf in names))
            # How deep it is nested was not told.
            return holding("tuple", held | holding("tuple", held))
    raise Unprovable(f"{name} was given a {kind[:40]!r}, which is no plain value")


def _annotated(function: Function, node: ast.expr) -> Value:
    """What an annotation allows. Raises Unprovable for one that is not a plain value's."""
    match node:
        case ast.Constant(value=None):
            return of("none")
        case ast.Constant(value=str() as text):
            try:
                return _annotated(function, ast.parse(text, mode="eval").body)
            except SyntaxError as error:
                raise Unprovable(f"{function.shown}: an annotation that cannot be read") from error
        case ast.Name(id=name) if name in NAMES and name not in function.module.bound:
            return of(NAMES[name])
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _annotated(function, left) | _annotated(function, right)
        case ast.Subscript(value=ast.Name(id=outer) | ast.Attribute(attr=outer), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if outer == "Optional":
                parts = [*parts, ast.Constant(None)]
            held = NOTHING
            for part in parts:
                if outer in TUPLES and isinstance(part, ast.Constant) and part.value is ...:
                    continue
                held |= _annotated(function, part)
            if outer in TUPLES:
                return holding("tuple", held)
            if outer in UNIONS:
                return held
    raise Unprovable(f"{function.shown}: an annotation that is not a plain value's: {ast.unparse(node)[:60]}")


def _numbers(value: Value) -> set[str]:
    inner = _numbers(value.held) if value.held is not None else set()
    return inner | (value.atoms & set(NUMBERS))


def _zero(value: Value) -> Value:
    held = None if value.held is None else _zero(value.held)
    return Value(value.atoms, held, value.sites, bool(value.atoms & {"float", "complex"}))
