"""How a name of the host's code is spelled out: its words, whichever way they are joined.

What the words mean is for whoever asks. Nothing here knows what is to be healed.
"""

from __future__ import annotations

import re

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake(name: str) -> str:
    """A name in small letters with underscores: "userPIN" and "user-pin" are "user_pin"."""
    return CAMEL.sub("_", name).replace("-", "_").lower()
