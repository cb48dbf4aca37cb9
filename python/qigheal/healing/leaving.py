"""The settings that a pass goes by, and leaves in the store, beside the ledger, for those who tell of the healer.

Whoever shows or tells of the brakes is another process than the one that heals. Nothing else is decided here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from qigcore.errors import HistoryError
from qigcore.regular import open_regular
from qigheal.healerchild import LOCK
from qigheal.host import Manifest
from qigheal.settings import HEALER_FILE, HealSettings

log = logging.getLogger("qigheal")


def going_by(manifest: Manifest, store: Path | None) -> HealSettings:
    """The settings of a pass for which nobody gave any: the usual ones, but for the brakes.

    Those are the manifest's. Where it has no [healer], or a loop works for `store` that may have been told otherwise,
    they are those that the last pass over `store` left, so that who types a command does not stop or free another
    healer; None: a healer of its own, which goes by nobody's. Only the brakes are taken from a store: its service
    may write there.
    """
    declared = manifest.healer or HealSettings()
    if store is None or (manifest.healer is not None and not (_left(store) and _loop_beside(store))):
        return declared
    try:
        return HealSettings().braked_as(HealSettings.load(store))
    except HistoryError as error:
        by = "the usual settings" if manifest.healer is None else "the manifest's [healer]"
        log.warning("%s; this pass goes by %s", error, by)
        return declared


def leave(settings: HealSettings, store: Path, *, given: bool = True) -> None:
    """Write the settings into the store, where they are not there already. A disk that is full ends no pass.

    given: somebody chose them; where nobody did, those that are there stay if their brakes are the same, or if a loop
    works for the store, whose they are to tell. What must be kept of a pass is in the ledger, which raises.
    """
    try:
        if not given and (_braked_alike(settings, store) or _loop_beside(store)):
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
    return _left(store) and left.braked_as(settings) == left


def _left(store: Path) -> bool:
    return (store / HEALER_FILE).exists()


def _loop_beside(store: Path) -> bool:
    """Whether another process holds the healer's lock of the store.

    To ask is to share the lock for a moment: a loop that begins in that very moment is turned away.
    """
    try:
        with os.fdopen(open_regular(store / LOCK, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return not _open_here(file.fileno())
    except OSError:  # none was ever there, or it is not for this user
        pass
    return False


def _open_here(handle: int) -> bool:
    """Whether this process has the file open elsewhere too. The number in it says less: containers have a 1 each."""
    there = os.fstat(handle)
    for other in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one that listed them is closed again
            if other != handle and os.path.samestat(os.fstat(other), there):
                return True
    return False
