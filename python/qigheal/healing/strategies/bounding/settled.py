"""What of a host's program stands still: constants, attributes set once, methods that nobody replaces.

Every proof here looks at the whole program, since any file may assign to a name of another.
"""

from __future__ import annotations

import ast

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.hostcode.reflection import sets
from qigheal.healing.strategies.bounding.known import PLAIN
from qigheal.healing.strategies.bounding.tables import only_read


def constant(program: Program, source: Source, name: ast.Name) -> bool:
    """Whether a name of a module stands for one value all along: an immutable one, or a table that is only read."""
    if not source.bound.get(name.id) and name.id in ("True", "False", "None", "__name__"):
        return True
    if source.starred:
        return False
    binding = source.only(name.id)
    if isinstance(binding, ast.ImportFrom):
        for alias in binding.names:
            inner = program.module(program.imported(source, binding))
            if (alias.asname or alias.name) == name.id and inner is not None:
                return constant(program, inner, ast.copy_location(ast.Name(alias.name), name))
    statement = source.parents.get(binding) if isinstance(binding, ast.Name) else None
    value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
    if value is None or sets(program, source, name.id):
        return False
    return _immutable(program, source, value) or (
        _flat(program, source, value) and only_read(program, source, name.id)
    )


def _flat(program: Program, source: Source, value: ast.expr) -> bool:
    """A dict, list or set that is written out, of immutable values."""
    if isinstance(value, ast.Dict):
        return all(key is not None and _immutable(program, source, key) for key in value.keys) and all(
            _immutable(program, source, held) for held in value.values
        )
    return isinstance(value, (ast.List, ast.Set)) and all(
        _immutable(program, source, part) for part in value.elts
    )


def _immutable(program: Program, source: Source, value: ast.AST) -> bool:
    if isinstance(value, ast.Constant):
        return True
    if isinstance(value, ast.Tuple):
        return all(_immutable(program, source, part) for part in value.elts)
    if isinstance(value, ast.UnaryOp):
        return _immutable(program, source, value.operand)
    if isinstance(value, ast.BinOp):
        return _immutable(program, source, value.left) and _immutable(program, source, value.right)
    if isinstance(value, ast.Name):
        return constant(program, source, value)
    return False


def settled(program: Program, source: Source, holder: ast.ClassDef, attribute: str) -> bool:
    """Whether an attribute holds one immutable value for as long as its object lives: set where the object is
    made or in the class, and nowhere in the program again."""
    stores = program.stores.get(attribute, [])
    if any(True for _ in program.spoken(attribute)) or sets(program, source, attribute, holder):
        return False
    in_class = [
        statement.value
        for statement in holder.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and attribute in _targets(statement)
    ]
    if not stores:
        if holder.decorator_list and (said := _said(holder, attribute)):
            return all(one in PLAIN - {"tuple", "frozenset"} for one in said)
        value = in_class[0] if len(in_class) == 1 else None
        return value is not None and _immutable(program, source, value)
    if len(stores) != 1 or in_class:
        return False
    other, node = stores[0]
    method = other.within(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    statement = other.parents.get(node)
    return (
        isinstance(method, ast.FunctionDef)
        and method.name == "__init__"
        and other.scope(method) is holder
        and isinstance(statement, (ast.Assign, ast.AnnAssign))
        and statement.value is not None
        and _plain(program, source, method, statement.value)
    )


def _said(holder: ast.ClassDef, attribute: str) -> list[str]:
    """What the annotations of a field say, of which an object may be given another value."""
    return [
        ast.unparse(statement.annotation)
        for statement in holder.body
        if isinstance(statement, ast.AnnAssign) and attribute in _targets(statement)
    ]


def _targets(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _plain(program: Program, source: Source, method: ast.FunctionDef, value: ast.AST) -> bool:
    """A constant, an argument that is said to be a number or text, or what is made one on the spot."""
    if isinstance(value, ast.Call):
        return (
            isinstance(value.func, ast.Name)
            and value.func.id in PLAIN - {"tuple", "frozenset"}
            and source.builtin(value.func.id)
        )
    if isinstance(value, ast.Name):
        arguments = method.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg == value.id:
                return isinstance(argument.annotation, ast.Name) and argument.annotation.id in PLAIN
    return _immutable(program, source, value)


def own_method(program: Program, source: Source, holder: ast.ClassDef, name: str) -> Function | None:
    """The method that `self.name` is, unless a subclass or an assignment could have put another there."""
    found = [
        node
        for node in holder.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
    ]
    if len(found) != 1 or found[0].decorator_list or sets(program, source, name, holder):
        return None
    for other in program.sources.values():
        for node in other.nodes:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(part, (ast.Name, ast.Attribute))
                and (part.id if isinstance(part, ast.Name) else part.attr) == holder.name
                for base in node.bases
                for part in ast.walk(base)
            ):
                return None
            if isinstance(node, ast.Attribute) and node.attr == name and not isinstance(node.ctx, ast.Load):
                return None
    return found[0]
