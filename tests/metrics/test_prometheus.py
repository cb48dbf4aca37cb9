"""A real Prometheus scrapes a real service and answers questions about it."""

from __future__ import annotations

import httpx
import pytest

from qigheal.integrations.metrics.catalogue import METRICS
from tests.metrics.conftest import Prometheus, wait_for


def test_every_metric_arrives(prometheus: Prometheus) -> None:
    for metric in METRICS:
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        found = prometheus.until_found(name)
        assert found, name
        if metric.label:
            assert {each["metric"][metric.label] for each in found} <= {*metric.values}
        else:
            assert len(found) == 1


def test_it_answers_what_operators_ask(prometheus: Prometheus) -> None:
    assert prometheus.until("geometric_health_phi < bool geometric_health_phi_limit") == [1]
    (severity,) = prometheus.until_found("geometric_health_status == 1")
    assert severity["metric"]["severity"] == "critical"
    (attempts,) = prometheus.until("healing_attempts_total")
    (ended,) = prometheus.until("healing_success_total + healing_failures_total")
    assert attempts == ended + 1 == 7, "one waits for its review"
    (test_s,) = prometheus.until(
        "healing_patch_test_duration_seconds_sum / healing_patch_test_duration_seconds_count"
    )
    assert test_s == pytest.approx(9.0)
    (quantile,) = prometheus.until("histogram_quantile(0.9, healing_patch_apply_duration_seconds_bucket)")
    assert 0.0 < quantile <= 5.0
    assert prometheus.until("sum(qigheal_scrape_errors)") == [0]


def test_rules_are_evaluated_and_a_degradation_is_pending_or_firing(prometheus: Prometheus) -> None:
    rules = {rule["name"]: rule for rule in prometheus.rules()}
    assert {rule["health"] for rule in rules.values()} <= {"ok", "unknown"}
    wait_for(
        lambda: (
            {rule["name"] for rule in prometheus.rules() if rule["state"] in ("pending", "firing")}
            >= {"QighealPhiLow", "QighealServiceUnwell", "QighealBreakerOpen", "QighealRolledBack"}
        ),
        "the rules see the degradation",
    )


def test_the_service_goes_on_while_it_is_scraped(prometheus: Prometheus) -> None:
    before = httpx.post(f"{prometheus.service}/record?count=1&phi=0.3", timeout=30.0).json()["total"]
    (seen,) = prometheus.until(f"geometric_health_history_snapshots >= {before}")
    assert seen >= before
