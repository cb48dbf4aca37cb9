"""Where a change becomes a branch, a merge, and if need be a revert.

A forge does what it is told and judges nothing; whether a change may be merged is decided before. Each
method may be called again after a kill, with the change as it was recorded before the call, and ends
in the same refs and commits. When something stands in the way that may go away by itself or by a
person's hand, the change comes back in the state it had, with `reason` saying what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo


class Forge(Protocol):
    """What a place for changes can do."""

    def open(self, change: Change) -> Change:
        """Put the patch on a branch of its own, which also reserves it against other healers."""
        ...

    def tip(self, branch: str) -> str | None:
        """The commit at the head of a branch, where changes are merged; None where there is no such branch."""
        ...

    def stale(self, base: str, target: str) -> str:
        """Why a change made to commit `base` could not be opened now, or an empty string."""
        ...

    def refresh(self, change: Change) -> Change:
        """An open or approved change after what people did to it where it lies: it may come back as
        `open`, `approved`, `rejected`, `superseded`, or `merged` by hand. Nothing is written."""
        ...

    def resolve(self, ref: str, /) -> str:
        """The commit that `refs/heads/…` or a digest of at least 7 digits names; RepoError when it names none."""
        ...

    def is_ancestor(self, ancestor: str, descendant: str, /) -> bool:
        """Whether commit `descendant` contains commit `ancestor`; a commit contains itself."""
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
        """Take a merge back, if nothing lies on top of it; `contested` where people decided about it already."""
        ...

    def rehearse_revert(self, change: Change) -> None:
        """Make sure, before a merge, that it could be taken back. Raises RepoError if not."""
        ...

    def close(self, change: Change) -> None:
        """Take down what invites people to merge a change that has ended."""
        ...


def forge_of(repo: Repo, manifest: Manifest, seen: Callable[[Change], str]) -> Forge:
    """The forge that a host's manifest names. `seen` says what was wrong when a change was made.

    Raises RepoError where the environment lacks the token that it needs, MissingExtra where a package is.
    """
    if manifest.forge.kind == "local":
        from qigheal.healing.forge.local import LocalForge

        return LocalForge(repo, manifest)
    from qigheal.healing.forge.github import GitHubForge
    from qigheal.healing.forge.github_api import Api

    return GitHubForge(repo, Api(manifest.forge), manifest, seen)


def taken_out(change: Change, tip: str) -> Change:
    """The end of a change whose merge is no longer in its target, now at `tip`: a person was faster."""
    reason = (
        f"merge {change.merge_commit[:10]} is no longer in {change.target}, which is at {tip[:10]}: a person took it "
        "out, and there is nothing to take back"
    )
    return replace(change, state="contested", reason=reason)
