"""The soak in its short form: seconds of what `make soak` does for minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import truth


def soak(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing was lost, repeated or wrong\n")
    return done.stdout


def figure(said: str, pattern: str) -> int:
    found = re.search(pattern, said)
    assert found, said
    return int(found[1].replace(",", ""))


def test_readers_beside_writers_that_are_killed() -> None:
    said = soak("--minutes", "0.08", "--kills-per-s", "8", "--seed", "1")
    assert figure(said, r"([\d,]+) of them killed") > 5
    assert figure(said, r"([\d,]+) rows stored") > 5000
    for reader in ("scan", "follow", "last", "segments"):
        assert figure(said, rf"{reader}: ([\d,]+) passes") > 3


@pytest.mark.parametrize("precision", truth.PRECISIONS)
def test_writers_killed_one_after_another(precision: str) -> None:
    said = soak("--kills", "30", "--precision", precision, "--seed", "1")
    assert figure(said, r"([\d,]+) rows stored before them") > 1000
