"""A drill: a rollback performed for real, on a branch of its own, by the forge that heals.

    1  a branch qigheal/drill-… is made at the tip of the target
    2  a harmless commit is opened against it, its revert rehearsed, and merged
    3  the merge is reverted, and the files compared with those from before
    4  both branches are deleted

Neither the target branch nor any checkout is touched, and nothing is deployed: what is shown is that
this repository, as it is set up today, can take a merge back. The ledger has an entry before and one
after; a drill that was killed in between is gone through again from its first entry, with the same
commits. Whether a drill suffices for anything is the business of `phases`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from qigheal.errors import EngineError, PatchError, RepoError
from qigheal.healing.forge.local import LocalForge
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Drilled, DrillPlan
from qigheal.host import Manifest
from qigheal.host.refusals import refused_path
from qigheal.records import Change, HealingPatch
from qigheal.repo import Repo
from qigheal.repo.git import FILE_MODES

LARGEST = 1_000_000
"""Bytes of a file that a drill is willing to edit."""


def drill(
    repo: Repo,
    ledger: Ledger,
    *,
    clock: Callable[[], float],
    on_step: Callable[[str, str], None],
) -> Drilled:
    """Perform one, against the branch that is checked out; what failed stands in the result, not in an error.

    Raises RepoError when another healer holds the repository or no branch is checked out, EngineError when
    the manifest lets no file be patched.
    """
    with repo.lock("heal"):
        plan = _unfinished(ledger, repo) or _planned(repo, ledger, clock())
        on_step("drill", f"{plan.branch}, made from {plan.target} at {plan.patch.base[:10]}")
        made = [plan.patch.base]
        try:
            done = _performed(repo, plan, made, on_step)
        except (RepoError, PatchError) as error:
            done = Drilled(ok=False, branch=plan.branch, reason=str(error))
        if left := _cleared(repo, plan, made):
            done = replace(done, ok=False, reason="; ".join([*([done.reason] if done.reason else []), left]))
        ledger.append("drilled", plan.patch.fingerprint, done, clock())
        on_step("drill", done.reason or f"{plan.branch} was merged and taken back; the files are as before")
        return done


def _unfinished(ledger: Ledger, repo: Repo) -> DrillPlan | None:
    """The last drill, if it was killed before its end and was one of this repository."""
    begun = ledger.entries("drill")
    if not begun or ledger.entries("drilled", after=begun[-1].seq):
        return None
    plan = begun[-1].read(DrillPlan)
    return plan if repo.on_a_branch(plan.patch.base) else None


def _planned(repo: Repo, ledger: Ledger, at: float) -> DrillPlan:
    target = repo.branch()
    base = repo.resolve(f"refs/heads/{target}")
    patch = _harmless(repo, base)
    number = len(ledger.entries("drill")) + 1
    plan = DrillPlan(branch=f"qigheal/drill-{number}-{patch.fingerprint}", target=target, patch=patch, at=at)
    ledger.append("drill", patch.fingerprint, plan, at)
    return plan


def _harmless(repo: Repo, base: str) -> HealingPatch:
    """An empty line at the end of the first file that the manifest lets be patched."""
    manifest = Manifest.at(repo, base)
    for path, entry in sorted(repo.entries(base).items()):
        if entry.mode not in FILE_MODES or entry.size > LARGEST or refused_path(manifest, path) is not None:
            continue
        content = repo.read(base, path)
        end = b"\n" if not content or content.endswith(b"\n") else b"\n\n"
        try:
            diff = repo.diff(base, repo.edit(base, {path: content + end}))
        except PatchError:  # no text
            continue
        if "\nGIT binary patch\n" not in diff:
            return HealingPatch(
                strategy="drill",
                tier="review",
                base=base,
                diff=diff,
                rationale=f"A drill: an empty line in {path}, to be taken back at once.",
                heals=(),
            )
    raise EngineError(
        f"{repo.root}: the manifest's [patch] allow selects no text file of {base[:10]}: nothing can be patched "
        "here, and nothing be drilled with; name the files that a patch may touch"
    )


def _performed(repo: Repo, plan: DrillPlan, made: list[str], on_step: Callable[[str, str], None]) -> Drilled:
    """All of it but the clearing up; `made` is told of each commit before anything can fail on it."""
    patch = plan.patch
    if repo.ref(plan.branch) is None:
        repo.create_ref(plan.branch, patch.base)
    change = Change(
        id=patch.fingerprint,
        state="opening",
        patch=patch,
        verdict=None,
        branch=f"{plan.branch}-change",
        target=plan.branch,
        opened_at=plan.at,
        merged_at=plan.at,
        reverted_at=plan.at,
    )
    forge = LocalForge(repo, Manifest.at(repo, patch.base))
    opened = forge.open(change)
    made.append(opened.head)
    forge.rehearse_revert(opened)
    merged = forge.merge(replace(opened, state="merging"))
    if merged.state != "merged":
        raise RepoError(f"{plan.branch} could not be merged: {merged.reason}")
    made.append(merged.merge_commit)
    on_step("drill", f"merged as {merged.merge_commit[:10]}")
    if not repo.changes(patch.base, merged.merge_commit):
        raise RepoError(f"merge {merged.merge_commit[:10]} changed nothing; a drill must")
    reverted = forge.revert(replace(merged, state="reverting", reason="a drill"))
    if reverted.state != "reverted":
        raise RepoError(f"{plan.branch} could not be taken back: {reverted.reason}")
    made.append(reverted.revert_commit)
    on_step("drill", f"taken back as {reverted.revert_commit[:10]}")
    if repo.ref(plan.branch) != reverted.revert_commit:
        raise RepoError(f"{plan.branch} is not at the revert {reverted.revert_commit[:10]}")
    if left := repo.changes(patch.base, reverted.revert_commit):
        paths = ", ".join(sorted(change.path for change in left))
        raise RepoError(f"after the revert {paths} differ from before")
    return Drilled(
        ok=True,
        branch=plan.branch,
        head=opened.head,
        merge_commit=merged.merge_commit,
        revert_commit=reverted.revert_commit,
    )


def _cleared(repo: Repo, plan: DrillPlan, made: list[str]) -> str:
    """Delete the two branches where the drill put them; what somebody else made of one is left, and said."""
    left = []
    for name in (plan.branch, f"{plan.branch}-change"):
        at = repo.ref(name)
        if at is None:
            continue
        if at not in made:
            left.append(f"branch {name} is at {at[:10]}, which this drill did not make: left as it is")
            continue
        try:
            repo.delete_ref(name, at)
        except RepoError as error:
            left.append(str(error))
    return "; ".join(left)
