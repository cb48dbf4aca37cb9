"""What a scrape of a source gives, as a mapping, and monitors and ledgers to scrape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qigheal import GeometricHealthMonitor
from qigheal.healing import phases
from qigheal.healing.ledger import Ledger
from qigheal.integrations.prometheus import HealthCollector
from tests.heal.test_phases import a_change, a_patch, a_verdict, facts


def exposition(collector: HealthCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def scrape(collector: HealthCollector) -> dict[str, float]:
    """By `name` or `name{label}`, without histogram buckets."""
    found = {}
    for family in text_string_to_metric_families(exposition(collector)):
        for sample in family.samples:
            if "le" not in sample.labels:
                found["|".join([sample.name, *sample.labels.values()])] = sample.value
    return found


def record(monitor: GeometricHealthMonitor, count: int, *, phi: float = 0.77, seed: int = 0) -> None:
    """Snapshots of a service that is healthy at Φ = 0.77."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        weights = rng.dirichlet(np.full(64, 200.0))
        latency = float(rng.normal(5.0, 0.3))
        monitor.record(phi + rng.normal(0.0, 0.01), rng.normal(64.0, 2.0), weights, 0.001, latency, 120.0)


def judged(ledger: Ledger, number: int, *, score: float | None = 0.75, at: float = 1.0) -> None:
    """A patch that was proposed in 2 s, tried in 9 s and judged."""
    patch = a_patch(number)
    verdict = a_verdict(score)
    ledger.append("patch", patch.fingerprint, {**patch.to_dict(), "found_s": 2.0}, at)
    ledger.append("trial", patch.fingerprint, facts(), at)
    ledger.append("verdict", patch.fingerprint, {"patch": patch, "verdict": verdict}, at)


def confirmed(ledger: Ledger, number: int, *, at: float = 1.0) -> None:
    """A change whose merge and deployment took 4 s, and that the live service confirmed."""
    ledger.record_change(a_change(number, "open", merge_commit=""), at)
    ledger.record_change(a_change(number, "approved", merge_commit=""), at)
    ledger.record_change(a_change(number, "merging"), at)
    ledger.record_change(a_change(number, "merged"), at + 3)
    ledger.record_change(a_change(number, "watching"), at + 4)
    ledger.record_change(a_change(number, "confirmed"), at + 60)


def taken_back(ledger: Ledger, number: int, *, at: float = 1.0, override: bool = False) -> None:
    verdict = {"verdict": None} if override else {}
    for state in (
        "open",
        "approved",
        "merging",
        "merged",
        "watching",
        "reverting",
        "reverted",
        "rolled_back",
    ):
        ledger.record_change(a_change(number, state, **verdict), at)


def healed_store(store: Path, at: float) -> Ledger:
    """A ledger in which of four patches one was refused, one waits, one was confirmed, one taken back."""
    store.mkdir(exist_ok=True)
    ledger = Ledger(store / "ledger.db")
    phases.override(ledger, 3, actor="test", reason="a test", at=at)
    judged(ledger, 1, score=None, at=at)
    for number in (2, 3, 4):
        judged(ledger, number, at=at)
    ledger.record_change(a_change(2, "open", merge_commit=""), at)
    confirmed(ledger, 3, at=at)
    taken_back(ledger, 4, at=at)
    return ledger
