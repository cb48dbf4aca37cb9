"""Where alerts go. A sink has a name and a `send`; it keeps its address and its password to itself.

What a sink is given was checked when it was made: an address is refused then, and never quoted. No network library is
loaded here; `send` of all but the log runs a process.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import SplitResult, urlsplit

import msgspec

from qigheal.alerts import words
from qigheal.alerts.child import SendFailed, run
from qigheal.alerts.records import Alert, AlertError
from qigheal.errors import MissingExtra

__all__ = ["Apprise", "Email", "Log", "SendFailed", "Sink", "Webhook"]

log = logging.getLogger("qigheal.alerts")

LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
SECURITY: Final = {"smtp": ("starttls", 587), "smtps": ("tls", 465), "smtp+plain": ("none", 25)}


@runtime_checkable
class Sink(Protocol):
    """Anything that can take an alert.

    name: says which one it is in logs and in the state file; no secret. `send` blocks until the alert is delivered,
    and raises SendFailed; it gives up soon after `stop` is set or `deadline_s` is over. It is called from a thread
    of its own, one alert at a time.
    """

    @property
    def name(self) -> str: ...

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None: ...


class Log:
    """The logger `qigheal.alerts`: one line an alert, of level info, warning or error."""

    name = "log"

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        log.log(LEVELS[alert.severity], "%s", " | ".join(words.said(alert).splitlines()))


class Webhook:
    """Posts JSON as Slack's incoming webhooks take it: `text`, and beside it `alert` with all its fields.

    url: http or https; it is a secret. headers: sent along, such as Authorization. structured: whether `alert` goes
    along; None: everywhere but to Slack, which documents no field of that name. A server that redirects is not
    followed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        structured: bool | None = None,
        name: str | None = None,
    ) -> None:
        parts = _address(url, ("https", "http"), "a webhook")
        slack = f".{parts.hostname}".endswith((".slack.com", ".slack-gov.com"))
        self._url = url.strip()
        self._headers = dict(headers or {})
        for key, value in self._headers.items():
            if not (f"{key}{value}".isprintable() and f"{key}{value}".isascii() and key.strip()):
                raise AlertError("a webhook's headers: expected names and values of printable ASCII")
        self._structured = not slack if structured is None else structured
        # A workflow's trigger takes the fields that it declares and no others.
        self._only_text = slack and parts.path.startswith(("/triggers/", "/workflows/"))
        self.name = name or f"webhook {parts.hostname}"

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        body: dict[str, Any] = {"text": words.for_chat(alert)}
        if not self._only_text:
            body |= {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
            if self._structured:
                body["alert"] = msgspec.to_builtins(alert)
        _sent(
            self.name,
            run(
                {"how": "webhook", "url": self._url, "headers": self._headers, "body": body}, deadline_s, stop
            ),
        )


class Email:
    """Mail by SMTP, one message an alert.

    to: one address or several. server: smtp://HOST[:587] with STARTTLS, which is then required,
    smtps://HOST[:465] with TLS from the start, smtp+plain://HOST[:25] with neither, for a relay on the same machine.
    sender: default the first of `to`. user, password: never sent without TLS; default the environment's
    QIGHEAL_SMTP_USER and QIGHEAL_SMTP_PASSWORD where neither is given and the server has TLS.
    """

    def __init__(
        self,
        *to: str,
        server: str | None = None,
        sender: str | None = None,
        user: str | None = None,
        password: str | None = None,
        name: str | None = None,
    ) -> None:
        given = server or os.environ.get("QIGHEAL_SMTP", "")
        if not given:
            raise AlertError(
                "e-mail: expected a mail server; give server= or set QIGHEAL_SMTP, such as smtp://HOST"
            )
        parts = _address(given, tuple(SECURITY), "e-mail's server")
        self._security, port = SECURITY[parts.scheme]
        self._host, self._port = str(parts.hostname), parts.port or port
        if user is None and password is None and self._security != "none":
            user = os.environ.get("QIGHEAL_SMTP_USER") or None
            password = os.environ.get("QIGHEAL_SMTP_PASSWORD") or None
        if (user is None) != (password is None):
            raise AlertError("e-mail: expected both a user and a password, or neither; got one of them")
        if user is not None and self._security == "none":
            raise AlertError("e-mail: a password is not sent without TLS; use smtp:// or smtps://")
        self._user, self._password = user or "", password or ""
        if not to:
            raise AlertError("e-mail: expected at least one address to write to, got none")
        self._to = [_mailbox(each) for each in to]
        self._sender = _mailbox(sender) if sender else self._to[0]
        self.name = name or f"e-mail {self._host}"

    def __repr__(self) -> str:
        return f"Email({self.name!r})"

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        order = {
            "how": "email",
            "host": self._host,
            "port": self._port,
            "security": self._security,
            "user": self._user,
            "password": self._password,
            "sender": self._sender,
            "to": self._to,
            "key": f"{alert.service} {alert.key}",
            "subject": alert.title,
            "text": words.said(alert) + "\n",
        }
        _sent(self.name, run(order, deadline_s, stop))


class Apprise:
    """Everything that the library apprise knows, by its addresses; they are secrets.

    Raises MissingExtra where apprise is not installed.
    """

    def __init__(self, *urls: str, name: str | None = None) -> None:
        if importlib.util.find_spec("apprise") is None:  # loading it takes tens of megabytes, elsewhere
            raise MissingExtra("apprise", "alerts", "alerting by apprise")
        if not urls or not all("://" in url and url.isprintable() for url in urls):
            raise AlertError("apprise: expected addresses such as ntfy://TOPIC, got none or something else")
        self._urls = list(urls)
        self.name = name or "apprise"

    def __repr__(self) -> str:
        return f"Apprise({self.name!r})"

    def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
        order = {
            "how": "apprise",
            "urls": self._urls,
            "subject": alert.title,
            "text": words.said(alert).partition("\n")[2] or alert.title,
            "severity": alert.severity,
        }
        _sent(self.name, run(order, deadline_s, stop))


def _sent(name: str, besides: str) -> None:
    if besides:
        log.warning("an alert to %s was sent, but %s", name, besides)


def _address(url: object, schemes: tuple[str, ...], what: str) -> SplitResult:
    """The parts of an address; an error never quotes it."""
    expected = f"{what}: expected an address that begins with {' or '.join(f'{each}://' for each in schemes)}"
    if not isinstance(url, str):
        raise AlertError(f"{expected}, got a {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise AlertError(f"{expected}, got none that can be read") from None
    if parts.scheme not in schemes or not host or not _hostname(host):
        raise AlertError(f"{expected} and names a host, got something else")
    if not url.strip().isprintable() or not url.strip().isascii() or " " in url.strip():
        raise AlertError(f"{what}: expected an address of printable ASCII without spaces")
    if parts.username is not None or parts.password is not None:
        raise AlertError(
            f"{what}: expected an address without user and password; give them separately, a webhook's as a header"
        )
    return parts


def _hostname(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    return all(
        part and part.replace("-", "").replace("_", "").isalnum() for part in host.rstrip(".").split(".")
    )


def _mailbox(text: str) -> str:
    address = text.strip()
    name, at, host = address.rpartition("@")
    plain = address.isascii() and address.isprintable() and not set(address) & set(' ,;:<>()[]"\\')
    if not (plain and at and name and _hostname(host)) or address.startswith("-"):
        raise AlertError(
            "e-mail: expected an address such as name@example.org, in plain ASCII, got something else"
        )
    return address
