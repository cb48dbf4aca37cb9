"""Ours beside the peers: the same work on the same data, in one process, interleaved.

    python -m benchmarks.peers [--json] [--rounds N]

Peers that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks import workloads
from benchmarks.timing import Group, Work, measure


def recording() -> Group:
    group = Group(
        "record one snapshot",
        "ns a call",
        "prometheus_client Gauge.set",
        note="Ours takes 64 components and five figures, the peers take one figure.",
    )

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

    group.add("qigheal record", workloads.record)
    group.add("qigheal capture(mapping)", workloads.capture)
    group.add("prometheus_client Gauge.set", gauge)
    group.add("prometheus_client Histogram.observe", histogram)
    group.add("OpenTelemetry histogram.record", otel)
    return group


def one_distance() -> Group:
    group = Group(
        "one 64-component distance",
        "ns a call",
        "numpy arccos of the dot product",
        note="The Jensen-Shannon distances are others on the same data; the rest is the same figure.",
    )
    p, q = workloads.states()[:2]

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

    group.add("qigheal distance", workloads.distance)
    group.add("numpy arccos of the dot product", plain)
    group.add("qig-core fisher_rao_distance_simplex", qig)
    group.add("SciPy jensenshannon", scipy)
    group.add("SimSIMD jensenshannon", simsimd)
    return group


def many_distances() -> Group:
    group = Group("distance of 1,000 rows to one", "ns a row", "numpy", per=workloads.ROWS)
    rows, q = workloads.states(), workloads.states()[0].copy()

    def plain() -> Work:
        return lambda: 2.0 * np.arccos(np.clip(np.sqrt(rows) @ np.sqrt(q), -1.0, 1.0))

    def stored() -> Work:
        roots, root = np.sqrt(rows), np.sqrt(q)
        return lambda: 2.0 * np.arccos(np.clip(roots @ root, -1.0, 1.0))

    group.add("qigheal distances", workloads.rows_to_one)
    group.add("numpy", plain)
    group.add("numpy, the square roots already taken", stored)
    return group


def checking() -> Group:
    group = Group("look at 1,000 snapshots", "ns a call", "numpy means of the last 10")
    _, phi, kappa = (np.array(column) for column in workloads.healthy())

    def plain() -> Work:
        return lambda: (phi[-10:].mean(), kappa[-10:].mean())

    def polyfit() -> Work:
        x = np.arange(50)
        return lambda: np.polyfit(x, phi[-50:], 1)

    group.add("qigheal check_health", workloads.check_health)
    group.add("qigheal check_health, 1,000,000 recorded", lambda: workloads.check_health(1_000_000))
    group.add("qigheal check_health, critical since 200", workloads.check_health_critical)
    group.add("qigheal get_trend, window 50", workloads.get_trend)
    group.add("numpy means of the last 10", plain)
    group.add("numpy polyfit, window 50", polyfit)
    return group


def judging() -> Group:
    """One more observation, and whether something is wrong now."""
    group = Group(
        "take one more observation and judge",
        "ns a call",
        "river ADWIN.update, one scalar",
        note=(
            "Not the same test: river's look for a change in the mean of one scalar; ours holds 64 components and "
            "five figures against learned bands, stores them, and makes the report."
        ),
    )
    _, phi, _ = workloads.healthy()

    def adwin() -> Work:
        from river.drift import ADWIN

        update, values = ADWIN().update, cycle(phi)
        return lambda: update(next(values))

    def page_hinkley() -> Work:
        from river.drift import PageHinkley

        update, values = PageHinkley().update, cycle(phi)
        return lambda: update(next(values))

    group.add("qigheal record + check_health", workloads.record_and_check)
    group.add("river ADWIN.update, one scalar", adwin)
    group.add("river PageHinkley.update, one scalar", page_hinkley)
    return group


def assigning() -> Group:
    """One embedding to 64 centroids."""
    group = Group(
        "one 384-dimensional embedding to a reading",
        "ns a call",
        "numpy soft assignment alone",
        note=(
            "Ours checks the embedding, assigns it softly, and returns averaged Φ, κ and basin; numpy's row is its "
            "norm, 64 dot products and a softmax, scikit-learn's the nearest centroid."
        ),
    )
    rows, definition = workloads.embeddings(), workloads.fitted().definition
    centroids, sharpness = definition.rows.copy(), np.float32(2.0 / definition.temperature)

    def plain() -> Work:
        given = cycle(list(rows))

        def work() -> object:
            row = next(given)
            values = sharpness * (centroids @ (row / np.linalg.norm(row)))
            values = np.exp(values - values.max())
            return values / values.sum()

        return work

    def sklearn() -> Work:
        from sklearn.cluster import KMeans

        predict = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(rows).predict
        given = cycle(list(rows[:, None, :]))
        return lambda: predict(next(given))

    group.add("qigheal EmbeddingEstimator.update", workloads.embedding_update)
    group.add("numpy soft assignment alone", plain)
    group.add("scikit-learn KMeans.predict", sklearn)
    return group


def detecting() -> Group:
    group = Group(
        "one more row to a change detector",
        "ns a call",
        "river ADWIN.update, one scalar",
        note="Ours takes 64 components and five figures, the peers one scalar.",
    )
    _, phi, _ = workloads.healthy()

    def fed() -> Work:
        values = cycle(phi)
        return lambda: next(values)

    def river(name: str) -> Callable[[], Work]:
        def made() -> Work:
            from river import drift

            update, values = getattr(drift, name)().update, cycle(phi)
            return lambda: update(next(values))

        return made

    group.add("qigheal ChangeDetector.update, a snapshot", workloads.detector_update)
    group.add("qigheal ChangeDetector.update, a basin", workloads.detector_update_basin)
    for name in ("ADWIN", "PageHinkley", "KSWIN"):
        group.add(f"river {name}.update, one scalar", river(name))
    group.add("the next value alone", fed)
    return group


def detecting_rows() -> Group:
    group = Group("1,000 recorded rows to a change detector", "ns a row", "", per=workloads.ROWS)
    group.add("qigheal ChangeDetector.feed", workloads.detector_feed)
    return group


def constructing() -> Group:
    group = Group(
        "make a change detector", "ns a call", "", note="From a baseline of 64 components and five figures."
    )
    group.add("qigheal ChangeDetector(baseline)", workloads.detector_construct)
    return group


GROUPS = (
    recording,
    one_distance,
    many_distances,
    checking,
    judging,
    detecting,
    detecting_rows,
    constructing,
    assigning,
)

PACKAGES = (
    "numpy",
    "prometheus-client",
    "opentelemetry-sdk",
    "qig-core",
    "scipy",
    "simsimd",
    "river",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Of Python and the peers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def run(rounds: int) -> dict[str, Any]:
    """All groups' figures."""
    return {"versions": versions(), "results": [measure(make(), rounds) for make in GROUPS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    parser.add_argument("--rounds", type=int, default=151, help="turns per candidate (default 151)")
    asked = parser.parse_args()
    found = run(asked.rounds)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(" ".join(f"{name} {number}" for name, number in found["versions"].items()))
    for result in found["results"]:
        print(f"\n{result['work']} ({result['unit']}; ratio to {result['reference']})")
        for row in result["rows"]:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:8.2f}x"
            print(f"  {row['candidate']:42} {row['ns']:12,.0f} {ratio}")
        for name in result["absent"]:
            print(f"  {name:42} {'not installed':>12}")


if __name__ == "__main__":
    main()
