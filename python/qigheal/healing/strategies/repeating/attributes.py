"""Which functions of the host a call through an object's attribute may call, as `self.gateway.quote(…)` does.

Told only where every value that the attribute may get has a class in plain sight: it is made on the spot, or
comes from an argument or field that is annotated with a class of the host, whose heirs are then counted in.
Whatever else may set the attribute or the method ends it, and says why. Which calls may be repeated, and which
fail, is not known here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.hostcode.reflection import unnamed

PLAIN_BASES = frozenset(("object", "ABC", "Protocol", "Generic"))
"""Classes that are not the host's and set no attributes."""

HARMLESS = frozenset(("dataclass", "final", "runtime_checkable"))
"""Decorators that leave a class as it is, as far as its methods go."""

HOOKS = frozenset(("__new__", "__getattribute__", "__setattr__"))
"""Methods by which an object may be, or have, something else than what is written."""

SETS_BY_TEXT = re.compile(r"_*(set|del)attr_*|setitem|object|dict|multiple|patch\w*|_*update_*")
"""Last names of functions that set an attribute which they are told as text, those of tests included."""

Class = tuple[Source, ast.ClassDef]


class Unclear(Exception):
    """Says why it cannot be told what is called."""


class Attributes:
    """The attributes of one tree's objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _program(self) -> Program:
        return Program(self._folder)

    def called(self, path: str, line: int, column: int, text: str) -> list[str]:
        """The functions, as "path:Class.method", that a call may call. Raises Unclear.

        It stands in the file `path`; what is called is written there as `text` and begins at this place, in
        bytes as `ast` counts them.
        """
        source = self._program.sources.get(path)
        if source is None:
            raise Unclear(f"{path} cannot be read")
        for node in source.nodes:
            if not isinstance(node, ast.Call) or (node.lineno, node.col_offset) != (line, column):
                continue
            if ast.unparse(node.func) == text:
                return self._through(source, node)
        raise Unclear("the call cannot be found again")

    def _through(self, source: Source, call: ast.Call) -> list[str]:
        func = call.func
        if not (isinstance(func, ast.Attribute) and isinstance(func.value, ast.Attribute)):
            raise Unclear(f"what {ast.unparse(func)[:60]} is does not stand in plain sight")
        holder = _of_self(source, func.value)
        if holder is None or source.parents.get(holder) is not source.tree:
            raise Unclear(
                f"{ast.unparse(func.value)[:60]} is no attribute of the object whose method it stands in"
            )
        name, method = func.value.attr, func.attr
        family = self._family(source, holder)
        classes = list(self._values(name, family))
        if not classes:
            raise Unclear(f"nothing in the repository sets {holder.name}.{name}")
        self._set_as_written(name, family)
        self._set_as_written(method, [one for found in classes for one in self._family(*found)])
        called = {
            f"{home.path}:{owner.name}.{method}"
            for one in classes
            for home, owner in [self._defines(one, method)]
        }
        self._stays(method, classes)
        return sorted(called)

    # What sets the attribute

    def _values(self, name: str, family: list[Class]) -> Iterator[Class]:
        """The classes of all that an attribute of these classes may be."""
        for where, owner in family:
            for statement in owner.body:
                yield from self._in_body(where, owner, statement, name)
        related = [owner for _, owner in family]
        for where, node in self._program.stores.get(name, ()):
            at = f"{where.path}:{node.lineno}"
            setter = _of_self(where, node)
            if setter is None:
                raise Unclear(f"{at} sets {name} of something that is not told apart")
            if setter not in related:
                continue
            sets = where.parents.get(node)
            function = where.within(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(sets, ast.AnnAssign) and sets.value is None:
                continue
            if not isinstance(sets, (ast.Assign, ast.AnnAssign)) or not isinstance(function, Function):
                raise Unclear(f"{at} sets {name} in another way than by a plain assignment")
            yield from self._classes(where, function, sets.value)

    def _in_body(self, where: Source, owner: ast.ClassDef, statement: ast.stmt, name: str) -> Iterator[Class]:
        """The same of a statement at a class's top."""
        field = any(_last(decorator) == "dataclass" for decorator in owner.decorator_list)
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
            if field:
                yield from self._annotated(where, statement.annotation)
            elif statement.value is not None:
                yield from self._classes(where, None, statement.value)
        elif isinstance(statement, ast.Assign) and [ast.unparse(one) for one in statement.targets] == [name]:
            yield from self._classes(where, None, statement.value)
        elif _binds(statement, name, within=False):
            raise Unclear(f"{where.path}:{statement.lineno} makes {name} something else than an object")

    def _classes(self, where: Source, function: Function | None, value: ast.expr | None) -> Iterator[Class]:
        """The classes that a value may be of."""
        if isinstance(value, ast.Constant) and value.value is None:
            return  # a call of its methods fails as it did
        if isinstance(value, ast.IfExp):
            yield from self._classes(where, function, value.body)
            yield from self._classes(where, function, value.orelse)
        elif isinstance(value, ast.BoolOp):
            for part in value.values:
                yield from self._classes(where, function, part)
        elif isinstance(value, ast.Call) and not _hidden(function, value.func):
            yield self._class(where, value.func)
        elif isinstance(value, ast.Name) and function is not None:
            said = _annotation(function, value.id)
            if said is None:
                raise Unclear(f"{_at(where, value)}: no annotation with a class says what {value.id} is")
            yield from self._annotated(where, said)
        else:
            raise Unclear(f"{_at(where, value)}: the class of its value is not in plain sight")

    def _annotated(self, where: Source, node: ast.expr | None) -> Iterator[Class]:
        """The classes that an annotation of the host's names, and their heirs."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                text = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                text = None
            yield from self._annotated(where, text)
        elif isinstance(node, ast.Constant) and node.value is None:
            return
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from self._annotated(where, node.left)
            yield from self._annotated(where, node.right)
        elif isinstance(node, ast.Subscript) and _last(node.value) in ("Optional", "Union", "Annotated"):
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            for part in parts[:1] if _last(node.value) == "Annotated" else parts:
                yield from self._annotated(where, part)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            home, named = self._class(where, node)
            if any(_last(base) == "Protocol" for base in named.bases):
                raise Unclear(f"{named.name} is a Protocol, which any class may follow")
            yield home, named
            yield from self._heirs(named)
        else:
            raise Unclear(f"{_at(where, node)}: no annotation with a class says what it is")

    def _class(self, where: Source, node: ast.expr) -> Class:
        home, owner = self._program.defined(where, node) or (where, None)
        if not isinstance(owner, ast.ClassDef):
            raise Unclear(f"{_at(where, node)}: {ast.unparse(node)[:60]} is no class of the repository")
        if home.parents.get(owner) is not home.tree:
            raise Unclear(f"{owner.name} is not defined at the top of {home.path}")
        return home, owner

    def _set_as_written(self, name: str, family: list[Class]) -> None:
        """That nothing sets an attribute of these classes' objects without being written so."""
        if other := self._program.unreadable(name):
            raise Unclear(f"{other} may set {name} and cannot be read")
        for where, node in self._program.spoken(name):
            above = where.parents.get(node)
            above = where.parents.get(above) if isinstance(above, ast.keyword) else above
            if isinstance(above, ast.Call) and SETS_BY_TEXT.fullmatch(_last(above.func)):
                raise Unclear(f"{_at(where, above)} may set {name}")
        for source, owner in family:
            if why := unnamed(self._program, source, name, owner):
                raise Unclear(why)

    # What the method is

    def _defines(self, found: Class, method: str) -> Class:
        """The class that brings the method of an object of exactly this class."""
        home, owner = found
        decorators = {_last(decorator) for decorator in owner.decorator_list}
        if decorators - HARMLESS or [one for one in owner.keywords if _last(one.value) != "ABCMeta"]:
            raise Unclear(f"{owner.name} is made by a decorator or metaclass")
        bindings = [one for one in owner.body if _binds(one, method, within=False)]
        if _has(owner, HOOKS - {"__setattr__"}):
            raise Unclear(f"{owner.name} decides itself what its objects are")
        if bindings:
            [one, *more] = bindings
            if more or not isinstance(one, Function):
                raise Unclear(f"{owner.name}.{method} is no single function")
            if any("property" in _last(decorator) for decorator in one.decorator_list):
                raise Unclear(f"{owner.name}.{method} is a property")
            return found
        bases = [base for base in owner.bases if _last(base) not in PLAIN_BASES]
        if len(bases) != 1:
            raise Unclear(f"which class brings {owner.name}.{method} cannot be told")
        above = self._class(home, bases[0])
        if above[1] is owner:
            raise Unclear(f"{owner.name} is its own base")
        return self._defines(above, method)

    def _stays(self, method: str, classes: list[Class]) -> None:
        """That no object of these classes gets another function in the method's place."""
        related = [owner for found in classes for _, owner in self._family(*found)]
        for where, node in self._program.stores.get(method, ()):
            setter = _of_self(where, node)
            if setter is None or setter in related:
                raise Unclear(f"{where.path}:{node.lineno} may put something in the place of {method}")

    # Classes above and below

    @cached_property
    def _every(self) -> list[Class]:
        return [
            (source, node)
            for source in self._program.sources.values()
            for node in source.nodes
            if isinstance(node, ast.ClassDef)
        ]

    def _family(self, source: Source, owner: ast.ClassDef) -> list[Class]:
        """A class with those above and below it, by their names. Raises Unclear where one above is not known."""
        above = [(source, owner)]
        for where, one in above:
            if {_last(decorator) for decorator in one.decorator_list} - HARMLESS:
                raise Unclear(f"{one.name} is made by a decorator")
            if _has(one, HOOKS - {"__new__"}):
                raise Unclear(f"{one.name} decides itself what its attributes are")
            for base in one.bases:
                names = self._meant(where, base)
                found = [known for known in self._every if known[1].name in names]
                if not found and not names & PLAIN_BASES:
                    raise Unclear(f"{_last(base)}, above {one.name}, may set it")
                above += [known for known in found if known not in above]
        return [*above, *(known for known in self._heirs(owner) if known not in above)]

    def _heirs(self, owner: ast.ClassDef) -> list[Class]:
        names, found = {owner.name}, list[Class]()
        grown = True
        while grown:
            new = [
                (source, node)
                for source, node in self._every
                if (source, node) not in found
                and any(names & self._meant(source, base) for base in node.bases)
            ]
            found += new
            names |= {node.name for _, node in new}
            grown = bool(new)
        return found

    @staticmethod
    def _meant(source: Source, base: ast.expr) -> set[str]:
        """The names that a base may have: as it is written, and as it is imported."""
        return {_last(base), *(one.rpartition(".")[2] for one in source.imports.get(_last(base), ()))}


def _of_self(source: Source, node: ast.Attribute) -> ast.ClassDef | None:
    """The class whose method's own object an attribute is one of."""
    method = source.within(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    holder = source.parents.get(method) if method is not None else None
    if not isinstance(method, Function) or not isinstance(holder, ast.ClassDef):
        return None
    first = next(iter((*method.args.posonlyargs, *method.args.args)), None)
    if first is None or not isinstance(node.value, ast.Name) or node.value.id != first.arg:
        return None
    if {"staticmethod", "classmethod"} & {_last(decorator) for decorator in method.decorator_list}:
        return None
    return None if _rebound(method, first.arg) else holder


def _annotation(function: Function, name: str) -> ast.expr | None:
    """What an argument is said to be, unless the function gives its name to something else."""
    given = function.args
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs):
        if argument.arg == name and not _rebound(function, name):
            return argument.annotation
    return None


def _hidden(function: Function | None, called: ast.expr) -> bool:
    """Whether a function has its own meaning for the name that a class is called by."""
    first = ast.unparse(called).partition(".")[0]
    given = function.args if function is not None else None
    arguments: Iterable[ast.arg | None] = (
        (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if given else ()
    )
    return any(one is not None and one.arg == first for one in arguments) or (
        function is not None and any(_binds(statement, first) for statement in function.body)
    )


def _has(owner: ast.ClassDef, names: Iterable[str]) -> bool:
    return any(_binds(statement, name, within=False) for statement in owner.body for name in names)


def _rebound(function: Function, name: str) -> bool:
    return any(_binds(statement, name) for statement in function.body)


def _binds(statement: ast.AST, name: str, *, within: bool = True) -> bool:
    """Whether a statement may bind a name; `within` functions in it too."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        if statement.name == name or not within:
            return statement.name == name
    elif isinstance(statement, ast.Name):
        return statement.id == name and not isinstance(statement.ctx, ast.Load)
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        names = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        return name in names or "*" in names
    elif isinstance(statement, (ast.Global, ast.Nonlocal)):
        return name in statement.names
    elif isinstance(statement, ast.Lambda) and not within:
        return False
    elif getattr(statement, "name", None) == name:
        return True
    return any(_binds(inner, name, within=within) for inner in ast.iter_child_nodes(statement))


def _last(node: ast.expr) -> str:
    """The last name of a dotted one, of what it is called or subscribed with aside."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return ast.unparse(node).rpartition(".")[2]


def _at(source: Source, node: ast.expr | None) -> str:
    return f"{source.path}:{getattr(node, 'lineno', 0)}"
