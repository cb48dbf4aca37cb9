"""What processes that are started inherit: no secret that they have no use for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qigheal.inherited import COMMAND, GITHUB, for_healer, without_secrets

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


def test_nothing_is_imported_from_the_working_folder(tmp_path: Path) -> None:
    for name in ("calendar", "numpy", "qigheal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working folder')")
    done = subprocess.run(
        [*COMMAND, "heal", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
