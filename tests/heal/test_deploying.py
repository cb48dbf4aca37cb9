"""The deploy command: it may fail, hang, be missing, flood, or leave a service running."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qigheal.healing import deploying
from qigheal.healing.deploying import run_deploy
from qigheal.inherited import GITHUB
from tests.test_inherited import SECRETS


def deploy(folder: Path, script: str) -> tuple[int, str]:
    (folder / "deploy.sh").write_text(script)
    return run_deploy(("sh", "deploy.sh"), folder, "a-key", None)


def alive(pid: int) -> bool:
    try:
        return "\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_its_code_its_key_and_its_last_words(tmp_path: Path) -> None:
    assert deploy(tmp_path, 'echo "$QIGHEAL_CHANGE"; pwd; exit 3') == (3, f"a-key\n{tmp_path}")


def test_it_inherits_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, GITHUB):
        monkeypatch.setenv(name, "hidden-word")
    code, said = deploy(tmp_path, "env")
    assert code == 0
    assert "QIGHEAL_CHANGE=a-key" in said
    assert "hidden-word" not in said


def test_a_missing_command_is_said(tmp_path: Path) -> None:
    code, said = run_deploy(("no-such-command",), tmp_path, "k", None)
    assert code == -1
    assert "no-such-command" in said


def test_a_service_left_running_holds_nothing_up(tmp_path: Path) -> None:
    began = time.monotonic()
    code, said = deploy(tmp_path, "sleep 60 & echo $!")
    assert (code, time.monotonic() - began < 20) == (0, True)
    pid = int(said)
    try:
        assert alive(pid), "the service that was deployed did not outlive its deployment"
    finally:
        os.kill(pid, 9)


def test_one_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "TIMEOUT_S", 0.5)
    code, said = deploy(tmp_path, "sleep 60 & echo $!; wait")
    assert code == -1
    assert "0.5 s" in said
    pid, until = int(said.split()[-1]), time.monotonic() + 30  # a killed process may take a moment to end
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)


def test_a_flood_is_kept_by_its_end_and_without_control_characters(tmp_path: Path) -> None:
    code, said = deploy(tmp_path, "head -c 20000000 /dev/zero | tr '\\0' x; printf '\\033[2J\\n\\nend'")
    assert code == 0
    assert len(said) <= deploying.TAIL_BYTES
    assert said.endswith("end")
    assert "\033" not in said
