"""What `qigheal doctor` prints: a line for each finding, the remedy below those that need one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from qigheal.cli.checks import Check, worst
from qigheal.cli.show import console, document, escape

COLOUR: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def report(found: Sequence[Check], *, json: bool) -> None:
    counts: Counter[str] = Counter(check.state for check in found)
    if json:
        totals = {state: counts[state] for state in COLOUR}
        document({"state": worst(found), **totals, "checks": found})
        return
    for check in found:
        colour = COLOUR[check.state]
        line = f"[{colour}]{check.state:4}[/]  {escape(check.name):17}  {escape(check.found)}"
        console.print(line, soft_wrap=True)
        if check.remedy:
            console.print(f"      {'':17}  {escape(check.remedy)}", soft_wrap=True)
    console.print(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed")
