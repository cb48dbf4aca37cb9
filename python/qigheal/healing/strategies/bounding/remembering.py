"""Dicts that only remember results, where a lost entry is computed again: the known ways to write one.

A function looks a key up, computes what is missing from that key alone, stores it, and gives it back.
Between finding a key and reading its entry nothing may happen that could drop it. Any other way of using
the dict ends the proof.
"""

from __future__ import annotations

import ast

from qigheal.healing.hostcode.program import Function
from qigheal.healing.strategies.bounding.containers import Place, Store, by_function, forgets
from qigheal.healing.strategies.bounding.repeatable import Body, Kind, Prover, Unproven


def remembered(prover: Prover, place: Place) -> Store:
    """Where the cache takes up results. Raises Unproven unless a lost one is only computed again."""
    stores = [
        Pattern(prover, place, function, uses).proven()
        for function, uses in by_function(place).items()
        if not all(forgets(place, use) for use in uses)
    ]
    if len(stores) != 1:
        raise Unproven(place.made, f"expected one function to fill {place.name}, found {len(stores)}")
    return stores[0]


class Pattern:
    """One function that looks a key up, computes what is missing, stores it, and gives it back."""

    def __init__(
        self, prover: Prover, place: Place, function: Function, uses: list[ast.Name | ast.Attribute]
    ) -> None:
        self.prover, self.place, self.function, self.uses = prover, place, function, uses
        self.source = place.source
        self.parents = place.source.parents

    def proven(self) -> Store:
        if (default := self._by_default()) is not None:
            return default
        stores, tests, loads, gets = [], [], [], []
        keys = []
        for use in self.uses:
            parent = self.parents.get(use)
            if isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store):
                stores.append(parent)
                keys.append(parent.slice)
            elif isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Load):
                loads.append(parent)
                keys.append(parent.slice)
            elif isinstance(parent, ast.Compare) and _is_test(parent, use):
                tests.append(parent)
                keys.append(parent.left)
            elif (call := self._got(parent)) is not None:
                gets.append(call)
                keys.append(call.args[0])
            else:
                raise Unproven(use, f"{self.place.name} is used for more than looking up and storing")
        if len(stores) != 1 or len({ast.dump(key) for key in keys}) != 1:
            raise Unproven(self.function, f"expected one store into {self.place.name}, by the key looked up")
        store, key = stores[0], keys[0]
        statement = self.parents.get(store)
        if not isinstance(statement, ast.Assign):
            raise Unproven(store, "the store is no plain assignment")
        missing, threads = self._shape(statement, tests, loads, gets)
        return Store(
            function=self.function,
            statement=statement,
            cache=ast.unparse(store.value),
            kind=self._computed(statement, statement.value, key, missing),
            found=(*loads, *gets),
            parts=(*statement.targets, statement.value),
            threads=threads,
        )

    def _by_default(self) -> Store | None:
        """`D.setdefault(key, value)` as the function's only use of it, in a plain statement of its own."""
        method = self.parents.get(self.uses[0])
        call = self.parents.get(method) if isinstance(method, ast.Attribute) else None
        if len(self.uses) != 1 or not isinstance(method, ast.Attribute) or method.attr != "setdefault":
            return None
        if not isinstance(call, ast.Call) or call.func is not method or call.keywords or len(call.args) != 2:
            raise Unproven(method, "expected setdefault with a key and a value")
        statement = self.source.within(call, ast.stmt)
        if not isinstance(statement, (ast.Return, ast.Assign, ast.Expr)):
            raise Unproven(call, "expected setdefault in a plain statement")
        inner = self.source.within(
            call, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
        )
        if inner is not None and inner in ast.walk(statement):
            raise Unproven(call, "expected setdefault in a plain statement")
        block, position = self._block(statement)
        key, value = call.args
        return Store(
            function=self.function,
            statement=statement,
            cache=ast.unparse(method.value),
            kind=self._computed(statement, value, key, block[: position + 1]),
            found=(call,),
            parts=(value,),
        )

    def _got(self, parent: ast.AST | None) -> ast.Call | None:
        """`D.get(key)`, without a default or with None."""
        call = (
            self.parents.get(parent) if isinstance(parent, ast.Attribute) and parent.attr == "get" else None
        )
        if not isinstance(call, ast.Call) or call.func is not parent or call.keywords or not call.args:
            return None
        rest = call.args[1:]
        return call if not rest or (len(rest) == 1 and _is_none(rest[0])) else None

    def _shape(
        self, store: ast.Assign, tests: list[ast.Compare], loads: list[ast.Subscript], gets: list[ast.Call]
    ) -> tuple[list[ast.stmt], bool]:
        """The statements that run when the key is missing, up to the store, and whether a thread could get in
        between. Raises Unproven for any other shape than those that are known."""
        block, position = self._block(store)
        if gets and not tests and not loads and len(gets) == 1:
            return self._by_get(gets[0], block, position), False
        if loads and not tests and not gets:
            return self._by_exception(block, position, loads), False
        if len(tests) == 1 and not gets:
            return self._by_test(tests[0], block, position, loads), True
        raise Unproven(store, "this way of looking up is not known")

    def _block(self, statement: ast.stmt) -> tuple[list[ast.stmt], int]:
        above = self.parents[statement]
        for name in ("body", "orelse", "finalbody"):
            block = getattr(above, name, None)
            if isinstance(block, list) and statement in block:
                return block, block.index(statement)
        raise Unproven(statement, "the store stands in no block")

    def _by_get(self, get: ast.Call, block: list[ast.stmt], position: int) -> list[ast.stmt]:
        """`v = D.get(k)`, then `if v is None:` compute and store, or `if v is not None: return v` before."""
        bound = self.parents.get(get)
        if (
            isinstance(bound, ast.Assign)
            and len(bound.targets) == 1
            and isinstance(bound.targets[0], ast.Name)
        ):
            name = bound.targets[0].id
            follows, at = self._block(bound)
            following = follows[at + 1] if at + 1 < len(follows) else None
            branch = following if isinstance(following, ast.If) else None
        elif isinstance(bound, ast.NamedExpr):
            name = bound.target.id
            above = self.source.within(bound, ast.stmt)
            branch = above if isinstance(above, ast.If) else None
            follows, at = self._block(branch) if branch is not None else ([], 0)
            at -= 1
        else:
            raise Unproven(get, "what is looked up is not kept in a local name")
        asked = _asked_for_none(branch.test, name) if branch is not None and not branch.orelse else None
        if branch is None or asked is None:
            raise Unproven(get, "expected a test for None after looking up")
        if isinstance(asked, ast.Is) and branch.body is block:
            return block[: position + 1]
        if isinstance(asked, ast.IsNot) and follows is block and _leaves(branch.body):
            return block[at + 2 : position + 1]
        raise Unproven(branch, "the store is not where the key is missing")

    def _by_exception(
        self, block: list[ast.stmt], position: int, loads: list[ast.Subscript]
    ) -> list[ast.stmt]:
        """`try: return D[k]`, `except KeyError:` compute and store, in the handler or after it."""
        tries = {self.source.within(load, ast.Try) for load in loads}
        attempt = tries.pop() if len(tries) == 1 else None
        if (
            not isinstance(attempt, ast.Try)
            or len(attempt.handlers) != 1
            or attempt.finalbody
            or attempt.orelse
            or len(attempt.body) != 1
            or len(loads) != 1
            or not isinstance(attempt.body[0], (ast.Return, ast.Assign))
            or attempt.body[0].value is not loads[0]
        ):
            raise Unproven(loads[0], "a key that is gone would raise here")
        handler = attempt.handlers[0]
        if not isinstance(handler.type, ast.Name) or handler.type.id != "KeyError":
            raise Unproven(handler, "expected a handler of KeyError alone")
        if handler.body is block:
            return block[: position + 1]
        follows, at = self._block(attempt)
        if follows is block and isinstance(attempt.body[0], ast.Return) and _does_nothing(handler.body):
            return block[at + 1 : position + 1]
        raise Unproven(attempt, "the store is not where the key is missing")

    def _by_test(
        self, test: ast.Compare, block: list[ast.stmt], position: int, loads: list[ast.Subscript]
    ) -> list[ast.stmt]:
        """`if k not in D:` compute and store, then `D[k]`; or `if k in D: return D[k]` first."""
        branch = self.parents.get(test)
        if not isinstance(branch, ast.If) or branch.test is not test:
            raise Unproven(test, "expected the test to decide alone")
        follows, at = self._block(branch)
        absent = isinstance(test.ops[0], ast.NotIn)
        if absent and branch.body is block:
            missing = block[: position + 1]
            if not branch.orelse:
                self._read_at_once(loads, follows[at + 1 : at + 2], block[position + 1 :])
            else:
                self._read_at_once(loads, branch.orelse[:1], block[position + 1 :])
            return missing
        if not absent and branch.orelse is block:
            self._read_at_once(loads, branch.body[:1], block[position + 1 :])
            return block[: position + 1]
        if not absent and follows is block and _leaves(branch.body) and not branch.orelse:
            self._read_at_once(loads, branch.body[:1], block[position + 1 :])
            return block[at + 1 : position + 1]
        raise Unproven(branch, "the store is not where the key is missing")

    def _read_at_once(
        self, loads: list[ast.Subscript], first: list[ast.stmt], stored: list[ast.stmt]
    ) -> None:
        """That entries are read straight after the test, or after the store, with nothing in between that
        could drop one."""
        for load in loads:
            statement = self.source.within(load, ast.stmt)
            if statement in first and _calms(statement, load):
                continue
            if stored and statement is stored[0] and _calms(statement, load):
                continue
            raise Unproven(load, "something may drop the entry before it is read here")

    def _computed(self, store: ast.stmt, value: ast.expr, key: ast.AST, missing: list[ast.stmt]) -> Kind:
        """What is stored, which must follow from the key alone."""
        parts = key.elts if isinstance(key, ast.Tuple) else [key]
        given = set()
        for part in parts:
            if isinstance(part, ast.Name):
                given |= self._behind(part.id)
            elif not isinstance(part, ast.Constant):
                raise Unproven(key, "expected a key made of names")
        body = Body(self.prover, self.source, self.function, given)
        if self.place.shared:
            body.me = ""  # objects share the cache: a result must not follow from one of them
        for statement in missing:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id in given and not isinstance(node.ctx, ast.Load):
                    raise Unproven(node, "the key changes on the way")
        body.run(missing[:-1])
        targets = store.targets if isinstance(store, ast.Assign) and store.value is value else []
        others = [target for target in targets if self.parents.get(self._used(target)) is not target]
        if not all(isinstance(target, ast.Name) for target in others):
            raise Unproven(store, "the result is stored elsewhere too")
        if body.returned:
            raise Unproven(store, "the function may end before the store")
        return body.kind(value)

    def _used(self, target: ast.AST) -> ast.AST:
        return target.value if isinstance(target, ast.Subscript) and target.value in self.uses else target

    def _behind(self, name: str) -> set[str]:
        """The names that a key's name stands for: itself, and the parts of the tuple that it was made of."""
        found = {name}
        made = [
            self.parents.get(node)
            for node in ast.walk(self.function)
            if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
        ]
        if len(made) == 1 and isinstance(made[0], ast.Assign) and isinstance(made[0].value, ast.Tuple):
            parts = made[0].value.elts
            bound = [
                node.id
                for node in ast.walk(self.function)
                if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
            ]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
            if not set(names) & set(bound):
                found |= set(names)
        return found


def _is_test(node: ast.Compare, use: ast.AST) -> bool:
    return len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)) and node.comparators[0] is use


def _asked_for_none(test: ast.AST, name: str) -> ast.cmpop | None:
    """The operator of `name is None` and `name is not None`; None for any other test."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not _is_none(test.comparators[0]):
        return None
    left = test.left.target if isinstance(test.left, ast.NamedExpr) else test.left
    return test.ops[0] if isinstance(left, ast.Name) and left.id == name else None


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], (ast.Return, ast.Raise))


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(statement, ast.Pass) for statement in body)


def _calms(statement: ast.AST | None, load: ast.AST) -> bool:
    """Whether a statement reads the entry before it calls or awaits anything else, or calls nothing."""
    inside = [
        node for node in ast.walk(statement or load) if isinstance(node, (ast.Call, ast.Await, ast.Yield))
    ]
    return isinstance(statement, (ast.Return, ast.Assign, ast.AnnAssign)) and (
        not inside or statement.value is load
    )
