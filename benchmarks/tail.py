"""The slowest calls of `record` while the monitor writes a history and is asked for its health.

    python -m benchmarks.tail [--json] [--seconds S]

A thread that serves requests measures three calls in every one: nothing at all, prometheus_client's
`Gauge.set`, and `record`, their order rotating. What nothing shows is the machine's own: the clock,
interrupts, other processes. Beside it run the monitor's own thread, which writes to a history on disk
every 50 ms and seals its blocks, and one that asks for `check_health` and `get_trend` a hundred times a second.

    paced     2,000 requests a second; the time between is filled with the numpy work of a small model
    sleeping  the same, but the thread sleeps between; what it then calls first comes from cold caches
    flat out  no work between: more rows than a disk takes, so that the ring overruns
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks import workloads
from qigheal import GeometricHealthMonitor

PERIOD_NS = 500_000
FLUSH_EVERY_S = 0.05
CHECK_EVERY_S = 0.01
LEARN_AFTER = 300
TRIES = 3
NAMES = ("nothing", "prometheus_client Gauge.set", "qigheal record")
PERCENTILES = (50.0, 99.0, 99.9)

clock = time.perf_counter_ns


def serving() -> Callable[[int], None]:
    """Work until a moment, in steps of some 30 µs: distances of an image to keys, and their softmax."""
    rng = np.random.default_rng(2)
    images, keys = rng.random((32, 64)), rng.random((64, 128))

    def until(due: int) -> None:
        while clock() < due:
            weights = np.exp(-(images @ keys))
            weights /= weights.sum(axis=1, keepdims=True)

    return until


def sleeping(due: int) -> None:
    left = due - clock()
    if left > 0:
        time.sleep(left / 1e9)


def at_once(due: int) -> None:
    """No time between two requests."""


def measured(monitor: GeometricHealthMonitor, requests: int, wait: Callable[[int], None]) -> Any:
    """Nanoseconds of each call: shape [3, requests], rows as in NAMES."""
    from prometheus_client import CollectorRegistry, Gauge  # asv would take its methods for benchmarks

    gauge = Gauge("phi", "Integration", registry=CollectorRegistry())
    basins = cycle(list(workloads.healthy()[0]))
    record, figures = monitor.record, (0.75, 64.0)

    def recording() -> None:
        record(*figures, next(basins), 0.0, 5.0, 100.0)

    calls: list[Callable[[], object]] = [lambda: None, lambda: gauge.set(0.75), recording]
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    taken = np.empty((3, requests))
    due = clock()
    for i in range(requests):
        due += PERIOD_NS
        wait(due)
        for which in orders[i % 3]:
            call = calls[which]
            before = clock()
            call()
            taken[which, i] = clock() - before
    return taken


def scenario(name: str, what: str, requests: int, wait: Callable[[int], None]) -> dict[str, Any]:
    """One run in a store of its own, with the thread that asks beside it."""
    stop = threading.Event()
    checks = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        GeometricHealthMonitor(
            history=folder, flush_every_s=FLUSH_EVERY_S, learn_after=LEARN_AFTER, code_hash=""
        ) as monitor,
    ):

        def ask() -> None:
            nonlocal checks
            while not stop.wait(CHECK_EVERY_S):
                monitor.check_health()
                monitor.get_trend("basin_drift")
                checks += 1

        asking = threading.Thread(target=ask)
        asking.start()
        started = time.perf_counter()
        try:
            taken = measured(monitor, requests, wait)
        finally:
            stop.set()
            asking.join()
        seconds = time.perf_counter() - started
        monitor.flush()
        lost, notes = monitor.losses, monitor.check_health().notes
    rows = []
    for call, values in zip(NAMES, taken, strict=True):
        quantiles = np.percentile(values, PERCENTILES) / 1e3
        figures = {f"p{p:g}": float(q) for p, q in zip(PERCENTILES, quantiles, strict=True)}
        rows.append({"call": call, **figures, "max": float(values.max() / 1e3)})
    return {
        "scenario": name,
        "what": what,
        "requests": requests,
        "per_second": requests / seconds,
        "checks": checks,
        "lost": lost,
        "notes": notes,
        "first_us": float(taken[2, 0] / 1e3),
        "lesson_us": float(taken[2, LEARN_AFTER - 1] / 1e3),
        "rows": rows,
    }


def gauges(result: dict[str, Any]) -> float:
    """p99.9 of `Gauge.set`, by which the machine's own disturbances are told."""
    return float(result["rows"][1]["p99.9"])


def run(seconds: float) -> list[dict[str, Any]]:
    """All scenarios, about `seconds` each; figures in microseconds.

    Of TRIES runs of the paced one that counts in which the machine disturbed `Gauge.set` least.
    """
    requests = int(seconds * 1e9 / PERIOD_NS)
    paced = [
        scenario("paced", "A small model's work between the calls", requests, serving()) for _ in range(TRIES)
    ]
    return [
        min(paced, key=gauges),
        scenario(
            "sleeping", "Sleep between the calls, which leaves the caches to others", requests, sleeping
        ),
        scenario("flat out", "Nothing between, faster than a disk takes it", 20 * requests, at_once),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tables")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each scenario (default 15)")
    asked = parser.parse_args()
    found = run(asked.seconds)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for result in found:
        print(
            f"\n{result['scenario']}: {result['requests']:,} requests, {result['per_second']:,.0f} a second, "
            f"{result['checks']} checks beside them, {result['lost']:,} snapshots lost"
        )
        print(f"  {'µs':30} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9}")
        for row in result["rows"]:
            columns = " ".join(f"{row[name]:9.2f}" for name in ("p50", "p99", "p99.9", "max"))
            print(f"  {row['call']:30} {columns}")
        print(
            f"  once in a process: the first record {result['first_us']:.0f}, the one that ends the lesson "
            f"{result['lesson_us']:.0f}"
        )


if __name__ == "__main__":
    main()
