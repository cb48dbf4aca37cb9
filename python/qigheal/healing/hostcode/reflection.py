"""Where a program reads or sets what it does not name: `setattr` with a name worked out, `vars`, pickling.

A proof that rests on names ends where one of these may reach the name. An object's own `self` is told
apart, since it cannot be a module or an object of another class; of everything else the worst is assumed.
Nothing is known here of what is to be proven.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from qigheal.healing.hostcode.program import Program, Source

OWN_NAMES = frozenset(("globals", "locals", "vars", "eval", "exec"))
"""What reaches the names of the file that calls it."""

SETTERS = frozenset(("setattr", "delattr", "__setattr__", "__delattr__"))
GETTERS = frozenset(("getattr", "hasattr", "__getattribute__"))
NAMESPACES = frozenset(("vars", "getmembers", "getmembers_static"))
"""Give all that an object or module holds."""

WHOLE = frozenset(("asdict", "astuple", "deepcopy"))
"""Go through all that an object holds."""

COPIERS = frozenset(
    ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "jsonpickle", "shelve", "copy")
)
"""Modules whose functions do."""


def sets(program: Program, source: Source, name: str, holder: ast.ClassDef | None = None) -> str:
    """How a name of a module, or an attribute of the class `holder`, may be set from elsewhere, "" if in no way
    that can be seen. The statement `holder.name = …` in a method is none of it."""
    if holder is None and (found := program.stores.get(name)):
        return f"{found[0][0].path} sets an attribute {name}"
    if other := program.unreadable(name):
        return f"{other} may set {name} and cannot be read"
    for where, node in program.spoken(name):
        if not isinstance(where.parents.get(node), (ast.Expr, ast.List, ast.Tuple)):
            return f"{where.path} may reach {name} by its name"
    return unnamed(program, source, name, holder)


def unnamed(program: Program, source: Source, name: str, holder: ast.ClassDef | None = None) -> str:
    """The same of what sets it without having its name in plain sight."""
    for where, node, reached in _reflective(program, source, holder, SETTERS):
        if reached in SETTERS or reached in NAMESPACES or reached in OWN_NAMES | {"__dict__", "__globals__"}:
            return f"{where.path}:{getattr(node, 'lineno', 0)} may set {name}: it uses {reached}"
    return ""


def reads(program: Program, source: Source, name: str, holder: ast.ClassDef | None = None) -> str:
    """How a container may be read by what does not name it, "" if in no way that can be seen."""
    for where, node, reached in _reflective(program, source, holder, GETTERS):
        if holder is not None or reached not in WHOLE | COPIERS:
            return f"{where.path}:{getattr(node, 'lineno', 0)} may read {name}: it uses {reached}"
    return ""


def _reflective(
    program: Program, source: Source, holder: ast.ClassDef | None, named: frozenset[str]
) -> Iterator[tuple[Source, ast.AST, str]]:
    """What may reach the names of a file, or of a class's objects, and what it is called."""
    for where, node in program.reflective:
        if isinstance(node, ast.Attribute):
            if node.attr == "__globals__" or not _is_self(where, node.value, holder):
                yield where, node, node.attr
            continue
        if isinstance(node, ast.Name):
            yield where, node, node.id  # passed on, to be called elsewhere
            continue
        if not isinstance(node, ast.Call):
            continue
        called, origin = _called(where, node.func)
        on = node.args[0] if node.args else None
        if called in OWN_NAMES and (on is None or called in ("eval", "exec")):
            if where is source and isinstance(node.func, ast.Name):
                yield where, node, called
        elif called in named:
            asked = (
                node.args[-1]
                if called == "__getattribute__"
                else (node.args[1] if len(node.args) > 1 else None)
            )
            if not isinstance(asked, ast.Constant) and not (on is not None and _is_self(where, on, holder)):
                yield where, node, called
        elif (called in NAMESPACES | WHOLE or origin in COPIERS) and not (
            on is not None and _is_self(where, on, holder)
        ):
            yield where, node, called if called in NAMESPACES | WHOLE else origin


def _called(source: Source, function: ast.expr) -> tuple[str, str]:
    """A function's own name, and the module among `COPIERS` that it may be from, or an empty string."""
    name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
    root = function.value if isinstance(function, ast.Attribute) else function
    meant = source.imports.get(root.id, set()) if isinstance(root, ast.Name) else set()
    if isinstance(function, ast.Name) and meant:
        name = min(meant).rpartition(".")[2]
    return name, next((top for one in sorted(meant) if (top := one.partition(".")[0]) in COPIERS), "")


def _is_self(source: Source, value: ast.AST, holder: ast.ClassDef | None) -> bool:
    """Whether an expression is the object of a method of a class that has nothing to do with `holder`."""
    if not isinstance(value, ast.Name):
        return False
    method = source.within(value, (ast.FunctionDef, ast.AsyncFunctionDef))
    above = source.scope(method) if method is not None else None
    if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) or not isinstance(above, ast.ClassDef):
        return False
    arguments = [*method.args.posonlyargs, *method.args.args]
    if not arguments or arguments[0].arg != value.id or method.decorator_list:
        return False
    return holder is None or (above is not holder and not above.bases)
