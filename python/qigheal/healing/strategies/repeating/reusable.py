"""Whether what a call is made with can be given to it twice.

A generator or an open file is used up by the first attempt; the second would find it empty and succeed with
nothing. So a call is repeated only where each argument is, or comes to, one of these:

- made as something else: a literal, arithmetic, a slice, `str`, `int` or `list` of anything, the result of
  a function of the host all of whose results are such, or a name or attribute that only gets such values;
- a parameter annotated with such a type;
- a name or expression that the function itself uses as no iterator can be: it computes with it, orders it,
  looks into it by index, takes its length;
- given to a parameter that the called function, in the host's own source, uses so, or never goes through.

Nothing is known here of which calls fail, or how they are repeated.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from qigheal.healing.strategies.repeating.definitions import (
    Definition,
    Definitions,
    Function,
    module_name,
    own,
)

DEPTH = 3
"""Through how many functions a value is followed."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAKES = _words("""
    str int float bool bytes bytearray complex len repr list tuple set frozenset dict sorted sum abs round hash ord
    chr format range hex bin oct ascii divmod pow isinstance
""")
"""Built-in functions whose results can be gone through again, or not at all."""

TEXT_METHODS = _words("""
    encode decode strip lstrip rstrip lower upper title capitalize casefold replace split rsplit splitlines join
    startswith endswith removeprefix removesuffix zfill ljust rjust hexdigest digest isoformat format
""")
COUNTS = _words("len int float abs round ord chr range")
"""Built-in functions that raise when they are given an iterator."""

LOOKS = _words("str repr len hash isinstance type id print bool callable int float abs round ord chr format")
"""Built-in functions that do not go through what they are given, or raise."""

TAKES = _words("append add get setdefault pop discard remove")
"""Methods that keep an argument, or look for it, without going through it."""

TYPES = _words("""
    int float str bool bytes bytearray complex None list dict tuple set frozenset range List Dict Tuple Set FrozenSet
    Sequence Mapping Collection Optional Union Literal Path UUID Decimal Fraction datetime date time timedelta
""")
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def reusable(
    path: str, tree: ast.Module, call: ast.Call, callee: Definition | None, definitions: Definitions
) -> bool:
    """Whether each argument of a call in the file `path` can be given twice."""
    here = _File(path, tree, definitions)
    return all(
        here.shown(argument, DEPTH) or (callee is not None and _spared(callee, place, definitions, DEPTH))
        for place, argument in _given(call)
    )


def _given(call: ast.Call) -> Iterator[tuple[int | str, ast.expr]]:
    """The arguments by place or name; behind a star no place is certain."""
    certain = True
    for place, argument in enumerate(call.args):
        certain = certain and not isinstance(argument, ast.Starred)
        yield place if certain else "", argument
    for keyword in call.keywords:
        yield keyword.arg or "", keyword.value


class _File:
    """What the values of one file's expressions are shown to be."""

    def __init__(self, path: str, tree: ast.Module, definitions: Definitions) -> None:
        self._path, self._tree, self._definitions = path, tree, definitions
        self._parents = _parents(tree)

    def shown(self, node: ast.AST | None, depth: int) -> bool:
        """Whether an expression is shown to be no iterator."""
        if node is None or depth == 0:
            return node is None
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.Compare, ast.BinOp, ast.UnaryOp, ast.Lambda)):
            return True
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)):
            return not any(_one_pass(inner) for inner in ast.walk(node))
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return all(self.shown(part, depth) for part in node.elts)
        if isinstance(node, ast.Dict):
            return all(self.shown(part, depth) for part in node.values) and None not in node.keys
        if isinstance(node, ast.BoolOp):
            return all(self.shown(part, depth) for part in node.values)
        if isinstance(node, ast.IfExp):
            return self.shown(node.body, depth) and self.shown(node.orelse, depth)
        if isinstance(node, ast.Starred):
            return isinstance(node.value, (ast.Tuple, ast.List)) and self.shown(node.value, depth)
        if isinstance(node, (ast.NamedExpr, ast.Await)):
            return self.shown(node.value, depth)
        if isinstance(node, ast.Call):
            return self._called(node, depth)
        if isinstance(node, ast.Subscript):
            return isinstance(node.slice, ast.Slice) or self._computed_with(node)
        if isinstance(node, ast.Attribute):
            return self._computed_with(node) or self._stored(node, depth)
        return isinstance(node, ast.Name) and self._named(node, depth)

    def _called(self, node: ast.Call, depth: int) -> bool:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in TEXT_METHODS:
            return True
        found = _meant(self._definitions, self._path, called)
        if found is not None:
            tree = self._definitions.tree(found.path)
            if found.generates or found.decorators or tree is None:
                return False
            if _says(found.node.returns):
                return True
            there = _File(found.path, tree, self._definitions)
            given = [inner.value for inner in own(found.node) if isinstance(inner, ast.Return)]
            return all(there.shown(value, depth - 1) for value in given)
        return isinstance(called, ast.Name) and called.id in MAKES and not self._shadowed(node, called.id)

    def _shadowed(self, node: ast.AST, name: str) -> bool:
        return any(True for _ in self._bound(self._tree, name)) or any(
            True for function in self._functions(node) for _ in self._bound(function, name)
        )

    def _named(self, node: ast.Name, depth: int) -> bool:
        for scope in (*self._functions(node), self._tree):
            found = list(self._bound(scope, node.id))
            if not found:
                continue
            if len(found) == 1 and isinstance(found[0], ast.arg) and self._computed_with(node):
                return True
            return all(self._gets(binding, node, depth) for binding in found)
        return False

    def _gets(self, binding: ast.AST, node: ast.Name, depth: int) -> bool:
        """Whether what binds a name gives it a value that is no iterator."""
        if isinstance(binding, ast.arg):
            return _says(binding.annotation)
        if isinstance(binding, (ast.Import, Function, ast.ClassDef)):
            return True
        above = self._parents.get(binding)
        if isinstance(above, ast.Assign) and binding in above.targets:
            return self.shown(above.value, depth - 1) or self._computed_alone(node)
        if isinstance(above, ast.AnnAssign):
            return _says(above.annotation) or self.shown(above.value, depth - 1)
        if isinstance(above, ast.NamedExpr):
            return self.shown(above.value, depth - 1)
        if isinstance(above, (ast.For, ast.AsyncFor)) and isinstance(above.iter, ast.Call):
            called = above.iter.func
            if isinstance(called, ast.Name) and called.id == "range" and not self._shadowed(above, "range"):
                return True
        return isinstance(above, ast.AugAssign) or self._computed_alone(node)

    def _computed_alone(self, node: ast.Name) -> bool:
        """That a name with a single value is used as no iterator can be."""
        functions = list(self._functions(node))
        return (
            bool(functions)
            and len(list(self._bound(functions[0], node.id))) == 1
            and self._computed_with(node)
        )

    def _computed_with(self, node: ast.expr) -> bool:
        """Whether the function uses the same expression as no iterator can be."""
        text = ast.unparse(node)
        function = next(self._functions(node), None)
        return function is not None and any(
            isinstance(inner, type(node))
            and ast.unparse(inner) == text
            and _no_iterator(inner, self._parents)
            for inner in own(function)
        )

    def _stored(self, node: ast.Attribute, depth: int) -> bool:
        """Whether all that the program puts into an attribute of `self` is no iterator."""
        function = next(self._functions(node), None)
        if function is None or not isinstance(self._parents.get(function), ast.ClassDef):
            return False
        first = next(_arguments(function), None)
        if first is None or ast.unparse(node.value) != first.arg:
            return False
        if self._set_elsewhere(node.attr):
            return False
        stores = [self._parents.get(found) for found in _stores(self._tree, node.attr)]
        return bool(stores) and all(
            isinstance(store, ast.AugAssign)
            or (isinstance(store, ast.Assign) and self.shown(store.value, depth - 1))
            or (isinstance(store, ast.AnnAssign) and self._kept(store, depth))
            for store in stores
        )

    def _kept(self, store: ast.AnnAssign, depth: int) -> bool:
        return _says(store.annotation) or self.shown(store.value, depth - 1)

    def _set_elsewhere(self, attribute: str) -> bool:
        others = (self._definitions.tree(path) for path in self._definitions.files() if path != self._path)
        return any(True for tree in others if tree is not None for _ in _stores(tree, attribute))

    def _functions(self, node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """The functions around a node, the nearest first."""
        above = self._parents.get(node)
        while above is not None:
            if isinstance(above, Function):
                yield above
            above = self._parents.get(above)

    @staticmethod
    def _bound(scope: ast.AST, name: str) -> Iterator[ast.AST]:
        """What binds a name in a function or module, without what is inside others."""
        if isinstance(scope, Function):
            yield from (argument for argument in _arguments(scope) if argument.arg == name)
        for node in own(scope):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                if any((alias.asname or alias.name.partition(".")[0]) == name for alias in node.names):
                    yield node
            elif isinstance(node, (ast.Global, ast.Nonlocal)):
                if name in node.names:
                    yield node
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
                if node.name == name:
                    yield node
            elif isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load):
                yield node


def _spared(callee: Definition, place: int | str, definitions: Definitions, depth: int) -> bool:
    """Whether a function does not go through an argument, as its own source shows."""
    static = "staticmethod" in callee.decorators
    if depth == 0 or set(callee.decorators) - {"staticmethod", "classmethod"}:
        return False
    given = callee.node.args
    positional = [*given.posonlyargs, *given.args]
    rest = given.kwarg
    if isinstance(place, int):
        place += "." in callee.qualname and not static
        argument = positional[place] if place < len(positional) else given.vararg
        rest = given.vararg
    elif place:
        named = [one for one in (*given.args, *given.kwonlyargs) if one.arg == place]
        argument = named[0] if named else given.kwarg
    else:
        return False
    if argument is None:
        return False
    parents = _parents(callee.node)
    uses = [
        node
        for node in ast.walk(callee.node)
        if isinstance(node, ast.Name) and node.id == argument.arg and isinstance(node.ctx, ast.Load)
    ]
    if argument is not rest:
        stays = not any(True for node in ast.walk(callee.node) if _rebinds(node, argument.arg))
        inside = set(own(callee.node))
        if _says(argument.annotation) or (
            stays and any(use in inside and _no_iterator(use, parents) for use in uses)
        ):
            return True
    return all(_passes_by(use, parents, callee, definitions, depth) for use in uses)


def _passes_by(
    node: ast.AST, parents: dict[ast.AST, ast.AST], callee: Definition, definitions: Definitions, depth: int
) -> bool:
    """Whether a use does not go through a value."""
    above = parents.get(node)
    if isinstance(above, ast.Compare):
        places = zip(above.ops, above.comparators, strict=True)
        return not any(side is node and isinstance(op, (ast.In, ast.NotIn)) for op, side in places)
    if isinstance(
        above, (ast.Return, ast.Expr, ast.FormattedValue, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Subscript)
    ):
        return True
    if isinstance(above, (ast.If, ast.While, ast.IfExp)):
        return True
    if isinstance(above, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
        return _passes_by(above, parents, callee, definitions, depth)
    if isinstance(above, ast.Assign):
        return not any(isinstance(target, (ast.Name, ast.Tuple, ast.List)) for target in above.targets)
    if isinstance(above, ast.Attribute):
        call = parents.get(above)
        return above.attr in TEXT_METHODS and isinstance(call, ast.Call) and call.func is above
    call = parents.get(above) if isinstance(above, ast.keyword) else above
    if not isinstance(call, ast.Call) or call.func is node:
        return False
    found = _meant(definitions, callee.path, call.func)
    if found is not None:
        place = next(place for place, given in _given(call) if given is node)
        return not found.generates and _spared(found, place, definitions, depth - 1)
    if isinstance(call.func, ast.Name):
        made = getattr(builtins, call.func.id, None)
        return call.func.id in LOOKS or (isinstance(made, type) and issubclass(made, BaseException))
    return isinstance(call.func, ast.Attribute) and call.func.attr in TAKES


def _no_iterator(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a use would raise if the value were an iterator."""
    above = parents.get(node)
    if isinstance(above, ast.BinOp):
        formats = isinstance(above.op, ast.Mod) and above.right is node
        return not formats
    if isinstance(above, ast.UnaryOp):
        return not isinstance(above.op, ast.Not)
    if isinstance(above, ast.Subscript):
        return above.value is node
    if isinstance(above, ast.Compare):
        known = any(
            isinstance(side, ast.Constant) and side.value is not None
            for side in (above.left, *above.comparators)
        )
        return all(
            isinstance(op, ORDERED) or (known and isinstance(op, (ast.Eq, ast.NotEq))) for op in above.ops
        )
    if isinstance(above, ast.Attribute):
        return above.attr in TEXT_METHODS
    called = above.func if isinstance(above, ast.Call) else None
    return isinstance(called, ast.Name) and called.id in COUNTS and called is not node


def _meant(definitions: Definitions, path: str, called: ast.expr) -> Definition | None:
    """The host's function that a name or a module's attribute means at the top of a file."""
    if not isinstance(called, (ast.Name, ast.Attribute)):
        return None
    dotted = definitions.dotted(path, called)
    return definitions.function(dotted) or definitions.function(f"{module_name(path)}.{dotted}")


def _says(annotation: ast.expr | None) -> bool:
    """Whether an annotation names only types that can be gone through again, or not at all."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return _says(ast.parse(annotation.value, mode="eval").body)
        except SyntaxError:
            return False
    if isinstance(annotation, ast.Constant):
        return annotation.value is None
    if isinstance(annotation, ast.BinOp):
        return _says(annotation.left) and _says(annotation.right)
    if isinstance(annotation, ast.Subscript):
        said = ast.unparse(annotation.value).rpartition(".")[2]
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return said in TYPES and (said not in ("Optional", "Union") or all(map(_says, inner)))
    if isinstance(annotation, (ast.Name, ast.Attribute)):
        return ast.unparse(annotation).rpartition(".")[2] in TYPES
    return False


def _one_pass(node: ast.AST) -> bool:
    """Whether an expression makes an iterator in plain sight."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return isinstance(node, ast.GeneratorExp) or (named and node.func.id not in MAKES)  # type: ignore[attr-defined]


def _stores(tree: ast.AST, attribute: str) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store):
            yield node


def _rebinds(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.arg]:
    given = function.args
    every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
    yield from (argument for argument in every if argument is not None)


def _parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {inner: outer for outer in ast.walk(tree) for inner in ast.iter_child_nodes(outer)}
