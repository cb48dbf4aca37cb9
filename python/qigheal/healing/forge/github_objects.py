"""The objects of a change and its branch, sent to GitHub one by one.

The repository here has made the same objects already, or could: what GitHub stores must have the same
digest. No ref is ever forced, and a branch with other contents is left alone.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from qigheal.errors import RepoError
from qigheal.healing.forge.github_answers import Commit, Ref, Thing
from qigheal.healing.forge.github_api import Api, Refused, part
from qigheal.records import Change
from qigheal.repo import Repo
from qigheal.repo.git import EMAIL, NAME, NO_FILE


class Objects:
    """Commits and refs of the repository on GitHub of which `repo` is a clone."""

    def __init__(self, repo: Repo, api: Api) -> None:
        self._repo = repo
        self._api = api

    def tip(self, branch: str) -> str | None:
        """The commit at the head of a branch, None where there is no such branch."""
        found = self._api.find(f"/git/ref/{part(f'heads/{branch}')}", Ref)
        return found.object.sha if found else None

    def known(self, sha: str) -> Commit:
        """A commit that must be there."""
        return self._api.call("GET", f"/git/commits/{sha}", Commit)

    def create(self, branch: str, sha: str) -> None:
        """Make a branch that must not exist yet."""
        self._api.call("POST", "/git/refs", Ref, body={"ref": f"refs/heads/{branch}", "sha": sha})

    def move(self, branch: str, sha: str) -> None:
        """Move a branch forward to a commit that contains its present one. Raises Refused when it does not."""
        self._api.call(
            "PATCH", f"/git/refs/{part(f'heads/{branch}')}", Ref, body={"sha": sha, "force": False}
        )

    def branched(self, change: Change, tree: str, message: str) -> str:
        """The commit of `tree` on the change's base at the head of its branch, which is made where it is missing."""
        branch, base = change.branch, change.patch.base
        present = self.tip(branch)
        if present is None:
            head = self._sent(change, tree, message)
            try:
                self.create(branch, head)
                return head
            except Refused as refused:
                if (present := self.tip(branch)) is None:
                    raise RepoError(f"branch {branch} cannot be made: {refused}") from refused
        if self._is_ours(present, tree, base, message):
            return present
        raise RepoError(
            f"branch {branch} exists on GitHub with other contents ({present[:10]}); another healer or a "
            "person owns it: let them finish, or delete it"
        )

    def _sent(self, change: Change, tree: str, message: str) -> str:
        """Send what `tree` has and the change's base has not, and make a commit of it there."""
        base = change.patch.base
        known = self._api.find(f"/git/commits/{base}", Commit)
        if known is None:
            raise RepoError(f"commit {base[:10]} is not on GitHub in {self._api.repository}; push it")
        entries: list[dict[str, str | None]] = []
        for one in self._repo.changes(base, tree):
            sha = None
            if one.new_mode != NO_FILE:
                content = base64.b64encode(self._repo.read(tree, one.path)).decode()
                sha = self._api.call(
                    "POST", "/git/blobs", Thing, body={"content": content, "encoding": "base64"}
                ).sha
            mode = one.old_mode if sha is None else one.new_mode
            entries.append({"path": one.path, "mode": mode, "type": "blob", "sha": sha})
        sent = self._api.call(
            "POST", "/git/trees", Thing, body={"base_tree": known.tree.sha, "tree": entries}
        ).sha
        if sent != tree:
            raise RepoError(f"{change.branch}: expected GitHub to store tree {tree}, it stored {sent}")
        return self.committed(tree, base, message, change.opened_at)

    def committed(self, tree: str, parent: str, message: str, at: float) -> str:
        """A commit on GitHub; with the same dates and words as a local one, it is the same commit."""
        date = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = {"name": NAME, "email": EMAIL, "date": date}
        content = {"message": message, "tree": tree, "parents": [parent], "author": who, "committer": who}
        return self._api.call("POST", "/git/commits", Thing, body=content).sha

    def _is_ours(self, sha: str, tree: str, parent: str, message: str) -> bool:
        """Whether a commit is the one that would be made now: by content, should GitHub have signed it."""
        found = self._api.find(f"/git/commits/{sha}", Commit)
        return (
            found is not None
            and found.tree.sha == tree
            and [each.sha for each in found.parents] == [parent]
            and found.message.strip() == message.strip()
        )
