"""The bound of one container: proven to do no harm, and written into its file.

Where a proof ends, so does the bound. What grows, and how much may stay, is told from outside.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from qigheal.healing.hostcode.program import Function
from qigheal.healing.strategies.bounding.caches import unbounded
from qigheal.healing.strategies.bounding.containers import (
    Place,
    Store,
    locate,
    makes_defaults,
    only_appended,
    only_counted,
    only_stored,
)
from qigheal.healing.strategies.bounding.edits import at, bound_cache, bound_list, bound_store
from qigheal.healing.strategies.bounding.escaping import Reach
from qigheal.healing.strategies.bounding.remembering import remembered
from qigheal.healing.strategies.bounding.repeatable import Kind, Prover, Unproven
from qigheal.records import Tier

UNREAD = (
    "No file of the repository names it but to fill it, none was found that goes through the names of such an "
    "object or module, and what it takes up is plain data. Whether anything outside reads it a person has to tell."
)


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound, written into the file's content, and why it does no harm."""

    content: bytes
    tier: Tier
    why: str


def bounded(prover: Prover, kind: str, file: str, qualname: str, content: bytes, most: int) -> Bound:
    """Keep `most` entries in a container of `kind` ("lru_cache" or a type's name), called `qualname` in `file`.

    Raises Unproven where that might do harm, ValueError where its place cannot be edited.
    """
    if kind == "lru_cache":
        return _cache(prover, file, qualname, content, most)
    place = locate(prover.program, file, qualname)
    if makes_defaults(prover.program, place.source, place.made.value) != (kind == "defaultdict"):
        raise Unproven(place.made, f"what is made here is no {kind}")
    if kind == "defaultdict":
        return _stored(place, only_counted(prover, place), content, most, "review", UNREAD)
    if kind == "list":
        only_appended(prover, place)
        return Bound(_as_deque(prover, place, content, most), "review", UNREAD)
    if kind == "dict":
        return _dict(prover, place, content, most)
    raise Unproven(place.made, f"a {kind} has no bound that can be proven")


def _cache(prover: Prover, file: str, qualname: str, content: bytes, most: int) -> Bound:
    cache = unbounded(prover.program, file, qualname)
    kind = prover.function(cache.source, cache.function)
    _may_be_dropped(cache.function, kind)
    reach = Reach(prover.program)
    reach.unidentified(cache.source, cache.function)
    if kind == "flat":
        reach.only_read(cache.source, cache.function)
    place = at(content, cache.node)
    edited = bound_cache(content, place, cache.written(most), unused=cache.unused, needed=cache.needed)
    return Bound(edited, "safe", "What it gives follows from its arguments alone.")


def _dict(prover: Prover, place: Place, content: bytes, most: int) -> Bound:
    try:
        store = only_stored(prover, place)
    except Unproven:
        store = remembered(prover, place)
        _may_be_dropped(store.function, store.kind)
        _only_read(prover, place, store)
        tier: Tier = "review" if store.threads else "safe"
        why = f"A lost entry is computed again by {store.function.name}, from its key alone."
        if store.threads:
            why += (
                " But an entry is tested for and then read: where several threads answer, another one may drop it "
                "in between. So a person has to look."
            )
    else:
        tier, why = "review", UNREAD
    return _stored(place, store, content, most, tier, why)


def _stored(place: Place, store: Store, content: bytes, most: int, tier: Tier, why: str) -> Bound:
    for name in ("list", "len"):
        if not place.source.builtin(name) or _binds(store.function, name):
            raise Unproven(place.made, f"{name} is something else in this file")
    edited = bound_store(content, at(content, store.statement), store.cache, most)
    return Bound(edited, tier, why)


def _binds(function: Function, name: str) -> bool:
    """Whether a function has a meaning of its own for a name."""
    return any(
        (isinstance(node, ast.arg) and node.arg == name)
        or (isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load))
        for node in ast.walk(function)
    )


def _only_read(prover: Prover, place: Place, store: Store) -> None:
    keeps = isinstance(store.statement, ast.Assign) and store.parts[:-1] == (*store.statement.targets,)
    reach = Reach(prover.program, frozenset((store.statement,)) if keeps else frozenset())
    reach.unidentified(place.source, store.function)
    if store.kind == "flat":
        for value in store.found:
            reach.reads(place.source, value)
        for part in store.parts:
            reach.kept_by_name(place.source, part)


def _may_be_dropped(function: Function, kind: Kind) -> None:
    if kind in ("stream", "object"):
        raise Unproven(
            function, f"{function.name} gives an object that may be changed, used up or told from its like"
        )


def _as_deque(prover: Prover, place: Place, content: bytes, most: int) -> bytes:
    source, made = place.source, place.made
    known = prover.program.origin(source, ast.Name("deque", ast.Load()))
    if source.starred or (source.bound.get("deque") and known != "collections.deque"):
        raise Unproven(made, "deque is something else in this file")
    annotation = made.annotation if isinstance(made, ast.AnnAssign) else None
    named = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    if named is not None and ast.unparse(named) not in ("list", "List", "typing.List"):
        raise Unproven(made, f"its type is said to be {ast.unparse(named)}")
    return bound_list(content, at(content, made), most)
