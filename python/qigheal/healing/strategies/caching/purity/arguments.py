"""What a function may be given: what its annotations say, and what it was seen to be given.

A cache looks arguments up by equality, and tells 1 from 1.0 and True by their types only where they are
arguments themselves: within a tuple they are the same to it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Final

from qigheal.healing.strategies.caching.purity.sources import Function, Host, Library
from qigheal.healing.strategies.caching.purity.values import NOTHING, NUMBERS, Unprovable, Value, holding, of

NAMES: Final = {
    "int": of("int", "bool"),
    "bool": of("bool"),
    "float": of("float", "int", "bool"),
    "str": of("str"),
    "bytes": of("bytes"),
    "None": of("none"),
}
"""What annotations allow: an int where a float is wanted as well."""

KINDS: Final = {**{name: name for name in ("int", "bool", "float", "str", "bytes")}, "NoneType": "none"}
UNIONS: Final = ("Optional", "Union")
TUPLES: Final = ("tuple", "Tuple")
WHOLE: Final = frozenset(("int", "bool"))


def arguments(host: Host, function: Function, seen: Mapping[str, Sequence[str]]) -> dict[str, Value]:
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
        mixed = value.held is not None and len(_numbers(value.held)) > 1
        if argument.annotation is not None:
            value |= _annotated(host, function, argument.annotation)
        if value == NOTHING:
            raise Unprovable(f"{function.shown}: it was not seen what {argument.arg} is")
        numbers = _numbers(value.held) if value.held is not None else set()
        if mixed or (len(numbers) > 1 and not numbers <= WHOLE):
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


def _annotated(host: Host, function: Function, node: ast.expr) -> Value:
    """What an annotation allows. Raises Unprovable for one that is not a plain value's."""
    match node:
        case ast.Constant(value=None):
            return of("none")
        case ast.Constant(value=str() as text):
            try:
                return _annotated(host, function, ast.parse(text, mode="eval").body)
            except SyntaxError as error:
                raise Unprovable(f"{function.shown}: an annotation that cannot be read") from error
        case ast.Name(id=name) if name in NAMES and not _rebound(host, function, name):
            return NAMES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _annotated(host, function, left) | _annotated(host, function, right)
        case ast.Subscript(value=ast.Name(id=outer) | ast.Attribute(attr=outer) as base, slice=inner) if (
            _is_typing(host, function, base)
        ):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if outer == "Optional":
                parts = [*parts, ast.Constant(None)]
            held = NOTHING
            for part in parts:
                if outer in TUPLES and isinstance(part, ast.Constant) and part.value is ...:
                    continue
                held |= _annotated(host, function, part)
            if outer in TUPLES:
                return holding("tuple", held)
            if outer in UNIONS:
                return held
    raise Unprovable(f"{function.shown}: an annotation that is not a plain value's: {ast.unparse(node)[:60]}")


def _rebound(host: Host, function: Function, name: str) -> bool:
    """Whether a builtin's name may stand for something else where the function is defined."""
    inside = function.module.every_name if function.owner else function.module.bound
    return name in inside or name in host.replaced


def _is_typing(host: Host, function: Function, node: ast.expr) -> bool:
    """Whether a name is the builtin tuple, or what is called the same in typing."""
    if isinstance(node, ast.Name) and node.id not in function.module.bound:
        return not _rebound(host, function, node.id)
    try:
        match node:
            case ast.Name(id=name):
                attribute, found = name, host.name(function.module, name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                found = host.attribute(host.name(function.module, name), attribute)
            case _:
                return False
    except Unprovable:
        return False
    return isinstance(found, Library) and found.name == f"typing.{attribute}"


def _numbers(value: Value) -> set[str]:
    inner = _numbers(value.held) if value.held is not None else set()
    return inner | (value.atoms & set(NUMBERS))


def _zero(value: Value, inside: bool = False) -> Value:
    """Within a tuple, an int of 1 or 0 may be a bool in another call: it is told apart by its text alone."""
    held = None if value.held is None else _zero(value.held, inside=True)
    atoms = value.atoms | ({"bool"} if inside and "int" in value.atoms else frozenset())
    zero = bool(atoms & {"float", "complex"}) or (inside and bool(atoms & WHOLE))
    return Value(atoms, held, value.sites, zero)
