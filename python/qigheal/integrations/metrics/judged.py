"""Counts degradations and alarms as rows go by, each once, and keeps the newest usable figures.

A severity follows from the last 14 rows alone, so what is counted does not depend on how often one looks.
No ring and no file enters here.
"""

from __future__ import annotations

import msgspec
import numpy as np

from qigcore.rows import HEAD, METRICS, REPAIRABLE, Array, Batch
from qigcore.rules import LOOK_BACK, RuleSet, severities
from qigheal.integrations.metrics.catalogue import KINDS
from qigheal.integrations.metrics.reading import Reading
from qigheal.records import HealthReport

PATIENCE = 5
"""Of a process's mean intervals between snapshots, how many without one until its figures are absent."""

LEAST_S = 60.0
"""Seconds until then at least: rows reach a store within five, and a scrape has an interval of its own."""

UNKNOWN_S = 300.0
"""Seconds until then at least where a process has recorded too few snapshots to tell its interval."""


def interval_s(rows: int, first: float, last: float) -> float | None:
    """Mean seconds between `rows` snapshots from `first` to `last`; None where they are too few to tell."""
    return (last - first) / (rows - 1) if rows >= 3 and last > first else None


def patience_s(own: float | None, usual: float = 0.0) -> float:
    """How old, in seconds, the newest snapshot of a process may be to count as present.

    own: its interval; usual: that of others like it, for one that is too young to have one.
    """
    return max(UNKNOWN_S, PATIENCE * usual) if own is None else max(LEAST_S, PATIENCE * own)


class Latest:
    """The newest value of each metric (keys of `rows.METRICS`) that was not repaired, with its time."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[float, float]] = {}

    def note(self, rows: Batch | Array) -> None:
        """Take up rows in the order of writing: a batch with all columns, or heads, shape [n]."""
        batch = rows if isinstance(rows, Batch) else Batch({name: rows[name] for name in HEAD.names or ()})
        for metric, column in METRICS.items():
            good = np.flatnonzero(batch.good(column))
            if len(good):
                at = good[-1]
                self.values[metric] = float(batch.timestamp[at]), float(batch.columns[column][at])

    def since(self, time: float) -> dict[str, float]:
        """The values whose snapshots are no older than `time`, Unix seconds."""
        return {metric: value for metric, (at, value) in self.values.items() if at >= time}


class Judged:
    """What has been counted of the rows handed over.

    The findings that need more than rows (`change`) are counted when a report shows them and the one before
    did not, so that two within one interval of scraping count once.
    """

    def __init__(self) -> None:
        self.degradations = 0
        self.alarms = dict.fromkeys(KINDS, 0)
        self.invalid = dict.fromkeys(REPAIRABLE, 0)
        self._before: Array = np.empty(0, HEAD)
        self._rules: RuleSet | None = None
        self._by_kind: dict[str, RuleSet] = {}
        self._unwell = False
        self._changed = False

    def begin_after(self, heads: Array) -> None:
        """Rows, shape [n], that went before the first one to be counted."""
        self._before = heads[-LOOK_BACK:].copy()

    def take(self, heads: Array, rules: RuleSet) -> None:
        """Count rows, shape [n] of `rows.HEAD`, under the rules in force."""
        if not len(heads):
            return
        if rules != self._rules:
            self._rules = rules
            kinds = {rule.kind for rule in rules.rules}
            self._by_kind = {
                kind: msgspec.structs.replace(
                    rules, rules=tuple(rule for rule in rules.rules if rule.kind == kind)
                )
                for kind in kinds
            }
        for bit, name in enumerate(REPAIRABLE):
            self.invalid[name] += int(np.count_nonzero(heads["repaired"] & (1 << bit)))
        joined = np.concatenate([self._before, heads])
        known = len(self._before)
        begun, self._unwell = _begun(joined, known, rules)
        self.degradations += begun
        for kind, only in self._by_kind.items():
            if kind in self.alarms:
                self.alarms[kind] += _begun(joined, known, only)[0]
        self._before = joined[-LOOK_BACK:].copy()

    def report(self, report: HealthReport) -> None:
        """Take up what only a report tells: whether a change was found."""
        changed = any(finding.kind == "change" for finding in report.findings)
        if changed and not self._changed:
            self.alarms["change"] += 1
            self.degradations += not self._unwell
        self._changed = changed

    def tell(self, reading: Reading) -> None:
        """Put the counts into a reading, but for the invalid fields."""
        reading.put("geometric_health_degradations_total", self.degradations)
        reading.put_all("geometric_health_alarms_total", self.alarms)


def _begun(heads: Array, known: int, rules: RuleSet) -> tuple[int, bool]:
    """(How often what the rules say began among the rows from `known` on, whether it is so after the last one)."""
    unwell = severities(heads, rules) > 0
    before = np.concatenate([[known > 0 and bool(unwell[known - 1])], unwell[known:-1]])
    return int(np.count_nonzero(unwell[known:] & ~before)), bool(unwell[-1])


def tell_health(reading: Reading, report: HealthReport, rules: RuleSet) -> None:
    """Put a report and the limits that it was made by into a reading."""
    for severity in ("normal", "warning", "critical"):
        reading.put("geometric_health_status", float(report.severity == severity), severity)
    reading.put_all("geometric_health_finding", {finding.kind: 1.0 for finding in report.findings})
    tell_limits(reading, rules)


def tell_limits(reading: Reading, rules: RuleSet) -> None:
    """Put the limits in force into a reading."""
    reading.put("geometric_health_phi_limit", rules.edges["phi"][0])
    reading.put("geometric_health_basin_drift_limit", rules.edges["basin_drift"][1])
    reading.put("geometric_health_baseline_learned", float(rules.state == "learned"))


def tell_figures(reading: Reading, processes: list[dict[str, float]]) -> None:
    """Put the newest figures of the processes that record into a reading, by metric: means, and memory's sum."""
    reading.put("geometric_health_writers", len(processes))

    def of(metric: str) -> list[float]:
        return [figures[metric] for figures in processes if metric in figures]

    for name, metric, scale in (
        ("geometric_health_phi", "phi", 1.0),
        ("geometric_health_kappa", "kappa", 1.0),
        ("geometric_health_basin_drift", "basin_drift", 1.0),
        ("geometric_health_error_ratio", "errors", 1.0),
        ("geometric_health_latency_seconds", "latency", 1e-3),
    ):
        if values := of(metric):
            reading.put(name, scale * float(np.mean(values)))
    if values := of("memory"):
        reading.put("geometric_health_memory_bytes", 1e6 * sum(values))
