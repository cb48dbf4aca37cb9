"""What the snapshots of a store say, as documents: health, snapshots, trends, state.

A store that is missing, empty or damaged gives a document that says so. Nothing is written, and nothing of
healing is known here.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from qigcore import geometry
from qigcore.baseline import Baseline
from qigcore.errors import QigcoreError
from qigcore.history import Damage, History
from qigcore.rows import METRICS, REGIMES, REPAIRABLE, Batch, FloatArray
from qigcore.trends import TimeTo, Trend
from qigheal.api.records import (
    Health,
    Range,
    Snapshot,
    Snapshots,
    State,
    Status,
    TimeToLimit,
    TrendOf,
    Trends,
)
from qigheal.errors import QighealError
from qigheal.health import remeasure, rules_for
from qigheal.records import HealthReport
from qigheal.settings import MonitorSettings
from qigheal.standing import LOOKED_AT, Standing, unread

UNREADABLE: Final = (QigcoreError, QighealError, OSError, ValueError)
"""What reading a store may raise, whatever lies there; ValueError: rows of another shape than the baseline."""

CODES: Final[dict[Status, int]] = {"learning": 200, "healthy": 200, "warning": 207, "critical": 503}
CALLED: Final = {"phi": "Φ", "kappa": "κ", "basin_drift": "drift", "errors": "error rate"}
LATE_S: Final = 5.0
"""Beyond the time after which a worker writes what it has recorded: what that may take on a slow disk."""

ROUNDING_S: Final = 0.001
"""More than a store rounds a time by."""

MOST_VALUES: Final = 1_000_000
"""Components on one page; with basins of thousands of them a page has fewer snapshots than `limit`."""

CURRENT: Final = 10
"""Good basins whose mean is the present state."""


def health(store: Path) -> Health:
    standing = Standing(store)
    try:
        read = standing.last()
        report = standing.report(read)
    except UNREADABLE as error:
        return unknown_health(f"nothing can be said yet: {error}")
    times = read.batch.timestamp
    return told_health(report, float(times[-1]) if len(times) else None)


def unknown_health(note: str) -> Health:
    """That of a service of which nothing can be read: as one that has yet to record."""
    return Health(
        status="learning",
        severity="normal",
        healthy=True,
        issues=(),
        findings=(),
        metrics={},
        limits="learning",
        snapshots=0,
        last_at=None,
        notes=(note,),
    )


def told_health(report: HealthReport, last_at: float | None) -> Health:
    status: Status = "learning" if report.state == "learning" else "healthy"
    if report.severity != "normal":
        status = report.severity
    return Health(
        status=status,
        severity=report.severity,
        healthy=report.healthy,
        issues=report.issues,
        findings=report.findings,
        metrics={name: _finite(value) for name, value in report.metrics.items()},
        limits=report.state,
        snapshots=report.snapshots,
        last_at=last_at,
        notes=report.notes,
        change=report.change,
    )


def beside(found: Health, own: HealthReport, last_at: float | None) -> Health:
    """The store's health with what only this process's monitor knows: what it was refused, or cannot write.

    own: the monitor's report, its newest snapshot recorded at `last_at`. Where the store lacks that one, the
    monitor's word is taken: it has just been told to write it, and could not.
    """
    if last_at is not None and (found.last_at is None or last_at - found.last_at > ROUNDING_S):
        found = msgspec.structs.replace(told_health(own, last_at), notes=found.notes)
    known = {finding.kind for finding in found.findings}
    more = tuple(each for each in own.findings if each.kind == "unmeasurable" and each.kind not in known)
    if more:  # of which no row tells
        found = msgspec.structs.replace(
            found,
            status="critical",
            severity="critical",
            healthy=False,
            issues=(*(each.message for each in more), *found.issues),
            findings=(*more, *found.findings),
        )
    notes = (*found.notes, *(note for note in own.notes if not note.startswith("learning")))
    return msgspec.structs.replace(found, notes=tuple(dict.fromkeys(notes)))


def newest(store: Path, limit: int, *, basins: bool) -> Snapshots:
    """The newest snapshots of all workers, oldest first."""
    try:
        with History.read_only(store) as history:
            complete = _complete(history, store)
            batch = _by_time(history.last(_bounded(limit, history, basins=basins)))
            lost = _lost(history.damage)
        batch, note = _remeasured(batch, store)
    except UNREADABLE as error:
        return Snapshots(snapshots=(), next_since=None, notes=(str(error),))
    since = min(float(batch.timestamp[-1]), complete) if len(batch) else None
    return Snapshots(snapshots=told(batch, basins=basins), next_since=since, notes=(*note, *lost))


def after(store: Path, since: float, limit: int, *, basins: bool, skip: int = 0) -> Snapshots:
    """Snapshots later than `since`, oldest first: at most `limit`. With `skip`, also those of that time but so many.

    A page that ends amid snapshots of one time gives that time and how many of it were told as `next_since` and
    `next_skip`. While other workers live, it ends before what one of them may have recorded and not written yet, so
    that whoever follows both misses none.
    """

    def wanted(times: FloatArray) -> Any:
        return times >= since if skip else times > since

    try:
        with History.read_only(store) as history:
            complete = _complete(history, store)
            limit = _bounded(limit, history, basins=basins)
            parts: list[FloatArray] = []
            at_since = later = 0
            for part in history.scan(start=since, columns=("timestamp",)):
                fresh = part.timestamp[wanted(part.timestamp) & (part.timestamp <= complete)]
                parts.append(fresh)
                at_since += int((fresh == since).sum())
                later += int((fresh > since).sum())
                if later + max(0, at_since - skip) >= limit:
                    break
            told_before = min(skip, at_since)
            if later + at_since == told_before:
                return Snapshots(snapshots=(), next_since=since, next_skip=skip, notes=_lost(history.damage))
            times = np.sort(np.concatenate(parts))
            until = float(times[min(told_before + limit, len(times)) - 1])
            # Rows of a clock that was set back may lie beyond those first ones, and are among these.
            found = history.scan(start=since, end=math.nextafter(until, math.inf))
            batch = Batch.concat(found, history.dim)
            lost = _lost(history.damage)
        batch = _by_time(batch.take(wanted(batch.timestamp)))
        told_before = min(skip, int((batch.timestamp == since).sum()))
        page = batch.take(np.arange(told_before, min(told_before + limit, len(batch))))
        if not len(page):  # removed meanwhile, for their age
            return Snapshots(snapshots=(), next_since=since, next_skip=skip, notes=lost)
        last = float(page.timestamp[-1])
        done = int((batch.timestamp[: told_before + len(page)] == last).sum())
        more = done < int((batch.timestamp == last).sum())
        page, note = _remeasured(page, store)
    except UNREADABLE as error:
        return Snapshots(snapshots=(), next_since=since, next_skip=skip, notes=(str(error),))
    return Snapshots(
        snapshots=told(page, basins=basins),
        next_since=last,
        next_skip=done if more else 0,
        notes=(*note, *lost),
    )


def told(batch: Batch, *, basins: bool) -> tuple[Snapshot, ...]:
    """Rows as documents. A figure that no JSON number can say is 0 and named in `repaired`."""
    plain = {name: column.tolist() for name, column in batch.columns.items() if name != "basin_coords"}
    states = batch.basin_coords.tolist() if basins else None
    found = []
    for i in range(len(batch)):
        row: dict[str, Any] = {name: plain[name][i] for name in Snapshot.__struct_fields__ if name in plain}
        flags = row["repaired"]
        row["repaired"] = tuple(name for bit, name in enumerate(REPAIRABLE) if flags >> bit & 1)
        for name in ("phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb"):
            if not math.isfinite(row[name]):
                row[name] = 0.0
                row["repaired"] = tuple(dict.fromkeys((*row["repaired"], name)))
        for name in ("basin_drift", "confidence", "surprise", "agency"):
            row[name] = _finite(row[name])
        state = tuple(states[i]) if states is not None else None
        found.append(
            Snapshot(
                **row
                | {
                    "regime": REGIMES[row["regime"]],
                    "code_hash": batch.names[plain["code"][i]],
                    "module_name": batch.names[plain["module"][i]],
                    "basin": state if state is not None and all(map(math.isfinite, state)) else None,
                }
            )
        )
    return tuple(found)


def trends(store: Path, window: int) -> Trends:
    try:
        found = Standing(store).trends(window)
    except UNREADABLE as error:
        unknown = TrendOf(direction="unknown", slope=None, stderr=None, recent_avg=None, snapshots=0)
        return Trends(window=window, trends=dict.fromkeys(METRICS, unknown), notes=(str(error),))
    return Trends(window=window, trends={metric: _trend(metric, trend) for metric, trend in found.items()})


def state(store: Path, known: MonitorSettings | None = None) -> State:
    """known: the settings of this process's monitor, where there is one; else those that a service left are read."""
    standing = Standing(store)
    notes: list[str] = []
    settings, baseline, current = MonitorSettings(), None, None
    try:
        settings = standing.settings if known is None else known
        baseline = standing.baseline
        rules_for(settings, baseline)
    except UNREADABLE as error:
        baseline = None
        notes.append(str(error))
    kind, dim = settings.geometry, settings.dim
    try:
        with History.read_only(store) as history:
            batch = history.last(LOOKED_AT // 10)
        rows = batch.basin_coords[batch.good("basin_coords")][-CURRENT:]
        if len(rows):
            mean = geometry.frechet_mean(rows, geometry=kind)
            current = geometry.from_amplitudes(mean, kind)
    except UNREADABLE as error:
        notes.append(str(error))
    if current is not None and len(current) != dim:
        notes.append(f"the newest snapshots have {len(current)} components, and the settings say {dim}")
        current = None
    distance, shares = None, None
    if baseline is not None and current is not None:
        distance = geometry.distance(baseline.point, current, kind)
        parts = geometry.contributions(baseline.point, current, kind)
        shares = tuple(parts.tolist()) if np.isfinite(parts).all() else None
    phi_min = rules_for(settings, baseline).edges["phi"][0]
    return State(
        geometry=kind,
        dim=dim,
        learned=baseline is not None,
        learned_from=0 if baseline is None else baseline.count,
        phi_min=settings.phi_min if phi_min is None else float(phi_min),
        drift_limit=settings.basin_drift_max if baseline is None else baseline.drift_limit,
        bands=_bands(baseline),
        distance=distance,
        baseline=None if baseline is None else tuple(baseline.point.tolist()),
        current=None if current is None else tuple(current.tolist()),
        shares=shares,
        notes=(*notes, *(baseline.notes if baseline is not None else ())),
    )


def _bands(baseline: Baseline | None) -> dict[str, Range]:
    if baseline is None:
        return {}
    return {
        name: Range(mean=band.mean, low=band.low, high=band.high) for name, band in baseline.bands.items()
    }


def _trend(metric: str, trend: Trend) -> TrendOf:
    reaches, sentence = trend.reaches, ""
    if reaches is not None:
        name = CALLED.get(metric, metric)
        # What degrades leaves its limit only outwards: the line was beyond from the first on.
        beyond = f"{name} is beyond {reaches.limit:.6g} already"
        sentence = beyond if reaches.course == "away" else reaches.sentence(name)
    return TrendOf(
        direction=trend.direction,
        slope=_finite(trend.slope),
        stderr=_finite(trend.stderr),
        recent_avg=_finite(trend.recent_avg),
        snapshots=trend.snapshots,
        reaches=None if reaches is None else _time_to(reaches),
        sentence=sentence,
    )


def _time_to(reaches: TimeTo) -> TimeToLimit:
    return TimeToLimit(
        limit=reaches.limit,
        course=reaches.course,
        seconds=_finite(reaches.eta_s),
        low=_finite(reaches.low_s),
        high=_finite(reaches.high_s),
    )


def _complete(history: History, store: Path) -> float:
    """Unix seconds up to which every living worker has written what it recorded; ∞ where none but this one lives."""
    now = time.time()
    if all(not each.alive or each.pid == os.getpid() for each in history.segments()):
        return math.inf
    return now - MonitorSettings.load(store).flush_every_s - LATE_S


def _bounded(limit: int, history: History, *, basins: bool) -> int:
    return min(limit, max(1, MOST_VALUES // history.dim)) if basins else limit


def _by_time(batch: Batch) -> Batch:
    """In the order of their times, also where a worker's clock was set back."""
    return batch.take(np.argsort(batch.timestamp, kind="stable"))


def _remeasured(batch: Batch, store: Path) -> tuple[Batch, tuple[str, ...]]:
    """With drift from the baseline; as it was recorded, and why, where the baseline cannot be used."""
    try:
        baseline = Standing(store).baseline
        return (batch if baseline is None or not len(batch) else remeasure(batch, baseline)), ()
    except UNREADABLE as error:
        return batch, (f"drift is as it was recorded: {error}",)


def _lost(damage: Damage) -> tuple[str, ...]:
    told = unread(damage)
    return (told,) if told else ()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
