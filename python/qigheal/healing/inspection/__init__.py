"""Looks into a host's probe from inside while it answers: where time, memory and errors come from.

An instrument is a source file of this folder that defines `start(root, options)`: it begins to look, and
returns a function that says what was seen as JSON data. Its text goes into the host's own interpreter,
in front of the probe, so it uses the standard library alone and imports nothing of qigheal. What comes
back was made beside the host's code and is evidence to look at, not a fact: whoever proposes a patch on
it proves the patch by other means.

Nothing here starts a process; `bench` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qigheal.errors import ProbeError

MARK = b"qigheal-evidence "
"""What the line begins with that holds the evidence; to the probe protocol it is a line of log."""

WITH_VALUE = frozenset(("-W", "-X"))
"""Options of the interpreter whose value may be the next word."""


def looked_into(probe: Sequence[str], instrument: str, options: Mapping[str, Any]) -> list[str]:
    """The probe's command line with an instrument in front of the program that it runs.

    Raises ProbeError for a command that is no plain start of a Python program.
    """
    flags: list[str] = []
    words = list(probe[1:])
    if os.path.basename(probe[0]).startswith("python"):
        while words and words[0].startswith("-") and words[0] not in ("-m", "-c", "-"):
            flags.append(words.pop(0))
            if flags[-1] in WITH_VALUE and words:
                flags.append(words.pop(0))
        if words[:1] == ["-m"] and len(words) > 1:
            return [probe[0], *flags, "-c", _text(instrument, options, "module", words[1]), *words[2:]]
        if words and not words[0].startswith("-"):
            return [probe[0], *flags, "-c", _text(instrument, options, "path", words[0]), *words[1:]]
    raise ProbeError(
        f"expected a probe that is started as python -m MODULE or python FILE, got {' '.join(probe)[:80]!r}: "
        "its profile, tracebacks and memory cannot be seen from inside; change [probe] command in qigheal.toml"
    )


def _text(instrument: str, options: Mapping[str, Any], how: str, program: str) -> str:
    here = Path(__file__)
    parts = (here.with_name("driver.py").read_text(), here.with_name(f"{instrument}.py").read_text())
    task = {"instrument": parts[1], "options": dict(options), "how": how, "program": program}
    # repr of a JSON text: whatever the program is called, it is a string and never code.
    return f"{parts[0]}\nmain({msgspec.json.encode(task).decode()!r})\n"
