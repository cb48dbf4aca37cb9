"""What an expression may be worth: which builtin types, what they hold, and which containers made where.

A value here stands for every value that an expression can have in any call. It grows and never shrinks
while a function is being looked through, so that the looking ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qigheal.errors import QighealError

NUMBERS: Final = ("bool", "int", "float", "complex")
SCALARS: Final = frozenset((*NUMBERS, "str", "bytes", "none"))
IMMUTABLE: Final = SCALARS | {"tuple", "frozenset", "pattern"}
DEEPEST: Final = 6
"""Tuples within tuples that are told apart; without a bound, looking at a recursion would not end."""


class Unprovable(QighealError):
    """What is asked cannot be proven; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place at which a list, dict or set is made; all that are made there count as one."""

    kind: str  # list dict set
    node: int  # identity of the syntax node


@dataclass(frozen=True, slots=True)
class Value:
    """atoms: names of types. held: what tuples, frozensets and iterators hold. sites: mutable containers.

    zero: it may be 0.0 in one of two calls that a cache takes for the same, and -0.0 in the other; of what
    was within a tuple that was given, it may be 1 in the one and True in the other.
    """

    atoms: frozenset[str] = frozenset()
    held: Value | None = None
    sites: frozenset[Site] = frozenset()
    zero: bool = False

    def __or__(self, other: Value) -> Value:
        if self is other:
            return self
        held = (
            self.held if other.held is None else other.held if self.held is None else self.held | other.held
        )
        return Value(self.atoms | other.atoms, held, self.sites | other.sites, self.zero or other.zero)

    @property
    def depth(self) -> int:
        return 0 if self.held is None else 1 + self.held.depth

    def tainted(self, zero: bool) -> Value:
        return Value(self.atoms, self.held, self.sites, self.zero or zero)


NOTHING: Final = Value()
"""Of what never has a value, as far as has been seen."""


def of(*atoms: str, zero: bool = False) -> Value:
    return Value(frozenset(atoms), zero=zero)


def holding(atom: str, held: Value) -> Value:
    """A tuple, frozenset or iterator. Raises Unprovable when it is nested too deep."""
    found = Value(frozenset((atom,)), held)
    if found.depth > DEEPEST:
        raise Unprovable("tuples are nested too deep to be told apart")
    return found


def is_immutable(value: Value) -> bool:
    """Whether nothing can change it, nor anything that it holds."""
    return value.atoms <= IMMUTABLE and not value.sites and (value.held is None or is_immutable(value.held))


def tells_zeros_apart(value: Value) -> bool:
    """Whether it, or what it holds, may differ by the sign of a zero alone."""
    return value.zero or (value.held is not None and tells_zeros_apart(value.held))
