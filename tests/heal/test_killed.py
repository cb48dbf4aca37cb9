"""A healer that dies anywhere in the life of a change: the next one ends where it would have ended.

How, and at which points, stands in `tests.heal.killing`; the lives in `tests.heal.lives`. QIGHEAL_EXHAUSTIVE=1
also goes through the points that two lives share, and ends each life in every way at every point, and
at moments drawn by lot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.heal.lives import LIVES

ROOT = Path(__file__).resolve().parent.parent.parent
EXHAUSTIVE = os.environ.get("QIGHEAL_EXHAUSTIVE") == "1"
LIKE_ANOTHER = {"put through": 8, "autonomous": 4}
"""Lives whose steps nearly all are those of "taken back": one point in so many is enough."""


def ended(life: str, sparse: int, rare: int, struck: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.heal.killing", life, str(sparse), str(rare), str(struck)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("life", [name for name in LIVES if name != "careless"])
def test_it_ends_as_if_nobody_had_died(life: str) -> None:
    found = ended(life, 1, 1, 40) if EXHAUSTIVE else ended(life, LIKE_ANOTHER.get(life, 1), 8, 0)
    assert found["wrong"] == [], found["calls"]
    assert found["runs"]["killed"] > 0
    assert found["runs"]["left"] + found["runs"]["killed"] > len(LIVES[life].acts)


def test_an_effect_that_nothing_announced_is_found() -> None:
    found = ended("careless", 1, 1000, 0)
    assert len(found["wrong"]) == sum(found["runs"].values()) > 1
    assert "left-behind" in found["wrong"][0]
