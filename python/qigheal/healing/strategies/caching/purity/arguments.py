"""What a function may be given: what its annotations say, and what it was seen to be given.

A cache looks arguments up by equality, and tells 1 from 1.0 and True by their types only where they are
arguments themselves: within a tuple they are the same to it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Final

from qigheal.healing.strategies.caching.purity.records import Fields, atom, declared, meaning
from qigheal.healing.strategies.caching.purity.scopes import bindings, own
from qigheal.healing.strategies.caching.purity.sources import Class, Function, Host, Library
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


def arguments(
    host: Host, function: Function, seen: Mapping[str, Sequence[str]], known: dict[str, Fields]
) -> dict[str, Value]:
    """What each parameter may be. `seen` has the kinds of value that came, by name, as the profile tells them.

    The fields of those that are records are put into `known`, by the names of their types.

    Raises Unprovable for a parameter that may be something that a cache cannot hold, or takes for
    something else.
    """
    node = function.node
    allowed = {}
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        kinds = seen.get(argument.arg, ())
        value, records = NOTHING, NOTHING
        for kind in kinds:
            if "(" in kind:
                records |= _record(host, function, _class_of(host, function, kind), known, kind)
            else:
                value |= _of_kind(kind, argument.arg)
        mixed = value.held is not None and len(_numbers(value.held)) > 1
        value |= records
        if argument.annotation is not None:
            value |= _annotated(host, function, argument.annotation, known)
        if value == NOTHING:
            raise Unprovable(f"{function.shown}: it was not seen what {argument.arg} is")
        if mixed or (value.held is not None and _is_mixed(value.held)):
            raise Unprovable(f"{function.shown}: {argument.arg} is a tuple of mixed numbers")
        allowed[argument.arg] = _zero(value).tainted(value.zero)
    if not allowed:
        raise Unprovable(f"{function.shown}: it takes no arguments")
    return allowed


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


def _annotated(
    host: Host, function: Function, node: ast.expr, known: dict[str, Fields] | None = None
) -> Value:
    """What an annotation allows. Raises Unprovable for one that is not a plain value's, or a record's.

    Where `known` is None no record may stand: within a tuple a cache does not tell classes apart.
    """
    match node:
        case ast.Constant(value=None):
            return of("none")
        case ast.Constant(value=str() as text):
            try:
                return _annotated(host, function, ast.parse(text, mode="eval").body, known)
            except SyntaxError as error:
                raise Unprovable(f"{function.shown}: an annotation that cannot be read") from error
        case ast.Name(id=name) if name in NAMES and not _rebound(host, function, name):
            return NAMES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _annotated(host, function, left, known) | _annotated(host, function, right, known)
        case ast.Subscript(value=ast.Name(id=outer) | ast.Attribute(attr=outer) as base, slice=inner) if (
            _is_typing(host, function, base)
        ):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _subscripted(host, function, outer, parts, known)
        case ast.Name() | ast.Attribute() if known is not None and not _hidden(function, node):
            kind = meaning(host, function.module, node)
            if isinstance(kind, Class):
                return _record(host, function, kind, known)
    raise Unprovable(f"{function.shown}: an annotation that is not a plain value's: {ast.unparse(node)[:60]}")


def _subscripted(
    host: Host, function: Function, outer: str, parts: Sequence[ast.expr], known: dict[str, Fields] | None
) -> Value:
    """`tuple[...]`, `Union[...]` or `Optional[...]`."""
    held = of("none") if outer == "Optional" else NOTHING
    if outer not in (*TUPLES, *UNIONS):
        raise Unprovable(f"{function.shown}: an annotation that is not a plain value's: {outer}")
    for part in parts:
        if outer not in TUPLES or not (isinstance(part, ast.Constant) and part.value is ...):
            held |= _annotated(host, function, part, None if outer in TUPLES else known)
    return holding("tuple", held) if outer in TUPLES else held


def _hidden(function: Function, node: ast.expr) -> bool:
    """Whether the class that a static method stands in may bind the first name of an annotation itself."""
    names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    owner = function.module.only(function.owner) if function.owner else None
    return owner is not None and any(names.intersection(bindings(inner)) for inner in own(owner))


def _class_of(host: Host, function: Function, seen: str) -> Class:
    """The class of a record that was seen. Raises Unprovable when it is not the host's."""
    module, _, name = seen.partition("(")[0].rpartition(".")
    source = host.imported(function.module, module) if module not in ("", "__main__") else None
    kind = host.name(source, name) if source is not None else None
    if not isinstance(kind, Class):
        raise Unprovable(f"{function.shown}: it is not known what {seen[:80]} is")
    return kind


def _record(host: Host, function: Function, kind: Class, known: dict[str, Fields], seen: str = "") -> Value:
    """A record. `seen` says what its fields were seen to be, as the profile tells it."""
    named, annotated = declared(host, kind)
    within = Function(kind.module, function.node, kind.node.name)
    parts = [part.partition(": ") for part in seen.partition("(")[2].removesuffix(")").split("; ")]
    said = {name: value for name, _, value in parts if name}
    if seen and said.keys() != annotated.keys():
        raise Unprovable(f"{function.shown}: {kind.node.name} has other fields than its class says")
    before = known.get(atom(kind), {})
    fields: dict[str, Value | None] = {}
    held = NOTHING
    for name, annotation in annotated.items():
        value = _annotated(host, within, annotation)
        if name in said:
            value |= _of_kind(said[name], name)
        known_before = before.get(name, NOTHING)
        mixed = known_before is None or _is_mixed(value | known_before)
        fields[name] = None if mixed or known_before is None else _zero(value | known_before, inside=True)
        held |= value
    if named and (_is_mixed(held) or None in fields.values()):
        raise Unprovable(
            f"{function.shown}: a number in {kind.node.name} may be 1 in one call and 1.0 in another, which a "
            "cache takes for the same"
        )
    known[atom(kind)] = fields
    return Value(frozenset((atom(kind),)), _zero(held, inside=True) if named else None, zero=True)


def _is_mixed(value: Value) -> bool:
    """Whether numbers of it are the same to a cache and may give something else."""
    numbers = _numbers(value)
    return len(numbers) > 1 and not numbers <= WHOLE


def _rebound(host: Host, function: Function, name: str) -> bool:
    """Whether a builtin's name may stand for something else where the function is defined."""
    inside = function.module.every_name if function.owner else function.module.bound
    return function.module.starred or name in inside or name in host.replaced


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
