"""Heals memory that grows: finds the container that grows while the probe answers, and bounds it.

What grows is measured in a probe that is looked into; that a bound does no harm is proven on the
source, since no number of answers shows it. A cache is bounded where a lost entry is only computed again
(tier "safe"), a list where nothing reads it (tier "review"). Growth without a container, outside the
repository, or in anything whose use cannot be proven is left alone, and the log says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qigheal.errors import ProbeError, RepoError
from qigheal.healing.hostcode.program import Program
from qigheal.healing.strategies.bounding.bounds import Bound, bounded
from qigheal.healing.strategies.bounding.repeatable import Prover, Unproven
from qigheal.host.refusals import refused_path
from qigheal.reasons import log
from qigheal.records import Diagnosis, HealingPatch, Record, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

EARLY, SPAN, TRACED = 6, 24, 6
"""Answers before growth is looked at, those over which it is, and the last of them whose allocations are
followed."""

FULL_AFTER = 48
"""Answers that may fill what is bounded: a trial must see it full in each of its starts."""

FULL = 1.25
"""A bound counts as reached after so many times the answers that growth at the measured rate takes."""

LONGEST = 200
"""Answers to fill it, beyond which a trial would take too long."""

LEAST, MOST_MB = 8, 64.0
"""The smallest bound that is proposed, and what the entries may take together."""

SHARE = 0.2
"""Part of the growth that a container must account for: to bound less of it would heal nothing."""

KEPT_HITS = 0.9
"""Part of the hits of an unbounded cache that a bounded one must keep."""


class Container(Record, frozen=True):
    """What the instrument saw grow. `name` is module:qualified.name; of instances the largest is meant."""

    name: str
    kind: str  # the type's name, or lru_cache
    file: str  # "" outside the host's repository
    line: int
    early: int
    late: int
    entry_bytes: int
    maxsize: int | None = None
    hits: int = 0
    misses: int = 0


class Line(Record, frozen=True):
    """A line of the host, and how many bytes more were held that it had asked for; "" for no line."""

    file: str
    line: int
    bytes: int


class Growth(Record, frozen=True):
    """What grew: containers over `answers`; lines over the last `traced` of them, in all by `held` bytes."""

    answers: int
    traced: int
    held: int
    containers: tuple[Container, ...]
    lines: tuple[Line, ...]


class Memory:
    """Bounds what grows without end: caches of `functools`, dicts that remember, lists that nothing reads."""

    name = "memory"
    tier: Tier = "safe"
    metrics = ("memory",)

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """A patch for each container that can be bounded, what grows most first."""
        if "memory" not in diagnosis.metrics:
            return
        try:
            growth = _looked(bench, None, EARLY + SPAN)
            program = Program(bench.tree())
            same = _repeats(bench)
        except ProbeError as failure:
            log.info("memory: the probe cannot be looked into: %s", failure)
            return
        held = growth.held / max(1, growth.traced)
        growing = [
            found
            for found in growth.containers
            if (found.late - found.early) * found.entry_bytes / growth.answers >= SHARE * held
        ]
        if not growing:
            log.info("memory: no cache and no list or dict of a module or object makes up for the growth")
        done: set[str] = set()
        for found in growing:
            try:
                patch = _bounded(found, growth, Prover(program), bench, repo)
            except (Unproven, ProbeError, RepoError, ValueError, RecursionError) as why:
                log.info("memory: %s is not bounded: %s", found.name, why)
                continue
            if patch.diff not in done:
                done.add(patch.diff)
                yield replace(patch, same_output=same)


def _looked(bench: Bench, diff: str | None, answers: int) -> Growth:
    requests = bench.search_requests(answers)
    options = {"early": EARLY, "traced": answers - TRACED}
    return bench.inspect("memory", requests, Growth, options=options, diff=diff)


def _repeats(bench: Bench) -> bool:
    """Whether the probe's outputs can be compared: two of its processes give the same ones."""
    digests = []
    for _ in range(2):
        with bench.probe(None) as probe:
            digests.append([probe.ask(*request).output_digest for request in bench.search_requests(EARLY)])
    return digests[0] == digests[1] and None not in digests[0]


def _bounded(found: Container, growth: Growth, prover: Prover, bench: Bench, repo: Repo) -> HealingPatch:
    """The patch that bounds a container. Raises Unproven where none may be made."""
    if not found.file:
        raise Unproven(None, "it is outside the repository")
    if (reason := refused_path(bench.manifest, found.file)) is not None:
        raise Unproven(None, f"{found.file}: {reason}")
    pace = (found.late - found.early) / growth.answers
    most = _most(found, pace)
    needed = math.ceil(FULL * most / pace) + 2
    if needed > LONGEST:
        raise Unproven(None, f"a trial would have to wait {needed} answers until it holds {most} entries")
    content = repo.read(bench.base, found.file)
    bound = bounded(prover, found.kind, found.file, found.name.partition(":")[2], content, most)
    diff = repo.diff(bench.base, repo.edit(bench.base, {found.file: bound.content}))
    searched = EARLY + SPAN + 2 * EARLY
    if found.hits:
        searched += EARLY + needed
        _keeps_its_hits(found, _looked(bench, diff, EARLY + needed))
    return HealingPatch(
        strategy=Memory.name,
        tier=bound.tier,
        base=bench.base,
        diff=diff,
        rationale=_rationale(found, growth, most, bound),
        heals=("memory",),
        batches_needed=needed,
        parameters={"most": float(most)},
        searched=searched,
    )


def _most(found: Container, pace: float) -> int:
    """Entries to keep: a power of two that a trial can see filled, and that memory has room for."""
    room = MOST_MB * 1e6 / max(1, found.entry_bytes)
    return max(LEAST, 1 << (max(1, int(min(pace * FULL_AFTER, room))).bit_length() - 1))


def _keeps_its_hits(found: Container, growth: Growth) -> None:
    """That the bounded cache is still worth having. Raises Unproven."""
    asked = found.hits + found.misses
    after = next((one for one in growth.containers if one.name == found.name), None)
    if after is None or after.hits / max(1, after.hits + after.misses) < KEPT_HITS * found.hits / asked:
        raise Unproven(
            None, "bounded as far as a trial can see, it would find too little of what is asked for"
        )


def _rationale(found: Container, growth: Growth, most: int, bound: Bound) -> str:
    hits = f", {found.hits} of {found.hits + found.misses} look-ups found theirs" if found.misses else ""
    return (
        f"Bounds {found.name} ({found.file}) to {most} entries. Over {growth.answers} answers it grew from "
        f"{found.early} to {found.late} entries of about {found.entry_bytes / 1000:.1f} kB{hits}. {bound.why}"
    )
