"""Which answers are compressed, for whom. What is in them is not known here."""

from __future__ import annotations

import re
import zlib
from typing import Final

from qigheal.api.exchange import JSON, Request, Response

LEAST: Final = 4096
"""Bytes of JSON from which an answer is compressed: below, it fits a few packets as it is."""

LEVEL: Final = 1
"""Of 1,000 snapshots, 381 kB, this leaves 73 kB; level 6 leaves 58 kB for three times the work."""

GZIP: Final = 16 + zlib.MAX_WBITS
VARIES: Final = ("Vary", "Accept-Encoding")

_CODING: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9a-z-]+)[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)


def takes_gzip(accepted: str) -> bool:
    """Whether a client that sends this `Accept-Encoding` takes gzip, and likes it no less than the plain bytes.

    What cannot be read in it says nothing. RFC 9110, section 12.5.3.
    """
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        if found := _CODING.fullmatch(part):
            weights.setdefault(found[1].removeprefix("x-"), 1.0 if found[2] is None else float(found[2]))
    other = weights.get("*", 0.0)  # of all codings that are not named, the plain bytes among them
    weight = weights.get("gzip", other)
    return weight > 0.0 and weight >= weights.get("identity", other)


def packed(made: Response, request: Request) -> Response:
    """The same answer, a long one of JSON compressed where the client takes that.

    Answers to errors and the like are shorter than `LEAST`. What carries an `ETag` is compressed where that is made.
    """
    if len(made.body) < LEAST or ("Content-Type", JSON) not in made.headers:
        return made
    if not takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(made.status, made.body, (*made.headers, VARIES))
    body = zlib.compress(made.body, LEVEL, GZIP)
    return Response(made.status, body, (*made.headers, VARIES, ("Content-Encoding", "gzip")))
