"""Cases for the attention strategy: a declared lever is at a value at which Φ or κ leaves its band."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.faults.corpus import MANIFEST, Case

SERVICE = """
    import tomllib
    from pathlib import Path

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())


    def gain():
        return SETTINGS["attention"]["gain"]


    def answer(request):
        return request * 7 % 1000
"""

LEVER = (
    MANIFEST
    + """
[[levers]]
name = "attention.gain"
strategy = "attention"
file = "config/app.toml"
key = "attention.gain"
min = 0.1
max = 10.0
"""
)


def config(gain: float) -> str:
    return f"# How strongly the service attends.\n[attention]\ngain = {gain}  # healthy: 1.0\n"


def gain_is_back(tree: Path) -> bool:
    gain = tomllib.loads((tree / "config/app.toml").read_text())["attention"]["gain"]
    return 0.9 <= gain <= 1.1


CASES = (
    Case(
        name="attention-one-lever",
        strategy="attention",
        why="one lever too low, found again among its range",
        healthy={"app/service.py": SERVICE, "config/app.toml": config(1.0), "qigheal.toml": LEVER},
        fault={"config/app.toml": config(0.4)},
        healed=gain_is_back,
    ),
)
