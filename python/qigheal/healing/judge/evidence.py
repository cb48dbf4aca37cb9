"""What the pairs of a trial come to: excesses to score, and one question of non-inferiority per metric.

No decision is taken here, and no level of error is known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qigcore.errors import TooLittleData
from qigcore.fitness import SERVICE, Excesses, Limits, Side, excesses, spread
from qigcore.noninferiority import Estimate, SignedRank, block_mean
from qigcore.rows import FloatArray
from qigheal.healing.judge.tails import growing, slow_tail
from qigheal.records import Answer, Pair, Trial
from qigheal.settings import HealSettings

EXCESS_MARGIN = 0.05
RELATIVE_MARGIN = 0.01
"""How much further out of its band Φ, κ or drift may be, in half-widths (drift: of its limit); or the
second figure as a part of how far out it is without the patch, when that is more.

300 healthy snapshots fix the edge of a band of mean ± 3 sd to a standard error of sd·√(5.5 / 300), which
is 0.045 half-widths: a smaller difference is no knowledge about health. And what lies 100 half-widths
outside is as lost at 101.
"""

RESOLUTION_MS = 0.05
"""Differences of wall time smaller than this are the pipe's and the scheduler's, whatever part of a very
short answer they are: no margin is below it, as no learned band takes latency to vary by less."""

PRICE_MEMORY = 2.0
"""Where memory is the price, what the process holds may grow so many times: no healthy band of it is learned."""

GROWTH_ANSWERS = 10
"""Where no healthy growth was learned, memory may grow by its margin in so many answers."""


@dataclass(frozen=True, slots=True)
class Question:
    """Is the degradation below the margin? A `ratio` is asked for by its logarithm."""

    margin: float
    estimate: Estimate
    ratio: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """The pairs, summed up. `guards` are the questions that count; `seen` is what the parent's own
    clock and the kernel's count of memory say of latency and memory growth, whatever the guards."""

    limits: Limits
    found: Excesses
    chance: dict[str, float]  # the excess by which identical sides differ, by term of the score
    guards: dict[str, Question]
    seen: dict[str, Question]
    doubts: tuple[str, ...] = ()  # what no guard sees


def gather(trial: Trial, settings: HealSettings) -> Evidence:
    """The evidence of a trial with at least two rounds; raises TooLittleData with fewer.

    Φ, κ, drift: the excess outside the band, by bootstrap over starts of the processes. Errors: the
    difference of the error rates, by starts. Latency and memory: the logarithm of after / before as the
    parent measured it, one value for each start of the processes, since it is the processes that differ by
    chance. Memory growth: MB per answer, likewise. CPU time decides nothing: it does not see waiting, and
    of answers of a few milliseconds it was found to be the noisier clock.

    Where the patch takes longer than a usual start to show its effect, the answers before that count for
    errors alone: a bounded cache grows like an unbounded one until it is full, and is slower only then.
    """
    target, patch = trial.target, trial.patch
    bands = {
        name: (band.low, band.high)
        for name, band in target.bands.items()
        if name in ("phi", "kappa", *SERVICE)
    }
    concerned = {*trial.named, *patch.heals}
    limits = Limits(
        basin=np.array(target.basin),
        drift_limit=target.drift_limit,
        bands=bands,
        service=tuple(name for name in SERVICE if name in concerned and name in bands),
        geometry=target.geometry,
    )
    wait = settings.unsettled(patch.batches_needed)
    pairs, control = _settled(trial, wait)
    rounds = _Rounds.of(pairs)
    latency_ms, growth_scale = _live_scales(trial, rounds)

    def sides(pairs: Sequence[Pair]) -> tuple[Side, Side]:
        return (
            _side(pairs, [pair.before for pair in pairs], latency_ms, growth_scale),
            _side(pairs, [pair.after for pair in pairs], latency_ms, growth_scale),
        )

    before, after = sides(pairs)
    found = excesses(before, after, limits, seed=trial.seed)

    guards: dict[str, Question] = {
        metric: Question(
            max(EXCESS_MARGIN, RELATIVE_MARGIN * found.before[metric]), found.degradation(metric)
        )
        for metric in ("phi", "kappa", "basin_drift")
        if metric in found.after
    }
    failing = np.array([[pair.before.error_rate, pair.after.error_rate] for pair in trial.pairs])
    blocks = np.array([pair.round for pair in trial.pairs])
    guards["errors"] = Question(settings.error_margin, block_mean(_by(blocks, failing[:, 1] - failing[:, 0])))
    slower = max(settings.latency_margin, RESOLUTION_MS / rounds.wall_ms)
    guards["latency"] = Question(math.log1p(slower), SignedRank(rounds.latency), ratio=True)
    guards["memory"] = Question(math.log1p(settings.memory_margin), SignedRank(rounds.memory), ratio=True)
    rss_mb = float(np.mean([pair.before.rss_mb for pair in pairs]))
    tolerated = settings.memory_margin * rss_mb / GROWTH_ANSWERS
    if "memory" in bands:
        tolerated = max(tolerated, target.bands["memory"].half_width)
    guards["memory_growth"] = Question(tolerated, SignedRank(rounds.growth_after - rounds.growth_before))
    seen = {"latency": guards["latency"], "memory": guards["memory_growth"]}

    # A price may be paid, as long as the service stays in its healthy band of that metric.
    for price in patch.paid & {*SERVICE} & {*bands}:
        edge = bands[price][1]
        if price == "latency":
            # Nor is it a price where it was outside already, and gets no worse.
            spare = min(math.log(latency_ms / edge), -math.log1p(slower))
            guards["latency"] = Question(0.0, SignedRank(rounds.latency + spare), ratio=True)
        elif price == "errors":
            guards["errors"] = Question(0.0, block_mean(_by(blocks, failing[:, 1] - edge)))
        else:
            guards["memory"] = Question(math.log(PRICE_MEMORY), SignedRank(rounds.memory), ratio=True)
            # The same of growth: where it was outside already, its guard stays what it is without a price.
            if SignedRank(growth_scale * rounds.growth_before).value <= edge:
                guards["memory_growth"] = Question(0.0, SignedRank(growth_scale * rounds.growth_after - edge))
    return Evidence(
        limits=limits,
        found=found,
        chance=spread(*sides(control), limits, len(pairs)),
        guards=guards,
        seen=seen,
        doubts=_doubts(trial, pairs, rounds, _price_ratio(trial, bands, latency_ms)),
    )


def _price_ratio(trial: Trial, bands: dict[str, tuple[float, float]], latency_ms: float) -> float:
    """How many times as long an answer may take where latency is the price; 1 where it is not."""
    paid = "latency" in trial.patch.paid and "latency" in bands
    return bands["latency"][1] / latency_ms if paid else 1.0


def _doubts(trial: Trial, pairs: Sequence[Pair], rounds: _Rounds, ratio: float) -> tuple[str, ...]:
    walls = np.array([[_wall(pair.before), _wall(pair.after)] for pair in pairs])
    found = (
        slow_tail(walls[:, 0], walls[:, 1], ratio, RESOLUTION_MS),
        "" if trial.patch.price == "memory" else growing(rounds.growth_before, rounds.growth_after),
    )
    return tuple(doubt for doubt in found if doubt)


def _settled(trial: Trial, wait: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs from the `wait`th of each start on, and the controls of their blocks."""
    asked: dict[int, int] = {}
    pairs = []
    for pair in trial.pairs:
        asked[pair.round] = asked.get(pair.round, 0) + 1
        if asked[pair.round] > wait:
            pairs.append(pair)
    blocks = {pair.block for pair in pairs}
    return pairs, [against for against in trial.control if against.block in blocks]


@dataclass(frozen=True, slots=True)
class _Rounds:
    """One value for each start of the processes."""

    wall_ms: float  # of the unpatched side, typically
    latency: FloatArray  # logarithm of after / before
    memory: FloatArray  # the same
    growth_before: FloatArray  # MB per answer, by least squares
    growth_after: FloatArray

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> _Rounds:
        found = []
        for number in sorted({pair.round for pair in pairs}):
            inside = [pair for pair in pairs if pair.round == number]
            slower = np.array([math.log(_wall(pair.after) / _wall(pair.before)) for pair in inside])
            before = np.array([pair.before.rss_mb for pair in inside])
            after = np.array([pair.after.rss_mb for pair in inside])
            found.append(
                (
                    # Hodges and Lehmann's centre: one answer that waited for a disk is not the round.
                    SignedRank(slower).value,
                    math.log(max(float(after.mean()), 1e-6) / max(float(before.mean()), 1e-6)),
                    _slope(before),
                    _slope(after),
                )
            )
        if len(found) < 2:
            raise TooLittleData(f"a trial is judged by 2 starts of its processes or more, got {len(found)}")
        wall_ms = float(np.median([_wall(pair.before) for pair in pairs]))
        return cls(wall_ms, *np.array(found).T)


def _live_scales(trial: Trial, rounds: _Rounds) -> tuple[float, float]:
    """The unpatched side's latency in ms, and what turns MB per answer into the service's MB per snapshot.

    A trial's machine and load are not the live ones. So what the live service showed is taken for the
    unpatched side, and the patched side lies from there as far as the parent saw it. A growth that the
    trial does not reproduce stands as it was measured.
    """
    observed = trial.observed.get("latency", 0.0)
    latency = observed if observed > 0.0 else rounds.wall_ms
    growth = trial.observed.get("memory", 0.0)
    measured = block_mean(rounds.growth_before)
    if growth > 0.0 and measured.low(0.05) > 0.0:
        return latency, growth / measured.value
    return latency, 1.0


def _side(pairs: Sequence[Pair], answers: Sequence[Answer], latency_ms: float, growth_scale: float) -> Side:
    starts = [pair.round for pair in pairs]
    rss = np.array([answer.rss_mb for answer in answers])
    slower = [_wall(answer) / _wall(pair.before) for answer, pair in zip(answers, pairs, strict=True)]
    return Side(
        phi=np.array([answer.phi for answer in answers]),
        kappa=np.array([answer.kappa_eff for answer in answers]),
        basins=np.array([answer.basin for answer in answers]),
        errors=np.array([answer.error_rate for answer in answers]),
        latency=latency_ms * np.array(slower),
        memory=growth_scale * _increments(np.array(starts), rss),
        # What is drawn again is a start of the processes with all of its answers: a level of its own that a
        # process may have is no more known after a hundred of its answers than after ten.
        blocks=np.array([pair.round for pair in pairs]),
    )


def _increments(starts: npt.NDArray[np.int_], rss: FloatArray) -> FloatArray:
    """Growth from one answer to the next; the first of a process is given the mean of its others."""
    found = np.zeros(len(rss))
    for start in np.unique(starts):
        inside = np.flatnonzero(starts == start)
        if len(inside) > 1:
            steps = np.diff(rss[inside])
            found[inside] = [steps.mean(), *steps]
    return found


def _slope(values: FloatArray) -> float:
    """Least squares, per position."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    return float(x @ values / (x @ x)) if len(values) > 1 else 0.0


def _wall(answer: Answer) -> float:
    """Milliseconds of an answer, without those in which other programs had the processors.

    Sleeping, reading and waiting for locks are the code's own and stay in.
    """
    return max(answer.wall_ms - answer.waited_ms, 1e-6)


def _by(labels: npt.NDArray[np.integer], values: FloatArray) -> FloatArray:
    """The mean of the values under each label, in the order of the labels."""
    _, index = np.unique(labels, return_inverse=True)
    found: FloatArray = np.bincount(index, weights=values) / np.bincount(index)
    return found
