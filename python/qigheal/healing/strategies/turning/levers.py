"""Levers: numbers in the host's TOML files that its owner declared, and the search for better values.

A tool that strategies share. What a candidate is measured for is theirs to say, as a function from
answers to `Measured`. Every candidate answers the same requests, so that candidates differ by their
setting alone; the winner must show on fresh requests that it halves the distance to healthy, and in several
starts of the probe: of many candidates one comes out well by the luck of its process. Of candidates that cannot be
told apart the one nearest to the healthy commit's values wins, or to the present ones where none is known (`choosing`).
Whether a patch is good enough is not decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qigcore.errors import InvalidBasin
from qigheal.errors import MissingExtra, ProbeError, RepoError
from qigheal.healing.strategies.turning.choosing import FEWEST, chosen
from qigheal.healing.strategies.turning.search import Axis, Point, Residuals, loss, search
from qigheal.reasons import log
from qigheal.records import Answer, HealingPatch
from qigheal.repo.git import CODE_HASH
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.host import Lever
    from qigheal.repo import Repo

STARTS = 3
"""Starts in which the winner must be nearer than the present values are in any of theirs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured mean, as a person reads it; `healthy` is the range in words."""

    symbol: str
    value: float
    healthy: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What a configuration's answers come to.

    residuals: what the search makes small, in units that make them comparable. away: how far from healthy,
    by which candidates are compared with the present values. healthy: whether nothing is to be healed.
    """

    figures: tuple[Figure, ...]
    residuals: Residuals
    away: float
    healthy: bool


Measure = Callable[[Sequence[Answer]], Measured]


@dataclass(frozen=True, slots=True)
class Setting:
    """A lever and where it stands in the code under repair."""

    lever: Lever
    now: float
    axis: Axis


def turned(
    strategy: str,
    heals: tuple[str, ...],
    measured: Measure,
    bench: Bench,
    repo: Repo,
    limits: HealSettings,
    healthy: str,
) -> HealingPatch | None:
    """The patch that sets the levers of `strategy` to the best values found; None when none is clearly better.

    healthy: the last healthy commit, "" when it is unknown.

    A lever that cannot be read is left alone and named in the log. A lever whose value and bounds are
    whole numbers is searched in whole numbers; others get three significant digits. Probes started:
    `search_evaluations` for each lever, the present values and the confirmation of the winner included, and
    twice `STARTS` less one more to confirm it in other starts.
    """
    settings = _settings(bench, repo, strategy)
    if not settings:
        if all(lever.strategy != strategy for lever in bench.manifest.levers):
            log.info("%s: the manifest declares no lever of this strategy ([[levers]])", strategy)
        return None
    batches = limits.search_batches
    trials = _Trials(strategy, bench, repo, settings, measured)
    here = tuple(setting.now for setting in settings)
    questions = bench.search_requests(batches)
    fresh = bench.search_requests(batches, start=batches)
    present = trials.measure(None, questions, fresh)
    if present is None:
        return None
    before, before_fresh = present
    if before.healthy:
        log.info("%s: the probe measures what the levers are for as healthy; none is at fault", strategy)
        return None
    found: dict[Point, Measured] = {here: before}

    def residuals(point: Point) -> Residuals | None:
        if point not in found:
            if (answered := trials.measure(point, questions)) is None:
                return None
            [found[point]] = answered
        return found[point].residuals

    evaluations = len(settings) * limits.search_evaluations - 2
    tried = search([setting.axis for setting in settings], here, residuals, evaluations, limits.seed)
    best = min(tried, key=lambda point: loss(tried[point]))
    if best not in found or not _clearly_nearer(found[best], before):
        log.info("%s: none of %d settings is clearly nearer to healthy", strategy, len(tried))
        return None

    def eligible(point: Point) -> bool:
        nearer = point in found and _clearly_nearer(found[point], before)
        return nearer and found[point].healthy >= found[best].healthy

    home = _home(settings, healthy, repo)
    winner = chosen(tried, eligible, [setting.axis for setting in settings], home, trials.without)
    confirmed = _confirmed(trials, winner, before_fresh, batches)
    if confirmed is None:
        return None
    return HealingPatch(
        strategy=strategy,
        tier="safe",
        base=bench.base,
        diff=trials.diff(winner),
        rationale=_rationale(settings, winner, before_fresh, confirmed, len(tried)),
        heals=heals,
        parameters={setting.lever.name: value for setting, value in zip(settings, winner, strict=True)},
        searched=batches * (2 * STARTS + 1 + len(tried.keys() - {here})),
        prices=("latency",),  # an answer that takes as long as healthy ones do is healthy
    )


@dataclass(frozen=True, slots=True)
class _Trials:
    """Measures points of the search: a patch is made for each, and the host's probe started on it."""

    strategy: str
    bench: Bench
    repo: Repo
    settings: Sequence[Setting]
    measured: Measure
    answers: dict[Point, list[Answer]] = field(default_factory=dict)  # the first that each point gave

    def measure(self, point: Point | None, *sets: Sequence[tuple[int, int]]) -> list[Measured] | None:
        """What one probe measures on each set of requests; None when it does not work.

        `point` None is the code as it stands.
        """
        try:
            with self.bench.probe(None if point is None else self.diff(point)) as probe:
                answered = [[probe.ask(*request) for request in asked] for asked in sets]
            if point is not None:
                self.answers.setdefault(point, answered[0])
            return [self.measured(answers) for answers in answered]
        except (ProbeError, InvalidBasin) as failure:
            log.info("%s: %s cannot be measured: %s", self.strategy, point or "the present code", failure)
            return None

    def without(self, point: Point) -> list[float]:
        """The losses of a point with one of its answers left out at a time; empty where there are too few."""
        answers = self.answers.get(point, [])
        if len(answers) < FEWEST:
            return []
        try:
            return [
                loss(self.measured([*answers[:i], *answers[i + 1 :]]).residuals) for i in range(len(answers))
            ]
        except InvalidBasin:
            return []

    def diff(self, point: Point) -> str:
        """The patch that sets every lever to its value of `point` and leaves all else as it is."""
        documents: dict[str, Any] = {}
        for setting, value in zip(self.settings, point, strict=True):
            file = setting.lever.file
            if file not in documents:
                documents[file] = _parse(self.repo.read(self.bench.base, file))
            if value != setting.now:
                table, key = _locate(documents[file], setting.lever)
                table[key] = int(value) if setting.axis.whole else value
        edits = {file: document.as_string().encode() for file, document in documents.items()}
        return self.repo.diff(self.bench.base, self.repo.edit(self.bench.base, edits))


def _confirmed(trials: _Trials, winner: Point, before: Measured, batches: int) -> Measured | None:
    """What the winner measures on requests that the search did not use; None unless every start shows it nearer.

    `before`: the present values on the first of those requests.
    """
    present, found = [before], []
    for number in range(1, STARTS + 1):
        fresh = trials.bench.search_requests(batches, start=number * batches)
        if number > 1:
            if (again := trials.measure(None, fresh)) is None:
                return None
            present += again
        if (answered := trials.measure(winner, fresh)) is None:
            return None
        found += answered
        if not _clearly_nearer(max(found, key=_away), min(present, key=_away)):
            log.info("%s: %s helped on the searched requests only", trials.strategy, winner)
            return None
    return found[0]


def _away(measured: Measured) -> float:
    return measured.away


def _clearly_nearer(after: Measured, before: Measured) -> bool:
    return after.away < before.away / 2


def _settings(bench: Bench, repo: Repo, strategy: str) -> list[Setting]:
    """The strategy's levers that can be read at the base commit; the others are named in the log."""
    found = []
    for lever in bench.manifest.levers:
        if lever.strategy == strategy:
            setting = standing(lever, bench.base, repo)
            if isinstance(setting, Setting):
                found.append(setting)
            else:
                log.warning("lever %s: %s", lever.name, setting)
    return found


def _home(settings: Sequence[Setting], healthy: str, repo: Repo) -> Point:
    """Where the levers stood in the last healthy commit; where that is not known, where they stand."""
    commit = ""
    if CODE_HASH.fullmatch(healthy):
        try:
            commit = repo.resolve(healthy)
        except RepoError:
            commit = ""
    if not commit.startswith(healthy):  # a branch or tag that looks like an abbreviation
        commit = ""
    then = [standing(setting.lever, commit, repo) if commit else setting for setting in settings]
    return tuple(
        there.now if isinstance(there, Setting) else setting.now
        for there, setting in zip(then, settings, strict=True)
    )


def standing(lever: Lever, commit: str, repo: Repo) -> Setting | str:
    """Where a lever stands in a commit, else why it cannot be turned there. Raises MissingExtra without tomlkit."""
    try:
        table, key = _locate(_parse(repo.read(commit, lever.file)), lever)
        now = table[key]
    except (KeyError, TypeError, ValueError, RepoError) as failure:
        why = f"there is no {failure}" if isinstance(failure, KeyError) else failure
        return f"cannot read {lever.key} of {lever.file}: {why}"
    if isinstance(now, bool) or not isinstance(now, (int, float)) or not math.isfinite(now):
        return f"expected a number at {lever.key} of {lever.file}, got {now}"
    whole = isinstance(now, int) and lever.min == int(lever.min) and lever.max == int(lever.max)
    return Setting(lever, float(now), Axis(float(lever.min), float(lever.max), whole))


def _parse(content: bytes) -> Any:
    """A TOML document that remembers its formatting. Raises ValueError when it is none."""
    try:
        import tomlkit
    except ImportError as missing:
        raise MissingExtra("tomlkit", "heal", "turning a lever") from missing
    return tomlkit.parse(content.decode())


def _locate(document: Any, lever: Lever) -> tuple[Any, str]:
    """The table that holds a lever's key, and the key's last part. Raises KeyError when there is none."""
    table = document
    for part in lever.parts:
        holder, table = table, table[part]
    return holder, lever.parts[-1]


def _rationale(
    settings: Sequence[Setting], winner: Point, before: Measured, after: Measured, tried: int
) -> str:
    turned = ", ".join(
        f"{setting.lever.name} from {setting.now:g} to {value:g} ({setting.lever.file})"
        for setting, value in zip(settings, winner, strict=True)
        if value != setting.now
    )
    figures = ", ".join(
        f"{now.symbol} {then.value:.4g} → {now.value:.4g} (healthy {now.healthy})"
        for then, now in zip(before.figures, after.figures, strict=True)
    )
    return f"Sets {turned}. Measured on requests that the search did not use: {figures}. Best of {tried} values tried."
