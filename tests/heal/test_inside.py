"""How the answers from inside are judged, at each isolating level."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from qigheal.sandbox import bubblewrap, landlock
from qigheal.sandbox.bubblewrap import Interpreter
from qigheal.sandbox.inside import NOBODY, PROCESS_LIMIT, objections

PYTHON = Interpreter("/venv/bin/python", "/venv", "/base")
ANYWHERE = {
    "can gain rights": False,
    "system-call filter": True,
    "can start a process": True,
    "can exceed the process limit": False,
    "can write to its tree": False,
    "can write to /": False,
    "sys.prefix": "/venv",
    "sys.base_prefix": "/base",
}
NAMESPACES: dict[str, Any] = ANYWHERE | {
    "user": NOBODY,
    "group": NOBODY,
    "capabilities": [""],
    "process limit": PROCESS_LIMIT,
    "network devices": ["lo"],
}
PARTIAL: dict[str, Any] = ANYWHERE | {
    "user": NOBODY,
    "group": NOBODY,
    "capabilities": [""],
    "capabilities in force": "",
    "can open a socket": False,
    "can list the folder above its tree": False,
    "can signal the healer": False,
}
EXPECTED = {
    "namespaces": (NAMESPACES, bubblewrap.expected(PYTHON, True)),
    "partial": (PARTIAL, landlock.expected(PYTHON, True)),
}


@pytest.mark.parametrize("level", EXPECTED)
def test_no_objections(level: str) -> None:
    good, expected = EXPECTED[level]
    assert objections(json.dumps(good).encode(), expected) == ""


@pytest.mark.parametrize(
    ("level", "name"), [(level, name) for level in EXPECTED for name in EXPECTED[level][0]]
)
def test_each_deviation_is_named(level: str, name: str) -> None:
    good, expected = EXPECTED[level]
    told = objections(json.dumps(good | {name: "odd"}).encode(), expected)
    assert told.startswith(f"{name}: expected ")
    assert told.endswith("got odd")


def test_a_filter_that_is_not_there() -> None:
    found = json.dumps(NAMESPACES | {"system-call filter": False}).encode()
    assert "system-call filter: expected True" in objections(found, bubblewrap.expected(PYTHON, True))
    assert objections(found, bubblewrap.expected(PYTHON, False)) == ""


def test_an_ordinary_user_stays_itself() -> None:
    """It cannot empty the set of capabilities that it could never have, and needs not."""
    own = {"user": os.getuid(), "group": os.getgid(), "capabilities": ["", "1ffffffffff"]}
    assert objections(json.dumps(PARTIAL | own).encode(), landlock.expected(PYTHON, False)) == ""
