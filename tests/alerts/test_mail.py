"""Mail through real servers: with STARTTLS, without, refused, stalled."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.alerts import Email, SendFailed, child
from tests.alerts.places import certified, posted, silent_server
from tests.alerts.test_limiting import ALERT

DEADLINE_S = 30.0
LOGIN = {"user": "me", "password": "right"}
TOLD = replace(ALERT, title="digits: critical: Φ degraded", lines=("components that moved: 12 (34%)",))


def send(mail: Email, deadline_s: float = DEADLINE_S) -> None:
    mail.send(TOLD, deadline_s, threading.Event())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("mail"))


def test_a_mail_to_a_relay_on_this_machine() -> None:
    with posted() as post:
        mail = Email(
            "ops@example.org",
            "admin@example.org",
            server=f"smtp+plain://127.0.0.1:{post.port}",
            sender="digits@example.org",
        )
        send(mail)
        send(mail)
        to, message = post.next()
        _, twin = post.next()
    assert to == ["ops@example.org", "admin@example.org"]
    assert message["Subject"] == "digits: critical: Φ degraded"
    assert message["From"] == "digits@example.org"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "components that moved: 12 (34%)" in message.get_content()
    assert message["Message-ID"] == twin["Message-ID"]  # a mailbox can tell that it is the same


def test_starttls_and_a_login(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with posted(certificate=certificate, login=True) as post:
        server = f"smtp://127.0.0.1:{post.port}"
        send(Email("ops@example.org", server=server, **LOGIN))
        assert post.next()[0] == ["ops@example.org"]
        monkeypatch.setenv("QIGHEAL_SMTP_USER", "me")
        monkeypatch.setenv("QIGHEAL_SMTP_PASSWORD", "SECRET")
        with pytest.raises(SendFailed, match="answered 535") as failed:
            send(Email("ops@example.org", server=server))
    assert "SECRET" not in str(failed.value)
    assert set(post.logins) == {(b"me", b"right"), (b"me", b"SECRET")}


def test_a_certificate_of_nobody_known_gets_nothing(certificate: Path) -> None:
    with posted(certificate=certificate, login=True) as post:
        mail = Email("ops@example.org", server=f"smtp://127.0.0.1:{post.port}", **LOGIN)
        with pytest.raises(SendFailed, match="SSLCertVerificationError"):
            send(mail)
    assert post.logins == []
    assert post.mails.empty()


def test_without_starttls_nothing_is_sent() -> None:
    with posted() as post:
        with pytest.raises(SendFailed, match="offers no STARTTLS") as failed:
            send(Email("ops@example.org", server=f"smtp://127.0.0.1:{post.port}"))
        assert post.mails.empty()
    assert not failed.value.again


@pytest.mark.parametrize(("answer", "again"), [("451 later", True), ("554 never SECRET", False)])
def test_a_refusal_for_now_is_tried_again_and_one_for_good_is_not(answer: str, again: bool) -> None:
    with posted(answer) as post:
        mail = Email("ops@example.org", server=f"smtp+plain://127.0.0.1:{post.port}")
        with pytest.raises(SendFailed, match=f"answered {answer[:3]}") as failed:
            send(mail)
        assert failed.value.again == again
        assert "SECRET" not in str(failed.value)
        send(mail)
        assert post.next()[0] == ["ops@example.org"]


def test_a_server_that_stalls_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "SLACK_S", 0.0)
    with silent_server() as (port, _), pytest.raises(SendFailed) as failed:
        send(Email("ops@example.org", server=f"smtp+plain://127.0.0.1:{port}"), deadline_s=0.5)
    assert failed.value.again


def test_tls_from_the_start(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with posted(certificate=certificate, wrapped=True) as post:
        send(Email("ops@example.org", server=f"smtps://127.0.0.1:{post.port}"))
        assert post.next()[0] == ["ops@example.org"]


def test_a_recipient_who_is_refused_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    with posted() as post:
        server = f"smtp+plain://127.0.0.1:{post.port}"
        send(Email("ops@example.org", "550@example.org", server=server))
        assert post.next()[0] == ["ops@example.org"]
        assert "some recipients were refused" in caplog.text
        for address, again in (("550@example.org", False), ("450@example.org", True)):
            with pytest.raises(SendFailed, match=f"refused every recipient .{address[:3]}") as failed:
                send(Email(address, server=server))
            assert failed.value.again == again
