"""Whether anything in a host's program could change a table of a module: a dict, list or set that is only looked into.

The worst is assumed of whatever reaches names that are not written. What a table holds is told elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from qigheal.healing.hostcode.program import Program, Source

LOOKING = frozenset(("get", "keys", "values", "items", "index", "count"))
"""Methods of a dict, list or set that change nothing and hand on none of it that may be changed."""

COUNTING = frozenset(
    ("len", "sum", "min", "max", "any", "all", "sorted", "tuple", "list", "set", "frozenset")
)
"""Builtins that make something else of the one thing that they are given."""

PLAIN_WORDS = frozenset(("globals", "locals", "vars", "eval", "exec"))
"""Builtins with names that texts and methods bear too: those of text alone reach nothing."""

FETCHING = PLAIN_WORDS | frozenset(
    (
        *("getattr", "attrgetter", "builtins", "__builtins__", "__dict__", "__globals__"),
        *("__getattribute__", "__getattr__", "__getstate__", "__reduce__", "__reduce_ex__"),
        *("getmembers", "getmembers_static", "getattr_static", "getclosurevars", "get_field", "resolve_name"),
        *("import_string", "f_globals", "f_locals", "f_builtins", "run_path", "run_module"),
        *("get_objects", "get_referents", "get_referrers"),
    )
)
"""Reach what a module holds under a name that is not written."""


def only_read(program: Program, source: Source, name: str) -> bool:
    """Whether a table of a module is looked into by its own file alone, and never handed on or fetched by a name
    that is worked out: nobody can change it."""
    if any(True for _ in program.spoken(name)) or any(True for _ in program.templated(name)):
        return False
    if program.mentioned(name) or any(map(program.unreadable, FETCHING)):
        return False
    if any(_fetches(other, node, name) for other in program.sources.values() for node in other.nodes):
        return False
    return all(
        isinstance(node.ctx, ast.Load) and _looks(source, node)
        for node in source.nodes
        if isinstance(node, ast.Name) and node.id == name and not _binds_only(source, node)
    )


def _binds_only(source: Source, name: ast.Name) -> bool:
    """Whether a name is bound without what it stood for being touched, as `|=` does in a class."""
    return isinstance(name.ctx, ast.Store) and not isinstance(source.parents[name], ast.AugAssign)


def _fetches(source: Source, node: ast.AST, name: str) -> bool:
    """Whether another file may get hold of the table here, or anything by a name that is not written."""
    if isinstance(node, ast.Attribute):
        # A view of a dict has the dict itself in `mapping`.
        return node.attr in (name, "mapping") or node.attr in FETCHING - {"eval", "exec"}
    if isinstance(node, ast.MatchClass):
        return bool({name, "mapping", *FETCHING}.intersection(node.kwd_attrs))
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        named = {part for one in _imported(node) for part in one.split(".")}
        return bool(named & ({name, "*"} | FETCHING))
    if isinstance(node, ast.Constant):
        return node.value == "mapping" or node.value in FETCHING - PLAIN_WORDS
    return isinstance(node, ast.Name) and node.id in FETCHING and not _asks_by_text(source, node)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield node.module or ""
    for alias in node.names:
        yield alias.name


def _asks_by_text(source: Source, name: ast.Name) -> bool:
    """Whether a name is the `getattr` of a call whose attribute is written out. What it says is looked at itself."""
    call = source.parents[name]
    return (
        name.id == "getattr"
        and isinstance(call, ast.Call)
        and call.func is name
        and len(call.args) in (2, 3)
        and not call.keywords
        and not any(isinstance(given, ast.Starred) for given in call.args)
        and isinstance(call.args[1], ast.Constant)
    )


def _looks(source: Source, table: ast.Name) -> bool:
    """Whether what stands around a table's name only looks into it."""
    around = source.parents[table]
    if isinstance(around, ast.Subscript):
        return around.value is table and isinstance(around.ctx, ast.Load)
    if isinstance(around, ast.Compare):
        return around.comparators == [table] and isinstance(around.ops[0], (ast.In, ast.NotIn))
    if isinstance(around, ast.Attribute):
        call = source.parents[around]
        return around.attr in LOOKING and isinstance(call, ast.Call) and call.func is around
    if isinstance(around, ast.Call):
        called = around.func
        alone = around.args == [table] and not around.keywords
        return (
            alone and isinstance(called, ast.Name) and called.id in COUNTING and _is_builtin(source, called)
        )
    return isinstance(around, (ast.For, ast.comprehension)) and around.iter is table


def _is_builtin(source: Source, name: ast.Name) -> bool:
    """Whether neither the module nor a function around a name gives it a meaning of its own."""
    above = source.within(name, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef))
    while above is not None:
        for node in ast.walk(above):
            bound = (node.arg if isinstance(node, ast.arg) else getattr(node, "name", None)) == name.id
            stored = isinstance(node, ast.Name) and node.id == name.id and not isinstance(node.ctx, ast.Load)
            imported = isinstance(node, ast.alias) and name.id in (node.asname, node.name)
            if bound or stored or imported:
                return False
        above = source.within(above, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef))
    return source.builtin(name.id)
