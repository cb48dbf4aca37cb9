"""Every metric that is exported, with what it means. docs/metrics.md says the same, and a test compares them.

Labels have no values but those that stand here, so that no text from telemetry can become one.
"""

from __future__ import annotations

from typing import Literal, get_args

from qigcore.rows import REPAIRABLE
from qigheal.records import SEVERITIES, ChangeState, Record

Kind = Literal["gauge", "counter", "histogram"]
From = Literal["both", "store"]

FIELDS = (*REPAIRABLE, "timestamp", "module_name")
"""Fields of a snapshot that can be unusable."""

KINDS = (
    "phi_low", "phi_high", "kappa_off", "drift", "breakdown", "errors", "latency", "memory", "unmeasurable",
    "change",
)  # fmt: skip
"""Kinds of findings, as `qigheal.records.Finding` has them."""

DECISIONS = ("improved", "equivalent", "worse", "inconclusive", "refused")
STATES: tuple[str, ...] = get_args(ChangeState)
PARTS = ("history", "health", "ledger")

SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the histograms' buckets; healing takes from tenths of a second to an hour."""


class Metric(Record, frozen=True):
    """One metric. `unit` is UCUM's code, "1" for what has none; `label` the name of its label, "" for none."""

    name: str
    kind: Kind
    unit: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()  # of the label
    of: From = "both"


def _gauge(
    name: str, unit: str, help: str, label: str = "", values: tuple[str, ...] = (), of: From = "both"
) -> Metric:
    return Metric(name=name, kind="gauge", unit=unit, help=help, label=label, values=values, of=of)


def _counter(
    name: str, help: str, label: str = "", values: tuple[str, ...] = (), of: From = "both"
) -> Metric:
    return Metric(name=name, kind="counter", unit="1", help=help, label=label, values=values, of=of)


def _histogram(name: str, help: str) -> Metric:
    return Metric(name=name, kind="histogram", unit="s", help=help, of="store")


METRICS: tuple[Metric, ...] = (
    _gauge(
        "geometric_health_phi", "1", "Integration score as last reported, mean over the processes that record"
    ),
    _gauge("geometric_health_kappa", "1", "Coupling as last reported, mean over the processes that record"),
    _gauge(
        "geometric_health_basin_drift",
        "rad",
        "Distance of the last state from the healthy one in radians, mean over the processes that record",
    ),
    _gauge(
        "geometric_health_status",
        "1",
        "1 for the present severity of the service's health, 0 for the others",
        "severity",
        SEVERITIES,
    ),
    _gauge(
        "geometric_health_finding", "1", "1 while a finding of this kind is present, else 0", "kind", KINDS
    ),
    _gauge("geometric_health_phi_limit", "1", "Least healthy integration score by the rules in force"),
    _gauge(
        "geometric_health_basin_drift_limit", "rad", "Largest healthy drift by the rules in force, in radians"
    ),
    _gauge(
        "geometric_health_baseline_learned", "1", "1 once the service has learned what healthy is, else 0"
    ),
    _gauge(
        "geometric_health_error_ratio",
        "1",
        "Share of failed requests, 0 to 1, mean over the processes that record",
    ),
    _gauge(
        "geometric_health_latency_seconds",
        "s",
        "Latency as last reported, mean over the processes that record",
    ),
    _gauge(
        "geometric_health_memory_bytes", "By", "Memory as last reported, sum over the processes that record"
    ),
    _gauge("geometric_health_writers", "1", "Processes that record at present"),
    _gauge("geometric_health_snapshot_age_seconds", "s", "Time since the newest snapshot of any process"),
    _counter("geometric_health_snapshots_total", "Snapshots recorded"),
    _counter(
        "geometric_health_invalid_snapshots_total",
        "Snapshots in which this field was unusable",
        "field",
        FIELDS,
    ),
    _counter(
        "geometric_health_snapshots_lost_total", "Snapshots that were recorded and are not in the history"
    ),
    _counter(
        "geometric_health_degradations_total", "Times that the health went from normal to a warning or worse"
    ),
    _counter("geometric_health_alarms_total", "Times that a finding of this kind began", "kind", KINDS),
    _counter("geometric_health_checks_total", "Times that the health was assessed for these metrics"),
    _gauge("geometric_health_history_bytes", "By", "Size of the history on disk"),
    _gauge("geometric_health_history_snapshots", "1", "Snapshots that the history holds", of="store"),
    _gauge(
        "qigheal_scrape_errors",
        "1",
        "1 where this part of the figures cannot be had at present, else 0",
        "part",
        PARTS,
    ),
    _counter("healing_attempts_total", "Patches that were measured and judged", of="store"),
    _counter("healing_success_total", "Changes that the live service confirmed", of="store"),
    _counter(
        "healing_failures_total",
        "Patches that the judge did not accept, and changes that ended in any way but confirmed or superseded",
        of="store",
    ),
    _counter(
        "healing_patches_total", "Patches judged, by the judge's decision", "decision", DECISIONS, of="store"
    ),
    _counter(
        "healing_rollbacks_total", "Changes taken back, those that a person put through included", of="store"
    ),
    _gauge("healing_fitness_score", "1", "Score of the patch that was scored last, 0 to 1", of="store"),
    _gauge("healing_changes", "1", "Changes that are in this state", "state", STATES, of="store"),
    _gauge("healing_phase", "1", "What the healer may do by itself: phase 1 to 4", of="store"),
    _gauge(
        "healing_breaker_open", "1", "1 while healing is stopped after repeated rollbacks, else 0", of="store"
    ),
    _histogram("healing_patch_generation_duration_seconds", "Time that a strategy took to propose a patch"),
    _histogram(
        "healing_patch_test_duration_seconds", "Time that the trial of a patch took, its tests included"
    ),
    _histogram(
        "healing_patch_apply_duration_seconds", "Time from a merge's beginning to the end of its deployment"
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
