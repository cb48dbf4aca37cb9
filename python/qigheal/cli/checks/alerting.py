"""The ways on which alerts go: which the environment names, and, when asked for, whether they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from qigheal.alerts import send_test, sinks_from_environment
from qigheal.cli.checks import Check


def configured() -> Iterator[Check]:
    """What the environment names. Nothing is sent."""
    names = ", ".join(sink.name for sink in sinks_from_environment())
    yield Check(name="alerts", state="ok", found=f"would go to {names}")


def delivered() -> Iterator[Check]:
    """A test alert to each sink, which takes as long as their servers do."""
    for sent in send_test(sinks_from_environment()):
        found = f"{sent.sink}: {'the test alert was delivered' if sent.delivered else sent.why}"
        remedy = "" if sent.delivered else "see to its address in the environment, and to the network"
        yield Check(name="alerts", state="ok" if sent.delivered else "fail", found=found, remedy=remedy)
