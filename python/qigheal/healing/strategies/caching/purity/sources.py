"""The host's Python files as a prover needs them: what a module's names are bound to, and by whom else.

Only text is read; nothing of the host is imported. Where two files could be meant, none is.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from qigheal.healing.strategies.caching.purity.mentions import Mentions
from qigheal.healing.strategies.caching.purity.replacing import replaced_in
from qigheal.healing.strategies.caching.purity.scopes import SCOPES, bindings, head, own
from qigheal.healing.strategies.caching.purity.values import Unprovable

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function of the host: `owner` is the class that it is a static method of, "" for none."""

    module: Module
    node: ast.FunctionDef
    owner: str = ""

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def shown(self) -> str:
        dotted = f"{self.owner}.{self.name}" if self.owner else self.name
        return f"{self.module.path}:{dotted}"

    def __hash__(self) -> int:
        return id(self.node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and other.node is self.node


@dataclass(frozen=True)
class Library:
    """Something outside the host, by its full name: "math.sqrt"."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A module's name that is bound once, to an expression."""

    module: Module
    value: ast.expr
    name: str


@dataclass(frozen=True)
class Class:
    """A class of the host, bound once."""

    module: Module
    node: ast.ClassDef


@dataclass(eq=False)
class Module:
    """One file. `bound` has the statements at its top in which a name is bound, one for each time."""

    path: str
    tree: ast.Module
    bound: dict[str, list[ast.AST]] = field(default_factory=dict)
    starred: bool = False

    @classmethod
    def parse(cls, path: str, source: bytes) -> Module:
        """Raises Unprovable for a file that cannot be read as Python."""
        try:
            module = cls(path, ast.parse(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Unprovable(f"{path} cannot be read as Python: {error}") from error
        for statement in module.tree.body:
            inner = head(statement) if isinstance(statement, SCOPES) else own(statement)
            for node in (statement, *inner):
                for name in bindings(node):
                    module.bound.setdefault(name, []).append(statement)
                module.starred |= isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Global):
                for name in node.names:
                    module.bound.setdefault(name, []).append(node)
        return module

    @cached_property
    def every_name(self) -> frozenset[str]:
        """Every identifier that is bound in any scope of the file."""
        inner = {name for node in ast.walk(self.tree) for name in bindings(node)}
        arguments = {node.arg for node in ast.walk(self.tree) if isinstance(node, ast.arg)}
        return frozenset(inner | arguments)

    def only(self, name: str) -> ast.AST:
        """The one statement in which `name` is bound. Raises Unprovable when there is another."""
        found = self.bound.get(name, [])
        if len(found) != 1:
            raise Unprovable(f"{self.path}: {name} is bound {len(found)} times")
        return found[0]


Named = Function | Library | Constant | Class | Module


class Host:
    """All Python files of a commit."""

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        """Raises Unprovable where nothing can be said of any name: code that is made at run time."""
        self.modules = {path: Module.parse(path, source) for path, source in sorted(sources.items())}
        self.replaced: set[str] = set()
        for module in self.modules.values():
            self.replaced |= replaced_in(module.path, module.tree)

    @cached_property
    def mentions(self) -> Mentions:
        """Where names are mentioned."""
        return Mentions(self.modules.values())

    def hides(self, library: str) -> bool:
        """Whether a file of the host may be imported in place of a module of the standard library."""
        names = (f"{library}.py", "__init__.py")
        return library in self.replaced or any(
            parts[-1] == names[0] or parts[-2:] == (library, names[1])
            for parts in (PurePosixPath(path).parts for path in self.modules)
        )

    def at(self, path: str, line: int) -> Function:
        """The function of a file that begins at `line`, decorators included. Raises Unprovable.

        It is a module's, or a static method of a plain class of a module.
        """
        module = self.modules.get(path)
        if module is None:
            raise Unprovable(f"{path} is no Python file of the commit")
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and _first_line(node) == line:
                return self._function(module, node.name)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and _first_line(inner) == line:
                        return self.static_method(Class(module, node), inner.name)
        raise Unprovable(f"{path}:{line}: neither a function of the module nor a static method begins here")

    def name(self, module: Module, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Named:
        """What a module's name stands for. Raises Unprovable when that is not certain."""
        if (module.path, name) in seen or len(seen) > 30:
            raise Unprovable(f"{module.path}: {name} is imported in a circle")
        seen |= {(module.path, name)}
        if module.starred:
            raise Unprovable(f"{module.path}: import * may bind {name}")
        if name in self.replaced:
            raise Unprovable(f"{module.path}: an attribute {name} is written to somewhere in the host")
        match node := module.only(name):
            case ast.FunctionDef():
                return self._function(module, name)
            case ast.ClassDef():
                return Class(module, node)
            case (
                ast.Assign(targets=[ast.Name()], value=value)
                | ast.AnnAssign(target=ast.Name(), value=ast.expr() as value)
            ):
                return Constant(module, value, name)
            case ast.Import():
                [alias] = [a for a in node.names if (a.asname or a.name.partition(".")[0]) == name]
                dotted = alias.name if alias.asname else name
                return self.imported(module, dotted) or self._library(dotted)
            case ast.ImportFrom():
                [alias] = [a for a in node.names if (a.asname or a.name) == name]
                return self._from(module, node, alias.name, seen)
        raise Unprovable(f"{module.path}: {name} is bound in a way that is not followed")

    def attribute(self, base: Named, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Named:
        """What `base.name` stands for. Raises Unprovable."""
        if name in self.replaced:
            raise Unprovable(f"an attribute {name} is written to somewhere in the host")
        if name.startswith("__"):
            raise Unprovable(f"an attribute {name} means something else within a class")
        match base:
            case Library():
                return Library(f"{base.name}.{name}")
            case Class():
                return self.static_method(base, name)
            case Module():
                if name in base.bound or base.starred:
                    return self.name(base, name, seen)
                if PurePosixPath(base.path).name == "__init__.py":
                    inner = self._file(str(PurePosixPath(base.path).parent / name))
                    if inner is not None:
                        return inner
        raise Unprovable(f"an attribute {name} is not followed")

    def static_method(self, of: Class, name: str) -> Function:
        """Raises Unprovable when a class has no such static method, or may bring another one."""
        node = of.node
        plain = not (node.decorator_list or node.keywords) and all(
            isinstance(base, ast.Name) and base.id == "object" for base in node.bases
        )
        if of.module.only(node.name) is not node or not plain or name in self.replaced:
            raise Unprovable(f"{of.module.path}: class {node.name} is not a plain one, bound once")
        found = [inner for inner in own(node) if name in bindings(inner)]
        match found:
            case [ast.FunctionDef() as method] if any(method is inner for inner in node.body):
                if any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in method.decorator_list):
                    return Function(of.module, method, node.name)
        raise Unprovable(f"{of.module.path}: {node.name}.{name} is no static method, or bound more than once")

    def _function(self, module: Module, name: str) -> Function:
        node = module.only(name)
        if module.starred or name in self.replaced or not isinstance(node, ast.FunctionDef):
            raise Unprovable(f"{module.path}: {name} may be bound to something else")
        return Function(module, node)

    def _from(
        self, module: Module, node: ast.ImportFrom, name: str, seen: frozenset[tuple[str, str]]
    ) -> Named:
        if not node.level:
            dotted = node.module or ""
            source = self.imported(module, dotted)
            return self._library(f"{dotted}.{name}") if source is None else self.attribute(source, name, seen)
        folder = PurePosixPath(module.path).parent
        for _ in range(node.level - 1):
            folder = folder.parent
        place = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
        source = self._file(str(place))
        if source is not None:
            return self.attribute(source, name, seen)
        if node.module is None and (inner := self._file(str(place / name))) is not None:
            return inner  # a package without __init__.py
        raise Unprovable(f"{module.path}:{node.lineno}: what is imported is not in the commit")

    def _library(self, dotted: str) -> Library:
        if self.replaced.intersection(dotted.split(".")):
            raise Unprovable(f"an attribute of {dotted} is written to somewhere in the host")
        return Library(dotted)

    def imported(self, module: Module, dotted: str) -> Module | None:
        """The host's module that `module` imports by an absolute name, None when it is not the host's.

        Raises Unprovable when that is not certain: of two, of one that is not below a folder that both
        are in, of one that is called like a module of the standard library.
        """
        tail = dotted.replace(".", "/")
        ends = (f"{tail}.py", f"{tail}/__init__.py")
        found = [path for path in self.modules if any(f"/{path}".endswith(f"/{end}") for end in ends)]
        if not found:
            return None
        root = next(found[0].removesuffix(end) for end in ends if f"/{found[0]}".endswith(f"/{end}"))
        shadowed = dotted.partition(".")[0] in sys.stdlib_module_names
        if len(found) > 1 or shadowed or not module.path.startswith(root):
            raise Unprovable(f"{module.path}: {dotted} may be {' or '.join(found[:3])}, or another module")
        return self.modules[found[0]]

    def _file(self, place: str) -> Module | None:
        found = [p for p in (f"{place}.py", f"{place}/__init__.py") if p in self.modules]
        if len(found) > 1:
            raise Unprovable(f"{place} is a file and a folder")
        return self.modules[found[0]] if found else None


def _first_line(node: FunctionNode) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
