"""Where the adapters find the dashboard's files; a build without the dashboard has none."""

from __future__ import annotations

import importlib
from typing import Any


def asset(name: str) -> tuple[bytes, str]:
    """Content and media type of a file of the dashboard. Raises KeyError for an unknown one."""
    try:
        dashboard: Any = importlib.import_module("qigheal.dashboard")
    except ModuleNotFoundError:
        raise KeyError(name) from None
    found: tuple[bytes, str] = dashboard.asset(name)
    return found
