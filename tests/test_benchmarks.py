"""The benchmarks stay runnable, and their report says NO where a limit is missed. Nothing is timed here."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest

from benchmarks import workloads
from benchmarks.limits import judged
from benchmarks.report import page
from benchmarks.timing import Group, Work, measure
from qigheal import HealthReport

CALLS = {"p50": 0.2, "p99": 1.0, "p99.9": 5.0, "max": 300.0}


def row(candidate: str, ns: float, ratio: float | None) -> dict[str, Any]:
    return {"candidate": candidate, "ns": ns, "low_ns": ns, "high_ns": ns, "ratio": ratio}


@pytest.fixture
def found() -> dict[str, Any]:
    """A document like those that the benchmarks make, every limit reached."""
    recording = [
        row("qigheal record", 130, 0.5),
        row("qigheal capture(mapping)", 330, 1.2),
        row("prometheus_client Gauge.set", 280, 1.0),
        row("prometheus_client Histogram.observe", 760, 2.7),
    ]
    rest = [
        row("qigheal distance", 130, None),
        row("qigheal distances", 43, None),
        row("qigheal check_health", 2500, None),
        row("qigheal check_health, 1,000,000 recorded", 2500, None),
        row("qigheal get_trend, window 50", 900, None),
        row("qigheal ChangeDetector.feed", 700, None),
        row("qigheal ChangeDetector.update, a basin", 700, None),
        row("qigheal ChangeDetector(baseline)", 300e3, None),
    ]
    group = {
        "work": "record",
        "unit": "ns a call",
        "reference": "",
        "note": "Not the same.",
        "absent": ["river"],
    }
    tail = [{"call": name, **CALLS} for name in ("prometheus_client Gauge.set", "qigheal record")]
    run = {"scenario": "paced", "what": "Work", "requests": 9, "per_second": 9.0, "lost": 0, "rows": tail}
    scan = {"rows": 9, "seconds": 1.0, "rows_per_s": 2e7, "peak_mb": 3.0}
    return {
        "machine": {
            "date": "2026-01-01",
            "cpu": "a processor",
            "cores": 2,
            "virtual": True,
            "memory_gb": 25,
            "system": "Linux",
            "python": "CPython",
            "load": 0.1,
            "cython": "3",
        },
        "peers": {
            "versions": {"numpy": "2"},
            "results": [{**group, "rows": recording}, {**group, "rows": rest, "absent": []}],
        },
        "parts": {
            "parts": [{"part": "the call", "ns": 32.0, "share": 0.3}],
            "sum_ns": 133.0,
            "whole_ns": 130.0,
            "flags": "-O3",
        },
        "tail": [{**run, "first_us": 200.0, "lesson_us": 100.0}],
        "footprint": {"import_ms": 25.0, "prometheus_client_ms": None, "import_mb": 5.0, "monitor_mb": 7.0},
        "instructions": {
            "build": "Python 3.11",
            "works": [{"work": "record", "instructions": 1510, "ratio": 0.4, "functions": {"f": 1510}}],
        },
        "store": {
            "rows": 9,
            "precision": "compact",
            "append, 4,096 rows a call": {"rows_per_s": 4e5, "bytes_per_row": 99.0, "peak_mb": 50.0},
            "scan, all columns": scan,
            "scan, one column": {**scan},
            "10,000 segments, scan": {"seconds": 0.3, "peak_mb": 9.0},
            "10,000 segments, last": {"seconds": 0.5, "peak_mb": 9.0},
        },
    }


def test_every_workload_does_its_work() -> None:
    makers = [
        maker
        for name, maker in inspect.getmembers(workloads, inspect.isfunction)
        if inspect.signature(maker).return_annotation == "Work"
    ]
    assert len(makers) >= 8
    for maker in makers:
        work = maker()
        assert work() is not None
    critical = workloads.check_health_critical()()
    assert isinstance(critical, HealthReport)
    assert critical.severity == "critical"
    well = workloads.check_health()()
    assert isinstance(well, HealthReport)
    assert well.healthy


def test_a_peer_that_is_not_installed_is_named_and_the_rest_measured() -> None:
    def absent() -> Work:
        import no_such_peer  # type: ignore[import-not-found]

        return no_such_peer

    group = Group("work", "ns a call", "one")
    group.add("one", lambda: lambda: sum(range(50)))
    group.add("other", absent)
    result = measure(group, 2)
    assert result["absent"] == ["other"]
    assert [(found["candidate"], found["ratio"]) for found in result["rows"]] == [("one", 1.0)]


def test_a_limit_that_is_missed_is_said(found: dict[str, Any]) -> None:
    assert all(limit.reached for limit in judged(found))
    assert "NO" not in page(found)
    for change in (
        lambda d: d["peers"]["results"][0]["rows"][0].update(ratio=0.71),
        lambda d: d["peers"]["results"][0]["rows"][1].update(ratio=1.9),
        lambda d: d["tail"][0]["rows"][1].update({"p99.9": 20.1}),
        lambda d: d["footprint"].update(import_ms=61.0),
        lambda d: d["store"]["scan, all columns"].update(rows_per_s=9e5),
        lambda d: d["store"]["10,000 segments, last"].update(seconds=1.1),
    ):
        slower = copy.deepcopy(found)
        change(slower)
        assert [limit.reached for limit in judged(slower)].count(False) == 1
        assert page(slower).count(" NO |") == 1


def test_the_page_holds_what_was_found(found: dict[str, Any]) -> None:
    text = page(found)
    for expected in ("a processor", "Not installed: river.", "Not the same.", "0.44", "1,510", "300.00 µs"):
        assert expected in text
