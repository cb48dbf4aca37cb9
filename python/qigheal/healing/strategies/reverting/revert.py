"""The strategy for a bad deploy: finds the commit that did it, and proposes to take that one back.

Between the last healthy commit and the present one it follows the first parents and bisects with the
probe. Both ends are measured first: where the present end is not unwell, or the healthy end not well, the
cause is not in the commits, and nothing is proposed. What is left of a repository's history is read through
`Repo`; its texts are data and appear in the rationale alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import structs

from qigcore.errors import QigcoreError
from qigheal.errors import PatchError, ProbeError, RepoError
from qigheal.healing.strategies.reverting.bisection import bisect
from qigheal.healing.strategies.reverting.commits import SETTLED, Measurer
from qigheal.host import PatchLimits
from qigheal.host.refusals import not_left_to_the_healer, refusals, refused_path
from qigheal.reasons import log
from qigheal.records import Diagnosis, HealingPatch, Tier
from qigheal.repo.git import CODE_HASH
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

OWN = "Qigheal-Change:"
"""The trailer of the healer's own commits; whether one of them is taken back is the watch's decision."""

LEAST = 0.2
"""Excess, in half-widths of the band, below which the present end is not told from a healthy one."""

STARTS = 3
"""Starts in which the reverse must be well and the present code not."""

FILES = 4
"""Files that are named in a reason."""

SUBJECT = 72
"""Characters of a commit's subject that are shown."""


class Revert:
    """Bisects the commits since the service was healthy, and proposes the reverse of the guilty one.

    A commit counts as bad when the worst of the diagnosed metrics that tell the two ends apart lies nearer
    to the present end. Commits that cannot be probed are passed over as in `git bisect skip`. With two guilty
    commits the one that the worst metric tells of is found; the other is left for another pass. The reverse is
    merged into the present code three ways, into a file that was renamed since under its present name; where later
    commits changed the same lines there is no patch.
    """

    name = "revert"
    tier: Tier = "safe"
    metrics = ("phi", "kappa", "basin_drift", "latency", "errors", "memory")

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most one patch, which takes back one commit."""
        try:
            patch = _found(diagnosis, bench, repo)
        except (ProbeError, RepoError, PatchError, QigcoreError) as failure:
            log.info("revert: %s", failure)
            return
        if isinstance(patch, str):
            log.info("revert: %s", patch)
        else:
            yield patch


def _found(diagnosis: Diagnosis, bench: Bench, repo: Repo) -> HealingPatch | str:
    """The patch, or why there is none."""
    line = _line(diagnosis.healthy_code_hash, bench.base, repo)
    if isinstance(line, str):
        return line
    search = _Search(diagnosis, bench, line)
    if reason := search.ends():
        measured_alike = search.unwell_from_the_start
        return reason + (_kept(bench, repo, line[0], bench.base) if measured_alike else "")
    result = bisect(len(line) - 1, search.changed)
    passed_over = [line[position][:10] for position in result.skipped]
    if result.guilty is None:
        return f"the commits {', '.join(passed_over)} cannot be probed, and one of them may be the guilty one"
    guilty, parent = line[result.guilty], line[result.guilty - 1]
    message = repo.message(guilty)
    if _is_own(message):
        return f"{guilty[:10]} is a change of the healer's own; the watch decides about it"
    named = f"{guilty[:10]} {_subject(message)}"
    try:
        tree = repo.merge(guilty, bench.base, parent)
    except PatchError as conflict:
        return f"the guilty commit {named} cannot be taken back: it does not merge with later commits: {conflict}"
    forbidden = refusals(bench.manifest, repo.changes(bench.base, tree), repo.entries(bench.base))
    if forbidden:
        return f"the guilty commit {named} cannot be taken back: {_some(forbidden)}"
    diff = repo.diff(bench.base, tree)
    heals = search.healed_by(result.guilty, diff)
    if not heals:
        kept = _kept(bench, repo, parent, guilty)
        return f"taking back {named} alone does not heal {search.worst}{kept}"
    commits = len(line) - 1
    end = search.values[commits]
    figures = ", ".join(search.measurer.told(metric, end, search.reverted) for metric in heals)
    rationale = (
        f"Reverts commit {named}, found by bisecting {commits} commits since "
        f"{line[0][:10]}. With it and without it: {figures}."
    )
    if passed_over:
        rationale += f" Not to be probed: {', '.join(passed_over)}."
    # Where a file was renamed since, both its names must be left to the healer; those of the patch the trial asks for.
    own = [change.path for change in repo.changes(parent, guilty)]
    renamed = set(own) - {change.path for change in repo.changes(bench.base, tree)}
    return HealingPatch(
        strategy="revert",
        tier="review" if not_left_to_the_healer(bench.manifest, renamed) else "safe",
        base=bench.base,
        diff=diff,
        rationale=rationale,
        heals=heals,
        batches_needed=SETTLED if "memory" in heals else 10,
        parameters={"commits": commits, "probes": search.probes},
        searched=search.measurer.asked,
        # The healthy code is the yardstick: what it took, a faster and wrong commit may not forbid.
        prices=("latency", "memory"),
    )


def _line(healthy: str, base: str, repo: Repo) -> tuple[str, ...] | str:
    """The commits from the last healthy one to the base, or why there are none to look at."""
    if not CODE_HASH.fullmatch(healthy):
        return "no commit is known at which the service was healthy"
    try:
        start = repo.resolve(healthy)
        if not start.startswith(healthy):  # a branch or tag that looks like an abbreviation
            return f"{healthy} names {start[:10]}, which is another commit"
        if not repo.is_ancestor(start, base):
            return f"the healthy commit {start[:10]} is not part of the present code's history"
    except RepoError:
        return f"the healthy commit {healthy} is not in this repository"
    return repo.line(start, base) or "the present code is the one that was healthy"


@dataclass(slots=True)
class _Search:
    """What was measured of the line so far, by position; the ends tell which metrics count."""

    diagnosis: Diagnosis
    bench: Bench
    line: Sequence[str]
    values: dict[int, Mapping[str, float]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    reverted: Mapping[str, float] = field(default_factory=dict)
    unwell_from_the_start: bool = False  # the healthy end measures as the present one does
    probes: int = 0
    measurer: Measurer = field(init=False)

    def __post_init__(self) -> None:
        target = self.diagnosis.target
        known = {*target.bands, "basin_drift"}
        if not self.diagnosis.observed.get("latency", 0.0) > 0.0:
            known.discard("latency")  # the probe compares commits; how slow the service is, it does not know
        self.metrics = tuple(m for m in self.diagnosis.metrics if m in Revert.metrics and m in known)
        self.measurer = Measurer(self.bench, target, self.line[0])

    @property
    def worst(self) -> str:
        return self.metrics[0]

    def ends(self) -> str:
        """Measure both ends, and keep the metrics that tell them apart; why none does, or an empty string."""
        if not self.metrics:
            return "none of what is wrong can be compared with health"
        end = len(self.line) - 1
        self._measure(end)
        self.measurer.calibrate(self.values[end], self.diagnosis.observed)
        unwell = [metric for metric in self.metrics if self._excess(metric, end) >= LEAST]
        if not unwell:
            return f"the present code does not measure unwell in {', '.join(self.metrics)}"
        self._measure(0)
        self.metrics = tuple(metric for metric in unwell if self._excess(metric, 0) == 0.0)
        if not self.metrics:
            self.unwell_from_the_start = True
            return f"the healthy commit {self.line[0][:10]} measures unwell in {', '.join(unwell)} as well"
        return ""

    def changed(self, position: int) -> bool | None:
        """Whether a commit lies nearer to the present end; None when it cannot be probed."""
        try:
            self._measure(position)
        except (ProbeError, RepoError, QigcoreError) as failure:
            log.info("revert: %s cannot be probed: %s", self.line[position][:10], failure)
            return None
        return self._bad(self.worst, self.values[position])

    def healed_by(self, guilty: int, diff: str) -> tuple[str, ...]:
        """The metrics that the guilty commit made bad and its reverse makes good, on fresh requests.

        In several starts, the present code beside it: a process may be healthy, or unwell, by luck. Latency
        is measured in several starts each time.
        """
        self.probes += 1
        self.reverted = self.measurer.measure(diff, self.metrics, turn=1)
        healed = [
            metric
            for metric in self.metrics
            if self._bad(metric, self.values[guilty])
            and not self._bad(metric, self.values[guilty - 1])
            and not self._bad(metric, self.reverted)
        ]
        for turn in range(1, STARTS + 1):
            asked = [metric for metric in healed if metric != "latency"]
            if not asked:
                break
            present = self.measurer.measure(None, asked, turn=turn)
            again = self.reverted if turn == 1 else self.measurer.measure(diff, asked, turn=turn)
            lucky = {m for m in asked if not self._bad(m, present) or self._bad(m, again)}
            healed = [metric for metric in healed if metric not in lucky]
        return tuple(healed)

    def _measure(self, position: int) -> None:
        self.probes += 1
        # The present code is the bench's base, whose tree is there already.
        name = None if position == len(self.line) - 1 else self.line[position]
        self.values[position] = self.measurer.measure(name, self.metrics)

    def _excess(self, metric: str, position: int) -> float:
        return self.measurer.excess(metric, self.values[position])

    def _bad(self, metric: str, values: Mapping[str, float]) -> bool:
        return self.measurer.excess(metric, values) > self._excess(metric, len(self.line) - 1) / 2


def _kept(bench: Bench, repo: Repo, before: str, after: str) -> str:
    """What was not measured of the difference of two commits, as a clause with the rules; "" for nothing.

    What no patch may touch is the present code's on every tree that is measured.
    """
    every = structs.replace(bench.manifest, patch=PatchLimits(allow=("**",)))
    paths = {
        p: None for change in repo.changes(before, after) for p in (change.old_path, change.new_path) if p
    }
    found = [f"{path} ({reason})" for path in paths if (reason := refused_path(every, path)) is not None]
    if not found:
        return ""
    return f"; these files differ, and are always those of the present code, as no patch may touch them: {_some(found)}"


def _some(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - FILES} more" if len(texts) > FILES else ""
    return ", ".join(texts[:FILES]) + more


def _is_own(message: str) -> bool:
    trailers = message.strip().rpartition("\n\n")[2]
    return any(line.startswith(OWN) for line in trailers.splitlines())


def _subject(message: str) -> str:
    """A commit's subject, quoted, in one printable line."""
    first = message.strip().partition("\n")[0]
    plain = " ".join("".join(c if c.isprintable() else " " for c in first).split())
    return f'"{textwrap.shorten(plain, SUBJECT, placeholder=" ...")}"'
