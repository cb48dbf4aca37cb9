"""Puts `lru_cache` in front of functions of a file: a line for each, and at most a line that imports it.

Formatting and comments survive, as LibCST keeps them. Nothing here knows whether a cache is right.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qigheal.errors import MissingExtra

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity import Function
    from qigheal.healing.strategies.caching.purity.sources import Module


def decorated(source: bytes, module: Module, sizes: Mapping[Function, int]) -> bytes | None:
    """The file with a cache of so many entries on each of `sizes`; None where no name is left for it.

    module: the same file, parsed. A function that is a static method is cached below its decorator.
    """
    cst = _libcst()
    name = _name(module, min(function.node.lineno for function in sizes))
    if name is None:
        return None
    tree = cst.parse_module(source)
    wanted = {(function.owner, function.name): size for function, size in sizes.items()}
    body = [_with_caches(cst, statement, "", name, wanted) for statement in tree.body]
    tree = tree.with_changes(body=body)
    if _given(module, name) is None:
        tree = _importing(cst, tree)
    return bytes(tree.bytes)


def _libcst() -> Any:
    try:
        import libcst
    except ImportError as missing:
        raise MissingExtra("libcst", "heal", "caching a function") from missing
    return libcst


def _name(module: Module, before: int) -> str | None:
    """What `lru_cache` is called where the file's first cached function stands; None when it cannot be had."""
    for statement in module.tree.body:
        if statement.lineno >= before or not isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        for alias in statement.names:
            bound = alias.asname or alias.name
            if len(module.bound.get(bound, ())) != 1:
                continue
            if isinstance(statement, ast.ImportFrom) and _is_functools(statement):
                if alias.name == "lru_cache":
                    return bound
            elif isinstance(statement, ast.Import) and alias.name == "functools":
                return f"{bound}.lru_cache"
    return None if module.starred or "lru_cache" in module.every_name else "lru_cache"


def _is_functools(statement: ast.ImportFrom) -> bool:
    return statement.module == "functools" and not statement.level


def _given(module: Module, name: str) -> ast.stmt | None:
    """The import that brings `name` already."""
    first = name.partition(".")[0]
    return next(iter(module.bound.get(first, ())), None)  # type: ignore[return-value]


def _with_caches(cst: Any, node: Any, owner: str, name: str, wanted: Mapping[tuple[str, str], int]) -> Any:
    """A statement, with a decorator on the functions of it that are wanted."""
    if isinstance(node, cst.ClassDef) and not owner and any(key[0] == node.name.value for key in wanted):
        inner = [_with_caches(cst, statement, node.name.value, name, wanted) for statement in node.body.body]
        return node.with_changes(body=node.body.with_changes(body=inner))
    if not isinstance(node, cst.FunctionDef) or (owner, node.name.value) not in wanted:
        return node
    size = wanted[owner, node.name.value]
    decorator = cst.Decorator(cst.parse_expression(f"{name}(maxsize={size}, typed=True)"))
    if node.decorators:
        return node.with_changes(decorators=(*node.decorators, decorator))
    return node.with_changes(decorators=(decorator,))


def _importing(cst: Any, tree: Any) -> Any:
    """`from functools import lru_cache`, after the docstring and what must stand before all else."""
    for number, statement in enumerate(tree.body):
        names = _names_from_functools(cst, statement)
        if names is not None:
            return _replaced(tree, number, names)
    start = _after_head(cst, tree)
    block = _import_block(cst, tree, start)
    line = cst.parse_statement("from functools import lru_cache")
    body = list(tree.body)
    if block:
        place = start + sum(_stands_before(cst, statement) for statement in block)
        if place < len(body) and place == start:
            first = body[place]
            line = line.with_changes(leading_lines=_blank(first.leading_lines))
            body[place] = first.with_changes(leading_lines=first.leading_lines[len(line.leading_lines) :])
        return tree.with_changes(body=[*body[:place], line, *body[place:]])
    if start < len(body):
        first = body[start]
        line = line.with_changes(leading_lines=_blank(first.leading_lines) if start else ())
        wanted = 2 if isinstance(first, (cst.FunctionDef, cst.ClassDef)) else 1
        missing = [cst.EmptyLine(indent=False)] * max(0, wanted - len(_blank(first.leading_lines)))
        body[start] = first.with_changes(leading_lines=[*missing, *first.leading_lines])
    return tree.with_changes(body=[*body[:start], line, *body[start:]])


def _blank(lines: Sequence[Any]) -> list[Any]:
    """The empty lines that lines begin with."""
    found = []
    for line in lines:
        if line.comment is not None:
            break
        found.append(line)
    return found


def _replaced(tree: Any, number: int, statement: Any) -> Any:
    return tree.with_changes(body=[*tree.body[:number], statement, *tree.body[number + 1 :]])


def _names_from_functools(cst: Any, statement: Any) -> Any | None:
    """A one-line `from functools import …` with `lru_cache` in it as well."""
    if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
        return None
    imported = statement.body[0]
    if (
        not isinstance(imported, cst.ImportFrom)
        or imported.relative
        or imported.lpar is not None
        or isinstance(imported.names, cst.ImportStar)
        or not isinstance(imported.module, cst.Name)
        or imported.module.value != "functools"
    ):
        return None
    names = [cst.ImportAlias(cst.Name("lru_cache")), *imported.names]
    names = sorted(names, key=lambda alias: alias.name.value)
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    names = [alias.with_changes(comma=comma) for alias in names[:-1]] + [
        names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    ]
    return statement.with_changes(body=[imported.with_changes(names=names)])


def _after_head(cst: Any, tree: Any) -> int:
    """How many statements come first: a docstring, and imports from `__future__`."""
    start = 0
    if tree.get_docstring() is not None:
        start = 1
    for number, statement in enumerate(tree.body):
        if isinstance(statement, cst.SimpleStatementLine) and any(
            isinstance(inner, cst.ImportFrom)
            and isinstance(inner.module, cst.Name)
            and inner.module.value == "__future__"
            for inner in statement.body
        ):
            start = number + 1
    return start


def _import_block(cst: Any, tree: Any, start: int) -> list[Any]:
    """The imports from `start` on, up to the first empty line or other statement."""
    found: list[Any] = []
    for statement in tree.body[start:]:
        imports = isinstance(statement, cst.SimpleStatementLine) and all(
            isinstance(inner, (cst.Import, cst.ImportFrom)) for inner in statement.body
        )
        if not imports or (found and statement.leading_lines):
            break
        found.append(statement)
    return found


def _stands_before(cst: Any, statement: Any) -> bool:
    """Whether an import of a first block is sorted before one from functools."""
    imported = statement.body[0]
    if isinstance(imported, cst.Import):
        return _top(cst, imported.names[0].name) in sys.stdlib_module_names
    if imported.relative or imported.module is None:
        return False
    top = _top(cst, imported.module)
    return top in sys.stdlib_module_names and top < "functools"


def _top(cst: Any, dotted: Any) -> str:
    while isinstance(dotted, cst.Attribute):
        dotted = dotted.value
    return str(dotted.value)
