"""From the last snapshots to a `HealthReport`: rules in words, with the components that moved.

Pure functions. The service calls them on its ring and the healer on batches of the history, and
they come to the same findings. No ring, no file and no clock enters here.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore import geometry
from qigcore.baseline import Baseline
from qigcore.constants import KAPPA_STAR
from qigcore.errors import BaselineError, InvalidBasin
from qigcore.rows import BIT, METRICS, Array, Batch, FloatArray
from qigcore.rules import (
    HOLD,
    LOOK_BACK,
    MIN_SNAPSHOTS,
    SEVERITY,
    UNMEASURABLE,
    Fired,
    RuleSet,
    absolute_rules,
    evaluate,
    learned_rules,
    severities,
    summary,
)
from qigcore.trends import Trend, time_to, trend
from qigheal.records import SEVERITIES, Finding, HealthReport, Share
from qigheal.settings import MonitorSettings

COMPONENTS_NAMED = 5
"""How many of the components that moved a finding names."""

LAST_GOOD = 10
"""Basins whose mean is compared with the baseline to name them."""

TEN = (1 << MIN_SNAPSHOTS) - 1
"""The last ten attempts to record, as bits."""


def rules_for(settings: MonitorSettings, baseline: Baseline | None) -> RuleSet:
    """The rules in force: the baseline's bands once there is one, the absolute limits before.

    Raises BaselineError when the baseline is of another geometry or dimension.
    """
    if baseline is None:
        return absolute_rules(
            phi_min=settings.phi_min,
            drift_max=settings.basin_drift_max,
            kappa_tolerance=settings.kappa_tolerance,
            error_rate_max=settings.error_rate_max,
            latency_max_ms=settings.latency_max_ms,
            memory_growth_max_mb=settings.memory_growth_max_mb,
        )
    if (baseline.geometry, baseline.dim) != (settings.geometry, settings.dim):
        raise BaselineError(
            f"expected a baseline of the {settings.geometry} with {settings.dim} components, as the monitor "
            f"records them, got one of the {baseline.geometry} with {baseline.dim}"
        )
    return learned_rules(
        baseline,
        drift_ceiling=settings.basin_drift_max,
        error_rate_max=settings.error_rate_max,
        latency_max_ms=settings.latency_max_ms,
    )


def failing(baseline: Baseline, error_rate_max: float) -> bool:
    """Whether the service failed more often than that while the baseline was learned. A fraction, 0 to 1."""
    band = baseline.bands.get("errors")
    return band is not None and band.mean > error_rate_max


def remeasure(batch: Batch, baseline: Baseline) -> Batch:
    """The batch with `basin_drift` measured from the baseline, radians.

    What a history holds was measured from whatever reference its writer had at the time.
    Raises InvalidBasin for a batch of another dimension, or with a state outside the baseline's geometry.
    """
    drift = geometry.distances(batch.basin_coords, baseline.point, baseline.geometry)
    return Batch({**batch.columns, "basin_drift": drift}, batch.names)


def replay(batch: Batch, ruleset: RuleSet) -> npt.NDArray[np.uint8]:
    """Severity at every snapshot of a batch in time order, shape [n]: 0 normal, 1 warning, 2 critical."""
    return severities(batch.heads(), ruleset)


def assess(
    heads: Array,
    basins: FloatArray | None,
    ruleset: RuleSet,
    baseline: Baseline | None,
    total: int,
    notes: tuple[str, ...] = (),
    fired: tuple[Fired, ...] | None = None,
) -> HealthReport:
    """The state of the host after its last snapshots.

    heads: shape [n] of `rows.HEAD`, oldest first. The last 14 decide; more of them tell how long a
        finding has lasted.
    basins: shape [m, dim], those of the last m heads; 14 suffice. None: no components are named.
    total: snapshots recorded so far, of which `heads` are the last.
    fired: what `evaluate(heads, ruleset)` gave, where the caller knows it already.

    `metrics` are means over the last 10 snapshots, repaired values left out (NaN when nothing is
    usable), and the number of them in breakdown. Of several rules of one kind that fire, the most
    severe is reported. Worst findings come first.
    """
    phi, kappa, drift, errors, latency, memory, breakdowns = summary(heads)
    if fired is None:
        fired = evaluate(heads, ruleset)
    findings = _findings(fired, heads, basins, baseline) if fired else ()
    return HealthReport(
        healthy=not findings,
        severity=findings[0].severity if findings else "normal",
        issues=tuple([finding.message for finding in findings]),
        findings=findings,
        metrics={
            "phi": phi,
            "kappa": kappa,
            "basin_drift": drift,
            "error_rate": errors,
            "latency_ms": latency,
            "memory_mb": memory,
            "breakdown_count": breakdowns,
        },
        state="learning" if total < MIN_SNAPSHOTS else ruleset.state,
        snapshots=total,
        notes=notes if total >= MIN_SNAPSHOTS else (_learning(total), *notes),
    )


def unseen(report: HealthReport, refusals: tuple[int, int, float, int]) -> HealthReport:
    """The report of a host whose newest snapshots were refused (on_invalid="raise"), of which no row tells.

    refusals: those of `qigcore.recorder.Recorder.refusals`. As with repaired ones, more than 3 of 10 are
    critical, until five in a row leave it at that; healthy before is not healthy now.
    """
    bits, attempts, since, lasted = refusals
    counts = [(bits >> k & TEN).bit_count() for k in range(HOLD) if attempts - k >= MIN_SNAPSHOTS]
    worst = next((count for count in counts if count > UNMEASURABLE), None)
    if worst is None:
        return report
    message = f"unmeasurable, snapshots refused: {worst} > {UNMEASURABLE} of the last {MIN_SNAPSHOTS}"
    finding = Finding(
        kind="unmeasurable",
        metric="measurement",
        value=float(worst),
        limit=float(UNMEASURABLE),
        severity="critical",
        message=message,
        since=since,
        snapshots=lasted,
    )
    return msgspec.structs.replace(
        report,
        healthy=False,
        severity="critical",
        issues=(message, *report.issues),
        findings=(finding, *report.findings),
    )


def with_finding(report: HealthReport, finding: Finding) -> HealthReport:
    """The report with one more thing that is wrong, the worst first."""
    findings = tuple(sorted((*report.findings, finding), key=lambda each: -SEVERITIES.index(each.severity)))
    return msgspec.structs.replace(
        report,
        healthy=False,
        severity=findings[0].severity,
        issues=tuple(each.message for each in findings),
        findings=findings,
    )


def trend_of(
    batch: Batch, metric: str, baseline: Baseline | None = None, rules: RuleSet | None = None
) -> Trend:
    """Which way a metric (a key of `rows.METRICS`) has been going over a batch in time order.

    Repaired values are left out. Higher is better for Φ, lower for drift, latency, errors and memory;
    κ is better the nearer it is to the centre of its healthy band, or to the source document's κ* before one
    is learned. Raises ValueError for another metric.

    rules: those in force. With them, a trend that degrades says when it is at the limit that they set;
        `RuleSet.edges` says which. Without, or for memory, whose limit is of its growth, `reaches` is None.
    """
    column = column_of(metric)
    values = np.where(batch.good(column), batch.columns[column], np.nan)
    found = direction_of(values, metric, baseline)
    if rules is None or found.direction != "degrading":
        return found
    return reaching(found, values, metric, rules, batch.timestamp)


def reaching(found: Trend, values: FloatArray, metric: str, rules: RuleSet, timestamps: FloatArray) -> Trend:
    """A degrading trend with the time at which it is at its limit, from the values, shape [n], that it is of.

    timestamps: shape [n], Unix seconds. κ goes to the edge on the side to which the newest values are off.
    """
    low, high = rules.edges[metric]
    limit = low if metric == "phi" else high
    if metric == "kappa" and low is not None and high is not None and found.recent_avg < (low + high) / 2.0:
        limit = low
    if limit is None:
        return found
    return Trend(
        found.direction,
        found.slope,
        found.stderr,
        found.recent_avg,
        found.snapshots,
        found.autocorrelation,
        time_to(values, limit, None, timestamps),
    )


def column_of(metric: str) -> str:
    """The column that a metric is read from. Raises ValueError for what is no key of `rows.METRICS`."""
    try:
        return METRICS[metric]
    except (KeyError, TypeError):
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}") from None


def direction_of(values: FloatArray, metric: str, baseline: Baseline | None) -> Trend:
    """`trend_of` for values at hand, shape [n], NaN where they were repaired."""
    if metric != "kappa":
        return trend(values, "up" if metric == "phi" else "down")
    band = baseline.bands.get("kappa") if baseline is not None else None
    return trend(values, "toward", KAPPA_STAR if band is None else band.mean)


def _learning(total: int) -> str:
    return f"learning: {total} of the {MIN_SNAPSHOTS} snapshots needed to judge"


def _findings(
    fired: tuple[Fired, ...], heads: Array, basins: FloatArray | None, baseline: Baseline | None
) -> tuple[Finding, ...]:
    worst: dict[str, Fired] = {}
    for each in fired:
        known = worst.get(each.rule.kind)
        if known is None or SEVERITY[each.rule.severity] > SEVERITY[known.rule.severity]:
            worst[each.rule.kind] = each
    made = []
    for each in worst.values():
        rule = each.rule
        components = _moved(heads, basins, baseline) if rule.kind == "drift" else ()
        message = _message(each)
        if rule.kind == "errors" and baseline is not None and failing(baseline, rule.limit):
            message += f" ({100 * baseline.bands['errors'].mean:.1f} % while healthy was learned)"
        if components:
            message += f" (components {', '.join(str(share.index) for share in components)})"
        made.append(
            Finding(
                kind=rule.kind,
                metric=rule.metric,
                value=each.value,
                limit=float(rule.count) if rule.counts else rule.limit,
                severity=rule.severity,
                message=message,
                since=float(heads["timestamp"][each.since_index]),
                snapshots=len(heads) - each.since_index,
                components=components,
            )
        )
    return tuple(sorted(made, key=lambda finding: -SEVERITIES.index(finding.severity)))


def _moved(heads: Array, basins: FloatArray | None, baseline: Baseline | None) -> tuple[Share, ...]:
    """The components that account for most of the way from the baseline to the last good basins."""
    if basins is None or baseline is None:
        return ()
    used = min(len(heads), len(basins), LOOK_BACK)
    good = (heads["repaired"][len(heads) - used :] & BIT["basin_coords"]) == 0
    rows = basins[len(basins) - used :][good][-LAST_GOOD:]
    if not len(rows):
        return ()
    try:
        mean = geometry.from_amplitudes(
            geometry.frechet_mean(rows, geometry=baseline.geometry), baseline.geometry
        )
    except InvalidBasin:  # they surround the sphere, so no state is their mean
        mean = rows[-1]
    shares = geometry.contributions(baseline.point, mean, baseline.geometry)
    top = np.argsort(-shares, kind="stable")[:COMPONENTS_NAMED]
    return tuple(Share(index=int(i), share=float(shares[i])) for i in top if shares[i] > 0.0)


# kind → (what is the matter when critical, when a warning; decimals; scale; unit)
_WORDS = {
    "phi_low": ("Φ degraded", "Φ low", 3, 1.0, ""),
    "phi_high": ("Φ high", "Φ high", 3, 1.0, ""),
    "kappa_off": ("κ off", "κ off", 2, 1.0, ""),
    "drift": ("basin drift", "basin drift rising", 3, 1.0, " rad"),
    "errors": ("error rate", "error rate", 1, 100.0, " %"),
    "latency": ("latency", "latency", 1, 1.0, " ms"),
    "memory": ("memory growing", "memory growing", 1, 1.0, " MB per snapshot"),
    "breakdown": ("regime breakdown", "regime breakdown", 0, 1.0, ""),
    "unmeasurable": ("unmeasurable, values repaired", "unmeasurable, values repaired", 0, 1.0, ""),
}


def _message(fired: Fired) -> str:
    rule = fired.rule
    critical, warning, places, scale, unit = _WORDS[rule.kind]
    what = critical if rule.severity == "critical" else warning
    value, limit = fired.value * scale, rule.limit * scale
    if rule.counts:
        beyond = f" above {_short(limit, places)}{unit}" if rule.kind == "drift" else ""
        return f"{what}: {fired.value:.0f} > {rule.count} of the last {MIN_SNAPSHOTS} snapshots{beyond}"
    while places < 12 and _number(value, places) == _number(limit, places):
        places += 1  # "0.650 < 0.65" would read as a fault of ours
    sign = "<" if rule.side == "below" else ">"
    return f"{what}: {_number(value, places)} {sign} {_short(limit, places)}{unit}"


def _number(value: float, places: int) -> str:
    """With so many decimals, or from a million on with six digits more: at most 18, not 309 of them."""
    return f"{value:.{places}f}" if abs(value) < 1e6 else f"{value:.{places + 6}g}"


def _short(limit: float, places: int) -> str:
    """A limit without trailing zeros, with a digit more than the value beside it."""
    text = _number(limit, places + 1)
    return text.rstrip("0").rstrip(".") if abs(limit) < 1e6 else text
