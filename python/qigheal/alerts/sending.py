"""The program that talks to the network: one order on standard input, one answer on standard output, both JSON.

It runs as a process of its own, so that whatever hangs can be killed and what it loads stays out of the process
that serves. It is run by its path and imports nothing of qigheal. An answer never quotes an address, a password or
what a server said: {"sent": bool, "again": whether another attempt may do, "after": seconds that the server asked
for or null, "why": one sentence}.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

Answer = dict[str, Any]


def answer(sent: bool, why: str = "", *, again: bool = False, after: float | None = None) -> Answer:
    return {"sent": sent, "again": again, "after": after, "why": why}


def webhook(order: dict[str, Any]) -> Answer:
    import http.client
    import urllib.error
    import urllib.request

    class Staying(urllib.request.HTTPRedirectHandler):
        """The address is a secret: it is told to nobody whom a server names."""

        def redirect_request(self, *_: Any) -> None:
            return None

    request = urllib.request.Request(  # noqa: S310  (only http and https pass the sink)
        order["url"],
        data=json.dumps(order["body"]).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "qigheal", **order["headers"]},
        method="POST",
    )
    try:
        with urllib.request.build_opener(Staying).open(request, timeout=order["timeout_s"]) as response:
            response.read(1)
        return answer(True)
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            return answer(
                False, f"the server redirects ({error.code}), which is not followed: name the final address"
            )
        again = error.code in (408, 425, 429) or error.code >= 500
        return answer(
            False,
            f"the server answered {error.code}",
            again=again,
            after=_asked(error.headers.get("Retry-After")),
        )
    except urllib.error.URLError as error:
        return answer(False, f"no connection ({_kind(error.reason)})", again=True)
    except (OSError, http.client.HTTPException) as error:
        return answer(False, f"the connection broke ({_kind(error)})", again=True)


def _asked(text: str | None) -> float | None:
    """Seconds of a Retry-After header, an hour at most."""
    from email.utils import parsedate_to_datetime

    if not text:
        return None
    try:
        seconds = (
            float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), 3600.0)


def email(order: dict[str, Any]) -> Answer:
    import hashlib
    import smtplib
    import ssl
    from email.message import EmailMessage
    from email.utils import format_datetime, localtime

    message = EmailMessage()
    message["From"] = order["sender"]
    message["To"] = ", ".join(order["to"])
    message["Subject"] = order["subject"]
    message["Date"] = format_datetime(localtime())
    named = hashlib.sha256(order["key"].encode()).hexdigest()[:32]  # the same for the same alert
    message["Message-ID"] = f"<{named}@qigheal.{order['sender'].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(order["text"])
    try:
        context = ssl.create_default_context()
        kind = order["security"]
        server: smtplib.SMTP
        if kind == "tls":
            server = smtplib.SMTP_SSL(
                order["host"], order["port"], timeout=order["timeout_s"], context=context
            )
        else:
            server = smtplib.SMTP(order["host"], order["port"], timeout=order["timeout_s"])
        with server:
            if kind == "starttls":
                server.starttls(context=context)
            if order["user"]:
                server.login(order["user"], order["password"])
            refused = server.send_message(message)
        return answer(True, "some recipients were refused" if refused else "")
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        # Greylisting answers 450: the same mail is taken later.
        return answer(
            False,
            f"the mail server refused every recipient ({codes[0]})",
            again=any(code < 500 for code in codes),
        )
    except smtplib.SMTPResponseException as error:
        return answer(False, f"the mail server answered {error.smtp_code}", again=error.smtp_code < 500)
    except smtplib.SMTPNotSupportedError:
        return answer(False, "the mail server offers no STARTTLS or no login; nothing was sent")
    except (OSError, smtplib.SMTPException) as error:
        return answer(False, f"no connection to the mail server ({_kind(error)})", again=True)


def apprise(order: dict[str, Any]) -> Answer:
    import apprise as library

    places = library.Apprise()
    for url in order["urls"]:
        if not places.add(url):
            return answer(False, "apprise does not understand the address")
    kind = {"info": library.NotifyType.INFO, "warning": library.NotifyType.WARNING}
    sent = places.notify(
        title=order["subject"],
        body=order["text"],
        notify_type=kind.get(order["severity"], library.NotifyType.FAILURE),
        body_format=library.NotifyFormat.TEXT,
    )
    return answer(bool(sent), "" if sent else "apprise could not deliver it everywhere", again=not sent)


def _kind(error: object) -> str:
    """What sort of error it was; its own words may quote the address."""
    number = getattr(error, "strerror", None) if isinstance(getattr(error, "errno", None), int) else None
    return f"{type(error).__name__}: {number}" if isinstance(number, str) else type(error).__name__


def main() -> None:
    order = json.loads(sys.stdin.buffer.read())
    signal.alarm(int(order["timeout_s"]) + 5)  # should nobody be left to end this process
    try:
        said = {"webhook": webhook, "email": email, "apprise": apprise}[order["how"]](order)
    except Exception as error:  # whatever a library raises may quote an address
        said = answer(False, f"it could not be sent ({type(error).__name__})", again=True)
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
