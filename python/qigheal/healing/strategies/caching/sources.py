"""The host's Python files as a program: modules, what their names are bound to, and where calls lead.

Reads text alone and runs nothing. What cannot be followed with certainty is None.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True)
class Target:
    """Where a name leads: a module of the host, one of its definitions, or a name of another package.

    `outside` is a dotted name such as "math.sqrt" or "math".
    """

    module: Module | None = None
    node: ast.AST | None = None
    outside: str = ""


@dataclass
class Module:
    """One file: its dotted name, its syntax tree, and every binding of its module-level names."""

    path: str
    name: str
    tree: ast.Module
    program: Sources
    is_package: bool

    @cached_property
    def bindings(self) -> dict[str, list[ast.AST]]:
        """What binds each module-level name, wherever in the file: also `global` in functions, and `del`."""
        found: dict[str, list[ast.AST]] = defaultdict(list)
        for node in _in_scope(self.tree):
            for name in _bound(node):
                found[name].append(node)
        for function in ast.walk(self.tree):
            if isinstance(function, Function | ast.ClassDef):
                declared = {n for s in ast.walk(function) if isinstance(s, ast.Global) for n in s.names}
                for node in ast.walk(function) if declared else ():
                    for name in declared.intersection(_bound(node)):
                        found[name].append(node)
        return found

    def binding(self, name: str) -> ast.AST | None:
        """The one thing that binds a module-level name; None where there are none or several."""
        found = self.bindings.get(name, [])
        return found[0] if len(found) == 1 else None

    def lookup(self, name: str) -> Target | None:
        """Where a module-level name leads."""
        node = self.binding(name)
        if node is None:
            return None
        if isinstance(node, ast.Import):
            [alias] = [a for a in node.names if (a.asname or a.name.partition(".")[0]) == name]
            return self.program.named(alias.name if alias.asname else alias.name.partition(".")[0])
        if isinstance(node, ast.ImportFrom):
            [alias] = [a for a in node.names if (a.asname or a.name) == name]
            source = self._source(node)
            if source is None:
                return None
            return self.program.member(source, alias.name)
        return Target(module=self, node=node)

    def _source(self, node: ast.ImportFrom) -> str | None:
        if not node.level:
            return node.module
        parts = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        if node.level > len(parts) + (1 if self.is_package else 0):
            return None
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])]) or None


@dataclass
class Sources:
    """Every Python file of a tree that parses. `read` gives a file's text, or raises ValueError."""

    paths: frozenset[str]
    read: Callable[[str], str]
    _modules: dict[str, Module | None] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[str], read: Callable[[str], str]) -> Sources:
        """The program made of those of `paths` that are Python files."""
        return cls(frozenset(path for path in paths if path.endswith(".py")), read)

    def at(self, path: str) -> Module | None:
        """The module of a file; None where it is missing or no text that this Python can read."""
        if path not in self._modules:
            self._modules[path] = self._parse(path) if path in self.paths else None
        return self._modules[path]

    def module(self, name: str) -> Module | None:
        """The module of a dotted name, looked for at the root and below `src`."""
        stem = name.replace(".", "/")
        places = (f"{top}{stem}{end}" for top in ("", "src/") for end in (".py", "/__init__.py"))
        return next((found for place in places if (found := self.at(place)) is not None), None)

    def named(self, dotted: str) -> Target:
        """A module of the host, or else something of another package."""
        module = self.module(dotted)
        return Target(module=module) if module is not None else Target(outside=dotted)

    def member(self, module: str, name: str) -> Target | None:
        """What `from module import name` binds."""
        source = self.module(module)
        if source is None:
            if self.module(module.partition(".")[0]) is not None:
                submodule = self.module(f"{module}.{name}")
                return Target(module=submodule) if submodule is not None else None
            return Target(outside=f"{module}.{name}")
        if name in source.bindings:
            return source.lookup(name)
        submodule = self.module(f"{module}.{name}")
        return Target(module=submodule) if submodule is not None else None

    def attribute(self, target: Target, name: str) -> Target | None:
        """Where `target.name` leads, of modules alone."""
        if target.outside:
            return Target(outside=f"{target.outside}.{name}")
        if target.module is not None and target.node is None:
            return self.member(target.module.name, name)
        return None

    @cached_property
    def written_attributes(self) -> frozenset[str]:
        """Names of attributes that any file sets or deletes on something that is not `self`."""
        found = set()
        for path in sorted(self.paths):
            module = self.at(path)
            for node in ast.walk(module.tree) if module is not None and not _is_test(path) else ():
                if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                        found.add(node.attr)
                elif isinstance(node, ast.Call) and _called(node) in ("setattr", "delattr"):
                    known = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
                    found.add(str(node.args[1].value) if known else "*")  # type: ignore[attr-defined]
                elif isinstance(node, ast.Call) and _called(node) in ("globals", "vars"):
                    found.add("*")
        return frozenset(found)

    def _parse(self, path: str) -> Module | None:
        parts = path.removesuffix(".py").split("/")
        if parts[0] == "src" and len(parts) > 1 and "src/__init__.py" not in self.paths:
            parts = parts[1:]
        is_package = parts[-1] == "__init__"
        try:
            tree = ast.parse(self.read(path))
        except (SyntaxError, ValueError, RecursionError):
            return None
        return Module(path, ".".join(parts[:-1] if is_package else parts), tree, self, is_package)


def _in_scope(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs in the scope of `tree` itself."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, Scope):
            yield from _in_scope(node)


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that one node binds or unbinds."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name


def bound_in(scope: ast.AST) -> set[str]:
    """The names that are bound in a function's own scope, its arguments not among them."""
    return {name for node in _in_scope(scope) for name in _bound(node)}


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _is_test(path: str) -> bool:
    parts = path.split("/")
    return bool({"test", "tests"} & set(parts[:-1])) or parts[-1].startswith("test_")
