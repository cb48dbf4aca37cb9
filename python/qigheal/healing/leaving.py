"""What a pass leaves in the store, beside the ledger, for those who tell of the healer: the settings it goes by.

Whoever shows or tells of the brakes is another process than the one that heals. Nothing is decided here.
"""

from __future__ import annotations

import logging
from pathlib import Path

from qigheal.settings import HEALER_FILE, HealSettings

log = logging.getLogger("qigheal")


def leave(settings: HealSettings, store: Path) -> None:
    """Write the settings into the store, where they are not there already. A disk that is full ends no pass.

    What must be kept of a pass is in the ledger, which raises.
    """
    try:
        settings.save(store)
    except OSError as error:
        log.warning(
            "%s: the healer's settings cannot be kept: %s; its brakes are told of as they were before",
            store / HEALER_FILE,
            error.strerror or error,
        )
