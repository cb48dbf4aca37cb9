"""A person's word on a patch that was measured and never opened, as in phase 2.

It merges nothing: it is what the gate to phase 3 counts. A patch that was rejected is not proposed again,
as one whose change was rejected. The review of a change that is open is the business of `passage`.
"""

from __future__ import annotations

from qigheal.errors import EngineError
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Review
from qigheal.records import HealingPatch


def measured_only(ledger: Ledger, name: str) -> HealingPatch | None:
    """The measured patch whose fingerprint begins with `name`, if no change does.

    Raises EngineError when several patches do.
    """
    if not name or any(change.startswith(name) for change in ledger.changes()):
        return None
    found = {
        patch.fingerprint: patch for patch, _, _ in ledger.verdicts() if patch.fingerprint.startswith(name)
    }
    if len(found) > 1:
        raise EngineError(f"{name!r} names {len(found)} patches; give one of: {', '.join(sorted(found))}")
    return next(iter(found.values()), None)


def review_measured(
    ledger: Ledger, patch: HealingPatch, *, approve: bool, reviewer: str, reason: str, at: float
) -> Review:
    """Write the review down; the last one of a patch counts."""
    word = Review(approved=approve, reviewer=reviewer, reason=reason)
    ledger.append("review", patch.fingerprint, word, at)
    return word
