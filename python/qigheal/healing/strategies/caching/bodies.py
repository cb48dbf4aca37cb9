"""Walks through a function's body: every node is of a kind that is known to do nothing but compute.

Whatever is met that is on no list raises Unproven. Calls of the host's own functions are handed to a
`Follower`, which knows how to prove those; nothing here starts a proof.
"""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass, field
from typing import Protocol

from qigheal.healing.strategies.caching import allowed
from qigheal.healing.strategies.caching.kinds import (
    Kind,
    Unproven,
    element,
    holding,
    is_literal,
    is_new,
    join,
)
from qigheal.healing.strategies.caching.sources import Module, Sources, Target, bound_in


@dataclass(frozen=True)
class Proof:
    """A function shown to be a pure one of plain values."""

    result: Kind
    floats: str = ""  # what could tell 0.0 from -0.0, or an integer in a tuple from a float


class Follower(Protocol):
    """Proves the host's functions that a body calls."""

    program: Sources

    def function(self, module: Module, function: ast.AST | None, given: dict[str, Kind]) -> Proof: ...


@dataclass
class Body:
    """The proof of one function's body: every node is of a kind that is known to do nothing else."""

    prover: Follower
    module: Module
    function: ast.FunctionDef
    floats: str = ""
    local: set[str] = field(default_factory=set)
    kinds: dict[str, Kind] = field(default_factory=dict)
    results: list[Kind] = field(default_factory=list)

    def proof(self, given: dict[str, Kind]) -> Proof:
        function = self.function
        for decorator in function.decorator_list:
            if not (isinstance(decorator, ast.Name) and decorator.id == "staticmethod"):
                self.refuse(decorator, "it is decorated")
        if "*" in self.module.bindings:
            self.refuse(function, "its file imports everything of another one")
        taken = function.args
        for default in (*taken.defaults, *(d for d in taken.kw_defaults if d is not None)):
            if not isinstance(default, ast.Constant):
                self.refuse(default, "a default is no constant")
        names = [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
        if taken.vararg or taken.kwarg:
            self.refuse(function, "it takes any number of arguments")
        self.local = {*names, *bound_in(function)}
        self.kinds = {name: 0 for name in self.local}  # noqa: C420  of type int | None
        self.kinds |= {name: given.get(name, 0) for name in names}
        # Kinds only rise, from "cannot be changed" on, until nothing changes any more.
        for _ in range(50):
            before = dict(self.kinds)
            self.results = []
            for statement in function.body:
                self.statement(statement)
            if self.kinds == before:
                break
        else:
            self.refuse(function, "what its variables hold cannot be bounded")
        return Proof(join(*self.results), self.floats)

    def refuse(self, node: ast.AST, why: str) -> None:
        raise Unproven(f"{why} ({self.module.path}:{getattr(node, 'lineno', 0)})")

    # Statements

    def statement(self, node: ast.stmt) -> None:  # noqa: PLR0912  a grammar has that many branches
        if isinstance(node, ast.Return):
            self.results.append(0 if node.value is None else self.kind(node.value))
        elif isinstance(node, ast.Assign):
            value = self.kind(node.value)
            for target in node.targets:
                self.assign(target, value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.assign(node.target, self.kind(node.value))
        elif isinstance(node, ast.AugAssign):
            value = self.kind(node.value)
            self.assign(node.target, value)
        elif isinstance(node, ast.For):
            self.assign(node.target, element(self.kind(node.iter)))
            self.block(node.body, node.orelse)
        elif isinstance(node, ast.While | ast.If):
            self.kind(node.test)
            self.block(node.body, node.orelse)
        elif isinstance(node, ast.Try):
            self.block(node.body, node.orelse, node.finalbody)
            for handler in node.handlers:
                if handler.type is not None:
                    self.exception(handler.type)
                if handler.name:
                    self.kinds[handler.name] = None
                self.block(handler.body)
        elif isinstance(node, ast.Raise):
            if node.exc is not None:
                self.exception(node.exc)
            if node.cause is not None:
                self.kind(node.cause)
        elif isinstance(node, ast.Assert):
            self.kind(node.test)
            if node.msg is not None:
                self.kind(node.msg)
        elif isinstance(node, ast.Expr):
            self.kind(node.value)
        elif not isinstance(node, ast.Pass | ast.Break | ast.Continue):
            self.refuse(node, f"a statement of kind {type(node).__name__.lower()}")

    def block(self, *blocks: list[ast.stmt]) -> None:
        for statements in blocks:
            for statement in statements:
                self.statement(statement)

    def exception(self, node: ast.expr) -> None:
        """A built-in exception, made or named, or several."""
        if isinstance(node, ast.Tuple):
            for part in node.elts:
                self.exception(part)
            return
        if isinstance(node, ast.Call):
            for argument in node.args:
                self.kind(argument)
            node = node.func
        if isinstance(node, ast.Name):
            if node.id in self.local:
                return
            kind = getattr(builtins, node.id, None)
            if (
                isinstance(kind, type)
                and issubclass(kind, BaseException)
                and not self.module.bindings.get(node.id)
            ):
                return
        self.refuse(node, "an exception that is not built in")

    def assign(self, target: ast.expr, value: Kind) -> None:
        """A value goes to a variable, into one, or to several."""
        if isinstance(target, ast.Name):
            if target.id not in self.local:
                self.refuse(target, f"it sets {target.id}, which is not its own")
            self.raise_to(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.assign(part, element(value))
        elif isinstance(target, ast.Starred):
            self.assign(target.value, holding(element(value)))
        elif isinstance(target, ast.Subscript):
            if isinstance(target.slice, ast.Slice):
                self.slice(target.slice)
            else:
                self.kind(target.slice)
            self.put(target.value, value)
        else:
            self.refuse(target, "it sets an attribute")

    def put(self, holder: ast.expr, value: Kind) -> None:
        """A value goes into what an expression holds: into a variable of its own, at some depth."""
        depth, node = 1, holder
        while isinstance(node, ast.Subscript):
            self.kind(node.slice)
            depth, node = depth + 1, node.value
        if not isinstance(node, ast.Name) or node.id not in self.local:
            self.refuse(holder, "it changes what is not its own")
            return
        if not self.fresh(node.id):
            self.refuse(holder, f"it changes {node.id}, which may be another name of something else")
        held = value
        for _ in range(depth):
            held = holding(held)
        self.raise_to(node.id, held)

    def fresh(self, name: str) -> bool:
        """Whether a variable is only ever given something new, so that no other name sees it change."""
        given = [
            node.value
            for node in ast.walk(self.function)
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and any(
                isinstance(t, ast.Name) and t.id == name
                for t in (node.targets if isinstance(node, ast.Assign) else [node.target])
            )
        ]
        bound = sum(
            isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
            for node in ast.walk(self.function)
        )
        return bool(given) and bound == len(given) and all(v is not None and is_new(v) for v in given)

    def raise_to(self, name: str, value: Kind) -> None:
        self.kinds[name] = join(self.kinds.get(name, 0), value)

    # Expressions

    def kind(self, node: ast.expr) -> Kind:  # noqa: PLR0912  a grammar has that many branches
        """The kind of an expression's value; raises Unproven where evaluating it may do more."""
        if isinstance(node, ast.Constant):
            return 0
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.BinOp):
            left, right = self.kind(node.left), self.kind(node.right)
            text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str | bytes)
            if isinstance(node.op, ast.Mod) and (text or isinstance(node.left, ast.JoinedStr)):
                self.tells_floats("formatting")
            return join(left, right)
        if isinstance(node, ast.UnaryOp):
            self.kind(node.operand)
            return 0
        if isinstance(node, ast.BoolOp):
            return join(*(self.kind(value) for value in node.values))
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        if isinstance(node, ast.IfExp):
            self.kind(node.test)
            return join(self.kind(node.body), self.kind(node.orelse))
        if isinstance(node, ast.Tuple):
            inside = join(*(self.member(part) for part in node.elts))
            return 0 if inside == 0 else holding(inside)
        if isinstance(node, ast.List | ast.Set):
            return holding(join(*(self.member(part) for part in node.elts)))
        if isinstance(node, ast.Dict):
            kinds = [
                element(self.kind(value)) if key is None else self.kind(value)
                for key, value in zip(node.keys, node.values, strict=True)
            ]
            kinds += [self.kind(key) for key in node.keys if key is not None]
            return holding(join(*kinds))
        if isinstance(node, ast.Subscript):
            held = self.kind(node.value)
            if isinstance(node.slice, ast.Slice):
                self.slice(node.slice)
                return held
            self.kind(node.slice)
            return element(held)
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self.kind(part.value)
                    self.tells_floats("formatting")
            return 0
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self.comprehension(node)
        if isinstance(node, ast.NamedExpr):
            value = self.kind(node.value)
            self.assign(node.target, value)
            return value
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        self.refuse(node, f"an expression of kind {type(node).__name__.lower()}")
        return None

    def member(self, node: ast.expr) -> Kind:
        return element(self.kind(node.value)) if isinstance(node, ast.Starred) else self.kind(node)

    def slice(self, node: ast.Slice) -> None:
        for part in (node.lower, node.upper, node.step):
            if part is not None:
                self.kind(part)

    def comparison(self, node: ast.Compare) -> Kind:
        sides = [node.left, *node.comparators]
        for side in sides:
            self.kind(side)
        for operator, other in zip(node.ops, node.comparators, strict=True):
            constant = isinstance(other, ast.Constant) and other.value in (None, True, False)
            if isinstance(operator, ast.Is | ast.IsNot) and not constant:
                self.refuse(node, "it asks whether two values are one object")
        return 0

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Kind:
        for generator in node.generators:
            if generator.is_async:
                self.refuse(node, "an asynchronous comprehension")
            self.local |= bound_in(generator)
            self.assign(generator.target, element(self.kind(generator.iter)))
            for condition in generator.ifs:
                self.kind(condition)
        if isinstance(node, ast.DictComp):
            return holding(join(self.kind(node.key), self.kind(node.value)))
        return holding(self.kind(node.elt))

    def name(self, node: ast.Name) -> Kind:
        name = node.id
        if name in self.local:
            return self.kinds.get(name, 0)
        if name not in self.module.bindings:
            if name in ("__name__", "__debug__"):
                return 0
            self.refuse(node, f"{name} is used as a value")
        target = self.module.lookup(name)
        return self.global_value(node, target, name)

    def global_value(self, node: ast.AST, target: Target | None, name: str) -> Kind:
        """A variable of a module: fine when it is bound once, to a value that cannot be changed."""
        if target is None:
            self.refuse(node, f"{name} is bound more than once")
            return None
        if target.outside in allowed.CONSTANTS:
            return 0
        if target.node is None or target.module is None:
            self.refuse(node, f"{name} is used as a value")
            return None
        self.not_rebound(node, name)
        value = target.module.binding(name)
        assigned = [
            s.value
            for s in target.module.tree.body
            if isinstance(s, ast.Assign | ast.AnnAssign)
            and any(t is value for t in (s.targets if isinstance(s, ast.Assign) else [s.target]))
        ]
        if len(assigned) != 1 or assigned[0] is None or not is_literal(assigned[0]):
            self.refuse(node, f"{name} is a variable that may change")
        return 0

    def not_rebound(self, node: ast.AST, name: str) -> None:
        if {name, "*"} & self.prover.program.written_attributes:
            self.refuse(node, f"{name} may be set from elsewhere")

    def attribute(self, node: ast.Attribute) -> Kind:
        target = self.target(node)
        if target is not None:
            return self.global_value(node, target, node.attr)
        if node.attr in ("real", "imag", "numerator", "denominator"):
            self.kind(node.value)
            return 0
        self.refuse(node, f"it reads the attribute {node.attr}")
        return None

    def target(self, node: ast.expr) -> Target | None:
        """Where a dotted name leads, when it begins with a name of the module."""
        if isinstance(node, ast.Name):
            if node.id in self.local or node.id not in self.module.bindings:
                return None
            return self.module.lookup(node.id)
        if isinstance(node, ast.Attribute):
            held = self.target(node.value)
            return None if held is None else self.prover.program.attribute(held, node.attr)
        return None

    # Calls

    def call(self, node: ast.Call) -> Kind:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            self.refuse(node, "a call with arguments that are not written out")
        function = node.func
        if isinstance(function, ast.Name) and function.id in self.local:
            self.refuse(node, f"it calls {function.id}, which may be any function")
        target = self.target(function)
        if target is not None and target.module is not None:
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            self.not_rebound(node, name)
            proof = self.prover.function(target.module, target.node, self.passed(node, target.node))
            if proof.floats:
                self.tells_floats(proof.floats)
            return proof.result
        if target is not None:
            return self.outside(node, target.outside)
        if isinstance(function, ast.Name) and function.id not in self.module.bindings:
            return self.builtin(node, function.id)
        if isinstance(function, ast.Attribute) and not self.leads_nowhere(function):
            return self.method(node, function)
        self.refuse(node, "it calls what cannot be followed")
        return None

    def leads_nowhere(self, function: ast.Attribute) -> bool:
        """A dotted name that begins with a global which cannot be followed."""
        node: ast.expr = function
        while isinstance(node, ast.Attribute):
            node = node.value
        return (
            isinstance(node, ast.Name)
            and node.id not in self.local
            and node.id in self.module.bindings
            and not isinstance(self.module.binding(node.id), ast.Name)
        )

    def passed(self, node: ast.Call, function: ast.AST | None) -> dict[str, Kind]:
        """The kinds of a call's arguments by the names that they get."""
        found = {word.arg: self.kind(word.value) for word in node.keywords if word.arg is not None}
        if isinstance(function, ast.FunctionDef):
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
            found |= {name: self.kind(value) for name, value in zip(names, node.args, strict=False)}
        return found

    def given(self, node: ast.Call) -> list[Kind]:
        return [self.kind(a) for a in node.args] + [self.kind(k.value) for k in node.keywords]

    def builtin(self, node: ast.Call, name: str) -> Kind:
        if name in allowed.KEYED:
            key = [k.value for k in node.keywords if k.arg == "key"]
            if any(not self.is_plain_key(k) for k in key):
                self.refuse(node, f"the key of {name} is no built-in function")
            node = ast.Call(
                node.func, node.args, [k for k in node.keywords if k.arg != "key"], lineno=node.lineno
            )
        if name == "map" and node.args:
            self.mapped(node.args[0])
            node = ast.Call(node.func, node.args[1:], [], lineno=node.lineno)
            self.given(node)
            return 1
        kinds = self.given(node)
        if name in allowed.SHOWING:
            self.tells_floats(f"{name}()")
        if name in allowed.PLAIN:
            return 0
        if name in allowed.PICKING:
            among, others = kinds[: len(node.args)], kinds[len(node.args) :]
            if len(among) == 1 or name == "sum":
                among = [element(among[0]), *among[1:]]
            return join(*among, *others)
        if name in ("tuple", "frozenset"):
            inside = join(*(element(kind) for kind in kinds))
            return 0 if inside == 0 else holding(inside)
        if name in allowed.HOLDING:
            return holding(join(0, *(element(kind) for kind in kinds)))
        if name in allowed.PAIRING:
            return holding(join(0, *(element(kind) for kind in kinds)))
        self.refuse(node, f"it calls {name}")
        return None

    def is_plain_key(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in allowed.PLAIN and node.id not in self.module.bindings

    def mapped(self, node: ast.expr) -> None:
        if not self.is_plain_key(node):
            self.refuse(node, "it maps a function that is not built in")
        if isinstance(node, ast.Name) and node.id in allowed.SHOWING:
            self.tells_floats(f"{node.id}()")

    def outside(self, node: ast.Call, name: str) -> Kind:
        self.given(node)
        if name in allowed.SIGN:
            self.tells_floats(name)
        if name.startswith("math.") or name in allowed.PURE:
            return 0
        if name in allowed.FILLED:
            return 1
        if name.startswith("hashlib.") and name in allowed.DIGESTS:
            return 1
        self.refuse(node, f"it calls {name}")
        return None

    def method(self, node: ast.Call, function: ast.Attribute) -> Kind:
        held = self.kind(function.value)
        kinds = self.given(node)
        name = function.attr
        if name in allowed.CHANGING:
            into = join(0, *kinds)
            self.put(function.value, element(into) if name in ("extend", "update") else into)
            return element(held)
        if name in ("format", "hex"):
            self.tells_floats(f".{name}()")
        if name in allowed.PLAIN_METHODS:
            return 0
        if name in allowed.LISTING:
            return holding(element(held) if name in ("keys", "values", "items", "copy", "union") else 0)
        if name in ("get",):
            return join(element(held), *kinds[1:])
        self.refuse(node, f"it calls the method {name}")
        return None

    def tells_floats(self, what: str) -> None:
        self.floats = self.floats or what
