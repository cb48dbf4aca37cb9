"""Alerts: tells people what they have to know of a service and of its healing, once and in plain words.

    records      what an alert is, the settings, what was said
    seeing       reads the store and the ledger
    events       what is new since the last look: pure functions
    limiting     how many of a kind may go out: pure functions
    words        the sentences, and text of others made harmless
    keeping      which process alerts, and what it has said: one lock and one file in the store
    sinks        where alerts go: log, webhook, e-mail, apprise
    child        the process of its own that talks to the network
    sending      its program, which knows nothing of the rest
    delivery     one queue a sink, retried
    watch        AlertWatch: the thread that looks
    environment  sinks named by environment variables, and a test alert

This room decides nothing about health and changes nothing but its own two files. It may be imported by the
process that serves: network libraries are loaded by `sending`, in its process, alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qigheal.alerts.environment import send_test, sinks_from_environment
    from qigheal.alerts.records import Alert, AlertError, AlertSettings
    from qigheal.alerts.sinks import Apprise, Email, Log, SendFailed, Sink, Webhook
    from qigheal.alerts.watch import AlertWatch

__all__ = [
    "Alert",
    "AlertError",
    "AlertSettings",
    "AlertWatch",
    "Apprise",
    "Email",
    "Log",
    "SendFailed",
    "Sink",
    "Webhook",
    "send_test",
    "sinks_from_environment",
]

_ROOMS = {
    "Alert": "records",
    "AlertError": "records",
    "AlertSettings": "records",
    "AlertWatch": "watch",
    "Apprise": "sinks",
    "Email": "sinks",
    "Log": "sinks",
    "SendFailed": "sinks",
    "Sink": "sinks",
    "Webhook": "sinks",
    "send_test": "environment",
    "sinks_from_environment": "environment",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'qigheal.alerts' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"qigheal.alerts.{_ROOMS[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
