"""One set of values for the metrics of the catalogue. What they are of is not known here."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qigheal.integrations.metrics.catalogue import BY_NAME, SECONDS

log = logging.getLogger("qigheal")


class Distribution:
    """Durations in seconds, counted in the buckets of `SECONDS` and one above; owned by who observes."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def copy(self) -> Distribution:
        """The same as it is now."""
        made = Distribution()
        made.counts, made.sum = list(self.counts), self.sum
        return made


class Reading:
    """Values by metric and by label value, "" for a metric without a label. What is not known is not in it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, float]] = {}
        self.distributions: dict[str, Distribution] = {}

    def put(self, name: str, value: float | None, label: str = "") -> None:
        """Set a value. None and NaN are no value; a label value that the catalogue does not have is passed over."""
        known = label in BY_NAME[name].values if BY_NAME[name].label else not label
        if known and value is not None and not math.isnan(value):
            self.values.setdefault(name, {})[label] = float(value)

    def put_all(self, name: str, values: Mapping[str, float]) -> None:
        """Set a value for every label value of the catalogue; 0 for those not given."""
        for label in BY_NAME[name].values:
            self.put(name, values.get(label, 0.0), label)


class Parts:
    """Keeps what goes wrong with one part of the figures from the others, and from whoever asks.

    A reason is logged when it is a new one, so that a store that is away for a day makes one line.
    """

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    @contextmanager
    def part(self, name: str, reading: Reading) -> Iterator[None]:
        """Whatever fails inside sets `qigheal_scrape_errors` of that part to 1, and goes no further."""
        failed = ""
        try:
            yield
        except Exception as error:  # whatever it is, it is not the host's to handle
            failed = f"{type(error).__name__}: {error}"
        if failed and failed != self._told.get(name):
            log.warning("metrics: the figures of the %s cannot be had: %s", name, failed)
        self._told[name] = failed
        reading.put("qigheal_scrape_errors", 1.0 if failed else 0.0, name)
