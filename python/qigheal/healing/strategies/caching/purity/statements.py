"""Statements of a function that is looked through: what they bind, and what may not stand there."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qigheal.healing.strategies.caching.purity.calls import exception, meant
from qigheal.healing.strategies.caching.purity.operators import binary
from qigheal.healing.strategies.caching.purity.patterns import compare
from qigheal.healing.strategies.caching.purity.scopes import times_bound
from qigheal.healing.strategies.caching.purity.sources import Library
from qigheal.healing.strategies.caching.purity.values import Unprovable, Value, of

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.looking import Frame, Look
    from qigheal.healing.strategies.caching.purity.sources import Function

ANNOTATING: Final = (ast.Constant, ast.Subscript, ast.Tuple, ast.List, ast.BinOp, ast.BitOr, ast.Load)
"""What an annotation that does nothing is made of, beside names."""


def run(look: Look, frame: Frame, function: Function, statements: Sequence[ast.stmt]) -> None:
    """Looks through statements of a function. Raises Unprovable for what is not followed."""
    for statement in statements:
        handler = STATEMENTS.get(type(statement))
        if handler is None:
            raise Unprovable(f"{frame.at(statement)}: {type(statement).__name__} is not followed")
        handler(look, frame, function, statement)


def assign(look: Look, frame: Frame, target: ast.expr, value: Value) -> None:
    """`target = value`."""
    match target:
        case ast.Name(id=name):
            look.bind(frame, name, value)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            inner = look.heap.elements(value)
            for element in elements:
                if isinstance(element, ast.Starred):
                    assign(look, frame, element.value, look.heap.made("list", element, inner))
                else:
                    assign(look, frame, element, inner)
        case ast.Subscript(value=base, slice=index):
            held = look.heap.elements(value) if isinstance(index, ast.Slice) else value
            look.heap.fill(look.value(frame, base), look.value(frame, index), held)
        case _:
            raise Unprovable(f"{frame.at(target)}: an attribute is written to")


def _return(look: Look, frame: Frame, function: Function, node: ast.Return) -> None:
    look.returns(function, of("none") if node.value is None else look.value(frame, node.value))


def _expression(look: Look, frame: Frame, _: Function, node: ast.Expr) -> None:
    look.value(frame, node.value)


def _assigned(look: Look, frame: Frame, _: Function, node: ast.Assign) -> None:
    found = look.value(frame, node.value)
    for target in node.targets:
        assign(look, frame, target, found)


def _annotated(look: Look, frame: Frame, _: Function, node: ast.AnnAssign) -> None:
    if node.value is not None:
        assign(look, frame, node.target, look.value(frame, node.value))


def _augmented(look: Look, frame: Frame, _: Function, node: ast.AugAssign) -> None:
    target = node.target
    if isinstance(target, ast.Attribute):
        raise Unprovable(f"{frame.at(target)}: an attribute is written to")
    if isinstance(target, ast.Name):
        before = look.value(frame, ast.copy_location(ast.Name(target.id, ast.Load()), target))
    else:
        before = look.heap.at(look.value(frame, target.value))
        look.value(frame, target.slice)
    added = look.value(frame, node.value)
    for site in before.sites:  # list += and set |= change what stands there, under whatever name
        look.heap.method(site, "extend" if site.kind == "list" else "update", node, [added])
    kept = Value(sites=before.sites)
    assign(look, frame, target, binary(look.heap, frame.at(node), node, before, added) | kept)


def _for(look: Look, frame: Frame, function: Function, node: ast.For) -> None:
    assign(look, frame, node.target, look.heap.elements(look.value(frame, node.iter)))
    run(look, frame, function, [*node.body, *node.orelse])


def _branch(look: Look, frame: Frame, function: Function, node: ast.While | ast.If) -> None:
    look.value(frame, node.test)
    run(look, frame, function, [*node.body, *node.orelse])


def _try(look: Look, frame: Frame, function: Function, node: ast.Try) -> None:
    run(look, frame, function, node.body)
    for handler in node.handlers:
        if handler.type is None:
            raise Unprovable(f"{frame.at(handler)}: it catches what the depth of the stack decides")
        exception(look, frame, handler.type)
        if handler.name is not None:
            look.bind(frame, handler.name, of("exception"))
        run(look, frame, function, handler.body)
    for inner in (inner for last in node.finalbody for inner in ast.walk(last)):
        if isinstance(inner, (ast.Return, ast.Break, ast.Continue)):
            raise Unprovable(f"{frame.at(inner)}: it leaves what the depth of the stack decides behind")
    run(look, frame, function, [*node.orelse, *node.finalbody])


def _raise(look: Look, frame: Frame, _: Function, node: ast.Raise) -> None:
    raised = node.exc
    if isinstance(raised, ast.Call):
        for argument in (*raised.args, *(keyword.value for keyword in raised.keywords)):
            look.value(frame, argument)
        raised = raised.func
    if raised is not None and not _is_exception(look, frame, raised):
        exception(look, frame, raised)
    cause = node.cause
    if cause is not None and not (_is_exception(look, frame, cause) or isinstance(cause, ast.Constant)):
        raise Unprovable(f"{frame.at(node)}: the cause of an exception is not followed")


def _is_exception(look: Look, frame: Frame, node: ast.expr) -> bool:
    local = isinstance(node, ast.Name) and frame.scope_of(node.id) is not None
    return local and look.value(frame, node).atoms <= {"exception"}


def _assert(look: Look, frame: Frame, _: Function, node: ast.Assert) -> None:
    look.value(frame, node.test)
    if node.msg is not None:
        look.value(frame, node.msg)


def _delete(look: Look, frame: Frame, _: Function, node: ast.Delete) -> None:
    for target in node.targets:
        if isinstance(target, ast.Subscript):
            look.value(frame, target.value)
            look.value(frame, target.slice)
        elif not isinstance(target, ast.Name):
            raise Unprovable(f"{frame.at(target)}: an attribute is taken away")


def _match(look: Look, frame: Frame, function: Function, node: ast.Match) -> None:
    subject = look.value(frame, node.subject)
    for case in node.cases:
        compare(look, frame, case.pattern, subject)
        if case.guard is not None:
            look.value(frame, case.guard)
        run(look, frame, function, case.body)


def _defined(look: Look, frame: Frame, function: Function, node: ast.FunctionDef) -> None:
    """A function within it: what it is called stands for it alone, and is only called."""
    if times_bound(function.node, node.name) != 1:
        raise Unprovable(f"{frame.at(node)}: {node.name} is bound more than once")
    arguments = [inner for inner in ast.walk(node.args) if isinstance(inner, ast.arg)]
    for annotation in (node.returns, *(argument.annotation for argument in arguments)):
        for inner in ast.walk(annotation) if annotation is not None else ():
            if not isinstance(inner, ANNOTATING) and not _is_known(look, frame, inner):
                raise Unprovable(f"{frame.at(node)}: an annotation that is more than a type")
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if default is not None:
            look.value(frame, default)
    look.define(frame, node)


def _is_known(look: Look, frame: Frame, node: ast.AST) -> bool:
    return isinstance(node, (ast.Name, ast.Attribute)) and isinstance(meant(look, frame, node), Library)


def _nothing(look: Look, frame: Frame, function: Function, node: ast.stmt) -> None:
    pass


STATEMENTS: Final[Mapping[type[ast.stmt], Callable[[Look, Frame, Function, Any], None]]] = {
    ast.Return: _return,
    ast.Expr: _expression,
    ast.Assign: _assigned,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.For: _for,
    ast.While: _branch,
    ast.If: _branch,
    ast.Try: _try,
    ast.Raise: _raise,
    ast.Assert: _assert,
    ast.Delete: _delete,
    ast.Match: _match,
    ast.FunctionDef: _defined,
    **dict.fromkeys((ast.Pass, ast.Break, ast.Continue), _nothing),
}
