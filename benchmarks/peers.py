"""Ours beside the peers: the same work on the same data, in one process, interleaved.

    python benchmarks/peers.py [--json] [--rounds N]

Each candidate is timed in short turns, one after the other, round after round, so that a change of
the machine's speed falls on all of them; the figure is the median over the rounds, the ratio that to
the group's reference peer. Peers that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Work = Callable[[], object]
TURN_S = 0.01


class Group:
    """One piece of work with its candidates; ratios are to `reference`."""

    def __init__(self, name: str, unit: str, reference: str, per: int = 1) -> None:
        self.name = name
        self.unit = unit
        self.reference = reference
        self.per = per
        self.candidates: dict[str, Work] = {}
        self.absent: list[str] = []

    def add(self, name: str, make: Callable[[], Work]) -> None:
        try:
            self.candidates[name] = make()
        except ImportError:
            self.absent.append(name)


def turn(work: Work, count: int) -> float:
    loop = range(count)
    start = time.perf_counter_ns()
    for _ in loop:
        work()
    return (time.perf_counter_ns() - start) / count


def measure(group: Group, rounds: int) -> dict[str, Any]:
    counts = {}
    for name, work in group.candidates.items():
        turn(work, 3)
        counts[name] = max(3, int(TURN_S * 1e9 / max(turn(work, 20), 1.0)))
    turns: dict[str, list[float]] = {name: [] for name in group.candidates}
    empty = statistics.median(turn(_nothing, 100_000) for _ in range(5))
    for _ in range(rounds):
        for name, work in group.candidates.items():
            turns[name].append(max(0.0, turn(work, counts[name]) - empty) / group.per)
    medians = {name: statistics.median(values) for name, values in turns.items()}
    reference = medians.get(group.reference)
    return {
        "work": group.name,
        "unit": group.unit,
        "reference": group.reference,
        "absent": group.absent,
        "rows": [
            {
                "candidate": name,
                "ns": medians[name],
                "low_ns": min(turns[name]),
                "high_ns": max(turns[name]),
                "ratio": medians[name] / reference if reference else None,
            }
            for name in sorted(medians, key=lambda name: medians[name])
        ],
    }


def _nothing() -> None:
    return None


def recording(rng: np.random.Generator) -> Group:
    group = Group("record one snapshot", "ns a call", "prometheus_client Gauge.set")
    basin = rng.dirichlet(np.full(64, 2.0))

    def ours() -> Work:
        from qigheal import GeometricHealthMonitor

        record = GeometricHealthMonitor().record
        return lambda: record(0.75, 64.0, basin, 0.0, 5.0, 100.0)

    def gauge() -> Work:
        from prometheus_client import CollectorRegistry, Gauge

        metric = Gauge("phi", "Integration", registry=CollectorRegistry())
        return lambda: metric.set(0.75)

    def histogram() -> Work:
        from prometheus_client import CollectorRegistry, Histogram

        metric = Histogram("latency", "Latency", registry=CollectorRegistry())
        return lambda: metric.observe(0.75)

    def otel() -> Work:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench")
        metric = meter.create_histogram("latency")
        return lambda: metric.record(0.75)

    def capturing() -> Work:
        from qigheal import GeometricHealthMonitor

        capture = GeometricHealthMonitor().capture
        state = {"phi": 0.75, "kappa_eff": 64.0, "basin_coords": basin, "avg_latency_ms": 5.0}
        return lambda: capture(state)

    group.add("qigheal record", ours)
    group.add("qigheal capture(mapping)", capturing)
    group.add("prometheus_client Gauge.set", gauge)
    group.add("prometheus_client Histogram.observe", histogram)
    group.add("OpenTelemetry histogram.record", otel)
    return group


def one_distance(rng: np.random.Generator) -> Group:
    group = Group("one 64-component distance", "ns a call", "numpy arccos of the dot product")
    p, q = rng.dirichlet(np.full(64, 2.0)), rng.dirichlet(np.full(64, 2.0))

    def ours() -> Work:
        from qigcore.geometry import distance

        return lambda: distance(p, q)

    def plain() -> Work:
        return lambda: 2.0 * np.arccos(np.clip(np.sum(np.sqrt(p * q)), -1.0, 1.0))

    def qig() -> Work:
        from qig_core import fisher_rao_distance_simplex

        return lambda: fisher_rao_distance_simplex(p, q)

    def scipy() -> Work:
        from scipy.spatial.distance import jensenshannon

        return lambda: jensenshannon(p, q)

    def simsimd() -> Work:
        from simsimd import jensenshannon

        return lambda: jensenshannon(p, q)

    group.add("qigheal distance", ours)
    group.add("numpy arccos of the dot product", plain)
    group.add("qig-core fisher_rao_distance_simplex", qig)
    group.add("SciPy jensenshannon", scipy)
    group.add("SimSIMD jensenshannon", simsimd)
    return group


def many_distances(rng: np.random.Generator) -> Group:
    group = Group("distance of 1,000 rows to one", "ns a row", "numpy", per=1000)
    rows, q = rng.dirichlet(np.full(64, 2.0), 1000), rng.dirichlet(np.full(64, 2.0))

    def ours() -> Work:
        from qigcore.geometry import distances

        return lambda: distances(rows, q)

    def plain() -> Work:
        return lambda: 2.0 * np.arccos(np.clip(np.sqrt(rows) @ np.sqrt(q), -1.0, 1.0))

    group.add("qigheal distances", ours)
    group.add("numpy", plain)
    return group


def checking(rng: np.random.Generator) -> Group:
    group = Group("look at 1,000 snapshots", "ns a call", "numpy means of the last 10")
    basins = rng.dirichlet(np.full(64, 200.0), 1000)
    phi, kappa = rng.normal(0.75, 0.01, 1000), rng.normal(64.0, 1.0, 1000)

    def filled() -> Any:
        from qigheal import GeometricHealthMonitor

        monitor = GeometricHealthMonitor()
        for i in range(1000):
            monitor.record(phi[i], kappa[i], basins[i], 0.0, 5.0, 100.0)
        monitor.check_health()
        return monitor

    def check() -> Work:
        check_health: Work = filled().check_health
        return check_health

    def trend() -> Work:
        monitor = filled()
        return lambda: monitor.get_trend("basin_drift")

    def plain() -> Work:
        return lambda: (phi[-10:].mean(), kappa[-10:].mean())

    def polyfit() -> Work:
        x = np.arange(50)
        return lambda: np.polyfit(x, phi[-50:], 1)

    group.add("qigheal check_health", check)
    group.add("qigheal get_trend, window 50", trend)
    group.add("numpy means of the last 10", plain)
    group.add("numpy polyfit, window 50", polyfit)
    return group


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in (
        "qigheal",
        "numpy",
        "prometheus-client",
        "opentelemetry-sdk",
        "qig-core",
        "scipy",
        "simsimd",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    parser.add_argument("--rounds", type=int, default=31, help="turns per candidate (default 31)")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    results = [
        measure(make(rng), asked.rounds) for make in (recording, one_distance, many_distances, checking)
    ]
    if asked.json:
        print(json.dumps({"versions": versions(), "results": results}, indent=2))
        return
    print(" ".join(f"{name} {found}" for name, found in versions().items()))
    for result in results:
        print(f"\n{result['work']} ({result['unit']}; ratio to {result['reference']})")
        for row in result["rows"]:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:8.2f}x"
            print(f"  {row['candidate']:40} {row['ns']:12,.0f} {ratio}")
        for name in result["absent"]:
            print(f"  {name:40} {'not installed':>12}")


if __name__ == "__main__":
    main()
