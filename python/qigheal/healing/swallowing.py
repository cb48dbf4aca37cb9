"""Finds what hides errors in a change of source text: a patch that hides a failure has not healed it.

Reads text alone. Another handler in the same function, for the same errors, is the same one. A handler of
a loop that only leads to another attempt swallows nothing where the last error is raised: by the call of
the attempt, which stands once more behind the loop and there without a handler, or by a condition that
holds in the last of a fixed number of attempts. Not seen: a `raise` that stays and is no longer reached.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Place = tuple[str, str]  # qualified function, what is caught
Found = tuple[Place, int, str]

LEAVING = ("__exit__", "__aexit__")
LOCK = re.compile("(?:^|_)(?:r?lock|R?LOCK)|Lock|[Mm]utex|[Ss]emaphore")

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What this Python raises of a text that it cannot parse: no code, a null byte, or too deep for it."""


def swallowers(before: str, after: str) -> list[tuple[int, str]]:
    """Line and text of what swallows errors in `after` and not in `before`.

    A handler that does not raise on every path, `contextlib.suppress`, a `return`, `break` or `continue` in
    `finally`, and a way out of a context manager (`__exit__`) that may return something true. A `before` that
    does not parse had none; of an `after` that does not, nothing can be told, which is said in its place.
    """
    try:
        parsed = ast.parse(after)
    except UNREADABLE as error:
        return [(getattr(error, "lineno", None) or 0, "code that this Python cannot read is added")]
    return _new(_swallowing(_parsed(before), ""), _swallowing(parsed, ""))


def silencers(before: str, after: str) -> list[tuple[int, str]]:
    """Line and text of what may silence errors in `after`, though not by what this text alone says.

    A `raise` fewer in a function that is still there, and a new `with` of something else than a file or a
    lock that the text had before: what a context manager does with an error stands elsewhere. Taking a
    commit back may do both, and hides nothing by it.
    """
    try:
        old, new = _parsed(before), ast.parse(after)
    except UNREADABLE:
        return []  # `swallowers` says so
    raised, raises = _raises(old), _raises(new)
    found = [
        (line, f"a raise is taken away in {where.removeprefix('.') or 'the module'}")
        for where, (line, count) in raises.items()
        if count < raised.get(where, (0, 0))[1]
    ]
    return [*found, *_new(_unknown_contexts(old, old), _unknown_contexts(new, old))]


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except UNREADABLE:
        return ast.Module([], [])


def _new(before: Iterator[Found], after: Iterator[Found]) -> list[tuple[int, str]]:
    known = Counter(place for place, _, _ in before)
    new = []
    for place, line, text in after:
        if known[place]:
            known[place] -= 1
        else:
            new.append((line, text))
    return new


def _named(node: ast.AST, where: str) -> str:
    """The qualified name of what a node's parts stand in."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return f"{where}.{node.name}"
    return where


def _swallowing(
    node: ast.AST, where: str, repeated: frozenset[ast.ExceptHandler] = frozenset()
) -> Iterator[Found]:
    repeated |= _repeating(node) | _counted(node)
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ExceptHandler):
            caught = ast.unparse(inner.type) if inner.type else "everything"
            if inner not in repeated and not _always_raises(inner.body):
                yield (where, caught), inner.lineno, f"a handler of {caught} that does not raise is added"
        elif isinstance(inner, (ast.Try, ast.TryStar)):
            if _escapes(inner.finalbody):
                yield (where, "finally"), inner.lineno, "a finally that leaves and drops the error is added"
        elif isinstance(inner, ast.Call) and _last_name(inner.func) == "suppress":
            yield (where, "suppress"), inner.lineno, f"a call of {ast.unparse(inner.func)} is added"
        elif isinstance(node, ast.ClassDef) and (name := _way_out(inner)):
            text = f"an {name} that may drop the error is added"
            yield (
                (where, ast.unparse(inner)),
                getattr(inner, "lineno", 0),
                text,
            )  # another text is another one
        yield from _swallowing(inner, _named(inner, where), repeated)


def _always_raises(statements: list[ast.stmt]) -> bool:
    """Whether every path through the statements ends in a `raise`."""
    if not statements or _escapes(statements):
        return False
    last = statements[-1]
    if isinstance(last, ast.If):
        return _always_raises(last.body) and _always_raises(last.orelse)
    if isinstance(last, ast.Try) and not last.handlers:
        return any(map(_always_raises, (last.body, last.orelse, last.finalbody)))
    return isinstance(last, ast.Raise)


def _escapes(statements: list[ast.stmt]) -> bool:
    """Whether a path may lead out of the statements without their end."""
    return any(isinstance(part, ast.Return | ast.Break | ast.Continue) for part in _own(statements))


def _way_out(statement: ast.AST) -> str:
    """The name of a context manager's way out that may return something true, else an empty string."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name in LEAVING:
        returned = [part.value for part in _own(statement.body) if isinstance(part, ast.Return)]
        quiet = any(
            value is not None and not (isinstance(value, ast.Constant) and value.value in (None, False))
            for value in returned
        )
        return statement.name if quiet else ""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        return next((name for name in names if name in LEAVING), "")
    return ""


def _raises(tree: ast.Module) -> dict[str, tuple[int, int]]:
    """Line and number of `raise` statements, by function."""
    found: dict[str, tuple[int, int]] = {"": (1, 0)}

    def count(node: ast.AST, where: str) -> None:
        for inner in ast.iter_child_nodes(node):
            name = _named(inner, where)
            if name != where:
                found.setdefault(name, (getattr(inner, "lineno", 0), 0))
            if isinstance(inner, ast.Raise):
                line, number = found[where]
                found[where] = line, number + 1
            count(inner, name)

    count(tree, "")
    return found


def _unknown_contexts(tree: ast.Module, old: ast.Module) -> Iterator[Found]:
    """The `with` items of a text that are neither files nor locks which the old text has."""
    locks = {
        name
        for node in ast.walk(old)
        if isinstance(node, ast.Name | ast.Attribute) and LOCK.search(name := _last_name(node))
    }
    opens = {"open"} - {
        name
        for node in ast.walk(tree)
        for name in (
            getattr(node, "name", None) if isinstance(node, Function | ast.ClassDef) else None,
            (node.asname or node.name) if isinstance(node, ast.alias) else None,
            node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None,
        )
        if name
    }

    def found(node: ast.AST, where: str) -> Iterator[Found]:
        for inner in ast.iter_child_nodes(node):
            for item in inner.items if isinstance(inner, ast.With | ast.AsyncWith) else ():
                manager = item.context_expr
                function = manager.func if isinstance(manager, ast.Call) else manager
                if _last_name(function) not in locks | opens:
                    text = ast.unparse(function)
                    yield (
                        (where, text),
                        manager.lineno,
                        f"a with of {text} is added, which may drop an error",
                    )
            yield from found(inner, _named(inner, where))

    return found(tree, "")


def _repeating(node: ast.AST) -> frozenset[ast.ExceptHandler]:
    """The handlers in loops of a block that lead to another attempt, the last of which is not handled."""
    found: set[ast.ExceptHandler] = set()
    for block in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
        statements = block if isinstance(block, list) else []
        for loop, after in zip(statements, [*statements[1:], None], strict=False):
            if not isinstance(loop, ast.For | ast.AsyncFor | ast.While):
                continue
            last = _calls([*loop.orelse, *([after] if after is not None else [])])
            for attempt in loop.body:
                if isinstance(attempt, ast.Try) and last & _calls(attempt.body):
                    found |= {handler for handler in attempt.handlers if not _leaves(handler)}
    return frozenset(found)


def _counted(node: ast.AST) -> frozenset[ast.ExceptHandler]:
    """The handlers in a loop over `range(n)` that raise in its last turn, and leave in no other."""
    if not (
        isinstance(node, ast.For | ast.AsyncFor)
        and isinstance(node.target, ast.Name)
        and isinstance(node.iter, ast.Call)
        and isinstance(node.iter.func, ast.Name)
        and node.iter.func.id == "range"
        and len(node.iter.args) == 1
        and not node.iter.keywords
    ):
        return frozenset()
    count, turn = node.iter.args[0], node.target.id
    if isinstance(count, ast.Constant) and isinstance(count.value, int):
        last = str(count.value - 1)
    elif isinstance(count, ast.Name):
        last = f"{count.id} - 1"
    else:
        return frozenset()
    set_anew = {
        part.id for part in _own(node.body) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }
    if {turn, ast.unparse(count)} & set_anew:
        return frozenset()
    holding = {f"{turn} == {last}", f"{turn} >= {last}"}
    return frozenset(
        handler
        for attempt in node.body
        if isinstance(attempt, ast.Try)
        for handler in attempt.handlers
        if not _escapes(handler.body)
        for part in handler.body
        if isinstance(part, ast.If) and ast.unparse(part.test) in holding and _always_raises(part.body)
    )


def _calls(statements: list[ast.stmt]) -> set[str]:
    """The calls of statements that no `try` stands around."""
    return {
        ast.unparse(part)
        for statement in statements
        if not isinstance(statement, ast.Try | ast.TryStar)
        for part in _own([statement])
        if isinstance(part, ast.Call)
    }


def _leaves(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(part, ast.Return | ast.Break) for part in _own(handler.body))


def _own(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of the statements, but those of functions that are only defined there."""
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function):
            waiting += ast.iter_child_nodes(node)


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
