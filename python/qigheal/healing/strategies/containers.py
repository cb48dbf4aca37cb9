"""What a container of the host is used for, proven over the whole program.

Two uses can be bounded: a dict that only remembers results, where a lost entry is computed again, and a
list that only ever grows and that nothing reads. Whatever else is done with a container, and any place
where it could be reached unseen, ends the proof. Nothing is changed or measured here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from qigheal.healing.strategies.program import Function, Program, Source
from qigheal.healing.strategies.repeatable import Body, Kind, Prover, Unproven

ADDS = frozenset(("append", "extend"))
FORGETS = frozenset(("pop", "clear"))
DYNAMIC = frozenset(("globals", "vars", "locals", "eval", "exec", "asdict", "astuple"))
"""What reads names without naming them; a file that calls it may read anything of its own."""

PLAIN_BASES = frozenset(("object", "ABC", "Protocol", "Generic"))


@dataclass(frozen=True, eq=False)
class Place:
    """A container by the name that the program knows it by.

    holder: the class whose attribute it is; None for a name of a module. made: the statement that makes
    it. uses: the expressions that name it elsewhere.
    """

    source: Source
    name: str
    holder: ast.ClassDef | None
    made: ast.Assign | ast.AnnAssign
    uses: tuple[ast.Name | ast.Attribute, ...]


@dataclass(frozen=True, eq=False)
class Store:
    """The one statement that puts something into a dict.

    cache: the dict as it is written there. kind: what is put in. found: the expressions in the function
    that look entries up. threads: whether a key may be gone when it is read, should another thread drop it.
    """

    function: Function
    statement: ast.Assign
    cache: str
    kind: Kind = "data"
    found: tuple[ast.expr, ...] = ()
    threads: bool = False


def locate(program: Program, file: str, qualname: str) -> Place:
    """The container `NAME` or `Class.attribute` of a file. Raises Unproven where it may be reached unseen."""
    source = program.sources.get(file)
    if source is None:
        raise Unproven(None, f"{file} cannot be read")
    owner, _, name = qualname.rpartition(".")
    holder = _holder(program, source, owner, name) if owner else None
    if any(True for _ in _spoken(program, name, holder)):
        raise Unproven(source.tree, f"{name} is also reached by its name as text")
    if other := program.unreadable(name):
        raise Unproven(source.tree, f"{other} may use {name} and cannot be read")
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DYNAMIC:
            raise Unproven(node, f"{node.func.id} may reach {name}")
        if isinstance(node, ast.Attribute) and node.attr == "__dict__":
            raise Unproven(node, f"__dict__ may reach {name}")
    found = tuple(_named(program, source, name, holder))
    made = {node: statement for node in found if (statement := _makes(source, node, holder)) is not None}
    if len(made) != 1:
        raise Unproven(source.tree, f"expected {name} to be made in one place, found {len(made)}")
    [statement] = made.values()
    return Place(source, name, holder, statement, tuple(node for node in found if node not in made))


def _holder(program: Program, source: Source, owner: str, name: str) -> ast.ClassDef:
    """The class that makes the attribute: the named one, or the one above it in the same file."""
    node = source.find(owner)
    if not isinstance(node, ast.ClassDef):
        raise Unproven(source.tree, f"{owner} is no class of {source.path} that can be told apart")
    if node.decorator_list or node.keywords:
        raise Unproven(node, f"{owner} is made by a decorator or metaclass")
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        if (plain.attr if isinstance(plain, ast.Attribute) else ast.unparse(plain)) not in PLAIN_BASES:
            raise Unproven(node, f"a class above {owner} may use {name}")
    return node


def _spoken(program: Program, name: str, holder: ast.ClassDef | None) -> Iterator[ast.AST]:
    for source, node in program.spoken(name):
        around = source.within(node, (ast.Assign, ast.AnnAssign))
        if isinstance(around, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__slots__" for target in around.targets
        ):
            continue
        if isinstance(source.parents.get(node), ast.Expr):
            continue  # a docstring of one word
        yield node


def _named(
    program: Program, source: Source, name: str, holder: ast.ClassDef | None
) -> Iterator[ast.Name | ast.Attribute]:
    """Every expression that names the container. Raises Unproven where one only might."""
    for other in program.sources.values():
        for node in other.nodes:
            if isinstance(node, (ast.ImportFrom, ast.Import)):
                if holder is None and _imports(program, other, node, source, name):
                    raise Unproven(node, f"{other.path} imports {name}")
            elif isinstance(node, ast.Attribute) and node.attr == name:
                if holder is None:
                    raise Unproven(node, f"{other.path} uses an attribute {name}")
                if other is source and _is_me(source, node, holder):
                    yield node
                elif not _is_anothers(other, node, holder):
                    raise Unproven(node, f"{other.path} uses the attribute {name} of something")
            elif isinstance(node, ast.Name) and node.id == name and other is source:
                if holder is None or source.scope(node) is holder:
                    yield node
            elif isinstance(node, ast.arg) and node.arg == name and other is source and holder is None:
                raise Unproven(node, f"an argument is called {name} too")


def _imports(
    program: Program, other: Source, node: ast.ImportFrom | ast.Import, source: Source, name: str
) -> bool:
    if isinstance(node, ast.Import):
        return False  # what is used of the module is an attribute then
    names = {alias.name for alias in node.names}
    if name in names:
        return True
    return "*" in names and program.module(program.imported(other, node)) in (source, None)


def _is_me(source: Source, node: ast.Attribute, holder: ast.ClassDef) -> bool:
    """Whether an attribute is one of the class's own object, or of the class by its name."""
    if not isinstance(node.value, ast.Name):
        return False
    method = source.within(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    while method is not None and source.scope(method) is not holder:
        method = source.within(method, (ast.FunctionDef, ast.AsyncFunctionDef))
    if node.value.id == holder.name and source.only(holder.name) is holder:
        return True
    if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    arguments = [*method.args.posonlyargs, *method.args.args]
    rebound = any(
        isinstance(inner, ast.Name) and inner.id == node.value.id and not isinstance(inner.ctx, ast.Load)
        for inner in ast.walk(method)
    )
    return bool(arguments) and arguments[0].arg == node.value.id and not rebound


def _is_anothers(source: Source, node: ast.Attribute, holder: ast.ClassDef) -> bool:
    """Whether an attribute of the same name belongs to the object of a class that has nothing to do with it."""
    above = source.within(node, ast.ClassDef)
    return (
        isinstance(above, ast.ClassDef)
        and above is not holder
        and not above.bases
        and _is_me(source, node, above)
        and above.name != holder.name
    )


def _makes(
    source: Source, node: ast.Name | ast.Attribute, holder: ast.ClassDef | None
) -> ast.Assign | ast.AnnAssign | None:
    """The statement that makes the container: of a module or class at its top, of an object in __init__."""
    statement = source.parents.get(node)
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or isinstance(node.ctx, ast.Load):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) != 1:
        return None
    if statement.value is None or not is_empty(statement.value, source):
        return None
    if holder is None:
        return statement if statement in source.tree.body else None
    if isinstance(node, ast.Name):
        return statement if statement in holder.body else None
    method = source.parents.get(statement)
    inside = isinstance(method, ast.FunctionDef) and method.name == "__init__"
    return (
        statement if inside and source.scope(statement) is method and _is_me(source, node, holder) else None
    )


def is_empty(value: ast.AST, source: Source) -> bool:
    """Whether an expression is a new, empty dict or list."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("dict", "list")
        and not source.bound.get(value.func.id)
        and not value.args
        and not value.keywords
    )


def only_appended(place: Place) -> None:
    """That nothing reads the list. Raises Unproven."""
    if not place.uses:
        raise Unproven(place.made, f"nothing that can be seen appends to {place.name}")
    for use in place.uses:
        parent = place.source.parents.get(use)
        call = place.source.parents.get(parent) if parent is not None else None
        appended = (
            isinstance(parent, ast.Attribute)
            and parent.attr in ADDS
            and isinstance(call, ast.Call)
            and call.func is parent
            and isinstance(place.source.parents.get(call), ast.Expr)
        )
        added = isinstance(parent, ast.AugAssign) and parent.target is use and isinstance(parent.op, ast.Add)
        if not appended and not added:
            raise Unproven(use, f"{place.name} is read")


def remembered(prover: Prover, place: Place) -> Store:
    """Where the cache takes up results. Raises Unproven unless a lost one is only computed again."""
    stores = [
        Pattern(prover, place, function, uses).proven()
        for function, uses in _by_function(place).items()
        if not all(_forgets(place, use) for use in uses)
    ]
    if len(stores) != 1:
        raise Unproven(place.made, f"expected one function to fill {place.name}, found {len(stores)}")
    return stores[0]


def only_stored(place: Place) -> Store:
    """The one statement that fills a dict which nothing reads. Raises Unproven."""
    stores = []
    for function, uses in _by_function(place).items():
        for use in uses:
            parent = place.source.parents.get(use)
            statement = place.source.parents.get(parent) if isinstance(parent, ast.Subscript) else None
            if isinstance(statement, ast.Assign) and parent in statement.targets:
                stores.append(Store(function, statement, ast.unparse(use)))
            elif not _forgets(place, use):
                raise Unproven(use, f"{place.name} is read")
    if len(stores) != 1:
        raise Unproven(place.made, f"expected one statement to fill {place.name}, found {len(stores)}")
    return stores[0]


def _by_function(place: Place) -> dict[Function, list[ast.Name | ast.Attribute]]:
    functions: dict[Function, list[ast.Name | ast.Attribute]] = {}
    for use in place.uses:
        function = place.source.within(use, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            raise Unproven(use, f"{place.name} is used outside a function")
        functions.setdefault(function, []).append(use)
    return functions


def _forgets(place: Place, use: ast.AST) -> bool:
    """Whether a use drops entries: what every cache must bear. What is dropped is not looked at."""
    parents = place.source.parents
    parent = parents.get(use)
    if isinstance(parent, ast.Attribute) and parent.attr in FORGETS:
        call = parents.get(parent)
        return isinstance(call, ast.Call) and isinstance(parents.get(call), ast.Expr)
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Del)
    return False


class Pattern:
    """One function that looks a key up, computes what is missing, stores it, and gives it back."""

    def __init__(
        self, prover: Prover, place: Place, function: Function, uses: list[ast.Name | ast.Attribute]
    ) -> None:
        self.prover, self.place, self.function, self.uses = prover, place, function, uses
        self.source = place.source
        self.parents = place.source.parents

    def proven(self) -> Store:
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
            kind=self._computed(statement, key, missing),
            found=(*loads, *gets),
            threads=threads,
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

    def _computed(self, store: ast.Assign, key: ast.AST, missing: list[ast.stmt]) -> Kind:
        """What is stored, which must follow from the key alone."""
        parts = key.elts if isinstance(key, ast.Tuple) else [key]
        given = set()
        for part in parts:
            if isinstance(part, ast.Name):
                given |= self._behind(part.id)
            elif not isinstance(part, ast.Constant):
                raise Unproven(key, "expected a key made of names")
        body = Body(self.prover, self.source, self.function, given)
        if self.place.holder is None or self.place.made in self.place.holder.body:
            body.me = ""  # objects share the cache: a result must not follow from one of them
        for statement in missing:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id in given and not isinstance(node.ctx, ast.Load):
                    raise Unproven(node, "the key changes on the way")
        body.run(missing[:-1])
        others = [target for target in store.targets if self.parents.get(self._used(target)) is not target]
        if not all(isinstance(target, ast.Name) for target in others):
            raise Unproven(store, "the result is stored elsewhere too")
        if body.returned:
            raise Unproven(store, "the function may end before the store")
        return body.kind(store.value)

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
