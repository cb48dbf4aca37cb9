"""Which names a scope binds. Nothing is known here of files, or of what the names stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, those of inner functions and classes left out, but not of their heads."""
    for node in ast.iter_child_nodes(scope):
        yield node
        yield from head(node) if isinstance(node, SCOPES) else own(node)


def head(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes of what of a function or class is evaluated where it stands."""
    for part in _parts(scope):
        yield from ast.walk(part)


def bindings(node: ast.AST) -> list[str]:
    """The names that a node itself binds in its scope."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.ImportFrom():
            return [alias.asname or alias.name for alias in node.names]
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return [node.id]
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
            return [node.name] if node.name else []
        case ast.MatchMapping():
            return [node.rest] if node.rest else []
    return []


def locals_of(node: ast.FunctionDef | ast.Lambda) -> frozenset[str]:
    """Every name that is local to a function, its parameters included."""
    arguments = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    return frozenset(
        arguments | {name for part in body for inner in _within(part) for name in bindings(inner)}
    )


def times_bound(node: ast.FunctionDef, name: str) -> int:
    """How often a function's own scope binds a name; a parameter counts."""
    arguments = [a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)]
    found = [n for statement in node.body for inner in _within(statement) for n in bindings(inner)]
    return [*arguments, *found].count(name)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it that bind names in the same scope."""
    yield node
    if isinstance(node, SCOPES):
        for part in _parts(node):
            yield from _within(part)
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        # The targets of a comprehension are its own, but := in it binds outside.
        targets = {id(name) for inner in node.generators for name in ast.walk(inner.target)}
        for part in ast.iter_child_nodes(node):
            yield from (inner for inner in _within(part) if id(inner) not in targets)
    else:
        for inner in ast.iter_child_nodes(node):
            yield from _within(inner)


def _parts(scope: ast.AST) -> Iterator[ast.AST]:
    """What of a function or class is evaluated where it stands: defaults, decorators, annotations, bases."""
    for name, part in ast.iter_fields(scope):
        if name != "body":
            yield from (
                inner for inner in (part if isinstance(part, list) else [part]) if isinstance(inner, ast.AST)
            )
