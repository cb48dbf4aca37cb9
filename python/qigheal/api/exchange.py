"""A request and its answer, as plain data: what every web framework has, under one name.

The adapters make a `Request` and send a `Response`; everything between is decided once. Here also stands the
one serialiser, so that every framework sends the same bytes. No route is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from qigheal.api.records import Error
from qigheal.errors import QighealError

JSON: Final = "application/json"
MOST_BODY: Final = 65_536
"""Bytes of a request's body that are read; a review needs a twentieth of it."""

Right = Literal["read", "heal", "review"]


class Request(NamedTuple):
    """What came. `headers` by lower-case name; `authorization` are the raw values of that header.

    client: the address at the other end of the connection; behind a proxy, the one that the server makes of it.
    permitted: what the host's own check said of reading; None where the read token decides.
    """

    method: str = "GET"
    params: Mapping[str, str] = {}
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = {}
    authorization: tuple[bytes, ...] = ()
    client: str = ""
    body: bytes = b""
    permitted: bool | None = None


class Response(NamedTuple):
    """What is sent."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


class Refused(QighealError):
    """A request that is answered with an `Error`: status from 400 on, a word for programs, a sentence."""

    def __init__(self, status: int, error: str, detail: str, **headers: str) -> None:
        self.status, self.error, self.detail = status, error, detail
        self.headers = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        super().__init__(detail)


STRICT: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
"""On every answer but the assets, which may be kept: what is said here is of this moment, and not for others."""


def answer(content: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """A document as JSON. What is no finite number becomes null, what is no Unicode U+FFFD."""
    return Response(status, encoded(content), (("Content-Type", JSON), *STRICT, *headers))


def refusal(refused: Refused) -> Response:
    return answer(Error(error=refused.error, detail=refused.detail), refused.status, refused.headers)


def encoded(content: Any) -> bytes:
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:  # the name of a file need not be text
        return msgspec.json.encode(_text(msgspec.to_builtins(content)))


def _text(content: Any) -> Any:
    if isinstance(content, str):
        return content.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(content, dict):
        return {_text(key): _text(value) for key, value in content.items()}
    return [_text(value) for value in content] if isinstance(content, list | tuple) else content
