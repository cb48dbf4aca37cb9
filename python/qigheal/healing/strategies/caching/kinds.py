"""What kind a value is: whether it can be changed, and how deep down it holds what can.

0 cannot be changed (numbers, text, None, tuples of these); k > 0 can be, and what it holds is of kind k - 1
at most; None is unknown.
"""

from __future__ import annotations

import ast

from qigheal.healing.strategies.caching import allowed

Kind = int | None
DEEPEST = 6


class Unproven(Exception):
    """Why a function is not proven; one clause, with the line where it stands."""


def is_new(node: ast.expr) -> bool:
    """Whether an expression makes something that nothing else refers to."""
    if isinstance(node, ast.BinOp):
        return is_new(node.left) or is_new(node.right)
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        return name in ("list", "dict", "set", "sorted", "bytearray") or (
            isinstance(node.func, ast.Attribute) and f"hashlib.{node.func.attr}" in allowed.DIGESTS
        )
    return isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.SetComp | ast.DictComp)


def is_literal(node: ast.expr) -> bool:
    """A value that cannot be changed, written out."""
    if isinstance(node, ast.Tuple):
        return all(map(is_literal, node.elts))
    if isinstance(node, ast.UnaryOp):
        return is_literal(node.operand)
    if isinstance(node, ast.BinOp):
        return is_literal(node.left) and is_literal(node.right)
    if isinstance(node, ast.Call):
        return (
            isinstance(node.func, ast.Name)
            and node.func.id == "frozenset"
            and not node.keywords
            and all(
                isinstance(a, ast.Set | ast.List | ast.Tuple) and all(map(is_literal, a.elts))
                for a in node.args
            )
        )
    return isinstance(node, ast.Constant)


def join(*kinds: Kind) -> Kind:
    known = [kind for kind in kinds if kind is not None]
    return max(known, default=0) if len(known) == len(kinds) else None


def element(kind: Kind) -> Kind:
    return None if kind is None else max(0, kind - 1)


def holding(kind: Kind) -> Kind:
    return None if kind is None or kind >= DEEPEST else kind + 1
