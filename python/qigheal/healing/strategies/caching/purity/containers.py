"""Lists, dicts and sets that a function makes for itself: what is put in, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qigheal.healing.strategies.caching.purity.values import NOTHING, Site, Unprovable, Value, holding, of

KEYS, ITEMS = "keys", "items"
READING: Final = frozenset(("get", "keys", "values", "items", "count", "index", "copy")) | {
    *("union", "intersection", "difference", "symmetric_difference", "issubset", "issuperset", "isdisjoint")
}


class Heap:
    """What the containers made at each site may hold, over all calls. `grown` says that it became more."""

    def __init__(self) -> None:
        self._held: dict[tuple[Site, str], Value] = {}
        self.grown = False
        self._lasting: set[Site] = set()

    def kept(self, value: Value, node: object) -> Value:
        """The containers of a value as one that lasts: whatever else is made where they were made is another."""
        held = None if value.held is None else self.kept(value.held, node)
        sites = set()
        for site in value.sites:
            lasting = Site(site.kind, hash((id(node), site.node)))
            sites.add(lasting)
            self._lasting.add(lasting)
            for role in (ITEMS, KEYS):
                self.put(lasting, self.kept(self.get(site, role), node), role)
        return Value(value.atoms, held, frozenset(sites), value.zero)

    def put(self, site: Site, value: Value, role: str = ITEMS) -> None:
        before = self._held.get((site, role), NOTHING)
        after = before | value
        if after != before:
            self._held[site, role] = after
            self.grown = True

    def get(self, site: Site, role: str = ITEMS) -> Value:
        return self._held.get((site, role), NOTHING)

    def made(self, kind: str, node: object, items: Value = NOTHING, keys: Value = NOTHING) -> Value:
        """A new list, dict or set."""
        site = Site(kind, id(node))
        self.put(site, items)
        if kind == "dict":
            self.put(site, keys, KEYS)
        return Value(sites=frozenset((site,)))

    def elements(self, value: Value) -> Value:
        """What iterating over a value gives."""
        found = value.held or NOTHING
        if "str" in value.atoms:
            found |= of("str")
        if "bytes" in value.atoms:
            found |= of("int")
        for site in value.sites:
            found |= self.get(site, KEYS if site.kind == "dict" else ITEMS)
        return found

    def at(self, value: Value) -> Value:
        """What a subscript that is no slice gives."""
        found = value.held or NOTHING
        if "str" in value.atoms:
            found |= of("str")
        if "bytes" in value.atoms:
            found |= of("int")
        if "match" in value.atoms:
            found |= of("str", "none")
        for site in value.sites:
            found |= self.get(site)
        return found

    def fill(self, value: Value, key: Value, item: Value) -> None:
        """`value[key] = item`."""
        for site in value.sites:
            self._check_own(site)
            self.put(site, item)
            if site.kind == "dict":
                self.put(site, key, KEYS)

    def is_plain(self, value: Value, seen: frozenset[Site] = frozenset()) -> bool:
        """Whether its text is made of builtin values alone, and shows no object's address."""
        shown = {"bool", "int", "float", "complex", "str", "bytes", "none", "tuple", "frozenset"}
        inner = [value.held] if value.held is not None else []
        for site in value.sites - seen:
            inner += [self.get(site), self.get(site, KEYS)]
        return value.atoms <= shown and all(self.is_plain(i, seen | value.sites) for i in inner)

    def zero(self, value: Value, seen: frozenset[Site] = frozenset()) -> bool:
        """Whether it or what it holds may differ by the sign of a zero."""
        inner = [value.held] if value.held is not None else []
        for site in value.sites - seen:
            inner += [self.get(site), self.get(site, KEYS)]
        return value.zero or any(self.zero(i, seen | value.sites) for i in inner)

    def _check_own(self, site: Site) -> None:
        if site in self._lasting:
            raise Unprovable("a container that lasts and may be changed")

    # Methods

    def method(self, site: Site, name: str, node: object, arguments: Sequence[Value]) -> Value | None:
        """The result of a method on containers of a site; None when they have none of that name."""
        handler = METHODS[site.kind].get(name)
        if name not in READING:
            self._check_own(site)
        return None if handler is None else handler(self, site, node, [*arguments, NOTHING, NOTHING])


Handler = Callable[[Heap, Site, object, Sequence[Value]], Value]


def _append(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    heap.put(site, given[0])
    return of("none")


def _insert(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    heap.put(site, given[1])
    return of("none")


def _extend(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    for value in given:
        heap.put(site, heap.elements(value))
    return of("none")


def _shrink(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return of("none")


def _take(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return heap.get(site) | (given[1] if site.kind == "dict" else NOTHING)


def _copy(heap: Heap, site: Site, node: object, given: Sequence[Value]) -> Value:
    return heap.made(site.kind, node, heap.get(site), heap.get(site, KEYS))


def _count(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return of("int")


def _test(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return of("bool")


def _get(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return heap.get(site) | (given[1] if given[1] != NOTHING else of("none"))


def _setdefault(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    heap.put(site, given[0], KEYS)
    heap.put(site, given[1] if given[1] != NOTHING else of("none"))
    return heap.get(site)


def _pairs(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return holding("iterator", holding("tuple", heap.get(site) | heap.get(site, KEYS)))


def _keys(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return holding("iterator", heap.get(site, KEYS))


def _values(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    return holding("iterator", heap.get(site))


def _update(heap: Heap, site: Site, _: object, given: Sequence[Value]) -> Value:
    """From dicts, or from pairs."""
    for other in given[0].sites:
        if other.kind == "dict":
            heap.put(site, heap.get(other, KEYS), KEYS)
            heap.put(site, heap.get(other))
    pairs = heap.elements(given[0])
    heap.put(site, heap.elements(pairs), KEYS)
    heap.put(site, heap.elements(pairs))
    return of("none")


def _combined(heap: Heap, site: Site, node: object, given: Sequence[Value]) -> Value:
    items = heap.get(site)
    for value in given:
        items |= heap.elements(value)
    return heap.made("set", node, items)


def _never(heap: Heap, site: Site, node: object, given: Sequence[Value]) -> Value:
    raise Unprovable("popitem() gives what was put in last, in a way that is not followed")


METHODS: Final[dict[str, dict[str, Handler]]] = {
    "list": {
        "append": _append,
        "insert": _insert,
        "extend": _extend,
        **dict.fromkeys(("remove", "clear", "sort", "reverse"), _shrink),
        "pop": _take,
        "copy": _copy,
        **dict.fromkeys(("count", "index"), _count),
    },
    "dict": {
        "get": _get,
        "setdefault": _setdefault,
        "items": _pairs,
        "keys": _keys,
        "values": _values,
        "update": _update,
        "pop": _take,
        "popitem": _never,
        "clear": _shrink,
        "copy": _copy,
    },
    "set": {
        "add": _append,
        "update": _extend,
        **dict.fromkeys(("discard", "remove", "clear"), _shrink),
        **dict.fromkeys(("intersection_update", "difference_update"), _shrink),
        "symmetric_difference_update": _extend,
        "pop": _take,
        "copy": _copy,
        **dict.fromkeys(("union", "symmetric_difference", "intersection", "difference"), _combined),
        **dict.fromkeys(("issubset", "issuperset", "isdisjoint"), _test),
    },
}
