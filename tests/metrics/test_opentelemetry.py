"""The same figures through OpenTelemetry's own SDK."""

from __future__ import annotations

import builtins
import gc
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qigheal import GeometricHealthMonitor
from qigheal.errors import MissingExtra
from qigheal.integrations.metrics.catalogue import METRICS
from qigheal.integrations.opentelemetry import HealthInstruments, InstrumentsError
from qigheal.integrations.prometheus import HealthCollector
from tests.metrics.scraped import healed_store, record, scrape


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    with GeometricHealthMonitor(history=tmp_path / "store") as monitor:
        record(monitor, 320)
        monitor.flush()
        healed_store(tmp_path / "store", at=1.0)
        yield tmp_path / "store"


@pytest.fixture
def provider() -> Iterator[tuple[Any, Any]]:
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    reader = metrics.export.InMemoryMetricReader()
    made = metrics.MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    yield made, reader
    made.shutdown()


def collected(reader: Any) -> dict[str, float]:
    """By `name` or `name|label`, as `scrape` has them."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        "|".join([metric.name, *map(str, point.attributes.values())]): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_the_figures_are_those_of_prometheus(store: Path, provider: tuple[Any, Any]) -> None:
    clock = time.time()
    HealthInstruments(store, provider[0], clock=lambda: clock)
    found = collected(provider[1])
    expected = {
        name.replace("_total", ""): value
        for name, value in scrape(HealthCollector(store, clock=lambda: clock)).items()
    }
    assert found == expected
    assert found["geometric_health_writers"] == 1
    assert found["healing_attempts"] == 4
    assert found["healing_patch_test_duration_seconds_sum"] == 36.0


def test_units_kinds_and_descriptions_are_the_catalogues(store: Path, provider: tuple[Any, Any]) -> None:
    HealthInstruments(store, provider[0])
    data = provider[1].get_metrics_data()
    found = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    for metric in METRICS:
        if metric.kind == "histogram":
            assert found[f"{metric.name}_sum"].unit == "s"
            continue
        told = found[metric.name.removesuffix("_total")]
        assert (told.unit, told.description) == (metric.unit, metric.help)
        assert bool(getattr(told.data, "is_monotonic", False)) == (metric.kind == "counter")


def test_the_source_is_read_once_a_collection(store: Path, provider: tuple[Any, Any]) -> None:
    HealthInstruments(store, provider[0])
    for times in (1, 2, 3):
        assert collected(provider[1])["geometric_health_checks"] == times


def test_a_service_and_its_close(provider: tuple[Any, Any]) -> None:
    monitor = GeometricHealthMonitor()
    instruments = HealthInstruments(monitor, provider[0])
    assert "geometric_health_phi" not in collected(provider[1])
    record(monitor, 20)
    found = collected(provider[1])
    assert found["geometric_health_phi"] == monitor.snapshots[-1].phi
    assert found["geometric_health_snapshots"] == 20
    assert found["geometric_health_status|normal"] == 1
    assert not [name for name in found if name.startswith("healing")]
    instruments.close()
    assert not collected(provider[1])


def test_a_second_one_goes_on_after_the_first_was_closed(provider: tuple[Any, Any]) -> None:
    first, second = GeometricHealthMonitor(), GeometricHealthMonitor()
    record(first, 20)
    record(second, 30)
    HealthInstruments(first, provider[0]).close()
    assert not collected(provider[1])
    instruments = HealthInstruments(second, provider[0])
    assert collected(provider[1])["geometric_health_snapshots"] == 30
    assert collected(provider[1])["geometric_health_checks"] == 2
    instruments.close()
    instruments.close()
    assert not collected(provider[1])


def test_two_at_once_are_told_apart_by_attributes(provider: tuple[Any, Any]) -> None:
    first, second = GeometricHealthMonitor(), GeometricHealthMonitor()
    record(first, 20)
    record(second, 30)
    HealthInstruments(first, provider[0], attributes={"service": "a"})
    instruments = HealthInstruments(second, provider[0], attributes={"service": "b"})
    for times in (1, 2):
        found = collected(provider[1])
        assert found["geometric_health_snapshots|a"] == 20
        assert found["geometric_health_snapshots|b"] == 30
        assert found["geometric_health_status|b|normal"] == 1
        assert found["geometric_health_checks|a"] == found["geometric_health_checks|b"] == times
    with pytest.raises(InstrumentsError, match=r"close\(\) those"):
        HealthInstruments(second, provider[0], attributes={"service": "b"})
    with pytest.raises(InstrumentsError, match="got severity"):
        HealthInstruments(second, provider[0], attributes={"severity": "c"})
    instruments.close()
    assert "geometric_health_snapshots|b" not in collected(provider[1])
    HealthInstruments(second, provider[0])
    assert collected(provider[1])["geometric_health_snapshots"] == 30


def test_a_provider_is_not_kept_alive() -> None:
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    provider = metrics.MeterProvider(shutdown_on_exit=False)
    HealthInstruments(GeometricHealthMonitor(), provider)
    gone = weakref.ref(provider)
    provider.shutdown()
    del provider
    gc.collect()
    assert gone() is None


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest)

    for name in [each for each in sys.modules if each.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"qigheal\[otel\]"):
        HealthInstruments(GeometricHealthMonitor(), None)  # type: ignore[arg-type]
