"""Heals slow answers: a hot function that is asked the same again and again is given a cache.

Where the time goes says a profile of the probe. That is evidence only: whether a function may be cached is
proven from the text of the repository, and whether it helps is measured by others.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from qigheal.errors import ProbeError
from qigheal.healing.strategies.caching.edits import decorated
from qigheal.healing.strategies.caching.purity import Host, Proof, Unprovable, prove
from qigheal.healing.strategies.caching.secrecy import secret_given, secret_reached
from qigheal.host.refusals import refused_path
from qigheal.reasons import log
from qigheal.records import Diagnosis, HealingPatch, Tier
from qigheal.settings import ROUNDS_NEEDED, HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

MOST_PATCHES = 4
MOST_PROVEN = 20
"""Hot functions that are looked at."""

TOLERANCE = 0.8
"""Of the time that has to be saved, what a profile must promise: its own shares are off by as much."""

COMFORTABLE = 1.6
"""Of it, what one function must promise before it is tried ahead of two."""

PROMISED = 1.1
"""Of it, what a round of a trial must promise, or a longer one is asked for: a cache fills while it is asked."""

LENGTHS = (1, 2, 4)
"""Lengths of a trial's longest round that are considered, in ordinary rounds."""

DEEPEST = 100
"""Calls of itself that a function may be in, whatever the limit: wrappers also fill a stack that has another."""

SPARE = 6
"""Times its depth that the limit of recursion must be.

Each call is two with a cache, and other arguments may go three times as deep as those that were seen.
"""

ENTRY_BYTES = 320
"""An entry of an `lru_cache` beside what it holds: link, key, tuple and its place in the table."""

SIZES = (16, 65_536)
"""The smallest and the largest cache that is proposed."""


TOLD_APART = re.compile(
    r"int|bool|float|complex|str|bytes|NoneType|tuple of (?!others).*|.*\(.*\)", re.DOTALL
)
"""Kinds of arguments that the instrument `profile` tells apart."""

RETURNED = frozenset(("int", "bool", "float", "complex", "str", "bytes", "NoneType", "tuple", "frozenset"))
"""Types of results that a proof may be believed about: were another seen, it would be wrong."""


MOST_UNTOLD = 3
"""Functions of which it is said that their arguments are not told apart."""


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """A function as the instrument `profile` saw it; times in seconds."""

    file: str
    line: int
    name: str
    parameters: tuple[str, ...]
    kinds: tuple[tuple[str, ...], ...]  # of each parameter
    hashable: bool
    calls: int
    repeats: int  # calls with arguments that came before
    curve: tuple[tuple[int, int], ...]  # calls, and how many of them were no repeats
    depth: int  # of calls of itself
    seconds: float
    own_s: float
    repeated_s: float  # of the repeats alone
    returned: tuple[str, ...]
    entry_bytes: int  # of arguments and result

    @property
    def distinct(self) -> int:
        return self.calls - self.repeats


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the instrument `profile` says of a probe."""

    seconds: float  # imports left out
    rss_mb: float
    recursion_limit: int
    functions: tuple[Called, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A function that may be cached.

    `saved` is the part of an answer's time that a trial will see saved, whose longest round has `batches`
    answers.
    """

    called: Called
    proof: Proof
    maxsize: int
    saved: float
    batches: int


class Latency:
    """Proposes caches for functions that are proven pure, hot, and often given the same arguments."""

    name = "latency"
    tier: Tier = "safe"
    metrics = ("latency",)

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most `MOST_PATCHES` patches, what saves most first. Costs one probe."""
        wanted = _wanted(diagnosis)
        if wanted is None:
            return
        requests = bench.search_requests(self._answers)
        try:
            profile = bench.inspect("profile", requests, Profile)
        except ProbeError as failure:
            log.info("latency: the probe cannot be profiled: %s", failure)
            return
        hot = [called for called in profile.functions if self._promises(called, profile, wanted)]
        untold = self._untold(profile, wanted)
        if not hot:
            other = "other " if untold else ""
            log.info("latency: no %sfunction that repeats its arguments makes up for the excess", other)
            return
        sources = _sources(bench, repo)
        try:
            host = Host(sources)
        except Unprovable as reason:
            log.info("latency: nothing can be proven of this host: %s", reason)
            return
        if host.hides("functools") or "lru_cache" in host.replaced:
            log.info("latency: a file of the host may be imported in place of functools")
            return
        candidates = []
        for called in hot[:MOST_PROVEN]:
            refused = refused_path(bench.manifest, called.file)
            if refused is not None:
                log.info("latency: %.200r: %s", called.file, refused)
                continue
            if unfit := _unfit(called):
                log.info("latency: %.80r is not cached: %s", called.name, unfit)
                continue
            try:
                proof = _proven(host, called)
            except Unprovable as reason:
                log.info("latency: %.80r is not cached: %s", called.name, reason)
                continue
            maxsize = self._size(called, profile)
            saved, batches = self._promise(called, profile, maxsize, wanted)
            candidates.append(Candidate(called, proof, maxsize, saved, batches))
        choices = _choices(candidates, wanted)[:MOST_PATCHES]
        if candidates and not choices:
            log.info("latency: caching what may be cached would not make up for the excess")
        for chosen in choices:
            diff = self._diff(bench, repo, sources, chosen)
            if diff is None:
                continue
            yield HealingPatch(
                strategy=self.name,
                tier="review" if _may_be_slow_on_purpose(chosen) else self.tier,
                base=bench.base,
                diff=diff,
                rationale=_rationale(chosen, profile),
                heals=self.metrics,
                batches_needed=max(candidate.batches for candidate in chosen),
                same_output=True,
                parameters={f"{c.proof.function.shown} maxsize": float(c.maxsize) for c in chosen},
                searched=len(requests),
            )

    @property
    def _answers(self) -> int:
        """Answers that are profiled: as many as the longest round of a trial would have."""
        return self._settings.warmup + LENGTHS[-1] * self._settings.round_pairs

    def _promises(self, called: Called, profile: Profile, wanted: float) -> bool:
        """Whether caching a function could be worth a proof: alone, or with another."""
        shallow = called.depth == 1 or 1 < called.depth <= min(DEEPEST, profile.recursion_limit // SPARE)
        usable = called.hashable and called.repeats > 0 and shallow
        return usable and self._promise(called, profile, SIZES[1], wanted)[0] >= TOLERANCE * wanted / 2

    def _untold(self, profile: Profile, wanted: float) -> bool:
        """Whether functions take long enough whose arguments nobody can compare; which, and why, is said."""
        found = []
        for called in sorted(profile.functions, key=lambda called: -called.own_s):
            kinds = {kind for each in called.kinds for kind in each if not TOLD_APART.fullmatch(kind)}
            if (
                kinds
                and not called.hashable
                and called.calls > 1
                and called.seconds >= TOLERANCE * wanted / 2 * profile.seconds
            ):
                found.append((called.name, ", ".join(sorted(kinds))[:80]))
        for name, named in found[:MOST_UNTOLD]:
            log.info("latency: %.80r is not cached: arguments of type %s are not told apart", name, named)
        return bool(found)

    def _promise(self, called: Called, profile: Profile, maxsize: int, wanted: float) -> tuple[float, int]:
        """What a trial will see saved, and the length of its longest round: the shortest that is enough."""
        usual = self._settings.round_pairs
        each = self._saved(called, profile, maxsize, usual)
        found: list[tuple[float, int]] = []
        for length in (usual * factor for factor in LENGTHS):
            pairs = max(self._settings.pairs_needed(length), ROUNDS_NEEDED * usual)
            longest = self._saved(called, profile, maxsize, length)
            found.append(((length * longest + (pairs - length) * each) / pairs, length))
            if found[-1][0] >= PROMISED * wanted:
                return found[-1]
        return max(found, key=lambda promise: (promise[0], -promise[1]))

    def _saved(self, called: Called, profile: Profile, maxsize: int, length: int) -> float:
        """The part of an answer's time that a cache saves in a round of so many answers, its warm-up over."""
        if profile.seconds <= 0.0 or called.repeats <= 0:
            return 0.0
        each = called.calls / self._answers
        begin, end = each * self._settings.warmup, each * (self._settings.warmup + length)
        new = _distinct(called, end) - _distinct(called, begin)
        rate = max(0.0, 1.0 - new / max(end - begin, 1e-9))
        kept = min(1.0, maxsize / max(1, called.distinct))
        share = min(1.0, called.repeated_s / profile.seconds)
        return min(called.seconds / profile.seconds, share * rate * kept / (called.repeats / called.calls))

    def _size(self, called: Called, profile: Profile) -> int:
        """Entries: a power of two with room for a quarter more than was seen, within half of what memory may grow."""
        least, most = SIZES
        if profile.rss_mb > 0.0:
            budget = self._settings.memory_margin / 2 * profile.rss_mb * 2**20
            most = min(most, int(budget / (ENTRY_BYTES + max(0, called.entry_bytes))))
        size = least
        while size < 1.25 * called.distinct and 2 * size <= most:
            size *= 2
        return size

    def _diff(
        self, bench: Bench, repo: Repo, sources: Mapping[str, bytes], chosen: Sequence[Candidate]
    ) -> str | None:
        edits = {}
        for path in {candidate.called.file for candidate in chosen}:
            inside = [candidate for candidate in chosen if candidate.called.file == path]
            sizes = {candidate.proof.function: candidate.maxsize for candidate in inside}
            edited = decorated(sources[path], inside[0].proof.function.module, sizes)
            if edited is None:
                log.info("latency: %s has no name left for lru_cache", path)
                return None
            edits[path] = edited
        if len(edits) > bench.manifest.patch.max_files:
            log.info("latency: the functions to cache are in %d files, more than max_files", len(edits))
            return None
        return repo.diff(bench.base, repo.edit(bench.base, edits))


def _wanted(diagnosis: Diagnosis) -> float | None:
    """The part of an answer's time that has to go for the excess to halve; None when there is none."""
    band, observed = diagnosis.target.bands.get("latency"), diagnosis.observed.get("latency", 0.0)
    if band is None or observed <= band.high:
        log.info("latency: answers are within their band, or no band of them was learned")
        return None
    return (observed - band.high) / (2 * observed)


def _sources(bench: Bench, repo: Repo) -> dict[str, bytes]:
    """The base's Python files, and its scripts without an ending that say so in their first line."""
    with tempfile.TemporaryDirectory(prefix="qigheal-sources-") as name:
        folder = Path(name, "tree")
        repo.export(bench.base, folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _is_python(path)
        }


def _is_python(path: Path) -> bool:
    if path.suffix or path.is_symlink():
        return path.suffix in (".py", ".pyw")
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


def _unfit(called: Called) -> str:
    """Why a function is not to be cached, by what was seen of it; "" where nothing speaks against it."""
    if not set(called.returned) <= RETURNED:
        return f"it was seen to return {called.returned}"
    if secret := secret_given(called.parameters, called.kinds):
        return f"a cache would keep what it is given as {secret}"
    return ""


def _proven(host: Host, called: Called) -> Proof:
    """Raises Unprovable where a cache might change what is given, or keep a secret."""
    proof = prove(host, called.file, called.line, _kinds(called))
    if secret := secret_reached(host, proof):
        raise Unprovable(f"a cache may keep {secret:.80}")
    return proof


def _kinds(called: Called) -> dict[str, tuple[str, ...]]:
    return dict(zip(called.parameters, called.kinds, strict=False))


def _distinct(called: Called, at: float) -> float:
    """How many different arguments had come after so many calls, between the points that are known."""
    before = (0, 0)
    for calls, distinct in called.curve:
        if calls >= at:
            span = max(calls - before[0], 1)
            return before[1] + (distinct - before[1]) * (at - before[0]) / span
        before = (calls, distinct)
    return float(before[1])


def _choices(candidates: Sequence[Candidate], wanted: float) -> list[tuple[Candidate, ...]]:
    """One function or two, the likeliest first: the fewest that comfortably save what has to be saved."""
    singles = [(one,) for one in candidates if one.saved >= TOLERANCE * wanted]
    pairs = [
        (one, other)
        for one, other in combinations(candidates, 2)
        if one.proof.function not in other.proof.reached
        and other.proof.function not in one.proof.reached
        and one.saved + other.saved >= TOLERANCE * wanted
    ]

    def worth(chosen: tuple[Candidate, ...]) -> tuple[bool, int, float]:
        saved = sum(one.saved for one in chosen)
        enough = saved >= COMFORTABLE * wanted
        return enough, -len(chosen) if enough else 0, saved

    return sorted([*singles, *pairs], key=worth, reverse=True)


def _may_be_slow_on_purpose(chosen: Sequence[Candidate]) -> bool:
    """Whether digests are computed: of a password that is to cost whoever guesses, say."""
    return any(name.startswith("hashlib.") for one in chosen for name in one.proof.used)


def _rationale(chosen: Sequence[Candidate], profile: Profile) -> str:
    parts = [
        f"{one.proof.function.shown} in a cache of {one.maxsize} entries (it takes "
        f"{100 * min(1.0, one.called.seconds / max(profile.seconds, 1e-9)):.0f} % of the time; "
        f"{100 * one.called.repeats / one.called.calls:.0f} % of {one.called.calls} calls repeat one of "
        f"{one.called.distinct} arguments)"
        for one in chosen
    ]
    purpose = (
        " They compute digests, which may take long on purpose." if _may_be_slow_on_purpose(chosen) else ""
    )
    return f"Keeps the results of {' and of '.join(parts)}. They are proven to depend on the arguments alone.{purpose}"
