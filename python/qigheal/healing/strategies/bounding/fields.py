"""Fields of dataclasses: whether nothing that the decorator adds ever looks at one.

The decorator makes methods that print, compare and take in every field, and libraries turn such objects into
data. None of this can happen where an object never goes anywhere: each one is made in plain sight, and is used
for nothing but to reach its attributes. What is done with the field itself is proven elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.strategies.bounding.repeatable import Unproven

FLAGS = frozenset(("init", "repr", "compare", "hash", "kw_only"))
APART = frozenset(("ClassVar", "KW_ONLY"))
"""Annotations at a class's top that make no argument."""

LEAVE = frozenset(("property", "staticmethod"))
"""Decorators of methods that do not get at the object."""


def is_dataclass(program: Program, source: Source, holder: ast.ClassDef) -> bool:
    """Whether `dataclass`, with constants for arguments, is all that makes a class."""
    if len(holder.decorator_list) != 1 or holder.keywords:
        return False
    [decorator] = holder.decorator_list
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    constant = not isinstance(decorator, ast.Call) or (
        not decorator.args and all(isinstance(one.value, ast.Constant) for one in decorator.keywords)
    )
    return constant and program.origin(source, called) == "dataclasses.dataclass"


def is_empty_field(program: Program, source: Source, value: ast.AST | None) -> bool:
    """Whether an expression is `field(default_factory=list)`, or `dict`."""
    if not isinstance(value, ast.Call) or value.args:
        return False
    given = {one.arg: one.value for one in value.keywords}
    made = given.pop("default_factory", None)
    return (
        isinstance(made, ast.Name)
        and made.id in ("list", "dict")
        and source.builtin(made.id)
        and all(name in FLAGS and isinstance(flag, ast.Constant) for name, flag in given.items())
        and program.origin(source, value.func) == "dataclasses.field"
    )


def stay_home(program: Program, source: Source, holder: ast.ClassDef, name: str) -> None:
    """That the objects of a dataclass are only asked for their attributes, and none is given a value for the
    field `name`. Raises Unproven."""
    _Objects(program, source, holder, name).proven()


class _Objects:
    def __init__(self, program: Program, source: Source, holder: ast.ClassDef, name: str) -> None:
        self.program, self.source, self.holder, self.name = program, source, holder, name
        self.methods = {one.name: one for one in holder.body if isinstance(one, Function)}

    def proven(self) -> None:
        self._unnamed()
        self._inside()
        for where, node in self._references():
            if self._annotates(where, node):
                continue
            call = where.parents.get(node)
            if not isinstance(call, ast.Call) or call.func is not node:
                raise Unproven(node, f"{where.path} passes {self.holder.name} on")
            self._gives_nothing(where, call)
            self._asked(where, call)

    def _unnamed(self) -> None:
        """That nobody reaches the class without writing its name."""
        name = self.holder.name
        if self.source.only(name) is not self.holder:
            raise Unproven(self.holder, f"{name} is no class that can be told apart")
        for where, node in self.program.spoken(name):
            if not isinstance(where.parents.get(node), (ast.Expr, ast.List, ast.Tuple)):
                raise Unproven(node, f"{where.path} may reach {name} by its name")
        if other := self.program.unreadable(name) or self.program.mentioned(name):
            raise Unproven(self.holder, f"{other} may name {name}")

    def _inside(self) -> None:
        """That its methods use their object for nothing but its attributes."""
        for method in self.methods.values():
            decorators = {ast.unparse(one) for one in method.decorator_list}
            if method.name == "__init__" or decorators - LEAVE:
                raise Unproven(method, f"{method.name} may make or keep objects of {self.holder.name}")
            arguments = [*method.args.posonlyargs, *method.args.args]
            me = arguments[0].arg if arguments and "staticmethod" not in decorators else ""
            for node in ast.walk(method):
                if isinstance(node, ast.Name) and node.id in ("super", "__class__"):
                    raise Unproven(node, f"{method.name} may reach what {self.holder.name} is made of")
                if isinstance(node, ast.Name) and node.id == me:
                    self._asked_by(self.source, node)

    def _references(self) -> Iterator[tuple[Source, ast.AST]]:
        name = self.holder.name
        for where in self.program.sources.values():
            names = {name} if where is self.source else set[str]()
            for node in where.nodes:
                if isinstance(node, (ast.ImportFrom, ast.Import)):
                    names |= {one.asname or name for one in node.names if one.name in (name, "*")}
            for node in where.nodes:
                if (isinstance(node, ast.Name) and node.id in names) or (
                    isinstance(node, ast.Attribute) and node.attr == name
                ):
                    yield where, node

    def _gives_nothing(self, where: Source, call: ast.Call) -> None:
        """That an object is made without a value for the field."""
        place = self._place()
        starred = any(isinstance(one, ast.Starred) for one in call.args)
        named = {one.arg for one in call.keywords}
        if starred or len(call.args) > place or named & {None, self.name}:
            raise Unproven(call, f"{where.path} may give {self.name} to {self.holder.name}")

    def _place(self) -> int:
        """How many arguments an object may be made with before one is the field; rather too few than too many."""
        renamed = any(
            one.rpartition(".")[2] in APART and one.rpartition(".")[2] != name
            for name, meant in self.source.imports.items()
            for one in meant
        )
        place = 0
        for one in self.holder.body:
            if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == self.name:
                return place
            if isinstance(one, ast.AnnAssign) and not renamed and not isinstance(one.value, ast.Call):
                place += not any(word in ast.unparse(one.annotation) for word in APART)
        return 0

    def _asked(self, where: Source, value: ast.AST) -> None:
        """That an object is kept under names only which are asked for its attributes, or is not kept."""
        parent = where.parents.get(value)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)) and parent.value is value:
            for target in parent.targets if isinstance(parent, ast.Assign) else [parent.target]:
                self._kept(where, target)
        elif not isinstance(parent, ast.Expr):
            self._asked_by(where, value)

    def _kept(self, where: Source, target: ast.expr) -> None:
        """The same of all that goes by a name: a function's own, or a module's or an attribute's anywhere."""
        function = where.within(target, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(target, ast.Name) and isinstance(function, Function):
            if any(
                isinstance(one, (ast.Global, ast.Nonlocal)) and target.id in one.names for one in where.nodes
            ):
                raise Unproven(target, f"{where.path} shares {target.id}")
            self._names(where, ast.walk(function), target.id)
        elif isinstance(target, (ast.Name, ast.Attribute)):
            name = target.id if isinstance(target, ast.Name) else target.attr
            if isinstance(where.scope(target), ast.ClassDef):
                raise Unproven(target, f"{where.path} keeps one in a class")
            for other in self.program.sources.values():
                if isinstance(target, ast.Name) and (other is where or self._takes(other, name)):
                    self._names(other, other.nodes, name)
                for node in other.nodes:
                    if (
                        isinstance(node, ast.Attribute)
                        and node.attr == name
                        and isinstance(node.ctx, ast.Load)
                    ):
                        self._asked_by(other, node)
            for other, node in self.program.spoken(name):
                if isinstance(other.parents.get(node), ast.Call):
                    raise Unproven(node, f"{other.path} may reach {name} by its name")
        else:
            raise Unproven(target, f"{where.path} keeps one where it cannot be followed")

    @staticmethod
    def _takes(where: Source, name: str) -> bool:
        """Whether a file imports a name from another."""
        for node in where.nodes:
            for one in node.names if isinstance(node, ast.ImportFrom) else ():
                if one.name == name and one.asname not in (None, name):
                    raise Unproven(node, f"{where.path} calls {name} something else")
                if one.name in (name, "*"):
                    return True
        return False

    def _names(self, where: Source, nodes: Iterable[ast.AST], name: str) -> None:
        for node in nodes:
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                self._asked_by(where, node)

    def _asked_by(self, where: Source, value: ast.AST) -> None:
        """That an expression is an object whose attribute is used here, a method called."""
        asked = where.parents.get(value)
        if not isinstance(asked, ast.Attribute) or asked.attr.startswith("__"):
            raise Unproven(
                value, f"{where.path} does more with a {self.holder.name} than to ask for an attribute"
            )
        call = where.parents.get(asked)
        method = self.methods.get(asked.attr)
        plain = method is None or any(ast.unparse(one) == "property" for one in method.decorator_list)
        if not plain and not (isinstance(call, ast.Call) and call.func is asked):
            raise Unproven(value, f"{where.path} passes {asked.attr} of a {self.holder.name} on")

    def _annotates(self, where: Source, node: ast.AST) -> bool:
        """Whether a name stands in an annotation that no decorator acts on; an argument of such is only asked."""
        inner, outer = node, where.parents.get(node)
        while outer is not None and not isinstance(outer, ast.stmt):
            if isinstance(outer, ast.arg):
                function = where.within(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
                if not isinstance(function, Function) or function.decorator_list:
                    return False
                self._names(where, ast.walk(function), outer.arg)
                return True
            inner, outer = outer, where.parents.get(outer)
        if isinstance(outer, Function):
            return outer.returns is inner and not outer.decorator_list
        if isinstance(outer, ast.AnnAssign):
            return outer.annotation is inner and not isinstance(where.scope(outer), ast.ClassDef)
        return False
