"""What the requests of one process cost, and how many failed: figures of the interval between two readings.

`Meter` is told of each request by the ASGI or WSGI wrapper beside this room, and read by the ticker. No
framework is known here, and nothing is recorded.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from qigcore.estimators import Reading

FOLD_AT = 4096
"""Requests held one by one; beyond that only their sums and their histogram are kept, so that memory is bounded."""

_FINEST_S = 1e-6
_RATIO = 1.02
_BINS = 1200  # from a microsecond to 1.02^1200 of them, six hours

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_MOST_EVENTS = 4096

BROKE_OFF = float("nan")
"""Told to a meter: a request that was told of as good failed after all."""

CANCELLED = float("inf")
"""Told to a meter: a request ended without an answer because the client went away."""


class Interval(NamedTuple):
    """Requests that began to be answered since the reading before.

    mean_ms, p99_ms: until the response began, of all of them, failed ones too; None without requests. p99 is
        the nearest rank from a histogram, at most 2 % too high.
    errors: unhandled exceptions and answers from 500 on, and bodies that broke off by an exception.
    cancelled: requests that ended without an answer because the client went away; they are not in `requests`.
    """

    requests: int
    errors: int
    cancelled: int
    mean_ms: float | None
    p99_ms: float | None

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed, 0 to 1; 0 without requests, for none failed."""
        return min(1.0, self.errors / self.requests) if self.requests else 0.0


class Meter:
    """Counts requests. Safe for several threads; `append` is all that a request pays.

    append(seconds): one request whose response began after so long, with a minus sign where it failed;
        or BROKE_OFF or CANCELLED.
    troubles: how often the measuring itself failed, which the host never sees.
    served: whether any request came to this process, those of qigheal's own routes too.
    """

    def __init__(self) -> None:
        self.served = False
        self.troubles = 0
        self._found: list[float] = []
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._requests = self._errors = self._cancelled = 0
        self._seconds = 0.0
        self._histogram: npt.NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def append(self, seconds: float) -> None:
        found = self._found
        found.append(seconds)
        if len(found) >= FOLD_AT:
            self._fold()

    def troubled(self) -> None:
        self.troubles += 1

    @property
    def waiting(self) -> bool:
        """Whether there were requests since the last reading."""
        return bool(self._found or self._requests)

    def read(self) -> Interval:
        """The figures since the last call; the next call begins anew."""
        self._fold()
        with self._lock:
            counted, histogram = self._requests, self._histogram
            mean = p99 = None
            if counted:
                mean = 1000.0 * self._seconds / counted
                rank = int(np.searchsorted(np.cumsum(histogram), 0.99 * counted))
                p99 = 1000.0 * _FINEST_S * _RATIO ** min(rank + 1, _BINS)
            interval = Interval(counted, self._errors, self._cancelled, mean, p99)
            self._clear()
        return interval

    def after_fork(self) -> None:
        """In a child: what was counted so far is the parent's, and so is the lock."""
        self.__init__()  # type: ignore[misc]

    def _fold(self) -> None:
        with self._lock:
            found = self._found
            count = len(found)
            values = np.array(found[:count])
            del found[:count]  # what was appended meanwhile stays, behind it
            late = int(np.isnan(values).sum())
            answered = values[np.isfinite(values)]
            seconds = np.abs(answered)
            self._errors += late + int(np.signbit(answered).sum())
            self._cancelled += count - late - len(answered)
            self._requests += len(answered)
            self._seconds += float(seconds.sum())
            bins = np.log(np.maximum(seconds, _FINEST_S) / _FINEST_S) / np.log(_RATIO)
            self._histogram += np.bincount(np.minimum(bins.astype(np.int64), _BINS - 1), minlength=_BINS)


class EventMeter(Meter):
    """Also makes Φ, κ and a basin of the kinds of requests, for a service that reports none.

    event(method, template, status): one request, as "GET /items/{id} 2xx"; what no route answers has the
        template "-". See docs/estimators.md for what the figures mean.
    """

    def __init__(self) -> None:
        from qigcore.estimators import EventEstimator  # not for a service that reports its own

        super().__init__()
        self.estimator = EventEstimator()
        self.reading: Reading | None = None
        self._names: dict[tuple[str, str | None, int], str] = {}

    def event(self, method: str, template: str | None, status: int) -> None:
        key = (method, template, status // 100)
        name = self._names.get(key)
        if name is None:
            known = method if method in _METHODS else "OTHER"  # a client may send any word
            name = f"{known} {template or '-'} {status // 100}xx"
            if known == method and len(self._names) < _MOST_EVENTS:
                self._names[key] = name
        self.reading = self.estimator.update(name)
