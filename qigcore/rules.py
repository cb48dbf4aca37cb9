"""Which findings the last snapshots give rise to: a pure function of at most 14 of them.

A rule compares one figure over ten snapshots with a limit. It is evaluated at each of the last five
positions, and counts as firing while any of them fires: so a finding clears after five clean
snapshots in a row, however often anybody asks. Flagged values are skipped. Nothing fires before
the tenth snapshot.

The loops are in `ext/_rules.pyx`; no message for a person is written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore._rules import Program, growth, summary
from qigcore.baseline import RARE_BREAKDOWN, Baseline
from qigcore.constants import BASIN_DRIFT_MAX, KAPPA_STAR, PHI_MIN
from qigcore.errors import InvalidLimit
from qigcore.rows import BIT, HEAD, METRICS, REGIMES, Array

__all__ = [
    "HOLD",
    "LOOK_BACK",
    "MIN_SNAPSHOTS",
    "REACH",
    "UNMEASURABLE",
    "Fired",
    "Rule",
    "RuleSet",
    "absolute_rules",
    "evaluate",
    "growth",
    "learned_rules",
    "severities",
    "summary",
]

MIN_SNAPSHOTS = 10
"""Nothing fires before this many snapshots."""

HOLD = 5
"""A rule counts as firing while it fires at any of so many positions."""

LOOK_BACK = MIN_SNAPSHOTS + HOLD - 1
"""Snapshots that decide the present severity: five positions of ten snapshots each."""

REACH = 10_000
"""Snapshots that a service looks back through for the beginning of what has lasted.

A check stays below a millisecond or two then, however large the ring is: it keeps other threads waiting.
"""

UNMEASURABLE = 3
"""Of ten snapshots, how many may be unusable."""

_FIELDS: Mapping[str, Any] = HEAD.fields or {}

Statistic = Literal["mean10", "last", "count10", "growth10", "repaired10"]

SEVERITY = {"warning": 1, "critical": 2}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison.

    statistic, over the ten snapshots up to a position:
        mean10      mean of `column`
        last        the newest value of `column`
        count10     how many values of `column` are beyond `limit`; fires above `count`
        growth10    least-squares slope of `column` per snapshot, the smaller one of both halves
                    (0 where they disagree in sign, so that a single step is no growth)
        repaired10  how many snapshots had any value repaired; fires above `count`
    """

    kind: str  # see qigheal.records.Finding
    metric: str  # key of rows.METRICS, or "measurement"
    column: str  # name in rows.HEAD
    statistic: Statistic
    side: Literal["above", "below"] = "above"
    limit: float = 0.0
    count: int = 0
    severity: Literal["warning", "critical"]

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise InvalidLimit(f"limit of rule {self.kind}: expected a finite number, got {self.limit!r}")
        if self.column not in _FIELDS:
            raise InvalidLimit(
                f"column of rule {self.kind}: expected one of {', '.join(_FIELDS)}, got {self.column!r}"
            )

    @property
    def counts(self) -> bool:
        """Whether its value is a number of snapshots, to be compared with `count`."""
        return self.statistic in ("count10", "repaired10")


class RuleSet(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The rules in force. `state` says where their limits come from."""

    rules: tuple[Rule, ...]
    state: Literal["absolute", "learned"]

    @cached_property
    def program(self) -> Program:
        """The same rules as the compiled loops read them."""
        rows = []
        for rule in self.rules:
            dtype, offset = _FIELDS[rule.column][:2]
            skip = BIT["phi"] if rule.column == "regime" else BIT.get(rule.column, 0)
            rows.append(
                (
                    rule.statistic,
                    offset,
                    dtype.itemsize == 1,
                    rule.side == "below",
                    skip,
                    rule.count,
                    SEVERITY[rule.severity],
                    rule.limit,
                )
            )
        return Program(rows)

    @cached_property
    def edges(self) -> dict[str, tuple[float | None, float | None]]:
        """Where each metric's values stop being healthy, below and above; None where no rule says so.

        Of learned rules the nearest limit, which is the band's edge; of absolute ones the nearest of the
        most severe, since a warning there is but a part of it. Memory has none: its rules are of growth.
        """
        found = {}
        for metric in METRICS:
            ends: list[float | None] = []
            for side, nearest in (("below", max), ("above", min)):
                limits = [
                    (self.state == "absolute" and rule.severity == "critical", rule.limit)
                    for rule in self.rules
                    if (rule.metric, rule.side) == (metric, side) and rule.statistic in ("mean10", "last")
                ]
                most = max((severe for severe, _ in limits), default=False)
                ends.append(nearest((limit for severe, limit in limits if severe == most), default=None))
            found[metric] = (ends[0], ends[1])
        return found


class Fired(msgspec.Struct, frozen=True):
    """A rule that fires at one of the last five positions."""

    rule: Rule
    value: float  # the statistic at the newest position that fires
    held: int  # at how many of the last five positions it fires
    since_index: int  # where in `heads` the present unbroken run of it begins


def evaluate(heads: Array, ruleset: RuleSet) -> tuple[Fired, ...]:
    """What fires now, in the order of the rules.

    heads: shape [n] of `rows.HEAD`, oldest first. The last 14 decide what fires; hand in more to
    learn how long it has lasted (`since_index` cannot lie before the rows that were handed in).
    """
    rules = ruleset.rules
    return tuple(Fired(rules[k], value, held, since) for k, value, held, since in ruleset.program.last(heads))


def severities(heads: Array, ruleset: RuleSet) -> npt.NDArray[np.uint8]:
    """Severity at every position, shape [n]: 0 normal, 1 warning, 2 critical.

    At each position it equals what `evaluate` finds in the rows up to it.
    """
    return ruleset.program.severities(heads)


_METRIC = {
    "phi_low": "phi",
    "phi_high": "phi",
    "kappa_off": "kappa",
    "drift": "basin_drift",
    "errors": "errors",
    "latency": "latency",
    "memory": "memory",
}


def _rule(
    kind: str,
    statistic: Statistic,
    limit: float,
    severity: Literal["warning", "critical"],
    *,
    side: Literal["above", "below"] = "above",
    count: int = 0,
) -> Rule:
    """A rule on the column of the metric that `kind` speaks of."""
    metric = _METRIC[kind]
    return Rule(
        kind=kind,
        metric=metric,
        column=METRICS[metric],
        statistic=statistic,
        side=side,
        limit=limit,
        count=count,
        severity=severity,
    )


_UNMEASURABLE = Rule(
    kind="unmeasurable",
    metric="measurement",
    column="repaired",
    statistic="repaired10",
    count=UNMEASURABLE,
    severity="critical",
)

_BREAKDOWN = Rule(
    kind="breakdown",
    metric="phi",
    column="regime",
    statistic="count10",
    # Regimes are numbered in the order of Φ; the half separates breakdown from the one below it.
    limit=REGIMES.index("breakdown") - 0.5,
    count=3,
    severity="critical",
)


def absolute_rules(
    *,
    phi_min: float = PHI_MIN,
    drift_max: float = BASIN_DRIFT_MAX,
    kappa_star: float = KAPPA_STAR,
    kappa_tolerance: float = 10.0,
    error_rate_max: float = 0.05,
    latency_max_ms: float = 2000.0,
    memory_growth_max_mb: float = 10.0,
) -> RuleSet:
    """The rules that hold until a baseline is learned; the defaults are the source document's conventions.

    phi_min: 0 to 1; drift_max: radians; error_rate_max: 0 to 1; memory_growth_max_mb: per snapshot.
    """
    rules = (
        _UNMEASURABLE,
        _rule("phi_low", "mean10", phi_min, "critical", side="below"),
        _rule("phi_low", "last", min(1.1 * phi_min, 1.0), "warning", side="below"),
        _BREAKDOWN,
        _rule("drift", "last", drift_max, "critical"),
        _rule("drift", "last", 0.7 * drift_max, "warning"),
        _rule("errors", "last", error_rate_max, "critical"),
        _rule("latency", "last", latency_max_ms, "warning"),
        _rule("kappa_off", "last", kappa_star - kappa_tolerance, "warning", side="below"),
        _rule("kappa_off", "last", kappa_star + kappa_tolerance, "warning"),
        _rule("memory", "growth10", memory_growth_max_mb, "warning"),
    )
    return RuleSet(rules=rules, state="absolute")


def learned_rules(
    baseline: Baseline,
    *,
    drift_ceiling: float = BASIN_DRIFT_MAX,
    error_rate_max: float = 0.05,
    latency_max_ms: float = 2000.0,
) -> RuleSet:
    """The rules of a host whose healthy range is known: its bands are the limits.

    drift_ceiling: radians that are critical whatever was learned. error_rate_max: errors above the
    band are a warning up to it and critical beyond; where the healthy mean itself is above it, all errors
    above it are a warning at least. latency_max_ms: the limit of a host whose
    latency read 0 throughout, which means that it was not reported then.
    """
    rules = [_UNMEASURABLE]
    bands = baseline.bands
    if phi := bands.get("phi"):
        if phi.low > 0.0:  # at 0 and at 1 the band ends where Φ does, and nothing lies beyond
            rules.append(_rule("phi_low", "mean10", phi.low, "critical", side="below"))
        if phi.high < 1.0:
            rules.append(_rule("phi_high", "mean10", phi.high, "warning"))
    if baseline.breakdown_share <= RARE_BREAKDOWN:
        rules.append(_BREAKDOWN)
    limit = min(baseline.drift_limit, drift_ceiling)
    rules.append(_rule("drift", "mean10", limit, "critical"))
    rules.append(_rule("drift", "last", drift_ceiling, "critical"))
    rules.append(_rule("drift", "count10", limit, "warning", count=3))
    errors = bands.get("errors")
    if errors and errors.high < 1.0:  # beyond 1 lies no rate of errors
        rules.append(_rule("errors", "mean10", max(errors.high, error_rate_max), "critical"))
        if errors.high < error_rate_max:
            rules.append(_rule("errors", "mean10", errors.high, "warning"))
    if errors and errors.mean > error_rate_max:  # it failed while healthy was learned, and may fail still
        rules.append(_rule("errors", "mean10", error_rate_max, "warning"))
    if latency := bands.get("latency"):
        unreported = latency.constant and latency.mean == 0.0
        rules.append(_rule("latency", "mean10", latency_max_ms if unreported else latency.high, "warning"))
    if kappa := bands.get("kappa"):
        rules.append(_rule("kappa_off", "mean10", kappa.low, "warning", side="below"))
        rules.append(_rule("kappa_off", "mean10", kappa.high, "warning"))
    if memory := bands.get("memory"):
        rules.append(_rule("memory", "growth10", memory.high, "warning"))
    return RuleSet(rules=tuple(rules), state="learned")
