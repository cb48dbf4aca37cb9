"""Shows that every argument of a function can be hashed, as a cache needs: by annotation or by its use."""

from __future__ import annotations

import ast

from qigheal.healing.strategies.caching import allowed
from qigheal.healing.strategies.caching.kinds import Unproven
from qigheal.healing.strategies.caching.sources import Module


def arguments(module: Module, function: ast.FunctionDef, numeric: bool) -> str:
    """ "text" when all arguments are text or truth values, "numbers" otherwise. Raises Unproven."""
    found = "text"
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        raise Unproven("it takes any number of arguments")
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.annotation is not None:
            kinds = _annotated(argument.annotation)
            if kinds is None:
                raise Unproven(f"its argument {argument.arg} may be something that cannot be hashed")
        elif numeric and _used_as_number(function, argument.arg) and not _knows_arrays(module):
            kinds = {"number"}
        else:
            raise Unproven(f"its argument {argument.arg} has no annotation that says it can be hashed")
        if "mixed" in kinds:
            raise Unproven(f"its argument {argument.arg} may be a tuple in which 1 and 1.0 are the same")
        if "number" in kinds:
            found = "numbers"
    return found


def _annotated(node: ast.expr) -> set[str] | None:
    """The kinds of plain values that an annotation allows; None when it allows others."""
    if isinstance(node, ast.Constant):
        if node.value is None:
            return {"text"}
        if isinstance(node.value, str):
            try:
                return _annotated(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return None
        return None
    if isinstance(node, ast.Name):
        return (
            {"text"}
            if node.id in ("str", "bytes", "bool")
            else ({"number"} if node.id == "float" else {"integer"} if node.id == "int" else None)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = _annotated(node.left), _annotated(node.right)
        return None if left is None or right is None else left | right
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Optional":
            return _annotated(inside[0])
        if node.value.id == "tuple":
            members = [i for i in inside if not (isinstance(i, ast.Constant) and i.value is Ellipsis)]
            kinds = [_annotated(member) for member in members]
            if any(kind is None for kind in kinds):
                return None
            together: set[str] = set().union(*(kind for kind in kinds if kind is not None))
            return together if together <= {"text"} or together <= {"integer"} else {"mixed"}
    return None


def _used_as_number(function: ast.FunctionDef, name: str) -> bool:
    """Whether arithmetic is done on the argument that only numbers allow, so that a list would fail there too."""

    def is_it(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == name

    for node in ast.walk(function):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Pow | ast.FloorDiv | ast.Mod):
            others = [node.right] if is_it(node.left) else [node.left] if is_it(node.right) else []
            if any(isinstance(other, ast.Constant) and type(other.value) in (int, float) for other in others):
                return True
        ranged = isinstance(node, ast.Call) and ast.unparse(node.func) == "range"
        if isinstance(node, ast.Call) and ranged and any(map(is_it, node.args)):
            return True
    return False


def _knows_arrays(module: Module) -> bool:
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
    }
    return bool(imported & allowed.ARRAYS)
