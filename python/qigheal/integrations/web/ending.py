"""Whether the server that runs this process is being stopped, and how a connection is cut that nobody reads.

What servers do not tell an application is looked up in them here, by name: uvicorn, and gunicorn with threads.
Of any other nothing is known, so that what waits for an end has to have one of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any


def stopping() -> bool:
    """Whether uvicorn or gunicorn was told to end: both wait for open requests first.

    Their handler of the signal is a method of the server, or of the worker, that knows; from any thread.
    """
    server = _server()
    return bool(getattr(server, "should_exit", False)) or getattr(server, "alive", True) is False


def cut(scope: Mapping[str, Any]) -> None:
    """Drop the connection of a request under uvicorn, and what waits to be sent on it.

    An application cannot: it may only return, and the server then waits for a client that does not read. The request
    is known by its headers, which whatever copies the scope on its way hands on.
    """
    for connection in tuple(getattr(getattr(_server(), "server_state", None), "connections", ())):
        own = getattr(connection, "scope", None)
        transport = getattr(connection, "transport", None)
        if isinstance(own, dict) and own.get("headers") is scope["headers"] and transport is not None:
            transport.abort()


def _server() -> object:
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
