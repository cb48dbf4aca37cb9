"""The tree that a change makes of its base, if it may make it."""

from __future__ import annotations

from qigheal.errors import PatchError, RepoError
from qigheal.host import Manifest, refusals
from qigheal.records import Change
from qigheal.repo import Repo

PREFIX = "qigheal/"


def permitted_tree(repo: Repo, manifest: Manifest | None, change: Change) -> str:
    """The tree to put on the change's branch; `manifest` is that of the commit that the change is made to.

    Raises PatchError when the patch does not apply or touches what it may not.
    """
    if not change.branch.startswith(PREFIX):
        raise RepoError(f"{change.branch!r}: expected the name of a change's branch, {PREFIX}…")
    base = change.patch.base
    tree = repo.apply(base, change.patch.diff)
    if manifest is None:
        raise RepoError(f"{change.branch}: expected the host's manifest, which says what may be touched")
    if refused := refusals(manifest, repo.changes(base, tree), repo.entries(base)):
        raise PatchError("; ".join(refused))
    return tree


def rehearse_revert(repo: Repo, change: Change, made: str) -> None:
    """Apply the reverse of the change to `made`, what it makes, and see that the base comes back.

    made: a commit or tree. No ref moves.
    Raises RepoError when it does not.
    """
    base = change.patch.base
    tree = repo.apply(made, repo.diff(made, base))
    if left := repo.changes(base, tree):
        paths = ", ".join(sorted(c.path for c in left))
        raise RepoError(f"taking back {change.branch} would not restore {paths}; it must not be merged")
