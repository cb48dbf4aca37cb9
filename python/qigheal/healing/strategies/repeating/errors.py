"""The strategy against failing calls: repeats a call that may be repeated, at errors that may pass.

Which calls may be repeated (`[sites] idempotent`) and which errors are worth it (`[sites] transient`) is
for the host's owner alone to say. Where such calls fail is recorded in the host's probe; that repeating
them helps is measured before a patch is proposed. Errors of other kinds are raised at once, as before,
and so is the last error when every attempt fails. How a call is found stands in `callsites`, how the
lines are written in `repeats`.
"""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from qigheal.errors import PatchError, ProbeError, RepoError
from qigheal.healing.strategies.repeating.callsites import (
    CallSite,
    Source,
    call_sites,
    callees,
    libcst,
    timeout_default,
    unrecognised,
)
from qigheal.healing.strategies.repeating.definitions import Definitions
from qigheal.healing.strategies.repeating.dependencies import packages
from qigheal.healing.strategies.repeating.repeats import FORMS, Form, Repeat, rewritten
from qigheal.host.refusals import refusals, refused_path
from qigheal.reasons import log
from qigheal.records import BandOf, Diagnosis, HealingPatch, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

FAILING = 10
"""Answers with errors that show what goes wrong; and that a trial should see of the unpatched code."""

ASKED_LEAST, ASKED_MOST = 20, 200
"""Answers asked for until so many have failed."""

ATTEMPTS_LEAST, ATTEMPTS_MOST = 3, 5

LEAST_S = 1e-6
"""No clock tells shorter waits apart."""

HANGS = 10.0
"""A failing call that takes so many times as long as one that returns is hanging."""

PRICES = ("latency", "memory")
"""Another attempt takes time, and what it is made with, such as a package that repeats calls, takes room."""

NAMED = 3
"""Calls that are named in one reason."""

MARGIN = 3.0
"""A time limit leaves so many times as long as 19 of 20 calls take that return."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one kind at a place: the names that catch it, how many, and how long the calls took."""

    bases: tuple[str, ...]
    count: int
    median_s: float


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """How the calls of a declared function fare that are made from one line."""

    function: str
    file: str
    line: int
    calls: int
    returned: int
    median_s: float
    slow_s: float  # 19 of 20 calls that returned were no slower
    longest_row: int  # calls that failed one after the other
    alone_s: float | None = None  # a call that returned, without what other tasks did while it was paused
    failed: tuple[Failed, ...] = ()

    def pause(self, busy: bool) -> float:
        """Seconds before the second attempt: what a call takes by itself, or among others when `busy`."""
        taken = self.median_s if busy or self.alone_s is None else self.alone_s
        return _rounded(max(LEAST_S, taken), up=False)

    def passing(self, transient: Sequence[str]) -> int:
        """Calls that failed with an error that is worth another attempt."""
        return sum(failed.count for failed in self.failed if set(failed.bases) & set(transient))


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of exception and the way it took, outermost function first."""

    bases: tuple[str, ...]
    frames: tuple[tuple[str, int, str], ...]
    caught: bool
    message: str
    count: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the instrument `tracebacks` tells."""

    errors: tuple[Raised, ...]
    sites: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A call that fails and may be repeated, in a file that a patch may change."""

    source: Source
    call: CallSite
    place: Place

    @property
    def at(self) -> tuple[str, int]:
        return self.source.path, self.place.line

    def time_limit(self, transient: Sequence[str]) -> float | None:
        """Seconds for the callee's parameter `timeout`; None where it has none, or it would not help.

        That it counts seconds is shown by failing calls that took as long as its default says.
        """
        default = timeout_default(self.call.callee, self.call.node)
        if default is None or not self.call.alone:
            return None
        hanging = [
            failed
            for failed in self.place.failed
            if set(failed.bases) & set(transient) and 0.8 * default <= failed.median_s <= 1.5 * default
        ]
        limit = max(HANGS * self.place.median_s, MARGIN * self.place.slow_s)
        return _rounded(limit, up=True) if hanging and 0.0 < limit <= default / 2 else None


class Errors:
    """Repeats declared calls that are recorded to fail with declared errors, at most five times.

    The first wait is as long as a call that returns, and each further one twice as long. Where calls run beside
    one another the clock counts the others in: so the shorter wait, without them, is tried first.
    """

    name = "errors"
    tier: Tier = "guarded"
    metrics = ("errors",)

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most one patch, which repeats every such call that failed."""
        declared = bench.manifest.sites
        band = diagnosis.target.bands.get("errors")
        if "errors" not in diagnosis.metrics:
            return
        if band is None:
            log.info("errors: no band of errors was learned")
            return
        if not (declared.idempotent and declared.transient):
            log.info("errors: [sites] declares no call that may be repeated, or no error that may pass")
            return
        try:
            rates = _until_failing(bench)
            if float(np.mean(rates)) <= band.high:
                log.info("errors: the probe measures them within their band")
                return
            requests = bench.search_requests(len(rates))
            options = {"functions": list(declared.idempotent)}
            seen = bench.inspect("tracebacks", requests, Seen, options=options)
            sites = _sites(seen, bench)
            if not sites:
                return
            fresh = bench.search_requests(len(rates), start=len(rates))
            before = _rates(bench, None, fresh)
            if float(np.mean(before)) <= band.high:
                log.info("errors: on further requests the probe measures them within their band")
                return
            trees = _Trees(bench, repo, declared.transient)
            tried: set[str] = set()
            for form, busy in itertools.product(_forms(bench), (False, True)):
                diff, kept = trees.diff(sites, form, busy)
                if diff in tried:
                    continue
                tried.add(diff)
                after = _measured(bench, diff, fresh) if diff else None
                if after is None or not _helps(band, before, after, _tried(kept, form, busy)):
                    continue
                failing = np.count_nonzero([*rates, *before]) / len([*rates, *before])
                yield HealingPatch(
                    strategy=self.name,
                    tier=self.tier,
                    base=bench.base,
                    diff=diff,
                    rationale=_rationale(kept, form, declared.transient, before, after),
                    heals=("errors",),
                    # Half of them: a trial takes twice as many pairs.
                    batches_needed=max(10, math.ceil(FAILING / 2 / failing)),
                    prices=PRICES,
                    searched=len(rates) + 3 * len(fresh),
                )
                return
        except (ProbeError, RepoError) as failure:
            log.info("errors: what fails cannot be seen: %s", failure)


def _until_failing(bench: Bench) -> list[float]:
    """The error rates of answers, until enough of them are above 0."""
    rates: list[float] = []
    with bench.probe() as probe:
        for request in bench.search_requests(ASKED_MOST):
            rates.append(probe.ask(*request).error_rate)
            if len(rates) >= ASKED_LEAST and np.count_nonzero(rates) >= FAILING:
                break
    return rates


def _rates(bench: Bench, diff: str | None, requests: Sequence[tuple[int, int]]) -> list[float]:
    with bench.probe(diff) as probe:
        return [probe.ask(*request).error_rate for request in requests]


def _measured(bench: Bench, diff: str, requests: Sequence[tuple[int, int]]) -> list[float] | None:
    """The same for a patched tree; None where its probe does not work."""
    try:
        return _rates(bench, diff, requests)
    except ProbeError as failure:
        log.info("errors: with the patch the probe does not work: %s", failure)
        return None


def _tried(sites: Sequence[Site], form: Form, busy: bool) -> str:
    """A way of repeating, in words, for the reason why it is not proposed."""
    named = ", ".join(f"{site.place.function:.80} at {site.at[0]:.80}:{site.at[1]}" for site in sites[:NAMED])
    more = f" and {len(sites) - NAMED} more" if len(sites) > NAMED else ""
    pause = min(site.place.pause(busy) for site in sites)
    how = "plain Python" if form == "plain" else form
    return f"repeating {named}{more} ({how}, first wait {1000 * pause:g} ms)"


def _helps(band: BandOf, before: Sequence[float], after: Sequence[float], tried: str) -> bool:
    """Whether what lies beyond the healthy band has halved, on requests that were not looked into."""
    was, now = (max(0.0, float(np.mean(rates)) - band.high) for rates in (before, after))
    if now <= was / 2 and was > 0:
        return True
    log.info("errors: %s does not help: %.4f → %.4f above the band", tried, was, now)
    return False


def _sites(seen: Seen, bench: Bench) -> list[Site]:
    """The failing calls that may be repeated: of those that one error came through, the innermost."""
    manifest = bench.manifest
    transient = manifest.sites.transient
    definitions = Definitions(bench.tree())
    declared = callees(manifest.sites.idempotent, definitions)
    found: dict[tuple[str, int], list[Site]] = {}
    places: dict[str, list[Place]] = {}
    _missing(seen, manifest.sites.idempotent)
    if seen.sites and not any(place.failed for place in seen.sites):
        log.info("errors: no call that [sites] declares fails%s", _elsewhere(seen))
    for place in seen.sites:
        if (why := _left_alone(place, transient)) is not None:
            if why:
                log.info("errors: %s:%d is not repeated: %s", place.file, place.line, why)
            continue
        if (reason := refused_path(manifest, place.file)) is not None:
            log.info("errors: a call in %.200r cannot be changed: %s", place.file, reason)
            continue
        places.setdefault(place.file, []).append(place)
    cst, _ = libcst()
    for path, here in sorted(places.items()):
        try:
            source = Source(path, (bench.tree() / path).read_bytes())
        except (cst.ParserSyntaxError, OSError, ValueError, RecursionError) as failure:
            log.info("errors: %s cannot be read: %s", path, failure)
            continue
        calls = call_sites(source, declared, definitions, transient, {place.line for place in here})
        for place in here:
            mine = [
                call
                for call in calls
                if call.callee.name == place.function and call.first_line <= place.line <= call.last_line
            ]
            if not mine:
                why = unrecognised(source, declared, definitions, place.function, place.line)
                log.info(
                    "errors: %s:%d calls %s in a way that is not told: %s",
                    path,
                    place.line,
                    place.function,
                    why,
                )
            for call in mine:
                if call.refused:
                    log.info("errors: %s:%d is not repeated: %s", path, place.line, call.refused)
                    continue
                found.setdefault((path, place.line), []).append(Site(source, call, place))
    chosen = _innermost(seen, found, transient)
    if found and not chosen:
        log.info("errors: no error that [sites] transient names came through a call that may be repeated")
    return [site for at in sorted(chosen) for site in found[at]]


def _elsewhere(seen: Seen) -> str:
    """What fails instead, as a clause; "" where no exception was seen."""
    raised = max(seen.errors, key=lambda error: error.count, default=None)
    if raised is None or not raised.frames:
        return ""
    file, line, _ = raised.frames[-1]
    return f"; what fails most is {raised.bases[0]:.200} at {file:.200}:{line}"


def _missing(seen: Seen, idempotent: Sequence[str]) -> None:
    """Say which declared functions were called from nowhere in the repository."""
    for name in idempotent:
        if name not in {place.function for place in seen.sites}:
            log.info("errors: nothing in the repository called %.200s while the probe answered", name)


def _left_alone(place: Place, transient: Sequence[str]) -> str | None:
    """Why the calls of a place are none to repeat, "" where they do not fail; None where they may be."""
    if not place.failed:
        return ""
    if not place.passing(transient):
        return f"it fails with {place.failed[0].bases[0]:.200}, which [sites] transient does not name"
    return None if place.returned else "no call of it came back"


def _innermost(
    seen: Seen, found: Mapping[tuple[str, int], object], transient: Sequence[str]
) -> set[tuple[str, int]]:
    """Of the calls on each error's way one: repeated at two places, attempts would multiply."""
    ways = [
        [(file, line) for file, line, _ in error.frames if (file, line) in found]
        for error in seen.errors
        if set(error.bases) & set(transient)
    ]
    chosen = {way[-1] for way in ways if way}
    for way in ways:
        chosen -= set([at for at in way if at in chosen][1:])
    return chosen


def _forms(bench: Bench) -> tuple[Form, ...]:
    """The libraries that the host has, and plain Python where none of them works."""
    known = packages(bench.tree(), Definitions(bench.tree()))
    return (*(form for form in FORMS if form in known), "plain")


@dataclass(frozen=True, slots=True)
class _Trees:
    """Makes patches."""

    bench: Bench
    repo: Repo
    transient: Sequence[str]

    def diff(self, sites: Sequence[Site], form: Form, busy: bool) -> tuple[str, list[Site]]:
        """The patch that repeats as many of the calls as one may change, the most frequent first; and which.

        An empty diff where none can be written.
        """
        by_file: dict[str, list[Site]] = {}
        for site in sites:
            by_file.setdefault(site.source.path, []).append(site)
        written: dict[str, bytes] = {}
        for path, here in by_file.items():
            try:
                written[path] = self._rewritten(here, form, busy)
            except PatchError as failure:
                log.info("errors: %s cannot be changed: %s", path, failure)
        order = sorted(
            written, key=lambda path: (-sum(s.place.passing(self.transient) for s in by_file[path]), path)
        )
        while order:
            tree = self.repo.edit(self.bench.base, {path: written[path] for path in order})
            changes = self.repo.changes(self.bench.base, tree)
            refused = refusals(self.bench.manifest, changes, self.repo.entries(self.bench.base))
            if not refused:
                kept = [site for site in sites if site.source.path in order]
                return self.repo.diff(self.bench.base, tree), kept
            log.info("errors: %s", refused[0])
            order.pop()
        return "", []

    def _rewritten(self, sites: Sequence[Site], form: Form, busy: bool) -> bytes:
        limits = {i: site.time_limit(self.transient) for i, site in enumerate(sites)}
        row = max(site.place.longest_row for site in sites)
        repeat = Repeat(
            errors=_caught(self.transient, sites),
            attempts=min(ATTEMPTS_MOST, max(ATTEMPTS_LEAST, row + 1)),
            wait_s=min(site.place.pause(busy) for site in sites),
        )
        return rewritten(
            sites[0].source,
            [site.call for site in sites],
            repeat,
            form,
            {i: limit for i, limit in limits.items() if limit is not None},
        )


def _caught(transient: Sequence[str], sites: Sequence[Site]) -> tuple[str, ...]:
    """The declared errors that can be named: the language's own, and others that were seen here."""
    seen = {name for site in sites for failed in site.place.failed for name in failed.bases}
    own = {name for name in transient if isinstance(getattr(builtins, name, None), type)}
    return tuple(name for name in transient if name in own or ("." in name and name in seen))


def _rounded(value: float, *, up: bool) -> float:
    """To 1, 2 or 5 times a power of ten: so coarsely that measuring again hardly gives another patch."""
    unit = 10.0 ** math.floor(math.log10(value))
    steps = [unit * factor for factor in (1.0, 2.0, 5.0, 10.0)]
    if up:
        return next(step for step in steps if step >= value * (1 - 1e-9))
    return next(step for step in reversed(steps) if step <= value * (1 + 1e-9))


def _rationale(
    sites: Sequence[Site],
    form: Form,
    transient: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
) -> str:
    said = []
    for site in sites:
        place = site.place
        takes = place.median_s if place.alone_s is None else place.alone_s
        said.append(
            f"{place.function} at {place.file}:{place.line} ({place.passing(transient)} of {place.calls} calls "
            f"failed, at most {place.longest_row} in a row; one that returns takes {1000 * takes:.3g} ms)"
        )
    how = "plain Python" if form == "plain" else f"{form}, which the host has already"
    text = (
        f"Repeats what may be repeated when it fails with {' or '.join(transient)}: {', '.join(said)}. Written with "
        f"{how}; other errors, and the last one, are raised as before. Measured on requests that were not looked "
        f"into: errors {np.mean(before):.2%} → {np.mean(after):.2%}."
    )
    limits = [limit for site in sites if (limit := site.time_limit(transient)) is not None]
    if limits:
        text += f" Calls that hung are given up after {max(limits):g} s."
    if any(
        site.call.awaited and not site.time_limit(transient) and _hangs(site.place, transient)
        for site in sites
    ):
        text += " Awaited calls that hang are not cut short: may be repeated does not mean may be cancelled."
    return text


def _hangs(place: Place, transient: Sequence[str]) -> bool:
    return any(
        failed.median_s > HANGS * place.median_s
        for failed in place.failed
        if set(failed.bases) & set(transient)
    )
