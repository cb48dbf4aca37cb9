"""The dashboard's files as they are sent: shells that hold no data, and the script, style and charts they load."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from qigheal.api.exchange import Refused, Request, Response
from qigheal.api.packing import VARIES, takes_gzip

Asset = Callable[[str], tuple[bytes, str]]
"""Content and media type of a file by its name; KeyError for an unknown one."""

SHELLS: Final = {"dashboard": "dashboard.html", "widget": "widget.html"}
GZIPPED: Final = ("text/", "application/javascript", "application/json", "image/svg+xml")
SMALL: Final = 1000
"""Bytes below which compressing saves nothing."""

ANCESTORS: Final = re.compile("[!-+.-:<-~-]+( [!-+.-:<-~-]+)*")
"""Sites divided by a space; a comma or a semicolon would end what the policy says of frames."""

FOR_GOOD: Final = "public, max-age=31536000, immutable"
"""For a file asked for under an address with its digest (`?v=`): other content would have another address."""

_AHEAD: Final = re.compile(rb'(<link rel="preload"[^>]* href="assets/)([^"?]+)(?=")')
"""What a shell has a browser load ahead; nothing but the shell says where it is."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors "
)


class _Page(NamedTuple):
    content: bytes
    media: str
    tag: str
    packed: bytes  # empty where that is no smaller


class Pages:
    """What `asset` has, each file compressed once. widget_ancestors: the sites that may frame the widget."""

    def __init__(self, asset: Asset, widget_ancestors: str = "'self'") -> None:
        self._frames = {"dashboard": "'none'", "widget": widget_ancestors}
        self._content = asset
        self._page = cache(lambda name: _page(*asset(name)))
        self._shell = cache(self._dated)

    def shell(self, name: str, request: Request) -> Response:
        framing = self._frames[name]
        headers = [("Cache-Control", "no-cache"), ("Content-Security-Policy", POLICY + framing)]
        headers.append(("Referrer-Policy", "no-referrer"))
        if framing == "'none'":
            headers.append(("X-Frame-Options", "DENY"))
        return _sent(_found(self._shell, SHELLS[name]), request, tuple(headers))

    def asset(self, name: str, request: Request) -> Response:
        """Asked for anew each time, and answered by 304 while it is the same; or never again, by its digest."""
        page = _found(self._page, name)
        kept = FOR_GOOD if ("v", page.tag) in request.query else "no-cache"
        return _sent(page, request, (("Cache-Control", kept),))

    def _dated(self, name: str) -> _Page:
        """A shell, the files to load ahead by their digests. One that is not there keeps its name."""
        content, media = self._content(name)

        def address(found: re.Match[bytes]) -> bytes:
            try:
                tag = _digest(self._content(found[2].decode())[0])  # without compressing it yet
            except KeyError:
                return found[0]
            return found[0] + b"?v=" + tag.encode()

        return _page(_AHEAD.sub(address, content), media)


def _found(page: Callable[[str], _Page], name: str) -> _Page:
    try:
        return page(name)
    except KeyError:
        raise Refused(404, "not_found", f"the dashboard has no file {name[:64]!r}") from None


def _sent(page: _Page, request: Request, headers: tuple[tuple[str, str], ...]) -> Response:
    packed = bool(page.packed) and takes_gzip(request.headers.get("accept-encoding", ""))
    tag = f'"{page.tag}{"-gzip" if packed else ""}"'
    sent = (*headers, ("X-Content-Type-Options", "nosniff"), ("ETag", tag), VARIES)
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(304, b"", sent)
    sent = (("Content-Type", page.media), *sent)
    if packed:
        return Response(200, page.packed, (*sent, ("Content-Encoding", "gzip")))
    return Response(200, page.content, sent)


def _page(content: bytes, media: str) -> _Page:
    packed = b""
    if len(content) >= SMALL and media.startswith(GZIPPED):
        packed = gzip.compress(content, mtime=0)
    return _Page(content, media, _digest(content), packed)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
