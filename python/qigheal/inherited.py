"""How this package starts itself as another process, and what that inherits: no secret that it has no use for.

A token admits to the web interface or to GitHub, and alerts have addresses and passwords. They are for the one
process that was given them. Nothing here starts a process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

COMMAND: Final = (sys.executable, "-P", "-m", "qigheal")
"""The command line. -P: the working folder of a service is no place to import from."""

GITHUB: Final = "QIGHEAL_GITHUB_TOKEN"
OWN: Final = "QIGHEAL_"
ALERTS: Final = ("ALERT_", "SMTP")
"""Addresses of webhooks and of apprise are secrets as a whole, and one of a mail server may hold a password."""


def without_secrets(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (default: this process's) without any secret of this package: for programs of the host."""
    given = os.environ if environ is None else environ
    return {name: value for name, value in given.items() if not _secret(name)}


def for_healer(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The same for a healer, which keeps the token for GitHub: it opens pull requests with it."""
    given = os.environ if environ is None else environ
    return {name: value for name, value in given.items() if name == GITHUB or not _secret(name)}


def _secret(name: str) -> bool:
    own = name.removeprefix(OWN)
    return own != name and (own.startswith(ALERTS) or name.endswith("_TOKEN"))
