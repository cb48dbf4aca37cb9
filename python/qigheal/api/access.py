"""Who may ask for what: tokens in the Authorization header, and how often a wrong one may be tried.

    read     QIGHEAL_READ_TOKEN, or any of the two below
    heal     QIGHEAL_TOKEN: start a healing pass, have a snapshot taken
    review   QIGHEAL_REVIEW_TOKEN: approve or reject a patch

Neither of heal and review holds the other: whoever may start a pass may not approve what it proposes. A host
may replace the check for reading by its own; the other two stay. Tokens never come from a URL, are compared in
constant time, and stand in no log, error or answer.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from typing import Final

from qigheal.api.exchange import Refused, Request, Right
from qigheal.api.limits import Limits

VARIABLES: Final[dict[Right, str]] = {
    "read": "QIGHEAL_READ_TOKEN",
    "heal": "QIGHEAL_TOKEN",
    "review": "QIGHEAL_REVIEW_TOKEN",
}
HOLDING: Final[dict[Right, tuple[Right, ...]]] = {
    "read": ("read", "heal", "review"),
    "heal": ("heal",),
    "review": ("review",),
}
"""Whose token gives a right."""

WORDS: Final[dict[Right, str]] = {
    "read": "reading",
    "heal": "starting a healing pass or a snapshot",
    "review": "reviewing patches",
}


class Access:
    """The tokens in force; those not given are read from the environment, once. An empty one is none.

    wrong_per_minute: wrong tokens of one client address after which none of its tokens is looked at for the
        rest of a minute; higher lets guess more often. Behind a proxy the server has to take the client's address
        from it (uvicorn: --proxy-headers), else all clients are one.
    heals_per_minute, snapshots_per_minute: of all clients.
    """

    def __init__(
        self,
        *,
        read: str | None = None,
        heal: str | None = None,
        review: str | None = None,
        environ: Mapping[str, str] = os.environ,
        wrong_per_minute: int = 10,
        heals_per_minute: int = 6,
        snapshots_per_minute: int = 60,
    ) -> None:
        given: dict[Right, str | None] = {"read": read, "heal": heal, "review": review}
        texts = {right: environ.get(VARIABLES[right], "") if t is None else t for right, t in given.items()}
        self._tokens = {
            right: text.strip().encode("utf-8", "surrogateescape")
            for right, text in texts.items()
            if text.strip()
        }
        self.wrong_per_minute = wrong_per_minute
        self.heals_per_minute = heals_per_minute
        self.snapshots_per_minute = snapshots_per_minute

    def __repr__(self) -> str:
        return f"Access({', '.join(sorted(self._tokens)) or 'none configured'})"

    def enabled(self, right: Right) -> bool:
        """Whether any token gives this right."""
        return any(held in self._tokens for held in HOLDING[right])

    def check(self, request: Request, right: Right, limits: Limits) -> None:
        """Raises Refused unless the request may do what needs `right`."""
        if right == "read" and request.permitted is not None:
            if request.permitted:
                return
            raise _unauthorized("expected a request that this service's own check permits", "")
        if not self.enabled(right):
            raise Refused(
                403,
                "disabled",
                f"{WORDS[right]} is not enabled here: set {VARIABLES[right]} in the environment of the service "
                "and start it again",
            )
        token = _bearer(request.authorization)
        if token is None:
            raise _unauthorized(
                f"{WORDS[right]} needs the header Authorization: Bearer ${VARIABLES[right]}", ""
            )
        rights = self._tried(token, request.client, limits)
        if not any(held in rights for held in HOLDING[right]):
            raise Refused(
                403,
                "forbidden",
                f"{WORDS[right]} needs the token of {VARIABLES[right]}, got one of "
                f"{' and '.join(VARIABLES[held] for held in rights)}",
            )

    def reads(self, request: Request, limits: Limits) -> bool:
        """Whether the request may read. A wrong token is refused even where none is needed: it is a mistake."""
        if request.permitted is not None:
            return request.permitted
        if not self._tokens or (token := _bearer(request.authorization)) is None:
            return False
        return bool(self._tried(token, request.client, limits))

    def _tried(self, token: bytes, client: str, limits: Limits) -> tuple[Right, ...]:
        """The rights that a token gives."""
        key = f"wrong {_network(client)}"
        wait = limits.wait(key, self.wrong_per_minute)
        if wait > 0:
            raise too_many(f"{self.wrong_per_minute} wrong tokens within a minute from {client}", wait)
        # All of them, whichever matches: how long it takes tells nothing.
        rights = [right for right, own in self._tokens.items() if hmac.compare_digest(own, token)]
        if not rights:
            limits.note(key)
            raise _unauthorized("the token is not one of this service's", ' error="invalid_token"')
        return tuple(rights)


def _network(client: str) -> str:
    """An address as it is counted: of IPv6 the first half, since one client has all of the other."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def too_many(what: str, wait: float) -> Refused:
    """429, with the whole seconds after which to ask again."""
    seconds = max(1, int(wait + 0.999))
    return Refused(429, "too_many", f"{what}; ask again in {seconds} s", Retry_After=str(seconds))


def _unauthorized(detail: str, why: str) -> Refused:
    return Refused(
        401, "unauthorized", detail, WWW_Authenticate=f'Bearer realm="qigheal"{"," if why else ""}{why}'
    )


def _bearer(headers: tuple[bytes, ...]) -> bytes | None:
    """The one bearer token; None without one. Another scheme is somebody else's, such as a proxy's.

    Two Authorization headers are none that anybody sends: their token is empty, which is never right.
    """
    if not headers:
        return None
    if len(headers) > 1:
        return b""
    scheme, _, token = headers[0].strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None
