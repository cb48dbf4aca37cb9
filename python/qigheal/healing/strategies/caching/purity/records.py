"""Arguments that are named tuples or frozen dataclasses of plain values, and what their fields may be.

A cache tells two of them apart by their class and by their fields' equality, so that within them 1, 1.0 and
True are the same to it. Only classes are known here that leave comparing and hashing as they were made.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

from qigheal.healing.strategies.caching.purity.sources import Class, Host, Library, Module, Named
from qigheal.healing.strategies.caching.purity.values import Unprovable, Value

PREFIX: Final = "record "
"""What the name of a type begins with that is a record of the host."""

Fields = Mapping[str, Value | None]
"""What each field may be; None of one that may be 1 in a call and 1.0 in another that a cache takes for the same."""

KEEPING: Final = frozenset(("order", "slots", "kw_only", "repr", "init", "match_args"))
"""What may be asked of `dataclass` that leaves comparing and hashing as they are."""


def is_record(value: Value) -> bool:
    return any(atom.startswith(PREFIX) for atom in value.atoms)


def atom(of: Class) -> str:
    return f"{PREFIX}{of.module.path}:{of.node.name}"


def declared(host: Host, of: Class) -> tuple[bool, dict[str, ast.expr]]:
    """Whether a class is a named tuple, and the annotation of each of its fields.

    Raises Unprovable for one that is no record, or whose objects may be compared, or read, in another way.
    """
    node = of.node
    named = _is_named_tuple(host, of)
    if not named and not _is_frozen(host, of):
        raise Unprovable(f"{of.module.path}: {node.name} is neither a named tuple nor a frozen dataclass")
    fields: dict[str, ast.expr] = {}
    others: list[str] = []
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=value) if _is_constant(value):
                fields[name] = kind
            case ast.FunctionDef(name=name) if not name.startswith("__"):
                others.append(name)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise Unprovable(f"{of.module.path}:{statement.lineno}: {node.name} is more than its fields")
    own = {
        *fields,
        *others,
        "__eq__",
        "__hash__",
        "__getattribute__",
        "__getattr__",
        "__iter__",
        "__getitem__",
    }
    if len(fields) + len(set(others)) + 6 > len(own) or not fields or own & host.replaced:
        raise Unprovable(f"{of.module.path}: a field of {node.name} may be bound again")
    for where, mention in host.mentions.of(of.module, node.name):
        parent = host.mentions.parents[id(mention)]
        if isinstance(parent, ast.ClassDef) and mention in parent.bases:
            raise Unprovable(f"{where.path}:{parent.lineno}: a class is derived from {node.name}")
    return named, fields


def _is_constant(node: ast.expr | None) -> bool:
    """Whether a default is a value, and not what `dataclass` takes for more."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return node is None or isinstance(node, ast.Constant | ast.Tuple)


def meaning(host: Host, module: Module, node: ast.expr) -> Named | None:
    """What a name or a dotted name stands for in a module; None when that is not certain."""
    try:
        match node:
            case ast.Name(id=name):
                return host.name(module, name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return host.attribute(host.name(module, name), attribute)
    except Unprovable:
        pass
    return None


def _is_named_tuple(host: Host, of: Class) -> bool:
    node = of.node
    bases = [meaning(host, of.module, base) for base in node.bases]
    plain = not node.decorator_list and not node.keywords
    return plain and bases == [Library("typing.NamedTuple")] and not host.hides("typing")


def _is_frozen(host: Host, of: Class) -> bool:
    node = of.node
    if node.bases or node.keywords or len(node.decorator_list) != 1 or host.hides("dataclasses"):
        return False
    match node.decorator_list[0]:
        case ast.Call(func=func, args=[], keywords=keywords):
            if meaning(host, of.module, func) != Library("dataclasses.dataclass"):
                return False
            given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else None for k in keywords}
            return (
                given.pop("frozen", False) is True
                and given.pop("eq", True) is True
                and given.keys() <= KEEPING
            )
    return False
