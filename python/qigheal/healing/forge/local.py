"""The forge that needs no server: branches and merge commits in the repository itself.

A merge commit has two parents, the target as it was measured and the change's branch, and the
branch's tree. Nothing is merged into a target that has moved, and nothing reverted under commits of
others. Users' files change only through `Repo.advance`.
"""

from __future__ import annotations

from msgspec.structs import replace

from qigheal.errors import Blocked, RepoError
from qigheal.healing.forge import messages, taken_out
from qigheal.healing.forge.tree import permitted_tree, rehearse_revert
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo


class LocalForge:
    """Changes of one repository; `manifest`, needed to open one, is that of the commit it is made to."""

    def __init__(self, repo: Repo, manifest: Manifest | None = None) -> None:
        self._repo = repo
        self._manifest = manifest

    def open(self, change: Change) -> Change:
        """Commit the patch on its base and create the branch; gives the change as `open`, with its head.

        Raises PatchError when the patch does not apply or touches what it may not, and RepoError when
        the branch exists with other contents.
        """
        repo, base = self._repo, change.patch.base
        tree = permitted_tree(repo, self._manifest, change)
        head = repo.commit(tree, (base,), messages.opening(change), change.opened_at)
        present = repo.ref(change.branch)
        if present is None:
            try:
                repo.create_ref(change.branch, head)
                present = head
            except RepoError:
                present = repo.ref(change.branch)  # somebody else was faster
                if present is None:
                    raise
        if present != head:
            raise RepoError(
                f"branch {change.branch} exists with other contents ({present[:10]}); another healer or a "
                "person owns it: let them finish, or delete it"
            )
        return replace(change, state="open", head=head, reason="")

    def tip(self, branch: str) -> str | None:
        """The commit at the head of a branch, None where there is no such branch."""
        return self._repo.ref(f"refs/heads/{branch}")

    def stale(self, base: str, target: str) -> str:
        """An empty string: what is checked out is what a change is made to."""
        return ""

    def refresh(self, change: Change) -> Change:
        """The change as it is: people's words on it come through the ledger alone."""
        return change

    def resolve(self, ref: str) -> str:
        """The commit that a branch or an abbreviated digest names; RepoError when it names none."""
        return self._repo.resolve(ref)

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether commit `descendant` contains commit `ancestor`; a commit contains itself."""
        return self._repo.is_ancestor(ancestor, descendant)

    def moved(self, change: Change) -> str:
        """Where the target has gone from the commit that was measured; empty while it is there, or gone."""
        base, tip = change.patch.base, self._repo.ref(change.target)
        if tip in (None, base):
            return ""
        moved = f"{change.target} moved from {base[:10]} to {tip[:10]} since it was measured"
        return f"{moved}; it must be measured again"

    def obstacle(self, change: Change) -> str:
        """Why `merge` of a change not yet begun to be merged would give it back now; nothing is written."""
        repo = self._repo
        if repo.ref(change.target) is None:
            return f"target branch {change.target} is gone"
        if foreign := self._foreign(change):
            return foreign
        return self.moved(change) or repo.obstacle(change.target, change.head, change.patch.base)

    def _foreign(self, change: Change) -> str:
        """How the branch differs from what was measured, or an empty string.

        One that is gone differs in nothing, as long as its commit is still there: it is made again.
        """
        tip = self._repo.ref(change.branch)
        if tip == change.head or (tip is None and self._repo.has(change.head)):
            return ""
        now = f"is at {tip[:10]}" if tip else "is gone with its commit"
        back = f"put it back (git branch -f {change.branch} {change.head}), or " if tip else ""
        return (
            f"branch {change.branch} {now}, and no longer what was measured, {change.head[:10]}: {back}give the "
            f"change up (qigheal review {change.id} --reject)"
        )

    def merge(self, change: Change) -> Change:
        """Merge the branch; gives the change as `merged`, or as it was with the reason why not.

        The commit is dated `merged_at` and names `ledger_head` and the reviewer, which must stand in
        the change before the first call.
        """
        repo, base = self._repo, change.patch.base
        tip = repo.ref(change.target)
        if tip is None:
            return replace(change, reason=f"target branch {change.target} is gone")
        commit = repo.commit(change.head, (base, change.head), messages.merging(change), change.merged_at)
        if not self._contains(tip, commit):
            if moved := self.moved(change):
                return replace(change, reason=moved)
            if foreign := self._foreign(change):
                return replace(change, reason=foreign)
            if repo.ref(change.branch) is None:
                repo.create_ref(change.branch, change.head)
        if reason := self._advance(change.target, tip, commit, base, f"qigheal: merge {change.branch}"):
            return replace(change, reason=reason)
        return replace(change, state="merged", merge_commit=commit, merge_parent=base, reason="")

    def revert(self, change: Change) -> Change:
        """Take the merge back; gives the change as `reverted`, or as it was with the reason why not.

        The commit is dated `reverted_at`, which must stand in the change before the first call.
        """
        repo, merge = self._repo, change.merge_commit
        tip = repo.ref(change.target)
        if tip is None:
            return replace(change, reason=f"target branch {change.target} is gone")
        commit = repo.commit(change.merge_parent, (merge,), messages.reverting(change), change.reverted_at)
        if not self._contains(tip, commit) and tip != merge:
            if not self._contains(tip, merge):
                return taken_out(change, tip)
            return replace(
                change,
                reason=f"other commits lie on top of merge {merge[:10]} in {change.target}; taking it back is "
                "for a person to do",
            )
        if reason := self._advance(change.target, tip, commit, merge, f"qigheal: revert {change.branch}"):
            return replace(change, reason=reason)
        return replace(change, state="reverted", revert_commit=commit)

    def rehearse_revert(self, change: Change) -> None:
        """Raises RepoError where taking the change back would not restore what was there before."""
        rehearse_revert(self._repo, change, change.head)

    def close(self, change: Change) -> None:
        """Nothing: the branch stays, so that a person may look at it."""

    def _contains(self, tip: str, commit: str) -> bool:
        return tip == commit or self._repo.is_ancestor(commit, tip)

    def _advance(self, target: str, tip: str, new: str, old: str, message: str) -> str:
        """Move the target, or complete a move that was interrupted; gives the reason why not."""
        if tip not in (new, old):
            return ""  # done long ago, with others' commits on top
        try:
            self._repo.advance(target, new, old, message)
        except Blocked as blocked:
            return str(blocked)
        return ""
