"""Writes the few lines that repeat a call, and puts calls through them.

A call `f(x)` becomes `_repeated(f, x)`: what it is called with is worked out once, in the same order as
before, and nothing but the call itself is repeated. A helper is put behind the file's imports, with a
library that the host already has or in plain Python. Comments and formatting stay. Which calls these
are, and whether it helps, is decided elsewhere.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qigheal.errors import PatchError
from qigheal.healing.strategies.repeating.callsites import CallSite, Source, libcst

Form = Literal["tenacity", "stamina", "backoff", "plain"]
FORMS: tuple[Form, ...] = ("tenacity", "stamina", "backoff")
"""Libraries that the host may have, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """How to repeat: what is caught, by dotted name; attempts in all; seconds before the second one."""

    errors: tuple[str, ...]
    attempts: int
    wait_s: float

    @property
    def waits(self) -> tuple[float, ...]:
        """Seconds before each further attempt, twice as long each time."""
        return tuple(self.wait_s * 2**i for i in range(self.attempts - 1))


def rewritten(
    source: Source, sites: Sequence[CallSite], repeat: Repeat, form: Form, timeouts: Mapping[int, float]
) -> bytes:
    """The file with its calls `sites` repeated; `timeouts` are seconds by the site's place in `sites`.

    Raises PatchError where a name that is needed means something else in this file.
    """
    cst, _ = libcst()
    if source.has_star_import():
        raise PatchError("a star import may give any name another meaning")
    names = Names(source)
    errors = [names.error(name) for name in repeat.errors]
    caught = errors[0] if len(errors) == 1 else f"({', '.join(errors)})"
    changed: dict[Any, Any] = {}
    helpers = []
    for awaited in (False, True):
        chosen = [(i, site) for i, site in enumerate(sites) if site.awaited == awaited]
        if chosen:
            helper = names.fresh("_repeated_async" if awaited else "_repeated")
            helpers.append(_helper(helper, caught, repeat, form, awaited, names))
            changed |= {site.node: _through(helper, site.node, timeouts.get(i)) for i, site in chosen}
    module = source.module.visit(_Replace.of(changed))
    end = _end_of_imports(module)
    text = "\n\n".join(helpers).replace("    ", module.default_indent)
    added = [*cst.parse_module(text, config=module.config_for_parsing).body]
    body = [*module.body[:end], *added, *module.body[end:]]
    for place in range(end, min(end + len(added) + 1, len(body))):
        if place > 0 or names.imports:
            body[place] = _apart(body[place])
    return bytes(module.with_changes(body=_with_imports(body, names.imports)).bytes)


class Names:
    """What names mean in a file, and the imports that have to be added."""

    def __init__(self, source: Source) -> None:
        cst, _ = libcst()
        self._source = source
        self._taken = {node.value for node in source.parents if isinstance(node, cst.Name)}
        self._known: dict[str, str] = {}
        self.imports: list[str] = []

    def fresh(self, wanted: str) -> str:
        """A name that the file uses nowhere."""
        name = wanted
        while name in self._taken or hasattr(builtins, name):
            name += "_"
        self._taken.add(name)
        return name

    def module(self, name: str) -> str:
        """What a module is called at the top of this file; imported if need be."""
        return self._imported(name, f"import {name}", name)

    def error(self, dotted: str) -> str:
        """What an exception is called at the top of this file."""
        home, _, name = dotted.rpartition(".")
        if home:
            return self._imported(dotted, f"from {home} import {name}", name)
        if self._source.bound(dotted):
            raise PatchError(f"{dotted} means something else here")
        return dotted

    def _imported(self, dotted: str, statement: str, name: str) -> str:
        if dotted not in self._known:
            self._known[dotted] = self._present(dotted) or self._added(statement, name)
        return self._known[dotted]

    def _present(self, dotted: str) -> str:
        """What it is called already, where nothing else can have that name; "" where it is not imported."""
        cst, _ = libcst()
        for assignment in self._source.top.assignments:
            if assignment.scope is not self._source.top or len(self._source.bound(assignment.name)) != 1:
                continue
            line = self._source.parents.get(getattr(assignment, "node", None))
            certain = self._source.parents.get(line) is self._source.module
            meant = {q.name for q in assignment.get_qualified_names_for(assignment.name)}
            if certain and isinstance(assignment.node, (cst.Import, cst.ImportFrom)) and meant == {dotted}:
                return str(assignment.name)
        return ""

    def _added(self, statement: str, name: str) -> str:
        if name not in self._taken:
            self._taken.add(name)
            self.imports.append(statement)
            return name
        alias = self.fresh(f"_{name}")
        self.imports.append(f"{statement} as {alias}")
        return alias


def _helper(name: str, caught: str, repeat: Repeat, form: Form, awaited: bool, names: Names) -> str:
    """The text of the function that repeats a call; `call` and its arguments come as they are."""
    wait, attempts = _seconds(repeat.wait_s), repeat.attempts
    start, wait_for = ("async def", "await ") if awaited else ("def", "")
    if form == "tenacity":
        library = names.module("tenacity")
        kind = "AsyncRetrying" if awaited else "Retrying"
        body = f"""\
    again = {library}.{kind}(
        retry={library}.retry_if_exception_type({caught}),
        wait={library}.wait_exponential(multiplier={wait}),
        stop={library}.stop_after_attempt({attempts}),
        reraise=True,
    )
    return {wait_for}again(call, *args, **kwargs)
"""
    elif form == "stamina":
        library = names.module("stamina")
        kind = "AsyncRetryingCaller" if awaited else "RetryingCaller"
        body = f"""\
    again = {library}.{kind}(attempts={attempts}, wait_initial={wait}, wait_jitter=0.0)
    return {wait_for}again({caught}, call, *args, **kwargs)
"""
    elif form == "backoff":
        library = names.module("backoff")
        body = f"""\
    again = {library}.on_exception(
        {library}.expo, {caught}, max_tries={attempts}, factor={wait}, jitter=None, logger=None
    )
    return {wait_for}again(call)(*args, **kwargs)
"""
    else:
        sleep = f"{wait_for}{names.module('asyncio' if awaited else 'time')}.sleep(pause)"
        pauses = ", ".join(map(_seconds, repeat.waits))
        body = f"""\
    for pause in ({pauses}):
        try:
            return {wait_for}call(*args, **kwargs)
        except {caught}:
            {sleep}
    return {wait_for}call(*args, **kwargs)
"""
    told = f'    """Call, and call again where it fails with an error that may pass: at most {attempts} times."""\n'
    return f"{start} {name}(call, /, *args, **kwargs):\n{told}{body}"


def _seconds(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") or "0"


def _through(helper: str, call: Any, timeout: float | None) -> Any:
    cst, _ = libcst()
    after = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    between = call.whitespace_before_args
    if isinstance(between, cst.ParenthesizedWhitespace) and between.first_line.comment is None:
        first = cst.Comma(whitespace_after=between)  # one argument a line stays one argument a line
    else:
        first = after
    function = cst.Arg(
        call.func, comma=first if call.args or timeout is not None else cst.MaybeSentinel.DEFAULT
    )
    given = list(call.args)
    if timeout is not None:
        equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
        last = cst.Arg(cst.parse_expression(_seconds(timeout)), cst.Name("timeout"), equal)
        if given:
            last = last.with_changes(comma=given[-1].comma)
            given[-1] = given[-1].with_changes(comma=first)
        given.append(last)
    return call.with_changes(func=cst.Name(helper), args=[function, *given])


class _Replace:
    @staticmethod
    def of(changed: Mapping[Any, Any]) -> Any:
        """A transformer that puts nodes in the place of others, inner ones first."""
        cst, _ = libcst()

        class Transformer(cst.CSTTransformer):  # type: ignore[misc,name-defined]
            def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
                made = changed.get(original_node)
                if made is None:
                    return updated_node
                # Calls inside the arguments may have been changed too.
                return made.with_changes(
                    args=[
                        made.args[0].with_changes(value=updated_node.func),
                        *(
                            new.with_changes(value=old.value)
                            for new, old in zip(made.args[1:], updated_node.args, strict=False)
                        ),
                        *made.args[1 + len(updated_node.args) :],
                    ]
                )

        return Transformer()


def _end_of_imports(module: Any) -> int:
    """Where the first statement stands that is neither the docstring nor imports."""
    for place, statement in enumerate(module.body):
        if not (_imports(statement) or (place == 0 and _is_text(statement))):
            return place
    return len(module.body)


def _imports(statement: Any) -> bool:
    """Whether a statement imports and does nothing else that runs the file's own code."""
    cst, _ = libcst()
    if isinstance(statement, cst.SimpleStatementLine):
        return all(isinstance(small, (cst.Import, cst.ImportFrom)) for small in statement.body)
    if isinstance(statement, cst.If):
        inner = statement.body.body if isinstance(statement.body, cst.IndentedBlock) else ()
        return statement.orelse is None and bool(inner) and all(map(_imports, inner))
    return False


def _is_text(statement: Any) -> bool:
    cst, _ = libcst()
    return (
        isinstance(statement, cst.SimpleStatementLine)
        and len(statement.body) == 1
        and isinstance(statement.body[0], cst.Expr)
        and isinstance(statement.body[0].value, (cst.SimpleString, cst.ConcatenatedString))
    )


def _apart(statement: Any) -> Any:
    """The statement with two empty lines before it, at least."""
    cst, _ = libcst()
    lines = list(statement.leading_lines)
    empty = 0
    while empty < len(lines) and lines[empty].comment is None:
        empty += 1
    missing = [cst.EmptyLine(indent=False)] * max(0, 2 - empty)
    return statement.with_changes(leading_lines=[*missing, *lines])


def _with_imports(body: list[Any], imports: Sequence[str]) -> list[Any]:
    """The statements with `imports` among the first ones, each where its name belongs."""
    cst, _ = libcst()
    space = cst.EmptyLine(indent=False)
    for text in imports:
        key = _order(text)
        first = 1 if body and _is_text(body[0]) else 0
        lines = [i for i, s in enumerate(body) if isinstance(s, cst.SimpleStatementLine) and _imports(s)]
        run = [i for i in lines if all(map(_imports, body[first:i]))]
        keys = {i: _order(cst.Module([]).code_for_node(body[i].with_changes(leading_lines=[]))) for i in run}
        before = [i for i in run if keys[i] < key]
        place = before[-1] + 1 if before else run[0] if run else first
        if before:
            lead = [space] * (keys[before[-1]][0] != key[0])
        elif run:
            # Empty lines stay in front of the imports, a comment with its own.
            old = list(body[place].leading_lines)
            own = next((i for i, line in enumerate(old) if line.comment is not None), len(old))
            lead, body[place] = old[:own], body[place].with_changes(leading_lines=old[own:])
        else:
            lead = [space] * (place > 0)
        if place in keys and keys[place][0] != key[0] and not body[place].leading_lines:
            body[place] = body[place].with_changes(leading_lines=[space])
        body.insert(place, cst.parse_statement(text).with_changes(leading_lines=lead))
    return body


def _order(statement: str) -> tuple[int, bool, str]:
    """Where an import belongs: the language's own first, then others; plain ones first; by name."""
    start, name, *_ = statement.split()
    top = name.partition(".")[0]
    group = 0 if top == "__future__" else 1 if top in sys.stdlib_module_names else 2
    return group, start == "from", name
