"""Writes a bound into the host's source: three small edits that keep its formatting and comments.

Whether one may be made is proven elsewhere. A place is given as line and column, as `ast` counts them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from qigheal.errors import MissingExtra

Place = tuple[int, int]
"""Line from 1, column in characters from 0."""

AT_ONCE = 32
"""Part of a full container that is dropped at once. To list its keys costs as much as they are many, so that fewer
at once cost more for each store; more at once make its size go up and down further than a trial's answers tell from
growth. A bound is some 24 to 48 answers' entries, of which this is about one's.
"""


def at(content: bytes, node: ast.expr | ast.stmt) -> Place:
    """Where a node begins, in characters; `ast` counts bytes of UTF-8."""
    line = content.decode("utf-8-sig", "replace").splitlines()[node.lineno - 1]
    return node.lineno, len(line.encode()[: node.col_offset].decode("utf-8", "replace"))


def bound_cache(content: bytes, place: Place, written: str, *, unused: str = "", needed: str = "") -> bytes:
    """Write `written` for the decorator, or the argument of one, that begins at `place`.

    unused, needed: names of `functools` whose import may go, and must be there. Raises ValueError when
    nothing of the kind begins there.
    """
    cst = _cst()
    new = cst.parse_expression(written)
    return _edited(
        content, place, cst.BaseExpression, lambda node: new, ("functools", unused), ("functools", needed)
    )


def bound_store(content: bytes, place: Place, cache: str, most: int) -> bytes:
    """Drop the oldest entries before the statement at `place` stores into `cache`, so that `most` stay.

    What is written costs a store the same however large `most` is. No thread can make it fail: the keys are listed
    in one step, and a key may be gone.
    """
    cst = _cst()
    name = _free(content, "oldest")
    newest = most - max(1, most // AT_ONCE)
    keys = f"list({cache})[:-{newest}]" if newest else f"list({cache})"
    drop = cst.parse_statement(
        f"if len({cache}) >= {most}:  # at most {most} entries stay\n"
        f"    for {name} in {keys}:\n"
        f"        {cache}.pop({name}, None)\n"
    )

    def before(node: Any) -> Any:
        first = drop.with_changes(leading_lines=node.leading_lines)
        return cst.FlattenSentinel([first, node.with_changes(leading_lines=[])])

    return _edited(content, place, cst.SimpleStatementLine, before)


def bound_list(content: bytes, place: Place, most: int) -> bytes:
    """Make the empty list that is assigned at `place`, or made for a dataclass's field, a deque of `most` items."""
    cst = _cst()
    new = cst.parse_expression(f"deque(maxlen={most})")

    def bounded(node: Any) -> Any:
        [statement] = node.body
        fields = statement.value.args if isinstance(statement.value, cst.Call) else ()
        makes = cst.parse_expression(f"lambda: deque(maxlen={most})")
        args = [
            one.with_changes(value=makes) if one.keyword and one.keyword.value == "default_factory" else one
            for one in fields
        ]
        changes: dict[str, Any] = {"value": statement.value.with_changes(args=args) if args else new}
        if isinstance(statement, cst.AnnAssign):
            kind: Any = statement.annotation.annotation
            deque: Any = cst.Name("deque")
            if isinstance(kind, cst.Subscript):
                deque = kind.with_changes(value=deque)
            changes["annotation"] = statement.annotation.with_changes(annotation=deque)
        return node.with_changes(body=[statement.with_changes(**changes)])

    return _edited(content, place, cst.SimpleStatementLine, bounded, needed=("collections", "deque"))


def _free(content: bytes, name: str) -> str:
    """A name that the file does not use."""
    text = content.decode("utf-8", "replace")
    while name in text:
        name += "_"
    return name


def _cst() -> Any:
    try:
        import libcst
    except ImportError as missing:
        raise MissingExtra("libcst", "heal", "bounding a container") from missing
    return libcst


def _edited(
    content: bytes,
    place: Place,
    kind: type,
    change: Callable[[Any], Any],
    unused: tuple[str, str] = ("", ""),
    needed: tuple[str, str] = ("", ""),
) -> bytes:
    """The file with the outermost node of a kind at `place` changed, and its imports with it."""
    cst = _cst()
    from libcst.codemod import CodemodContext
    from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor
    from libcst.metadata import MetadataWrapper, PositionProvider

    wrapper = MetadataWrapper(cst.parse_module(content), unsafe_skip_copy=True)
    there = {
        (found.end.line, found.end.column): node
        for node, found in wrapper.resolve(PositionProvider).items()
        if isinstance(node, kind) and (found.start.line, found.start.column) == place
    }
    if not there:
        raise ValueError(f"expected something to bound at line {place[0]}, column {place[1]}")
    old = there[max(there)]
    module = wrapper.module.deep_replace(old, change(old))
    context = CodemodContext()
    if needed[1]:
        AddImportsVisitor.add_needed_import(context, *needed)
        module = AddImportsVisitor(context).transform_module(module)
    if unused[1]:
        RemoveImportsVisitor.remove_unused_import(context, *unused)
        module = RemoveImportsVisitor(context).transform_module(module)
    edited: bytes = module.bytes
    return edited
