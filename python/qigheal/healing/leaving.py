"""The settings that a pass goes by, and leaves in the store, beside the ledger, for those who tell of the healer.

Whoever shows or tells of the brakes is another process than the one that heals. Nothing else is decided here.
"""

from __future__ import annotations

import logging
from pathlib import Path

from qigcore.errors import HistoryError
from qigheal.host import Manifest
from qigheal.settings import HEALER_FILE, HealSettings

log = logging.getLogger("qigheal")


def going_by(manifest: Manifest, store: Path | None) -> HealSettings:
    """The settings of a pass for which nobody gave any: the usual ones, but for the brakes.

    Those are the manifest's. Where it has no [healer], they are those that the last pass over `store` left, so that
    who types a command does not stop or free a healer that was told otherwise; None: a healer of its own, which goes
    by nobody's. Only the brakes are taken from a store: its service may write there.
    """
    if manifest.healer is not None or store is None:
        return manifest.healer or HealSettings()
    try:
        return HealSettings().braked_as(HealSettings.load(store))
    except HistoryError as error:
        log.warning("%s; this pass goes by the usual settings", error)
        return HealSettings()


def leave(settings: HealSettings, store: Path, *, given: bool = True) -> None:
    """Write the settings into the store, where they are not there already. A disk that is full ends no pass.

    given: somebody chose them; where nobody did, those that are there stay if their brakes are the same. What must
    be kept of a pass is in the ledger, which raises.
    """
    try:
        if not given and _braked_alike(settings, store):
            return
        settings.save(store)
    except OSError as error:
        log.warning(
            "%s: the healer's settings cannot be kept: %s; its brakes are told of as they were before",
            store / HEALER_FILE,
            error.strerror or error,
        )


def _braked_alike(settings: HealSettings, store: Path) -> bool:
    try:
        left = HealSettings.load(store)
    except HistoryError:
        return False
    return (store / HEALER_FILE).exists() and left.braked_as(settings) == left
