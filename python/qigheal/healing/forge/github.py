"""The forge on GitHub: a branch, a pull request, a merge, and if need be a revert, by its REST API alone.

The local repository is where a patch is applied and its commit made; the objects are then sent one by
one, so that both sides name the same commit by the same digest. No git goes over the network: the
repository's own settings could lead that to other hosts or other programs. The local branches are left
alone; whoever deploys brings the checkout along.

Creating the branch is the lock between healers. A branch that holds anything but the healer's commit
belongs to somebody else: it is neither merged nor overwritten. No ref is ever forced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from qigheal.errors import RepoError
from qigheal.healing.forge import body, messages, taken_out
from qigheal.healing.forge.github_answers import Comparison, Label, Pull, Thing
from qigheal.healing.forge.github_api import SAYS, Api, Refused, part
from qigheal.healing.forge.github_objects import Objects
from qigheal.healing.forge.github_pulls import WITHDRAWN, Pulls
from qigheal.healing.forge.github_standing import reviews, unmet_checks, unwilling
from qigheal.healing.forge.tree import PREFIX, permitted_tree, rehearse_revert
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo

log = logging.getLogger("qigheal")


class GitHubForge:
    """Changes of one repository on GitHub, of which `repo` is a clone.

    manifest: of the commit that the change is made to; needed to open one.
    seen: what was wrong when the change was made, for the pull request.
    """

    def __init__(self, repo: Repo, api: Api, manifest: Manifest, seen: Callable[[Change], str]) -> None:
        self._repo = repo
        self._api = api
        self._objects = Objects(repo, api)
        self._pulls = Pulls(api)
        self._manifest = manifest
        self._seen = seen

    # Questions

    def tip(self, branch: str) -> str | None:
        """The commit at the head of a branch on GitHub, None where there is no such branch."""
        return self._objects.tip(branch)

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
        head = self._objects.branched(change, tree, messages.opening(change))
        pull = self._requested(change)
        missing = [name for name in body.labels(change) if Label(name=name) not in pull.labels]
        if missing:
            self._pulls.label(pull.number, missing)
        if Label(name=WITHDRAWN) in pull.labels:
            self._pulls.unlabel(pull.number)
        return replace(change, state="open", head=head, reason="")

    def _requested(self, change: Change) -> Pull:
        """The open pull request of the change's branch, made where there is none.

        One that a person closed is not opened again.
        """
        pull = self._pulls.newest(change.branch)
        if pull is not None and pull.state == "open":
            return pull
        if pull is not None and pull.merged_at is None:
            if Label(name=WITHDRAWN) not in pull.labels:
                raise RepoError(
                    f"pull request #{pull.number} of {change.branch} was closed by a person; open it again there "
                    "if the change is wanted after all"
                )
            return self._opened_again(change, pull)
        return self._pulls.create(
            change.branch, change.target, messages.title(change), body.request(change, self._seen(change))
        )

    def _opened_again(self, change: Change, pull: Pull) -> Pull:
        asked = {"state": "open", "body": body.request(change, self._seen(change)), "base": change.target}
        return self._api.call("PATCH", f"/pulls/{pull.number}", Pull, body=asked)

    # What people did

    def refresh(self, change: Change) -> Change:
        """The change after what people did to its pull request: approve, object, close, merge, push."""
        pull = self._pulls.newest(change.branch)
        if pull is None:
            return _waiting(change, _gone(change))
        at = f"pull request #{pull.number}"
        if pull.merged_at is not None:
            return self._merged_by_hand(change, pull, pull.merged_at)
        if pull.state != "open":
            return replace(change, state="rejected", reason=f"{at} was closed without being merged")
        if why := _other(change, pull):
            return _waiting(change, why)
        said = reviews(self._api, pull, change.head)
        if why := unwilling(said, change.reviewer):
            return _waiting(change, f"{at}: {why}")
        if change.state == "open" and said.approving:
            return replace(change, state="approved", reviewer=said.approving[-1], reason="")
        settled = change.state == "open" and change.reason.startswith(OURS)
        return replace(change, reason="") if settled else change

    def _merged_by_hand(self, change: Change, pull: Pull, at_time: datetime) -> Change:
        at = f"pull request #{pull.number}"
        if why := _other(change, pull):
            return replace(change, state="superseded", reason=f"{at} was merged by hand, but {why}")
        whole = self._api.call("GET", f"/pulls/{pull.number}", Pull)
        who = whole.merged_by.login if whole.merged_by else "a person"
        merged = self._merged(replace(change, reviewer=who), whole)
        reason = f"{at} was merged by {who} on GitHub" + (f"; {merged.reason}" if merged.reason else "")
        return replace(merged, merged_at=at_time.timestamp(), reason=reason)

    # Merging

    def obstacle(self, change: Change) -> str:
        """Why `merge` of a change not yet begun to be merged would give it back now; nothing is written."""
        if self.tip(change.target) is None:
            return f"target branch {change.target} is gone"
        pull = self._pulls.newest(change.branch)
        return self._unmergeable(change, pull) if pull else _gone(change)

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

    def _unapproved(self, change: Change, pull: Pull) -> str:
        why = unwilling(reviews(self._api, pull, change.head), change.reviewer)
        return f"pull request #{pull.number}: {why}" if why else ""

    def merge(self, change: Change) -> Change:
        """Merge the pull request; gives the change as `merged`, or as it was with the reason why not.

        GitHub merges only the head that was measured. `ledger_head` and the reviewer must stand in the
        change before the first call.
        """
        pull = self._pulls.newest(change.branch)
        if pull is None:
            return replace(change, reason=_gone(change))
        if pull.merged_at is None:
            # A healer that was killed may come back here long after the approval was looked at.
            if why := self._unmergeable(change, pull) or self._unapproved(change, pull):
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
            pull = self._pulls.newest(change.branch)
            if pull is None or pull.merged_at is None:
                return replace(change, reason=refusal or f"GitHub has not yet merged {change.branch}")
        return self._merged(change, pull)

    def _merged(self, change: Change, pull: Pull) -> Change:
        if not pull.merge_commit_sha:
            raise RepoError(
                f"pull request #{pull.number}: expected the commit of its merge, GitHub names none"
            )
        commit = self._objects.known(pull.merge_commit_sha)
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
        tree = self._objects.known(change.merge_parent).tree.sha
        commit = self._objects.committed(tree, merge, message, change.reverted_at)
        if tip == merge:
            if (asked := self._pulls.newest(_revert_branch(change))) is not None:
                return self._revert_asked(change, asked)
            try:
                self._objects.move(change.target, commit)
            except Refused as refused:
                if (tip := self.tip(change.target)) == merge:
                    log.warning("%s takes no commit from the healer: %s", change.target, refused)
                    return self._ask_to_revert(change, commit)
            else:
                tip = commit
        if tip is not None and self.is_ancestor(commit, tip):
            return replace(change, state="reverted", revert_commit=commit)
        asked = self._pulls.newest(_revert_branch(change))
        if asked is not None and asked.merged_at is not None:
            return self._revert_asked(change, asked)
        if tip is not None and not self.is_ancestor(merge, tip):
            return taken_out(change, tip)
        return replace(
            change,
            reason=f"other commits lie on top of merge {merge[:10]} in {change.target}; taking it back is "
            "for a person to do",
        )

    def _ask_to_revert(self, change: Change, commit: str) -> Change:
        branch = _revert_branch(change)
        if (present := self.tip(branch)) is None:
            self._objects.create(branch, commit)
        elif present != commit:
            return replace(change, reason=f"branch {branch} exists on GitHub with other contents")
        pull = self._pulls.create(branch, change.target, f"Revert {change.branch}", body.revert(change))
        self._pulls.label(pull.number, [*body.labels(change)])
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
        pull = self._pulls.newest(change.branch)
        if pull is None or pull.state != "open" or _other(change, pull):
            return
        number = pull.number
        self._pulls.label(number, [WITHDRAWN])
        self._api.call("PATCH", f"/pulls/{number}", Pull, body={"state": "closed"})
        comment = {"body": body.farewell(change)}
        self._api.call("POST", f"/issues/{number}/comments", msgspec.Raw, body=comment, once=True)


OURS: Final = ("pull request ", SAYS)
"""How reasons begin that hold until GitHub is asked again."""


def _gone(change: Change) -> str:
    return (
        f"pull request of {change.branch} is gone; open a new one for the branch, with its commit {change.head} on "
        f"it, or give the change up (qigheal review {change.id} --reject)"
    )


def _other(change: Change, pull: Pull) -> str:
    """How a pull request differs from what was measured, or an empty string."""
    at = f"pull request #{pull.number}"
    if pull.base.ref != change.target:
        return f"{at} goes to another branch than {change.target} now"
    if pull.head.sha != change.head:
        return (
            f"{at}: its branch is at {pull.head.sha[:10]}, which is not the healer's commit {change.head[:10]}: "
            "what others commit there is neither merged nor overwritten by the healer; merge or close it by hand, or "
            "put the healer's commit back"
        )
    return ""


def _waiting(change: Change, reason: str) -> Change:
    """The change as open, whoever approved it before: it waits for a person."""
    return replace(change, state="open", reviewer="", reason=reason)


def _revert_branch(change: Change) -> str:
    return f"{PREFIX}revert-{change.id}"
