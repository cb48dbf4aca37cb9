"""Figures for OpenTelemetry: observable instruments on the caller's meter provider.

    HealthInstruments(monitor, provider)

The same figures as for Prometheus, by the same names, but that counters lack the ending `_total`, which an
exporter to Prometheus adds. There is no observable histogram: the durations are two counters each, `_count` and
`_sum`. The provider's readers decide when it is asked; nothing is sent anywhere from here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from qigheal.errors import MissingExtra
from qigheal.integrations.metrics.catalogue import METRICS, Metric
from qigheal.integrations.metrics.reading import Reading
from qigheal.integrations.metrics.source import figures_of

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    from qigheal.integrations.metrics.source import Source


METER = "qigheal"


class HealthInstruments:
    """The health of a service, as instruments.

    source: as for `qigheal.integrations.prometheus.HealthCollector`.
    provider: where the instruments are made; it cannot take them back, so after `close` they observe nothing.
    clock: Unix seconds.

    The source is read once for each collection, however many instruments there are. Safe for several threads.
    Raises MissingExtra without the package opentelemetry-api.
    """

    def __init__(
        self, source: Source, provider: MeterProvider, *, clock: Callable[[], float] = time.time
    ) -> None:
        try:
            from opentelemetry.metrics import Observation
        except ImportError as error:
            raise MissingExtra("opentelemetry-api", "otel", "exporting to OpenTelemetry") from error
        self._observation = Observation
        self._figures = figures_of(source, clock=clock)
        self._lock = threading.Lock()
        self._reading = Reading()
        self._unasked: set[str] = set()  # instruments that have not observed the present reading yet
        self._names: set[str] = set()
        self._closed = False
        meter = provider.get_meter(METER)
        for metric in METRICS:
            self._make(meter, metric)

    def close(self) -> None:
        """Observe nothing from now on."""
        self._closed = True

    def _make(self, meter: Meter, metric: Metric) -> None:
        name, unit, told = metric.name, metric.unit, metric.help
        if metric.kind == "gauge":
            meter.create_observable_gauge(name, [self._asked(name, metric)], unit, told)
        elif metric.kind == "counter":
            plain = name.removesuffix("_total")
            meter.create_observable_counter(plain, [self._asked(plain, metric)], unit, told)
        else:
            for end, of in (("_count", "1"), ("_sum", unit)):
                meter.create_observable_counter(
                    name + end, [self._asked(name + end, metric)], of, f"{told}: {end[1:]}"
                )

    def _asked(self, name: str, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        """What the instrument `name` is asked by."""
        self._names.add(name)

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            if self._closed:
                return
            reading = self._read(name)
            if (seconds := reading.distributions.get(metric.name)) is not None:
                yield self._observation(seconds.count if name.endswith("_count") else seconds.sum)
            for label, value in reading.values.get(metric.name, {}).items():
                yield self._observation(value, {metric.label: label} if metric.label else {})

        return observe

    def _read(self, name: str) -> Reading:
        """The present reading; a new one for an instrument that has observed that already."""
        with self._lock:
            if name not in self._unasked:
                self._reading = self._figures.read()
                self._unasked = set(self._names)
            self._unasked.discard(name)
            return self._reading
