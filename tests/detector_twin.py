"""The naive twin of the change detector: each row once more, as plainly as the formulas read.

Nothing is shared with the loops but the frozen records; `qigcore.calibration.limits`, whose own tests
stand beside SciPy, says the limits. Slow: lists of numpy vectors, nothing padded, nothing in place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qigcore.baseline import Baseline
from qigcore.calibration.limits import bets_limit, chart_limits, chart_rate, figure_limits, longest_step
from qigcore.rows import BIT, METRICS
from tests.reference import ar1_residual, exact_amplitude, sr_step

WEIGHTS = (1.0, 0.3, 0.1, 0.03)
STAKES = np.array([0.95, 0.5, 0.2, 0.08])


def wins(z: Any, bound: Any) -> Any:
    """What a bet on z wins of its stake: at most 1, and nothing on average where z has its bound as mean."""
    return (z - bound) / (1.0 + bound)


class Twin:
    """`step` takes a row and returns the set of events; `shifted` answers an alarm as the detector does."""

    def __init__(self, baseline: Baseline, run_length: float) -> None:
        self.baseline, self.learned = baseline, baseline.calibration
        learned = self.learned
        assert learned is not None
        self.dim = baseline.dim
        self.center, self.scale = np.array(learned.center), np.array(learned.scale)
        self.memory = np.array(learned.memory) if learned.memory else np.zeros(self.dim)
        self.white = learned.matrix if learned.whitener else np.diag(1.0 / self.scale)
        self.bound = {1.0: np.array(learned.up), -1.0: np.array(learned.down)}
        self.limits = chart_limits(learned, chart_rate(run_length))
        self.figure_limits = figure_limits(learned, chart_rate(run_length))
        self.round = np.array(learned.figure_whitener)
        self.longest = longest_step(learned, chart_rate(run_length))
        self.sure = bets_limit(run_length)
        self.needed = max(math.log(1e4), math.log(10.0 * run_length))
        self.groups = 3 if learned.signals else 2
        self.quiet = learned.trace + len(learned.signals)
        self.quiet_sd = math.sqrt(2.0 * (learned.trace2 + len(learned.signals)))
        self.cleared()
        self.follows()

    def follows(self) -> None:
        """Nothing is known of a row before the next."""
        self.before: Any = None
        self.figure_before: dict[str, float | None] = dict.fromkeys(self.learned.signals)

    def cleared(self) -> None:
        self.alarmed = self.confirmed = False
        self.statistic = self.wealth = 0.0
        self.means = [np.zeros(self.dim) for _ in WEIGHTS]
        self.charts = np.zeros(7)
        self.figure_means = [np.zeros(len(self.learned.signals)) for _ in WEIGHTS]
        self.own = {side: np.zeros((4, self.dim)) for side in (1.0, -1.0)}
        self.along = np.zeros((4, 4))
        self.bet = {(name, side): np.zeros(4) for name in self.learned.signals for side in (1.0, -1.0)}
        self.parts = [0.0, 0.0, 0.0]
        self.evidence = 0.0
        self.clean: list[Any] = []

    def step(self, basin: Any, head: Any = None) -> set[str]:
        amplitude = None
        if head is None or not head["repaired"] & BIT["basin_coords"]:
            amplitude = exact_amplitude(basin, self.baseline.geometry)
        if amplitude is None:
            self.before = None
        else:
            self.state(amplitude)
        whole = self.figures(amplitude, head)
        self.statistic = float(self.charts.max())
        if not self.confirmed:
            self.wealth = sum(self.parts)
        sure = self.wealth >= self.sure
        if not self.alarmed:
            fast = self.statistic > 1.0
            self.alarmed, self.confirmed = fast or sure, sure
            return {name for name, is_so in (("fast", fast), ("sure", sure)) if is_so}
        events = set()
        if sure and not self.confirmed:
            self.confirmed = True
            events.add("sure")
        if amplitude is not None and whole and self.back(np.concatenate([self.x, self.scores])):
            self.cleared()
            events.add("recovered")
        return events

    def state(self, amplitude: Any) -> None:
        deviation = amplitude - self.center
        left = ar1_residual(deviation, self.before, self.memory)
        self.before = deviation
        left = np.clip(left, -6.0 * self.scale, 6.0 * self.scale)
        self.x = x = self.white @ left
        length = float(x @ x)
        step = min(1.0, math.sqrt(self.longest / length)) if length else 1.0
        self.charts[0] = length / self.limits[0]
        for k, weight in enumerate(WEIGHTS[1:], start=1):
            size = float(np.linalg.norm(self.means[k]))
            if size > 0.0 and not self.confirmed:
                z = np.clip(self.means[k] @ x / size / 3.0, -1.0, 1.0)
                self.along[k] = sr_step(self.along[k], STAKES, wins(z, self.learned.directions[k - 1]))
            self.means[k] = (1.0 - weight) * self.means[k] + weight * step * x
            self.charts[k] = self.means[k] @ self.means[k] * (2.0 - weight) / weight / self.limits[k]
        if self.confirmed:
            return
        self.parts[2] = float(self.along.mean()) * 4 / 3 / self.groups  # of three averages
        z = np.clip(left / (3.0 * self.scale), -1.0, 1.0)
        for side, wealth in self.own.items():
            self.own[side] = sr_step(wealth, STAKES[:, None], wins(side * z, self.bound[side]))
        self.parts[0] = float(np.mean(list(self.own.values()))) / self.groups

    def figures(self, amplitude: Any, head: Any) -> bool:
        """Whether all that the host reports was usable."""
        whole, present = True, 0
        self.scores = np.zeros(len(self.learned.signals))
        for i, (name, signal) in enumerate(self.learned.signals.items()):
            value = math.nan
            if name == "basin_drift":
                if amplitude is not None:
                    gap = np.linalg.norm(amplitude - np.array(self.baseline.basin))
                    simplex = self.baseline.geometry == "simplex"
                    value = (4.0 if simplex else 2.0) * math.asin(min(gap / 2.0, 1.0))
            elif head is not None and not head["repaired"] & BIT[METRICS[name]]:
                value = float(head[METRICS[name]])
            if not math.isfinite(value):
                self.figure_before[name] = None
                whole &= head is None or name == "basin_drift"
                continue
            value = math.log(max(value, 0.0) + signal.floor) if signal.log else value
            now = ar1_residual(value - signal.center, self.figure_before[name], signal.memory) / signal.scale
            self.figure_before[name] = value - signal.center
            self.scores[i] = np.clip(now, -6.0, 6.0)
            present += 1
            for side, bound in ((1.0, signal.up), (-1.0, signal.down)):
                if not self.confirmed:
                    z = np.clip(side * now / 3.0, -1.0, 1.0)
                    self.bet[name, side] = sr_step(self.bet[name, side], STAKES, wins(z, bound))
        if present == len(self.scores) > 0 and self.learned.figures is not None:
            score = self.round @ np.clip(self.scores, -3.0, 3.0)
            for k, weight in enumerate(WEIGHTS[1:], start=1):
                self.figure_means[k] = (1.0 - weight) * self.figure_means[k] + weight * score
                length = self.figure_means[k] @ self.figure_means[k]
                self.charts[3 + k] = length * (2.0 - weight) / weight / self.figure_limits[k]
        if self.bet:
            self.parts[1] = float(np.mean(list(self.bet.values()))) / self.groups
        return whole

    # --- the way back: what a row says of the shift, by the docstring of Core._back

    def shifted(self, mean: Any, rows: float, noise: float) -> None:
        self.shift, self.noise, self.age = np.array(mean), noise, min(max(rows, 1.0), 100.0)
        self.evidence, self.clean = 0.0, []

    def back(self, x: Any) -> bool:
        power = float(self.shift @ self.shift)
        length = power - (self.quiet + self.quiet_sd) * self.noise
        if length < 0.5 * power:
            self.learn(x)
            return self.age >= 50 and power <= self.quiet * (self.noise + 1.0 / self.learned.rows)
        gain = np.clip(length / power * (0.5 * length - self.shift @ x), -3.5, 3.5)
        if self.evidence + gain <= 0.0:
            self.learn(x)
            return False
        self.evidence += gain
        self.clean.append(x)
        k = len(self.clean)
        if self.evidence < self.needed or k < 5:
            return False
        total = np.sum(self.clean, axis=0)
        if total @ total / k <= (self.quiet + 4.0 * self.quiet_sd) * (1.0 + k / self.learned.rows):
            return True
        self.shift, self.noise, self.age = total / k, 1.0 / k, float(k)
        self.evidence, self.clean = 0.0, []
        return False

    def learn(self, x: Any) -> None:
        rows = [*self.clean, x]
        n = float(len(rows))
        self.age = min(self.age + n, max(100.0, n))
        weight = n / self.age
        self.noise = (1.0 - weight) ** 2 * self.noise + weight**2 / n
        self.shift = self.shift + (np.mean(rows, axis=0) - self.shift) * weight
        self.evidence, self.clean = 0.0, []
