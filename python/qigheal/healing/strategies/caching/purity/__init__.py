"""Proves of a function that a cache in front of it changes nothing but the time.

values      what an expression may be worth
sources     the files of the host, and what names stand for in them
scopes      which names a scope binds
replacing   what these files may write to from outside
mentions    where they mention a name
readers     whether all who mention a container of a module only read it
library     what is known of builtins and of the standard library
containers  lists, dicts and sets that are made within a call
looking     the function and all that it calls, looked through until nothing new is found
statements, patterns, expressions, calls, operators    what is looked at there
arguments   what it may be given
records     named tuples and frozen dataclasses among that
uses        how others use it

A tool for strategies: it reads text, runs nothing, and knows no patch. What it cannot follow is not
proven: `Unprovable` says where it ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qigheal.healing.strategies.caching.purity.arguments import arguments
from qigheal.healing.strategies.caching.purity.looking import Look
from qigheal.healing.strategies.caching.purity.sources import Function, Host
from qigheal.healing.strategies.caching.purity.uses import check_uses
from qigheal.healing.strategies.caching.purity.values import (
    NOTHING,
    Unprovable,
    is_immutable,
    of,
    tells_zeros_apart,
)

__all__ = ["Function", "Host", "Proof", "Unprovable", "prove"]


@dataclass(frozen=True)
class Proof:
    """A function that may be cached, and the functions of the host that it is made of, itself among them.

    used: what it calls of the standard library, such as "math.sqrt".
    """

    function: Function
    reached: frozenset[Function]
    used: frozenset[str] = frozenset()


def prove(host: Host, path: str, line: int, seen: Mapping[str, Sequence[str]]) -> Proof:
    """The proof that the function which begins at a line may be cached with `lru_cache(typed=True)`.

    seen: the kinds of value that each of its parameters was given while it was looked at.

    Raises Unprovable with the reason when there is none.
    """
    function = host.at(path, line)
    check_uses(host, function)
    look = Look(host)
    result = look.through(function, arguments(host, function, seen, look.records))
    if result in (NOTHING, of("none")):
        raise Unprovable(f"{function.shown}: it returns nothing")
    if not is_immutable(result):
        raise Unprovable(f"{function.shown}: what it returns may be changed by who gets it")
    if tells_zeros_apart(result):
        raise Unprovable(f"{function.shown}: what it returns may tell 0.0 from -0.0, or 1 from True")
    return Proof(function, frozenset(look.reached), frozenset(look.used))
