"""Statistical claims, each with fixed seeds and its power: run lengths, delays, and what the bets may win.

A run length is held by counting false alarms: at exactly the stated rate their number is Poisson, and a test
fails beyond its upper 1 % point. At half of the stated run length it fails with a probability of 99 % or more.
Nothing was tuned on these seeds.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector
from qigcore.rows import Batch
from tests.core.healthy import batch, centre, learned, moved, states

RUN_LENGTH = 10_000.0


def alarms(detector: ChangeDetector, rows: Any) -> int:
    """False alarms; after each of them the detector begins anew."""
    basins, heads = (rows.basin_coords, rows.heads()) if isinstance(rows, Batch) else (rows, None)
    found = start = 0
    while start < len(basins):
        done, event = detector.feed(basins, heads, start)
        start += done
        if event:
            found += 1
            detector.reset()
    return found


def assert_rate(found: int, rows: int, run_length: float = RUN_LENGTH) -> None:
    expected = rows / run_length
    most = stats.poisson.isf(0.01, expected)
    assert stats.poisson.cdf(most, 2.0 * expected) < 0.01  # the power
    assert found <= most, f"{found} false alarms in {rows} rows, {expected:.0f} are allowed on average"


@pytest.mark.parametrize("window", [300, 2000])
def test_the_run_length_of_independent_rows(window: int) -> None:
    # Five windows, since a window's luck is a part of the rate: 5 · 100,000 rows.
    found = sum(
        alarms(ChangeDetector(learned(window, seed=seed)), states(100_000, 900 + seed)) for seed in range(5)
    )
    assert_rate(found, 500_000)


def test_the_run_length_with_figures() -> None:
    found = sum(
        alarms(ChangeDetector(learned(2000, figures=True, seed=seed)), batch(100_000, 900 + seed))
        for seed in range(5)
    )
    assert_rate(found, 500_000)


def autocorrelated(n: int, rho: float, seed: int) -> Any:
    """Amplitudes about the centre, each an AR(1) series; spread as Dirichlet(500) has it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, np.sqrt(1.0 - rho * rho), (n, 64))
    noise[0] /= np.sqrt(1.0 - rho * rho)
    for t in range(1, n):
        noise[t] += rho * noise[t - 1]
    return np.maximum(np.sqrt(centre(64)) + noise * 0.5 / np.sqrt(500.0), 1e-9) ** 2


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_run_length_of_autocorrelated_rows(rho: float) -> None:
    found = 0
    for seed in range(5):
        rows = autocorrelated(102_000, rho, seed)
        found += alarms(ChangeDetector(Baseline.learn(rows[:2000])), rows[2000:])
    assert_rate(found, 500_000)


# At 2,000 learned rows, c = 500, a measured run length of at least 10,000 (above).
@pytest.mark.parametrize(("radians", "most"), [(0.05, 55), (0.1, 15), (0.2, 5), (0.4, 2)])
def test_delays(radians: float, most: int) -> None:
    # 80 changes in 8 and in 64 components. The median's own error is a tenth of it at 0.05 rad (its middle half
    # lies within ± 30 %), so that a detector a third slower than asked fails in 99 of 100.
    detector = ChangeDetector(learned(2000))
    delays = []
    for seed in range(80):
        at, _ = moved(radians, 8 if seed % 2 else 64, seed)
        detector.reset()
        if detector.feed(states(100, 5000 + seed))[1]:
            continue  # a false alarm before the change
        done, event = detector.feed(states(1000, seed, at=at))
        delays.append(done if event else 1000)
    assert len(delays) >= 75
    assert np.median(delays) <= most


@pytest.mark.parametrize("horizon", [100, 500])
def test_the_probability_of_any_alarm_within_a_horizon(horizon: int) -> None:
    # 60,000 rows in paths of the horizon; more than the 1 % point of a binomial with α = 0.2 fails.
    alpha, paths = 0.2, 60_000 // horizon
    detector = ChangeDetector(learned(2000), horizon=horizon, alpha=alpha)
    rows = states(60_000, 77).reshape(paths, horizon, 64)
    found = sum(detector.run(path) is not None for path in rows)
    assert found <= stats.binom.isf(0.01, paths, alpha)


# --- the bets -----------------------------------------------------------------------------------------

BOUND = 0.03
PATHS, LENGTH = 2000, 60


def exact_baseline(figures: bool) -> Baseline:
    """All known exactly: sphere, 16 components about the first axis, sd 1e-3, each mean of z at most BOUND."""
    made = learned(300, 16, "sphere")
    assert made.calibration is not None
    axis = np.eye(16)[0]
    signals = learned(300, 16, figures=True).calibration.signals if figures else {}  # type: ignore[union-attr]
    fixed = {
        "center": 0.0,
        "scale": 1.0,
        "memory": 0.0,
        "up": BOUND,
        "down": BOUND,
        "log": False,
        "floor": 0.0,
    }
    calibration = msgspec.structs.replace(
        made.calibration,
        figures=None,
        figure_whitener=(),
        center=tuple(axis.tolist()),
        scale=(1e-3,) * 16,
        memory=(),
        whitener=b"",
        trace=1e6,  # the charts are to be quiet
        trace2=1e12 / 16,
        tail=None,
        up=(BOUND,) * 16,
        down=(0.5, *(BOUND,) * 15),  # a unit vector is a little short along its axis
        directions=(float(np.sqrt(15.0)) * BOUND,) * 3,
        signals={
            name: msgspec.structs.replace(signal, **fixed)
            for name, signal in signals.items()
            if name in ("phi", "kappa")
        },
    )
    return msgspec.structs.replace(made, basin=tuple(axis.tolist()), calibration=calibration)


def wealth(mean: float, how: str, seed: int, figures: bool = False) -> Any:
    """Wealth of each path after each row, shape [PATHS, LENGTH]; z of each signal has `mean` as its mean.

    how: "steady": always up; "switching": up or down by the sign of the signal's average so far, which is
    known before the row and is where the bets are richest.
    """
    rng = np.random.default_rng(seed)
    detector = ChangeDetector(exact_baseline(figures), 1e12)
    noise = rng.choice([-0.9, 0.9], (PATHS, LENGTH, 17)) * rng.random((PATHS, LENGTH, 17))
    found = np.zeros((PATHS, LENGTH, 2))
    average = np.zeros((PATHS, 17))
    z = np.empty((PATHS, LENGTH, 17))
    for t in range(LENGTH):
        z[:, t] = noise[:, t] + mean * (1.0 if how == "steady" else np.where(average >= 0.0, 1.0, -1.0))
        average = 0.9 * average + 0.1 * z[:, t]
    for path, out in zip(z, found, strict=True):
        basins = 3e-3 * path[:, :16]
        basins[:, 0] = 1.0
        detector.reset()
        if not figures:
            assert detector.feed(basins, None, 0, out) == (LENGTH, 0)
            continue
        heads = batch(LENGTH, 1, 16, basins=basins).heads()
        heads["phi"], heads["kappa_eff"] = 3.0 * path[:, 0], 3.0 * path[:, 16]
        assert detector.feed(basins, heads, 0, out) == (LENGTH, 0)
    return found[:, :, 1]


@pytest.mark.parametrize("how", ["steady", "switching"])
@pytest.mark.parametrize("figures", [False, True])
def test_the_bets_do_not_win_while_means_keep_to_their_bounds(how: str, figures: bool) -> None:
    # E[wealth after t rows] ≤ t, the property that the run length rests on, where it is tightest: each mean is
    # at its bound. 2,000 paths, within 3 standard errors.
    found = wealth(BOUND, how, 5, figures)
    for t in (1, 5, 20, 40, 60):
        error = found[:, t - 1].std(ddof=1) / np.sqrt(PATHS)
        assert found[:, t - 1].mean() <= t + 3.0 * error, t
    # The power: means a fifth of an sd beyond their bounds are seen by the 20th row.
    beyond = wealth(BOUND + 0.1, how, 5, figures)[:, 19]
    assert beyond.mean() > 20 + 5.0 * beyond.std(ddof=1) / np.sqrt(PATHS)
