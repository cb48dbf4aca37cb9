"""Strategies that turn a lever: a number in a TOML file of the host which its owner declared.

`Attention` heals Φ and κ. It searches the declared levers by measuring the host's probe, and aims
at the centre of the healthy band: a value at its edge would leave it again at the next fluctuation.
Whether a patch is good enough is not decided here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qigcore.errors import InvalidBasin
from qigcore.geometry import distance, frechet_mean, from_amplitudes
from qigheal.errors import MissingExtra, ProbeError, RepoError
from qigheal.healing.strategies.search import Axis, Point, Residuals, loss, search
from qigheal.records import Answer, Diagnosis, HealingPatch, Target, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.host import Lever
    from qigheal.repo import Repo

log = logging.getLogger("qigheal")

DRIFT_WEIGHT = 0.1
"""Of the drift (in units of its limit) beside Φ and κ (in half-widths of their bands): it breaks ties."""

SYMBOLS = {"phi": "Φ", "kappa": "κ"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A lever and where it stands in the code under repair."""

    lever: Lever
    now: float
    axis: Axis


@dataclass(frozen=True, slots=True)
class Measured:
    """What a configuration's probe answered, in the mean."""

    means: dict[str, float]  # of the metrics aimed at
    residuals: Residuals

    @classmethod
    def of(cls, answers: Sequence[Answer], target: Target, metrics: Sequence[str]) -> Measured:
        """Distances from the centres of the target's bands, in half-widths, and the weighted drift."""
        reported = {"phi": [a.phi for a in answers], "kappa": [a.kappa_eff for a in answers]}
        means = {metric: float(np.mean(reported[metric])) for metric in metrics}
        residuals = []
        for metric in metrics:
            band = target.bands[metric]
            residuals.append((means[metric] - (band.low + band.high) / 2) / band.half_width)
        centre = frechet_mean([a.basin for a in answers], geometry=target.geometry)
        here, healthy = from_amplitudes(np.array([centre, target.basin]), target.geometry)
        drift = distance(here, healthy, target.geometry)
        return cls(means, np.array([*residuals, DRIFT_WEIGHT * drift / target.drift_limit]))


class Attention:
    """Searches the levers of strategy `attention` for the values that put Φ and κ back in their bands.

    Every candidate answers the same requests, so that candidates differ by their setting alone; the
    winner must show on fresh requests that it halves the distance to healthy. A lever that cannot be
    read is left alone and named in the log. A lever whose value and bounds are whole numbers is
    searched in whole numbers; others get three significant digits.
    """

    name = "attention"
    tier: Tier = "safe"
    metrics = ("phi", "kappa")

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """At most one patch.

        Probes started: `search_evaluations` for each lever, the present values and the confirmation
        of the winner included.
        """
        target, batches = diagnosis.target, self._settings.search_batches
        heals = tuple(metric for metric in diagnosis.metrics if metric in self.metrics)
        aims = tuple(metric for metric in self.metrics if metric in target.bands)
        settings = _settings(bench, repo, self.name)
        if not (heals and aims and settings):
            return
        trials = _Trials(bench, repo, settings, target, aims)
        here = tuple(setting.now for setting in settings)
        questions = bench.search_requests(batches)
        fresh = bench.search_requests(batches, start=batches)
        present = trials.measure(None, questions, fresh)
        if present is None:
            return
        before, before_fresh = present
        if all(target.bands[metric].excess(before.means[metric]) == 0 for metric in aims):
            log.info("attention: the probe measures %s within their bands; no lever is at fault", aims)
            return

        def residuals(point: Point) -> Residuals | None:
            if point == here:
                return before.residuals
            found = trials.measure(point, questions)
            return None if found is None else found[0].residuals

        evaluations = len(settings) * self._settings.search_evaluations - 2
        axes = [setting.axis for setting in settings]
        tried = search(axes, here, residuals, evaluations, self._settings.seed)
        winner = min(tried, key=lambda point: loss(tried[point]))
        if not _clearly_nearer(loss(tried[winner]), loss(before.residuals)):
            log.info("attention: none of %d settings is clearly nearer to healthy", len(tried))
            return
        confirmed = trials.measure(winner, fresh)
        if confirmed is None:
            return
        [after] = confirmed
        if not _clearly_nearer(loss(after.residuals), loss(before_fresh.residuals)):
            log.info("attention: %s helped on the searched requests only", winner)
            return
        yield HealingPatch(
            strategy=self.name,
            tier=self.tier,
            base=bench.base,
            diff=trials.diff(winner),
            rationale=_rationale(settings, winner, before_fresh, after, target, len(tried)),
            heals=heals,
            parameters={setting.lever.name: value for setting, value in zip(settings, winner, strict=True)},
            searched=batches * (3 + len(tried.keys() - {here})),
        )


@dataclass(frozen=True, slots=True)
class _Trials:
    """Measures points of the search: a patch is made for each, and the host's probe started on it."""

    bench: Bench
    repo: Repo
    settings: Sequence[Setting]
    target: Target
    aims: Sequence[str]

    def measure(self, point: Point | None, *sets: Sequence[tuple[int, int]]) -> list[Measured] | None:
        """What one probe measures on each set of requests; None when it does not work.

        `point` None is the code as it stands.
        """
        try:
            with self.bench.probe(None if point is None else self.diff(point)) as probe:
                return [
                    Measured.of([probe.ask(*request) for request in asked], self.target, self.aims)
                    for asked in sets
                ]
        except (ProbeError, InvalidBasin) as failure:
            log.info("attention: %s cannot be measured: %s", point or "the present code", failure)
            return None

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


def _clearly_nearer(after: float, before: float) -> bool:
    return after < before / 2


def _settings(bench: Bench, repo: Repo, strategy: str) -> list[Setting]:
    """The strategy's levers that can be read at the base commit; the others are named in the log."""
    found = []
    for lever in bench.manifest.levers:
        if lever.strategy != strategy:
            continue
        try:
            table, key = _locate(_parse(repo.read(bench.base, lever.file)), lever)
            now = table[key]
        except (KeyError, TypeError, ValueError, RepoError) as failure:
            log.warning("lever %s: cannot read %s of %s: %s", lever.name, lever.key, lever.file, failure)
            continue
        if isinstance(now, bool) or not isinstance(now, (int, float)) or not math.isfinite(now):
            log.warning(
                "lever %s: expected a number at %s of %s, got %s", lever.name, lever.key, lever.file, now
            )
            continue
        whole = isinstance(now, int) and lever.min == int(lever.min) and lever.max == int(lever.max)
        found.append(Setting(lever, float(now), Axis(float(lever.min), float(lever.max), whole)))
    return found


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
    settings: Sequence[Setting],
    winner: Point,
    before: Measured,
    after: Measured,
    target: Target,
    tried: int,
) -> str:
    turned = ", ".join(
        f"{setting.lever.name} from {setting.now:g} to {value:g} ({setting.lever.file})"
        for setting, value in zip(settings, winner, strict=True)
        if value != setting.now
    )
    figures = ", ".join(
        f"{SYMBOLS[metric]} {before.means[metric]:.4g} → {after.means[metric]:.4g} "
        f"(healthy {target.bands[metric].low:.4g} to {target.bands[metric].high:.4g})"
        for metric in after.means
    )
    return f"Sets {turned}. Measured on requests that the search did not use: {figures}. Best of {tried} values tried."
