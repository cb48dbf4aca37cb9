"""What a program does beyond computing: files, processes, sockets, foreign code, and what it replaces.

Python's audit events (PEP 578) tell of the first; a hook cannot be taken off again. Environment variables
are seen through the mapping that holds them. What a program replaces in the standard library is found by
comparing at the end, and so is whether it still collects garbage. Not seen: what native code does by
itself, and what other processes do.

Runs inside the sandbox, in the host's interpreter (Python 3.9 and later).
"""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

EVENTS = {
    "ctypes.dlopen": "loads native code",
    "ctypes.dlsym": "calls native code",
    "os.exec": "starts a program",
    "os.fork": "starts a process",
    "os.forkpty": "starts a process",
    "os.kill": "sends a signal",
    "os.killpg": "sends a signal",
    "os.posix_spawn": "starts a program",
    "os.spawn": "starts a program",
    "os.system": "starts a program",
    "pty.spawn": "starts a program",
    "signal.pthread_kill": "sends a signal",
    "socket.bind": "opens a socket",
    "socket.connect": "opens a socket",
    "socket.getaddrinfo": "looks a host up",
    "socket.gethostbyname": "looks a host up",
    "socket.sendmsg": "opens a socket",
    "socket.sendto": "opens a socket",
    "subprocess.Popen": "starts a program",
    "sys.addaudithook": "adds an audit hook",
    "sys.setprofile": "looks into frames",
    "sys.settrace": "looks into frames",
}
CHANGING = {
    "os.chmod": "changes a file",
    "os.chown": "changes a file",
    "os.link": "links a file",
    "os.mkdir": "makes a folder",
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.rmdir": "removes a folder",
    "os.symlink": "links a file",
    "os.truncate": "changes a file",
}
WATCHED = ("builtins", "gc", "hashlib", "io", "json", "math", "os", "random", "statistics", "sys", "time")
"""Modules whose functions a program is not expected to replace."""

PASSING_ON = ("/os.py", "/_collections_abc.py", "<frozen os>", "<frozen _collections_abc>")
LIBRARY = tuple({f"{sys.prefix}/", f"{sys.base_prefix}/", "<frozen "})
LONGEST = 160
MOST = 200

Report = Callable[[], dict[str, Any]]


class Environment(MutableMapping[str, str]):
    """The environment's variables, by a mapping that notes which are asked for."""

    def __init__(self, real: Any, note: Callable[[str, str], None]) -> None:
        self._real = real
        self._note = note

    def _asked_from_within(self) -> bool:
        """Whether the program asks, and not a library about its own settings."""
        frame: Any = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename.endswith(PASSING_ON):
            frame = frame.f_back
        return frame is not None and not frame.f_code.co_filename.startswith(LIBRARY)

    def __getitem__(self, key: str) -> str:
        if self._asked_from_within():
            self._note("reads an environment variable", str(key))
        value: str = self._real[key]
        return value

    def __setitem__(self, key: str, value: str) -> None:
        self._note("sets an environment variable", str(key))
        self._real[key] = value

    def __delitem__(self, key: str) -> None:
        self._note("sets an environment variable", str(key))
        del self._real[key]

    def __iter__(self) -> Iterator[str]:
        if self._asked_from_within():
            self._note("reads every environment variable", "")
        return iter(self._real)

    def __len__(self) -> int:
        return len(self._real)

    def copy(self) -> dict[str, str]:
        return dict(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)  # encodekey and the like, which os itself uses


def start(root: str, options: dict[str, Any]) -> Report:
    seen: dict[str, dict[str, int]] = {}

    def note(kind: str, detail: str) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in detail[:LONGEST])
        found = seen.setdefault(kind, {})
        if shown in found or len(found) < MOST:
            found[shown] = found.get(shown, 0) + 1

    places = {os.path.realpath(place) for place in (sys.prefix, sys.base_prefix, *sys.path) if place}
    # What every interpreter reads, with or without a program's doing.
    usual = (
        root,
        *places,
        *sys.path,
        "/usr",
        "/lib",
        "/lib64",
        "/dev/null",
        "/dev/urandom",
        "/etc/localtime",
    )

    def elsewhere(path: Any) -> str | None:
        if isinstance(path, int):
            return None
        text = os.fsdecode(path) if isinstance(path, (str, bytes)) else str(path)
        full = os.path.normpath(os.path.join(root, text))
        inside = any(full == place or full.startswith(place.rstrip("/") + "/") for place in usual if place)
        return None if inside else full

    def hook(event: str, arguments: Any) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if isinstance(path, int):
                return
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                note("writes a file", str(path))
            elif (place := elsewhere(path)) is not None:
                note("reads a file elsewhere", place)
        elif event in EVENTS:
            note(EVENTS[event], _shown(event, arguments))
        elif event in CHANGING:
            note(CHANGING[event], str(arguments[0]) if arguments else "")

    start_thread = _thread.start_new_thread  # its audit event came with Python 3.12

    def noting(*arguments: Any) -> int:
        note("starts a thread", "")
        return start_thread(*arguments)

    _thread.start_new_thread = threading._start_new_thread = noting  # type: ignore[attr-defined]
    register = atexit.register  # no audit event tells of it, and what it is given runs after the report

    def registering(function: Any, /, *arguments: Any, **named: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.startswith(LIBRARY):
            note("registers something for its end", _name(function))
        return register(function, *arguments, **named)

    atexit.register = registering
    before = _functions()
    os.environ = Environment(os.environ, note)  # type: ignore[assignment]  # noqa: B003  the process's own environment stays as it is
    sys.addaudithook(hook)

    def report() -> dict[str, Any]:
        kept = {kind: sorted(details) for kind, details in seen.items()}  # before looking adds anything
        after = _functions()
        replaced = [name for name, function in before.items() if after.get(name) is not function]
        collects = gc.isenabled() and gc.get_threshold()[0] > 0
        return {"seen": kept, "replaced": sorted(replaced), "collects": collects}

    return report


def _functions() -> dict[str, Any]:
    found = {}
    for name in WATCHED:
        module = sys.modules.get(name) or __import__(name)
        for key, value in list(vars(module).items()):
            if callable(value) and not key.startswith("_"):
                found[f"{name}.{key}"] = value
    found.pop("sys.displayhook", None)
    return found


def _name(function: Any) -> str:
    """What a function is called, without its address, which differs from start to start."""
    return (
        f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__name__)}"
    )


def _shown(event: str, arguments: Any) -> str:
    if event == "ctypes.dlsym":
        return ""  # which function it is differs from start to start
    if event.startswith("socket."):
        return " ".join(str(one) for one in arguments[1:] if isinstance(one, (str, tuple, int)))
    return " ".join(str(one) for one in arguments[:2] if isinstance(one, (str, bytes, int, list, tuple)))
