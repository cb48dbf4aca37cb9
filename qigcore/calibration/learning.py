"""From a healthy window to a `Calibration`, and the check of it on rows that it was not learned from."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np

from qigcore._detectors import moving, whiten, whitener_of
from qigcore.calibration import whitening
from qigcore.calibration.bounds import clipped, direction_bounds, mean_bounds, signal_of
from qigcore.calibration.memory import ALLOWED, Estimated, estimated, residuals, swelling
from qigcore.calibration.record import CLIP, REACH, WEIGHTS, Calibration, Signal, Spread
from qigcore.calibration.season import Season
from qigcore.calibration.tails import normal_isf, scaled_chi2_isf
from qigcore.calibration.window import Settled, levelled
from qigcore.rows import FloatArray

MIN_ROWS = 100
"""Rows below which no detector is learned: its limits would say more of the window's luck than of the host."""

LARGEST_WINDOW = 50_000
"""Of a longer window the newest rows are learned from: more would tell nothing that the limits depend on."""

FLOOR_SD = {"phi": 0.002, "kappa": 0.005, "basin_drift": 0.003, "latency": 0.05, "errors": 0.001}
"""Least sd of a signal, in its unit; of κ a part of its mean, of latency that of its logarithm.

A host so steady that its last digit stands out is not to alarm for that digit.
"""

FLOOR_RADIANS = 1e-3
"""Least sd of a whole state: what a compact history keeps of it differs by a tenth of that."""

NO_TIMES = np.empty(0)

FLOOR_SCORE = 0.05
"""Least sd of a score: of a figure that is hardly ever off its one value."""

HELD_OUT = 0.2
CHECK_LEVEL = 1e-3
"""Level of each check on held-out rows."""


def floor_of(metric: str, mean: float) -> float:
    """Least sd of a signal whose mean is `mean`."""
    return max(FLOOR_SD[metric] * abs(mean), 0.005) if metric == "kappa" else FLOOR_SD[metric]


def calibrate(
    amplitudes: FloatArray,
    figures: dict[str, FloatArray],
    times: FloatArray = NO_TIMES,
    state: Settled | None = None,
    *,
    interval_s: float | None = None,
) -> Calibration | None:
    """What a detector needs, learned from one healthy window; None with fewer than MIN_ROWS rows.

    amplitudes: shape [n, dim], in order of time, NaN where unusable. figures: by metric, shape [n], as
    reported, NaN where unusable; constant ones, and those with fewer than MIN_ROWS values, are left out.
    times: [n], or empty. state: what `window.settled` found of the window, if it was asked; its season is taken off.
    """
    dim = amplitudes.shape[1]
    usable = np.isfinite(amplitudes).all(axis=1)
    if int(usable.sum()) < MIN_ROWS:
        return None
    found = None if state is None else state.season
    named = () if state is None or found is None else state.figures
    season = None if found is None else np.nan_to_num(found.at(times))
    if season is not None:
        amplitudes = amplitudes - season[:, :dim]
    series: dict[str, tuple[FloatArray, float]] = {}
    for metric, values in figures.items():
        present = values[np.isfinite(values)]
        if len(present) < MIN_ROWS or float(np.ptp(present)) <= 1e-12 * max(
            1.0, float(np.abs(present).max())
        ):
            continue
        level, floor = levelled(metric, values)
        if season is not None and metric in named:
            level = level - season[:, dim + named.index(metric)]
        series[metric] = (level[-LARGEST_WINDOW:], floor)
    amplitudes = amplitudes[usable][-LARGEST_WINDOW:]
    basins = _basins(amplitudes)
    if "basin_drift" in series:
        series["basin_drift"] = _unseen(series["basin_drift"][0], basins), 0.0
    made = _learned(basins, series, found, named)
    del basins
    cut = int(len(amplitudes) * (1.0 - HELD_OUT))
    early, late = {}, {}
    for metric, (values, floor) in series.items():
        at = int(len(values) * (1.0 - HELD_OUT))
        early[metric], late[metric] = (values[:at], floor), values[max(at - 1, 0) :]
    doubts = _doubts(_learned(_basins(amplitudes[:cut]), early, found, named), amplitudes[cut - 1 :], late)
    if found is not None:
        doubts = (*doubts, *_hourly(made, amplitudes, times[usable][-LARGEST_WINDOW:]))
    if state is not None and not state.steady:
        doubts = (*doubts, *state.reasons)
    return msgspec.structs.replace(
        made,
        kind="nominal" if doubts else "bounded",
        doubts=doubts,
        held_out=len(amplitudes) - cut,
        interval_s=interval_s,
    )


class _Basins(NamedTuple):
    """Amplitudes as their mean [k], the deviations from it [n, k], and what of those one row foretells of the next."""

    center: FloatArray
    deviations: FloatArray
    memory: Estimated


def _basins(amplitudes: FloatArray) -> _Basins:
    center = amplitudes.mean(axis=0)
    deviations = amplitudes - center
    return _Basins(center, deviations, estimated(deviations))


def _unseen(drifts: FloatArray, basins: _Basins) -> FloatArray:
    """Drifts as they would be of rows that the centre was not learned from.

    The mean of n independent rows is nearer to them than to others: by 1 − 1/n of their squared distance against
    1 + 1/n. Rows that one foretells the next of count for (1 − ρ)/(1 + ρ) of that.
    """
    rho = float(np.mean(basins.memory.coefficients))
    worth = len(basins.deviations) * (1.0 - rho) / (1.0 + rho)
    return np.asarray(drifts * (1.0 + 1.0 / worth))


def _learned(
    basins: _Basins,
    series: dict[str, tuple[FloatArray, float]],
    season: Season | None,
    seasonal: tuple[str, ...],
) -> Calibration:
    center, deviations, (memory, error) = basins
    n, dim = deviations.shape
    signals = dim + len(series)
    wrong = ALLOWED * error
    left = residuals(deviations, memory)
    floor = FLOOR_RADIANS / math.sqrt(dim)
    scale = np.maximum(left.std(axis=0, ddof=1), floor)
    left = np.clip(left, -REACH * scale, REACH * scale)
    packed = b""
    if dim <= whitening.LARGEST_DIM:
        matrix, rows = whitening.rounded(left, center, floor)
        packed = matrix[np.tril_indices(dim)].astype("<f8").tobytes()
    else:
        rows = (left - left.mean(axis=0)) / scale
    # A state steadier than FLOOR_RADIANS has noise of that length all the same, in units of each one's floor.
    missing = max(dim - float(np.sum(left.var(axis=0, ddof=1))) / floor**2, 0.0)
    spread = whitening.spread(rows, missing)
    directions = direction_bounds(
        rows, spread.trace, spread.trace2, n / (1 if season is None else season.bins)
    )
    hours = 1 if season is None else season.bins
    up, down = mean_bounds(clipped(left, scale), signals, hours)
    known = {
        name: signal_of(
            values[np.isfinite(values)],
            floor_sd=floor_of(name, float(np.nanmean(values))),
            log=name == "latency",
            floor=floor,
            signals=signals,
            hours=hours,
        )
        for name, (values, floor) in series.items()
    }
    figures, figure_whitener = _figures(known, {name: values for name, (values, _) in series.items()})
    return Calibration(
        rows=n,
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        memory=tuple(memory.tolist()) if memory.any() else (),
        whitener=packed,
        trace=spread.trace,
        trace2=spread.trace2,
        excess4=spread.excess4,
        inflation=_swollen(spread.inflation, float(memory.mean()), wrong),
        tail=spread.tail,
        up=tuple(up.tolist()),
        down=tuple(down.tolist()),
        directions=directions,
        signals=known,
        kind="nominal",
        season=season,
        seasonal=seasonal,
        figures=figures,
        figure_whitener=figure_whitener,
    )


def _swollen(inflation: tuple[float, ...], memory: float, wrong: float) -> tuple[float, ...]:
    """What the error of AR(1) coefficients adds to the variance of moving averages, per weight of WEIGHTS."""
    return tuple(
        each * swelling(weight, memory, wrong) for weight, each in zip(WEIGHTS, inflation, strict=True)
    )


def scores_of(signals: dict[str, Signal], series: dict[str, FloatArray]) -> FloatArray:
    """The figures' scores as their charts see them, shape [m, figures]: of the rows that have them all.

    series: by metric, on the tested scale, shape [n], NaN where unusable. The first row has no predecessor.
    """
    if not signals:
        return np.empty((0, 0))
    levels = np.column_stack([series[name] for name in signals])
    levels = levels[np.isfinite(levels).all(axis=1)]
    columns = [
        np.clip(standardised(signal, levels[:, i]), -CLIP, CLIP) for i, signal in enumerate(signals.values())
    ]
    return np.column_stack(columns)


def _figures(
    signals: dict[str, Signal], series: dict[str, FloatArray]
) -> tuple[Spread | None, tuple[tuple[float, ...], ...]]:
    """The spread of the figures' scores, and the whitener of them; (None, ()) where too few rows have them all."""
    scores = scores_of(signals, series)
    if len(scores) < MIN_ROWS:
        return None, ()
    matrix = whitener_of(whitening.shrunk(scores, FLOOR_SCORE))
    rows = whiten(scores, scores.mean(axis=0), matrix)
    missing = max(scores.shape[1] - float(np.sum(scores.var(axis=0, ddof=1))) / FLOOR_SCORE**2, 0.0)
    spread = whitening.spread(rows, missing)
    # One coefficient for each figure: each is off by more than the mean of many is.
    memory = max((signal.memory for signal in signals.values()), key=abs)
    wrong = ALLOWED * math.sqrt((1.0 - memory * memory) / len(scores)) if memory else 0.0
    spread = msgspec.structs.replace(spread, inflation=_swollen(spread.inflation, memory, wrong))
    return spread, tuple(tuple(row) for row in matrix.tolist())


def whitened(learned: Calibration, amplitudes: FloatArray) -> FloatArray:
    """Rows of amplitudes [n, dim], in order of time, as the charts see them; the first has no predecessor."""
    memory = np.array(learned.memory or [0.0] * len(learned.center))
    reach = REACH * np.array(learned.scale)
    left = np.clip(residuals(amplitudes - np.array(learned.center), memory), -reach, reach)
    if not learned.whitener:
        return np.asarray(left / np.array(learned.scale))
    return whiten(left, None, learned.matrix, left)


def standardised(signal: Signal, values: FloatArray) -> FloatArray:
    """Residuals over their scale of a figure on its tested scale, shape [n]; the first has no predecessor."""
    left = residuals((values - signal.center)[:, None], np.array([signal.memory]))
    return np.asarray(left[:, 0] / signal.scale)


def _doubts(learned: Calibration, amplitudes: FloatArray, series: dict[str, FloatArray]) -> tuple[str, ...]:
    """What held-out rows say against the assumptions, one sentence each.

    amplitudes and series: the held-out rows, after one row more that they follow; figures NaN where unusable.
    """
    level = normal_isf(CHECK_LEVEL)
    found = _spread_doubts(learned, learned.spread, whitened(learned, amplitudes)[1:], level, "snapshots")
    if learned.figures is not None:
        scores = scores_of(learned.signals, series)[1:]
        if len(scores):
            scores = whiten(scores, np.zeros(scores.shape[1]), np.array(learned.figure_whitener))
            found += _spread_doubts(learned, learned.figures, scores, level, "figures")
    wandering = _wandering(learned, amplitudes, series, level)
    if wandering:
        found.append(f"held-out means lie outside the learned intervals: {', '.join(wandering)}")
    strong = max((abs(signal.memory) for signal in learned.signals.values()), default=0.0)
    if learned.memory:
        strong = max(strong, float(np.abs(learned.memory).max()))
    if strong > 0.95:
        found.append(
            f"one snapshot foretells the next with a coefficient of {strong:.2f}: the window shows too little"
        )
    return tuple(found)


def _spread_doubts(
    learned: Calibration, spread: Spread, rows: FloatArray, level: float, what: str
) -> list[str]:
    """What the lengths of whitened held-out rows, and of their moving averages, say."""
    found = []
    n = len(rows)
    lengths = np.einsum("ij,ij->i", rows, rows)
    swell = 1.0 + 1.0 / learned.support
    limit = scaled_chi2_isf(spread.trace * swell, 2.0 * spread.trace2 * swell * swell + spread.excess4, 0.01)
    beyond = int(np.sum(lengths > limit))
    # Scores are clipped, so that their lengths have no tail to go by.
    if what == "snapshots" and _poisson_tail(beyond, 0.01 * n * 1.5) < CHECK_LEVEL:
        found.append(f"{beyond} of {n} held-out {what} lie where {0.01 * n:.0f} were expected to")
    for weight in (0.1, 0.03):
        skip = int(2.0 / weight)
        if n < 3 * skip:
            continue
        averages, _ = moving(rows, weight)
        s = weight / (2.0 - weight)
        swell = 1.0 + 1.0 / (learned.support * s)
        if what == "figures":  # a few coefficients are off by more than the mean of many
            swell *= spread.inflation[WEIGHTS.index(weight)]
        keep = (1.0 - weight) ** 2
        error = math.sqrt(2.0 * spread.trace2 / spread.trace**2 / (n - skip) * (1.0 + keep) / (1.0 - keep))
        ratio = float(averages[skip:].mean()) / (spread.trace * s * swell)
        if ratio > 1.0 + (level + 1.0) * error:
            found.append(
                f"moving averages (weight {weight:g}) of held-out {what} vary by {ratio:.2f} of what "
                "independent residuals would: the healthy state wanders, or one snapshot depends on more than "
                "the one before"
            )
            break
    return found


def _hourly(learned: Calibration, amplitudes: FloatArray, times: FloatArray) -> tuple[str, ...]:
    """Whether the spread follows the hour of the day: the season takes means off, and no spreads."""
    rows = whitened(learned, amplitudes)
    lengths = np.einsum("ij,ij->i", rows, rows)
    hours = (np.nan_to_num(times) % 86_400.0 // 3600.0).astype(np.int64)
    counts = np.bincount(hours, minlength=24)
    seen = counts >= 20
    means = np.bincount(hours, lengths, minlength=24)[seen] / counts[seen]
    level = normal_isf(CHECK_LEVEL / 24)
    error = math.sqrt(2.0 * learned.trace2 + learned.excess4) / np.sqrt(counts[seen])
    if not seen.any() or not (means > learned.trace * 1.05 + level * error).any():
        return ()
    ratio = float(means.max() / max(means.min(), 1e-12))
    return (
        f"the spread of the state follows the hour of the day (by a factor of {ratio:.1f}), which is not learned",
    )


def _wandering(
    learned: Calibration, amplitudes: FloatArray, series: dict[str, FloatArray], level: float
) -> list[str]:
    """Signals whose held-out mean is beyond its bound by more than its own error."""
    memory = np.array(learned.memory or [0.0] * len(learned.center))
    left = residuals(amplitudes - np.array(learned.center), memory)[1:]
    z = clipped(left, np.array(learned.scale))
    far = level + math.log(z.shape[1] + len(series)) / 2.0  # many signals: the largest of their errors
    error = z.std(axis=0) / math.sqrt(len(z))
    outside = (z.mean(axis=0) > np.array(learned.up) + far * error) | (
        -z.mean(axis=0) > np.array(learned.down) + far * error
    )
    names = [f"component {i}" for i in np.flatnonzero(outside)[:5]]
    for name, values in series.items():
        signal = learned.signals.get(name)
        usable = values[np.isfinite(values)]
        if signal is None or len(usable) < 2:
            continue
        score = np.clip(standardised(signal, usable)[1:] / CLIP, -1.0, 1.0)
        error_of = float(score.std()) / math.sqrt(max(len(score), 1))
        if score.mean() > signal.up + far * error_of or -score.mean() > signal.down + far * error_of:
            names.append(name)
    return names


def _poisson_tail(count: int, mean: float) -> float:
    """P(N ≥ count) for a Poisson variable."""
    term, below = math.exp(-mean), 0.0
    for k in range(count):
        below += term
        term *= mean / (k + 1)
    return max(1.0 - below, 0.0)
