"""Whether what a function gives is only read by those who get it: a cached container that somebody changes
is not the same when it is made again, and one compared by identity is another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.strategies.bounding.known import (
    DATA_BUILTINS,
    HOLDING_BUILTINS,
    LISTING_METHODS,
    PURE_FUNCTIONS,
    PURE_MODULES,
    READING_METHODS,
    STREAM_BUILTINS,
    TELLING_METHODS,
    TEXT_METHODS,
)
from qigheal.healing.strategies.bounding.repeatable import Unproven
from qigheal.healing.strategies.bounding.shadowing import is_local

BUILTINS = DATA_BUILTINS | HOLDING_BUILTINS | STREAM_BUILTINS | {"print"}
TAKES = TEXT_METHODS | {"extend", "update", "format", "union", "intersection", "difference"}
"""Methods that look at an argument and do not keep it."""

TELLS = frozenset(("cache_info", "cache_parameters"))
"""What a cache says of itself, which a bound changes: only where nothing but a log gets it."""

LOGS = frozenset(("debug", "info", "warning", "error", "critical", "log"))
FAR = 4
"""Through how many functions a result is followed."""


@dataclass(frozen=True)
class Reach:
    """Follows values through one program. stores: the statements by which a cache itself keeps them."""

    program: Program
    stores: frozenset[ast.AST] = frozenset()

    def only_read(self, source: Source, function: Function, depth: int = FAR) -> None:
        """That no caller changes or keeps what the function gives. Raises Unproven."""
        if depth == 0:
            raise Unproven(function, f"what {function.name} gives goes too far to follow")
        for where, call in self._calls(source, function):
            self.reads(where, call, depth - 1)

    def unidentified(self, source: Source, function: Function) -> None:
        """That nobody compares by identity where the function's results are at hand. Raises Unproven."""
        for where, call in self._calls(source, function):
            around = where.within(call, (ast.FunctionDef, ast.AsyncFunctionDef)) or where.tree
            for node in ast.walk(around):
                if isinstance(node, ast.Compare) and any(
                    isinstance(operator, (ast.Is, ast.IsNot)) for operator in node.ops
                ):
                    sides = (node.left, *node.comparators)
                    if not any(isinstance(side, ast.Constant) for side in sides):
                        raise Unproven(node, f"{where.path} compares by identity near {function.name}")
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id":
                    raise Unproven(node, f"{where.path} asks for an identity near {function.name}")

    def _calls(self, source: Source, function: Function) -> Iterator[tuple[Source, ast.Call]]:
        """Every call of the function. Raises Unproven where it is passed on or reached by its name as text."""
        name = function.name
        for where, node in self.program.spoken(name):
            if not isinstance(where.parents.get(node), (ast.Expr, ast.List, ast.Tuple)):
                raise Unproven(node, f"{where.path} may reach {name} by its name")
        for other in self.program.sources.values():
            names = self._names(other, source, name)
            for node in other.nodes:
                if isinstance(node, ast.Attribute):
                    hit = node.attr == name
                else:
                    hit = (
                        isinstance(node, ast.Name)
                        and node.id in names
                        and isinstance(node.ctx, ast.Load)
                        and not is_local(other, node)
                    )
                if not hit:
                    continue
                parent = other.parents.get(node)
                if isinstance(parent, ast.Call) and parent.func is node:
                    yield other, parent
                elif isinstance(parent, ast.Attribute) and parent.attr in TELLS:
                    if not self._goes_nowhere(other, parent):
                        raise Unproven(node, f"{other.path} uses what {name}.{parent.attr} says")
                elif not (isinstance(parent, ast.Attribute) and parent.attr == "cache_clear"):
                    raise Unproven(node, f"{other.path} passes {name} on")

    def _goes_nowhere(self, source: Source, asked: ast.Attribute) -> bool:
        """Whether what a method gives is dropped, or written into a log and no further."""
        value: ast.AST | None = source.parents.get(asked)
        if not isinstance(value, ast.Call) or value.func is not asked:
            return False
        above = source.parents.get(value)
        if isinstance(above, ast.Attribute):  # such as .currsize
            value, above = above, source.parents.get(above)
        if isinstance(above, ast.FormattedValue):
            value = source.parents.get(above)
            above = source.parents.get(value) if value is not None else None
        if isinstance(above, ast.Call):
            return (
                value in above.args
                and isinstance(source.parents.get(above), ast.Expr)
                and isinstance(above.func, ast.Attribute)
                and above.func.attr in LOGS
                and self._is_logger(source, above.func.value)
            )
        return isinstance(above, ast.Expr)

    def _is_logger(self, source: Source, node: ast.AST) -> bool:
        """Whether a name is the module `logging`, or one of the file's for a logger of it."""
        root = node.id if isinstance(node, ast.Name) else ""
        around = source.within(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        while around is not None:
            for inner in ast.walk(around):
                bound = (
                    isinstance(inner, ast.Name) and inner.id == root and not isinstance(inner.ctx, ast.Load)
                )
                if bound or (isinstance(inner, ast.arg) and inner.arg == root):
                    return False
            around = source.within(around, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if self.program.origin(source, node) == "logging":
            return True
        binding = source.only(node.id) if isinstance(node, ast.Name) else None
        made = source.parents.get(binding) if isinstance(binding, ast.Name) else None
        called = (
            made.value.func if isinstance(made, ast.Assign) and isinstance(made.value, ast.Call) else None
        )
        return called is not None and self.program.origin(source, called) == "logging.getLogger"

    @staticmethod
    def _names(other: Source, source: Source, name: str) -> set[str]:
        if other is source:
            return {name}
        return {
            alias.asname or alias.name
            for node in other.nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name in (name, "*")
        }

    def reads(self, source: Source, value: ast.AST, depth: int = FAR) -> None:
        """That whoever gets the value of an expression only reads it. Raises Unproven."""
        parent = source.parents.get(value)
        if isinstance(parent, ast.Await):
            self.reads(source, parent, depth)
        elif isinstance(parent, ast.Return):
            function = source.within(parent, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.only_read(source, function, depth)
        elif isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            for target in targets:
                if parent not in self.stores or isinstance(target, ast.Name):
                    self.kept(source, target, depth)
            if isinstance(parent, ast.NamedExpr):
                self.reads(source, parent, depth)
        elif not (self._looks(source, value, parent) or self._takes(source, value, parent)):
            raise Unproven(value, f"{source.path} may change what it gets here")

    def kept_by_name(self, source: Source, part: ast.AST) -> None:
        """The same of a part of the statement that fills a cache: a name lives on after it. Raises Unproven."""
        if isinstance(part, ast.Name):
            self.kept(source, part)

    def kept(self, source: Source, target: ast.AST, depth: int = FAR) -> None:
        """That a function only reads what it has bound to a name. Raises Unproven."""
        if isinstance(target, ast.Tuple):
            return  # its parts, which are immutable
        function = source.within(target, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not isinstance(target, ast.Name) or function is None:
            raise Unproven(target, f"{source.path} keeps what it gets here")
        for node in ast.walk(function):
            if isinstance(node, (ast.Global, ast.Nonlocal)) and target.id in node.names:
                raise Unproven(node, f"{source.path} keeps what it gets in {target.id}")
            if isinstance(node, ast.Name) and node.id == target.id:
                if isinstance(source.parents.get(node), ast.AugAssign):
                    raise Unproven(node, f"{source.path} changes what it gets here")
                if isinstance(node.ctx, ast.Load):
                    if depth == 0:
                        raise Unproven(node, "the value goes too far to follow")
                    self.reads(source, node, depth - 1)

    def _looks(self, source: Source, value: ast.AST, parent: ast.AST | None) -> bool:
        """Syntax that only looks."""
        if isinstance(parent, ast.Subscript):
            return parent.value is value and isinstance(parent.ctx, ast.Load)
        if isinstance(parent, (ast.For, ast.comprehension)):
            return parent.iter is value
        if isinstance(parent, ast.Compare):
            return not any(isinstance(operator, (ast.Is, ast.IsNot)) for operator in parent.ops) or any(
                isinstance(side, ast.Constant) for side in (parent.left, *parent.comparators)
            )
        if isinstance(parent, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            return parent.test is value
        if isinstance(parent, ast.Attribute):
            call = source.parents.get(parent)
            asked = READING_METHODS | LISTING_METHODS | TELLING_METHODS | TEXT_METHODS
            return isinstance(call, ast.Call) and call.func is parent and parent.attr in asked
        return isinstance(parent, (ast.Expr, ast.BinOp, ast.UnaryOp, ast.FormattedValue, ast.Starred))

    def _takes(self, source: Source, value: ast.AST, parent: ast.AST | None) -> bool:
        """Calls that only look."""
        if not isinstance(parent, ast.Call) or value not in parent.args:
            return False
        if isinstance(parent.func, ast.Name) and source.builtin(parent.func.id):
            return parent.func.id in BUILTINS
        dotted = self.program.origin(source, parent.func)
        if dotted is not None:
            return dotted in PURE_FUNCTIONS or dotted.rpartition(".")[0] in PURE_MODULES
        return isinstance(parent.func, ast.Attribute) and parent.func.attr in TAKES
