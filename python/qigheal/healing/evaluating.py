"""Judges what other people made: a submitted diff, or one commit against another.

The same bench, trial and judge as for the healer's own patches, and nothing else of the chain: no phase
is asked, no change is opened, no ref, index or working file of the host is touched (git objects may be
added, which belong to nobody). What becomes of the verdict is the caller's business.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import METRICS, Batch
from qigheal.errors import EngineError
from qigheal.healing import judge
from qigheal.healing.bench import Bench
from qigheal.healing.measuring import READ_SNAPSHOTS, Measuring, silent, stored_baseline
from qigheal.healing.passage import Step
from qigheal.healing.sides import measured
from qigheal.healing.submission import canonical
from qigheal.healing.trial import refused_for
from qigheal.host import Manifest, PatchLimits
from qigheal.host.refusals import FILE_MODES, NO_FILE, refused_path
from qigheal.records import Evaluation, FileChange, HealingPatch, Target, Trial, Verdict
from qigheal.repo import Repo
from qigheal.settings import HealSettings

FOREIGN_LEVELS: Final = frozenset({"namespaces", "none"})
"""Sandbox levels at which code of others may run: the whole isolation, or none on the operator's word."""

NOTHING: Final = Target(geometry="simplex", basin=(), drift_limit=math.inf, bands={})


def submitted(
    measuring: Measuring, diff: str, *, heals: Sequence[str] = (), same_output: bool = False
) -> HealingPatch:
    """A diff, as `submission.text_of` gives it, as a patch of the present commit.

    heals: the metrics that it is said to heal, and is then held to. same_output: likewise.
    Raises EngineError for a metric of another name, PatchError when no diff of UTF-8 text comes of it.
    """
    if unknown := [name for name in heals if name not in METRICS]:
        raise EngineError(f"heals: expected metrics of {', '.join(METRICS)}, got {unknown[0]!r}")
    base = measuring.repo.head()
    return HealingPatch(
        strategy="submitted",
        tier="review",
        base=base,
        diff=canonical(measuring.repo, base, diff),
        rationale="submitted for evaluation",
        heals=tuple(heals),
        same_output=same_output,
    )


def refused(measuring: Measuring, patch: HealingPatch) -> Evaluation | None:
    """The word on a patch that may not even be tried; None when it is to be measured."""
    manifest = Manifest.at(measuring.repo, patch.base)
    if not (reasons := refused_for(patch, manifest, measuring.repo)):
        return None
    # Of one that does not apply, git names only the first thing that it stumbles on.
    told = {reason for path in patch.files if (reason := _refused(manifest, path))}
    reasons = (*reasons, *sorted(told - set(reasons)))
    trial = Trial(patch=patch, target=NOTHING, observed={}, refusals=reasons, sandbox_level="not run")
    return Evaluation(patch=patch, verdict=judge.verdict(trial, measuring.settings))


def _refused(manifest: Manifest, path: str) -> str:
    reason = None if path == "/dev/null" else refused_path(manifest, path)
    return f"{path}: {reason}" if reason else ""


def evaluate(
    measuring: Measuring, patch: HealingPatch, baseline: Baseline, batch: Batch, *, healthy: str = ""
) -> Evaluation:
    """Judge a patch against the present code, with the service as `batch` shows it.

    healthy: the commit that `baseline` was measured at; "" when the service learned it.
    Raises EngineError where the sandbox is not for code of others.
    """
    _, _, diagnosis = measuring.examine(baseline, batch, probed=bool(healthy))
    with measuring.bench(patch.base) as bench:
        check_level(bench)
        trial, verdict, kept = measuring.judge(bench, patch, diagnosis)
        notes = tests_fail_anyway(trial)
    before, after = measured(trial)
    return Evaluation(
        patch=patch,
        verdict=verdict,
        named=diagnosis.metrics,
        healthy=healthy,
        before=before,
        after=after,
        notes=notes,
        seconds=trial.seconds,
        bundle=kept.bundle,
        proof=kept.digest,
        outputs_differ=outputs_differ(trial),
    )


def evaluate_without_store(
    repo: Repo,
    diff: str,
    *,
    healthy: str,
    settings: HealSettings,
    clock: Callable[[], float],
    on_step: Step = silent,
    heals: Sequence[str] = (),
    same_output: bool = False,
) -> Evaluation:
    """Judge a submitted diff with nothing but a commit that was healthy; nothing is recorded.

    Raises RepoError when a healer is measuring in this repository, or `healthy` names no commit.
    """
    with tempfile.TemporaryDirectory(prefix="qigheal-evaluate-") as folder, repo.lock("heal"):
        measuring = Measuring(repo, Path(folder), settings, clock, on_step)
        commit = repo.resolve(healthy)
        patch = submitted(measuring, diff, heals=heals, same_output=same_output)
        if (found := refused(measuring, patch)) is not None:
            return found
        baseline, batch = measuring.healthy(commit)
        return evaluate(measuring, patch, baseline, batch, healthy=commit)


def compare(
    repo: Repo,
    base: str,
    head: str,
    *,
    store: Path | None,
    settings: HealSettings,
    clock: Callable[[], float],
    on_step: Step = silent,
) -> Evaluation:
    """Is commit `head` at least as healthy as `base`? Limits on the size of patches do not apply.

    The manifest is the base's. What decides how code is measured, tested and started (the manifest, the
    probe, the tests, and the other paths that no patch may touch), links and submodules are measured as
    in the base, and named in `unmeasured` where `head` changed them. The diff is left out of what is
    returned: it may be long, and the two commits name it. Healthy is what the store's service
    learned; without a store, what the base's probe answers: then nothing can be better, only no worse.

    Raises RepoError for names that are no commits, or when a healer is measuring in this repository,
    ManifestError for a base without a manifest, PatchError for a difference that is no UTF-8 text.
    """
    before, after = repo.resolve(base), repo.resolve(head)
    manifest = Manifest.at(repo, before)
    kept = _not_measured(manifest, repo.changes(before, after))
    diff = repo.diff(before, repo.restored(after, before, kept))
    unmeasured = tuple(path for path in kept if "/.git" not in f"/{path}")  # git's own measure nothing
    patch = HealingPatch(
        strategy="compare",
        tier="review",
        base=before,
        diff=diff,
        rationale=f"{before[:10]} to {after[:10]}",
        heals=(),
        other_output=True,
    )
    if not diff:
        same = judge.nothing_differs("nothing that is measured differs")
        return Evaluation(patch=patch, verdict=same, head=after, unmeasured=unmeasured)
    with contextlib.ExitStack() as stack:
        folder = store or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qigheal-compare-")))
        stack.enter_context(repo.lock("heal"))
        measuring = Measuring(repo, folder, settings, clock, on_step)
        bench = stack.enter_context(measuring.bench(before, manifest))
        check_level(bench)
        if store is None:
            diagnosis = measuring.as_healthy(bench)
        else:
            with History.read_only(store) as history:
                batch = history.last(READ_SNAPSHOTS)
            _, _, diagnosis = measuring.examine(stored_baseline(store), batch, probed=False)
        trial, verdict, _ = measuring.judge(bench, patch, diagnosis, refusing=lambda *_: ())
        notes = tests_fail_anyway(trial)
    figures = measured(trial)
    return Evaluation(
        patch=structs.replace(patch, diff=""),
        verdict=_answering(trial, verdict),
        named=diagnosis.metrics,
        healthy=before if store is None else "",
        head=after,
        before=figures[0],
        after=figures[1],
        unmeasured=unmeasured,
        notes=notes,
        seconds=trial.seconds,
        outputs_differ=outputs_differ(trial),
    )


def _answering(trial: Trial, verdict: Verdict) -> Verdict:
    """The verdict, which is "worse" where the base answered and the head broke the trial off by itself."""
    if trial.failed_side != "after":
        return verdict
    reason = f"the head does not answer as the base does: {trial.problems[0]}"
    return structs.replace(verdict, decision="worse", vetoes=("does not answer",), reason=reason)


def _not_measured(manifest: Manifest, changes: Sequence[FileChange]) -> list[str]:
    """Changed paths of which the base's version is measured, whatever the manifest allows."""
    every = structs.replace(manifest, patch=PatchLimits(allow=("**",)))
    found: dict[str, None] = {}
    for change in changes:
        unusual = {change.old_mode, change.new_mode} - {*FILE_MODES, NO_FILE}
        for path in (change.old_path, change.new_path):
            if path is not None and (unusual or refused_path(every, path) is not None):
                found[path] = None
    return list(found)


def check_level(bench: Bench) -> None:
    """Raises EngineError where the sandbox is not enough for code that somebody else wrote."""
    if bench.level not in FOREIGN_LEVELS:
        raise EngineError(
            f"sandbox level {bench.level}: other people's code is not run at it; install bubblewrap, or say "
            "--sandbox none for code that you trust as much as your own"
        )


def tests_fail_anyway(trial: Trial) -> tuple[str, ...]:
    """A note where the tests fail without the patch too: then they say nothing about it."""
    return ("the host's tests fail without the patch too: mend them first",) * trial.tests_fail_anyway


def outputs_differ(trial: Trial) -> int | None:
    """In how many pairs the two sides put out something else; None where the probe does not say what it put out."""
    told = [(pair.before.output_digest, pair.after.output_digest) for pair in trial.pairs]
    if not told or any(digest is None for pair in told for digest in pair):
        return None
    return sum(before != after for before, after in told)
