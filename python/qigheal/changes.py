"""What the sequential tests say of a service, as part of its health report.

The tests are `qigcore.detectors`; when a service is unwell is `health`'s to say. A change is told as a
finding while it is new. One that stays while every figure keeps to its band is no fault that anybody could
mend: after `SETTLED` snapshots it becomes a note, until the state is back or a new baseline is learned.
Service and command line both come here. No ring, no file and no clock enters.
"""

from __future__ import annotations

import msgspec

from qigcore.baseline import Baseline
from qigcore.detectors import Alarm, ChangeDetector
from qigcore.errors import BaselineError, InvalidLimit
from qigcore.rows import Batch
from qigheal.health import with_finding
from qigheal.records import Departure, Finding, HealthReport, Share
from qigheal.settings import MonitorSettings

SETTLED = 100
"""Snapshots after its alarm for which a change within all bands is a finding."""

UNTIMED = 1e4
"""Snapshots between false alarms where the baseline does not know how long a snapshot takes."""


def detector_for(baseline: Baseline, settings: MonitorSettings) -> tuple[ChangeDetector | None, str]:
    """(The detector that a monitor of these settings has, why there is none or what is to be known of it)."""
    if settings.false_alarm_every is None:
        return None, ""
    try:
        return ChangeDetector(baseline, false_alarm_every=settings.false_alarm_every), ""
    except BaselineError as error:
        return None, f"changes are not looked for: {error}"
    except InvalidLimit as error:
        if baseline.calibration is None or baseline.calibration.interval_s is None:
            told = f"the time between snapshots is not known: one false alarm in {UNTIMED:,.0f} snapshots"
            return ChangeDetector(baseline, average_run_length=UNTIMED), told
        # Service and setting do not fit one another; a host that records is not to be told by an exception.
        return None, f"changes are not looked for: {error}"


def found_in(batch: Batch, baseline: Baseline, settings: MonitorSettings) -> tuple[Alarm | None, int, str]:
    """(The change in force after a batch in time order, snapshots since its alarm, what is to be known)."""
    detector, told = detector_for(baseline, settings)
    if detector is None:
        return None, 0, told
    detector.scan(batch)
    current = detector.current
    return current, 0 if current is None else detector.rows - 1 - current.row, told


def with_change(report: HealthReport, alarm: Alarm | None, age: int) -> HealthReport:
    """The report with a change that is in force. `age`: snapshots since its alarm.

    While it is new, or other findings speak of the same time, it is a finding: a warning, and critical where
    the bounded tests have confirmed it and a figure has left its band. Else it is a note.
    """
    if alarm is None:
        return report
    change = Departure(
        kind=alarm.kind,
        confirmed=alarm.severity == "critical",
        since=alarm.onset_timestamp,
        found=alarm.timestamp,
        snapshots=age,
        components=tuple(Share(index=each.index, share=each.share) for each in alarm.components),
        metrics={moved.metric: moved.shift for moved in alarm.metrics},
        statistic=alarm.statistic,
    )
    message = _message(alarm)
    if age >= SETTLED and not report.findings:
        note = f"{message}; every figure keeps to its band: set_baseline() would take the present state for healthy"
        return msgspec.structs.replace(report, change=change, notes=(*report.notes, note))
    finding = Finding(
        kind="change",
        metric=_metric(alarm),
        value=alarm.statistic,
        limit=1.0,
        severity="critical" if change.confirmed and report.findings else "warning",
        message=message,
        since=alarm.onset_timestamp,
        snapshots=age + alarm.delay,
        components=change.components,
    )
    return msgspec.structs.replace(with_finding(report, finding), change=change)


def _metric(alarm: Alarm) -> str:
    """The figure that the change is told under: the one that moved most, else the drift."""
    return alarm.metrics[0].metric if alarm.metrics else "basin_drift"


_NAMES = {"phi": "Φ", "kappa": "κ", "basin_drift": "drift"}


def _message(alarm: Alarm) -> str:
    """What has changed, in words."""
    parts = [f"{_NAMES.get(moved.metric, moved.metric)} by {moved.shift:+.1f} sd" for moved in alarm.metrics]
    if alarm.components:
        parts.append("components " + ", ".join(str(each.index) for each in alarm.components))
    what = "; ".join(parts) if parts else "the state as a whole"
    sure = {"bounded": "confirmed", "nominal": "confirmed, nominal rate"}[alarm.kind]
    return (
        f"changed from the baseline ({sure if alarm.severity == 'critical' else 'not yet confirmed'}): {what}"
    )
