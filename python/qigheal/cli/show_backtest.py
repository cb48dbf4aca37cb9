"""What `qigheal backtest` prints. Labels of events are text of others: never markup, never obeyed."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from qigcore.durations import worded
from qigheal.backtest.poisson import sentence
from qigheal.backtest.records import Backtest, ByChange, Detection, FalseAlarms, Outcome, Raised
from qigheal.cli.show import _damage, _table, _when, console, document, escape, line

SHOWN = 12
"""Alarms of one setting that a person is shown; --json has up to 1,000."""

MOST_EVENTS = 40


def backtest(found: Backtest, picture: Path | None, *, json: bool) -> None:
    if json:
        document(found)
        return
    if not found.snapshots:
        line("no snapshots are stored here in that time")
        return
    _head(found)
    _settings(found)
    for outcome in found.outcomes:
        if isinstance(outcome.variant, ByChange):
            line(sentence(outcome.false, outcome.name, marked=bool(found.marks)))
    if found.marks:
        _events(found)
    for outcome in found.outcomes:
        _alarms(outcome, found)
    if len(found.outcomes) > 1:
        line(
            "A setting that was chosen on this past looks better on it than it is: check it on a part of the "
            "history that it was not chosen on (--start, --end)."
        )
    if picture is not None:
        line(f"drawn in {picture}")


def _head(found: Backtest) -> None:
    gaps = f", {found.gaps} gaps left out" if found.gaps else ""
    line(
        f"{found.snapshots:,} snapshots from {_when(found.first)} to {_when(found.last)}: "
        f"{worded(found.watched_s) if found.watched_s else 'no time'} watched{gaps}"
    )
    if found.learned is not None:
        learned = found.learned
        line(
            f"learned from {learned.snapshots:,} snapshots from {_when(learned.start)} to "
            f"{_when(learned.end)}; none of them is replayed"
        )
    if found.kind == "nominal":
        line(f"  note     the detector's rates are nominal: {'; '.join(found.doubts) or 'see the baseline'}")
    for note in found.notes:
        line(f"  note     {note}")
    if found.damage is not None:
        _damage(found.damage)


def _settings(found: Backtest) -> None:
    events = ["events found", "median delay"] if found.marks else []
    table = _table(
        "setting",
        "alarms",
        "critical",
        "time in alarm",
        *events,
        "false" if found.marks else "all",
        "a day (95 %)",
    )
    for outcome in found.outcomes:
        cells = [
            escape(outcome.name),
            str(outcome.alarms),
            str(outcome.critical),
            _duration(outcome.in_alarm_s),
        ]
        if found.marks:
            cells += [_detected(outcome), _delay(outcome)]
        table.add_row(*cells, str(outcome.false.count), _rate(outcome.false))
    console.print(table)


def _detected(outcome: Outcome) -> str:
    states = [each.state for each in outcome.detections]
    seen = sum(state != "unseen" for state in states)
    already = states.count("already")
    return f"{states.count('detected')} of {seen}" + (f", {already} in alarm before" if already else "")


def _delay(outcome: Outcome) -> str:
    delays = [each.delay_snapshots for each in outcome.detections if each.delay_snapshots is not None]
    return f"{median(delays):g} snapshots" if delays else ""


def _rate(found: FalseAlarms) -> str:
    if found.per_day is None:
        return ""
    low, high = found.per_day_low or 0.0, found.per_day_high or 0.0
    return f"{_number(found.per_day)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 100.0 else f"{value:.0f}"


def _events(found: Backtest) -> None:
    within = f"an alarm counts until {_duration(found.within_s)} after the end"
    table = _table("event", "began", "setting", "alarm after", "critical after", title=f"Events ({within})")
    for index, mark in enumerate(found.marks[:MOST_EVENTS]):
        for first, outcome in enumerate(found.outcomes):
            table.add_row(
                "" if first else escape(mark.label or f"event {index + 1}"),
                "" if first else _when(mark.start),
                escape(outcome.name),
                *_met(outcome.detections[index]),
            )
    console.print(table)
    if len(found.marks) > MOST_EVENTS:
        line(f"  and {len(found.marks) - MOST_EVENTS} more events")


def _met(detection: Detection) -> tuple[str, str]:
    if detection.state == "unseen":
        return "no snapshots then", ""
    critical = "" if detection.critical_s is None else _duration(detection.critical_s)
    if detection.delay_s is None:
        return "in alarm before it began" if detection.state == "already" else "missed", critical
    return f"{_duration(detection.delay_s)} ({detection.delay_snapshots} snapshots)", critical


def _alarms(outcome: Outcome, found: Backtest) -> None:
    if not outcome.alarms:
        return
    table = _table("raised", "severity", "lasted", "event", "why", title=outcome.name)
    for raised in outcome.raised[:SHOWN]:
        lasted = "to the end" if raised.ended_at is None else _duration(raised.ended_at - raised.timestamp)
        names = [found.marks[index].label or f"event {index + 1}" for index in raised.marks]
        table.add_row(
            _when(raised.timestamp), raised.severity, lasted, escape(", ".join(names)), escape(_why(raised))
        )
    console.print(table)
    if outcome.alarms > SHOWN:
        line(f"  and {outcome.alarms - SHOWN:,} more")


def _why(raised: Raised) -> str:
    alarm = raised.alarm
    if alarm is None:
        return ", ".join(raised.findings)
    moved = [f"{each.metric} {each.shift:+.1f} sd" for each in alarm.metrics]
    parts = [f"{each.index} ({each.share:.0%})" for each in alarm.components[:4]]
    if parts:
        moved.append(f"component{'' if len(parts) == 1 else 's'} {', '.join(parts)}")
    return f"{alarm.test}, {alarm.kind}: {'; '.join(moved)}"


def _duration(seconds: float) -> str:
    return worded(seconds) if seconds > 0.0 else "0 s" if seconds == 0.0 else f"{seconds:.2g} s"
