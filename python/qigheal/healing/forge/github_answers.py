"""What GitHub's API answers, as far as it is read; a field that is not named here is not looked at."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One JSON object of an answer. Unknown fields are left out, missing ones refused."""


class Thing(Answer, frozen=True):
    """Anything named by the digest of its content: a blob, a tree, a commit's parent."""

    sha: str


class Ref(Answer, frozen=True):
    """A branch's ref."""

    object: Thing


class Commit(Answer, frozen=True):
    """A commit object."""

    sha: str
    tree: Thing
    parents: tuple[Thing, ...]
    message: str


class User(Answer, frozen=True):
    """An account; `type` is "User", "Bot" or "Organization".

    A login goes into the ledger, messages and commits, so it is printable from here on. GitHub's own are
    always; another server's that is not becomes a name that nobody has, and so the word of nobody.
    """

    login: str
    type: str = "User"

    def __post_init__(self) -> None:
        if not self.login.isprintable():
            msgspec.structs.force_setattr(self, "login", ascii(self.login)[1:-1])


class Label(Answer, frozen=True):
    """A label's name."""

    name: str


class Side(Answer, frozen=True):
    """One side of a pull request; `label` is "owner:branch"."""

    ref: str
    sha: str
    label: str | None = None


class Pull(Answer, frozen=True):
    """A pull request. `merge_commit_sha` is that of a trial merge until `merged_at` is there."""

    number: int
    state: str
    head: Side
    base: Side
    labels: tuple[Label, ...] = ()
    user: User | None = None
    draft: bool = False
    merged_at: datetime | None = None
    merge_commit_sha: str | None = None
    merged_by: User | None = None  # in the answer for a single one alone


class Review(Answer, frozen=True):
    """A review; of one that is not yet handed in, `submitted_at` is missing."""

    state: str
    user: User | None = None
    commit_id: str | None = None
    submitted_at: datetime | None = None


class Permission(Answer, frozen=True):
    """What somebody may do: "admin", "write", "read" or "none"."""

    permission: str


class Status(Answer, frozen=True):
    """The newest status of one context: "error", "failure", "pending" or "success"."""

    context: str
    state: str


class Statuses(Answer, frozen=True):
    """The statuses of a commit, one for each context."""

    statuses: tuple[Status, ...]
    total_count: int


class Run(Answer, frozen=True):
    """A check run; `conclusion` is None until its status is "completed"."""

    name: str
    status: str
    conclusion: str | None = None


class Runs(Answer, frozen=True):
    """One page of the check runs of a commit."""

    check_runs: tuple[Run, ...]
    total_count: int


class Required(Answer, frozen=True):
    """The checks that a branch asks for."""

    contexts: tuple[str, ...] = ()


class Protection(Answer, frozen=True):
    """The part of a branch's protection that everybody may see."""

    required_status_checks: Required | None = None


class Branch(Answer, frozen=True):
    """A branch and its protection."""

    name: str
    protected: bool
    protection: Protection | None = None


class Check(Answer, frozen=True):
    """A check that a rule asks for."""

    context: str


class RuleParameters(Answer, frozen=True):
    """What a rule asks for, as far as it is checks."""

    required_status_checks: tuple[Check, ...] = ()


class Rule(Answer, frozen=True):
    """A rule that is in force for a branch, from a ruleset of the repository or of its owner."""

    type: str
    parameters: RuleParameters | None = None


class Comparison(Answer, frozen=True):
    """How one commit lies to another: "ahead", "behind", "identical" or "diverged"."""

    status: str
