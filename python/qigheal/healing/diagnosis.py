"""What is wrong with a service, read from its history, and what healthy means for a trial.

Judges with the rules that the service itself applies. Nothing here opens a store, looks into the
repository, or knows what could be done about a finding.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qigcore.baseline import Baseline
from qigcore.rows import METRICS, Batch
from qigcore.rules import LOOK_BACK, MIN_SNAPSHOTS, RuleSet
from qigcore.trends import slope
from qigheal.health import assess, replay
from qigheal.records import SEVERITIES, BandOf, Diagnosis, Finding, Target

RUNNING: Final = 5
"""Code that none of so many last snapshots is of has left the service."""

UNSEEN_ERRORS: Final = BandOf(mean=0.0, sd=0.002, low=0.0, high=0.006)
"""Band of an error rate of which nothing was learned: that of one which never left 0."""

Positions = npt.NDArray[np.intp]


def target_of(baseline: Baseline) -> Target:
    """Healthy, as strategies aim at it and the judge and the watch score against it.

    Signals that were constant while the baseline was learned are left out: they say nothing of how
    much they may vary. Errors and memory growth are always there. A healthy service's errors are constant at
    0, and it is told of by the edge of the learned band all the same, so that trial, judge and watch go by
    that edge too; that healthy memory does not grow at all is the rule.
    """
    bands = {
        metric: BandOf(
            mean=band.mean, sd=band.sd, low=band.low, high=band.high, autocorrelation=band.autocorrelation
        )
        for metric, band in baseline.bands.items()
        if not band.constant or metric == "memory"
    }
    return Target(
        geometry=baseline.geometry,
        basin=baseline.basin,
        drift_limit=baseline.drift_limit,
        bands={"errors": _steady_errors(baseline), **bands},
    )


def _steady_errors(baseline: Baseline) -> BandOf:
    """The band of an error rate that did not move; a spread that was not seen is that of its floor."""
    band = baseline.bands.get("errors")
    if band is None:
        return UNSEEN_ERRORS
    floor = max(band.high - band.mean, band.mean - band.low) / 3
    return BandOf(mean=band.mean, sd=floor, low=band.low, high=band.high)


def diagnose(batch: Batch, baseline: Baseline, ruleset: RuleSet, *, window: int = 50) -> Diagnosis | None:
    """What is wrong now; None when the service is healthy, has recovered, or cannot be judged yet.

    batch: the history's snapshots in time order, drift measured against `baseline`. Only those of
        the code deployed last are judged: what older code did would dilute it.
    window: of the snapshots since it is unwell, how many of the last make the means in `observed`.

    `metrics` puts critical ones before warnings, and then what lies further out of its band first.
    Where nothing but "cannot be measured" was found it is ("measurement",), which no strategy heals:
    the host has to report usable values first. `healthy_code_hash` is the code of the last snapshots
    found healthy before, which is the present code when that was healthy for a while.
    """
    run = _newest_run(batch.code)
    judged = batch.take(run)
    report = assess(judged.heads(), judged.basin_coords, ruleset, baseline, len(judged))
    if not report.findings:
        return None
    severities = replay(judged, ruleset)
    healthy = np.flatnonzero(severities == 0)
    start = int(healthy[-1]) + 1
    if start < MIN_SNAPSHOTS:
        start = 0  # unwell from the first moment at which that can be told, so nothing before was not
    ill = judged.take(slice(max(start, len(judged) - window), None))
    observed = _observed(ill)
    return Diagnosis(
        metrics=_worst_first(report.findings, observed, baseline),
        findings=report.findings,
        severity=report.severity,
        target=target_of(baseline),
        observed=observed,
        code_hash=judged.names[int(judged.code[-1])],
        healthy_code_hash=_last_healthy(batch, ruleset, run),
        since=float(judged.timestamp[start]),
        snapshots=len(ill),
    )


def well(batch: Batch, baseline: Baseline, *, window: int = 50) -> Diagnosis:
    """The diagnosis that finds nothing: what a trial on a healthy service is measured against.

    batch: as for `diagnose`; an empty one, of a service that has recorded nothing, is one too.
    """
    judged = batch.take(_newest_run(batch.code)[-window:])
    code = judged.names[int(judged.code[-1])] if len(judged) else ""
    return Diagnosis(
        metrics=(),
        findings=(),
        severity="normal",
        target=target_of(baseline),
        observed=_observed(judged),
        code_hash=code,
        healthy_code_hash=code,
        since=None,
        snapshots=len(judged),
    )


def _newest_run(codes: npt.NDArray[np.uint16]) -> Positions:
    """Where the code deployed last has run without a break.

    It is the one of those still running that appeared last. Several workers change over one by one,
    so that snapshots of other code in between do not break its run unless there are many in a row.
    """
    if not len(codes):
        return np.empty(0, np.intp)
    newest = max(np.unique(codes[-RUNNING:]), key=lambda code: int(np.argmax(codes == code)))
    places = np.flatnonzero(codes == newest)
    breaks = np.flatnonzero(np.diff(places) > LOOK_BACK)
    return places[breaks[-1] + 1 :] if len(breaks) else places


def _last_healthy(batch: Batch, ruleset: RuleSet, run: Positions) -> str:
    """Code of the last snapshots that were healthy, in `run` or before it; "" when none were.

    Each run of one code is judged by itself, as windows across a deploy mix two. Its first snapshots
    show nothing yet, so that healthy means a look-back's worth of clean windows in a row.
    """
    left = np.arange(len(batch))
    while len(run):
        judged = batch.take(run)
        if _was_clean(replay(judged, ruleset)):
            return judged.names[int(judged.code[0])]
        left = np.setdiff1d(left, run)
        run = left[_newest_run(batch.code[left])]
    return ""


def _was_clean(severities: npt.NDArray[np.uint8]) -> bool:
    clean = severities[MIN_SNAPSHOTS - 1 :] == 0
    return len(clean) >= LOOK_BACK and bool(
        (np.convolve(clean, np.ones(LOOK_BACK, int), "valid") == LOOK_BACK).any()
    )


def _observed(ill: Batch) -> dict[str, float]:
    """Mean of each metric over what was measured of it; of memory the growth, MB per snapshot."""
    found: dict[str, float] = {}
    for metric, column in METRICS.items():
        values = ill.values(metric)
        if metric == "memory":
            if len(values) >= MIN_SNAPSHOTS:
                found[metric] = slope(np.where(ill.good(column), ill.memory_mb, np.nan)).slope
        elif len(values):
            found[metric] = float(values.mean())
    return found


def _worst_first(
    findings: tuple[Finding, ...], observed: dict[str, float], baseline: Baseline
) -> tuple[str, ...]:
    def weight(finding: Finding) -> tuple[int, float]:
        value = observed.get(finding.metric, finding.value)
        return SEVERITIES.index(finding.severity), _excess(finding, value, baseline)

    ordered = sorted((f for f in findings if f.metric in METRICS), key=weight, reverse=True)
    return tuple(dict.fromkeys(finding.metric for finding in ordered)) or ("measurement",)


def _excess(finding: Finding, value: float, baseline: Baseline) -> float:
    """How far out of its band a metric lies, in half-widths; of one without a band, in limits."""
    if finding.metric == "basin_drift":
        return max(0.0, value / baseline.drift_limit - 1.0)
    band = baseline.bands.get(finding.metric)
    if band is None:
        return abs(value - finding.limit) / max(abs(finding.limit), 1e-9)
    return BandOf(mean=band.mean, sd=band.sd, low=band.low, high=band.high).excess(value)
