"""Who uses a list, dict or set that a module keeps: a proof may rest on it only where all do no more than read.

Looked at is every place of the host, tests and probe included, that mentions its name or one that an import
gives it. What it is given to, stored in, returned or yielded from could change it, and so could whoever asks
for an attribute by a name that cannot be seen. Inner lists and dicts are followed where they are taken out.
What it holds is not looked at here.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

from qigheal.healing.strategies.caching.purity.mentions import Mentions
from qigheal.healing.strategies.caching.purity.sources import Constant, Host, Module
from qigheal.healing.strategies.caching.purity.values import Unprovable

TELLING: Final = frozenset(("len", "bool", "str", "repr", "print", "isinstance", "any", "all"))
"""Builtins that give nothing of what they are given."""

GOING_THROUGH: Final = frozenset(
    ("sum", "min", "max", "sorted", "list", "tuple", "set", "frozenset", "dict", "enumerate", "zip")
) | {"reversed", "iter", "map", "filter"}
"""Builtins that give what it holds, and not the container."""

ALONE: Final = frozenset(("min", "max"))
FIRST: Final = frozenset(("sum",))
LATER: Final = frozenset(("map", "filter"))
"""Builtins that may give an argument itself, or call it, unless it stands alone, first, or not first."""

COUNTING: Final = frozenset(("count", "index", "keys", "isdisjoint", "issubset", "issuperset"))
COPYING: Final = frozenset(
    ("get", "values", "items", "copy", "union", "intersection", "difference", "symmetric_difference")
)
REFLECTED: Final = {
    ast.Add: "add",
    ast.Mult: "mul",
    ast.BitOr: "or",
    ast.BitAnd: "and",
    ast.BitXor: "xor",
    ast.Sub: "sub",
}
COMPARING: Final = frozenset(("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"))
"""Methods that get the other side itself: where the host defines one, an operator may hand the container on."""


@dataclass(frozen=True)
class Shape:
    """What kinds of container it is, and those that it holds; `inner` is None where it holds none."""

    kinds: frozenset[str]
    inner: Shape | None

    def with_(self, other: Shape) -> Shape:
        inner = self.inner or other.inner
        if self.inner is not None and other.inner is not None:
            inner = self.inner.with_(other.inner)
        return Shape(self.kinds | other.kinds, inner)


def check_readers(host: Host, constant: Constant, shape: Shape) -> None:
    """Raises Unprovable when a container may be changed after its module has made it."""
    name = f"{constant.module.path}: {constant.name}"
    mentions = host.mentions
    if mentions.asked:
        raise Unprovable(f"{name} lasts and may be changed: {mentions.asked}")
    readers = _Readers(host, name)
    for module, node in mentions.of(constant.module, constant.name):
        readers.check(module, node, shape)


class _Readers:
    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.mentions: Mentions = host.mentions
        self.name = name
        self.seen: set[tuple[int, Shape]] = set()

    def check(self, module: Module, node: ast.AST, shape: Shape) -> None:
        """Raises Unprovable unless the container that an expression gives is only read where it stands."""
        if (id(node), shape) in self.seen:
            return
        self.seen.add((id(node), shape))
        if isinstance(node, ast.Name | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            # A local name, since the module binds its own once; but += changes what it stood for.
            if isinstance(self.mentions.parents[id(node)], ast.AugAssign):
                raise self._changed(module, node)
            return
        spoken = isinstance(node, ast.Constant)  # a text by which it may be asked for
        if spoken or not self._is_read(module, node, self.mentions.parents[id(node)], shape):
            raise self._changed(module, node)

    def _changed(self, module: Module, node: ast.AST) -> Unprovable:
        line = getattr(node, "lineno", 0)
        return Unprovable(
            f"{self.name} lasts and may be changed: {module.path}:{line} does more than read it"
        )

    def _is_read(self, module: Module, node: ast.AST, parent: ast.AST, shape: Shape) -> bool:
        flat = shape.inner is None
        keys = flat or shape.kinds <= {"dict"}  # going through it gives nothing that can be changed
        match parent:
            case ast.Subscript(value=value, slice=index, ctx=ast.Load()) if value is node:
                return self._taken(module, parent, shape, whole=isinstance(index, ast.Slice))
            case ast.Attribute(value=value, attr=name) if value is node:
                return self._method(module, parent, name, shape)
            case ast.Call():
                return self._given(module, parent, node, shape, keys)
            case ast.For(iter=over) | ast.comprehension(iter=over) if over is node:
                return keys or self._aliased(module, parent, parent.target, shape.inner)
            case ast.Starred():
                return keys
            case ast.Dict(keys=names, values=values):
                return flat and any(
                    name is None and one is node for name, one in zip(names, values, strict=True)
                )
            case ast.keyword(arg=None):
                return flat
            case ast.Assign(targets=[ast.Name() as target]) | ast.AnnAssign(target=ast.Name() as target):
                return parent.value is node and self._aliased(module, parent, target, shape)
            case ast.Assign(targets=[ast.Tuple() | ast.List()]):
                return flat
            case ast.If(test=test) | ast.While(test=test) | ast.Assert(test=test):
                return test is node
            case ast.FormattedValue() | ast.Expr():
                return True
        return self._is_operated(module, node, parent, shape)

    def _is_operated(self, module: Module, node: ast.AST, parent: ast.AST, shape: Shape) -> bool:
        """Whether an operator only reads it. What may be the container itself is looked at in its turn."""
        flat = shape.inner is None
        match parent:
            case ast.UnaryOp(op=ast.Not()):
                return True
            case ast.Compare():
                return self._compared(parent, node, shape)
            case ast.BinOp(op=operation, left=left, right=right):
                other = right if left is node else left
                if isinstance(operation, ast.Mod):
                    return other is left and isinstance(left, ast.Constant)
                method = REFLECTED.get(type(operation))
                return flat and method is not None and f"__r{method}__" not in self.mentions.defined
            case ast.AugAssign(op=operation, value=value) if value is node:
                method = REFLECTED.get(type(operation))
                return (
                    flat
                    and method is not None
                    and not {f"__r{method}__", f"__i{method}__", f"__{method}__"} & self.mentions.defined
                )
            case ast.BoolOp():
                self.check(module, parent, shape)
                return True
            case ast.IfExp(test=test):
                if test is not node:
                    self.check(module, parent, shape)
                return True
        return False

    def _taken(self, module: Module, node: ast.AST, shape: Shape, whole: bool = False) -> bool:
        """Something of it is taken out: a part, or an element."""
        if shape.inner is not None:
            self.check(module, node, shape if whole else shape.inner)
        return True

    def _method(self, module: Module, node: ast.Attribute, name: str, shape: Shape) -> bool:
        call = self.mentions.parents[id(node)]
        if not isinstance(call, ast.Call) or call.func is not node:
            return False
        if name in COUNTING or (name in COPYING and shape.inner is None):
            return True
        if name == "get":
            return self._taken(module, call, shape)
        over = self.mentions.parents[id(call)]
        if (
            name not in ("values", "items")
            or not isinstance(over, ast.For | ast.comprehension)
            or over.iter is not call
        ):
            return False
        target: ast.expr | None = over.target
        if name == "items":
            target = target.elts[1] if isinstance(target, ast.Tuple) and len(target.elts) == 2 else None
        return target is not None and self._aliased(module, over, target, shape.inner)

    def _given(self, module: Module, call: ast.Call, node: ast.AST, shape: Shape, keys: bool) -> bool:
        """It is an argument of a call."""
        if not any(argument is node for argument in call.args):
            return False
        match call.func:
            case ast.Name(id=name) if not self._is_shadowed(module, name):
                first = call.args[0] is node
                returned = (name in ALONE and len(call.args) > 1) or (name in FIRST and not first)
                if returned or (name in LATER and first):
                    return False
                return name in TELLING or (
                    name in GOING_THROUGH and keys and (name != "dict" or shape.inner is None)
                )
            case ast.Attribute(value=ast.Constant(value=str()), attr="join"):
                return keys
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="pytest"), attr="mark"), attr="parametrize"
            ):
                return shape.inner is None and not self._is_shadowed(module, "pytest", imported=True)
        return False

    def _is_shadowed(self, module: Module, name: str, imported: bool = False) -> bool:
        """Whether a builtin's name, or that of a library, may stand for something of the host."""
        if imported:
            return self.host.hides(name) or any(
                not isinstance(b, ast.Import) for b in module.bound.get(name, [None])
            )
        return module.starred or name in module.every_name or name in self.host.replaced

    def _compared(self, node: ast.Compare, side: ast.AST, shape: Shape) -> bool:
        """Its own methods compare, unless the other side's do, which may be of the host."""
        if all(isinstance(operation, (ast.Is, ast.IsNot)) for operation in node.ops):
            return True
        foreign = not COMPARING & self.mentions.defined
        if all(isinstance(operation, (ast.In, ast.NotIn)) for operation in node.ops):
            return (
                node.left is not side
                and len(node.ops) == 1
                and (shape.inner is None or shape.kinds <= {"dict"} or foreign)
            )
        return foreign and not any(isinstance(operation, (ast.In, ast.NotIn)) for operation in node.ops)

    def _aliased(self, module: Module, at: ast.AST, target: ast.expr, shape: Shape | None) -> bool:
        """A name of a function or comprehension stands for it, or for one that it holds: that is followed."""
        if shape is None:
            return True
        inner = isinstance(at, ast.comprehension)
        scope = self.mentions.parents[id(at)] if inner else self.mentions.scope(at)
        if scope is None or not isinstance(target, ast.Name):
            return False
        for node in ast.walk(scope):
            if isinstance(node, (ast.Global, ast.Nonlocal)) and target.id in node.names:
                return False
            if isinstance(node, ast.Name) and node.id == target.id:
                self.check(module, node, shape)
        return True
