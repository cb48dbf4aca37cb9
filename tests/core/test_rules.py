"""The loops against their naive twin, and the laws that severity obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.baseline import Baseline
from qigcore.errors import InvalidLimit
from qigcore.geometry import distances
from qigcore.rows import BIT, HEAD, Array, Batch
from qigcore.rules import (
    SEVERITY,
    Rule,
    RuleSet,
    absolute_rules,
    evaluate,
    growth,
    learned_rules,
    severities,
    summary,
)
from tests.reference import rule_history, rule_statistic

ABSOLUTE = absolute_rules()


def heads(n: int, **columns: object) -> Array:
    """Healthy rows by the absolute limits, but for the columns given."""
    rows = np.zeros(n, HEAD)
    for name, value in {"phi": 0.75, "kappa_eff": 64.0, "regime": 1, **columns}.items():
        rows[name] = value
    return rows


def dicts(rows: Array) -> list[dict[str, float]]:
    return [{name: row[name].item() for name in HEAD.names or ()} for row in rows]


def kinds(rows: Array, rules: RuleSet = ABSOLUTE) -> dict[str, str]:
    found: dict[str, str] = {}
    for fired in evaluate(rows, rules):
        if SEVERITY[fired.rule.severity] > SEVERITY.get(found.get(fired.rule.kind, ""), 0):
            found[fired.rule.kind] = fired.rule.severity
    return found


@st.composite
def sequences(draw: st.DrawFn) -> Array:
    """Rows around the limits, with jumps and repaired values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(0, 60))
    level = np.cumsum(rng.random(n) < 0.15) % 3
    rows = np.zeros(n, HEAD)
    rows["phi"] = np.array([0.75, 0.6, 0.9])[level] + rng.normal(0, 0.05, n)
    rows["kappa_eff"] = 64 + np.array([0, 12, -9])[level] + rng.normal(0, 3, n)
    rows["basin_drift"] = np.array([0.2, 1.5, 2.1])[level] + rng.normal(0, 0.1, n)
    rows["error_rate"] = np.array([0.0, 0.06, 0.01])[level]
    rows["avg_latency_ms"] = np.array([5, 2100, 1900])[level] + rng.normal(0, 80, n)
    rows["memory_mb"] = np.cumsum(np.array([0, 12, 9])[level] + rng.normal(0, 2, n))
    rows["regime"] = (rows["phi"] >= 0.3).astype(int) + (rows["phi"] >= 0.8)
    rows["repaired"] = np.where(rng.random(n) < 0.2, rng.integers(0, 64, n), 0)
    return rows


RULESETS = (
    ABSOLUTE,
    learned_rules(
        Baseline.learn(np.random.default_rng(3).dirichlet(np.full(8, 50.0), 100)),
        drift_ceiling=1.4,
    ),
)


@settings(max_examples=60, deadline=None)
@given(sequences(), st.sampled_from(RULESETS))
def test_severities_equal_the_naive_twin(rows: Array, rules: RuleSet) -> None:
    expected = np.zeros(len(rows), int)
    plain = dicts(rows)
    for rule in rules.rules:
        expected = np.maximum(expected, np.array(rule_history(plain, rule), int) * SEVERITY[rule.severity])
    assert severities(rows, rules).tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(sequences(), st.sampled_from(RULESETS), st.data())
def test_replay_is_evaluation_at_each_prefix_and_only_the_last_14_matter(
    rows: Array, rules: RuleSet, data: st.DataObject
) -> None:
    replayed = severities(rows, rules)
    for end in range(1, len(rows) + 1):
        whole = evaluate(rows[:end], rules)
        assert max((SEVERITY[f.rule.severity] for f in whole), default=0) == replayed[end - 1]
        tail = evaluate(rows[max(0, end - data.draw(st.integers(14, 20))) : end], rules)
        assert [(f.rule, f.value, f.held) for f in whole] == [(f.rule, f.value, f.held) for f in tail]


@settings(max_examples=40, deadline=None)
@given(sequences())
def test_fired_tells_value_and_start_of_the_run(rows: Array) -> None:
    plain = dicts(rows)
    for fired in evaluate(rows, ABSOLUTE):
        held = rule_history(plain, fired.rule)
        start = len(rows) - 1
        while start > 0 and held[start - 1]:
            start -= 1
        assert fired.since_index == start
        newest = max(
            end
            for end in range(9, len(rows))
            if rule_history(plain[: end + 1], fired.rule)[-1]
            and not (end and rule_statistic_is_clean(plain[end - 9 : end + 1], fired.rule))
        )
        assert fired.value == pytest.approx(
            rule_statistic(plain[newest - 9 : newest + 1], fired.rule), abs=1e-9
        )


def rule_statistic_is_clean(rows: list[dict[str, float]], rule: Rule) -> bool:
    return not rule_history(rows, rule)[-1]


def test_a_rule_stays_on_for_five_clean_snapshots() -> None:
    rows = heads(40)
    rows["error_rate"][20] = 0.2
    assert severities(rows, ABSOLUTE).nonzero()[0].tolist() == [20, 21, 22, 23, 24]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {}),
        ({"phi": 0.649}, {"phi_low": "critical"}),
        ({"phi": 0.70}, {"phi_low": "warning"}),
        ({"phi": 0.716}, {}),
        ({"basin_drift": 2.01}, {"drift": "critical"}),
        ({"basin_drift": 1.41}, {"drift": "warning"}),
        ({"basin_drift": 1.39}, {}),
        ({"error_rate": 0.051}, {"errors": "critical"}),
        ({"error_rate": 0.05}, {}),
        ({"avg_latency_ms": 2001.0}, {"latency": "warning"}),
        ({"kappa_eff": 74.3}, {"kappa_off": "warning"}),
        ({"kappa_eff": 54.1}, {"kappa_off": "warning"}),
        ({"memory_mb": np.arange(20) * 10.5}, {"memory": "warning"}),
        ({"memory_mb": np.arange(20) * 9.5}, {}),
        ({"regime": [1] * 16 + [2] * 4}, {"breakdown": "critical"}),
        ({"regime": [1] * 17 + [2] * 3}, {}),
        ({"repaired": [0] * 16 + [BIT["phi"]] * 4}, {"unmeasurable": "critical"}),
        ({"repaired": [0] * 17 + [BIT["phi"]] * 3}, {}),
    ],
)
def test_absolute_limits(columns: dict[str, object], expected: dict[str, str]) -> None:
    assert kinds(heads(20, **columns)) == expected


def test_phi_mean_is_of_ten() -> None:
    rows = heads(20)
    rows["phi"][-10:] = np.linspace(0.60, 0.69, 10)
    (first, *_) = evaluate(rows, ABSOLUTE)
    assert first.rule.kind == "phi_low"
    assert first.value == pytest.approx(0.645)


def test_nothing_fires_before_the_tenth_snapshot() -> None:
    rows = heads(10, phi=0.1)
    assert not evaluate(rows[:9], ABSOLUTE)
    assert not severities(rows[:9], ABSOLUTE).any()
    assert evaluate(rows, ABSOLUTE)


def test_flagged_values_are_skipped() -> None:
    # Three repaired values that would drag the mean below the limit if they were counted.
    rows = heads(14)
    rows["phi"][-3:] = 0.0
    rows["repaired"][-3:] = BIT["phi"]
    assert kinds(rows) == {}


def test_one_step_is_no_growth() -> None:
    # A cache filled once: a plain slope over ten snapshots called this a leak of 15 MB each.
    rows = heads(40)
    rows["memory_mb"][20:] = 100.0
    assert kinds(rows) == {}
    assert not severities(rows, ABSOLUTE).any()


def test_growth_keeps_kilobytes_on_top_of_gigabytes() -> None:
    values = 64_000.0 + 0.001 * np.arange(30)
    assert growth(values)[9:] == pytest.approx(np.full(21, 0.001), rel=1e-6)
    assert np.isnan(growth(values)[:9]).all()


def learned(**signals: float) -> Baseline:
    rng = np.random.default_rng(5)

    rows = heads(300, timestamp=np.arange(300.0))
    for name, sd in {"phi": 0.01, "kappa_eff": 2.0, "avg_latency_ms": 0.5}.items():
        rows[name] = signals.get(name, {"avg_latency_ms": 5.0}.get(name, rows[name][0])) + rng.normal(
            0, sd, 300
        )
    basins = rng.dirichlet(np.full(16, 200.0), 300)
    return Baseline.learn(Batch.of_rows(rows, basins, ("",)))


def test_learned_bands_are_the_limits() -> None:
    baseline = learned()
    rules = learned_rules(baseline)
    assert rules.state == "learned"
    fine = {"avg_latency_ms": 5.0, "basin_drift": baseline.bands["basin_drift"].mean}
    limit = baseline.drift_limit
    for columns, expected in (
        ({}, {}),
        ({"phi": 0.70}, {"phi_low": "critical"}),
        ({"phi": 0.79}, {"phi_high": "warning"}),
        ({"kappa_eff": 72.0}, {"kappa_off": "warning"}),
        ({"kappa_eff": 56.0}, {"kappa_off": "warning"}),
        ({"avg_latency_ms": 50.0}, {"latency": "warning"}),
        ({"error_rate": 0.02}, {"errors": "warning"}),
        ({"error_rate": 0.06}, {"errors": "critical"}),
        ({"basin_drift": limit + 0.01}, {"drift": "critical"}),
        ({"basin_drift": [0.0] * 16 + [limit + 0.01] * 4}, {"drift": "warning"}),
        ({"memory_mb": np.arange(20) * 1.0}, {"memory": "warning"}),
        ({"regime": 2}, {"breakdown": "critical"}),
    ):
        assert kinds(heads(20, **{**fine, **columns}), rules) == expected, columns


def steady(n: int, rho: float, rng: np.random.Generator) -> Array:
    """Standard normal values, each correlated with the one before by rho. Shape [n]."""
    values = rng.normal(size=n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + math.sqrt(1 - rho * rho) * values[i]
    return values


@pytest.mark.parametrize(
    ("learned_from", "rho", "share"), [(300, 0.0, 0.005), (300, 0.5, 0.006), (60, 0.0, 0.006)]
)
def test_a_healthy_host_is_seldom_told_of_a_fault(learned_from: int, rho: float, share: float) -> None:
    """Every learned rule, on hosts that stay as they were: each host's noise, 20 hosts, 1,000 checks each."""
    told: dict[str, list[float]] = {}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = learned_from + 1000
        rows = heads(n, timestamp=np.arange(float(n)))
        for name, (mean, sd) in {
            "phi": (0.75, 0.01),
            "kappa_eff": (64.0, 2.0),
            "error_rate": (0.02, 0.004),
            "avg_latency_ms": (20.0, 5.0),
            "memory_mb": (1000.0, 20.0),
        }.items():
            rows[name] = np.maximum(mean + sd * steady(n, rho, rng), 0.0)
        basins = np.exp(0.1 * np.stack([steady(n, rho, rng) for _ in range(4)], axis=1))
        first = slice(0, learned_from)
        baseline = Baseline.learn(Batch.of_rows(rows[first], basins[first], ("",)))
        rows["basin_drift"] = distances(basins, baseline.point)
        for rule in learned_rules(baseline).rules:
            alone = RuleSet(rules=(rule,), state="learned")
            severity = severities(rows[learned_from:], alone)
            told.setdefault(rule.kind, []).append(np.count_nonzero(severity) / 1000)
    assert told.keys() == {
        "phi_low", "phi_high", "kappa_off", "drift", "errors", "latency", "memory", "breakdown", "unmeasurable",
    }  # fmt: skip
    assert {kind: found for kind, shares in told.items() if (found := np.mean(shares)) > share} == {}


def test_a_leak_beyond_the_noise_of_a_learned_host_is_told() -> None:
    rng = np.random.default_rng(1)
    memory = rng.normal(1000.0, 1.0, 400)
    memory[300:] += np.arange(100.0)
    rows = heads(400, memory_mb=memory)
    rules = learned_rules(Baseline.learn(Batch.of_rows(rows[:300], np.ones((300, 4)), ("",))))
    assert kinds(rows[:300], rules) == {}
    assert severities(rows, rules)[320:].all()


def test_the_ceiling_holds_whatever_was_learned() -> None:
    rules = learned_rules(learned(), drift_ceiling=0.05)
    rows = heads(20, avg_latency_ms=5.0)
    rows["basin_drift"][-1] = 0.06
    assert kinds(rows, rules) == {"drift": "critical"}


def test_breakdown_says_nothing_of_a_host_that_lives_there() -> None:
    rows = heads(300, phi=1.0, kappa_eff=7.8, regime=2)

    steady = Baseline.learn(Batch.of_rows(rows, np.tile(np.arange(1.0, 9.0), (300, 1)), ("",)))
    rules = learned_rules(steady)
    assert kinds(rows[-14:]) == {"breakdown": "critical", "kappa_off": "warning"}
    assert kinds(rows[-14:], rules) == {}
    assert not any(rule.kind in ("breakdown", "phi_high") for rule in rules.rules)
    assert kinds(heads(14, phi=0.9, kappa_eff=7.8), rules) == {"phi_low": "critical"}


def test_latency_that_was_never_reported_keeps_the_absolute_limit() -> None:

    silent = Baseline.learn(Batch.of_rows(heads(100), np.ones((100, 4)), ("",)))
    limits = {
        rule.limit for rule in learned_rules(silent, latency_max_ms=900.0).rules if rule.kind == "latency"
    }
    assert limits == {900.0}


@pytest.mark.parametrize(("rate", "told"), [(1.0, True), (0.75, True), (0.06, True), (0.04, False)])
def test_a_learned_error_rate_does_not_silence_the_ceiling(rate: float, told: bool) -> None:
    """A service that failed while healthy was learned goes on failing, and that is said."""
    rows = heads(100, error_rate=rate)
    failing = Baseline.learn(Batch.of_rows(rows, np.ones((100, 4)), ("",)))
    assert kinds(rows, learned_rules(failing)) == ({"errors": "warning"} if told else {})
    assert any("learn again with set_baseline()" in note for note in failing.notes) is told
    assert not any("no finding" in note for note in failing.notes)
    assert kinds(heads(20), learned_rules(failing)) == {}
    assert kinds(rows, learned_rules(failing, error_rate_max=1.0)) == {}


def test_what_is_worse_than_a_learned_error_rate_is_critical() -> None:
    failing = Baseline.learn(Batch.of_rows(heads(100, error_rate=0.3), np.ones((100, 4)), ("",)))
    assert kinds(heads(20, error_rate=0.9), learned_rules(failing))["errors"] == "critical"


def test_summary_skips_flagged_values() -> None:
    rows = heads(12, phi=np.arange(12) / 20, memory_mb=7.0)
    rows["repaired"][11] = BIT["phi"]
    rows["regime"][-2:] = 2
    phi, kappa, drift, errors, latency, memory, breakdowns = summary(rows)
    assert phi == pytest.approx(np.mean(np.arange(2, 11) / 20))
    assert (kappa, drift, errors, latency, memory, breakdowns) == (64.0, 0.0, 0.0, 0.0, 7.0, 1)
    assert all(math.isnan(value) for value in summary(rows[:0])[:6])


def test_rows_of_another_layout_are_refused() -> None:
    with pytest.raises(TypeError, match=r"qigcore\.rows\.HEAD"):
        evaluate(np.zeros(20), ABSOLUTE)
    with pytest.raises(TypeError, match="one-dimensional"):
        severities([1, 2], ABSOLUTE)  # type: ignore[arg-type]


def test_views_that_are_not_contiguous_are_read_right() -> None:
    rows = heads(40, phi=np.tile([0.1, 0.75], 20))
    assert kinds(rows[1::2]) == {}
    assert kinds(rows[::2]) == {"phi_low": "critical"}


def test_a_limit_must_be_a_number() -> None:
    with pytest.raises(InvalidLimit, match="drift"):
        Rule(
            kind="drift",
            metric="basin_drift",
            column="basin_drift",
            statistic="last",
            limit=math.nan,
            severity="warning",
        )
    with pytest.raises(InvalidLimit, match="column"):
        Rule(
            kind="drift",
            metric="basin_drift",
            column="nowhere",
            statistic="last",
            limit=1.0,
            severity="warning",
        )


# --- where a metric's values stop being healthy -----------------------------------------------------


def test_edges_of_the_absolute_rules_are_their_limits_and_not_the_warnings_before_them() -> None:
    assert absolute_rules(phi_min=0.6, drift_max=1.5, kappa_star=64.0).edges == {
        "phi": (0.6, None),
        "kappa": (54.0, 74.0),
        "basin_drift": (None, 1.5),
        "latency": (None, 2000.0),
        "errors": (None, 0.05),
        "memory": (None, None),
    }


def test_edges_of_learned_rules_are_those_of_the_bands() -> None:
    rng = np.random.default_rng(6)
    batch = Batch.of_rows(
        heads(
            60,
            phi=0.6 + 0.02 * rng.random(60),
            kappa_eff=20.0 + rng.random(60),
            avg_latency_ms=50.0 + rng.random(60),
            error_rate=0.01 * rng.random(60),
        ),
        rng.dirichlet(np.full(64, 100.0), 60),
        ("",),
    )
    known = Baseline.learn(batch)
    bands = known.bands
    assert learned_rules(known).edges == {
        "phi": (bands["phi"].low, bands["phi"].high),
        "kappa": (bands["kappa"].low, bands["kappa"].high),
        "basin_drift": (None, known.drift_limit),
        "latency": (None, bands["latency"].high),
        "errors": (None, bands["errors"].high),
        "memory": (None, None),
    }
    assert learned_rules(known, drift_ceiling=0.01).edges["basin_drift"] == (None, 0.01)
