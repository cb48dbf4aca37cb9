"""Where a file calls functions that may be repeated, and why some of those calls cannot be.

A call is known by what its name means (imports, aliases and shadowing are followed by LibCST's scopes),
never by how it is spelt; one through an attribute of `self` by what the attribute may be (`attributes`).
Nothing is changed here, and nothing measured.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qigheal.errors import MissingExtra
from qigheal.healing.strategies.repeating.attributes import Unclear
from qigheal.healing.strategies.repeating.definitions import Definition, Definitions, module_name
from qigheal.healing.strategies.repeating.reusable import reusable

RETRYING = frozenset(("tenacity", "backoff", "stamina", "retry", "retrying", "retry2"))
"""Packages whose decorators repeat what they decorate."""

USED_UP = frozenset(("iter", "map", "filter", "zip", "open", "reversed", "enumerate"))
"""Built-in functions whose result can be gone through once: a second call would find it empty."""


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that its host's owner declares to be repeatable."""

    name: str  # as the manifest has it, package.module:function
    definition: Definition | None  # None: it is not the host's own


@dataclass(frozen=True, slots=True)
class CallSite:
    """One call of such a function. `refused` says why it cannot be repeated, "" when it can."""

    callee: Callee
    node: Any  # libcst.Call, of the module that `Source` holds
    first_line: int
    last_line: int
    awaited: bool
    refused: str
    alone: bool = True  # no other declared function may be the one that is called


class Source:
    """A file as LibCST sees it, with what its names mean."""

    def __init__(self, path: str, content: bytes) -> None:
        cst, metadata = libcst()
        self.path = path
        wrapper = metadata.MetadataWrapper(cst.parse_module(content))
        self.module = wrapper.module
        self.scopes = wrapper.resolve(metadata.ScopeProvider)
        self.parents = wrapper.resolve(metadata.ParentNodeProvider)
        self.positions = wrapper.resolve(metadata.PositionProvider)

    @property
    def top(self) -> Any:
        """The module's own scope."""
        return self.scopes[self.module]

    def bound(self, name: str) -> list[Any]:
        """The assignments that give a name its meaning at the module's top."""
        return [a for a in self.top[name] if a.scope is self.top] if name in self.top else []

    @cached_property
    def tree(self) -> ast.Module:
        """The same file as `ast` sees it."""
        content: bytes = self.module.bytes
        return ast.parse(content)

    def called(self, call: Any) -> ast.Call | None:
        """The same call as `ast` sees it."""
        lines = self.module.bytes.decode(self.module.encoding).splitlines()
        span = self.positions[call]

        def column(line: int, offset: int) -> int:
            return len(lines[line - 1].encode()[:offset].decode())

        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (node.lineno, node.end_lineno) == (
                span.start.line,
                span.end.line,
            ):
                ends = column(node.lineno, node.col_offset), column(span.end.line, node.end_col_offset or 0)
                if ends == (span.start.column, span.end.column):
                    return node
        return None

    def has_star_import(self) -> bool:
        cst, _ = libcst()
        return any(
            isinstance(node, cst.ImportFrom) and isinstance(node.names, cst.ImportStar)
            for node in self.parents
        )

    def around(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """(child, parent) from a node outwards."""
        while (parent := self.parents.get(node)) is not None:
            yield node, parent
            node = parent


def libcst() -> tuple[Any, Any]:
    """LibCST and its metadata. Raises MissingExtra."""
    try:
        import libcst as cst
        from libcst import metadata
    except ImportError as missing:
        raise MissingExtra("libcst", "heal", "repeating failing calls") from missing
    return cst, metadata


def callees(names: Collection[str], definitions: Definitions) -> dict[str, Callee]:
    """The declared functions by the key that calls of them resolve to; what is not found is left out."""
    found = {}
    for name in names:
        dotted = name.replace(":", ".")
        definition = definitions.function(dotted)
        if definition is not None:
            found[definition.key] = Callee(name, definition)
        elif definitions.external(dotted):
            found[dotted] = Callee(name, None)
    return found


def call_sites(
    source: Source,
    declared: Mapping[str, Callee],
    definitions: Definitions,
    transient: Collection[str],
    lines: Collection[int],
) -> list[CallSite]:
    """The calls of declared functions on these lines of a file, in their order. Raises MissingExtra."""
    cst, _ = libcst()
    found = []
    for node, at in source.positions.items():
        if not isinstance(node, cst.Call) or not any(at.start.line <= n <= at.end.line for n in lines):
            continue
        meant, _ = _meant(source, node, declared, definitions)
        refused = [_refused(source, node, callee, definitions, transient) for callee in meant]
        found += [
            CallSite(
                callee=callee,
                node=node,
                first_line=at.start.line,
                last_line=at.end.line,
                awaited=isinstance(source.parents.get(node), cst.Await),
                refused=next(filter(None, refused), ""),
                alone=len(meant) == 1,
            )
            for callee in meant
        ]
    return sorted(found, key=lambda site: site.first_line)


def unrecognised(
    source: Source, declared: Mapping[str, Callee], definitions: Definitions, name: str, line: int
) -> str:
    """Why no call on a line is taken for one of the function that the manifest calls `name`. Raises MissingExtra."""
    cst, _ = libcst()
    if name not in {callee.name for callee in declared.values()}:
        return "which function of the repository it is cannot be told"
    reasons = []
    for node, at in source.positions.items():
        if isinstance(node, cst.Call) and at.start.line <= line <= at.end.line:
            spelt = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
            if isinstance(spelt, cst.Name) and spelt.value == _method(name):
                reasons.append(_meant(source, node, declared, definitions)[1])
    return next(filter(None, reasons), "no call on that line has its name")


def _meant(
    source: Source, call: Any, declared: Mapping[str, Callee], definitions: Definitions
) -> tuple[list[Callee], str]:
    """The declared functions one of which a call calls, or none and why."""
    key = _key(source, call, definitions)
    if key:
        return (
            ([declared[key]], "")
            if key in declared
            else ([], f"{key} is called there, which is not declared")
        )
    called = _spelt(source, call, declared)
    if called is None:
        return [], ""
    try:
        keys = definitions.attributes.called(
            source.path, called.lineno, called.col_offset, ast.unparse(called.func)
        )
    except Unclear as why:
        return [], str(why)
    others = [key for key in keys if key not in declared]
    return (
        ([], f"it may also be {others[0]}, which is not declared")
        if others
        else ([declared[k] for k in keys], "")
    )


def _spelt(source: Source, call: Any, declared: Mapping[str, Callee]) -> ast.Call | None:
    """A call, as `ast` sees it, of something with a declared function's own name."""
    cst, _ = libcst()
    last = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
    names = {_method(callee.name) for callee in declared.values()}
    return source.called(call) if isinstance(last, cst.Name) and last.value in names else None


def _method(name: str) -> str:
    return name.rpartition(":")[2].rpartition(".")[2]


def _key(source: Source, call: Any, definitions: Definitions) -> str:
    """What a call calls: the key of a host's function, or the dotted name of another package's."""
    scope = source.scopes.get(call)
    if scope is None:
        return ""
    if method := _on_self(source, call, definitions):
        return method
    names = scope.get_qualified_names_for(call.func)
    if len(names) != 1:
        return ""
    [meant] = names
    if meant.source.name == "IMPORT":
        dotted = definitions.absolute(source.path, meant.name)
    elif "<locals>" in meant.name:
        dotted = _made_here(source, call, definitions)
    else:
        dotted = f"{module_name(source.path)}.{meant.name}"
    definition = definitions.function(dotted)
    if definition is not None:
        return definition.key
    return dotted if definitions.external(dotted) else ""


def _on_self(source: Source, call: Any, definitions: Definitions) -> str:
    """The key of the method that `self.name()` calls, where no heir of the class brings another."""
    cst, _ = libcst()
    func = call.func
    if not (isinstance(func, cst.Attribute) and isinstance(func.value, cst.Name)):
        return ""
    function = _function(source, call)
    block = source.parents.get(function)
    holder = source.parents.get(block)
    if not isinstance(holder, cst.ClassDef) or source.parents.get(source.parents.get(holder)) is not None:
        return ""
    names = [_dotted(d.decorator) for d in function.decorators]
    if "staticmethod" in names or "classmethod" in names:
        return ""
    first = next(iter((*function.params.posonly_params, *function.params.params)), None)
    name, method = func.value.value, func.attr.value
    if first is None or first.name.value != name or len(source.scopes[call][name]) != 1:
        return ""
    stored = any(
        isinstance(node, cst.AssignTarget)
        and isinstance(node.target, cst.Attribute)
        and node.target.attr.value == method
        for node in source.parents
    )
    owner = holder.name.value
    if stored or definitions.overridden(source.path, owner, method):
        return ""
    definition = definitions.function(f"{module_name(source.path)}.{owner}.{method}")
    return definition.key if definition is not None else ""


def _made_here(source: Source, call: Any, definitions: Definitions) -> str:
    """The dotted name of `x.method` where the function makes `x = Class(...)` and binds it once."""
    cst, _ = libcst()
    func = call.func
    if not (isinstance(func, cst.Attribute) and isinstance(func.value, cst.Name)):
        return ""
    bound = list(source.scopes[call][func.value.value])
    if len(bound) != 1 or not hasattr(bound[0], "node"):
        return ""
    target = source.parents.get(bound[0].node)
    statement = source.parents.get(target)
    if not (isinstance(target, cst.AssignTarget) and isinstance(statement, cst.Assign)):
        return ""
    if not isinstance(statement.value, cst.Call):
        return ""
    names = source.scopes[statement.value].get_qualified_names_for(statement.value.func)
    if len(names) != 1 or "<locals>" in next(iter(names)).name:
        return ""
    [made] = names
    here = definitions.absolute(source.path, made.name)
    home = here if made.source.name == "IMPORT" else f"{module_name(source.path)}.{made.name}"
    return f"{home}.{func.attr.value}"


def _refused(
    source: Source, call: Any, callee: Callee, definitions: Definitions, transient: Collection[str]
) -> str:
    """Why this call cannot be repeated where it stands."""
    cst, _ = libcst()
    awaited = isinstance(source.parents.get(call), cst.Await)
    if (reason := _wrong_place(source, call)) or (reason := _wrong_callee(callee, awaited)):
        return reason
    function = _function(source, call)
    if function.asynchronous is not None and not awaited:
        return "waiting for it would hold up everything else that the event loop serves"
    for decorator in function.decorators:
        names = source.top.get_qualified_names_for(
            decorator.decorator.func if isinstance(decorator.decorator, cst.Call) else decorator.decorator
        )
        if any(_repeats(name.name) for name in names):
            return "the function that it stands in is repeated already"
    if _in_retry_loop(source, call, transient):
        return "it is repeated already, in a loop"
    for argument in call.args:
        if _used_up(argument):
            return "an argument can be gone through only once"
    found = source.called(call)
    if found is None or not reusable(source.path, source.tree, found, callee.definition, definitions):
        return "an argument may be one that can be gone through only once"
    return ""


def _wrong_place(source: Source, call: Any) -> str:
    cst, _ = libcst()
    simple = (cst.Assign, cst.AnnAssign, cst.AugAssign, cst.Return, cst.Expr)
    for _, parent in source.around(call):
        if isinstance(parent, cst.Lambda):
            return "it stands in a lambda"
        if isinstance(parent, cst.BaseComp):
            return "it stands in a comprehension"
        if isinstance(parent, (cst.Decorator, cst.Param, cst.Annotation)):
            return "it stands in a decorator, a default or an annotation"
        if isinstance(parent, simple) and isinstance(source.parents.get(parent), cst.SimpleStatementLine):
            inside = _function(source, call) is not None
            return "" if inside else "it stands outside of every function"
        if isinstance(parent, cst.BaseStatement):
            return "it stands in the head of a statement, or in one of another kind"
    return "it stands nowhere"


def _wrong_callee(callee: Callee, awaited: bool) -> str:
    definition = callee.definition
    if definition is None:
        return ""
    if definition.generates:
        return "it makes a generator, and fails only when that is gone through"
    if any(_repeats(name) for name in definition.decorators):
        return "the function called is repeated already"
    if definition.asynchronous != awaited:
        return "a coroutine is made here and awaited elsewhere, or a plain result is awaited"
    return ""


def _repeats(decorator: str) -> bool:
    last = decorator.rpartition(".")[2].lower()
    return decorator.partition(".")[0] in RETRYING or "retry" in last or "retries" in last


def _in_retry_loop(source: Source, call: Any, transient: Collection[str]) -> bool:
    """Whether it stands in `try`, in a loop that does not go over what it is called with."""
    cst, _ = libcst()
    caught = False
    used = set(_names(call))
    for child, parent in source.around(call):
        if isinstance(parent, cst.FunctionDef):
            return False
        if isinstance(parent, (cst.Try, cst.TryStar)) and child is parent.body:
            caught = caught or any(_catches(handler, transient) for handler in parent.handlers)
        if caught and isinstance(parent, cst.While) and child is parent.body:
            return True
        over = isinstance(parent, cst.For) and child is parent.body
        if caught and over and not used & set(_names(parent.target)):
            return True
    return False


def _catches(handler: Any, transient: Collection[str]) -> bool:
    """Whether a handler may catch one of the errors; one whose names are not known to be others may."""
    if handler.type is None:
        return True
    wide = set()
    for name in transient:
        kind = getattr(builtins, name, None)
        bases = kind.__mro__ if isinstance(kind, type) else Exception.__mro__
        wide |= {base.__name__ for base in bases} | {name.rpartition(".")[2]}
    return bool(wide & set(_names(handler.type)))


def _used_up(argument: Any) -> bool:
    cst, _ = libcst()
    return any(
        isinstance(node, cst.GeneratorExp)
        or (isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in USED_UP)
        for node in _inside(argument)
    )


def _function(source: Source, node: Any) -> Any:
    """The function that a node stands in, None at a module's or a class's top."""
    cst, _ = libcst()
    for _, parent in source.around(node):
        if isinstance(parent, cst.FunctionDef):
            return parent
        if isinstance(parent, (cst.ClassDef, cst.Lambda)):
            return None
    return None


def _inside(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _inside(child)


def _names(node: Any) -> Iterator[str]:
    cst, _ = libcst()
    for inner in _inside(node):
        if isinstance(inner, cst.Name):
            yield inner.value


def _dotted(node: Any) -> str:
    cst, _ = libcst()
    return str(cst.Module([]).code_for_node(node))


def timeout_default(callee: Callee, call: Any) -> float | None:
    """The default of the callee's parameter `timeout`, in what unit it may be; None where the call sets it.

    None also where it has none, or one that is no number in plain sight.
    """
    if callee.definition is None:
        return None
    arguments = callee.definition.node.args
    places = [*arguments.posonlyargs, *arguments.args]
    if "." in callee.definition.qualname:
        places = places[1:]  # self
    defaults = dict(zip([a.arg for a in reversed(places)], reversed(arguments.defaults), strict=False))
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    defaults |= {a.arg: value for a, value in named if value is not None}
    before = [a.arg for a in places]
    if "timeout" in before and len(call.args) > before.index("timeout"):
        return None
    if any(
        argument.star or (argument.keyword and argument.keyword.value == "timeout") for argument in call.args
    ):
        return None
    value = defaults.get("timeout")
    number = isinstance(value, ast.Constant) and type(value.value) in (int, float)
    return float(value.value) if number and value.value > 0 else None  # type: ignore[union-attr]
