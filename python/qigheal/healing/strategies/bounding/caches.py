"""Caches that `functools` makes, as the host's source has them: which one holds a function's results without
a bound, and what to write there instead.

Whichever way the host imports or renames `functools`. Whether a result may be dropped is proven elsewhere.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.strategies.bounding.repeatable import Unproven

CACHE, LRU_CACHE = "functools.cache", "functools.lru_cache"


@dataclass(frozen=True, eq=False)
class Unbounded:
    """A cached function, and the expression to replace: a whole decorator, or the `None` in one.

    before: what goes in front of the bound, "" or such as "lru_cache(maxsize="; after: what follows it.
    unused, needed: names of `functools` whose import in the file may go, and must be there.
    """

    source: Source
    function: Function
    node: ast.expr
    before: str = ""
    after: str = ""
    unused: str = ""
    needed: str = ""

    def written(self, most: int) -> str:
        return f"{self.before}{most}{self.after}"


def unbounded(program: Program, file: str, qualname: str) -> Unbounded:
    """The cache of a function. Raises Unproven where it has a bound, or is none that can be told."""
    source = program.sources.get(file)
    function = source.find(qualname) if source is not None else None
    if source is None or not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise Unproven(None, f"{file} defines no {qualname} that can be told apart")
    if isinstance(function, ast.AsyncFunctionDef):
        raise Unproven(function, f"{qualname} gives a coroutine, which can be awaited once")
    found: list[Unbounded] = []
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        origin = program.origin(source, called)
        if origin == CACHE and decorator is called:
            found.append(_cache(program, source, function, decorator))
        elif origin == LRU_CACHE and isinstance(decorator, ast.Call):
            found.append(Unbounded(source, function, _maxsize(decorator)))
        elif not (isinstance(called, ast.Name) and called.id in ("staticmethod", "classmethod")):
            raise Unproven(decorator, f"{qualname} is decorated by something unknown")
    if len(found) != 1:
        raise Unproven(function, f"expected one cache of {qualname}, found {len(found)}")
    return found[0]


def _maxsize(call: ast.Call) -> ast.expr:
    """The `None` that leaves a cache without a bound."""
    sizes = [keyword.value for keyword in call.keywords if keyword.arg == "maxsize"] + call.args[:1]
    if len(sizes) == 1 and isinstance(sizes[0], ast.Constant) and sizes[0].value is None:
        return sizes[0]
    raise Unproven(call, "its size is bounded, or cannot be told")


def _cache(program: Program, source: Source, function: Function, decorator: ast.expr) -> Unbounded:
    """How the file can name `lru_cache`: as it already does, through `functools`, or by a new import."""
    spelled = ast.unparse(decorator)
    if isinstance(decorator, ast.Attribute) and program.origin(source, decorator.value) == "functools":
        lru = f"{ast.unparse(decorator.value)}.lru_cache"
        return Unbounded(source, function, decorator, f"{lru}(maxsize=", ")")
    names = [name for name in source.bound if program.origin(source, ast.Name(name, ast.Load())) == LRU_CACHE]
    unused = spelled if spelled == "cache" else ""
    if names:
        return Unbounded(source, function, decorator, f"{min(names)}(maxsize=", ")", unused)
    if not source.builtin("lru_cache"):
        raise Unproven(decorator, "lru_cache is something else in this file")
    return Unbounded(source, function, decorator, "lru_cache(maxsize=", ")", unused, "lru_cache")
