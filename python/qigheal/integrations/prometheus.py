"""Figures for Prometheus: a collector that the caller registers, over a service's monitor or a store.

    from prometheus_client import REGISTRY
    HealthCollector(monitor, registry=REGISTRY)

Nothing is registered by an import, no thread is started, and what is wrong with a store never leaves a
scrape. What is exported stands in `metrics.catalogue`; only its form is Prometheus's here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from qigheal.integrations.metrics.catalogue import METRICS, SECONDS, Metric
from qigheal.integrations.metrics.reading import Reading
from qigheal.integrations.metrics.source import figures_of

if TYPE_CHECKING:
    from qigheal.integrations.metrics.source import Source


class HealthCollector(Collector):
    """The health of a service, as metrics.

    source: a `GeometricHealthMonitor`, for the figures of this process; or the folder of a store, for those of
        all processes that write it and of its ledger. The second reads the healer's rooms, and belongs into a
        sidecar.
    registry: registered there at once; None: by whoever calls `registry.register(collector)`.
    clock: Unix seconds.

    A scrape that finds a store broken gives what can be had, and `qigheal_scrape_errors` says which part
    cannot. Safe for several threads.
    """

    def __init__(
        self,
        source: Source,
        *,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._figures = figures_of(source, clock=clock)
        if registry is not None:
            registry.register(self)

    def describe(self) -> Iterator[Family]:
        """The metrics without their values: a registry asks for their names, and no store is read for that."""
        for metric in METRICS:
            yield _family(metric)

    def collect(self) -> Iterator[Family]:
        """The metrics that have values now."""
        reading = self._figures.read()
        for metric in METRICS:
            family = _filled(metric, reading)
            if family.samples:
                yield family


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily:
    labels = (metric.label,) if metric.label else ()
    if metric.kind == "gauge":
        return GaugeMetricFamily(metric.name, metric.help, labels=labels)
    if metric.kind == "counter":
        return CounterMetricFamily(metric.name, metric.help, labels=labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=labels)


def _filled(metric: Metric, reading: Reading) -> Family:
    family = _family(metric)
    if isinstance(family, HistogramMetricFamily):
        if (found := reading.distributions.get(metric.name)) is not None:
            bounds = [*map(str, SECONDS), "+Inf"]
            family.add_metric((), list(zip(bounds, accumulate(found.counts), strict=True)), found.sum)
        return family
    for label, value in reading.values.get(metric.name, {}).items():
        family.add_metric((label,) if metric.label else (), value)
    return family
