"""Where the files of a host mention a name: as a name, an attribute, a keyword of a pattern or a text.

Names decide here, not what they stand for. Whoever needs to know what is meant has to take the worst.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from qigheal.healing.strategies.caching.purity.replacing import selves
from qigheal.healing.strategies.caching.purity.scopes import bindings

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.sources import Module

ASKING: Final = frozenset(
    ("getattr", "getattr_static", "attrgetter", "resolve_name", "import_string", "__getattribute__")
)
"""Calls that get an attribute named by a text."""

GIVING: Final = frozenset(
    ("getmembers", "getmembers_static", "getclosurevars", "__reduce__", "__reduce_ex__", "__closure__")
) | {"cell_contents", "locals"}
"""What gives objects that are not named at all."""

LOOKING_UP: Final = frozenset(("get", "pop", "setdefault"))
"""Methods whose argument is a key, not the name of an attribute."""

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Mentions:
    """An index of all files. `asked` says where an attribute is got whose name cannot be seen, "" if nowhere."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.parents: dict[int, ast.AST] = {}
        self.defined: set[str] = set()
        self.asked = ""
        self._named: dict[str, list[tuple[Module, ast.AST]]] = {}
        self._texts: dict[str, list[tuple[Module, ast.AST]]] = {}
        self._renamed: dict[str, set[str]] = {}
        self._imported: dict[tuple[str, str], set[str]] = {}
        modules = list(modules)
        stems = frozenset(
            part for module in modules for part in PurePosixPath(module.path).with_suffix("").parts
        )
        for module in modules:
            libraries = _libraries(module, stems)
            safe = {id(name) for name in selves(module.tree)}
            for parent in ast.walk(module.tree):
                for node in ast.iter_child_nodes(parent):
                    self.parents[id(node)] = parent
                if isinstance(parent, ast.Name) and parent.id in libraries:
                    safe.add(id(parent))
            for node in ast.walk(module.tree):
                self._note(module, node)
                if not self.asked and (reason := self._asks(node, safe)):
                    self.asked = f"{module.path}:{getattr(node, 'lineno', 0)}: {reason}"

    def of(self, module: Module, name: str) -> Iterator[tuple[Module, ast.AST]]:
        """Each node that may mean a name of a module, under whatever name it is imported."""
        names, waiting = {name}, [name]
        while waiting:
            new = self._renamed.get(waiting.pop(), set()) - names
            names |= new
            waiting += new
        for called in sorted(names):
            for where, node in self._named.get(called, ()):
                if not isinstance(node, ast.Name) or self._may_be(where, called, module, name, names):
                    yield where, node
        for called in sorted(names):
            yield from self._texts.get(called, ())

    def _may_be(self, where: Module, called: str, module: Module, name: str, names: set[str]) -> bool:
        """Whether a name of the file `where` may be the one that is looked for, or imported from there."""
        own = where is module and called == name
        return own or where.starred or bool(self._imported.get((where.path, called), set()) & names)

    def scope(self, node: ast.AST) -> ast.AST | None:
        """The function in whose body a node stands; None for one of a module or a class."""
        while not isinstance(node, (ast.Module, ast.ClassDef)):
            inner, node = node, self.parents[id(node)]
            if isinstance(node, FUNCTIONS):
                body = [node.body] if isinstance(node, ast.Lambda) else node.body
                if any(inner is part for part in body):
                    return node
        return None

    def _note(self, module: Module, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                self._named.setdefault(name, []).append((module, node))
            case ast.MatchClass(kwd_attrs=names):
                for name in names:
                    self._named.setdefault(name, []).append((module, node))
            case ast.ImportFrom(names=aliases):
                for alias in aliases:
                    bound = alias.asname or alias.name
                    self._imported.setdefault((module.path, bound), set()).add(alias.name)
                    if alias.asname:
                        self._renamed.setdefault(alias.name, set()).add(alias.asname)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self.defined.add(name)
            case ast.Constant(value=str() as text):
                for name in self._meant(node, text):
                    self._texts.setdefault(name, []).append((module, node))

    def _meant(self, node: ast.Constant, text: str) -> set[str]:
        """The names that a text may be the path of, or that an example in a docstring may use."""
        parent = self.parents[id(node)]
        if isinstance(parent, ast.Expr):
            words = text if ">>>" in text else ""
            return set("".join(c if c.isidentifier() or c.isdigit() else " " for c in words).split())
        if "{" in text:  # a format may get attributes
            return set(re.findall(r"\.(\w+)", text))
        parts = text.replace(":", ".").split(".")
        if not parts[-1].isidentifier():
            return set()
        if len(parts) > 1:
            return {parts[-1]}
        call = self.parents[id(parent)] if isinstance(parent, ast.keyword) else parent
        asks = isinstance(call, ast.Call) and not (
            isinstance(call.func, ast.Attribute) and call.func.attr in LOOKING_UP
        )
        return {text} if asks else set()

    def _asks(self, node: ast.AST, safe: set[int]) -> str:
        """Why a node may get something that it does not name; "" if it does not, or only of what is `safe`."""
        match node:
            case ast.ImportFrom(names=aliases):
                for alias in aliases:
                    if alias.asname and alias.name in ASKING | GIVING:
                        return f"{alias.name} under another name may reach it"
            case ast.Name(id="locals") if self.scope(node) is not None:
                return ""  # of a function's own
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in GIVING:
                return f"{name} may reach it"
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in ASKING:
                call = self.parents[id(node)]
                if not isinstance(call, ast.Call) or call.func is not node:
                    return f"{name} may reach it"
                given = call.args[1:2] if name.startswith("getattr") else call.args
                on = call.args[0] if call.args else None
                named = bool(given) and all(isinstance(argument, ast.Constant) for argument in given)
                if not (named or id(on) in safe) or call.keywords:
                    return f"{name} of a name that cannot be seen may reach it"
        return ""


def _libraries(module: Module, own: frozenset[str]) -> frozenset[str]:
    """Names that stand for modules of the standard library wherever a file uses them."""
    found: dict[str, bool] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                foreign = top in sys.stdlib_module_names - own
                found[alias.asname or top] = found.get(alias.asname or top, True) and foreign
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Import):
            for name in [node.arg] if isinstance(node, ast.arg) else bindings(node):
                found[name] = False
    return frozenset(name for name, foreign in found.items() if foreign)
