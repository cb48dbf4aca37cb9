"""Taking hold of a method of one object, and letting go of it, so that neither can be seen on the object.

Nothing is put into the object itself, which therefore pickles, copies and compares as before, has slots or not,
and stays of its type. Its class gets a method that looks whether an object is one of those taken hold of, and
else does what the class did; the last object to go takes it away again. Only an object that carries the method
itself, or is of a class that cannot be changed, is changed in its `__dict__`.

What happens around a call is the caller's to say (`Watcher`); no monitor and no chain is known here.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
import types
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

_LOCK: Final = threading.RLock()
_NOTHING: Final = object()


class Watcher(Protocol):
    """What is told of each call. Neither method may raise."""

    def returned(self, result: Any, began: float, took_s: float) -> None:
        """A call ended. began: Unix seconds."""

    def raised(self, error: Exception, began: float, took_s: float) -> None:
        """A call ended by an exception, which goes on to the caller."""


def _watched(watcher: Watcher, call: Callable[..., Any], args: Any, named: Any) -> Any:
    began, start = time.time(), time.perf_counter()
    try:
        result = call(*args, **named)
    except Exception as error:
        watcher.raised(error, began, time.perf_counter() - start)
        raise
    watcher.returned(result, began, time.perf_counter() - start)
    return result


async def _awaited(watcher: Watcher, call: Callable[..., Any], args: Any, named: Any) -> Any:
    began, start = time.time(), time.perf_counter()
    try:
        result = await call(*args, **named)
    except Exception as error:
        watcher.raised(error, began, time.perf_counter() - start)
        raise
    watcher.returned(result, began, time.perf_counter() - start)
    return result


class _Place:
    """An attribute of a class that was replaced for those of its objects that stand in `taken`."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner = owner
        self.name = name
        self.before = owner.__dict__.get(name, _NOTHING)
        self.taken: dict[int, Any] = {}
        self.installed: Any = None

    def inherited(self, target: object) -> Any:
        """What the object would have if nothing was replaced."""
        if self.before is _NOTHING:
            return getattr(super(self.owner, target), self.name)
        get = getattr(type(self.before), "__get__", None)
        return self.before if get is None else get(self.before, target, type(target))

    def below(self) -> Any:
        """What the class would have there, as it stands in the class."""
        if self.before is not _NOTHING:
            return self.before
        lines = self.owner.__mro__[1:]
        return next((line.__dict__[self.name] for line in lines if self.name in line.__dict__), None)

    def restore(self) -> None:
        if self.owner.__dict__.get(self.name) is not self.installed:
            return  # somebody replaced it since: what is here now lets every call through
        if self.before is _NOTHING:
            type.__delattr__(self.owner, self.name)
        else:
            type.__setattr__(self.owner, self.name, self.before)


def _method(place: _Place, bound: Any) -> Any:
    original, taken = getattr(bound, "__func__", bound), place.taken
    # Of a function, what a look-up by the object would give is known.
    own = place.before if isinstance(place.before, types.FunctionType) else None
    watched_of, now, clock = taken.get, time.time, time.perf_counter

    @functools.wraps(original)
    def method(self: Any, /, *args: Any, **named: Any) -> Any:
        watcher = watched_of(id(self))
        if watcher is None or own is None:
            call = place.inherited(self)
            return call(*args, **named) if watcher is None else _watched(watcher, call, args, named)
        began, start = now(), clock()  # as `_watched`, which would be one call more
        try:
            result = own(self, *args, **named)
        except Exception as error:
            watcher.raised(error, began, clock() - start)
            raise
        watcher.returned(result, began, clock() - start)
        return result

    @functools.wraps(original)
    async def coroutine(self: Any, /, *args: Any, **named: Any) -> Any:
        watcher = taken.get(id(self))
        call = place.inherited(self)
        return await (call(*args, **named) if watcher is None else _awaited(watcher, call, args, named))

    return coroutine if inspect.iscoroutinefunction(original) else method


class _Attribute:
    """An attribute that only the objects in `place.taken` have; all others have what they had."""

    def __init__(self, place: _Place) -> None:
        self.place = place

    def __get__(self, target: Any, kind: type | None = None) -> Any:
        if target is None:
            return self
        place = self.place
        found = place.taken.get(id(target), _NOTHING)
        if found is not _NOTHING:
            return found
        own = getattr(target, "__dict__", {})
        if place.name in own:
            return own[place.name]
        try:
            return place.inherited(target)
        except AttributeError:  # of super(), whose message would name that
            kind = type(target)
            raise AttributeError(f"{kind.__name__!r} object has no attribute {place.name!r}") from None

    def __set__(self, target: Any, value: Any) -> None:
        place = self.place
        self._refuse(target)
        before = place.below()
        if hasattr(type(before), "__set__"):
            before.__set__(target, value)
        else:
            target.__dict__[place.name] = value

    def __delete__(self, target: Any) -> None:
        place = self.place
        self._refuse(target)
        before = place.below()
        if hasattr(type(before), "__delete__"):
            before.__delete__(target)
        elif getattr(target, "__dict__", {}).pop(place.name, _NOTHING) is _NOTHING:
            raise AttributeError(f"{type(target).__name__!r} object has no attribute {place.name!r}")

    def _refuse(self, target: Any) -> None:
        name = self.place.name
        if id(target) in self.place.taken:
            raise AttributeError(f"{name}: it is in use; take it off first with .{name}.remove()")


class _Held:
    """A callable in an object's `__dict__`, watched; a copy or pickle of the object gets the callable itself."""

    def __init__(self, call: Any, watcher: Watcher) -> None:
        functools.update_wrapper(self, call)
        self.call = call
        self.watcher = watcher

    def __call__(self, *args: Any, **named: Any) -> Any:
        around = _awaited if inspect.iscoroutinefunction(self.call) else _watched
        return around(self.watcher, self.call, args, named)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _itself, (self.call,)


def _itself(call: Any) -> Any:
    return call


class Hook:
    """A method of one object watched, or an attribute given to it, until `undo()`.

    watcher: is told of each call of the method. value: what the attribute is. An object that can be referred to
    weakly is not kept alive by this; of another, `undo` must be called.

    Raises TypeError for an object that can be neither hooked by its class nor changed itself, and for a method
    that does not belong to the object; then nothing was changed.
    """

    def __init__(
        self, target: object, name: str, *, watcher: Watcher | None = None, value: Any = None
    ) -> None:
        self._name = name
        self._key = id(target)
        self._kept: Any = None
        self._place: _Place | None = None
        self._own: dict[str, Any] | None = None
        self._before: Any = _NOTHING
        self._put: Any = None
        own = getattr(target, "__dict__", None)
        with _LOCK:
            bound = None if watcher is None else getattr(target, name)
            if watcher is None or (name not in (own or ()) and hasattr(type(target), name)):
                if watcher is not None:
                    _check(type(target), name)
                self._place = _place(type(target), name, bound)
            if self._place is not None:
                self._place.taken[self._key] = value if watcher is None else watcher
                self._kept = _reference(target, self._place.taken)
            elif isinstance(own, dict):
                self._own, self._before = own, own.get(name, _NOTHING)
                self._put = value if watcher is None else _Held(bound, watcher)
                own[name] = self._put
            else:
                raise TypeError(
                    f"expected an object of a class that can be changed, or with a __dict__, got a "
                    f"{type(target).__qualname__}, which has neither; wrap it in a class of yours"
                )

    def undo(self) -> None:
        """Leave object and class as they were. Doing so twice changes nothing."""
        with _LOCK:
            if self._place is not None:
                self._place.taken.pop(self._key, None)
                if not self._place.taken:
                    self._place.restore()
            elif self._own is not None and self._own.get(self._name) is self._put:
                if self._before is _NOTHING:
                    del self._own[self._name]
                else:
                    self._own[self._name] = self._before
            self._place = self._own = self._kept = None


def _check(owner: type, name: str) -> None:
    """Refuse what is called by the class as well, where ours would take its first argument for the object."""
    found = inspect.getattr_static(owner, name)
    if isinstance(found, classmethod | staticmethod) or not hasattr(type(found), "__get__"):
        kind = type(found).__name__
        raise TypeError(
            f"expected {owner.__qualname__}.{name} to be a method of its objects, got a {kind}; "
            f"wrap the object in a class whose {name}(self, ...) calls it"
        )


def _place(owner: type, name: str, bound: Any) -> _Place | None:
    """The place in the class, made if there is none; None for a class that cannot be changed.

    bound: the method as the object has it; None for an attribute.
    """
    present = owner.__dict__.get(name)
    known: _Place | None = getattr(present, "__qigheal_place__", None) or getattr(present, "place", None)
    if isinstance(known, _Place) and known.installed is present:
        return known
    place = _Place(owner, name)
    if bound is not None:
        place.installed = _method(place, bound)
        place.installed.__qigheal_place__ = place
    else:
        place.installed = _Attribute(place)
    try:
        type.__setattr__(owner, name, place.installed)
    except TypeError:
        return None
    return place


def _reference(target: object, taken: dict[int, Any]) -> Any:
    """What to hold so that the entry is gone when the object is: an id may then be another's."""
    key = id(target)
    try:
        return weakref.ref(target, lambda _: taken.pop(key, None))
    except TypeError:
        return target
