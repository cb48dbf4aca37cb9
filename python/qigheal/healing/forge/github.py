"""The forge on GitHub: a branch, a pull request, a merge, and if need be a revert, by its REST API alone.

The local repository is where a patch is applied and its commit made; the objects are then sent one by
one, so that both sides name the same commit by the same digest. No git goes over the network: the
repository's own settings could lead that to other hosts or other programs. The local branches are left
alone; whoever deploys brings the checkout along.

Creating the branch is the lock between healers. A branch that holds anything but the healer's commit
belongs to somebody else: it is neither merged nor overwritten. No ref is ever forced.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from qigheal.errors import RepoError
from qigheal.healing.forge import body, messages
from qigheal.healing.forge.github_answers import Commit, Comparison, Label, Pull, Ref, Thing
from qigheal.healing.forge.github_api import SAYS, Api, Refused, part
from qigheal.healing.forge.github_standing import reviews, unmet_checks
from qigheal.healing.forge.tree import PREFIX, permitted_tree, rehearse_revert
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo
from qigheal.repo.git import EMAIL, NAME, NO_FILE

log = logging.getLogger("qigheal")

WITHDRAWN: Final = "qigheal-withdrawn"
"""Label of a pull request that the healer closed itself, and so may open again."""


class GitHubForge:
    """Changes of one repository on GitHub, of which `repo` is a clone.

    manifest: of the commit that the change is made to; needed to open one.
    seen: what was wrong when the change was made, for the pull request.
    """

    def __init__(self, repo: Repo, api: Api, manifest: Manifest, seen: Callable[[Change], str]) -> None:
        self._repo = repo
        self._api = api
        self._manifest = manifest
        self._seen = seen

    # Questions

    def tip(self, branch: str) -> str | None:
        """The commit at the head of a branch on GitHub, None where there is no such branch."""
        found = self._api.find(f"/git/ref/{part(f'heads/{branch}')}", Ref)
        return found.object.sha if found else None

    def stale(self, base: str, target: str) -> str:
        """Why a change made to `base` could not be opened now, or an empty string."""
        tip = self.tip(target)
        if tip == base:
            return ""
        there = f"is at {tip[:10]}" if tip else "does not exist"
        return (
            f"branch {target} of {self._api.repository} on GitHub {there}, and this checkout at {base[:10]}; "
            "bring the two together (git pull, or git push), then it is measured"
        )

    def moved(self, change: Change) -> str:
        """Where the target has gone from the commit that was measured; empty while it is there, or gone."""
        base, tip = change.patch.base, self.tip(change.target)
        if tip in (None, base):
            return ""
        moved = f"{change.target} moved from {base[:10]} to {tip[:10]} on GitHub since it was measured"
        return f"{moved}; it must be measured again"

    def resolve(self, ref: str) -> str:
        """The commit that a branch on GitHub or an abbreviated digest names; RepoError when it names none."""
        if ref.startswith("refs/heads/"):
            if (tip := self.tip(ref.removeprefix("refs/heads/"))) is None:
                raise RepoError(f"{self._api.repository}: expected branch {ref} on GitHub, there is none")
            return tip
        try:
            return self._repo.resolve(ref)
        except RepoError:
            return self._api.call("GET", f"/commits/{part(ref)}", Thing).sha

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether commit `descendant` contains commit `ancestor`; a commit contains itself."""
        if ancestor == descendant:
            return True
        if self._repo.has(ancestor) and self._repo.has(descendant):
            return self._repo.is_ancestor(ancestor, descendant)
        span = f"/compare/{ancestor}...{descendant}"
        return self._api.call("GET", span, Comparison, params={"per_page": 1}).status == "ahead"

    # Opening

    def open(self, change: Change) -> Change:
        """Put the patch on a branch and ask for it to be merged; gives the change as `open`, with its head.

        Raises PatchError when the patch does not apply or touches what it may not, and RepoError when
        branch or pull request are no longer the healer's own.
        """
        tree = permitted_tree(self._repo, self._manifest, change)
        head = self._branched(change, change.branch, tree, change.patch.base, messages.opening(change))
        pull = self._requested(change)
        missing = [name for name in body.labels(change) if Label(name=name) not in pull.labels]
        if missing:
            self._label(pull.number, missing)
        return replace(change, state="open", head=head, reason="")

    def _branched(self, change: Change, branch: str, tree: str, base: str, message: str) -> str:
        """The commit of `tree` on `base` at the head of `branch`, which is made where it is missing."""
        present = self.tip(branch)
        if present is None:
            head = self._sent(change, tree, base, message)
            try:
                self._api.call("POST", "/git/refs", Ref, body={"ref": f"refs/heads/{branch}", "sha": head})
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

    def _sent(self, change: Change, tree: str, base: str, message: str) -> str:
        """Send what `tree` has and `change.patch.base` has not, and make a commit of it on `base`."""
        measured = change.patch.base
        known = self._api.find(f"/git/commits/{measured}", Commit)
        if known is None:
            raise RepoError(f"commit {measured[:10]} is not on GitHub in {self._api.repository}; push it")
        entries: list[dict[str, str | None]] = []
        for one in self._repo.changes(measured, tree):
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
        return self._committed(tree, base, message, change.opened_at)

    def _committed(self, tree: str, parent: str, message: str, at: float) -> str:
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

    def _requested(self, change: Change) -> Pull:
        """The open pull request of the change's branch, made where there is none.

        One that a person closed is not opened again.
        """
        pull = self._newest(change.branch)
        if pull is not None and pull.state == "open":
            return pull
        if pull is not None and pull.merged_at is None:
            if Label(name=WITHDRAWN) not in pull.labels:
                raise RepoError(
                    f"pull request #{pull.number} of {change.branch} was closed by a person; open it again there "
                    "if the change is wanted after all"
                )
            return self._opened_again(change, pull)
        return self._new_pull(
            change.branch, change.target, messages.title(change), body.request(change, self._seen(change))
        )

    def _opened_again(self, change: Change, pull: Pull) -> Pull:
        text = body.request(change, self._seen(change))
        opened = self._api.call(
            "PATCH",
            f"/pulls/{pull.number}",
            Pull,
            body={"state": "open", "body": text, "base": change.target},
        )
        try:
            self._api.call("DELETE", f"/issues/{pull.number}/labels/{part(WITHDRAWN)}", tuple[Label, ...])
        except Refused as refused:
            log.warning("pull request #%d keeps label %s: %s", pull.number, WITHDRAWN, refused)
        return opened

    def _new_pull(self, branch: str, target: str, title: str, text: str) -> Pull:
        asked = {
            "title": title,
            "head": branch,
            "base": target,
            "body": text,
            "maintainer_can_modify": False,
        }
        try:
            return self._api.call("POST", "/pulls", Pull, body=asked)
        except Refused as refused:
            made = self._newest(branch)  # by a request whose answer was lost
            if refused.status == 422 and made is not None and made.state == "open":
                return made
            raise

    def _newest(self, branch: str) -> Pull | None:
        owner = self._api.repository.partition("/")[0]
        asked = {"head": f"{owner}:{branch}", "state": "all"}
        pulls = [pull for page in self._api.pages("/pulls", tuple[Pull, ...], asked) for pull in page]
        return max(
            (pull for pull in pulls if pull.head.ref == branch), key=lambda pull: pull.number, default=None
        )

    def _label(self, number: int, names: list[str]) -> None:
        """Labels help people to find things. Where the token may not set them, the change goes on."""
        try:
            self._api.call("POST", f"/issues/{number}/labels", tuple[Label, ...], body={"labels": names})
        except Refused as refused:
            log.warning("pull request #%d keeps no label: %s", number, refused)

    # What people did

    def refresh(self, change: Change) -> Change:
        """The change after what people did to its pull request: approve, object, close, merge, push."""
        pull = self._newest(change.branch)
        if pull is None:
            return _waiting(change, f"pull request of {change.branch} is gone; {HOW_ON}")
        at = f"pull request #{pull.number}"
        if pull.merged_at is not None:
            return self._merged_by_hand(change, pull, pull.merged_at)
        if pull.state != "open":
            return replace(change, state="rejected", reason=f"{at} was closed without being merged")
        if why := _other(change, pull):
            return _waiting(change, why)
        said = reviews(self._api, pull, change.head)
        if said.objecting:
            return _waiting(change, f"{at}: {', '.join(said.objecting)} asked for changes")
        if change.state == "approved" and change.reviewer in said.withdrawn:
            return _waiting(change, f"{at}: the approval of {change.reviewer} was dismissed")
        if change.state == "open" and said.approving:
            return replace(change, state="approved", reviewer=said.approving[-1], reason="")
        settled = change.state == "open" and change.reason.startswith(OURS)
        return replace(change, reason="") if settled else change

    def _merged_by_hand(self, change: Change, pull: Pull, at_time: datetime) -> Change:
        at = f"pull request #{pull.number}"
        if why := _other(change, pull):
            return replace(change, state="superseded", reason=f"{at} was merged by hand, but {why}")
        whole = self._api.call("GET", f"/pulls/{pull.number}", Pull)
        merged = self._merged(change, whole)
        who = whole.merged_by.login if whole.merged_by else "a person"
        reason = f"{at} was merged by {who} on GitHub" + (f"; {merged.reason}" if merged.reason else "")
        return replace(merged, merged_at=at_time.timestamp(), reason=reason)

    # Merging

    def obstacle(self, change: Change) -> str:
        """Why `merge` of a change not yet begun to be merged would give it back now; nothing is written."""
        if self.tip(change.target) is None:
            return f"target branch {change.target} is gone"
        pull = self._newest(change.branch)
        return self._unmergeable(change, pull) if pull else f"pull request of {change.branch} is gone"

    def _unmergeable(self, change: Change, pull: Pull) -> str:
        at = f"pull request #{pull.number}"
        if pull.state != "open":
            return f"{at} was closed"
        if why := _other(change, pull):
            return why
        if moved := self.moved(change):
            return moved
        if pull.draft:
            return f"{at} is a draft; mark it as ready"
        unmet = unmet_checks(self._api, change.target, change.head)
        return f"{at}: {unmet}" if unmet else ""

    def merge(self, change: Change) -> Change:
        """Merge the pull request; gives the change as `merged`, or as it was with the reason why not.

        GitHub merges only the head that was measured. `ledger_head` and the reviewer must stand in the
        change before the first call.
        """
        pull = self._newest(change.branch)
        if pull is None:
            return replace(change, reason=f"pull request of {change.branch} is gone")
        if pull.merged_at is None:
            if why := self._unmergeable(change, pull):
                return replace(change, reason=why)
            title, _, text = messages.merging(change).partition("\n\n")
            asked = {
                "sha": change.head,
                "merge_method": "merge",
                "commit_title": title,
                "commit_message": text,
            }
            refusal = ""
            try:
                self._api.call("PUT", f"/pulls/{pull.number}/merge", Thing, body=asked)
            except Refused as refused:  # as it is too when the answer to an earlier one was lost
                refusal = f"pull request #{pull.number} cannot be merged: GitHub says {refused.said}"
            pull = self._newest(change.branch)
            if pull is None or pull.merged_at is None:
                return replace(change, reason=refusal or f"GitHub has not yet merged {change.branch}")
        return self._merged(change, pull)

    def _merged(self, change: Change, pull: Pull) -> Change:
        if not pull.merge_commit_sha:
            raise RepoError(
                f"pull request #{pull.number}: expected the commit of its merge, GitHub names none"
            )
        commit = self._api.call("GET", f"/git/commits/{pull.merge_commit_sha}", Commit)
        if not commit.parents:
            raise RepoError(f"merge {commit.sha}: expected a commit with a parent, GitHub shows none")
        parent, base = commit.parents[0].sha, change.patch.base
        reason = ""
        if parent != base:  # somebody was faster by a moment, between the question and the merge
            reason = f"{change.target} was at {parent[:10]} when it was merged, not at {base[:10]}, which was measured"
        return replace(change, state="merged", merge_commit=commit.sha, merge_parent=parent, reason=reason)

    def rehearse_revert(self, change: Change) -> None:
        """Raises RepoError where taking the change back would not restore what was there before."""
        made = self._repo.apply(change.patch.base, change.patch.diff)
        rehearse_revert(self._repo, change, made)

    # Taking back

    def revert(self, change: Change) -> Change:
        """Take the merge back; gives the change as `reverted`, or as it was with the reason why not.

        Where the branch takes no commit from the healer, a pull request asks a person for it. The commit
        is dated `reverted_at`, which must stand in the change before the first call.
        """
        merge, tip = change.merge_commit, self.tip(change.target)
        if tip is None:
            return replace(change, reason=f"target branch {change.target} is gone")
        message = messages.reverting(change)
        tree = self._api.call("GET", f"/git/commits/{change.merge_parent}", Commit).tree.sha
        commit = self._committed(tree, merge, message, change.reverted_at)
        if tip == merge:
            if (asked := self._newest(_revert_branch(change))) is not None:
                return self._revert_asked(change, asked)
            ref = f"/git/refs/{part(f'heads/{change.target}')}"
            try:
                self._api.call("PATCH", ref, Ref, body={"sha": commit, "force": False})
            except Refused as refused:
                if (tip := self.tip(change.target)) == merge:
                    log.warning("%s takes no commit from the healer: %s", change.target, refused)
                    return self._ask_to_revert(change, commit)
            else:
                tip = commit
        if tip is not None and self.is_ancestor(commit, tip):
            return replace(change, state="reverted", revert_commit=commit)
        asked = self._newest(_revert_branch(change))
        if asked is not None and asked.merged_at is not None:
            return self._revert_asked(change, asked)
        return replace(
            change,
            reason=f"other commits lie on top of merge {merge[:10]} in {change.target}; taking it back is "
            "for a person to do",
        )

    def _ask_to_revert(self, change: Change, commit: str) -> Change:
        branch = _revert_branch(change)
        if (present := self.tip(branch)) is None:
            self._api.call("POST", "/git/refs", Ref, body={"ref": f"refs/heads/{branch}", "sha": commit})
        elif present != commit:
            return replace(change, reason=f"branch {branch} exists on GitHub with other contents")
        pull = self._new_pull(branch, change.target, f"Revert {change.branch}", body.revert(change))
        self._label(pull.number, [*body.labels(change)])
        return self._revert_asked(change, pull)

    def _revert_asked(self, change: Change, pull: Pull) -> Change:
        at = f"pull request #{pull.number}"
        if pull.merged_at is not None and pull.merge_commit_sha:
            return replace(change, state="reverted", revert_commit=pull.merge_commit_sha)
        if pull.state != "open":
            reason = f"{at}, which would take it back, was closed: the change stays by a person's decision"
            return replace(change, state="contested", reason=reason)
        return replace(change, reason=f"{change.target} is protected: merge {at} to take the change back")

    # Ending

    def close(self, change: Change) -> None:
        """Close the pull request of a change that has come to its end without being merged, and say why.

        One with somebody else's commits stays as it is.
        """
        pull = self._newest(change.branch)
        if pull is None or pull.state != "open" or _other(change, pull):
            return
        number = pull.number
        self._label(number, [WITHDRAWN])
        self._api.call("PATCH", f"/pulls/{number}", Pull, body={"state": "closed"})
        comment = {"body": body.farewell(change)}
        self._api.call("POST", f"/issues/{number}/comments", msgspec.Raw, body=comment, once=True)


HOW_ON: Final = "reject the change (qigheal review), or open a new request for the branch"
OURS: Final = ("pull request ", SAYS)
"""How reasons begin that hold until GitHub is asked again."""


def _other(change: Change, pull: Pull) -> str:
    """How a pull request differs from what was measured, or an empty string."""
    at = f"pull request #{pull.number}"
    if pull.base.ref != change.target:
        return f"{at} goes to another branch than {change.target} now"
    if pull.head.sha != change.head:
        return (
            f"{at}: its branch is at {pull.head.sha[:10]}, which is not the healer's commit {change.head[:10]}: "
            "what others commit there is neither merged nor overwritten by the healer; merge or close it by hand"
        )
    return ""


def _waiting(change: Change, reason: str) -> Change:
    """The change as open, whoever approved it before: it waits for a person."""
    return replace(change, state="open", reviewer="", reason=reason)


def _revert_branch(change: Change) -> str:
    return f"{PREFIX}revert-{change.id}"
