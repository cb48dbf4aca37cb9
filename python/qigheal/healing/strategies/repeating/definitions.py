"""Which function of the host a dotted name means: follows imports through the host's own files.

What cannot be told for certain is not answered: a name that is bound twice, a star import, a value whose
class is not in plain sight. Reads sources only; nothing is imported or run, and no patch is known here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qigcore.regular import read_regular
from qigheal.healing.hostcode.program import LONGEST
from qigheal.healing.strategies.repeating.attributes import Attributes

PREFIXES = ("", "src/")
"""Where packages begin in a repository."""

HOPS = 8
"""Imports that are followed from one file to the next."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or method of the host."""

    path: str
    qualname: str
    node: Function
    decorators: tuple[str, ...]  # dotted, with their imports resolved

    @property
    def key(self) -> str:
        return f"{self.path}:{self.qualname}"

    @property
    def asynchronous(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)

    @property
    def generates(self) -> bool:
        """Whether calling it only makes a generator, whose errors come later."""
        return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own(self.node))


class Definitions:
    """The Python files below a folder, each parsed when it is asked about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, ast.Module | None] = {}
        self._globals: dict[str, frozenset[str]] = {}
        self._every_class: list[ast.ClassDef] | None = None

    @cached_property
    def attributes(self) -> Attributes:
        """What calls through attributes may call."""
        return Attributes(self._folder)

    def files(self) -> list[str]:
        """Paths of the Python files, in the order of their names."""
        found = (file.relative_to(self._folder).as_posix() for file in self._folder.rglob("*.py"))
        return sorted(path for path in found if "site-packages" not in path)

    def tree(self, path: str) -> ast.Module | None:
        """A file's syntax tree, None when there is no such file, or it is too long, or not Python."""
        if path not in self._trees:
            try:
                content = read_regular(self._folder / path, LONGEST + 1)
                self._trees[path] = ast.parse(content) if len(content) <= LONGEST else None
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                self._trees[path] = None
        return self._trees[path]

    def function(self, dotted: str) -> Definition | None:
        """The function or method that a dotted name means; None when it is not the host's, or not certain."""
        for _ in range(HOPS):
            path, rest = self._module(dotted.split("."))
            if not path or not rest:
                return None
            found = self._bound(path, rest[0])
            if isinstance(found, str):
                dotted = ".".join([found, *rest[1:]])
            elif isinstance(found, ast.ClassDef) and len(rest) == 2:
                method = _single(found.body, rest[1])
                return self._defined(path, ".".join(rest), method)
            elif len(rest) == 1:
                return self._defined(path, rest[0], found)
            else:
                return None
        return None

    def defines_class(self, dotted: str) -> bool:
        """Whether a dotted name is that of a class where it is defined, as errors are told by."""
        path, rest = self._module(dotted.split("."))
        tree = self.tree(path) if path else None
        return any(
            isinstance(node, ast.ClassDef) and node.name == rest[-1]
            for node in (ast.walk(tree) if tree is not None and rest else ())
        )

    def external(self, dotted: str) -> bool:
        """Whether a dotted name begins with a package that the host does not hold."""
        return not any(
            (self._folder / prefix / dotted.partition(".")[0]).with_suffix(suffix).exists()
            for prefix in PREFIXES
            for suffix in ("", ".py")
        )

    def absolute(self, path: str, name: str) -> str:
        """A name as it is imported in the file `path`, with leading dots resolved; "" above the top."""
        rest = name.lstrip(".")
        level = len(name) - len(rest)
        if level == 0:
            return name
        package = module_name(path).split(".")
        if not path.endswith("/__init__.py"):
            package = package[:-1]
        if level - 1 >= len(package):
            return ""
        return ".".join([*package[: len(package) - level + 1], rest])

    def overridden(self, path: str, name: str, method: str) -> bool:
        """Whether another class of the host may bring a method of its own in place of this class's."""
        classes = self._classes()
        heirs = {name}
        grown = True
        while grown:
            found = {c.name for c in classes if any(_last(base) in heirs for base in c.bases)}
            grown = not found <= heirs
            heirs |= found
        below = [c for c in classes if any(_last(base) in heirs for base in c.bases)]
        return any(_bindings(heir.body, method) for heir in below)

    def _classes(self) -> list[ast.ClassDef]:
        if self._every_class is None:
            trees = filter(None, map(self.tree, self.files()))
            self._every_class = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        return self._every_class

    def _set_in_functions(self, path: str, tree: ast.Module) -> frozenset[str]:
        """The names at a module's top that its functions may set."""
        if path not in self._globals:
            found = (node.names for node in ast.walk(tree) if isinstance(node, ast.Global))
            self._globals[path] = frozenset(name for names in found for name in names)
        return self._globals[path]

    def _defined(self, path: str, qualname: str, node: ast.AST | str | None) -> Definition | None:
        if not isinstance(node, Function):
            return None
        decorators = tuple(self.dotted(path, decorator) for decorator in node.decorator_list)
        return Definition(path, qualname, node, decorators)

    def dotted(self, path: str, node: ast.expr) -> str:
        """A decorator's or a class's name, written out by the file's imports."""
        text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
        first, _, rest = text.partition(".")
        found = self._bound(path, first)
        return ".".join(filter(None, (found, rest))) if isinstance(found, str) else text

    def _module(self, parts: list[str]) -> tuple[str, list[str]]:
        """The file of the longest module that a name begins with, and the rest of the name."""
        for length in range(len(parts), 0, -1):
            for prefix in PREFIXES:
                stem = prefix + "/".join(parts[:length])
                for path in (f"{stem}.py", f"{stem}/__init__.py"):
                    if (self._folder / path).is_file():
                        return path, parts[length:]
        return "", parts

    def _bound(self, path: str, name: str) -> ast.AST | str | None:
        """What a name means at a module's top: a definition, a dotted name elsewhere, or nothing certain."""
        tree = self.tree(path)
        if tree is None or name in self._set_in_functions(path, tree):
            return None
        found = _single(tree.body, name)
        if isinstance(found, (Function, ast.ClassDef)):
            return found
        if isinstance(found, ast.Import):
            [alias] = [a for a in found.names if (a.asname or a.name.partition(".")[0]) == name]
            return alias.name if alias.asname else name
        if isinstance(found, ast.ImportFrom):
            [alias] = [a for a in found.names if (a.asname or a.name) == name]
            source = "." * found.level + (found.module or "")
            separator = "." if found.module else ""
            return self.absolute(path, f"{source}{separator}{alias.name}")
        if isinstance(found, ast.Assign) and isinstance(found.value, ast.Call):
            # An object made in plain sight: its methods are those of its class.
            made = self.dotted(path, found.value)
            home, _, _ = made.rpartition(".")
            return made if home else f"{module_name(path)}.{made}"
        return None


def module_name(path: str) -> str:
    """A file's dotted name."""
    stem = path.removesuffix(".py").removesuffix("/__init__")
    for prefix in PREFIXES:
        if prefix and stem.startswith(prefix):
            stem = stem.removeprefix(prefix)
    return stem.replace("/", ".")


def own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions and classes inside it."""
    inside = [ast.iter_child_nodes(function)]  # no recursion: a sum of a thousand terms is as deep
    while inside:
        child = next(inside[-1], None)
        if child is None:
            inside.pop()
            continue
        yield child
        if not isinstance(child, (Function, ast.Lambda, ast.ClassDef)):
            inside.append(ast.iter_child_nodes(child))


def _single(body: list[ast.stmt], name: str) -> ast.AST | None:
    """The one statement that binds a name in a block; None when there is none, or another."""
    found = _bindings(body, name)
    return found[0] if len(found) == 1 else None


def _bindings(body: list[ast.stmt], name: str) -> list[ast.AST]:
    found: list[ast.AST] = []
    for statement in body:
        if isinstance(statement, (Function, ast.ClassDef)):
            found += [statement] * (statement.name == name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            bound = [a.asname or a.name.partition(".")[0] for a in statement.names]
            # A star import may bind anything.
            found += [statement] * (bound.count(name) + 2 * bound.count("*"))
        else:
            inner = [node for node in (statement, *own(statement)) if _binds(node, name)]
            found += [statement] * len(inner)
    return found


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, (Function, ast.ClassDef, ast.ExceptHandler)):
        return node.name == name
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((a.asname or a.name.partition(".")[0]) in (name, "*") for a in node.names)
    return False


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
