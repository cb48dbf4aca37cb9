"""GitHub's REST API for one repository: patient with a busy server, and silent about the token.

Every request that this client repeats may be repeated: the callers' objects are named by their content,
their refs and pull requests by their branch. What is asked, and why, stands in `github`; nothing here
knows a change.

The token goes into the header of requests to one address and nowhere else: not into a message, not
into a log, and not along a redirect that leads to another host.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from qigheal.errors import Blocked, MissingExtra, RepoError
from qigheal.host import GITHUB_API, Hosting

if TYPE_CHECKING:
    from httpx import Response

T = TypeVar("T")

log = logging.getLogger("qigheal")

TOKEN, OWN_API = "QIGHEAL_GITHUB_TOKEN", "QIGHEAL_GITHUB_API"
COMMON_TOKEN, COMMON_API = "GITHUB_TOKEN", "GITHUB_API_URL"
VERSION: Final = "2022-11-28"
TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 4
PATIENCE_S: Final = 60.0
"""How long one request may wait in all. A pass holds the repository meanwhile, so it rather ends and comes back."""

SECONDARY_S: Final = 60.0
"""What GitHub asks to wait for where it names no time."""

PAGES: Final = 30
HOPS: Final = 5
SAID: Final = 300
SAYS: Final = "GitHub: "
"""How each error begins that comes from here."""

Parameters = Mapping[str, str | int]


class Refused(RepoError):
    """GitHub understood the request and will not do it; `said` are its words, in one line."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class Api:
    """The API of `hosting.repository`, with the token of the environment.

    sleep, clock: seconds. Raises RepoError when there is no token, or none for this address, MissingExtra
    without httpx.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", "github", 'a manifest with [forge] kind = "github"') from None
        self.repository = hosting.repository
        self._token = _token(hosting.api)
        self._root = f"{hosting.api}/repos/{hosting.repository}"
        self._sleep = sleep
        self._clock = clock
        self._failures = httpx.TransportError
        self._url = httpx.URL
        self._client = httpx.Client(
            auth=_signing(self._token),
            timeout=TIMEOUT_S,
            follow_redirects=False,
            headers={
                "Accept": "application/vnd.github+json, application/json;q=0.9",
                "User-Agent": "qigheal",
                "X-GitHub-Api-Version": VERSION,
            },
        )
        weakref.finalize(self, self._client.close)

    def __repr__(self) -> str:
        return f"Api({self._root!r})"

    def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: object = None,
        params: Parameters | None = None,
        once: bool = False,
    ) -> T:
        """What GitHub answers to one request, as a record of type `kind`.

        path: below the repository, its parts quoted (see `part`). once: what would happen twice if it were
        asked for twice, so that it is not repeated when no answer came.

        Raises Refused when GitHub says no, Blocked when it asks to wait for longer than a pass may,
        RepoError when it does not answer, or answers what cannot be read.
        """
        response = self._ask(method, f"{self._root}{path}", body, params, once=once)
        return self._read(response, f"{method} {path}", kind)

    def find(self, path: str, kind: type[T], *, params: Parameters | None = None) -> T | None:
        """The same for something that may not be there."""
        try:
            return self.call("GET", path, kind, params=params)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def pages(self, path: str, kind: type[T], params: Parameters | None = None) -> Iterator[T]:
        """Every page of a list. Raises RepoError for a list without an end."""
        url, asked = f"{self._root}{path}", {"per_page": 100, **(params or {})}
        for _ in range(PAGES):
            response = self._ask("GET", url, None, asked)
            yield self._read(response, f"GET {path}", kind)
            if (following := response.links.get("next", {}).get("url")) is None:
                return
            url, asked = self._same_host(url, following), {}
        raise RepoError(
            f"{SAYS}GET {path}: expected at most {PAGES} pages, GitHub has more; look at it by hand"
        )

    # One request

    def _ask(
        self, method: str, url: str, body: object, params: Parameters | None, *, once: bool = False
    ) -> Response:
        waited, what = 0.0, f"{method} {url.removeprefix(self._root)}"
        for attempt in range(ATTEMPTS):
            response, trouble = self._send(method, url, body, params)
            asked = None
            if response is not None:
                asked = self._asked_to_wait(response, attempt)
                if asked is None and response.status_code < 500:
                    return self._checked(response, what)
                trouble = self._words(response)
            if asked is None and once:
                break
            pause = float(2**attempt) if asked is None else asked
            waited += pause
            if waited > PATIENCE_S:
                log.info("%s: %s; asked to wait for %.0f s", what, trouble, pause)
                raise Blocked(
                    f"{SAYS}{what}: it asks to wait for longer than {PATIENCE_S:g} s; it is asked again in a later pass"
                )
            if attempt < ATTEMPTS - 1:
                log.info("%s: %s; waiting for %.0f s", what, trouble, pause)
                self._sleep(pause)
        raise RepoError(
            f"{SAYS}{what}: expected an answer from {self._root}, got {trouble}; it is asked again in a later "
            "pass"
        )

    def _send(
        self, method: str, url: str, body: object, params: Parameters | None
    ) -> tuple[Response | None, str]:
        """(The answer, or what went wrong on the way). A redirect is followed to the same host alone."""
        for _ in range(HOPS):
            try:
                response = self._client.request(method, url, json=body, params=params or None)
            except self._failures as failure:  # kept as words: it holds the request and so its header
                return None, self._plain(f"{type(failure).__name__}: {failure}")
            if not response.is_redirect:
                return response, ""
            url, params = self._same_host(url, response.headers["location"]), None
        raise RepoError(f"{SAYS}{method} {url}: expected an answer, got {HOPS} redirects in a row")

    def _same_host(self, url: str, other: str) -> str:
        here = self._url(url)
        there = here.join(other)
        if (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port):
            raise RepoError(
                f"{SAYS}{here.host} leads to another host, {self._plain(there.host)}; the token is not sent there. "
                "If the server has moved, correct [forge] api in the manifest"
            )
        return str(there)

    def _asked_to_wait(self, response: Response, attempt: int) -> float | None:
        """Seconds to wait for by the rate limits, None where none of them was met."""
        if response.status_code not in (403, 429, 503):
            return None
        headers = response.headers
        if (after := headers.get("retry-after", "")).isdecimal():
            return max(1.0, float(after))
        if response.status_code == 503:
            return None
        if headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdecimal():
            reset = float(headers["x-ratelimit-reset"])
            return max(1.0, reset - self._clock() + 1.0)
        if response.status_code == 429 or "secondary rate limit" in response.text.lower():
            return SECONDARY_S * 2.0**attempt
        return None

    def _checked(self, response: Response, what: str) -> Response:
        status = response.status_code
        if status < 400:
            return response
        said = self._words(response)
        remedy = {
            401: f"see to the token in {TOKEN} or {COMMON_TOKEN}",
            403: "see to what the token may do",
            404: "it is not there, or the token may not see it",
        }.get(status)
        raise Refused(f"{SAYS}{what}: {said}{f'; {remedy}' if remedy else ''}", status, said)

    def _words(self, response: Response) -> str:
        """What an answer says went wrong, as one line: text of a server, or of whoever stands in front of it."""
        try:
            told = msgspec.json.decode(response.content, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            told = {}
        parts = [str(told.get("message") or response.reason_phrase)]
        errors = told.get("errors")
        for error in errors if isinstance(errors, list) else ():
            parts.append(
                str(error.get("message") or error.get("code")) if isinstance(error, dict) else str(error)
            )
        return self._plain(f"{response.status_code} {'; '.join(parts)}")

    def _read(self, response: Response, what: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RepoError(
                f"{SAYS}{what}: expected its answer, got something else: {self._plain(str(error))}; is [forge] api "
                "the address of its API?"
            ) from None

    def _plain(self, text: str) -> str:
        """Text from outside as one line that can be shown, with the token taken out wherever it came from."""
        text = text.replace(self._token, "[token]")
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return shown if len(shown) <= SAID else shown[: SAID - 1] + "…"


def _signing(token: str) -> Callable[[Any], Any]:
    def sign(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def part(text: str) -> str:
    """One part of a path; a branch's name is one, with its slashes."""
    return quote(text, safe="")


def _token(api: str) -> str:
    """The token of the environment, for an address that the environment vouches for.

    `api` stands in a commit, and whoever may commit is not thereby trusted with what the operator's token
    may do. The common token is meant for GitHub itself, so it goes nowhere else.
    """
    common, own = (os.environ.get(name, "").strip().rstrip("/") for name in (COMMON_API, OWN_API))
    if api not in (GITHUB_API, common, own):
        raise RepoError(
            f"{api}: expected [forge] api to be {GITHUB_API}, or an address that the environment names in "
            f"{COMMON_API} or {OWN_API}, got another; a token is sent nowhere else. If the address is right, "
            f"set {OWN_API}={api}"
        )
    if token := os.environ.get(TOKEN, "").strip():
        return _sendable(token, TOKEN)
    shared = api in (GITHUB_API, common)
    if shared and (token := os.environ.get(COMMON_TOKEN, "").strip()):
        return _sendable(token, COMMON_TOKEN)
    also = f" (or {COMMON_TOKEN})" if shared else ""
    raise RepoError(f"{api}: expected a token in the environment's {TOKEN}{also}, found none; set it")


def _sendable(token: str, name: str) -> str:
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    raise RepoError(f"{name}: expected a token in one word of ASCII, got something else; set it again")
