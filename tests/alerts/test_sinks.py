"""Webhooks, apprise and sinks named by the environment: what is sent, what is refused, what stays secret."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.alerts import (
    AlertError,
    Apprise,
    Email,
    Log,
    SendFailed,
    Webhook,
    child,
    send_test,
    sinks_from_environment,
)
from qigheal.errors import MissingExtra
from tests.alerts.places import hooked, silent_server
from tests.alerts.test_limiting import ALERT

DEADLINE_S = 30.0


def send(url: str, deadline_s: float = DEADLINE_S, **fields: Any) -> None:
    Webhook(url, **fields).send(ALERT, deadline_s, threading.Event())


def test_a_webhook_posts_what_slack_reads_and_the_fields_beside_it() -> None:
    with hooked() as hook:
        send(hook.url, headers={"Authorization": "Bearer t"})
        posted = hook.next()
    assert posted["text"] == "t"
    assert (posted["mrkdwn"], posted["unfurl_links"], posted["unfurl_media"]) == (False, False, False)
    assert posted["alert"]["key"] == "k"
    assert hook.headers[0]["Content-Type"] == "application/json"
    assert hook.headers[0]["Authorization"] == "Bearer t"
    assert hook.paths == ["/services/SECRET"]


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("https://hooks.slack.com/services/T/B/X", {"text", "mrkdwn", "unfurl_links", "unfurl_media"}),
        ("https://hooks.slack.com/triggers/T/1/x", {"text"}),
        ("https://hooks.slack-gov.com/services/T", {"text", "mrkdwn", "unfurl_links", "unfurl_media"}),
        ("https://slack.com.example/x", {"text", "mrkdwn", "unfurl_links", "unfurl_media", "alert"}),
    ],
)
def test_slack_gets_the_fields_that_it_documents(
    url: str, fields: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[dict[str, Any]] = []
    monkeypatch.setattr("qigheal.alerts.sinks.run", lambda order, *_: orders.append(order) or "")
    send(url)
    assert set(orders[0]["body"]) == fields


@pytest.mark.parametrize(
    ("code", "headers", "again", "after"),
    [
        (429, {"Retry-After": "7"}, True, 7.0),
        (429, {"Retry-After": "999999"}, True, 3600.0),
        (503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, True, 0.0),
        (500, {"Retry-After": "soon"}, True, None),
        (404, {}, False, None),
        (410, {}, False, None),
    ],
)
def test_what_a_server_answers(code: int, headers: dict[str, str], again: bool, after: float | None) -> None:
    with hooked((code, headers)) as hook, pytest.raises(SendFailed, match=f"answered {code}") as failed:
        send(hook.url)
    assert (failed.value.again, failed.value.after) == (again, after)
    assert "SECRET" not in str(failed.value)


def test_a_redirect_is_not_followed() -> None:
    with hooked() as other, hooked((307, {"Location": other.url}), (302, {"Location": other.url})) as hook:
        for _ in range(2):
            with pytest.raises(SendFailed, match="redirects") as failed:
                send(hook.url)
            assert not failed.value.again
    assert other.paths == []


def test_nobody_there_is_tried_again() -> None:
    with hooked() as hook:
        url = hook.url
    with pytest.raises(SendFailed, match="no connection") as failed:
        send(url)
    assert failed.value.again
    assert "SECRET" not in str(failed.value)


def test_a_name_that_nobody_knows_is_tried_again() -> None:
    with pytest.raises(SendFailed) as failed:
        send("http://no-such-host.invalid/SECRET")
    assert failed.value.again
    assert "SECRET" not in str(failed.value)


def test_a_server_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "SLACK_S", 0.0)
    with silent_server() as (port, _), pytest.raises(SendFailed, match=r"in time|broke|connection") as failed:
        send(f"http://127.0.0.1:{port}/", deadline_s=0.5)
    assert failed.value.again


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(child, "PROGRAM", program)
    monkeypatch.setattr(child, "SLACK_S", 0.0)
    with pytest.raises(SendFailed, match="no answer in time"):
        child.run({}, 0.3, threading.Event())
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(SendFailed, match="stopped"):
        child.run({}, 3600.0, stop)


@pytest.mark.parametrize("said", ["", "nonsense", '{"sent": 7}'])
def test_a_program_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str) -> None:
    program = tmp_path / "odd.py"
    program.write_text(f"import sys\nsys.stdin.read()\nprint({said!r})\n")
    monkeypatch.setattr(child, "PROGRAM", program)
    with pytest.raises(SendFailed, match="without an answer"):
        child.run({}, DEADLINE_S, threading.Event())
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(SendFailed, match="no Python interpreter"):
        child.run({}, DEADLINE_S, threading.Event())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(SendFailed, match="no process"):
        child.run({}, DEADLINE_S, threading.Event())


@pytest.mark.parametrize(
    "url",
    [
        "SECRET",
        "ftp://host/SECRET",
        "https:///SECRET",
        "https://user:SECRET@host/",
        "https://host/SECRET\r\nX: y",
        "https://host/SECRET x",
        "https://host:port/SECRET",
        "https://ho st/SECRET",
        "https://[::1/SECRET",
        7,
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_quoted(url: Any) -> None:
    with pytest.raises(AlertError, match="webhook") as error:
        Webhook(url)
    assert "SECRET" not in str(error.value)
    assert "\n" not in str(error.value)


def test_headers_cannot_carry_others() -> None:
    with pytest.raises(AlertError) as error:
        Webhook("https://host/", headers={"X": "SECRET\r\nY: z"})
    assert "SECRET" not in str(error.value)


def test_a_sink_does_not_print_its_secret() -> None:
    sink = Webhook("https://hooks.slack.com/services/SECRET")
    assert repr(sink) == "Webhook('webhook hooks.slack.com')"


def test_apprise_delivers_by_an_address_of_its_own() -> None:
    with hooked() as hook:
        address = hook.url.replace("http://", "json://").replace("/services/SECRET", "/x")
        Apprise(address).send(replace(ALERT, lines=("more",)), DEADLINE_S, threading.Event())
        posted = hook.next()
    assert (posted["title"], posted["message"]) == ("t", "more")


def test_apprise_that_understands_nothing_is_given_up() -> None:
    with pytest.raises(SendFailed, match="does not understand") as failed:
        Apprise("nosuch://SECRET").send(ALERT, DEADLINE_S, threading.Event())
    assert not failed.value.again
    with pytest.raises(AlertError) as error:
        Apprise("SECRET")
    assert "SECRET" not in str(error.value)


def test_apprise_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"qigheal\[alerts\]"):
        Apprise("json://host")


def test_the_environment_names_sinks() -> None:
    sinks = sinks_from_environment(
        {
            "QIGHEAL_ALERT_WEBHOOK": "https://a.example/x  https://b.example/y",
            "QIGHEAL_ALERT_EMAIL": "ops@example.org, admin@example.org",
            "QIGHEAL_SMTP": "smtps://mail.example.org",
            "QIGHEAL_ALERT_APPRISE": "json://c.example",
        }
    )
    assert [sink.name for sink in sinks] == [
        "log",
        "webhook a.example",
        "webhook b.example",
        "e-mail mail.example.org",
        "apprise",
    ]
    assert [type(sink) for sink in sinks_from_environment({})] == [Log]
    with pytest.raises(AlertError, match="QIGHEAL_SMTP"):
        sinks_from_environment({"QIGHEAL_ALERT_EMAIL": "ops@example.org"})


@pytest.mark.parametrize(
    "fields",
    [
        {"server": "mail.example.org"},
        {"server": "http://mail.example.org"},
        {"server": "smtp://user:SECRET@mail.example.org"},
        {"server": "smtp+plain://mail.example.org", "user": "u", "password": "SECRET"},
        {"server": "smtp://mail.example.org", "password": "SECRET"},
        {"sender": "ops@example.org\r\nBcc: SECRET@example.org"},
        {"sender": "SECRET"},
    ],
)
def test_mail_that_cannot_be_sent_as_asked_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(AlertError, match="e-mail") as error:
        Email("ops@example.org", **{"server": "smtp://mail.example.org", **fields})
    assert "SECRET" not in str(error.value)
    with pytest.raises(AlertError):
        Email(server="smtp://mail.example.org")


def test_a_test_alert_says_what_became_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="qigheal.alerts")
    with hooked((404, {})) as hook:
        done = send_test([Log(), Webhook(hook.url)], service="digits")
    assert [(each.sink, each.delivered) for each in done] == [("log", True), ("webhook 127.0.0.1", False)]
    assert done[1].why == "the server answered 404"
    assert "digits: a test of the alerts; nothing has happened" in caplog.text
    assert "SECRET" not in caplog.text + json.dumps(done)


def test_nothing_is_loaded_into_the_process_that_serves() -> None:
    code = (
        "import sys, json; from qigheal.alerts import AlertWatch, Webhook, Email, Apprise, Log\n"
        "AlertWatch('nowhere', [Log(), Webhook('https://h/'), Apprise('json://h')]).look()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"random", "statistics", "ssl", "http.client", "smtplib", "email", "apprise", "numba", "scipy"}
    assert not heavy & loaded
    assert not [name for name in loaded if name.startswith("qigheal.healing")]
