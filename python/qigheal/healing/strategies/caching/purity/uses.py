"""How a function is used: one that is only ever called can be wrapped without anybody noticing.

What is compared, pickled, listed in a table, passed on or asked for its attributes is a function, and the
wrapper of a cache is something else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from qigheal.healing.strategies.caching.purity.sources import Function, Host, Module
from qigheal.healing.strategies.caching.purity.values import Unprovable

UNHASHABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
MAKERS = frozenset(("list", "dict", "set", "sorted", "bytearray", "iter", "map", "filter", "zip"))
PLAIN = frozenset(("int", "float", "bool", "str", "bytes", "len", "ord", "repr"))
ARRAYS = frozenset(
    ("numpy", "pandas", "polars", "scipy", "xarray", "torch", "tensorflow", "jax", "cupy", "sympy", "mlx")
)
"""Libraries whose values have no hash, or are equal element by element."""


def check_uses(host: Host, function: Function) -> None:
    """Raises Unprovable when the function may be used in another way than by calling it with plain values."""
    name = function.name
    if name.startswith("__"):
        raise Unprovable(f"{function.shown}: the interpreter itself may call it")
    for module in host.modules.values():
        names, listed = _imports(module, name) | {name}, _listed(module)
        for node, parent in _pairs(module.tree):
            at = f"{module.path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and node.value == name and isinstance(parent, ast.Call):
                raise Unprovable(f"{at}: {name} may be asked for by name")
            if not _names(node, name, names):
                continue
            if isinstance(parent, ast.Call) and parent.func is node:
                if any(_is_unhashable(given, listed) for given in _given(parent)):
                    raise Unprovable(f"{at}: an argument that a cache cannot hold")
                _check_arrays(at, function, module, parent)
            elif not _elsewhere(function, module, node):
                raise Unprovable(f"{at}: {name} is used in another way than by calling it")
        _check_identities(module, names)


def _imports(module: Module, name: str) -> set[str]:
    """What a module calls it where it imports something of the function's name."""
    return {
        alias.asname or name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == name
    }


def _pairs(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            yield node, parent


def _names(node: ast.AST, name: str, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id in names
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr == name


def _elsewhere(function: Function, module: Module, node: ast.AST) -> bool:
    """Whether a name that looks like the function's is certainly something else."""
    if isinstance(node, ast.Name):
        own = module is function.module or module.starred
        return not own and node.id not in _imports(module, function.name)
    # An attribute of self is an object's own, unless the function is a class's.
    base = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(base, ast.Name) and base.id == "self" and not function.owner


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _is_unhashable(node: ast.expr, listed: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in listed
        case ast.Call(func=ast.Name(id=name)):
            return name in MAKERS
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return any(_is_unhashable(part, listed) for part in parts)
        case ast.IfExp(body=one, orelse=other):
            return _is_unhashable(one, listed) or _is_unhashable(other, listed)
        case ast.NamedExpr(value=inner):
            return _is_unhashable(inner, listed)
    return isinstance(node, UNHASHABLE)


def _listed(module: Module) -> set[str]:
    """Names that a file binds to a list, a dict or a set, in whatever scope."""
    found = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=targets, value=value) if _is_unhashable(value, set()):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case (
                ast.AnnAssign(target=ast.Name(id=name), annotation=kind) | ast.arg(arg=name, annotation=kind)
            ):
                outer = kind.value if isinstance(kind, ast.Subscript) else kind
                if isinstance(outer, ast.Name) and outer.id.lower() in MAKERS:
                    found.add(name)
    return found


def _check_arrays(at: str, function: Function, module: Module, call: ast.Call) -> None:
    """Where arrays are at hand, what a parameter without annotation is given must be seen to be none."""
    arguments = function.node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if all(argument.annotation is not None for argument in every) or not _has_arrays(module):
        return
    for given in _given(call):
        if not _is_plain(module, given):
            raise Unprovable(f"{at}: an argument that may be an array, which a cache cannot hold")


def _has_arrays(module: Module) -> bool:
    for node in ast.walk(module.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.partition(".")[0] in ARRAYS for name in names):
            return True
    return False


def _is_plain(module: Module, node: ast.expr) -> bool:
    match node:
        case ast.Constant() | ast.JoinedStr():
            return True
        case ast.UnaryOp(operand=inner):
            return _is_plain(module, inner)
        case ast.BinOp(left=left, right=right):
            return _is_plain(module, left) and _is_plain(module, right)
        case ast.Tuple(elts=elements):
            return all(_is_plain(module, element) for element in elements)
        case ast.Call(func=ast.Name(id=name)):
            return name in PLAIN and name not in module.every_name
    return False


def _check_identities(module: Module, names: set[str]) -> None:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Compare) or not any(isinstance(o, (ast.Is, ast.IsNot)) for o in node.ops):
            continue
        for side in (node.left, *node.comparators):
            called = side.func if isinstance(side, ast.Call) else None
            if (isinstance(called, ast.Name) and called.id in names) or (
                isinstance(called, ast.Attribute) and called.attr in names
            ):
                others = [s for s in (node.left, *node.comparators) if s is not side]
                if not all(isinstance(s, ast.Constant) and s.value is None for s in others):
                    raise Unprovable(f"{module.path}:{node.lineno}: the identity of a result is tested")
