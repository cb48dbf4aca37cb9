"""Measures commits with the probe, so that they can be compared with one another and with health.

A tool for strategies. Every commit answers the same requests. Times are the parent's, taken side by side
with one commit that all are compared with, in several fresh starts: a machine that grows slower meanwhile, or
a start that had bad luck, would else look like a commit. Memory is watched for long, since a cache that
fills grows as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qigcore.fitness import SERVICE
from qigcore.geometry import distance, frechet_mean, from_amplitudes
from qigcore.noninferiority import SignedRank
from qigcore.trends import slope
from qigheal.records import Answer, Target

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench

WARM_UP = 3
"""Answers of each start that are thrown away."""

SETTLED = 20
"""Answers after which memory is looked at: by then what a service fills first is taken to be full."""

ANSWERS = 20
GROWTH_ANSWERS = 60
"""Answers of a commit, and when memory is asked for (those of `SETTLED` included)."""

STARTS, TIMED_ANSWERS = 4, 8
"""Fresh starts when latency is asked for, and answers timed in each."""

WORDS = {
    "phi": ("Φ", ""),
    "kappa": ("κ", ""),
    "basin_drift": ("drift", " rad"),
    "latency": ("latency", " ms"),
    "errors": ("errors", ""),
    "memory": ("memory growth", " MB"),
}
"""What a metric and its unit are called."""

Values = Mapping[str, float]
"""By metric; latency as a multiple of the reference's, memory as MB per answer, drift in radians."""


class Measurer:
    """What commits measure, on requests for finding a patch.

    bench: of the present code. reference: the commit that times are multiples of. A commit is given by
    its name, a patched tree by its diff, the present code by None.
    """

    def __init__(self, bench: Bench, target: Target, reference: str) -> None:
        self.asked = 0  # answers so far
        self._bench = bench
        self._target = target
        self._reference = reference
        self._scales: dict[str, float] = {}

    def measure(self, name: str | None, metrics: Sequence[str], *, turn: int = 0) -> Values:
        """The means of `metrics`; each `turn` has requests of its own.

        Raises ProbeError when the code cannot be probed, RepoError when it cannot be brought there.
        """
        count = GROWTH_ANSWERS if "memory" in metrics else ANSWERS
        requests = self._bench.search_requests(WARM_UP + count, start=turn * (WARM_UP + count))
        with self._bench.probe(name) as probe:
            answers = [probe.ask(*request) for request in requests][WARM_UP:]
        self.asked += len(requests)
        values = {metric: self._value(metric, answers) for metric in metrics if metric != "latency"}
        if "latency" in metrics:
            values["latency"] = 1.0 if name == self._reference else self._slower(name)
        return values

    def calibrate(self, present: Values, observed: Values) -> None:
        """Take what the live service showed for what the present code measured.

        The machine and the load of a probe are not those of the service. A growth that the probe does
        not reproduce stands as it was measured.
        """
        for metric in ("latency", "memory"):
            if observed.get(metric, 0.0) > 0.0 and present.get(metric, 0.0) > 0.0:
                self._scales[metric] = observed[metric] / present[metric]

    def live(self, metric: str, values: Values) -> float:
        """A value as the live service would show it."""
        return self._scales.get(metric, 1.0) * values[metric]

    def excess(self, metric: str, values: Values) -> float:
        """How far out of health a value lies: half-widths beyond the band, of drift limits beyond the limit."""
        value = self.live(metric, values)
        if metric == "basin_drift":
            return max(0.0, value / self._target.drift_limit - 1.0)
        band = self._target.bands[metric]
        away = value - (band.low + band.high) / 2
        return max(0.0, (away if metric in SERVICE else abs(away)) / band.half_width - 1.0)

    def told(self, metric: str, with_it: Values, without: Values) -> str:
        """Two values of a metric for a person."""
        name, unit = WORDS[metric]
        if metric == "basin_drift":
            healthy = f"up to {self._target.drift_limit:.4g}"
        else:
            band = self._target.bands[metric]
            healthy = f"{band.low:.4g} to {band.high:.4g}"
        worse, better = self.live(metric, with_it), self.live(metric, without)
        return f"{name} {worse:.4g} and {better:.4g}{unit} (healthy {healthy})"

    def _value(self, metric: str, answers: Sequence[Answer]) -> float:
        if metric == "basin_drift":
            centre = frechet_mean([a.basin for a in answers], geometry=self._target.geometry)
            here, there = from_amplitudes(np.array([centre, self._target.basin]), self._target.geometry)
            return distance(here, there, self._target.geometry)
        if metric == "memory":
            line = slope([a.rss_mb for a in answers[SETTLED:]])
            return line.slope if abs(line.slope) > line.t * line.stderr else 0.0
        reported = {
            "phi": [a.phi for a in answers],
            "kappa": [a.kappa_eff for a in answers],
            "errors": [a.error_rate for a in answers],
        }
        return float(np.mean(reported[metric]))

    def _slower(self, name: str | None) -> float:
        """How many times as long as the reference's the answers take: the median over several starts."""
        found = []
        requests = self._bench.search_requests(WARM_UP + TIMED_ANSWERS)
        for _ in range(STARTS):
            with self._bench.probe(self._reference) as first, self._bench.probe(name) as second:
                logs = []
                for number, request in enumerate(requests):
                    if number % 2:
                        before = _wall(first.ask(*request))
                        after = _wall(second.ask(*request))
                    else:
                        after = _wall(second.ask(*request))
                        before = _wall(first.ask(*request))
                    logs.append(math.log(after / before))
            found.append(SignedRank(np.array(logs[WARM_UP:])).value)
            self.asked += 2 * len(requests)
        return math.exp(float(np.median(found)))


def _wall(answer: Answer) -> float:
    """Milliseconds of an answer, without those in which other programs had the processors."""
    return max(answer.wall_ms - answer.waited_ms, 1e-6)
