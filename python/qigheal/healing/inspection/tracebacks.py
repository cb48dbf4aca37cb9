"""Where the probe's errors come from, and how the calls fare that may be repeated.

Every exception that travels through a function below the root is counted by its type and by the functions
and lines that it came through. For the functions named in `options["functions"]` ("package.module:name",
"package.module:Class.name") each place that calls them is counted: how often, how long a call takes that
returns, how long without what other tasks of its thread did meanwhile, and how many fail in a row. Lines are
not traced, so that times are near those without it.

Runs in the host's interpreter. What a message says is text, cut to its printable characters.
"""

from __future__ import annotations

import collections
import inspect
import opcode
import os
import selectors
import statistics
import sys
import threading
import time
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Chain = tuple[tuple[str, int, str], ...]

MESSAGE = 200
"""Characters kept of an exception's message."""

GROUPS = 100
DEPTH = 30
"""Kinds of exceptions that are told, the most frequent; and frames of each, the innermost."""

DURATIONS = 2000
"""Calls of a place whose duration is remembered."""

ORDINARY = (StopIteration, StopAsyncIteration, GeneratorExit)
"""How loops and generators end; no errors."""

RETURNS = [opcode.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in opcode.opmap]
PAUSES = {
    place: opcode.opmap[name]
    for place, name in ((0, "YIELD_VALUE"), (2, "YIELD_FROM"), (-2, "YIELD_VALUE"))
    if name in opcode.opmap
}
"""Where, from its last instruction, a function that pauses has one that says so: at it up to 3.12, of
`await` before 3.11 behind it, and from 3.13 on before it."""

WAITS = frozenset(
    kind.__dict__["select"].__code__
    for kind in vars(selectors).values()
    if isinstance(kind, type) and hasattr(kind.__dict__.get("select"), "__code__")
)
"""Where an event loop waits until something is to be done; one that waits elsewhere is taken to be busy."""


def paused(code: bytes, last: int) -> bool:
    places = [(last + place, op) for place, op in PAUSES.items()]
    return any(0 <= place < len(code) and code[place] == op for place, op in places)


def qualified(kind: type) -> str:
    module = getattr(kind, "__module__", "")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def bases(kind: type) -> list[str]:
    """Names of the classes that an `except` may name to catch it, itself first."""
    return [qualified(base) for base in kind.__mro__ if issubclass(base, BaseException)]


def message(error: BaseException) -> str:
    try:
        text = str(error)[: 10 * MESSAGE]
    except Exception:
        return ""
    return "".join(c if c.isprintable() else " " for c in text)[:MESSAGE]


class Flight:
    """An exception on its way: through which frames, and whether the outermost one has let it go."""

    def __init__(self, error: BaseException, chain: Chain, frame: FrameType) -> None:
        self.id = id(error)
        self.kind = type(error)
        self.message = message(error)
        self.chain = chain
        self.frame = id(frame)
        self.left = False

    def is_further(self, error: BaseException, chain: Chain) -> bool:
        """Whether this is the same exception, one or more frames further out. Ids are used again."""
        deeper = len(chain) > len(self.chain) and chain[len(chain) - len(self.chain) :] == self.chain
        return id(error) == self.id and deeper


class Place:
    """Calls of one function from one line."""

    def __init__(self) -> None:
        self.calls = self.returned = self.row = self.longest_row = 0
        self.seconds: list[float] = []
        self.alone: list[float] = []
        self.failed: dict[type, list[float]] = {}

    def ended(self, seconds: float, others: float, error: type | None) -> None:
        if error is None:
            self.returned += 1
            self.row = 0
            if len(self.seconds) < DURATIONS:
                self.seconds.append(seconds)
                self.alone.append(max(0.0, seconds - others))
            return
        self.row += 1
        self.longest_row = max(self.longest_row, self.row)
        self.failed.setdefault(error, []).append(seconds)

    def told(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "returned": self.returned,
            "median_s": statistics.median(self.seconds) if self.seconds else 0.0,
            "alone_s": statistics.median(self.alone) if self.alone else 0.0,
            "slow_s": sorted(self.seconds)[len(self.seconds) * 19 // 20] if self.seconds else 0.0,
            "longest_row": self.longest_row,
            "failed": [
                {"bases": bases(kind), "count": len(took), "median_s": statistics.median(took)}
                for kind, took in self.failed.items()
            ],
        }


class Open:
    """A call of a named function that has not ended."""

    def __init__(self, place: Place, began: float) -> None:
        self.place = place
        self.began = began
        self.error: type | None = None
        self.others = 0.0
        self.paused: tuple[int, float, float] | None = None

    def pauses(self, idle: float) -> None:
        self.paused = threading.get_ident(), time.perf_counter(), idle

    def resumes(self, idle: float) -> None:
        """The pause was for others, but for the time that the whole thread waited."""
        if self.paused is not None and self.paused[0] == threading.get_ident():
            self.others += max(0.0, time.perf_counter() - self.paused[1] - (idle - self.paused[2]))
        self.paused = None


class Recorder:
    def __init__(self, root: str, functions: list[str]) -> None:
        self.root = os.path.join(os.path.realpath(root), "")
        self.wanted = {name: name.partition(":")[::2] for name in functions}
        self.codes: dict[CodeType, tuple[str | None, str | None]] = {}
        self.named: dict[CodeType, str] = {}
        self.wrappers: set[CodeType] = set()
        self.places: dict[tuple[str, str, int], Place] = {}
        self.open: dict[FrameType, Open] = {}
        self.unhandled: set[int] = set()  # frames in which an exception has been seen, and no line since
        self.flights: dict[int, Flight] = {}  # by thread
        self.idle: collections.defaultdict[int, float] = collections.defaultdict(float)  # seconds, by thread
        self.waits: dict[int, float] = {}  # by thread, since when
        self.errors: collections.Counter[tuple[type, Chain, bool]] = collections.Counter()
        self.messages: dict[tuple[type, Chain, bool], str] = {}

    def called(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code in WAITS:
            frame.f_trace_lines = False
            self.waits[threading.get_ident()] = time.perf_counter()
            return self.waiting
        file, name = self.about(frame.f_code)
        if frame in self.open:
            self.open[frame].resumes(self.idle[threading.get_ident()])
        elif name is not None:
            place = self.place(name, frame.f_back)
            if place is not None:
                place.calls += 1
                self.open[frame] = Open(place, time.perf_counter())
        if file is None and name is None:
            return None
        frame.f_trace_lines = False
        return self.inside

    def waiting(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "return":
            thread, now = threading.get_ident(), time.perf_counter()
            self.idle[thread] += now - self.waits.pop(thread, now)
        return self.waiting

    def inside(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "exception":
            kind, error, traceback = arg
            if isinstance(error, BaseException) and not issubclass(kind, ORDINARY):
                self.unhandled.add(id(frame))
                frame.f_trace_lines = True  # whether it is caught shows in whether another line runs
                if frame in self.open:
                    self.open[frame].error = kind
                self.travels(frame, error, traceback)
        elif event == "line":
            self.unhandled.discard(id(frame))
            frame.f_trace_lines = False
        elif event == "return":
            self.returns(frame, arg)
        return self.inside

    def returns(self, frame: FrameType, value: Any) -> None:
        """The end of a frame, by a value or an exception, or a pause of a generator or coroutine."""
        unhandled = id(frame) in self.unhandled
        self.unhandled.discard(id(frame))
        call = self.open.get(frame)
        flight = self.flights.get(threading.get_ident())
        mine = flight is not None and flight.frame == id(frame)
        if call is None and not mine:
            return
        code, last = frame.f_code.co_code, frame.f_lasti
        ended = code[last] in RETURNS
        pauses = not ended and paused(code, last)
        if value is None and not ended and (unhandled or not pauses):
            if flight is not None and mine:
                flight.left = True
            error = call.error if call is not None else None
        elif pauses:
            if call is not None:
                call.pauses(self.idle[threading.get_ident()])
            return
        else:
            error = None
            if mine:
                self.landed()
        if call is not None:
            del self.open[frame]
            call.place.ended(time.perf_counter() - call.began, call.others, error)

    def travels(self, frame: FrameType, error: BaseException, traceback: Any) -> None:
        chain = []
        while traceback is not None:
            code = traceback.tb_frame.f_code
            file, _ = self.about(code)
            if file is not None:
                chain.append((file, traceback.tb_lineno, getattr(code, "co_qualname", code.co_name)))
            traceback = traceback.tb_next
        known = self.flights.get(threading.get_ident())
        if known is not None and known.is_further(error, tuple(chain)):
            known.chain, known.frame, known.left = tuple(chain), id(frame), False
        elif chain:
            self.landed()
            self.flights[threading.get_ident()] = Flight(error, tuple(chain), frame)

    def landed(self) -> None:
        """The thread's last exception goes no further."""
        flight = self.flights.pop(threading.get_ident(), None)
        if flight is not None:
            key = (flight.kind, flight.chain[-DEPTH:], not flight.left)
            self.errors[key] += 1
            self.messages.setdefault(key, flight.message)

    def about(self, code: CodeType) -> tuple[str | None, str | None]:
        """The file below the root that a function stands in, and the name it was asked for by."""
        if code not in self.codes:
            self.look_for_functions()
            path = os.path.realpath(os.path.join(self.root, code.co_filename))
            inside = path.startswith(self.root) and "site-packages" not in path and os.path.isfile(path)
            file = path[len(self.root) :].replace(os.sep, "/") if inside else None
            self.codes[code] = (file, self.named.get(code))
        return self.codes[code]

    def look_for_functions(self) -> None:
        """A function is looked up once its module holds it; until then nobody can have called it."""
        for name, (module, path) in list(self.wanted.items()):
            found: Any = sys.modules.get(module)
            for part in path.split("."):
                found = inspect.getattr_static(found, part, None) if found is not None else None
            while isinstance(found, (staticmethod, classmethod)):
                found = found.__func__
            if found is None:
                continue
            del self.wanted[name]
            while hasattr(found, "__wrapped__"):
                if isinstance(getattr(found, "__code__", None), CodeType):
                    self.wrappers.add(found.__code__)
                found = found.__wrapped__
            if isinstance(getattr(found, "__code__", None), CodeType):
                self.named[found.__code__] = name

    def place(self, name: str, frame: FrameType | None) -> Place | None:
        """Who calls: the nearest function of the host, but for what the function is wrapped in."""
        while frame is not None:
            file, _ = self.about(frame.f_code)
            if file is not None and frame.f_code not in self.wrappers:
                return self.places.setdefault((name, file, frame.f_lineno), Place())
            frame = frame.f_back
        return None

    def report(self) -> dict[str, Any]:
        sys.settrace(None)
        threading.settrace(None)
        for thread in list(self.flights):
            self.flights[threading.get_ident()] = self.flights.pop(thread)
            self.landed()
        return {
            "errors": [
                {
                    "bases": bases(kind),
                    "frames": chain,
                    "caught": caught,
                    "message": self.messages[kind, chain, caught],
                    "count": count,
                }
                for (kind, chain, caught), count in self.errors.most_common(GROUPS)
            ],
            "sites": [
                {"function": name, "file": file, "line": line, **place.told()}
                for (name, file, line), place in self.places.items()
            ],
        }


def start(root: str, options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    recorder = Recorder(root, list(options["functions"]))
    threading.settrace(recorder.called)
    sys.settrace(recorder.called)
    return recorder.report
