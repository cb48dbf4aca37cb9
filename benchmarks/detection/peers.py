"""The detectors that are compared: ours, and those that users of Python have.

A peer that takes one figure gets the one a user would give it: the drift, the distance from the mean of the
learned rows, as it is or standardised by the learned rows' mean and standard deviation. Peers that learn while
they run are shown the learned rows first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.detection.measure import Detector, from_first
from benchmarks.detection.streams import DIM, Floats, Rows
from qigcore import geometry

RUN_LENGTH = 1e4
"""Rows between false alarms that every detector with a knob for it is set to."""

SHOWN = 2000
"""The most learned rows that a peer is shown: more change nothing but the time."""


@dataclass(frozen=True)
class Candidate:
    """One line of the tables.

    learn: makes a detector from learned rows; with a `knob`, from learned rows and its value. learned: how many
    of the stream's two numbers of learned rows it gets, 0 for the first. cost: microseconds a row, roughly;
    slow ones see less of each healthy stream, and are left out where `plan` says so.
    """

    name: str
    learn: Callable[..., Detector]
    cost: float
    knob: tuple[float, float] | None = None  # (low, high); the run length rises along it
    learned: int = 0
    note: str = ""


class Ours:
    """`qigcore.detectors.ChangeDetector`, or another with its `run`."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def alarms(self, rows: Rows) -> Iterator[int]:
        return from_first(lambda part, _: self._detector.run(part.given()), rows)

    @classmethod
    def learn(cls, rows: Rows) -> Ours:
        from qigcore.baseline import Baseline
        from qigcore.detectors import ChangeDetector

        return cls(ChangeDetector(Baseline.learn(rows.given()), average_run_length=RUN_LENGTH))


class Scalar:
    """What a one-figure detector is given: the drift of a row from the mean of the learned ones."""

    def __init__(self, learned: Rows, standardised: bool) -> None:
        mean = geometry.frechet_mean(learned.basins)
        self._point = geometry.from_amplitudes(mean)
        drift = geometry.distances(learned.basins, self._point)
        self._mean, self._sd = (float(drift.mean()), float(drift.std())) if standardised else (0.0, 1.0)

    def of(self, rows: Rows) -> Floats:
        return (geometry.distances(rows.basins, self._point) - self._mean) / self._sd


class River:
    """A detector of river on the drift."""

    def __init__(self, learned: Rows, detector: Any, standardised: bool) -> None:
        self._scalar = Scalar(learned, standardised)
        for value in self._scalar.of(learned[-SHOWN:]).tolist():
            detector.update(value)
        self._learned = detector

    def alarms(self, rows: Rows) -> Iterator[int]:
        detector = copy.deepcopy(self._learned)
        for at, value in enumerate(self._scalar.of(rows).tolist()):
            detector.update(value)
            if detector.drift_detected:
                yield at
                detector = copy.deepcopy(self._learned)


class RiverEach:
    """A detector of river on each amplitude, standardised; any of them alarms."""

    def __init__(self, learned: Rows, make: Callable[[], Any]) -> None:
        units = geometry.amplitudes(learned.basins)
        self._mean, self._sd = units.mean(axis=0), units.std(axis=0)
        self._learned = [make() for _ in range(DIM)]
        for detector, column in zip(self._learned, self._columns(learned[-SHOWN:]).T, strict=True):
            for value in column.tolist():
                detector.update(value)

    def _columns(self, rows: Rows) -> Floats:
        return (geometry.amplitudes(rows.basins) - self._mean) / self._sd

    def alarms(self, rows: Rows) -> Iterator[int]:
        detectors = copy.deepcopy(self._learned)
        for at in range(len(rows)):
            fired = False
            for detector, value in zip(detectors, self._columns(rows[at : at + 1])[0].tolist(), strict=True):
                detector.update(value)
                fired |= detector.drift_detected
            if fired:
                yield at
                detectors = copy.deepcopy(self._learned)


def adwin(learned: Rows) -> Detector:
    from river.drift import ADWIN

    return River(learned, ADWIN(), standardised=False)


def adwin_tuned(learned: Rows, knob: float) -> Detector:
    """δ = 1/knob: the larger the knob, the rarer the alarms."""
    from river.drift import ADWIN

    return River(learned, ADWIN(delta=1.0 / knob), standardised=True)


def adwin_each(learned: Rows) -> Detector:
    from river.drift import ADWIN

    return RiverEach(learned, lambda: ADWIN(delta=0.002 / DIM))


def page_hinkley(learned: Rows) -> Detector:
    from river.drift import PageHinkley

    return River(learned, PageHinkley(), standardised=False)


def page_hinkley_tuned(learned: Rows, knob: float) -> Detector:
    from river.drift import PageHinkley

    return River(learned, PageHinkley(threshold=knob), standardised=False)


def page_hinkley_half(learned: Rows, knob: float) -> Detector:
    """δ of half a standard deviation, the textbook choice for a shift of one."""
    from river.drift import PageHinkley

    return River(learned, PageHinkley(threshold=knob, delta=0.5), standardised=True)


def kswin(learned: Rows) -> Detector:
    from river.drift import KSWIN

    return River(learned[-100:], KSWIN(seed=1), standardised=False)


CANDIDATES = (
    Candidate("qigheal", Ours.learn, 1.5),
    Candidate("qigheal, few learned rows", Ours.learn, 1.5, learned=1),
    Candidate("river ADWIN", adwin, 0.3, note="default, on the drift"),
    Candidate(
        "river ADWIN, tuned",
        adwin_tuned,
        0.4,
        (1.001, 1e100),
        note="on the standardised drift, δ by bisection (knob: 1/δ)",
    ),
    Candidate("river ADWIN × 64", adwin_each, 25.0, note="one on each standardised amplitude, δ = 0.002/64"),
    Candidate("river PageHinkley", page_hinkley, 0.6, note="default, on the drift"),
    Candidate(
        "river PageHinkley, tuned", page_hinkley_tuned, 0.6, (0.01, 100.0), note="threshold by bisection"
    ),
    Candidate(
        "river PageHinkley, tuned, δ = ½ sd",
        page_hinkley_half,
        0.6,
        (0.5, 5000.0),
        note="on the standardised drift, threshold by bisection",
    ),
    Candidate("river KSWIN", kswin, 200.0, note="default, on the drift"),
)
