"""Expressions of a function that is looked through: what they may be worth."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qigheal.healing.strategies.caching.purity import library
from qigheal.healing.strategies.caching.purity.calls import called, meant
from qigheal.healing.strategies.caching.purity.containers import KEYS
from qigheal.healing.strategies.caching.purity.operators import binary, unary
from qigheal.healing.strategies.caching.purity.records import is_record
from qigheal.healing.strategies.caching.purity.sources import Constant, Library
from qigheal.healing.strategies.caching.purity.statements import assign
from qigheal.healing.strategies.caching.purity.texts import check_specification
from qigheal.healing.strategies.caching.purity.values import NOTHING, Unprovable, Value, holding, of

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.looking import Frame, Look

Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


def value(look: Look, frame: Frame, node: ast.expr) -> Value:
    """What an expression may be worth. Raises Unprovable for one that is not followed."""
    handler = EXPRESSIONS.get(type(node))
    if handler is None:
        raise Unprovable(f"{frame.at(node)}: {type(node).__name__} is not followed")
    return handler(look, frame, node)


def _any(look: Look, frame: Frame, nodes: Sequence[ast.expr]) -> Value:
    found = NOTHING
    for node in nodes:
        if isinstance(node, ast.Starred):
            found |= look.heap.elements(value(look, frame, node.value))
        else:
            found |= value(look, frame, node)
    return found


def _constant(look: Look, frame: Frame, node: ast.Constant) -> Value:
    if node.value is ...:
        raise Unprovable(f"{frame.at(node)}: ... is not followed")
    return of("none" if node.value is None else type(node.value).__name__)


def _name(look: Look, frame: Frame, node: ast.Name) -> Value:
    key = frame.scope_of(node.id)
    if look.within(frame, node) is not None:
        raise Unprovable(f"{frame.at(node)}: a function is used as a value")
    return _outer(look, frame, node) if key is None else look.known(key, node.id)


def _outer(look: Look, frame: Frame, node: ast.Name | ast.Attribute) -> Value:
    """A name of the module or of another one, as a value."""
    match meant(look, frame, node):
        case Constant() as constant:
            return look.constant(constant)
        case Library(name=name) if name in library.CONSTANTS:
            return of(library.CONSTANTS[name])
        case None if isinstance(node, ast.Attribute):
            return _field(look, frame, node)
    raise Unprovable(f"{frame.at(node)}: a function, class or module is used as a value")


def _field(look: Look, frame: Frame, node: ast.Attribute) -> Value:
    """An attribute of a value: a field of a record."""
    base = look.value(frame, node.value)
    records = base.atoms - {"none"}
    if base.sites or not all(atom in look.records for atom in records):
        raise Unprovable(f"{frame.at(node)}: an attribute is read")
    found = NOTHING
    for atom in records:
        if node.attr not in look.records[atom]:
            raise Unprovable(f"{frame.at(node)}: an attribute is read that is no field")
        field = look.records[atom][node.attr]
        if field is None:
            raise Unprovable(f"{frame.at(node)}: {node.attr} may be 1 in one call and 1.0 in another")
        found |= field
    return found


def _binary(look: Look, frame: Frame, node: ast.BinOp) -> Value:
    left, right = value(look, frame, node.left), value(look, frame, node.right)
    return binary(look.heap, frame.at(node), node, left, right)


def _unary(look: Look, frame: Frame, node: ast.UnaryOp) -> Value:
    return unary(node.op, value(look, frame, node.operand))


def _choice(look: Look, frame: Frame, node: ast.BoolOp) -> Value:
    return _any(look, frame, node.values)


def _compared(look: Look, frame: Frame, node: ast.Compare) -> Value:
    compared = _any(look, frame, [node.left, *node.comparators])
    identity = any(isinstance(o, (ast.Is, ast.IsNot)) for o in node.ops)
    if identity and not _is_singleton(node, {"bool"} <= compared.atoms and compared.zero):
        raise Unprovable(f"{frame.at(node)}: an identity is tested")
    return of("bool")


def _is_singleton(node: ast.Compare, confused: bool) -> bool:
    """Whether an identity test is one with None, or with True or False if a cache tells these from 1 and 0."""
    return len(node.ops) == 1 and any(
        isinstance(side, ast.Constant)
        and (side.value is None or (isinstance(side.value, bool) and not confused))
        for side in (node.left, node.comparators[0])
    )


def _conditional(look: Look, frame: Frame, node: ast.IfExp) -> Value:
    value(look, frame, node.test)
    return _any(look, frame, [node.body, node.orelse])


def _joined(look: Look, frame: Frame, node: ast.JoinedStr) -> Value:
    _any(look, frame, node.values)
    return of("str")


def _formatted(look: Look, frame: Frame, node: ast.FormattedValue) -> Value:
    shown = value(look, frame, node.value)
    if not look.heap.is_plain(shown) or look.heap.zero(shown):
        raise Unprovable(f"{frame.at(node)}: the text of it may tell more than a cache does")
    if node.format_spec is not None:
        check_specification(frame, node.format_spec)
        value(look, frame, node.format_spec)
    return of("str")


def _tuple(look: Look, frame: Frame, node: ast.Tuple) -> Value:
    return holding("tuple", _any(look, frame, node.elts))


def _list(look: Look, frame: Frame, node: ast.List | ast.Set) -> Value:
    return look.heap.made(type(node).__name__.lower(), node, _any(look, frame, node.elts))


def _dict(look: Look, frame: Frame, node: ast.Dict) -> Value:
    keys = _any(look, frame, [key for key in node.keys if key is not None])
    items = NOTHING
    for key, item in zip(node.keys, node.values, strict=True):
        found = value(look, frame, item)
        if key is not None:
            items |= found
        elif found.atoms or any(site.kind != "dict" for site in found.sites):
            raise Unprovable(f"{frame.at(node)}: ** of something else than a dict is not followed")
        else:
            for site in found.sites:
                items, keys = items | look.heap.get(site), keys | look.heap.get(site, KEYS)
    return look.heap.made("dict", node, items, keys)


def _comprehension(look: Look, frame: Frame, node: Comprehension) -> Value:
    targets = {
        name.id
        for generator in node.generators
        for name in ast.walk(generator.target)
        if isinstance(name, ast.Name)
    }
    inner = frame.inside(node, targets)
    for number, generator in enumerate(node.generators):
        if generator.is_async:
            raise Unprovable(f"{frame.at(node)}: it waits for something")
        over = value(look, frame if number == 0 else inner, generator.iter)
        assign(look, inner, generator.target, look.heap.elements(over))
        _any(look, inner, generator.ifs)
    if isinstance(node, ast.DictComp):
        return look.heap.made("dict", node, value(look, inner, node.value), value(look, inner, node.key))
    item = value(look, inner, node.elt)
    if isinstance(node, ast.GeneratorExp):
        return holding("iterator", item)
    return look.heap.made("list" if isinstance(node, ast.ListComp) else "set", node, item)


def _subscript(look: Look, frame: Frame, node: ast.Subscript) -> Value:
    base = value(look, frame, node.value)
    value(look, frame, node.slice)
    if not isinstance(node.slice, ast.Slice):
        return look.heap.at(base)
    if is_record(base):
        raise Unprovable(f"{frame.at(node)}: a part of a record is not followed")
    found = Value(base.atoms & {"str", "bytes", "tuple", "iterator"}, base.held)
    for site in base.sites:
        found |= look.heap.made(site.kind, node, look.heap.get(site))
    return found


def _slice(look: Look, frame: Frame, node: ast.Slice) -> Value:
    _any(look, frame, [part for part in (node.lower, node.upper, node.step) if part is not None])
    return of("none")


def _walrus(look: Look, frame: Frame, node: ast.NamedExpr) -> Value:
    found = value(look, frame, node.value)
    look.bind(frame, node.target.id, found)
    return found


EXPRESSIONS: Final[Mapping[type[ast.expr], Callable[[Look, Frame, Any], Value]]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _outer,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _choice,
    ast.Compare: _compared,
    ast.IfExp: _conditional,
    ast.Call: called,
    ast.JoinedStr: _joined,
    ast.FormattedValue: _formatted,
    ast.Tuple: _tuple,
    ast.List: _list,
    ast.Set: _list,
    ast.Dict: _dict,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _comprehension,
    ast.Subscript: _subscript,
    ast.Slice: _slice,
    ast.NamedExpr: _walrus,
}
