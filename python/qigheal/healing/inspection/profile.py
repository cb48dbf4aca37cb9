"""Where the time of a probe's answers goes, and how often a function is asked the same again.

This text runs inside the sandbox, in the host's interpreter (Python 3.8 and later), never in qigheal's.
It looks at functions of files below `root` alone, and at nothing while modules are being imported. Times
are without its own, as far as that can be told.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MOST = 50
"""Functions that are told of: those that take the longest."""

DISTINCT = 20_000
"""Arguments remembered of one function; what comes after counts as new."""

LONG = 64
"""Characters from which a text is remembered by its hash."""

TELLABLE = 400
"""Characters of a kind that is told."""

KINDS = 12
PLAIN = frozenset((int, bool, float, complex, str, bytes, type(None)))
RESUMED = 0x20 | 0x80 | 0x100 | 0x200  # generators and coroutines: to a profiler each resumption is a call


class Record:
    """What is known of one function."""

    def __init__(self, file: str, code: Any) -> None:
        self.file, self.line = file, code.co_firstlineno
        self.name = getattr(code, "co_qualname", code.co_name)
        count = code.co_argcount + code.co_kwonlyargcount
        varying = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
        self.parameters: tuple[str, ...] = code.co_varnames[: count + varying]
        self.hashable = not code.co_flags & RESUMED
        self.kinds: list[list[str]] = [[] for _ in self.parameters]
        self.calls = self.repeats = self.depth = 0
        self.seconds = self.own_s = self.repeated_s = 0.0
        self.seen: dict[Any, None] = {}
        self.curve: list[tuple[int, int]] = []
        self.returned: list[str] = []
        self.entry_bytes = 0

    def repeated(self, values: dict[str, Any]) -> bool:
        """Takes a call's arguments down, and says whether they came before."""
        self.calls += 1
        if not self.hashable:
            return False
        key: list[Any] = []
        for name, kinds in zip(self.parameters, self.kinds):  # noqa: B905  as of Python 3.10
            kind, part = _taken(values.get(name))
            if kind not in kinds:
                kinds.append(kind)
            if part is None or len(kinds) > KINDS:
                self.hashable = False
                self.seen.clear()
                return False
            key.append(part)
        known = tuple(key)
        repeats = known in self.seen
        if repeats:
            self.repeats += 1
        elif len(self.seen) < DISTINCT:
            self.seen[known] = None
        if self.calls & (self.calls - 1) == 0:
            self.curve.append((self.calls, self.calls - self.repeats))
        return repeats

    def told(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "name": self.name[:200],
            "parameters": [name[:80] for name in self.parameters],
            "kinds": self.kinds,
            "hashable": self.hashable,
            "calls": self.calls,
            "repeats": self.repeats,
            "curve": [*self.curve, (self.calls, self.calls - self.repeats)],
            "depth": self.depth,
            "seconds": self.seconds,
            "own_s": self.own_s,
            "repeated_s": self.repeated_s,
            "returned": self.returned,
            "entry_bytes": self.entry_bytes,
        }


def _taken(value: Any) -> tuple[str, Any]:
    """An argument's kind, and what tells it from others as a cache would; None for what is no plain value.

    A tuple's kind names those of its leaves, as "tuple of int, str"; that of a named tuple, or of a frozen
    dataclass, those of its fields, as "app.model.Point(x: int; path: tuple of str)".
    """
    kind = type(value)
    if kind in PLAIN:
        long = kind in (str, bytes) and len(value) > LONG
        return kind.__name__, (kind, (len(value), hash(value)) if long else value)
    if kind is not tuple:
        fields = _fields(kind)
        return _recorded(value, kind, fields) if fields else (kind.__name__[:80], None)
    leaves: dict[str, None] = {}
    waiting = list(value)
    for _ in range(1000):
        if not waiting:
            return "tuple of " + ", ".join(sorted(leaves)), (kind, value)
        inner = waiting.pop()
        if type(inner) is tuple:
            waiting.extend(inner)
        elif type(inner) in PLAIN:
            leaves[type(inner).__name__] = None
        else:
            break
    return "tuple of others", None


def _recorded(value: Any, kind: type, fields: tuple[str, ...]) -> tuple[str, Any]:
    parts = _parts(value, fields)
    taken = [_taken(part) if type(part) in PLAIN or type(part) is tuple else ("", None) for part in parts]
    told = "; ".join(f"{name}: {inner}" for name, (inner, _) in zip(fields, taken))  # noqa: B905  as of Python 3.10
    name = f"{kind.__module__}.{kind.__qualname__}({told})"
    if len(parts) < len(fields) or len(name) > TELLABLE or any(part is None for _, part in taken):
        return kind.__name__[:80], None
    return name, (kind, parts)


def _fields(kind: type) -> tuple[str, ...]:
    """The names of the fields by which objects of a class are compared and hashed; none where they may not be."""
    own = kind.__dict__
    if kind.__bases__ == (tuple,) and "__eq__" not in own and "__hash__" not in own:
        named = own.get("_fields")
        return named if type(named) is tuple else ()
    how, fields = own.get("__dataclass_params__"), own.get("__dataclass_fields__")
    if kind.__bases__ != (object,) or type(fields) is not dict or how is None:
        return ()
    if not (how.frozen and how.eq):
        return ()
    return tuple(fields) if all(field.compare and field.hash is None for field in fields.values()) else ()


def _parts(value: Any, fields: tuple[str, ...]) -> tuple[Any, ...]:
    """What the fields hold; nothing of the host's is called for it."""
    if issubclass(type(value), tuple):
        return tuple(tuple.__iter__(value))
    try:
        return tuple(object.__getattribute__(value, name) for name in fields)
    except AttributeError:
        return ()


def _size(value: Any) -> int:
    own = sys.getsizeof(value, 0)
    kind = type(value)
    parts = value if kind is tuple else () if kind in PLAIN else _parts(value, _fields(kind))
    return own + sum(_size(part) if type(part) is tuple else sys.getsizeof(part, 0) for part in parts[:100])


class Thread:
    """The calls that a thread is in, the innermost last."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        # A record with the frame, when it began, time of inner calls, whether it repeats, depths of both.
        self.stack: list[list[Any]] = []
        self.depths: dict[Record, int] = {}
        self.repeating: dict[Record, int] = {}
        self.lost_s = 0.0
        self.importing: Any | None = None
        self.import_began = 0.0

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        if event not in ("call", "return"):
            return
        profile = self.profile
        code = frame.f_code
        if self.importing is not None or code in profile.importers:
            self._import(frame, event)
            return
        record = profile.known[code] if code in profile.known else profile.meet(code)
        if record is None:
            return
        began = time.perf_counter()
        if event == "call":
            self._enter(record, frame, began - self.lost_s)
        else:
            self._leave(record, frame, began - self.lost_s, arg)
        self.lost_s += time.perf_counter() - began

    def _import(self, frame: Any, event: str) -> None:
        if self.importing is None:
            self.importing, self.import_began = frame, time.perf_counter()
        elif event == "return" and frame is self.importing:
            self.importing = None
            self.lost_s += time.perf_counter() - self.import_began

    def _enter(self, record: Record, frame: Any, now: float) -> None:
        repeats = record.repeated(frame.f_locals)
        depth = self.depths[record] = self.depths.get(record, 0) + 1
        record.depth = max(record.depth, depth)
        if repeats:
            self.repeating[record] = self.repeating.get(record, 0) + 1
        self.stack.append([record, frame, now, 0.0, repeats])

    def _leave(self, record: Record, frame: Any, now: float, result: Any) -> None:
        if not self.stack or self.stack[-1][1] is not frame:
            # It was entered before this began, or others were left without a word, as where greenlets switch.
            if all(entry[1] is not frame for entry in self.stack):
                return
            while self.stack[-1][1] is not frame:
                self._close(self.stack.pop(), now)
        entry = self.stack.pop()
        self._close(entry, now)
        kind = type(result).__name__[:80]
        if kind not in record.returned and len(record.returned) < KINDS:
            record.returned.append(kind)
        if record.hashable and not entry[4]:
            size = _size(result) + sum(_size(frame.f_locals.get(name)) for name in record.parameters)
            record.entry_bytes = max(record.entry_bytes, size)

    def _close(self, entry: list[Any], now: float) -> None:
        record, _, began, inner_s, repeats = entry
        elapsed = now - began
        self.depths[record] -= 1
        record.own_s += elapsed - inner_s
        if not self.depths[record]:
            record.seconds += elapsed
        if repeats:
            self.repeating[record] -= 1
            if not self.repeating[record]:
                record.repeated_s += elapsed
        if self.stack:
            self.stack[-1][3] += elapsed


class Profile:
    """The functions met so far, of all threads."""

    def __init__(self, root: str) -> None:
        self.root = os.path.join(os.path.realpath(root), "")
        self.known: dict[Any, Record | None] = {}
        bootstrap = sys.modules["_frozen_importlib"]
        self.importers = frozenset((bootstrap._find_and_load.__code__,))
        self.main = Thread(self)
        self.began = time.perf_counter()

    def meet(self, code: Any) -> Record | None:
        found = None
        # A file called "<frozen …>" is none, though the folder that a probe starts in is the root.
        if not code.co_name.startswith("<") and not code.co_filename.startswith("<"):
            file = os.path.realpath(code.co_filename)
            if file.startswith(self.root):
                found = Record(file[len(self.root) :], code)
        self.known[code] = found
        return found

    def thread(self, frame: Any, event: str, arg: Any) -> None:
        """The first event of a new thread."""
        hook = Thread(self)
        sys.setprofile(hook)
        hook(frame, event, arg)

    def report(self) -> dict[str, Any]:
        sys.setprofile(None)
        threading.setprofile(None)
        seconds = time.perf_counter() - self.began - self.main.lost_s
        records = sorted(filter(None, self.known.values()), key=lambda record: -record.seconds)
        return {
            "seconds": max(seconds, 0.0),
            "rss_mb": _resident_mb(),
            "recursion_limit": sys.getrecursionlimit(),
            "functions": [record.told() for record in records[:MOST]],
        }


def _resident_mb() -> float:
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start(root: str, options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Begins to look. `options` has nothing for this instrument."""
    profile = Profile(root)
    threading.setprofile(profile.thread)
    sys.setprofile(profile.main)
    return profile.report
