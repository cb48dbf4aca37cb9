"""What people and checks say of a head on GitHub; only what they say of that very commit counts.

An approval counts from a person who may write to the repository, and not from the pull request's own
author. Nothing here merges or writes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from qigheal.healing.forge.github_answers import (
    Branch,
    Permission,
    Pull,
    Required,
    Review,
    Rule,
    Runs,
    Statuses,
)
from qigheal.healing.forge.github_api import Api, part

DECIDING: Final = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")
MAY_MERGE: Final = ("admin", "maintain", "write")
GOOD: Final = ("success", "neutral", "skipped")
SHOWN: Final = 3


class Reviews(NamedTuple):
    """Logins, in the order of their reviews."""

    approving: tuple[str, ...]
    objecting: tuple[str, ...]
    withdrawn: tuple[str, ...]
    powerless: tuple[str, ...]  # who approved, and may not write: never did, or no longer does


def reviews(api: Api, pull: Pull, head: str) -> Reviews:
    """Each person's last word on `head`."""
    last: dict[str, str] = {}
    own = pull.user.login if pull.user else ""
    for page in api.pages(f"/pulls/{pull.number}/reviews", tuple[Review, ...]):
        for review in page:
            user = review.user
            if user is None or user.type != "User" or user.login == own or review.submitted_at is None:
                continue
            if review.commit_id == head and review.state in DECIDING:
                last.pop(user.login, None)
                last[user.login] = review.state
    trusted = [login for login in last if _may_merge(api, login)]
    approved, objected, dismissed = (
        tuple(login for login, said in last.items() if said == state) for state in DECIDING
    )
    return Reviews(
        approving=tuple(login for login in approved if login in trusted),
        objecting=tuple(login for login in objected if login in trusted),
        withdrawn=dismissed,
        powerless=tuple(login for login in approved if login not in trusted),
    )


def unwilling(said: Reviews, reviewer: str) -> str:
    """Why a change that `reviewer` approved, or nobody yet, may not be merged now, or an empty string."""
    if said.objecting:
        return f"{', '.join(said.objecting)} asked for changes"
    if reviewer in said.withdrawn:
        return f"the approval of {reviewer} was dismissed"
    if reviewer in said.powerless:
        return f"{reviewer}, who approved it, may not write to the repository any more; it needs another approval"
    return ""


def unmet_checks(api: Api, target: str, head: str) -> str:
    """Which checks of `head` keep it from being merged into `target`, or an empty string.

    Where the branch asks for checks by name, those alone; else every check that has begun.
    """
    states = _states(api, head)
    required = _required(api, target)
    if required:
        failed = [name for name in required if states.get(name) is False]
        waiting = [name for name in required if states.get(name) is None]
    else:
        failed = [name for name, good in states.items() if good is False]
        waiting = [name for name, good in states.items() if good is None]
    if failed:
        return f"checks fail: {_some(failed)}"
    return f"checks have not passed yet: {_some(waiting)}" if waiting else ""


def _may_merge(api: Api, login: str) -> bool:
    found = api.find(f"/collaborators/{part(login)}/permission", Permission)
    return found is not None and found.permission in MAY_MERGE


def _states(api: Api, head: str) -> dict[str, bool | None]:
    """Whether each check of a commit is good, None while it runs. Of the same name, the worse one counts."""
    found: dict[str, bool | None] = {}
    said: list[tuple[str, bool | None]] = []
    for page in api.pages(f"/commits/{head}/status", Statuses):
        said += [(s.context, None if s.state == "pending" else s.state == "success") for s in page.statuses]
    for runs in api.pages(f"/commits/{head}/check-runs", Runs):
        said += [
            (run.name, run.conclusion in GOOD if run.status == "completed" else None)
            for run in runs.check_runs
        ]
    for name, good in said:
        if name not in found or good is False or (good is None and found[name]):
            found[name] = good
    return found


def _required(api: Api, target: str) -> tuple[str, ...]:
    """The checks that a branch's protection or its rules ask for by name."""
    branch = api.find(f"/branches/{part(target)}", Branch)
    named: list[str] = []
    if branch is not None and branch.protected and branch.protection is not None:
        named += (branch.protection.required_status_checks or Required()).contexts
    for page in api.pages(f"/rules/branches/{part(target)}", tuple[Rule, ...]):
        for rule in page:
            if rule.type == "required_status_checks" and rule.parameters is not None:
                named += [check.context for check in rule.parameters.required_status_checks]
    return tuple(dict.fromkeys(named))


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:SHOWN]) + rest
