"""What processes that are started inherit: no secret that they have no use for."""

from __future__ import annotations

import pytest

from qigheal.inherited import GITHUB, for_healer, without_secrets

SECRETS = (
    "QIGHEAL_READ_TOKEN",
    "QIGHEAL_TOKEN",
    "QIGHEAL_REVIEW_TOKEN",
    "QIGHEAL_SMTP",
    "QIGHEAL_SMTP_USER",
    "QIGHEAL_SMTP_PASSWORD",
    "QIGHEAL_ALERT_WEBHOOK",
    "QIGHEAL_ALERT_APPRISE",
)
"""What nobody inherits."""

ORDINARY = {
    "QIGHEAL_STORE": "s",
    "QIGHEAL_GITHUB_API": "a",
    "TOKEN": "t",
    "SMTP_PASSWORD": "p",
    "PATH": "/bin",
}


def test_secrets_go_and_the_rest_stays() -> None:
    given = ORDINARY | dict.fromkeys((*SECRETS, GITHUB), "secret")
    assert without_secrets(given) == ORDINARY
    assert for_healer(given) == ORDINARY | {GITHUB: "secret"}


def test_by_default_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIGHEAL_TOKEN", "secret")
    monkeypatch.setenv("ORDINARY", "x")
    for given in (without_secrets(), for_healer()):
        assert "QIGHEAL_TOKEN" not in given
        assert given["ORDINARY"] == "x"
