"""Finds what a change takes away that may refuse requests rightly: a fall of errors may be that alone.

Reads text alone, and tells nothing right from wrong: what it names is for a person to decide. What stands in
the change as a whole counts, so that moving a check to another function or file takes nothing away. Not seen:
a check that stays and is no longer reached, code that refuses by what it computes, as `int(text)` does, and what
refuses by a base class, an attribute, a default or an assignment. So this names what a person should look at, and
that it names nothing proves nothing: where errors are to be healed a person decides in any case.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from qigheal.healing.hostcode.wording import snake

Found = tuple[str, int]  # what it is, in words that are the same wherever it stands; its line

CHECKING = re.compile(
    r"(?:^|_)(?:check|valid|verif|assert|ensure|requir|authori|authent|permi|allow|guard|deny|denied|forbid|"
    r"reject|abort|sanit|escape|quota|limit|login|role|owner|tenant|redact|mask|scrub|secur|safe|compare_digest|"
    r"throttl|lock|exit|filter|may(?:_|$)|can(?:_|$)|has(?:_|$))"
)
"""Names of functions that may refuse, in small letters with underscores."""

LEAVING = (ast.Return, ast.Continue, ast.Break)  # a raise is named by itself
Statements = list[ast.stmt]


def loosened(texts: Mapping[str, tuple[str, str]], *, errors: bool) -> tuple[str, ...]:
    """What a change takes away that refuses, one sentence for each.

    texts: of each path the text before and after, "" where there is no file. A `raise` with the conditions that it
    stands under, an `assert`, a branch that leaves, a condition within an expression, and a call or decorator that is
    named like a check. Where `errors` are to be healed also a call whose result nobody takes, any decorator, annotation
    and `with`; and a file that is no Python is itself for a person to read.
    """
    left: Counter[str] = Counter()
    had: list[tuple[str, Found]] = []
    unread = []
    for path, (before, after) in texts.items():
        if not path.endswith(".py"):
            unread += [f"{path}: a file that is no Python changes"] if errors else []
            continue
        try:
            had += [(path, found) for found in _refusing(ast.parse(before), errors)]
            left.update(what for what, _ in _refusing(ast.parse(after), errors))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            unread.append(f"{path}: this Python cannot read it")
    gone = []
    for path, (what, line) in had:
        if left[what]:
            left[what] -= 1
        else:
            gone.append(f"{path}:{line}: {what} is taken away")
    return (*gone, *unread)


def _refusing(tree: ast.AST, errors: bool, under: tuple[str, ...] = ()) -> Iterator[Found]:
    """What may refuse in a tree, outer first; `under` are the conditions that it stands under."""
    for node, conditions in _parts(tree, under):
        yield from _own(node, conditions, errors)
        yield from _refusing(node, errors, conditions)


def _parts(node: ast.AST, under: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """The children of a node, each with its conditions. A function's body stands under those of its calls alone."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        test = ast.unparse(node.test)
        for field, value in ast.iter_fields(node):
            further = {"body": (f"if {test}",), "orelse": (f"if not ({test})",)}.get(field, ())
            for part in value if isinstance(value, list) else [value]:
                yield part, (*under, *further)
        return
    if isinstance(node, ast.match_case):
        under = (*under, _case(node))
    elif isinstance(node, ast.For | ast.AsyncFor):
        under = (*under, f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}")
    elif isinstance(node, ast.ExceptHandler):
        under = (*under, f"except {ast.unparse(node.type) if node.type else ''}".strip())
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        under = ()
    for part in ast.iter_child_nodes(node):
        yield part, under


def _own(node: ast.AST, under: tuple[str, ...], errors: bool) -> Iterator[Found]:
    line = getattr(node, "lineno", 0)
    where = f" under {', '.join(under)}" if under else ""
    if isinstance(node, ast.Raise | ast.Assert):
        yield f"{ast.unparse(node)}{where}", line
    elif isinstance(node, ast.Call) and _checks(node.func):
        yield f"the call {ast.unparse(node)}{where}", line
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if errors or _checks(called):
                yield f"the decorator {ast.unparse(decorator)}", decorator.lineno
    elif isinstance(node, ast.If):
        if _leaves(node.body) or _leaves(node.orelse):
            yield f"the branch if {ast.unparse(node.test)}{where}", line
    elif isinstance(node, ast.match_case) and _leaves(node.body):
        yield f"the branch {_case(node)}{where}", node.pattern.lineno
    for condition in _conditions(node):
        yield f"the condition {ast.unparse(condition)}{where}", condition.lineno
    if errors:
        yield from _broadly(node, where, line)


def _conditions(node: ast.AST) -> list[ast.expr]:
    """Conditions within an expression."""
    if isinstance(node, ast.comprehension):
        return node.ifs
    if isinstance(node, ast.IfExp):
        return [node.test]
    return [node] if isinstance(node, ast.BoolOp) else []


def _case(node: ast.match_case) -> str:
    guard = "" if node.guard is None else f" if {ast.unparse(node.guard)}"
    return f"case {ast.unparse(node.pattern)}{guard}"


def _broadly(node: ast.AST, where: str, line: int) -> Iterator[Found]:
    """What may refuse besides, where a request that fails is one that was refused."""
    if isinstance(node, ast.Expr):
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call) and not _checks(value.func):
            yield f"the call {ast.unparse(value)}{where}", line
    elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        yield f"the annotation {name}: {ast.unparse(node.annotation)}", line
    elif isinstance(node, ast.With | ast.AsyncWith):
        for item in node.items:
            yield f"the with {ast.unparse(item.context_expr)}{where}", line


def _leaves(statements: Statements) -> bool:
    return bool(statements) and isinstance(statements[-1], LEAVING)


def _checks(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return CHECKING.search(snake(name)) is not None
