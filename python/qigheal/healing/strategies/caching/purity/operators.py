"""What operators make of builtin values, and what they may tell of the sign of a zero.

An operator that the types do not have raises TypeError, which no cache keeps: it adds nothing here.
"""

from __future__ import annotations

import ast
from typing import Final

from qigheal.healing.strategies.caching.purity.containers import KEYS, Heap
from qigheal.healing.strategies.caching.purity.records import is_record
from qigheal.healing.strategies.caching.purity.values import NOTHING, NUMBERS, Unprovable, Value, holding, of

SETS: Final = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)
BITS: Final = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.LShift, ast.RShift)
TEXTS: Final = ("str", "bytes")


def unary(operation: ast.unaryop, value: Value) -> Value:
    if isinstance(operation, ast.Not):
        return of("bool")
    atoms = {{"bool": "int"}.get(atom, atom) for atom in value.atoms & frozenset(NUMBERS)}
    return of(*atoms, zero=value.zero and not _is_whole(value))


def binary(
    heap: Heap, at: str, node: ast.BinOp | ast.AugAssign, left: Value, right: Value, site: object = None
) -> Value:
    """The value of `left op right`. Raises Unprovable when it may tell 0.0 from -0.0.

    `site` is where a container that it makes is made, when that is not `node`.
    """
    operation, site = node.op, site or node
    if is_record(left) or is_record(right):
        raise Unprovable(f"{at}: an operator of a record is not followed")
    found = of(*_numbers(operation, left, right))
    if found != NOTHING:
        found = found.tainted(_zero(at, node, left, right))
    if isinstance(operation, ast.Add):
        found |= of(*(left.atoms & right.atoms & frozenset(TEXTS)))
        if "tuple" in left.atoms & right.atoms:
            found |= holding("tuple", (left.held or NOTHING) | (right.held or NOTHING))
        found |= _lists(heap, site, left, right)
    elif isinstance(operation, ast.Mult):
        for one, other in ((left, right), (right, left)):
            if other.atoms & {"int", "bool"}:
                found |= of(*(one.atoms & frozenset(TEXTS)))
                if "tuple" in one.atoms:
                    found |= holding("tuple", one.held or NOTHING)
                found |= _lists(heap, site, one, one)
    elif isinstance(operation, ast.Mod) and left.atoms & frozenset(TEXTS):
        if not heap.is_plain(right) or heap.zero(right):
            raise Unprovable(f"{at}: the text of it may tell more than a cache does")
        found |= of(*(left.atoms & frozenset(TEXTS)))
    if isinstance(operation, SETS):
        found |= _sets(heap, site, left, right)
    return found


def _numbers(operation: ast.operator, left: Value, right: Value) -> set[str]:
    found = set()
    for one in left.atoms & frozenset(NUMBERS):
        for other in right.atoms & frozenset(NUMBERS):
            widest = max(one, other, key=NUMBERS.index)
            if isinstance(operation, BITS):
                if widest in ("bool", "int"):
                    found.add("int" if isinstance(operation, (ast.LShift, ast.RShift)) else widest)
            elif isinstance(operation, ast.Div):
                found.add(max(widest, "float", key=NUMBERS.index))
            elif isinstance(operation, ast.Pow):
                found |= {"int", "float"} if widest in ("bool", "int") else {widest, "complex"}
            else:
                found.add(max(widest, "int", key=NUMBERS.index))
    return found


def _zero(at: str, node: ast.BinOp | ast.AugAssign, left: Value, right: Value) -> bool:
    """Whether the result may still differ by the sign of a zero."""
    if not (left.zero or right.zero):
        return False
    operation = node.op
    if all(_is_whole(side) for side in (left, right) if side.zero):
        return isinstance(operation, (ast.BitOr, ast.BitAnd, ast.BitXor))  # all else makes ints of bools
    if isinstance(operation, (ast.Div, ast.FloorDiv, ast.Mod)):
        raise Unprovable(f"{at}: a division may tell 0.0 from -0.0")
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
    if isinstance(operation, (ast.Add, ast.Sub)) and any(map(_is_no_zero, sides)):
        return False
    if isinstance(operation, ast.Add):
        # 0.0 + 0 and -0.0 + 0 are both 0.0.
        other = left if right.zero else right
        return other.zero or not other.atoms <= {"int", "bool"}
    if isinstance(operation, ast.Mult):
        return not (
            all(isinstance(side, ast.Name) for side in sides) and ast.dump(sides[0]) == ast.dump(sides[1])
        )
    if isinstance(operation, ast.Pow):
        exponent = sides[1].value if isinstance(sides[1], ast.Constant) else None
        return not (isinstance(exponent, int) and exponent > 0 and exponent % 2 == 0)
    return True


def _is_whole(value: Value) -> bool:
    """Whether a number that it is differs by being 1 or True alone."""
    return not value.atoms & {"float", "complex"}


def _is_no_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value != 0


def _lists(heap: Heap, node: object, left: Value, right: Value) -> Value:
    items, found = NOTHING, False
    for value in (left, right):
        for site in value.sites:
            if site.kind == "list":
                items, found = items | heap.get(site), True
    return heap.made("list", node, items) if found else NOTHING


def _sets(heap: Heap, node: object, left: Value, right: Value) -> Value:
    """Of sets, frozensets and views of dicts, and `|` of dicts."""
    found = NOTHING
    sides = (left, right)
    kinds = {site.kind for value in sides for site in value.sites}
    if {"set", "frozenset", "iterator"} & (kinds | left.atoms | right.atoms):
        items = heap.elements(left) | heap.elements(right)
        found |= heap.made("set", node, items)
        if "frozenset" in left.atoms:
            found |= holding("frozenset", items)
    if "dict" in kinds:
        items, keys = NOTHING, NOTHING
        for site in left.sites | right.sites:
            if site.kind == "dict":
                items, keys = items | heap.get(site), keys | heap.get(site, KEYS)
        found |= heap.made("dict", node, items, keys)
    return found
