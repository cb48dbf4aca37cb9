"""Where a program spends its time, and how often it computes the same thing again.

Each function of a file below the root is counted: calls, time with and without what it calls, and of calls
whose arguments are plain values, how much time went into those that had been made before: that is what a
cache could save. Of the main thread; the looking itself takes time, so that times are to be compared with
one another only.

Runs inside the sandbox, in the host's interpreter (Python 3.9 and later).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

MOST = 40
MOST_KEYS = 20_000
PLAIN = (int, float, str, bytes, bool, complex, type(None))
LONGEST = 4_096

Key = tuple[Any, ...]


class Function:
    """What was seen of one function."""

    def __init__(self, file: str, line: int, name: str) -> None:
        self.file, self.line, self.name = file, line, name
        self.calls = self.plain = self.repeats = self.depth = 0
        self.total_s = self.own_s = self.repeat_s = 0.0
        self.keys: set[Key] = set()
        self.arguments: set[str] = set()
        self.results: set[str] = set()

    def told(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "name": self.name,
            "calls": self.calls,
            "plain": self.plain,
            "distinct": len(self.keys),
            "repeats": self.repeats,
            "total_s": self.total_s,
            "own_s": self.own_s,
            "repeat_s": self.repeat_s,
            "arguments": sorted(self.arguments),
            "results": sorted(self.results),
        }


def start(root: str, options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    known: dict[Any, Function | None] = {}
    stack: list[list[Any]] = []  # function or None, when it began, seconds in what it called, a repeat or not
    clock = time.thread_time  # a wall clock would count the time that other programs took
    below = root.rstrip("/") + "/"

    def met(code: Any) -> Function | None:
        path = os.path.join(root, code.co_filename)
        made = code.co_filename.startswith("<") or code.co_name.startswith("<")  # no file, or no function
        if made or not path.startswith(below):
            return None
        return Function(path[len(below) :], code.co_firstlineno, code.co_name)

    def look(frame: Any, event: str, value: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code not in known:
                known[code] = met(code)
            function = known[code]
            repeated = False
            if function is not None:
                function.calls += 1
                function.depth += 1
                key = _key(frame, code)
                if key is not None:
                    function.plain += 1
                    function.arguments.update(type(one).__name__ for one in key[0])
                    if key in function.keys:
                        function.repeats += 1
                        repeated = True
                    elif len(function.keys) < MOST_KEYS:
                        function.keys.add(key)
            stack.append([function, clock(), 0.0, repeated])
        elif event == "return" and stack:
            function, began, inside, repeated = stack.pop()
            spent = clock() - began
            if stack:
                stack[-1][2] += spent
            if function is not None:
                function.depth -= 1
                function.own_s += spent - inside
                function.results.add(type(value).__name__)
                if not function.depth:  # of a recursion, the outermost call alone
                    function.total_s += spent
                    function.repeat_s += spent if repeated else 0.0

    cpu_s = time.process_time()
    sys.setprofile(look)

    def report() -> dict[str, Any]:
        sys.setprofile(None)
        seen = [function for function in known.values() if function is not None]
        seen.sort(key=lambda function: -function.total_s)
        return {
            "cpu_s": time.process_time() - cpu_s,
            "functions": [function.told() for function in seen[:MOST]],
        }

    return report


def _key(frame: Any, code: Any) -> Key | None:
    """The arguments of a call with their types; None where one of them is no plain value."""
    count = code.co_argcount + code.co_kwonlyargcount
    if code.co_flags & 0x0C:  # *arguments or **keywords
        return None
    values = tuple(frame.f_locals.get(name) for name in code.co_varnames[:count])
    if all(map(_plain, values)):
        return (values, tuple(type(value) for value in values))
    return None


def _plain(value: Any) -> bool:
    if type(value) is tuple:
        return len(value) <= 64 and all(map(_plain, value))
    return type(value) in PLAIN and (type(value) not in (str, bytes) or len(value) <= LONGEST)
