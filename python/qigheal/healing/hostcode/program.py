"""The host's Python code as a whole: what each file binds, and who names what.

Read from a folder and parsed, never imported or run. What is proven with it rests on names alone, so a
file that cannot be parsed counts as one that may name anything. Nothing here knows what is to be healed.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qigcore.regular import read_regular

OTHER_CODE = (".pyi", ".pyx", ".pxd", ".ipynb", ".pth")
"""Endings of files that are not parsed here and may hold code that names something."""

LONGEST = 2_000_000
"""Bytes of a file that is still read."""

REFLECTS = re.compile(
    r"(set|get|del|has)attr|__(set|del|get)attr(ibute)?__|globals|locals|vars|eval|exec|getmembers\w*|asdict|astuple"
    r"|deepcopy|copy|dump|dumps|Pickler|open|encode"
)
"""Functions by which names may be reached that are not written; which of them do is told elsewhere."""

PASSED = frozenset(("setattr", "delattr", "getattr", "globals", "vars", "eval", "exec"))
"""Those that are as dangerous when they are passed on."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.Lambda | ast.ClassDef | ast.Module


@dataclass(frozen=True, eq=False)
class Source:
    """One parsed file."""

    path: str
    text: str
    tree: ast.Module

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {inner: outer for outer in ast.walk(self.tree) for inner in ast.iter_child_nodes(outer)}

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @cached_property
    def bound(self) -> dict[str, list[ast.AST]]:
        """What binds each name of the module itself: imports, definitions, assignments, loops."""
        found: dict[str, list[ast.AST]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Global):
                for name in node.names:
                    found.setdefault(name, []).append(node)
            elif self.scope(node) is self.tree:
                for name in _binds(node):
                    found.setdefault(name, []).append(node)
        return found

    @cached_property
    def starred(self) -> bool:
        """Whether an `import *` may bind any name of the file."""
        return any(
            isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
            for node in self.nodes
        )

    def builtin(self, name: str) -> bool:
        """Whether a name that is a builtin's is nothing else in the module's own scope."""
        return not self.starred and not self.bound.get(name)

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """What each name may be imported as anywhere in the file, functions included: dotted names."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    found.setdefault(name, set()).add(above + alias.name)
        return found

    def scope(self, node: ast.AST) -> Scope:
        """The function, class or module whose names a statement binds."""
        while (node := self.parents.get(node, self.tree)) is not self.tree:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
                return node
        return self.tree

    def within(self, node: ast.AST, kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> ast.AST | None:
        """The nearest node of a kind around another."""
        above: ast.AST | None = self.parents.get(node)
        while above is not None and not isinstance(above, kind):
            above = self.parents.get(above)
        return above

    def only(self, name: str) -> ast.AST | None:
        """What binds a name of the module, when a single thing does."""
        found = self.bound.get(name, [])
        return found[0] if len(found) == 1 else None

    def find(self, qualname: str) -> ast.AST | None:
        """The function or class of a qualified name, when there is one such."""
        body: list[ast.stmt] = self.tree.body
        node: ast.AST | None = None
        for part in qualname.split("."):
            inside = [
                found
                for found in body
                if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and found.name == part
            ]
            if len(inside) != 1:
                return None
            node = inside[0]
            body = node.body
        return node


def _binds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
        yield node.id
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


class Program:
    """Every source file of a tree."""

    def __init__(self, folder: Path) -> None:
        self.sources: dict[str, Source] = {}
        self.unread: dict[str, str] = {}  # texts of code that could not be parsed
        self._others: dict[str, Path] = {}  # templates, settings and whatever else is no Python
        for place, folders, names in os.walk(folder):
            folders[:] = sorted(set(folders) - {".git"})
            for name in sorted(names):
                file = Path(place, name)
                if name.endswith((".py", *OTHER_CODE)):
                    self._add(file, file.relative_to(folder).as_posix())
                elif file.is_file() and not file.is_symlink():
                    self._others[file.relative_to(folder).as_posix()] = file

    @cached_property
    def stores(self) -> dict[str, list[tuple[Source, ast.Attribute]]]:
        """Where an attribute is set or deleted, by its name."""
        found: dict[str, list[tuple[Source, ast.Attribute]]] = {}
        for source in self.sources.values():
            for node in source.nodes:
                if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    found.setdefault(node.attr, []).append((source, node))
        return found

    @cached_property
    def reflective(self) -> list[tuple[Source, ast.AST]]:
        """What may reach names that are not written: calls of such functions, and an object's own names."""
        found: list[tuple[Source, ast.AST]] = []
        for source in self.sources.values():
            for node in source.nodes:
                if isinstance(node, ast.Attribute) and node.attr in ("__dict__", "__globals__"):
                    found.append((source, node))
                elif isinstance(node, ast.Name) and node.id in PASSED:
                    above = source.parents.get(node)
                    if not (isinstance(above, ast.Call) and above.func is node):
                        found.append((source, node))
                elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                    called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                    names = [called, *(one.rpartition(".")[2] for one in source.imports.get(called, ()))]
                    if any(map(REFLECTS.fullmatch, names)):
                        found.append((source, node))
        return found

    def mentioned(self, name: str) -> str:
        """A file that is no Python and names an attribute so, as a template does, or an empty string."""
        word = re.compile(rf"[.:]{re.escape(name)}\b".encode())
        for path, file in self._others.items():
            if file.stat().st_size <= LONGEST and word.search(file.read_bytes()):
                return path
        return ""

    def _add(self, file: Path, path: str) -> None:
        if not file.is_file():  # a link to nowhere or to a device holds no code
            return
        content = read_regular(file, LONGEST + 1)
        text = content[:LONGEST].decode("utf-8-sig", "replace")
        if path.endswith(".py") and len(content) <= LONGEST:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.sources[path] = Source(path, text, ast.parse(text))
                return
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                pass
        self.unread[path] = text

    def module(self, dotted: str) -> Source | None:
        """The file of a module, when one file alone can be it."""
        stem = dotted.replace(".", "/")
        ends = (f"/{stem}.py", f"/{stem}/__init__.py")
        found = [source for path, source in self.sources.items() if f"/{path}".endswith(ends)]
        return found[0] if len(found) == 1 else None

    def imported(self, source: Source, node: ast.ImportFrom) -> str:
        """The dotted name of the module that an import is from, as far from the root as can be told."""
        if not node.level:
            return node.module or ""
        parts = source.path.removesuffix(".py").split("/")
        above = parts[: len(parts) - node.level]
        return ".".join([*above, *((node.module or "").split(".") if node.module else [])])

    def origin(self, source: Source, expression: ast.AST, depth: int = 8) -> str | None:
        """The dotted name that a name or attribute stands for, such as "functools.lru_cache".

        Followed through imports, aliases and other files of the host. None for what is no import.
        """
        if depth == 0:
            return None
        if isinstance(expression, ast.Attribute):
            above = self.origin(source, expression.value, depth - 1)
            return None if above is None else self._through(above, expression.attr, depth)
        binding = source.only(expression.id) if isinstance(expression, ast.Name) else None
        if isinstance(binding, (ast.Import, ast.ImportFrom)) and isinstance(expression, ast.Name):
            for alias in binding.names:
                if (alias.asname or alias.name.partition(".")[0]) != expression.id:
                    continue
                if isinstance(binding, ast.ImportFrom):
                    return self._through(self.imported(source, binding), alias.name, depth)
                return alias.name if alias.asname else expression.id
        assigned = source.parents.get(binding) if isinstance(binding, ast.Name) else None
        if isinstance(assigned, ast.Assign) and isinstance(assigned.value, (ast.Name, ast.Attribute)):
            return self.origin(source, assigned.value, depth - 1)
        return None

    def _through(self, module: str, name: str, depth: int) -> str:
        """What a module's name stands for: another module's, when the module is the host's and passes it on."""
        inner = self.module(module)
        found = inner and self.origin(inner, ast.Name(name, ast.Load()), depth - 1)
        return found or f"{module}.{name}"

    def defined(self, source: Source, expression: ast.AST) -> tuple[Source, ast.AST] | None:
        """The function or class of the host that a name or a module's attribute stands for."""
        if isinstance(expression, ast.Name):
            binding = source.only(expression.id)
            if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                return source, binding
        dotted = self.origin(source, expression)
        if dotted is None:
            return None
        above, _, name = dotted.rpartition(".")
        inner = self.module(above)
        binding = inner.only(name) if inner is not None else None
        if inner is not None and isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return inner, binding
        return None

    def spoken(self, name: str) -> Iterator[tuple[Source, ast.AST]]:
        """Where a name may be reached by text: as a string of its own or the end of a dotted one."""
        reached = re.compile(rf"(.*[.:/])?{re.escape(name)}")
        for source in self.sources.values():
            for node in source.nodes:
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and reached.fullmatch(node.value.strip())
                ):
                    yield source, node

    def templated(self, name: str) -> Iterator[ast.AST]:
        """Texts in the code, docstrings aside, that name an attribute as a template or a format does."""
        word = re.compile(rf"[.]{re.escape(name)}\b")
        for source in self.sources.values():
            for node in source.nodes:
                text = node.value if isinstance(node, ast.Constant) else None
                told = isinstance(source.parents.get(node), ast.Expr)
                if isinstance(text, str) and word.search(text) and not told:
                    yield node

    def unreadable(self, name: str) -> str:
        """A file that could not be parsed and has the name in its text, or an empty string."""
        word = re.compile(rf"\b{re.escape(name)}\b")
        return next((path for path, text in self.unread.items() if word.search(text)), "")
