"""What a container of the host is used for, proven over the whole program.

Where it is named, and what is only ever filled and never read. Any place where a container could be
reached unseen ends the proof. Nothing is changed or measured here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from qigheal.healing.hostcode.program import Function, Program, Source
from qigheal.healing.hostcode.reflection import reads
from qigheal.healing.strategies.bounding.fields import is_dataclass, is_empty_field, stay_home
from qigheal.healing.strategies.bounding.plain import Plain
from qigheal.healing.strategies.bounding.repeatable import Kind, Prover, Unproven

ADDS = frozenset(("append", "extend"))
FORGETS = frozenset(("pop", "clear"))
DEFAULTS = frozenset(("int", "float", "str", "list", "set", "dict"))
PLAIN_BASES = frozenset(("object", "ABC", "Protocol", "Generic"))


@dataclass(frozen=True, eq=False)
class Place:
    """A container by the name that the program knows it by.

    holder: the class whose attribute it is; None for a name of a module. made: the statement that makes
    it. uses: the expressions that name it elsewhere. field: it is a dataclass's, made with each object.
    """

    source: Source
    name: str
    holder: ast.ClassDef | None
    made: ast.Assign | ast.AnnAssign
    uses: tuple[ast.Name | ast.Attribute, ...]
    field: bool = False

    @property
    def shared(self) -> bool:
        """Whether all objects of the class have one and the same."""
        return self.holder is None or (self.made in self.holder.body and not self.field)


@dataclass(frozen=True, eq=False)
class Store:
    """The one statement that puts something into a dict.

    cache: the dict as it is written there. kind: what is put in. found: the expressions in the function
    that look entries up. parts: what else of the statement holds the value. threads: whether a key may be gone
    when it is read, should another thread drop it.
    """

    function: Function
    statement: ast.stmt
    cache: str
    kind: Kind = "data"
    found: tuple[ast.expr, ...] = ()
    parts: tuple[ast.expr, ...] = ()
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
    if other := program.mentioned(name):
        raise Unproven(source.tree, f"{other} may name {name}")
    if why := reads(program, source, name, holder):
        raise Unproven(None, why)
    found = tuple(_named(program, source, name, holder))
    made = {
        node: statement for node in found if (statement := _makes(program, source, node, holder)) is not None
    }
    if len(made) != 1:
        raise Unproven(source.tree, f"expected {name} to be made in one place, found {len(made)}")
    [statement] = made.values()
    if holder is not None and holder.decorator_list:
        stay_home(program, source, holder, name)
    uses = tuple(node for node in found if node not in made)
    return Place(source, name, holder, statement, uses, is_empty_field(program, source, statement.value))


def _holder(program: Program, source: Source, owner: str, name: str) -> ast.ClassDef:
    """The class that makes the attribute: the named one, or the one above it in the same file."""
    node = source.find(owner)
    if not isinstance(node, ast.ClassDef):
        raise Unproven(source.tree, f"{owner} is no class of {source.path} that can be told apart")
    if node.keywords or (node.decorator_list and not is_dataclass(program, source, node)):
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
    yield from program.templated(name)


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
            elif isinstance(node, ast.MatchClass) and name in node.kwd_attrs:
                raise Unproven(node, f"{other.path} matches the attribute {name} of something")
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
    program: Program, source: Source, node: ast.Name | ast.Attribute, holder: ast.ClassDef | None
) -> ast.Assign | ast.AnnAssign | None:
    """The statement that makes the container: of a module or class at its top, of an object in __init__."""
    statement = source.parents.get(node)
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or isinstance(node.ctx, ast.Load):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) != 1:
        return None
    if statement.value is None:
        return None
    field = isinstance(node, ast.Name) and holder is not None and statement in holder.body
    empty = is_empty(statement.value, source) or makes_defaults(program, source, statement.value)
    if not empty and not (field and is_empty_field(program, source, statement.value)):
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
        and source.builtin(value.func.id)
        and not value.args
        and not value.keywords
    )


def makes_defaults(program: Program, source: Source, value: ast.AST | None) -> bool:
    """Whether an expression is a new `defaultdict` whose entries begin as numbers, text or empty."""
    return (
        isinstance(value, ast.Call)
        and len(value.args) == 1
        and not value.keywords
        and isinstance(value.args[0], ast.Name)
        and value.args[0].id in DEFAULTS
        and source.builtin(value.args[0].id)
        and program.origin(source, value.func) == "collections.defaultdict"
    )


def only_appended(prover: Prover, place: Place) -> None:
    """That nothing reads the list, and that it keeps nothing alive but plain data. Raises Unproven."""
    plain = Plain(prover, place.source)
    said = _holds_plain(plain, place)
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
        if isinstance(parent, ast.AugAssign):
            shown = plain.parts(parent.value)
        elif isinstance(parent, ast.Attribute) and isinstance(call, ast.Call):
            told = plain.parts if parent.attr == "extend" else plain.shown
            shown = all(map(told, call.args))
        if not said and not shown:
            raise Unproven(
                use, f"what {place.name} takes up is not shown to be plain data, and may have to stay"
            )


def _holds_plain(plain: Plain, place: Place) -> bool:
    """Whether the container is annotated as one of plain data."""
    annotation = place.made.annotation if isinstance(place.made, ast.AnnAssign) else None
    return isinstance(annotation, ast.Subscript) and plain.annotated(annotation)


def only_stored(prover: Prover, place: Place) -> Store:
    """The one statement that fills a dict of plain data which nothing reads. Raises Unproven."""
    plain = Plain(prover, place.source)
    said = _holds_plain(plain, place)
    stores = []
    for function, uses in by_function(place).items():
        for use in uses:
            parent = place.source.parents.get(use)
            statement = place.source.parents.get(parent) if isinstance(parent, ast.Subscript) else None
            if (
                isinstance(parent, ast.Subscript)
                and isinstance(statement, ast.Assign)
                and parent in statement.targets
            ):
                if not said and not (plain.shown(parent.slice) and plain.shown(statement.value)):
                    raise Unproven(
                        use, f"what {place.name} takes up is not shown to be plain data, and may have to stay"
                    )
                stores.append(Store(function, statement, ast.unparse(use)))
            elif not forgets(place, use):
                raise Unproven(use, f"{place.name} is read")
    if len(stores) != 1:
        raise Unproven(place.made, f"expected one statement to fill {place.name}, found {len(stores)}")
    return stores[0]


def only_counted(prover: Prover, place: Place) -> Store:
    """The one statement that fills or counts up entries of a `defaultdict` of plain data which nothing reads.

    Raises Unproven.
    """
    plain = Plain(prover, place.source)
    parents = place.source.parents
    stores = []
    for function, uses in by_function(place).items():
        for use in uses:
            entry = parents.get(use)
            if forgets(place, use):
                continue
            statement, given = _counts(parents, entry) if isinstance(entry, ast.Subscript) else (None, [])
            if statement is None or not isinstance(entry, ast.Subscript):
                raise Unproven(use, f"{place.name} is read")
            if not all(map(plain.shown, [entry.slice, *given])):
                raise Unproven(
                    use, f"what {place.name} takes up is not shown to be plain data, and may have to stay"
                )
            stores.append(Store(function, statement, ast.unparse(use)))
    if len(stores) != 1:
        raise Unproven(place.made, f"expected one statement to fill {place.name}, found {len(stores)}")
    return stores[0]


def _counts(parents: dict[ast.AST, ast.AST], entry: ast.Subscript) -> tuple[ast.stmt | None, list[ast.expr]]:
    """The statement that adds to an entry, as `D[k] += 1` and `D[k].append(x)` do, and what it adds."""
    above = parents.get(entry)
    if isinstance(above, ast.AugAssign) and above.target is entry and isinstance(above.op, ast.Add):
        return above, [above.value]
    call = parents.get(above) if isinstance(above, ast.Attribute) else None
    done = parents.get(call) if isinstance(call, ast.Call) and call.func is above else None
    if isinstance(above, ast.Attribute) and above.attr in ADDS | {"add"} and isinstance(done, ast.Expr):
        return done, [*call.args, *(one.value for one in call.keywords)] if isinstance(call, ast.Call) else []
    return None, []


def by_function(place: Place) -> dict[Function, list[ast.Name | ast.Attribute]]:
    functions: dict[Function, list[ast.Name | ast.Attribute]] = {}
    for use in place.uses:
        function = place.source.within(use, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            raise Unproven(use, f"{place.name} is used outside a function")
        functions.setdefault(function, []).append(use)
    return functions


def forgets(place: Place, use: ast.AST) -> bool:
    """Whether a use drops entries: what every cache must bear. What is dropped is not looked at."""
    parents = place.source.parents
    parent = parents.get(use)
    if isinstance(parent, ast.Attribute) and parent.attr in FORGETS:
        call = parents.get(parent)
        return isinstance(call, ast.Call) and isinstance(parents.get(call), ast.Expr)
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Del)
    return False
