"""Who is measured on what, and how much of it.

One job is one world of one stream: it draws a centre, learned rows, a long healthy stream and a few trials of
every change, and runs all detectors on them. Jobs are independent and seeded by their place, so that they can
be spread over processes; what is calibrated is calibrated on worlds of other seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.detection import measure
from benchmarks.detection.autoregressive import Autoregressive
from benchmarks.detection.beside import exceedances
from benchmarks.detection.digits import Digits
from benchmarks.detection.measure import Detector
from benchmarks.detection.oracles import AlwaysFires, Oracle, limit
from benchmarks.detection.peers import RUN_LENGTH, Candidate
from benchmarks.detection.season import Seasonal
from benchmarks.detection.steady import Steady
from benchmarks.detection.streams import (
    DIM,
    Change,
    Changed,
    Rng,
    Rows,
    World,
    centre,
    inner,
)

JUDGING, TUNING = 1, 2  # the first number of every seed

ORACLE, ALWAYS = "oracle", "always fires"

SLOW = 50.0
"""Microseconds a row beyond which a detector is tried on some streams and changes only."""


@dataclass(frozen=True)
class Stream:
    """A kind of world with the changes it is tried on."""

    name: str
    about: str
    draw: Callable[[Rng], World]
    changes: tuple[Change, ...]
    learned: tuple[int, int] = (2000, 300)
    phases: int = 1  # trials begin at a random row below this
    slow: bool = False  # the slow detectors are tried, too

    def __reduce__(self) -> tuple[Any, ...]:
        return named, (self.name,)  # lambdas do not travel to other processes


@dataclass(frozen=True)
class Size:
    """How much is measured.

    quiet: healthy rows of each world, for slow detectors as many as `budget` seconds of its stated cost allow.
    """

    worlds: int
    quiet: int
    trials: int  # of each change in each world
    horizon: int  # rows after a change in which it must be seen
    budget: float
    tuning_worlds: int
    tuning_rows: int


FULL = Size(40, 50_000, 5, 2000, 0.5, 20, 25_000)
QUICK = Size(4, 5_000, 2, 300, 0.05, 4, 10_000)


def shifts(*sizes: float, support: Sequence[int] = (64,)) -> tuple[Change, ...]:
    return tuple(
        Change(f"{size} rad" + (f" in {parts}" if len(support) > 1 else ""), "shift", size, parts)
        for parts in support
        for size in sizes
    )


STREAMS = (
    Stream(
        "dirichlet-500",
        "Dirichlet(c·p0), c = 500, p0 ~ Dirichlet(2); shifts in 64 and in 8 components; a drift that grows "
        "over 1,000 rows to 0.2 rad; c halved at the same mean",
        lambda rng: Steady(centre(rng), 500.0),
        (
            *shifts(0.05, 0.1, 0.2, 0.4, support=(64, 8)),
            Change("slow to 0.2 rad", "ramp", 0.2, over=1000),
            Change("c halved", "spread", 2.0),
        ),
        slow=True,
    ),
    Stream(
        "dirichlet-2000",
        "the same with c = 2000: half the noise",
        lambda rng: Steady(centre(rng), 2000.0),
        shifts(0.05, 0.1, 0.2, 0.4, support=(64, 8)),
    ),
    Stream(
        "ar-0.5",
        "Gaussian AR(1), ρ = 0.5, in the tangent space at p0, half Dirichlet(2) and half uniform, with as much "
        "noise as c = 500",
        lambda rng: Autoregressive(inner(rng), 500.0, 0.5),
        shifts(0.05, 0.1, 0.2, 0.4),
    ),
    Stream(
        "ar-0.9",
        "the same with ρ = 0.9",
        lambda rng: Autoregressive(inner(rng), 500.0, 0.9),
        shifts(0.05, 0.1, 0.2, 0.4),
    ),
    Stream(
        "season",
        "Dirichlet, c = 500, whose centre goes round a circle of 0.15 rad in 1,440 rows, so that its distance from "
        "p0 is the same all day; with times, Φ, κ and latency, which know no season",
        lambda rng: Seasonal.draw(rng, 500.0, 0.15),
        shifts(0.1, 0.2, 0.4),
        learned=(14 * 1440, 2000),
        phases=1440,
    ),
    Stream(
        "digits",
        "attention over handwritten digits, batches of 256 requests; with times, Φ, κ, latency",
        lambda rng: Digits(),
        (
            Change("only 1 and 7", "mix"),
            Change("slowly only 1 and 7", "mix", over=1000),
            Change("pixel noise grows to 0.3", "noise", 0.3, over=1000),
            Change("10 % of keys blank", "blank", 0.10),
            Change("10 % of keys permuted", "permuted", 0.10),
            Change("2 % of keys permuted", "permuted", 0.02),
        ),
    ),
)


def named(name: str) -> Stream:
    """The stream of that name."""
    return next(stream for stream in STREAMS if stream.name == name)


def seeded(purpose: int, stream: Stream, world: int) -> tuple[Rng, World, Rows]:
    """A world of a stream, with its learned rows: (randomness for what follows, world, rows)."""
    rng = np.random.default_rng((purpose, STREAMS.index(stream), world))
    made = stream.draw(rng)
    return rng, made, made.healthy(rng, stream.learned[0])


def trials(
    rng: Rng, stream: Stream, world: World, change: Change, size: Size
) -> Iterator[tuple[Changed, Rows, int, int]]:
    """(changed world, rows, position of the change in them, row of the stream that rows[0] is)."""
    for _ in range(size.trials):
        changed = world.changed(rng, change)
        before = int(rng.integers(100, 200))  # at no fixed place in the cycle in which a peer looks
        start = stream.learned[0] + int(rng.integers(stream.phases))
        yield changed, changed.rows(rng, before, size.horizon, start), before, start


def calibrated(stream: Stream, candidate: Candidate, size: Size) -> float:
    """The knob that gives a candidate RUN_LENGTH on healthy streams of other seeds than it is judged on.

    Raises ImportError where the candidate is not installed.
    """
    if candidate.knob is None:
        raise ValueError(f"{candidate.name} has no knob")
    count = min(size.tuning_rows, int(4e6 * size.budget / candidate.cost))
    prepared = []
    for number in range(size.tuning_worlds):
        rng, world, learned = seeded(TUNING, stream, number)
        prepared.append((learned, world.healthy(rng, count, stream.learned[0])))
    traces = None
    if candidate.cost > SLOW:  # its statistic does not depend on the limit: compute it once
        traces = [candidate.learn(learned).statistic(rows) for learned, rows in prepared]

    def mean_run(knob: float) -> float:
        if traces is not None:
            alarms = sum(1 for trace in traces for _ in exceedances(trace, knob))
        else:
            alarms = sum(1 for learned, rows in prepared for _ in candidate.learn(learned, knob).alarms(rows))
        return size.tuning_worlds * count / alarms if alarms else math.inf

    return measure.tuned(mean_run, *candidate.knob, RUN_LENGTH)


def oracle_limit(stream: Stream, change: Change, size: Size) -> float | None:
    """The limit that gives the oracle of a change RUN_LENGTH; None where the likelihood is unknown.

    The statistic starts afresh every half of that, so that one stream is as good as many.
    """
    pieces, piece = [], int(RUN_LENGTH / 2)
    count = (
        size.tuning_rows // 5 if change.over else 2 * size.tuning_rows
    )  # a growing change takes 20 times as long
    for number in range(size.tuning_worlds):
        rng, world, _ = seeded(TUNING, stream, number)
        changed = world.changed(rng, change)
        rows = world.healthy(rng, count, stream.learned[0])
        for at in range(0, len(rows), piece):
            statistic = changed.statistic(rows[at : at + piece], stream.learned[0] + at)
            if statistic is None:
                return None
            pieces.append(statistic)
    return limit(pieces, RUN_LENGTH)


def judge(
    stream: Stream,
    number: int,
    size: Size,
    candidates: Sequence[Candidate],
    knobs: dict[str, float],
    limits: dict[str, float],
) -> dict[str, Any]:
    """One job: what all detectors did on one world.

    knobs: by name of the candidate. limits: the oracle's, by name of the change.

    Returns {detector: {"quiet": [rows, alarms, seconds], "early": [rows, alarms], "delays": {change: [...]}}},
    a detector that is not installed being {"absent": why}.
    """
    rng, world, learned = seeded(JUDGING, stream, number)
    start = stream.learned[0]
    detectors: dict[str, tuple[Detector, float]] = {ALWAYS: (AlwaysFires(), 0.1)}
    found: dict[str, Any] = {}
    for candidate in candidates:
        if candidate.cost > SLOW and not stream.slow:
            continue
        if candidate.knob is not None and candidate.name not in knobs:
            found[candidate.name] = {"absent": "not installed"}
            continue
        try:
            knob = (knobs[candidate.name],) if candidate.knob else ()
            rows = learned[: stream.learned[candidate.learned]]
            detectors[candidate.name] = candidate.learn(rows, *knob), candidate.cost
        except ImportError as error:
            found[candidate.name] = {"absent": str(error)}
    quiet = world.healthy(rng, size.quiet, start)
    for name, (detector, cost) in detectors.items():
        count = min(size.quiet, int(1e6 * size.budget / cost))
        began = time.perf_counter()
        alarms = sum(1 for _ in detector.alarms(quiet[:count]))
        spent = time.perf_counter() - began
        found[name] = {"quiet": [count, alarms, spent], "early": [0, 0], "delays": {}}
    for change in stream.changes:
        for changed, rows, before, first in trials(rng, stream, world, change, size):
            tried = dict(detectors)
            if change.name in limits:
                tried[ORACLE] = Oracle(changed, limits[change.name], first), 0.1
                found.setdefault(ORACLE, {"quiet": [0, 0, 0.0], "early": [0, 0], "delays": {}})
            for name, (detector, cost) in tried.items():
                if cost > SLOW and change.support != DIM:
                    continue
                delay, early = measure.delay(detector, rows, before)
                found[name]["delays"].setdefault(change.name, []).append(delay)
                found[name]["early"][0] += before
                found[name]["early"][1] += early
        if change.name in limits and not change.over:
            oracle = Oracle(changed, limits[change.name], start)
            count = len(quiet) // len(stream.changes)
            found[ORACLE]["quiet"][0] += count
            found[ORACLE]["quiet"][1] += sum(1 for _ in oracle.alarms(quiet[:count]))
    return found
