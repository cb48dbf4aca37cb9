"""Text of others where it goes: a chat, a log, a mail's subject."""

from __future__ import annotations

import logging
import threading

import pytest
from msgspec.structs import replace

from qigheal.alerts import Log
from qigheal.alerts.words import for_chat, one_line, said, when
from tests.alerts.test_limiting import ALERT


def test_a_chat_gets_no_markup_and_calls_nobody() -> None:
    alert = replace(ALERT, title="<!channel> & @here", lines=("<https://evil.example|click> [x](y)",))
    assert for_chat(alert) == ("&lt;!channel&gt; &amp; @ here\n&lt;https://evil.example|click&gt; [x] (y)")


def test_a_chat_message_is_not_longer_than_a_chat_takes() -> None:
    assert len(for_chat(replace(ALERT, lines=tuple("y" * 400 for _ in range(50))))) < 4000


def test_a_log_line_is_one_line_without_commands_for_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="qigheal.alerts")
    alert = replace(ALERT, severity="critical", title="down", lines=(one_line("a\x1b]0;evil\x07\nb"),))
    Log().send(alert, 1.0, threading.Event())
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "down | a\N{REPLACEMENT CHARACTER}]0;evil\N{REPLACEMENT CHARACTER} b"


def test_what_was_not_delivered_here_is_said() -> None:
    assert "3 alerts before this one could not be delivered here" in said(replace(ALERT, undelivered=3))


def test_a_time_beyond_the_calendar() -> None:
    assert when(1e300) == "1e+300 s"
    assert when(None) == "an unknown time"
    assert when(0.0) == "1970-01-01 00:00 UTC"
