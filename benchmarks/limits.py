"""The limits that qigheal set itself, held against what the benchmarks found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Judged(NamedTuple):
    """A limit: the work, what was asked, what was found, whether that is within."""

    what: str
    asked: str
    found: str
    reached: bool


def _at_most(what: str, limit: float, found: float, unit: str) -> Judged:
    return Judged(what, f"≤ {limit:g}{unit}", f"{found:,.3g}{unit}", found <= limit)


def _at_least(what: str, limit: float, found: float, unit: str) -> Judged:
    return Judged(what, f"≥ {limit:,.0f}{unit}", f"{found:,.0f}{unit}", found >= limit)


def judged(found: dict[str, Any]) -> Iterator[Judged]:
    """All limits, in the order of the report."""
    rows = {row["candidate"]: row for group in found["peers"]["results"] for row in group["rows"]}
    gauge, histogram = rows["prometheus_client Gauge.set"], rows["prometheus_client Histogram.observe"]
    record, capture = rows["qigheal record"], rows["qigheal capture(mapping)"]
    yield _at_most("`record` beside `Gauge.set`", 0.7, record["ratio"] / gauge["ratio"], " ×")
    yield _at_most("`capture` beside `Histogram.observe`", 0.7, capture["ratio"] / histogram["ratio"], " ×")
    for what, limit, candidate, unit, size in (
        ("one distance, the call included", 0.3, "qigheal distance", " µs", 1e3),
        ("distance of many rows to one, per row", 50, "qigheal distances", " ns", 1),
        ("`check_health`, 1,000 snapshots", 10, "qigheal check_health", " µs", 1e3),
        (
            "`check_health` after 1,000,000",
            10,
            "qigheal check_health, 1,000,000 recorded",
            " µs",
            1e3,
        ),
        (
            "one more row to a change detector, 1,000 at once",
            1,
            "qigheal ChangeDetector.feed",
            " µs",
            1e3,
        ),
        (
            "one more basin to a change detector",
            1,
            "qigheal ChangeDetector.update, a basin",
            " µs",
            1e3,
        ),
        ("make a change detector", 1, "qigheal ChangeDetector(baseline)", " ms", 1e6),
        ("`get_trend`, window 50", 2, "qigheal get_trend, window 50", " µs", 1e3),
    ):
        yield _at_most(what, limit, rows[candidate]["ns"] / size, unit)
    paced = next(run for run in found["tail"] if run["scenario"] == "paced")
    tail = {row["call"]: row["p99.9"] for row in paced["rows"]}
    slow = _at_most(
        "p99.9 of `record` under a writing and checking monitor", 20, tail["qigheal record"], " µs"
    )
    yield slow._replace(found=f"{slow.found} (`Gauge.set` {tail['prometheus_client Gauge.set']:.3g} µs)")
    yield _at_most("import over numpy", 60, found["footprint"]["import_ms"], " ms")
    yield _at_most("monitor with 1,000 snapshots over numpy", 10, found["footprint"]["monitor_mb"], " MB")
    store = found["store"]
    appended, scanned = store["append, 4,096 rows a call"], store["scan, all columns"]
    yield _at_most("a stored snapshot, like the demo's", 140, appended["bytes_per_row"], " B")
    yield _at_least("append to the history, rows a second", 300e3, appended["rows_per_s"], "")
    yield _at_least("scan of all columns", 1e6, scanned["rows_per_s"], "")
    yield _at_least("scan of one scalar column", 10e6, store["scan, one column"]["rows_per_s"], "")
    yield _at_most("memory while scanning", 100, scanned["peak_mb"], " MB")
    opening = {
        name: store[name]["seconds"]
        for name in store
        if name.endswith((" segments, scan", " segments, last"))
    }
    slowest = max(opening, key=lambda name: opening[name])
    yield _at_most(f"opening a history of {slowest.rpartition(',')[0]}", 1, opening[slowest], " s")
