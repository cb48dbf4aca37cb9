"""Calls inside a function that is looked through: of the host, of builtins, of the library, of methods."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from qigheal.healing.strategies.caching.purity import library
from qigheal.healing.strategies.caching.purity.records import is_record
from qigheal.healing.strategies.caching.purity.scopes import locals_of
from qigheal.healing.strategies.caching.purity.sources import Class, Constant, Function, Library, Named
from qigheal.healing.strategies.caching.purity.texts import check_method, check_specification
from qigheal.healing.strategies.caching.purity.values import NOTHING, NUMBERS, Unprovable, Value, holding, of

if TYPE_CHECKING:
    from qigheal.healing.strategies.caching.purity.looking import Frame, Look

OWN: Final = frozenset(dir(builtins))
TEXTS: Final = frozenset(("str", "pattern", "int", "bool", "none"))
"""What a function of `re` may be given."""


def meant(look: Look, frame: Frame, node: ast.expr) -> Named | None:
    """What a name or a dotted name stands for outside the function; None for a value. Raises Unprovable."""
    if isinstance(node, ast.Name):
        if frame.scope_of(node.id) is not None:
            return None
        if node.id.startswith("__"):
            raise Unprovable(f"{frame.at(node)}: {node.id} means something else within a class")
        if node.id in frame.module.bound:
            return look.host.name(frame.module, node.id)
        if node.id not in OWN or node.id in look.host.replaced or frame.module.starred:
            raise Unprovable(f"{frame.at(node)}: it is not certain what {node.id} is")
        return Library(f"builtins.{node.id}")
    if isinstance(node, ast.Attribute):
        base = meant(look, frame, node.value)
        return None if base is None or isinstance(base, Constant) else look.host.attribute(base, node.attr)
    return None


def called(look: Look, frame: Frame, node: ast.Call) -> Value:
    """The value of a call. Raises Unprovable for what is not known to be pure."""
    target = look.within(frame, node.func) or meant(look, frame, node.func)
    match target:
        case Function():
            positional = [
                (look.value(frame, a.value if isinstance(a, ast.Starred) else a), isinstance(a, ast.Starred))
                for a in node.args
            ]
            return look.enter(target, frame.at(node), positional, _keywords(look, frame, node.keywords))
        case Library(name=name):
            return _library(look, frame, node, name)
        case None if isinstance(node.func, ast.Attribute):
            return _method(look, frame, node, node.func)
    raise Unprovable(f"{frame.at(node)}: it is not followed what is called here")


def applied(look: Look, frame: Frame, callback: ast.expr, given: Sequence[Value]) -> Value:
    """What a function that is passed to another gives for such arguments. Raises Unprovable."""
    if isinstance(callback, ast.Lambda):
        plain = [*callback.args.posonlyargs, *callback.args.args]
        if callback.args.vararg or callback.args.kwarg or callback.args.kwonlyargs or callback.args.defaults:
            raise Unprovable(f"{frame.at(callback)}: a lambda with more than plain parameters")
        inner = frame.inside(callback, locals_of(callback))
        for argument, value in zip(plain, given, strict=False):
            look.bind(inner, argument.arg, value)
        return look.value(inner, callback.body)
    match look.within(frame, callback) or meant(look, frame, callback):
        case Function() as function:
            return look.enter(function, frame.at(callback), [(value, False) for value in given], {})
        case Library(name=name) if name not in ("builtins.format", "builtins.isinstance"):
            return _known(look, frame, callback, name.removeprefix("builtins."), given)
    raise Unprovable(f"{frame.at(callback)}: it is not followed what is passed here")


def _keywords(look: Look, frame: Frame, keywords: Sequence[ast.keyword]) -> dict[str, Value]:
    found = {}
    for keyword in keywords:
        if keyword.arg is None:
            raise Unprovable(f"{frame.at(keyword.value)}: ** is not followed")
        found[keyword.arg] = look.value(frame, keyword.value)
    return found


def _given(look: Look, frame: Frame, node: ast.Call) -> list[Value]:
    """Positional arguments; a starred one counts as one of its elements."""
    return [
        look.heap.elements(look.value(frame, a.value)) if isinstance(a, ast.Starred) else look.value(frame, a)
        for a in node.args
    ]


# Builtins and the library


def _library(look: Look, frame: Frame, node: ast.Call, full: str) -> Value:
    name = full.removeprefix("builtins.")
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    if name in ("map", "filter") and len(node.args) > 1 and not starred:
        return _mapped(look, frame, node, name)
    if name == "format":
        return _text(look, frame, node)
    if name == "isinstance" and len(node.args) == 2 and not starred:
        return _is_of_type(look, frame, node.args[0], node.args[1])
    given = _given(look, frame, node)
    named = _keywords(look, frame, [keyword for keyword in node.keywords if keyword.arg != "key"])
    for keyword in node.keywords:
        if keyword.arg == "key":
            _by_key(look, frame, name, keyword.value, given)
    if name == "dict":
        made = look.heap.made("dict", node, NOTHING, NOTHING)
        for value in given:
            for site in made.sites:
                look.heap.method(site, "update", node, [value])
        for value in named.values():
            look.heap.fill(made, of("str"), value)
        return made
    if (shaped := SHAPED.get(name)) is not None:
        if starred and name != "zip":
            raise Unprovable(f"{frame.at(node)}: * in a call of {full} is not followed")
        return shaped(look, node, given, named)
    return _known(look, frame, node, name, [*given, *named.values()])


def _text(look: Look, frame: Frame, node: ast.Call) -> Value:
    """`format(value, specification)`"""
    for specification in (*node.args[1:], *(keyword.value for keyword in node.keywords)):
        check_specification(frame, specification)
    return _known(look, frame, node, "format", _given(look, frame, node))


def _by_key(look: Look, frame: Frame, name: str, key: ast.expr, given: Sequence[Value]) -> None:
    """The function by which elements are compared."""
    if name not in ("sorted", "min", "max"):
        raise Unprovable(f"{frame.at(key)}: {name} with a key is not followed")
    compared = NOTHING
    for value in given if len(given) > 1 and name != "sorted" else map(look.heap.elements, given):
        compared |= value
    if not _is_none(key):
        applied(look, frame, key, [compared])


def _known(look: Look, frame: Frame, node: ast.expr, name: str, given: Sequence[Value]) -> Value:
    """A function whose result is in the tables."""
    if (shaped := SHAPED.get(name)) is not None:
        return shaped(look, node, given, {})
    if name in library.MIXED or name in library.CHAINED:
        held = NOTHING
        for value in given:
            held |= look.heap.elements(value)
        return holding("iterator", holding("tuple", held) if name in library.MIXED else held)
    spec = library.BUILTINS.get(name) or library.FUNCTIONS.get(name) or library.CONSTRUCTORS.get(name)
    if spec is None:
        raise Unprovable(f"{frame.at(node)}: {name} is not known to be pure")
    look.used.add(name)
    if name in library.PLAIN_ONLY and not all(map(look.heap.is_plain, given)):
        raise Unprovable(f"{frame.at(node)}: {name} of something whose text may hold an address")
    if name == "math.prod" and any(not _is_number(part) for part in (_all(look, given[:1]), *given[1:])):
        raise Unprovable(f"{frame.at(node)}: a product of more than numbers")
    if name.startswith("re.") and not all(one.atoms <= TEXTS and not one.sites for one in given):
        raise Unprovable(f"{frame.at(node)}: a pattern that is no text may ask for the locale")
    zero = any(map(look.heap.zero, given))
    if zero and name not in library.ZERO_BLIND and name not in library.ZERO_KEEPING:
        raise Unprovable(f"{frame.at(node)}: {name} may tell 0.0 from -0.0")
    return _result(look, node, spec, NOTHING).tainted(zero and name in library.ZERO_KEEPING)


@cache
def _parsed(spec: str) -> Value:
    outer, _, inner = spec.rpartition(" of ")
    atoms = of(*inner.split("|"))
    return holding(outer, atoms) if outer else atoms


def _result(look: Look, node: ast.expr, spec: str, same: Value) -> Value:
    if spec == "same":
        return same
    if spec == "group":
        return of("str", "none") | holding("tuple", of("str", "none"))
    if spec == "found":
        return look.heap.made("list", node, of("str") | holding("tuple", of("str")))
    kind, _, inner = spec.rpartition(" of ")
    if kind == "list":
        return look.heap.made("list", node, _parsed(inner))
    if kind == "dict":
        return look.heap.made("dict", node, _parsed(inner), _parsed(inner))
    return _parsed(spec)


def _mapped(look: Look, frame: Frame, node: ast.Call, name: str) -> Value:
    given = [look.heap.elements(look.value(frame, argument)) for argument in node.args[1:]]
    callback = node.args[0]
    if name == "filter":
        if not _is_none(callback):
            applied(look, frame, callback, given)
        return holding("iterator", given[0])
    return holding("iterator", applied(look, frame, callback, given))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_of_type(look: Look, frame: Frame, asked: ast.expr, node: ast.expr) -> Value:
    value = look.value(frame, asked)
    if value.zero and "bool" in value.atoms:
        raise Unprovable(f"{frame.at(node)}: isinstance may tell 1 from True within a tuple")
    for kind in node.elts if isinstance(node, ast.Tuple) else [node]:
        found = meant(look, frame, kind)
        if not isinstance(found, Library) or found.name.removeprefix("builtins.") not in library.TYPES:
            raise Unprovable(f"{frame.at(node)}: isinstance of something else than builtin types")
    return of("bool")


Shaped = Callable[["Look", ast.expr, Sequence[Value], Mapping[str, Value]], Value]


def _all(look: Look, given: Sequence[Value]) -> Value:
    found = NOTHING
    for value in given:
        found |= look.heap.elements(value)
    return found


def _is_number(value: Value) -> bool:
    return value.atoms <= frozenset(NUMBERS) and not value.sites


def _numeric(value: Value) -> Value:
    return Value(value.atoms & frozenset(NUMBERS), zero=value.zero)


def _extreme(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    found = named.get("default", NOTHING)
    for value in given if len(given) > 1 else map(look.heap.elements, given):
        found |= value
    return found


def _sum(look: Look, node: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    start = given[1] if len(given) > 1 else named.get("start", of("int"))
    return look.added(node, start, _all(look, given[:1])) | start


def _round(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    if len(given) + len(named) > 1:
        return _numeric(given[0])
    return of("int")


def _abs(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    number = _numeric(given[0])
    atoms = {{"bool": "int", "complex": "float"}.get(atom, atom) for atom in number.atoms}
    return of(*atoms)


def _pow(look: Look, node: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    if any(map(look.heap.zero, [*given, *named.values()])):
        raise Unprovable(f"line {node.lineno}: pow may tell 0.0 from -0.0")
    return of("int") if len(given) + len(named) > 2 else of("int", "float", "complex")


def _next(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    return _all(look, given[:1]) | (given[1] if len(given) > 1 else NOTHING)


def _same(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    return given[0] if given else NOTHING


def _listed(kind: str) -> Shaped:
    return lambda look, node, given, named: look.heap.made(kind, node, _all(look, given))


def _held(atom: str) -> Shaped:
    return lambda look, node, given, named: holding(atom, _all(look, given))


def _enumerated(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    return holding("iterator", holding("tuple", of("int") | _all(look, given[:1])))


def _zipped(look: Look, _: ast.expr, given: Sequence[Value], named: Mapping[str, Value]) -> Value:
    return holding("iterator", holding("tuple", _all(look, given)))


SHAPED: Final[dict[str, Shaped]] = {
    "list": _listed("list"),
    "set": _listed("set"),
    "sorted": _listed("list"),
    "tuple": _held("tuple"),
    "frozenset": _held("frozenset"),
    "iter": _held("iterator"),
    "reversed": _held("iterator"),
    "range": lambda look, node, given, named: holding("iterator", of("int")),
    "enumerate": _enumerated,
    "zip": _zipped,
    "min": _extreme,
    "max": _extreme,
    "sum": _sum,
    "round": _round,
    "abs": _abs,
    "next": _next,
    "types.MappingProxyType": _same,  # whoever writes to it gets an error
    "pow": _pow,
}


# Methods


def _method(look: Look, frame: Frame, node: ast.Call, func: ast.Attribute) -> Value:
    base, name = look.value(frame, func.value), func.attr
    if is_record(base):
        raise Unprovable(f"{frame.at(node)}: a method of a record is not followed")
    if name == "sort":
        for keyword in node.keywords:
            if keyword.arg == "key" and not _is_none(keyword.value):
                applied(look, frame, keyword.value, [look.heap.elements(base)])
    check_method(frame, node, func.value, name)
    given = _given(look, frame, node)
    named = _keywords(look, frame, [k for k in node.keywords if (name, k.arg) != ("sort", "key")])
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    if base.sites and (starred or (named and name != "sort")):
        raise Unprovable(f"{frame.at(node)}: it is not followed what {name} is given")
    given += named.values()
    found: list[Value] = []
    for atom in sorted(base.atoms):
        spec = library.METHODS.get(atom, {}).get(name)
        if spec is None:
            continue
        zero = (
            base.zero
            or (base.held is not None and look.heap.zero(base.held))
            or any(map(look.heap.zero, given))
        )
        if zero and f"{atom}.{name}" not in library.ZERO_BLIND:
            raise Unprovable(f"{frame.at(node)}: {name} may tell 0.0 from -0.0")
        _check_given(look, frame, node, atom, name, given)
        found.append(_result(look, node, spec, of(atom)))
    for site in sorted(base.sites, key=lambda site: (site.kind, site.node)):
        result = look.heap.method(site, name, node, given)
        if result is not None:
            found.append(result)
    if not found and base != NOTHING:
        raise Unprovable(f"{frame.at(node)}: a method {name} that is not known to be pure")
    total = NOTHING
    for value in found:
        total |= value
    return total


def _check_given(
    look: Look, frame: Frame, node: ast.Call, atom: str, name: str, given: Sequence[Value]
) -> None:
    """Raises Unprovable where a method would give, or show, more of its arguments than its result says."""
    if name == "format" and not all(map(look.heap.is_plain, given)):
        raise Unprovable(f"{frame.at(node)}: the text of something that may hold an address")
    if atom == "match" and not all(one.atoms <= TEXTS and not one.sites for one in given):
        raise Unprovable(
            f"{frame.at(node)}: it is not followed what {name} gives for a group without a match"
        )


def exception(look: Look, frame: Frame, node: ast.expr) -> None:
    """An exception's class in `raise` or `except`: a builtin one, or one of the host that adds nothing."""
    for kind in node.elts if isinstance(node, ast.Tuple) else [node]:
        match meant(look, frame, kind):
            case Library(name=name) if name.removeprefix("builtins.") in library.EXCEPTIONS:
                continue
            case Class(module=module, node=defined) if not (
                defined.decorator_list or defined.keywords or not defined.bases
            ) and all(_says_nothing(statement) for statement in defined.body):
                inner = look.outside(module)
                for base in defined.bases:
                    exception(look, inner, base)
                continue
        raise Unprovable(f"{frame.at(kind)}: an exception that is not known")


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
