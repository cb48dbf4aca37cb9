"""What is learned for detection, in the form in which a baseline's file keeps it.

Fields are only ever appended, with defaults, as everywhere in that file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
import numpy as np

from qigcore.calibration.season import Season
from qigcore.errors import BaselineError
from qigcore.rows import METRICS, FloatArray

WEIGHTS = (1.0, 0.3, 0.1, 0.03)
"""Weights of the moving averages that are charted: 1 sees one snapshot alone, 0.03 some 65 of them."""

CLIP = 3.0
"""Standard deviations at which the bounded tests clip a signal.

A bet cannot win more than its signal's bound: the lower, the more the large changes take; the higher, the
less of a change's size is seen at all.
"""


REACH = 6.0
"""Standard deviations at which a component's residual is clipped before it is whitened.

Of 64 smooth components one is that far out in 10 million rows; of sparse ones, one that the window never
showed would count for thousands of them.
"""

LARGEST = 1e100
"""Beyond, no number of a calibration makes sense, and products of a few of them would overflow."""


def _expect(name: str, values: Iterable[float], low: float, high: float = LARGEST) -> None:
    """Raise BaselineError for a number outside [low, high]; NaN lies outside."""
    for value in values:
        if not low <= value <= high:
            raise BaselineError(f"calibration.{name}: expected {low:g} to {high:g}, got {value}")


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One figure as the bounded tests see it: z = clip((x_t − memory·x_{t−1})/(CLIP·scale), −1, 1).

    x is the figure (its logarithm for `log`) less `center`. up and down bound the mean of z and of −z in
    health, 0 to 1.
    """

    center: float
    scale: float  # sd of x_t − memory·x_{t−1}, floored; of the logarithm for `log`
    memory: float  # AR(1) coefficient, 0 where there is none
    up: float
    down: float
    log: bool = False
    floor: float = 0.0  # added before the logarithm is taken, in the figure's unit

    def __post_init__(self) -> None:
        _expect("signals.center", [self.center], -LARGEST)
        _expect("signals.scale", [self.scale], 1e-12)
        _expect("signals.memory", [self.memory], -0.999, 0.999)
        _expect("signals.up and down", [self.up, self.down], 0.0, 1.0)
        _expect("signals.floor", [self.floor], 1e-12 if self.log else 0.0)


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The largest squared lengths of single rows: beyond `start` lies `share` of them, by a generalised Pareto law.

    shape 0 is an exponential tail, whose mean excess is `scale`.
    """

    start: float
    share: float
    scale: float
    shape: float

    def __post_init__(self) -> None:
        _expect("tail.start, scale", [self.start, self.scale], 0.0)
        _expect("tail.share, shape", [self.share, self.shape], 0.0, 1.0)


class Spread(msgspec.Struct, frozen=True):
    """Of the squared length of whitened rows: its mean, half of the variance that normal rows would give it, and what
    its variance has beyond that; by how much more a moving average varies than one of independent rows, per
    weight of WEIGHTS; the upper tail of single rows.
    """

    trace: float
    trace2: float
    excess4: float
    inflation: tuple[float, ...]
    tail: Tail | None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Of `rows` healthy snapshots: what a detector needs to know.

    center: mean amplitudes, length dim. scale: sd of their residuals. memory: AR(1) coefficients, or empty
        where amplitudes have none.
    whitener: the lower triangular W, rows one after another up to the diagonal, float64 little-endian, such
        that W·residual has nearly the identity as covariance. Empty: amplitudes are only scaled (`scale`).
    trace, trace2, excess4: of the squared length of W·residual on rows that W was not learned from: its mean,
        half of the variance that normal rows would give it, and what its variance has beyond that.
    inflation: by how much longer the variance of a moving average is than that of independent rows, per
        weight of WEIGHTS.
    up, down: bounds as those of `Signal`, per component. directions: the same for the bet along each moving
        average but the first. signals: by metric.
    kind: "bounded" when the check on held-out rows found nothing against the assumptions, else "nominal";
        doubts: what it found, one sentence each.
    """

    rows: int
    center: tuple[float, ...]
    scale: tuple[float, ...]
    memory: tuple[float, ...]
    whitener: bytes
    trace: float
    trace2: float
    excess4: float
    inflation: tuple[float, ...]
    tail: Tail | None
    up: tuple[float, ...]
    down: tuple[float, ...]
    directions: tuple[float, ...]
    signals: dict[str, Signal]
    kind: Literal["bounded", "nominal"]
    doubts: tuple[str, ...] = ()
    interval_s: float | None = None  # median time between snapshots; None where times were not told
    held_out: int = 0  # rows of the check
    season: Season | None = None  # what the hour adds to each component, and then to each of `seasonal`
    seasonal: tuple[str, ...] = ()  # figures on their tested scale, by metric
    # Of the figures' scores CLIP·z, in the order of `signals`: their spread, and the rows of the lower triangular
    # whitener. None: no row had all figures.
    figures: Spread | None = None
    figure_whitener: tuple[tuple[float, ...], ...] = ()

    @property
    def spread(self) -> Spread:
        """That of the whitened amplitudes."""
        return Spread(self.trace, self.trace2, self.excess4, self.inflation, self.tail)

    @property
    def support(self) -> float:
        """Rows that an expected value rests on: with a season, those of one of its hours."""
        return self.rows / (1 if self.season is None else self.season.bins)

    def __post_init__(self) -> None:
        dim = len(self.center)
        if not dim:
            raise BaselineError("calibration.center: expected a value per component, got none")
        lengths = {
            "scale": (len(self.scale), dim),
            "memory": (len(self.memory), dim if self.memory else 0),
            "whitener (bytes)": (len(self.whitener), 4 * dim * (dim + 1) if self.whitener else 0),
            "up": (len(self.up), dim),
            "down": (len(self.down), dim),
            "inflation": (len(self.inflation), len(WEIGHTS)),
            "directions": (len(self.directions), len(WEIGHTS) - 1),
        }
        for name, (got, expected) in lengths.items():
            if got != expected:
                raise BaselineError(f"calibration.{name}: expected {expected} values, got {got}")
        if not self.signals.keys() <= METRICS.keys() - {"memory"}:
            raise BaselineError(
                f"calibration.signals: expected metrics but memory, got {', '.join(self.signals)}"
            )
        _expect("rows", [self.rows], 1)
        _expect("center", self.center, -1.0, 1.0)
        _expect("scale", self.scale, 1e-12)
        _expect("memory", self.memory, -0.999, 0.999)
        _expect("trace", [self.trace], 1e-12, 1e12)
        # As for any covariance of so many components; tails of other laws would be far from any number.
        squared = self.trace * self.trace
        _expect("trace2", [self.trace2], squared / dim * (1.0 - 1e-9), squared * (1.0 + 1e-9))
        _expect("excess4", [self.excess4], 0.0, 1e24)
        _expect("inflation", self.inflation, 1e-3, 1e6)
        _expect("up, down, directions", (*self.up, *self.down, *self.directions), 0.0, 1.0)
        _expect("held_out", [self.held_out], 0)
        if self.interval_s is not None:
            _expect("interval_s", [self.interval_s], 1e-12)
        if self.season is not None and self.season.signals != dim + len(self.seasonal):
            raise BaselineError(
                f"calibration.season: expected {dim} components and {len(self.seasonal)} figures, got "
                f"{self.season.signals} signals"
            )
        if self.figures is not None:
            wanted = [len(self.signals)] * len(self.signals)
            if [len(row) for row in self.figure_whitener] != wanted:
                raise BaselineError(
                    f"calibration.figure_whitener: expected {len(wanted)} rows of as many numbers"
                )
            if len(self.figures.inflation) != len(WEIGHTS):
                raise BaselineError(f"calibration.figures.inflation: expected {len(WEIGHTS)} values")
            _expect("figures.trace, trace2", [self.figures.trace, self.figures.trace2], 1e-12)
            square = self.figures.trace**2
            _expect(
                "figures.trace2",
                [self.figures.trace2],
                square / len(wanted) * (1 - 1e-9),
                square * (1 + 1e-9),
            )
            _expect("figures.excess4", [self.figures.excess4], 0.0)
            _expect("figures.inflation", self.figures.inflation, 1e-3, 1e6)
            for row in self.figure_whitener:
                _expect("figure_whitener", row, -LARGEST)
        if self.whitener:
            values = np.frombuffer(self.whitener, "<f8")
            _expect("whitener", [float(values.min()), float(values.max())], -LARGEST)

    @property
    def matrix(self) -> FloatArray:
        """The whitener as a lower triangular matrix, shape [dim, dim]; only where it is not empty."""
        dim = len(self.center)
        made = np.zeros((dim, dim))
        made[np.tril_indices(dim)] = np.frombuffer(self.whitener, "<f8")
        return made
