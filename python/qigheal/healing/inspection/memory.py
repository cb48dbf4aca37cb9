"""What grows in a probe while it answers: containers by name, and the lines of code that allocate.

The questions are counted where every probe has to read them, at descriptor 0: the program gets the end
of a pipe there, and a thread passes on one line after another. Whether it reads by `sys.stdin`, `input`,
`os.read` or an event loop makes no difference. While a line has not been passed on the program has
nothing to do, and its frames are alive: that is when it is looked at. Sizes of containers are compared
over all answers but the first; allocations are followed over the last few alone, as that slows a program
that makes many small objects down by much.

This text runs inside the sandbox, in the host's interpreter (Python 3.8 and later), never in qigheal's.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import itertools
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

FRAMES = 8
"""How far up from an allocation the host's own line is looked for."""

TRACES = 20_000
"""Allocations looked at one by one; of more, every second, third, … stands for those left out."""

SHOWN = 20
"""Lines and containers told of: those that grew most."""

SAMPLED, DEEP = 16, 4
"""Entries of a container whose size is taken, and how many levels deep."""

CONTAINERS = (dict, list, set, collections.deque, collections.OrderedDict, collections.defaultdict)
_CACHE = type(functools.lru_cache(maxsize=1)(len))


class Seen(NamedTuple):
    """One container at one moment; of instances of one class, the largest."""

    size: int
    kind: str
    file: str
    line: int
    facts: dict[str, Any]
    held: Any


class Look(NamedTuple):
    """One moment."""

    answers: int
    containers: dict[str, Seen]


def start(root: str, options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """options: `early`, the number of answers after which sizes are first taken; `traced`, the number after
    which allocations are followed. Both looks end with the last answer."""
    looks: list[Look] = []
    lines: dict[tuple[str, int], int] = {}
    held: list[int] = []
    early, traced = int(options["early"]), int(options["traced"])
    source = os.dup(0)
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    os.close(read_end)
    done = threading.Event()

    def relay() -> None:
        answered = 0
        with os.fdopen(source, "rb") as questions, os.fdopen(write_end, "wb", 0) as sink:
            try:
                for question in questions:
                    if answered == early:
                        looks.append(_look(root, answered, keep=False))
                    if answered == traced:
                        tracemalloc.start(FRAMES)
                    sink.write(question)
                    answered += 1
                if tracemalloc.is_tracing():
                    lines.update(_allocated(root))
                    held.append(tracemalloc.get_traced_memory()[0])
                    tracemalloc.stop()
                looks.append(_look(root, answered, keep=True))
            except BrokenPipeError:
                pass
            finally:
                done.set()

    def report() -> dict[str, Any]:
        done.wait(10.0)
        found: dict[str, Any] = {"answers": 0, "traced": 0, "held": sum(held), "containers": [], "lines": []}
        if len(looks) == 2:
            spent = sorted(lines.items(), key=lambda one: -one[1])[:SHOWN]
            found["answers"] = looks[1].answers - looks[0].answers
            found["traced"] = looks[1].answers - traced
            found["containers"] = _grown(*looks)
            found["lines"] = [{"file": at[0], "line": at[1], "bytes": size} for at, size in spent]
        return found

    threading.Thread(target=relay, daemon=True).start()
    return report


def _look(root: str, answers: int, keep: bool) -> Look:
    """keep: hold on to the containers, to look at their entries; what is held cannot be freed."""
    gc.collect()
    found: dict[str, Seen] = {}
    for name, seen in itertools.chain(_of_modules(root), _of_objects(root)):
        if name not in found or seen.size > found[name].size:
            found[name] = seen if keep else seen._replace(held=None)
    return Look(answers, found)


def _allocated(root: str) -> dict[tuple[str, int], int]:
    """Bytes that are still held of what was allocated since that is followed, by the host's line."""
    lines: dict[tuple[str, int], int] = {}
    gc.collect()
    traces = tracemalloc.take_snapshot().traces
    step = len(traces) // TRACES + 1
    for number in range(0, len(traces), step):
        place = _place(traces[number].traceback, root)
        lines[place] = lines.get(place, 0) + step * traces[number].size
    return lines


def _place(frames: Any, root: str) -> tuple[str, int]:
    """The host's own line that is nearest to an allocation; ("", 0) for what no line of the host asked for."""
    for frame in reversed(frames):
        file = _inside(frame.filename, root)
        if file:
            return file, frame.lineno
    return "", 0


@functools.lru_cache(maxsize=4096)
def _inside(file: Any, root: str) -> str:
    """A file's path in the host's repository; "" for any other file."""
    if not isinstance(file, str) or not file.endswith(".py"):
        return ""
    path = os.path.relpath(os.path.join(root, file), root)
    return "" if path.startswith("..") or "site-packages" in path else path


def _modules(root: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        names = getattr(module, "__dict__", {})
        file = _inside(names.get("__file__"), root)
        if file:
            yield name, file, names


def _of_modules(root: str) -> Iterator[tuple[str, Seen]]:
    """Containers that a module or a class of the host holds by name."""
    for module, file, names in _modules(root):
        for name, value in list(names.items()):
            if type(value) in CONTAINERS:
                yield module + ":" + name, _seen(value, file)
            elif isinstance(value, type) and value.__module__ == module:
                for attribute, inner in list(vars(value).items()):
                    if type(inner) in CONTAINERS:
                        yield module + ":" + value.__qualname__ + "." + attribute, _seen(inner, file)


def _of_objects(root: str) -> Iterator[tuple[str, Seen]]:
    """The caches that `functools` made of the host's functions, and what its instances hold by attribute."""
    files = {module: file for module, file, _ in _modules(root)}
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is _CACHE:
            seen = _cache(thing, root)
            if seen.file:
                yield str(thing.__module__) + ":" + str(thing.__qualname__), seen
            continue
        module = kind.__module__
        if isinstance(module, str) and module in files:
            for attribute, inner in _attributes(thing, kind):
                if type(inner) in CONTAINERS:
                    yield module + ":" + kind.__qualname__ + "." + attribute, _seen(inner, files[module])


def _attributes(thing: Any, kind: type) -> Iterator[tuple[str, Any]]:
    with contextlib.suppress(AttributeError, TypeError):
        yield from list(object.__getattribute__(thing, "__dict__").items())
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            with contextlib.suppress(AttributeError):
                yield name, object.__getattribute__(thing, name)


def _seen(container: Any, file: str) -> Seen:
    return Seen(len(container), type(container).__name__, file, 0, {}, container)


def _cache(wrapper: Any, root: str) -> Seen:
    code = getattr(getattr(wrapper, "__wrapped__", None), "__code__", None)
    info = wrapper.cache_info()
    facts = {"maxsize": info.maxsize, "hits": info.hits, "misses": info.misses}
    file = _inside(getattr(code, "co_filename", None), root)
    return Seen(info.currsize, "lru_cache", file, getattr(code, "co_firstlineno", 0), facts, wrapper)


def _grown(early: Look, late: Look) -> list[dict[str, Any]]:
    grown: list[tuple[int, dict[str, Any]]] = []
    for name, seen in late.containers.items():
        before = early.containers.get(name)
        had = before.size if before is not None else 0
        if seen.size > had:
            each = _entry(seen)
            told = {"name": name, "kind": seen.kind, "file": seen.file, "line": seen.line}
            told.update(early=had, late=seen.size, entry_bytes=each, **seen.facts)
            if before is not None and "hits" in seen.facts:
                told["hits"] = seen.facts["hits"] - before.facts["hits"]
                told["misses"] = seen.facts["misses"] - before.facts["misses"]
            grown.append(((seen.size - had) * each, told))
    grown.sort(key=lambda one: -one[0])
    return [told for _, told in grown[:SHOWN]]


def _entry(seen: Seen) -> int:
    """Bytes of an entry, in the mean of a few."""
    held = seen.held
    if seen.kind == "lru_cache":
        inner = [found for found in gc.get_referents(held) if type(found) is dict]
        held = max(inner, key=len, default={})
    if isinstance(held, dict):
        held = held.items()
    known: set[int] = set()
    sample = list(itertools.islice(held, SAMPLED))
    return sum(_size(entry, DEEP, known) for entry in sample) // max(1, len(sample))


def _size(thing: Any, levels: int, known: set[int]) -> int:
    if id(thing) in known:
        return 0
    known.add(id(thing))
    size = sys.getsizeof(thing, 0)
    if levels:
        parts = []
        if isinstance(thing, (list, tuple, set, frozenset, collections.deque)):
            parts = list(itertools.islice(thing, 1000))
        elif isinstance(thing, dict):
            parts = list(itertools.islice(itertools.chain.from_iterable(thing.items()), 1000))
        elif hasattr(thing, "__dict__") and not isinstance(thing, type):
            parts = list(vars(thing).values())
        size += sum(_size(part, levels - 1, known) for part in parts)
    return size
