"""Figures for OpenTelemetry: observable instruments on the caller's meter provider.

    HealthInstruments(monitor, provider)

The same figures as for Prometheus, by the same names, but that counters lack the ending `_total`, which an
exporter to Prometheus adds. There is no observable histogram: the durations are two counters each, `_count` and
`_sum`. The provider's readers decide when it is asked; nothing is sent anywhere from here.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qigheal.errors import MissingExtra, QighealError
from qigheal.integrations.metrics.catalogue import METRICS, Metric
from qigheal.integrations.metrics.reading import Reading
from qigheal.integrations.metrics.source import figures_of

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    from qigheal.integrations.metrics.source import Source


METER = "qigheal"
LABELS = frozenset(metric.label for metric in METRICS if metric.label)


class InstrumentsError(QighealError, ValueError):
    """Two sources on one provider that could not be told apart, or attributes that cannot be had."""


class HealthInstruments:
    """The health of a service, as instruments.

    source: as for `qigheal.integrations.prometheus.HealthCollector`.
    provider: where the instruments are made. Several sources on one are told apart by `attributes`.
    clock: Unix seconds.
    attributes: put beside the labels of each value, such as {"service": "a"}; of the names of the labels none.

    The source is read once for each collection, however many instruments there are. Safe for several threads.
    Raises MissingExtra without the package opentelemetry-api; InstrumentsError where the provider has open
    instruments of the same attributes.
    """

    def __init__(
        self,
        source: Source,
        provider: MeterProvider,
        *,
        clock: Callable[[], float] = time.time,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        try:
            from opentelemetry.metrics import Observation
        except ImportError as error:
            raise MissingExtra("opentelemetry-api", "otel", "exporting to OpenTelemetry") from error
        self._attributes = dict(attributes or {})
        if taken := sorted(LABELS & self._attributes.keys()):
            raise InstrumentsError(
                f"attributes: expected names that no metric has as its label, got {', '.join(taken)}; choose others"
            )
        self._observation = Observation
        self._figures = figures_of(source, clock=clock)
        self._lock = threading.Lock()
        self._reading = Reading()
        self._unasked: set[str] = set()  # instruments that have not observed the present reading yet
        self._shared = _shared(provider)
        self._shared.add(self)

    def close(self) -> None:
        """Observe nothing from now on; others may be made in this one's place."""
        self._shared.remove(self)

    def _observed(self, name: str, metric: Metric) -> Iterator[Observation]:
        reading, given = self._read(name), self._attributes
        if (seconds := reading.distributions.get(metric.name)) is not None:
            yield self._observation(seconds.count if name.endswith("_count") else seconds.sum, {**given})
        for label, value in reading.values.get(metric.name, {}).items():
            yield self._observation(value, {**given, metric.label: label} if metric.label else {**given})

    def _read(self, name: str) -> Reading:
        """The present reading; a new one for an instrument that has observed that already."""
        with self._lock:
            if name not in self._unasked:
                self._reading = self._figures.read()
                self._unasked = set(self._shared.names)
            self._unasked.discard(name)
            return self._reading


class _Shared:
    """The instruments of one provider, which cannot take them back, and makes none of the same name anew."""

    def __init__(self, meter: Meter) -> None:
        self.names: set[str] = set()
        self._open: tuple[HealthInstruments, ...] = ()
        for metric in METRICS:
            self._make(meter, metric)

    def add(self, one: HealthInstruments) -> None:
        with _LOCK:
            if any(other._attributes == one._attributes for other in self._open):
                raise InstrumentsError(
                    f"expected a provider without open instruments of the attributes {one._attributes}, got one "
                    'that has them; close() those, or tell these apart by attributes={"service": ...}'
                )
            self._open = (*self._open, one)

    def remove(self, one: HealthInstruments) -> None:
        with _LOCK:
            self._open = tuple(other for other in self._open if other is not one)

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
        self.names.add(name)

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for one in self._open:
                yield from one._observed(name, metric)

        return observe


_LOCK = threading.Lock()
_PROVIDERS: weakref.WeakKeyDictionary[Any, _Shared] = weakref.WeakKeyDictionary()


def _shared(provider: MeterProvider) -> _Shared:
    with _LOCK:
        found = _PROVIDERS.get(provider)
        if found is None:
            found = _PROVIDERS[provider] = _Shared(provider.get_meter(METER))
        return found
