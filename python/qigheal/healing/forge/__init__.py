"""Where a change becomes a branch, a merge, and if need be a revert.

A forge does what it is told and judges nothing; whether a change may be merged is decided before. Each
method may be called again after a kill, with the change as it was recorded before the call, and ends
in the same refs and commits. When something stands in the way that may go away by itself or by a
person's hand, the change comes back in the state it had, with `reason` saying what.
"""

from __future__ import annotations

from typing import Protocol

from qigheal.records import Change


class Forge(Protocol):
    """What a place for changes can do."""

    def open(self, change: Change) -> Change:
        """Put the patch on a branch of its own, which also reserves it against other healers."""
        ...

    def moved(self, change: Change) -> str:
        """How the target has moved on since the change was measured, or an empty string."""
        ...

    def obstacle(self, change: Change) -> str:
        """Why `merge` would give the change back now, or an empty string. Nothing is written."""
        ...

    def merge(self, change: Change) -> Change:
        """Merge the branch into its target, if the target still is what was measured."""
        ...

    def revert(self, change: Change) -> Change:
        """Take a merge back, if nothing lies on top of it."""
        ...

    def rehearse_revert(self, change: Change) -> None:
        """Make sure, before a merge, that it could be taken back. Raises RepoError if not."""
        ...
