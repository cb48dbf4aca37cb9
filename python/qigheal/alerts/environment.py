"""Sinks as the environment names them, for programs that are configured from outside; and a test alert.

QIGHEAL_ALERT_WEBHOOK    addresses, separated by spaces
QIGHEAL_ALERT_EMAIL      recipients, separated by commas or spaces
QIGHEAL_ALERT_FROM       the sender; default the first recipient
QIGHEAL_SMTP             the mail server: smtp://HOST, smtps://HOST or smtp+plain://HOST
QIGHEAL_SMTP_USER, QIGHEAL_SMTP_PASSWORD
QIGHEAL_ALERT_APPRISE    addresses of apprise, separated by spaces
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from qigheal.alerts import words
from qigheal.alerts.child import SendFailed
from qigheal.alerts.records import Alert
from qigheal.alerts.sinks import Apprise, Email, Log, Sink, Webhook


class Sent(NamedTuple):
    """What became of a test alert. why: one sentence, "" where it was delivered."""

    sink: str
    delivered: bool
    why: str


def sinks_from_environment(environ: Mapping[str, str] | None = None) -> tuple[Sink, ...]:
    """The log, and what the environment names. Raises AlertError or MissingExtra for what cannot be used."""
    given = os.environ if environ is None else environ
    sinks: list[Sink] = [Log()]
    sinks += [Webhook(url) for url in given.get("QIGHEAL_ALERT_WEBHOOK", "").split()]
    if to := given.get("QIGHEAL_ALERT_EMAIL", "").replace(",", " ").split():
        mail = Email(
            *to,
            server=given.get("QIGHEAL_SMTP") or None,
            sender=given.get("QIGHEAL_ALERT_FROM") or None,
            user=given.get("QIGHEAL_SMTP_USER") or None,
            password=given.get("QIGHEAL_SMTP_PASSWORD") or None,
        )
        sinks.append(mail)
    if urls := given.get("QIGHEAL_ALERT_APPRISE", "").split():
        sinks.append(Apprise(*urls))
    return tuple(sinks)


def send_test(
    sinks: Sequence[Sink],
    *,
    service: str = "qigheal",
    deadline_s: float = 20.0,
    clock: Callable[[], float] = time.time,
) -> tuple[Sent, ...]:
    """Send one test alert to each sink, one after another, each once. Blocks; never raises."""
    now = clock()
    alert = Alert(
        key=f"test:{now:.6f}",
        kind="test",
        subject="alerts",
        severity="info",
        title=words.titled(service, "a test of the alerts; nothing has happened"),
        lines=(f"sent at {words.when(now)}",),
        at=now,
        service=words.one_line(service, 80),
    )
    stop = threading.Event()
    done = []
    for sink in sinks:
        try:
            sink.send(alert, deadline_s, stop)
            done.append(Sent(sink.name, True, ""))
        except SendFailed as failed:
            done.append(Sent(sink.name, False, str(failed)))
        except Exception as error:  # a sink of others; its words may quote an address
            done.append(Sent(sink.name, False, f"the sink raised {type(error).__name__}"))
    return tuple(done)
