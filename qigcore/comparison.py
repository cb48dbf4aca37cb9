"""What changed between two learnings of one host: "what changed since March".

Two baselines of the same state are never equal. What learning alone would put between them follows from
their spreads, counts and autocorrelations; only what goes beyond is called a change. Nothing here reads a
file or a snapshot.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np

from qigcore.baseline import Band, Baseline
from qigcore.errors import BaselineError
from qigcore.geometry import distance
from qigcore.noninferiority import holm, t_quantile, t_tail
from qigcore.rows import METRICS, FloatArray

LEVEL = 0.01
"""Chance that two learnings of one state are said to differ, over all metrics and the centre together.

Measured, on seeds that nothing was chosen by, with autocorrelations of 0, 0.5 and 0.9: 0 to 0.3 % of 300
pairs of 300 snapshots, 0 to 1 % of 100 pairs of 2,000, and 0 to 1.3 % where one has 60 snapshots.
"""

CONFIDENCE = 0.95

FEWEST = 5.0
"""Independent values below which a mean is not compared: autocorrelation leaves too few of those counted."""

STRETCH = 10
"""Memory growth is told of stretches of ten snapshots, neighbours of which share nine."""

_UNITS = {"latency": " ms", "memory": " MB per snapshot", "basin_drift": " rad"}
_NAMES = {"phi": "Φ", "kappa": "κ", "basin_drift": "drift", "memory": "memory growth", "errors": "error rate"}


class MetricChange(msgspec.Struct, frozen=True, kw_only=True):
    """One metric before and after; units of the metric.

    difference: of the means over the root mean square of both sds ("Cohen's d"), with low and high its
        95 % interval; None where both were constant, or too few independent values were seen.
    p_value: two-sided, that two learnings of one state differ so much (Welch's test, effective counts).
    """

    metric: str
    mean_before: float
    mean_after: float
    sd_before: float
    sd_after: float
    difference: float | None
    low: float | None
    high: float | None
    p_value: float
    changed: bool


class ComponentChange(msgspec.Struct, frozen=True, kw_only=True):
    """One component of the centre that moved beyond its own noise.

    share: of the squared way of the amplitudes less its expected noise, over all components, 0 to 1.
    before, after: as `Baseline.point`: probabilities, or coordinates of a unit vector.
    """

    component: int
    share: float
    before: float
    after: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two baselines.

    distance: radians between the centres. noise: the root mean square of it for two learnings of one
        state, from above. moved: whether it is beyond; p_value: of no move.
    variance_ratio: Fréchet variance after over before, with its 95 % interval.
    metrics: those that both baselines have. missing: those that only one has.
    components: those that moved, the largest share first; empty where the centre did not move.
    conclusive: False where too few independent values stand behind the centres to say they are alike.
    sentences: one per change, for a person; empty where nothing changed.
    """

    distance: float
    noise: float
    p_value: float
    moved: bool
    variance_ratio: float | None
    variance_low: float | None
    variance_high: float | None
    metrics: tuple[MetricChange, ...]
    missing: tuple[str, ...]
    components: tuple[ComponentChange, ...]
    conclusive: bool
    sentences: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the centre or a metric changed."""
        return self.moved or any(metric.changed for metric in self.metrics)


def compare(earlier: Baseline, later: Baseline, *, level: float = LEVEL) -> Comparison:
    """How two baselines of one host differ.

    level: chance of naming any change, of metrics or centre, where there is none (Holm 1979); raising
        it names smaller changes, and more that are none.

    Effective counts: n(1 − ρ)/(1 + ρ) of a first-order autoregression. The basin's own ρ is not stored:
    it is the root of drift's, for drift is even in the deviations. Each ρ is taken one standard error
    larger than estimated, so that `noise` errs upwards, by a third for 300 independent snapshots. The
    squared distance of the centres is compared with χ²_ν/ν times its expectation, ν by Satterthwaite
    from mean and sd of drift. Drift is measured from a centre learned from the same rows, which makes it
    too small by √(1 − 1/n); where drift and variances are compared, that is put right.

    Raises BaselineError where geometry or dim differ, ValueError for a level outside (0, 1).
    """
    if (earlier.geometry, earlier.dim) != (later.geometry, later.dim):
        raise BaselineError(
            f"expected baselines of one geometry and dim, got {earlier.geometry}, {earlier.dim} and "
            f"{later.geometry}, {later.dim}; compare baselines of one host and one estimator"
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"level: expected a probability above 0 and below 1, got {level!r}")
    counts = tuple(_independent_basins(each) for each in (earlier, later))
    way = distance(earlier.point, later.point, earlier.geometry)
    noise = sum(
        _unbiased(each.variance, count) / count for each, count in zip((earlier, later), counts, strict=True)
    )
    told = min(counts) >= FEWEST
    p_centre = _tail(way * way, noise, min(_freedom(earlier), _freedom(later))) if told else 1.0
    shared = [name for name in METRICS if name in earlier.bands and name in later.bands]
    found = [
        _metric(name, earlier.bands[name], later.bands[name], counts if name == "basin_drift" else None)
        for name in shared
    ]
    p_values = [p_centre, *(metric.p_value for metric in found)]
    beyond = [p <= at for p, at in zip(p_values, holm(p_values, level), strict=True)]
    metrics = tuple(
        msgspec.structs.replace(metric, changed=yes) for metric, yes in zip(found, beyond[1:], strict=True)
    )
    components = _components(earlier, later, counts, level) if beyond[0] else ()
    ratio, low, high = _variances(earlier, later, counts)
    comparison = Comparison(
        distance=way,
        noise=math.sqrt(noise),
        p_value=p_centre,
        moved=beyond[0],
        variance_ratio=ratio,
        variance_low=low,
        variance_high=high,
        metrics=metrics,
        missing=tuple(name for name in METRICS if (name in earlier.bands) != (name in later.bands)),
        components=components,
        conclusive=told,
        sentences=(),
    )
    return msgspec.structs.replace(comparison, sentences=tuple(_sentences(comparison)))


def _likely(band: Band) -> float:
    """Autocorrelation as large as it may well be: its bias put right (Marriott & Pope 1954), one error more."""
    own = max(band.autocorrelation, 0.0)
    return own + (1.0 + 4.0 * own) / band.count + 1.0 / math.sqrt(band.count)


def _independent(count: float, rho: float) -> float:
    """How many independent values tell a mean as well as `count` values of this autocorrelation."""
    rho = min(rho, 0.999)
    return max(count * (1.0 - rho) / (1.0 + rho), 1.0)


def _independent_basins(baseline: Baseline) -> float:
    return _independent(baseline.count, math.sqrt(_likely(baseline.bands["basin_drift"])))


def _freedom(baseline: Baseline) -> float:
    """Degrees of freedom of a squared drift: 2 E²/Var, of a χ² by the delta method E²/(2 sd²) of its root."""
    drift = baseline.bands["basin_drift"]
    most = float(max(baseline.dim - 1, 1))
    return min(max(drift.mean**2 / (2.0 * drift.sd**2), 1.0), most) if drift.sd > 0.0 else most


def _tail(square: float, expected: float, freedom: float) -> float:
    """P(expected · χ²_ν/ν ≥ square), by the cube root of Wilson & Hilferty (1931)."""
    if expected <= 0.0:
        return 0.0 if square > 1e-24 else 1.0
    spread = 2.0 / (9.0 * freedom)
    z = ((square / expected) ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _unbiased(square: float, count: float) -> float:
    """A mean squared distance from the mean of `count` independent values, as from the true centre."""
    return square / (1.0 - 1.0 / count) if count > 1.0 else square


def _metric(name: str, before: Band, after: Band, about: tuple[float, ...] | None) -> MetricChange:
    """about: for drift, the independent basins behind each centre that it was measured from."""
    step = after.mean - before.mean
    if about is not None:
        step = after.mean * math.sqrt(_unbiased(1.0, about[1])) - before.mean * math.sqrt(
            _unbiased(1.0, about[0])
        )
    counts = [
        # Of overlapping stretches autocorrelation tells most; no fewer than a tenth are independent of it.
        _independent(band.count / STRETCH if name == "memory" else band.count, _own(name, band))
        for band in (before, after)
    ]
    common = math.sqrt(0.5 * (before.sd**2 + after.sd**2))
    parts = [band.sd**2 / count for band, count in zip((before, after), counts, strict=True)]
    error = math.sqrt(sum(parts))
    difference: float | None = None
    reach: float | None = None
    p_value = 1.0
    if before.constant and after.constant:
        p_value = 1.0 if abs(step) <= 1e-9 * max(abs(before.mean), abs(after.mean)) else 0.0
    elif min(n for n, band in zip(counts, (before, after), strict=True) if not band.constant) >= FEWEST:
        # Welch & Satterthwaite; a constant side adds neither variance nor doubt.
        freedom = sum(parts) ** 2 / sum(
            part**2 / (count - 1.0) for part, count in zip(parts, counts, strict=True) if part > 0.0
        )
        whole = min(max(int(freedom), 1), 1_000_000)
        p_value = 2.0 * t_tail(abs(step) / error, whole)
        difference = step / common
        reach = t_quantile(0.5 * (1.0 - CONFIDENCE), whole) * error / common
    return MetricChange(
        metric=name,
        mean_before=before.mean,
        mean_after=after.mean,
        sd_before=before.sd,
        sd_after=after.sd,
        difference=difference,
        low=None if difference is None or reach is None else difference - reach,
        high=None if difference is None or reach is None else difference + reach,
        p_value=min(p_value, 1.0),
        changed=False,
    )


def _own(name: str, band: Band) -> float:
    """The autocorrelation that counting every tenth stretch leaves."""
    if name != "memory":
        return _likely(band)
    return max(band.autocorrelation, 0.0) ** STRETCH


def _components(
    earlier: Baseline, later: Baseline, counts: tuple[float, ...], level: float
) -> tuple[ComponentChange, ...]:
    step: FloatArray = np.subtract(later.basin, earlier.basin)
    error = np.square(earlier.component_sd) / counts[0] + np.square(later.component_sd) / counts[1]
    excess = np.maximum(step**2 - error, 0.0)
    total = float(excess.sum())
    scores = np.abs(step) / np.sqrt(np.maximum(error, 1e-300))
    tails = [math.erfc(float(score) / math.sqrt(2.0)) for score in scores]
    before, after = earlier.point, later.point
    moved = [
        ComponentChange(
            component=i, share=float(excess[i]) / total, before=float(before[i]), after=float(after[i])
        )
        for i, at in enumerate(holm(tails, level))
        if tails[i] <= at and excess[i] > 0.0
    ]
    return tuple(sorted(moved, key=lambda each: -each.share))


def _variances(
    earlier: Baseline, later: Baseline, counts: tuple[float, ...]
) -> tuple[float | None, float | None, float | None]:
    """The ratio of Fréchet variances and its interval: normal in the logarithm, by the delta method."""
    if earlier.variance <= 0.0 or later.variance <= 0.0:
        return None, None, None
    power = 0.0
    for baseline in (earlier, later):
        drift = baseline.bands["basin_drift"]
        seen = _independent(drift.count, _likely(drift))
        power += 2.0 / (_freedom(baseline) * max(seen - 1.0, 1.0))
    reach = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE) * math.sqrt(power)
    log = math.log(_unbiased(later.variance, counts[1]) / _unbiased(earlier.variance, counts[0]))
    return math.exp(log), math.exp(log - reach), math.exp(log + reach)


def _sentences(found: Comparison) -> list[str]:
    said = []
    if found.moved:
        where = ", ".join(f"{each.component} ({each.share:.0%})" for each in found.components[:5])
        more = f" and {len(found.components) - 5} more" if len(found.components) > 5 else ""
        said.append(
            f"the centre moved by {found.distance:.3g} rad, where two learnings of one state lie "
            f"{found.noise:.2g} apart" + (f"; components {where}{more}" if where else "")
        )
    for metric in found.metrics:
        if not metric.changed:
            continue
        name, unit = _NAMES.get(metric.metric, metric.metric), _UNITS.get(metric.metric, "")
        size = (
            f" ({metric.difference:+.2g} sd, 95 %: {metric.low:.2g} to {metric.high:.2g})"
            if metric.difference is not None
            else ""
        )
        verb = "rose" if metric.mean_after > metric.mean_before else "fell"
        if metric.metric == "basin_drift" and found.variance_ratio is not None:
            size += f"; Fréchet variance × {found.variance_ratio:.3g}"
        said.append(f"{name} {verb} from {metric.mean_before:.4g} to {metric.mean_after:.4g}{unit}{size}")
    return said
