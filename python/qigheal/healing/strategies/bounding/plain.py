"""Whether a value is plain data: numbers, text, and tuples, lists and dicts of such.

A container that nothing reads may still hold what must stay: a folder, a task, a lock lives as long as it
is held. So only plain data may be dropped from one. It is shown by how a value is made or by how it is
annotated; whatever is not shown is not plain. Nothing of the container itself is looked at here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.strategies.bounding.known import (
    MOMENTS,
    PLAIN_ANNOTATIONS,
    PURE_FUNCTIONS,
    PURE_MODULES,
    TEXT_METHODS,
    words,
)
from qigheal.healing.strategies.bounding.repeatable import Prover, Unproven
from qigheal.healing.strategies.bounding.settled import constant

MADE = words("str int float bool bytes len repr hash format ord chr hex bin oct ascii isinstance")
"""Built-in functions that give plain data, whatever they are given."""

KEPT = words("abs round min max sum sorted list tuple set frozenset dict divmod pow")
"""Those that give it when they are given it."""

TOLD = TEXT_METHODS | {"hexdigest", "digest", "isoformat", "total_seconds", "timestamp", "strftime"}
"""Methods that give text or numbers, unless the host has one of the same name."""

OTHERS = frozenset(("operator", "string", "struct"))
"""Modules among the pure ones that also give something else."""

HOLDERS = words("list dict tuple set frozenset List Dict Tuple Set FrozenSet Optional Union Literal")
"""What annotations of plain data are put together with."""

SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


class Plain:
    """Tells plain data in one file of a program."""

    def __init__(self, prover: Prover, source: Source) -> None:
        self._prover, self._source = prover, source
        self._program: Program = prover.program
        self._asked: set[tuple[ast.AST | None, str]] = set()

    def shown(self, node: ast.AST | None) -> bool:
        """Whether an expression is shown to be plain data."""
        if node is None or isinstance(node, (ast.Constant, ast.JoinedStr, ast.Compare)):
            return True
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return all(map(self.shown, node.elts))
        if isinstance(node, ast.Dict):
            return all(map(self.shown, (*node.keys, *node.values)))
        if isinstance(node, (ast.ListComp, ast.SetComp)):
            return self.shown(node.elt)
        if isinstance(node, ast.DictComp):
            return self.shown(node.key) and self.shown(node.value)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, ast.Not) or self.shown(node.operand)
        if isinstance(node, ast.BinOp):
            return self._text(node.left, node.op) or (self.shown(node.left) and self.shown(node.right))
        if isinstance(node, ast.BoolOp):
            return all(map(self.shown, node.values))
        if isinstance(node, ast.IfExp):
            return self.shown(node.body) and self.shown(node.orelse)
        if isinstance(node, (ast.NamedExpr, ast.Await, ast.Subscript, ast.Starred)):
            return self.shown(node.value)
        if isinstance(node, ast.Call):
            return self._called(node)
        return isinstance(node, ast.Name) and self._named(node)

    def parts(self, node: ast.AST) -> bool:
        """Whether what an iterable gives is shown to be plain data."""
        if isinstance(node, ast.GeneratorExp):
            return self.shown(node.elt)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and self._builtin(node.func.id):
            if node.func.id == "range":
                return True
            if node.func.id in ("enumerate", "reversed", "zip", "iter"):
                return all(map(self.parts, node.args))
        return self.shown(node)

    def annotated(self, node: ast.AST | None) -> bool:
        """Whether an annotation says that a value is plain data."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                return self.annotated(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return False
        if isinstance(node, ast.Constant):
            return node.value is None or node.value is ...
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, ast.BitOr) and self.annotated(node.left) and self.annotated(node.right)
        if isinstance(node, ast.Subscript):
            said = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
            return said in HOLDERS and self.annotated(node.slice)
        if isinstance(node, ast.Tuple):
            return all(map(self.annotated, node.elts))
        return isinstance(node, ast.Name) and node.id in PLAIN_ANNOTATIONS and self._builtin(node.id)

    @staticmethod
    def _text(left: ast.AST, operator: ast.operator) -> bool:
        return (
            isinstance(operator, ast.Mod)
            and isinstance(left, ast.Constant)
            and isinstance(left.value, (str, bytes))
        )

    def _builtin(self, name: str) -> bool:
        return self._source.builtin(name)

    def _called(self, node: ast.Call) -> bool:
        given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg != "key")]
        called = node.func
        if isinstance(called, ast.Name) and self._builtin(called.id):
            return called.id in MADE or (called.id in KEPT and all(map(self.parts, given)))
        own = self._program.defined(self._source, called)
        if own is not None:
            return self._own(*own, given)
        dotted = self._program.origin(self._source, called)
        if dotted is not None and self._program.module(dotted.rpartition(".")[0]) is None:
            module = dotted.rpartition(".")[0]
            return dotted in PURE_FUNCTIONS | MOMENTS or module in PURE_MODULES - OTHERS
        return isinstance(called, ast.Attribute) and called.attr in TOLD and not self._defines(called.attr)

    def _own(self, source: Source, called: ast.AST, given: list[ast.expr]) -> bool:
        if not isinstance(called, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        if called.returns is not None and Plain(self._prover, source).annotated(called.returns):
            return not called.decorator_list
        try:
            kind = self._prover.function(source, called)
        except Unproven:
            return False
        return kind in ("data", "given", "flat") and all(map(self.shown, given))

    def _defines(self, name: str) -> bool:
        return any(
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
            for source in self._program.sources.values()
            for node in source.nodes
        )

    def _named(self, node: ast.Name) -> bool:
        """A name of a function all of whose values are plain data, or a constant of the module."""
        function = self._source.within(node, SCOPES)
        if function is None:
            return False
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False  # what a comprehension or a lambda binds is not followed
        if (function, node.id) in self._asked:
            return True  # the other values of the name decide
        bound = list(self._bound(function, node.id))
        if not bound:
            return constant(self._program, self._source, node)
        self._asked.add((function, node.id))
        try:
            return all(bound)
        finally:
            self._asked.discard((function, node.id))

    def _bound(self, function: Function, name: str) -> Iterator[bool]:
        """Whether each value that a name gets in a function is plain data."""
        given = function.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
            if argument is not None and argument.arg == name:
                yield self.annotated(argument.annotation)
        for node in ast.walk(function):
            if isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names:
                yield False
            if isinstance(
                node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)
            ):
                yield from [False] * (node is not function and _names(node, name))
            if not (isinstance(node, ast.Name) and node.id == name) or isinstance(node.ctx, ast.Load):
                continue
            above = self._source.parents.get(node)
            if isinstance(above, ast.AnnAssign):
                yield self.annotated(above.annotation) or (
                    above.value is not None and self.shown(above.value)
                )
            elif isinstance(above, (ast.Assign, ast.AugAssign, ast.NamedExpr)):
                yield self.shown(above.value)
            elif isinstance(above, ast.For):
                yield self.parts(above.iter)
            elif isinstance(above, ast.Tuple) and isinstance(
                outer := self._source.parents.get(above), ast.Assign
            ):
                yield self.shown(outer.value)
            else:
                yield False


def _names(node: ast.AST, name: str) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name.partition(".")[0]) == name for alias in node.names)
    return getattr(node, "name", None) == name
