"""How much better one side of a trial is than the other, with the bounds of the doubt.

Every term is an excess over the healthy band, 0 inside it, never a raw value: a smoother signal is
not a healthier one. Whether a patch may be applied is not decided here; who measured, and how, is not
known here. Numba is imported when a score is asked for, not before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from qigcore.errors import TooLittleData
from qigcore.noninferiority import Student, t_quantile
from qigcore.rows import FloatArray

RESAMPLES = 10_000
WEIGHTS = {"phi": 0.4, "basin": 0.3, "service": 0.2, "quality": 0.1}
SERVICE = ("errors", "latency", "memory")
FLOOR = 0.01
"""Smallest excess that a gain is measured against: 1 % of the limit."""

LARGE_PATCH = 80
"""Changed lines at which the whole of the deduction for size is taken."""

_COLUMNS = ("phi", "kappa", *SERVICE)


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """A score in [0, 1] with one-sided bootstrap bounds; `components` are the point's terms.

    `low` and `high` are each exceeded, on the wrong side, with the probability that was asked for
    (5 % unless told otherwise). Doing nothing scores 0.55. `components` has the keys phi, basin,
    service, quality: the gains before weighting, each in [0, 1].
    """

    point: float
    low: float
    high: float
    components: dict[str, float]
    resamples: int = 0


class Side(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one side of a trial answered, n answers in the order of their pairs.

    phi [n], kappa [n]; basins [n, dim] at any positive scale; errors [n], fractions; latency [n],
    any unit above 0; memory [n], growth in MB per answer; blocks [n], the ABBA block of each.
    """

    phi: FloatArray
    kappa: FloatArray
    basins: FloatArray
    errors: FloatArray
    latency: FloatArray
    memory: FloatArray
    blocks: np.ndarray[Any, np.dtype[np.integer[Any]]]


class Limits(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Healthy, for a score.

    basin [dim]: the baseline as a unit amplitude vector; drift_limit: radians; bands: (low, high) of
    phi, kappa, errors, latency, memory in the units of `Side`, as far as they are known; service:
    those of errors, latency, memory that count in the score (the ones a diagnosis names).
    """

    basin: FloatArray
    drift_limit: float
    bands: Mapping[str, tuple[float, float]]
    service: Sequence[str] = ()
    geometry: Literal["simplex", "sphere"] = "simplex"


class Excesses(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How far each side lies outside healthy: 0 inside, by metric.

    phi, kappa, errors, latency, memory in half-widths of the band beyond its edge (the last three only
    above it: a faster service is no fault); basin_drift as d / limit - 1, with d the distance from
    the baseline to the Fréchet mean of the side's basins. `drawn`: [2, resamples], before and after.
    """

    before: dict[str, float]
    after: dict[str, float]
    drawn: dict[str, FloatArray]
    blocks: int

    def degradation(self, metric: str) -> Student:
        """How much larger the excess is after than before, with its bootstrap standard error."""
        spread = float(np.std(self.drawn[metric][1] - self.drawn[metric][0]))
        # The variance of bootstrapped means is (n - 1) / n of the unbiased one.
        corrected = spread * math.sqrt(self.blocks / (self.blocks - 1))
        value = self.after[metric] - self.before[metric]
        return Student(value, corrected if spread > 1e-12 * max(1.0, abs(value)) else 0.0, self.blocks - 1)


def excesses(
    before: Side, after: Side, limits: Limits, *, resamples: int = RESAMPLES, seed: int = 0
) -> Excesses:
    """Excesses of both sides, and of `resamples` draws of blocks with replacement.

    Latency is averaged geometrically, since its noise multiplies. The Fréchet mean of a draw is the
    normalised mean of amplitudes, moved by what separates the two on the whole side: a Karcher
    iteration for each draw would cost a hundred times as much. At the Karcher mean the gradient of the
    normalised one is the sum of (sin r / r - 1) log x, so that basins within an angle r of it (of
    amplitudes, half the distance on the simplex) put the two at most r³ / (6 cos r) apart: 2e-4 rad
    at r = 0.1; what is left after the move is the change of that between draws.

    Raises TooLittleData with fewer than two blocks, ValueError for sides of different shape, MissingExtra
    without Numba.
    """
    from qigcore._resample import resample
    from qigcore.geometry import amplitudes, frechet_mean

    labels, block = np.unique(before.blocks, return_inverse=True)
    _check(before, after, limits, len(labels))
    units = [
        np.asarray(amplitudes(np.ascontiguousarray(side.basins), limits.geometry)) for side in (before, after)
    ]
    scalars = np.zeros((len(labels), 2, len(_COLUMNS)))
    summed = np.zeros((len(labels), 2, len(limits.basin)))
    for i, side in enumerate((before, after)):
        columns = np.stack([side.phi, side.kappa, side.errors, np.log(side.latency), side.memory], axis=1)
        np.add.at(scalars[:, i], block, columns)
        np.add.at(summed[:, i], block, units[i])
    counts = np.bincount(block).astype(np.float64)
    target = np.ascontiguousarray(limits.basin, dtype=np.float64)
    drawn = resample(scalars, summed, counts, target, resamples, seed % 2**63)

    means = scalars.sum(axis=0) / counts.sum()
    distances, offsets = np.empty(2), np.empty(2)
    for i, side in enumerate((before, after)):
        rows = np.ascontiguousarray(side.basins)
        whole = summed[:, i].sum(axis=0)
        chordal = whole / max(float(np.linalg.norm(whole)), 1e-300)
        distances[i] = _radians(np.linalg.norm(frechet_mean(rows, geometry=limits.geometry) - target), limits)
        offsets[i] = distances[i] - _radians(np.linalg.norm(chordal - target), limits)
    drifts = np.maximum(0.0, _radians(drawn[:, :, -1], limits) + offsets)

    points = {"basin_drift": np.maximum(0.0, distances / limits.drift_limit - 1.0)}
    draws = {"basin_drift": np.maximum(0.0, drifts / limits.drift_limit - 1.0).T}
    for column, name in enumerate(_COLUMNS):
        if name in limits.bands:
            for found, values in ((points, means[:, column]), (draws, drawn[:, :, column].T)):
                found[name] = _beyond(name, np.exp(values) if name == "latency" else values, limits)
    return Excesses(
        before={name: float(pair[0]) for name, pair in points.items()},
        after={name: float(pair[1]) for name, pair in points.items()},
        drawn=draws,
        blocks=len(labels),
    )


def spread(before: Side, control: Side, limits: Limits, pairs: int) -> dict[str, float]:
    """By how much the excess of two identical sides of `pairs` answers differs by chance, by term.

    before and control: the same requests answered by two unpatched processes. One standard deviation,
    in the units of `Excesses`, as if both lay outside their bands. Keys phi, basin, service; 0 where
    fewer than two answers were compared.
    """
    if len(before.phi) < 2:
        return dict.fromkeys(("phi", "basin", "service"), 0.0)

    def chance(differences: FloatArray) -> float:
        return float(np.std(differences, ddof=1)) / math.sqrt(pairs)

    found = {"basin": chance(_drifts(before, limits) - _drifts(control, limits)) / limits.drift_limit}
    for term, names in (("phi", ("phi", "kappa")), ("service", tuple(limits.service))):
        spreads = [
            chance(getattr(before, name) - getattr(control, name)) / _half_width(limits.bands[name])
            for name in names
            if name in limits.bands
        ]
        found[term] = max(spreads, default=0.0)
    return found


def weigh(
    found: Excesses,
    limits: Limits,
    *,
    spread: Mapping[str, float] | None = None,
    lines: int = 0,
    level: float = 0.05,
) -> Fitness:
    """The score of excesses already drawn; arguments as for `score`."""
    terms = {"phi": ("phi", "kappa"), "basin": ("basin_drift",), "service": tuple(limits.service)}
    quality = 1.0 - 0.1 * min(1.0, lines / LARGE_PATCH)
    point, drawn = WEIGHTS["quality"] * quality, np.float64(WEIGHTS["quality"] * quality)
    components = {}
    for term, names in terms.items():
        floor = max(FLOOR, (spread or {}).get(term, 0.0))
        known = [name for name in names if name in found.before]
        worst = np.array(
            [max((side[name] for name in known), default=0.0) for side in (found.before, found.after)]
        )
        components[term] = float(_gain(worst[0], worst[1], floor))
        point += WEIGHTS[term] * components[term]
        if known:
            draws = np.max([found.drawn[name] for name in known], axis=0)
            drawn = drawn + WEIGHTS[term] * _gain(draws[0], draws[1], floor)
        else:
            drawn = drawn + WEIGHTS[term] * components[term]
    components["quality"] = quality
    # Percentiles of few blocks are too narrow; at this level they are as wide as Student's
    # interval ("expanded percentile": Hesterberg, The American Statistician 69 (2015), 371-386).
    reach = t_quantile(level, found.blocks - 1) * math.sqrt(found.blocks / (found.blocks - 1))
    outer = math.erfc(reach / math.sqrt(2)) / 2
    low, high = np.quantile(drawn, (outer, 1.0 - outer)) if np.ndim(drawn) else (point, point)
    first = next(iter(found.drawn.values()))
    return Fitness(
        point=point,
        low=min(point, float(low)),
        high=max(point, float(high)),
        components=components,
        resamples=first.shape[1],
    )


def score(
    before: Side,
    after: Side,
    limits: Limits,
    *,
    spread: Mapping[str, float] | None = None,
    lines: int = 0,
    level: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fitness:
    """How much healthier `after` is than `before`: 0 to 1, 0.55 for no difference.

        gain(b, a) = ½ + ½ clip((b - a) / max(b, floor), -1, 1)        floor = max(0.01, spread)
        score = 0.4 gain(Φ, κ) + 0.3 gain(drift) + 0.2 gain(service) + 0.1 quality

    with b and a the excesses (see `Excesses`; of several metrics in a term the worst), and quality 1 less
    up to 0.1 for size.

    spread: the excess by which identical sides differ, by term (see `spread`): what is no larger than
        chance earns no full gain.
    lines: added and deleted lines of the patch.
    level: one-sided probability with which each bound errs; lower moves both outwards.
    resamples: draws of whole ABBA blocks with replacement. seed: same seed, same result to the last bit.

    Raises as `excesses` does.
    """
    found = excesses(before, after, limits, resamples=resamples, seed=seed)
    return weigh(found, limits, spread=spread, lines=lines, level=level)


def _gain(before: Any, after: Any, floor: float) -> Any:
    return 0.5 + 0.5 * np.clip((before - after) / np.maximum(before, floor), -1.0, 1.0)


def _half_width(band: tuple[float, float]) -> float:
    return (band[1] - band[0]) / 2


def _beyond(name: str, values: FloatArray, limits: Limits) -> FloatArray:
    low, high = limits.bands[name]
    away = values - (low + high) / 2
    found: FloatArray = np.maximum(
        0.0, (away if name in SERVICE else np.abs(away)) / _half_width((low, high)) - 1.0
    )
    return found


def _radians(chord: Any, limits: Limits) -> Any:
    """The distance that belongs to a chord between unit amplitudes."""
    return (4.0 if limits.geometry == "simplex" else 2.0) * np.arcsin(np.minimum(1.0, chord / 2))


def _drifts(side: Side, limits: Limits) -> FloatArray:
    from qigcore.geometry import amplitudes

    units = np.asarray(amplitudes(np.ascontiguousarray(side.basins), limits.geometry))
    found: FloatArray = _radians(np.linalg.norm(units - limits.basin, axis=1), limits)
    return found


def _check(before: Side, after: Side, limits: Limits, blocks: int) -> None:
    count = len(before.phi)
    for name, side in (("before", before), ("after", after)):
        for field in (*_COLUMNS, "blocks"):
            if getattr(side, field).shape != (count,):
                raise ValueError(
                    f"{name}.{field}: expected shape ({count},) like before.phi, got {getattr(side, field).shape}"
                )
        if side.basins.shape != (count, len(limits.basin)):
            raise ValueError(
                f"{name}.basins: expected shape ({count}, {len(limits.basin)}), got {side.basins.shape}"
            )
        if not np.all(side.latency > 0.0):
            raise ValueError(f"{name}.latency: expected values above 0, got {np.min(side.latency)}")
    if not np.array_equal(before.blocks, after.blocks):
        raise ValueError("both sides must answer the same pairs: before.blocks and after.blocks differ")
    if blocks < 2:
        raise TooLittleData(f"a score needs at least 2 blocks of pairs, got {blocks}")
