"""One-sided bounds for the question "is it worse, and by more than a margin?".

Two estimates of a shift answer to the same three questions (`low`, `high`, `tail`): `Student` for
means of blocks, and `SignedRank` for differences with outliers of their own kind, such as the speed of
processes. Nothing here knows what is measured, or which margin is fair.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from qigcore.errors import TooLittleData
from qigcore.rows import FloatArray

UNBOUNDED = 1e9
"""Stands for "no bound yet": finite, so that records that hold it can be stored as JSON."""

POWER = 0.8
"""Usual in planning experiments: one in five true effects of that size may be missed."""

MOST_RANKED = 400
"""More differences than this are first averaged in runs: the pairwise means grow with their square."""


class Estimate(Protocol):
    """A shift with its doubt. Levels are one-sided probabilities of error, above 0 and below ½."""

    @property
    def value(self) -> float: ...

    def low(self, level: float) -> float:
        """The shift lies below this with probability at most `level`."""
        ...

    def high(self, level: float) -> float:
        """The shift lies above this with probability at most `level`."""
        ...

    def tail(self, margin: float) -> float:
        """Probability of data like these, or more extreme upwards, when the shift is only `margin`."""
        ...


class Student(msgspec.Struct, frozen=True):
    """A mean with its standard error, by Student's t. Without any spread it is taken at its word."""

    value: float
    stderr: float
    freedom: int  # degrees of freedom, at least 1

    def low(self, level: float) -> float:
        return max(-UNBOUNDED, self.value - self._reach(level))

    def high(self, level: float) -> float:
        return min(UNBOUNDED, self.value + self._reach(level))

    def tail(self, margin: float) -> float:
        if self.stderr == 0.0:
            return 0.0 if self.value > margin else 1.0
        return t_tail((self.value - margin) / self.stderr, self.freedom)

    def _reach(self, level: float) -> float:
        return t_quantile(level, self.freedom) * self.stderr if self.stderr > 0.0 else 0.0


def block_mean(values: FloatArray) -> Student:
    """The mean of block values, shape [n] with n at least 2; raises TooLittleData below."""
    _at_least_two(values)
    return Student(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)


class SignedRank:
    """Hodges and Lehmann's shift with Wilcoxon's exact signed-rank bounds.

    Asks of the differences only that they lie symmetrically about the shift, which the difference of
    two measurements made alike does. Up to 29 % outliers do not move it far, and it costs 5 % of the
    data of a t test where a t test would be right. Few differences give no bound at a strict level
    (`UNBOUNDED`): n of them can speak at 2^-n and no stricter. Equal ones are taken at their word.

    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.1-3.3.
    """

    def __init__(self, differences: FloatArray) -> None:
        """differences: shape [n], n at least 2; raises TooLittleData below."""
        _at_least_two(differences)
        if len(differences) > MOST_RANKED:
            runs = np.array_split(differences, MOST_RANKED)
            differences = np.array([run.mean() for run in runs])
        first, second = np.triu_indices(len(differences))
        self._means = np.sort((differences[first] + differences[second]) / 2)
        self._below = _signed_rank_cdf(len(differences))
        self._equal = bool(self._means[0] == self._means[-1])

    @property
    def value(self) -> float:
        return float(np.median(self._means))

    def low(self, level: float) -> float:
        passed = self._passed(level)
        if self._equal:
            return self.value
        return float(self._means[passed - 1]) if passed else -UNBOUNDED

    def high(self, level: float) -> float:
        passed = self._passed(level)
        if self._equal:
            return self.value
        return float(self._means[-passed]) if passed else UNBOUNDED

    def tail(self, margin: float) -> float:
        above = len(self._means) - int(np.searchsorted(self._means, margin, side="right"))
        if self._equal:
            return 0.0 if above else 1.0
        # P(W >= above) = P(W <= most - above), by symmetry.
        return float(self._below[len(self._means) - above])

    def _passed(self, level: float) -> int:
        """How many of the rank sum's smallest values have together at most probability `level`."""
        return int(np.searchsorted(self._below, level, side="right"))


def detectable(estimate: Estimate, level: float, power: float = POWER) -> float | None:
    """The smallest true shift that as many data, as noisy as these, show to be above 0 (lower bound at
    `level`) with probability `power`. None where they bound nothing at that level, or show no noise.

        (z(level) + z(1 - power)) * standard error = half the interval at `level` * (1 + z(1 - power) / z(level))

    with z the upper quantile of the normal distribution; the half interval carries what Student's t or ranks
    add for few data. Source: Bloom, "Minimum Detectable Effects", Evaluation Review 19 (1995), 547-556.
    """
    half = (estimate.high(level) - estimate.low(level)) / 2
    if not 0.0 < half < UNBOUNDED / 4:
        return None
    from statistics import NormalDist  # loads random, which a process that serves has no use for

    normal = NormalDist()
    return half * (1.0 + normal.inv_cdf(power) / normal.inv_cdf(1.0 - level))


def holm(tails: Sequence[float], level: float) -> tuple[float, ...]:
    """The level at which each of several tests stands, so that all together err with at most `level`.

    The smallest tail stands at level / n, the next one at level / (n - 1) if that one was rejected,
    and so on; after the first that is not rejected all stand at its level.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(tails)), key=lambda i: tails[i])
    levels = [level] * len(tails)
    open_tests = len(tails)
    for i in order:
        levels[i] = level / open_tests
        if tails[i] <= levels[i]:
            open_tests -= 1
    return tuple(levels)


def t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's distribution with `freedom` degrees of freedom, relative error below 1e-10.

    Source: Abramowitz and Stegun 26.7.1 by the incomplete beta function.
    """
    x = freedom / (freedom + t * t)
    half = _incomplete_beta(freedom / 2, 0.5, x) / 2
    return half if t >= 0 else 1.0 - half


@functools.lru_cache(maxsize=4096)
def t_quantile(level: float, freedom: int) -> float:
    """The t with P(T > t) = level; level above 0 and at most ½."""
    if not 0.0 < level <= 0.5:
        raise ValueError(f"level: expected a probability above 0 and at most 0.5, got {level!r}")
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > level:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tail(middle, freedom) > level else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b), 0 <= x <= 1, by the continued fraction DLMF 8.17.22 (Lentz' method)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror does not
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1.0 / (1.0 + step * d)
            c = 1.0 + step / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * fraction / a


@functools.lru_cache(maxsize=64)
def _signed_rank_cdf(count: int) -> FloatArray:
    """P(W <= w) for w = 0 to n(n + 1)/2: W is the sum of those of 1 to n that a fair coin picks."""
    mass = np.zeros(count * (count + 1) // 2 + 1)
    mass[0] = 1.0
    for rank in range(1, count + 1):
        picked = np.zeros_like(mass)
        picked[rank:] = mass[:-rank]
        mass = (mass + picked) / 2
    return np.cumsum(mass)


def _at_least_two(values: FloatArray) -> None:
    if len(values) < 2:
        raise TooLittleData(f"a bound needs at least 2 values, got {len(values)}")
