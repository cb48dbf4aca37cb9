"""Looks through a function and all that it calls, until nothing new is found, or something is that may not be.

Every call of a function counts as one, and every value that a name has in it too: what is proven so is
proven for each. Nothing that lasts and may be changed is reached: arguments and defaults are immutable, and
module names are, or stand for containers that everybody only reads. So whatever is changed was made in the
same call, and nobody else can see it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from qigheal.healing.strategies.caching.purity.containers import ITEMS, KEYS, Heap
from qigheal.healing.strategies.caching.purity.expressions import value
from qigheal.healing.strategies.caching.purity.operators import binary
from qigheal.healing.strategies.caching.purity.patterns import is_irrefutable
from qigheal.healing.strategies.caching.purity.readers import Shape, check_readers
from qigheal.healing.strategies.caching.purity.records import Fields
from qigheal.healing.strategies.caching.purity.scopes import locals_of
from qigheal.healing.strategies.caching.purity.sources import Constant, Function, Host, Module
from qigheal.healing.strategies.caching.purity.statements import run
from qigheal.healing.strategies.caching.purity.values import (
    DEEPEST,
    IMMUTABLE,
    NOTHING,
    Unprovable,
    Value,
    is_immutable,
    of,
)

PASSES: Final = 60
"""Rounds until it must have settled; it does in a few."""

Key = tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """Where names are looked up: a function's scope or one within it."""

    module: Module
    key: Key
    names: frozenset[str]
    outer: Frame | None = None

    def scope_of(self, name: str) -> Key | None:
        """The scope that a name is local to, None for one of the module or a builtin."""
        if name in self.names:
            return self.key
        return None if self.outer is None else self.outer.scope_of(name)

    def inside(self, node: ast.AST, names: Set[str]) -> Frame:
        return Frame(self.module, (*self.key, id(node)), frozenset(names), self)

    def at(self, node: ast.AST) -> str:
        return f"{self.module.path}:{getattr(node, 'lineno', 0)}"


class Look:
    """What has been found so far. Everything is looked at over and over, and what is known only grows."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.heap = Heap()
        self.reached: dict[Function, Frame] = {}
        self.records: dict[str, Fields] = {}
        self.used: set[str] = set()  # functions of the library, by their full names
        self._within: dict[tuple[Key, str], Function] = {}
        self._around: dict[Function, Frame] = {}
        self._names: dict[tuple[Key, str], Value] = {}
        self._returned: dict[Function, Value] = {}
        self._constants: dict[int, Value | None] = {}
        self._unknown = ""
        self._read: set[tuple[int, Shape]] = set()

    def through(self, function: Function, arguments: Mapping[str, Value]) -> Value:
        """What the function may return. Raises Unprovable when it, or what it calls, is not proven pure."""
        self.enter(function, function.shown, [], arguments)
        for _ in range(PASSES):
            self.heap.grown = False
            self._constants.clear()  # what a function gives may have become more
            self._unknown = ""
            for reached, frame in list(self.reached.items()):
                run(self, frame, reached, reached.node.body)
            if not self.heap.grown:
                if self._unknown:
                    raise Unprovable(self._unknown)
                return self._returned[function]
        raise Unprovable(f"{function.shown}: its values do not settle")

    # Functions and names

    def enter(
        self,
        function: Function,
        at: str,
        positional: Sequence[tuple[Value, bool]],
        keywords: Mapping[str, Value],
    ) -> Value:
        """A call of a function of the host: it will be looked through. A value with True is starred."""
        if function not in self.reached:
            _check_shape(function)
            names = locals_of(function.node)
            around = self._around.get(function)
            self.reached[function] = Frame(function.module, (id(function.node),), names, around)
            self._returned[function] = NOTHING
            self.heap.grown = True
            if _may_end_without_return(function.node):
                self.returns(function, of("none"))
        frame, node = self.reached[function], function.node
        ordered = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        defaults: dict[str, ast.expr] = dict(
            zip(ordered[len(ordered) - len(node.args.defaults) :], node.args.defaults, strict=True)
        )
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if default is not None:
                defaults[argument.arg] = default
        starred = [self.heap.elements(given) for given, star in positional if star]
        for name, default in defaults.items():
            around = frame.outer  # a function within another gets its defaults anew in each call
            given = self.lasting(function.module, default) if around is None else self.value(around, default)
            self.bind(frame, name, given)
        for name, given in keywords.items():
            self.bind(frame, name, given)
        if starred:
            for name in ordered:
                for given in (*starred, *(given for given, star in positional if not star)):
                    self.bind(frame, name, given)
        else:
            for name, (given, _) in zip(ordered, positional, strict=False):
                self.bind(frame, name, given)
        return self._returned[function]

    def bind(self, frame: Frame, name: str, value: Value) -> None:
        key = frame.scope_of(name)
        if key is None:
            return  # an argument that the function does not take: the call raises TypeError
        before = self._names.get((key, name), NOTHING)
        after = before | value
        if after != before:
            self._names[key, name] = after
            self.heap.grown = True

    def define(self, frame: Frame, node: ast.FunctionDef) -> None:
        """A function is defined within another one's call."""
        if (frame.key, node.name) not in self._within:
            function = Function(frame.module, node)
            self._within[frame.key, node.name] = function
            self._around[function] = frame
            self.heap.grown = True

    def within(self, frame: Frame, node: ast.expr) -> Function | None:
        """The function that a name stands for which is defined within another one."""
        key = frame.scope_of(node.id) if isinstance(node, ast.Name) else None
        return self._within.get((key, node.id)) if key is not None and isinstance(node, ast.Name) else None

    def outside(self, module: Module) -> Frame:
        """The scope of a module itself."""
        return Frame(module, (id(module),), frozenset())

    def lasting(self, module: Module, node: ast.expr) -> Value:
        """The value of an expression that is evaluated once for all calls: it must be immutable."""
        found = self._evaluated(module, node)
        if not is_immutable(found):
            raise Unprovable(f"{module.path}:{node.lineno}: a value that lasts and may be changed")
        return found

    def constant(self, constant: Constant) -> Value:
        """The value of a module's name: immutable, or a container that is only read by all who name it."""
        found = self._evaluated(constant.module, constant.value)
        if not is_immutable(found):
            shape = self._shape(constant, found)
            if (id(constant.value), shape) not in self._read:
                check_readers(self.host, constant, shape)
                self._read.add((id(constant.value), shape))
            return self.heap.kept(found, constant.value)
        return found

    def _evaluated(self, module: Module, node: ast.expr) -> Value:
        known = self._constants.get(id(node), NOTHING)
        if known is None:
            raise Unprovable(f"{module.path}:{node.lineno}: a value that is made of itself")
        if known == NOTHING:
            self._constants[id(node)] = None
            known = self.value(self.outside(module), node)
            if known == NOTHING:
                self._unknown = f"{module.path}:{node.lineno}: it is not known what this is"
            self._constants[id(node)] = known
        return known

    def _shape(self, constant: Constant, value: Value, depth: int = 0) -> Shape:
        """The kinds of a container and of those within it. Raises Unprovable where it holds anything else."""
        if depth > DEEPEST or not value.atoms <= IMMUTABLE:
            raise Unprovable(
                f"{constant.module.path}: {constant.name} lasts and may be changed: it holds more than values"
            )
        parts = [value.held] if value.held is not None else []
        for site in value.sites:
            parts += [self.heap.get(site, role) for role in (ITEMS, KEYS)]
        inner = None
        for part in parts:
            if not is_immutable(part):
                found = self._shape(constant, part, depth + 1)
                inner = found if inner is None else inner.with_(found)
        kinds = frozenset(site.kind for site in value.sites) | (value.atoms & {"tuple", "frozenset"})
        return Shape(kinds, inner)

    def known(self, key: Key, name: str) -> Value:
        """What a name of a scope may be, as far as has been seen."""
        return self._names.get((key, name), NOTHING)

    def returns(self, function: Function, value: Value) -> None:
        """A function may return this."""
        before = self._returned[function]
        if before | value != before:
            self._returned[function] = before | value
            self.heap.grown = True

    def value(self, frame: Frame, node: ast.expr) -> Value:
        """What an expression may be worth. Raises Unprovable for one that is not followed."""
        return value(self, frame, node)

    def added(self, node: ast.expr, left: Value, right: Value) -> Value:
        """The value of left + right, where it does not stand as an expression."""
        operation = ast.BinOp(node, ast.Add(), node)
        return binary(self.heap, f"line {node.lineno}", operation, left, right, site=node)


def _check_shape(function: Function) -> None:
    """Raises Unprovable for a function that is more than a plain one."""
    node = function.node
    at = f"{function.module.path}:{node.lineno}"
    decorators = [d.id if isinstance(d, ast.Name) else "" for d in node.decorator_list]
    rebound = function.module.starred or "staticmethod" in function.module.bound
    if decorators != (["staticmethod"] if function.owner else []) or rebound:
        raise Unprovable(f"{at}: {node.name} is decorated")
    if node.args.vararg or node.args.kwarg:
        raise Unprovable(f"{at}: {node.name} takes any number of arguments")
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal)):
            raise Unprovable(f"{at}: {type(inner).__name__} in {node.name}")


def _may_end_without_return(node: ast.FunctionDef) -> bool:
    return not _always_leaves(node.body)


def _always_leaves(statements: Sequence[ast.stmt]) -> bool:
    match statements[-1] if statements else None:
        case ast.Return() | ast.Raise():
            return True
        case ast.If(body=body, orelse=orelse):
            return _always_leaves(body) and _always_leaves(orelse)
        case ast.While(test=ast.Constant(value=True)) as loop:
            return not any(isinstance(inner, ast.Break) for inner in ast.walk(loop))
        case ast.Match(cases=cases):
            return is_irrefutable(cases[-1]) and all(_always_leaves(case.body) for case in cases)
    return False
