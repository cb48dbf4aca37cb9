"""Points in time as a person types them."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import datetime


def moment(text: str) -> float:
    """Unix seconds from what a person types: those, or ISO 8601, which is local time without an offset.

    Eight digits are a date, as 20260131: as seconds they would be of the years 1970 to 1973.
    Raises ValueError for anything else.
    """
    with suppress(ValueError, OverflowError, OSError):
        if not re.fullmatch("[0-9]{8}", text):
            with suppress(ValueError):
                if math.isfinite(seconds := float(text)):
                    return seconds
        return datetime.fromisoformat(text).timestamp()
    raise ValueError(
        f"expected a time as 2026-01-31T12:00, with or without offset, or Unix seconds, got {text}"
    )
