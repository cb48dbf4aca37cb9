"""Whether computing a value again gives another just as good: the proof that a cached one may be dropped.

A proof follows names through the host's own functions, as far as they are made of what is known to
depend on its arguments alone. Clocks, randomness, counters, files, connections, attributes that
change, objects with an identity and everything unknown end it. Taking time is allowed: that is the
price of a lost entry. What is not proven here is not wrong, only unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.hostcode.reflection import sets
from qigheal.healing.strategies.bounding.known import (
    CHANGING_METHODS,
    CONSTRUCTORS,
    DATA_BUILTINS,
    DRAWING_METHODS,
    EXCEPT,
    FINDING_METHODS,
    FLAT_FUNCTIONS,
    FRESH_FUNCTIONS,
    FRESH_MODULES,
    HOLDING_BUILTINS,
    LISTING_METHODS,
    PURE_FUNCTIONS,
    PURE_MODULES,
    READING_METHODS,
    STREAM_BUILTINS,
    STREAM_MODULES,
    TELLING_METHODS,
    TEXT_METHODS,
)
from qigheal.healing.strategies.bounding.settled import constant, own_method, settled

Kind = Literal["data", "given", "flat", "stream", "object"]
"""What a value is: immutable; an argument, or part of one or of a container; a fresh container of such; an
iterator over such; another fresh object. Later ones ask for more care, see `worst`."""

RANK: dict[Kind, int] = {"data": 0, "given": 1, "flat": 2, "stream": 3, "object": 4}
TEXTS = ("str", "bytes")
CACHES = ("functools.cache", "functools.lru_cache")


class Unproven(Exception):
    """Says where a proof ends."""

    def __init__(self, node: ast.AST | None, why: str) -> None:
        line = getattr(node, "lineno", None)
        super().__init__(why if line is None else f"line {line}: {why}")


def worst(kinds: Iterable[Kind]) -> Kind:
    return max(kinds, key=RANK.__getitem__, default="data")


def element(found: Kind) -> Kind:
    """What a container's or iterator's parts are."""
    return "given" if found in ("flat", "stream") else found


def held(kinds: Iterable[Kind], *, made: bool) -> Kind:
    """A tuple, or a container made on the spot, of such parts."""
    found = worst(kinds)
    if not made:
        return found
    return "flat" if RANK[found] <= RANK["given"] else "object"


@dataclass
class Prover:
    """Proofs about one program; what was proven of a function is remembered."""

    program: Program
    known: dict[ast.AST, Kind] = field(default_factory=dict)

    def function(self, source: Source, node: Function) -> Kind:
        """What a function gives when it depends on its arguments alone. Raises Unproven.

        A method's `self` counts as an argument whose attributes must stand still.
        """
        if node in self.known:
            return self.known[node]
        self.known[node] = "data"  # for calls of itself; the rest of it decides
        try:
            body = Body(self, source, node)
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None and Body(self, source, node, ()).kind(default) != "data":
                    raise Unproven(default, "a default is one object for all calls, and may change")
            body.run(node.body)
        except (Unproven, RecursionError):
            del self.known[node]
            raise
        self.known[node] = worst(body.returned)
        return self.known[node]


class Body(ast.NodeVisitor):
    """The proof of one stretch of code. Expressions are visited for what they are, see `Kind`."""

    def __init__(
        self, prover: Prover, source: Source, function: Function, given: Iterable[str] | None = None
    ) -> None:
        """given: the names that the stretch may use of what was bound before it; None: the arguments."""
        self.prover, self.source, self.owner = prover, source, function
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [rest for rest in (arguments.vararg, arguments.kwarg) if rest is not None]
        self.locals = {argument.arg for argument in every} | {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        }
        self.outer = {
            name
            for node in ast.walk(function)
            if isinstance(node, (ast.Global, ast.Nonlocal))
            for name in node.names
        }
        names = [argument.arg for argument in every] if given is None else given
        self.kinds: dict[str, Kind] = dict.fromkeys(names, "given")
        self.returned: list[Kind] = []
        holder = source.scope(function)
        self.holder = holder if isinstance(holder, ast.ClassDef) else None
        self.me = every[0].arg if self.holder is not None and every else ""

    def run(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def kind(self, node: ast.AST) -> Kind:
        """What an expression is. Raises Unproven where it may be another one the next time."""
        found: Kind = self.visit(node)
        return found

    def _kinds(self, nodes: Sequence[ast.AST | None]) -> list[Kind]:
        return [self.kind(node) for node in nodes if node is not None]

    def generic_visit(self, node: ast.AST) -> Kind:
        raise Unproven(node, f"{type(node).__name__} is not followed")

    # Statements

    def visit_Return(self, node: ast.Return) -> None:
        self.returned.append(self.kind(node.value) if node.value is not None else "data")

    def visit_Assign(self, node: ast.Assign) -> None:
        found = self.kind(node.value)
        for target in node.targets:
            self._bind(target, found)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.kind(node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        before = self._name(node.target) if isinstance(node.target, ast.Name) else "object"
        self._bind(node.target, worst((self.kind(node.value), before)))

    def visit_Expr(self, node: ast.Expr) -> None:
        self.kind(node.value)

    def visit_If(self, node: ast.If) -> None:
        self.kind(node.test)
        self.run([*node.body, *node.orelse])

    def visit_While(self, node: ast.While) -> None:
        for _ in range(2):  # the second turn may find other kinds than the first
            self.kind(node.test)
            self.run(node.body)
        self.run(node.orelse)

    def visit_For(self, node: ast.For) -> None:
        for _ in range(2):
            self._bind(node.target, element(self.kind(node.iter)))
            self.run(node.body)
        self.run(node.orelse)

    def visit_Assert(self, node: ast.Assert) -> None:
        self._kinds([node.test, node.msg])

    def visit_Raise(self, node: ast.Raise) -> None:
        self._kinds([node.exc, node.cause])

    def visit_Pass(self, node: ast.Pass | ast.Break | ast.Continue) -> None:
        """Nothing happens."""

    visit_Break = visit_Continue = visit_Pass

    def _bind(self, target: ast.AST, found: Kind) -> None:
        if isinstance(target, ast.Name) and target.id not in self.outer:
            self.kinds[target.id] = worst((found, self.kinds.get(target.id, "data")))
        elif isinstance(target, (ast.Tuple, ast.List)):
            for inner in target.elts:
                self._bind(inner, element(found))
        elif isinstance(target, ast.Starred):
            self._bind(target.value, held([element(found)], made=True))
        elif isinstance(target, ast.Subscript) and self.kind(target.value) in ("flat", "object"):
            self.kind(target.slice)
            self._grows(target.value, found)
        else:
            raise Unproven(target, "something from outside is changed")

    def _grows(self, holder: ast.AST, found: Kind) -> None:
        """A container made here takes up a value: it may be no longer one of immutable values."""
        if isinstance(holder, ast.Name) and RANK[found] >= RANK["flat"]:
            self.kinds[holder.id] = "object"

    # Expressions

    def visit_Constant(self, node: ast.Constant) -> Kind:
        return "data"

    def visit_Name(self, node: ast.Name) -> Kind:
        return self._name(node)

    def visit_Await(self, node: ast.Await) -> Kind:
        return self.kind(node.value)

    def visit_Tuple(self, node: ast.Tuple) -> Kind:
        return held(self._kinds(node.elts), made=False)

    def visit_List(self, node: ast.List | ast.Set) -> Kind:
        return held(self._kinds(node.elts), made=True)

    visit_Set = visit_List

    def visit_Dict(self, node: ast.Dict) -> Kind:
        return held(self._kinds([*node.keys, *node.values]), made=True)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Kind:
        found = self.kind(node.value)
        self._bind(node.target, found)
        return found

    def _plain(self, node: ast.AST) -> Kind:
        self._kinds([part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)])
        return "data"

    visit_JoinedStr = visit_FormattedValue = visit_Compare = _plain

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Kind:
        found = self.kind(node.operand)
        return "data" if found == "given" or isinstance(node.op, ast.Not) else found

    def visit_Subscript(self, node: ast.Subscript) -> Kind:
        self.kind(node.slice)
        found = self.kind(node.value)
        return found if isinstance(node.slice, ast.Slice) else element(found)

    def visit_BinOp(self, node: ast.BinOp) -> Kind:
        found = worst((self.kind(node.left), self.kind(node.right)))
        return "data" if found == "given" else found

    def _either(self, node: ast.AST) -> Kind:
        return worst(self._kinds([part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]))

    visit_BoolOp = visit_IfExp = visit_Slice = visit_Starred = _either

    def visit_Lambda(self, node: ast.Lambda) -> Kind:
        given = node.args
        for default in (*given.defaults, *given.kw_defaults):
            if default is not None and self.kind(default) != "data":
                raise Unproven(default, "a default is one object for all calls, and may change")
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        with self._inner(argument.arg for argument in every if argument is not None) as names:
            self.kinds.update(dict.fromkeys(names, "given"))
            self.kind(node.body)
        return "object"

    @contextmanager
    def _inner(self, names: Iterable[str]) -> Iterator[frozenset[str]]:
        """The names of a comprehension or a lambda, which mean something else around it."""
        own = frozenset(names)
        before = {name: self.kinds[name] for name in own if name in self.kinds}
        yield own
        for name in own:
            self.kinds.pop(name, None)
        self.kinds.update(before)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> Kind:
        targets = [inner for turn in node.generators for inner in ast.walk(turn.target)]
        with self._inner(inner.id for inner in targets if isinstance(inner, ast.Name)):
            for turn in node.generators:
                self._bind(turn.target, element(self.kind(turn.iter)))
                self._kinds(turn.ifs)
            parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
            found = held(self._kinds(parts), made=True)
        return "stream" if found == "flat" and isinstance(node, ast.GeneratorExp) else found

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _name(self, node: ast.Name) -> Kind:
        if node.id in self.kinds:
            return self.kinds[node.id]
        if node.id in self.locals:
            raise Unproven(node, f"{node.id} does not follow from the key")
        if not constant(self.prover.program, self.source, node):
            raise Unproven(node, f"{node.id} may change")
        return "data"

    def visit_Attribute(self, node: ast.Attribute) -> Kind:
        program = self.prover.program
        if isinstance(node.value, ast.Name) and node.value.id == self.me and self.holder is not None:
            if settled(program, self.source, self.holder, node.attr):
                return "data"
        elif isinstance(node.value, ast.Name) and node.value.id not in self.locals:
            above, _, _ = (program.origin(self.source, node) or "").rpartition(".")
            inner = program.module(above) if above else None
            if inner is None and above in PURE_MODULES:
                return "data"  # such as math.pi
            if inner is not None and constant(program, inner, ast.Name(node.attr, ast.Load())):
                return "data"
        raise Unproven(node, f"the attribute {node.attr} may change")

    # Calls

    def visit_Call(self, node: ast.Call) -> Kind:
        given = []
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            if isinstance(argument, ast.Name) and self._is_builtin(argument.id, DATA_BUILTINS):
                continue  # such as map(str, …)
            found = self.kind(argument)
            if not isinstance(argument, ast.Lambda):
                given.append(found)
        called, program = node.func, self.prover.program
        if isinstance(called, ast.Name) and called.id in self.locals:
            raise Unproven(node, f"what {called.id} is cannot be told")
        own = program.defined(self.source, called)
        if own is not None:
            return self._own(node, *own, given)
        if isinstance(called, ast.Name) and self.source.builtin(called.id):
            return self._builtin(node, called.id, [element(kind) for kind in given])
        dotted = program.origin(self.source, called)
        if dotted is not None and program.module(dotted.rpartition(".")[0]) is None:
            return self._library(node, dotted)
        if isinstance(called, ast.Attribute):
            return self._method(node, called, given)
        raise Unproven(node, f"what {ast.unparse(called)[:60]} does is not known")

    def _is_builtin(self, name: str, known: frozenset[str]) -> bool:
        return name in known and name not in self.locals and self.source.builtin(name)

    def _builtin(self, node: ast.Call, name: str, elements: list[Kind]) -> Kind:
        if name in DATA_BUILTINS:
            return worst(elements) if name in ("max", "min", "sum") else "data"
        if name in HOLDING_BUILTINS:
            return held(elements, made=name not in ("tuple", "frozenset"))
        if name in STREAM_BUILTINS:
            return "stream" if RANK[worst(elements)] <= RANK["given"] else "object"
        if name.endswith(("Error", "Exception")):
            return "object"
        raise Unproven(node, f"what {name} does is not known")

    def _own(self, node: ast.Call, source: Source, called: ast.AST, given: list[Kind]) -> Kind:
        if not isinstance(called, (ast.FunctionDef, ast.AsyncFunctionDef)):
            raise Unproven(node, f"it makes an object of the host's: {ast.unparse(node.func)[:60]}")
        for decorator in called.decorator_list:
            asked = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.prover.program.origin(source, asked) not in CACHES:
                raise Unproven(node, f"{called.name} is decorated by something unknown")
        self._stays(source, called.name, node)
        found = self.prover.function(source, called)
        return worst((found, *given)) if found == "given" else found

    def _stays(self, source: Source, name: str, call: ast.Call) -> None:
        """That nobody puts another function in the place of the one called. Raises Unproven."""
        spelled = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        for where, known in ((source, name), (self.source, spelled)):
            holder = where.scope(where.only(known) or where.tree)
            why = sets(
                self.prover.program, where, known, holder if isinstance(holder, ast.ClassDef) else None
            )
            if why:
                raise Unproven(call, why)

    def _library(self, node: ast.Call, dotted: str) -> Kind:
        module, _, name = dotted.rpartition(".")
        if name in self.prover.program.stores:
            raise Unproven(node, f"something is put in the place of {name}")
        unseeded = dotted == "random.Random" and not node.args
        if dotted in EXCEPT or unseeded:
            raise Unproven(node, f"{dotted} does not depend on its arguments alone")
        if module in PURE_MODULES or dotted in PURE_FUNCTIONS:
            return "data"
        if dotted in FLAT_FUNCTIONS:
            return "flat"
        if module in STREAM_MODULES:
            return "stream"
        if module in FRESH_MODULES or dotted in FRESH_FUNCTIONS:
            return "object"
        raise Unproven(node, f"{dotted} is not known to depend on its arguments alone")

    def _method(self, node: ast.Call, called: ast.Attribute, given: list[Kind]) -> Kind:
        if isinstance(called.value, ast.Name):
            if called.value.id == self.me and self.holder is not None:
                method = own_method(self.prover.program, self.source, self.holder, called.attr)
                if method is None:
                    raise Unproven(node, f"which {called.attr} is called cannot be told")
                return self._own(node, self.source, method, given)
            if f"{called.value.id}.{called.attr}" in CONSTRUCTORS:
                return "data"
        receiver = self.kind(called.value)
        text = called.attr in TEXT_METHODS or (called.attr in FINDING_METHODS and self._is_text(called.value))
        if receiver == "given" and not text:
            raise Unproven(node, f"what {called.attr} does to an argument is not known")
        if called.attr in CHANGING_METHODS and receiver in ("flat", "object"):
            self._grows(called.value, worst(given))
            return element(receiver)
        if called.attr in DRAWING_METHODS and receiver == "object":
            return "data"
        if called.attr in LISTING_METHODS:
            return "object" if receiver == "object" else "flat"
        if called.attr in TEXT_METHODS or called.attr in TELLING_METHODS:
            return "data"
        if called.attr in READING_METHODS:
            return element(receiver)
        raise Unproven(node, f"what {called.attr} does is not known")

    def _is_text(self, node: ast.AST) -> bool:
        """Whether an expression is an argument that is said to be text, and stays what it was given."""
        if not isinstance(node, ast.Name):
            return False
        given = self.owner.args
        own = [one for one in (*given.posonlyargs, *given.args, *given.kwonlyargs) if one.arg == node.id]
        every = [one for one in ast.walk(self.owner) if isinstance(one, ast.arg) and one.arg == node.id]
        said = own[0].annotation if own and own == every else None
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            said = ast.Name(said.value, ast.Load())
        stays = not any(
            isinstance(inner, ast.Name) and inner.id == node.id and not isinstance(inner.ctx, ast.Load)
            for inner in ast.walk(self.owner)
        )
        return stays and isinstance(said, ast.Name) and said.id in TEXTS and self.source.builtin(said.id)
