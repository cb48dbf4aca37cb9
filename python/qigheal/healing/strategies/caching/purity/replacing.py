"""The attributes that a file of the host may bind from outside: a name that is one of them stands for anything.

Whatever object an attribute is written to, it may be a module. What a file hides on purpose, as a name put
together from parts, is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from qigheal.healing.strategies.caching.purity.values import Unprovable

UNREADABLE: Final = frozenset(("exec", "eval", "globals", "vars", "reload", "__import__", "__builtins__"))
"""Names with which a program may bind names that no reader sees."""

UNREADABLE_PARTS: Final = frozenset(
    ("__dict__", "__globals__", "__code__", "__defaults__", "__kwdefaults__", "f_globals", "f_locals")
) | {"exec_module", "load_module", "get_objects", "get_referrers", "get_referents"}
"""Attributes through which a module or a function is changed behind a reader's back."""

SETTING: Final = frozenset(("setattr", "delattr", "__setattr__", "__delattr__"))
PATCHING: Final = frozenset(("patch", "mock", "mocker"))
"""Calls that bind an attribute named by a string: the language's and pytest's, and those of unittest.mock."""

HIDDEN_BY_TEXT: Final = UNREADABLE_PARTS | {"__setattr__", "__delattr__"}
"""Attributes that may not be asked for by a text either."""


def replaced_in(path: str, tree: ast.Module) -> set[str]:
    """The names of the attributes. Raises Unprovable where nothing can be said of any name."""
    return _File(path, tree).replaced


class _File:
    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.replaced: set[str] = set()
        self.known = {
            "sys": _called(tree, "sys"),
            "builtins": _called(tree, "builtins"),
            "patching": PATCHING | _called(tree, *PATCHING),
        }
        self.own = frozenset(id(name) for name in selves(tree))
        self.functions = frozenset(id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
        for node in ast.walk(tree):
            self._look(node)

    def _hidden(self, node: ast.AST, what: str) -> Unprovable:
        return Unprovable(
            f"{self.path}:{getattr(node, 'lineno', 0)}: {what} may bind names that cannot be seen"
        )

    def _is(self, node: ast.expr, module: str) -> bool:
        return isinstance(node, ast.Name) and node.id in self.known[module]

    def _look(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name) if name in UNREADABLE:
                raise self._hidden(node, name)
            case ast.Name(id=name, ctx=ast.Load()) if name in SETTING and id(node) not in self.functions:
                raise self._hidden(node, name)
            case ast.Constant(value=str() as text) if HIDDEN_BY_TEXT.intersection(text.split(".")):
                raise self._hidden(node, text[:60])
            case ast.ImportFrom(module=source, names=names):
                for alias in names:
                    if alias.name in UNREADABLE | SETTING or (source, alias.name) == ("sys", "modules"):
                        raise self._hidden(node, f"{source}.{alias.name}")
            case ast.Attribute():
                self._attribute(node)
            case ast.Call():
                self._call(node)

    def _attribute(self, node: ast.Attribute) -> None:
        name, stored = node.attr, isinstance(node.ctx, (ast.Store, ast.Del))
        if (
            name in UNREADABLE_PARTS
            or name == "reload"
            or (name in UNREADABLE and self._is(node.value, "builtins"))
            or (name in SETTING and not stored and id(node) not in self.functions)
            or (name == "__class__" and stored)
        ):
            raise self._hidden(node, name)
        if name == "modules" and self._is(node.value, "sys"):
            raise Unprovable(f"{self.path}:{node.lineno}: sys.modules may be written to")
        if stored:
            self.replaced.add(name)

    def _call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id="getattr") if node.args and (
                self._is(node.args[0], "sys") or self._is(node.args[0], "builtins")
            ):
                raise self._hidden(node, "getattr")
            case ast.Name(id=called) | ast.Attribute(attr=called) if called in SETTING:
                self._replacing(node)
            case ast.Name() | ast.Attribute(attr="patch" | "object" | "multiple"):
                names = {name.id for name in ast.walk(node.func) if isinstance(name, ast.Name)}
                if names & self.known["patching"]:
                    self._replacing(node)

    def _replacing(self, node: ast.Call) -> None:
        """An attribute is bound whose name is a text: the first or the second argument, or a keyword's."""
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        first, second = (*node.args, None, None)[:2]
        texts = [
            part.value
            for part in (first, second, named.get("target"), named.get("name"), named.get("attribute"))
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        self.replaced |= {text.rpartition(".")[2] for text in texts}
        self.replaced |= {name for name in named if name}
        unseen = None in named or any(isinstance(part, ast.Starred) for part in node.args)
        if unseen or (not texts and (node.args or named) and id(first) not in self.own):
            raise Unprovable(f"{self.path}:{node.lineno}: an attribute is bound whose name cannot be seen")


def _called(tree: ast.Module, *modules: str) -> frozenset[str]:
    """What a file calls a module, or a name that it imports."""
    return frozenset(
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if alias.name.rpartition(".")[2] in modules
    )


def selves(tree: ast.Module) -> Iterator[ast.Name]:
    """Each `self` that is certainly the object of a method: its first argument, and bound nowhere else."""
    for defined in ast.walk(tree):
        for method in defined.body if isinstance(defined, ast.ClassDef) else ():
            if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) or method.decorator_list:
                continue
            arguments = [
                node for node in ast.walk(method) if isinstance(node, ast.arg) and node.arg == "self"
            ]
            plain = [*method.args.posonlyargs, *method.args.args][:1]
            names = [node for node in ast.walk(method) if isinstance(node, ast.Name) and node.id == "self"]
            if arguments == plain and all(isinstance(name.ctx, ast.Load) for name in names):
                yield from names
