"""Finds handlers that swallow errors: a patch that hides a failure has not healed it.

Reads source text alone. Another handler in the same function, for the same errors, is the same one. A
handler of a loop that only leads to another attempt swallows nothing where the call of the attempt stands
once more behind the loop, and there without a handler: the last error is then raised.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Place = tuple[str, str]  # qualified function, what is caught


def swallowers(before: str, after: str) -> list[tuple[int, str]]:
    """Line and text of what swallows errors in `after` and not in `before`.

    A handler without `raise`, `contextlib.suppress`, and a `return`, `break` or `continue` in `finally`.
    A `before` that does not parse had none; of an `after` that does not, nothing can be told, which is
    said in its place.
    """
    try:
        known = Counter(place for place, _, _ in _found(ast.parse(before), ""))
    except SyntaxError:
        known = Counter()
    try:
        parsed = ast.parse(after)
    except SyntaxError as error:
        return [(error.lineno or 0, "code that this Python cannot read")]
    new = []
    for place, line, text in _found(parsed, ""):
        if known[place]:
            known[place] -= 1
        else:
            new.append((line, text))
    return new


def _found(
    node: ast.AST, where: str, repeated: frozenset[ast.ExceptHandler] = frozenset()
) -> Iterator[tuple[Place, int, str]]:
    repeated |= _repeating(node)
    for inner in ast.iter_child_nodes(node):
        name = where
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{where}.{inner.name}"
        elif isinstance(inner, ast.ExceptHandler):
            caught = ast.unparse(inner.type) if inner.type else "everything"
            raises = any(isinstance(part, ast.Raise) for part in _own(inner.body))
            if not raises and inner not in repeated:
                yield (where, caught), inner.lineno, f"a handler of {caught} that does not raise"
        elif isinstance(inner, (ast.Try, ast.TryStar)):
            if any(isinstance(part, (ast.Return, ast.Break, ast.Continue)) for part in _own(inner.finalbody)):
                yield (where, "finally"), inner.lineno, "a finally that leaves and drops the error"
        elif isinstance(inner, ast.Call) and _last_name(inner.func) == "suppress":
            yield (where, "suppress"), inner.lineno, f"a call of {ast.unparse(inner.func)}"
        yield from _found(inner, name, repeated)


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
