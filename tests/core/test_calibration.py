"""What is learned for detection: beside SciPy and direct formulas; and what of a file reaches the loops."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qigcore._detectors import moving
from qigcore.baseline import Baseline
from qigcore.calibration import bounds, learning, limits, memory, tails, whitening
from qigcore.calibration.record import Calibration, Signal, Tail
from qigcore.detectors import ChangeDetector
from qigcore.errors import BaselineError
from qigcore.rows import HEAD, Batch
from tests.core.healthy import batch, centre, learned, states
from tests.reference import ar1_residual, shrunk_covariance

TAILS = (1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5)


def ar1(n: int, rho: Any, seed: int, k: int = 64) -> Any:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, k))
    for t in range(1, n):
        rows[t] = rho * rows[t - 1] + np.sqrt(1.0 - np.square(rho)) * rows[t]
    return rows


# --- tails and limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 3.0, 32.0, 500.0, 1e4, 1e6])
def test_the_gamma_tail_is_scipys(shape: float) -> None:
    law = stats.gamma(shape)
    for tail in TAILS:
        x = float(law.isf(tail))
        relative = 1e-11 + 2.3e-16 * shape * math.log(shape + 1.0)  # the difference of numbers so large
        assert math.exp(tails.log_gamma_tail(shape, x)) == pytest.approx(law.sf(x), rel=relative)
    assert tails.log_gamma_tail(shape, 0.0) == 0.0


@pytest.mark.parametrize("mean", [1e-3, 1.0, 63.0, 250.0])
@pytest.mark.parametrize("spread", [1e-4, 0.01, 0.18, 2.0, 40.0])
def test_the_scaled_chi_square_quantile_is_scipys(mean: float, spread: float) -> None:
    # spread: variance over squared mean; 2/63 is 63 equal components, 40 what outliers make of it.
    variance = spread * mean * mean
    law = stats.gamma(1.0 / spread, scale=spread * mean)
    for tail in TAILS:
        assert tails.scaled_chi2_isf(mean, variance, tail) == pytest.approx(law.isf(tail), rel=1e-8)


@given(st.floats(1e-12, 0.5), st.floats(1.01, 100.0))
@settings(deadline=None)
def test_a_rarer_tail_is_further_out(tail: float, times: float) -> None:
    assert tails.scaled_chi2_isf(63.0, 126.0, tail / times) > tails.scaled_chi2_isf(63.0, 126.0, tail)
    assert tails.normal_isf(tail) == pytest.approx(stats.norm.isf(tail), rel=1e-9, abs=1e-12)


def test_limits_are_exceeded_as_often_as_they_say() -> None:
    # Rows of exactly the learned law: 400,000 of them, each limit exceeded by 0.002/4 of the rows, which is
    # 200 ± 14 for single rows; averages of weight 0.03 go together over 65 rows, hence the wider interval.
    made = learned(2000).calibration
    assert made is not None
    made = Calibration(**{**{f: getattr(made, f) for f in made.__struct_fields__}, **plain(63)})
    found = limits.chart_limits(made, 0.002)
    rows = np.random.default_rng(8).normal(size=(400_000, 63))
    for weight, limit, low, high in zip(
        (1.0, 0.3, 0.1, 0.03), found, (150, 140, 120, 60), (250, 260, 290, 400), strict=True
    ):
        lengths, _ = moving(rows, weight)
        beyond = int(np.sum(lengths * (2.0 - weight) / weight > limit))
        assert low < beyond < high, weight


def plain(k: int) -> dict[str, Any]:
    """A calibration's figures for k independent unit components with known mean."""
    return {
        "rows": 10**9,
        "trace": float(k),
        "trace2": float(k),
        "excess4": 0.0,
        "inflation": (1.0,) * 4,
        "tail": None,
        "figures": None,
        "figure_whitener": (),
    }


def test_a_heavy_tail_continues_by_its_law() -> None:
    for shape in (0.0, 0.2, 0.5):
        tail = Tail(start=100.0, share=0.05, scale=7.0, shape=shape)
        law = stats.genpareto(shape, scale=7.0)
        for rate in (1e-8, 1e-4, 0.04):
            assert limits._continued(tail, rate) == pytest.approx(100.0 + law.isf(rate / 0.05), rel=1e-10)
        assert limits._continued(tail, 0.05) == limits._continued(tail, 0.9) == 100.0


# --- memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_coefficients_of_equal_columns_are_unbiased_and_drawn_together(rho: float) -> None:
    # 20 windows of 300 rows, 64 columns. A single estimate is off by 0.058 to 0.025 (1/√n), biased by
    # −(1 + 3ρ)/n = −0.003 to −0.012; together they are to be within 0.006 of the truth.
    found = np.array([memory.coefficients(ar1(300, rho, seed)) for seed in range(20)])
    if rho == 0.0:
        assert np.mean(found.any(axis=1)) <= 0.1  # no sign of any: all are exactly 0
        return
    assert found.mean() == pytest.approx(rho, abs=0.006)
    alone = np.sqrt((1.0 - rho**2) / 300)
    assert np.sqrt(np.mean((found - rho) ** 2)) < 0.5 * alone


def test_mixed_columns_keep_their_difference() -> None:
    rho = np.where(np.arange(64) < 32, 0.0, 0.9)
    found = memory.coefficients(ar1(1000, rho, 1))
    assert np.abs(found - rho).max() < 0.12
    assert found[:32].mean() == pytest.approx(0.0, abs=0.03)
    assert found[32:].mean() == pytest.approx(0.9, abs=0.03)
    with_constant = memory.coefficients(np.c_[ar1(1000, rho, 1), np.full(1000, 3.0)])
    assert with_constant[-1] == 0.0
    assert with_constant[:-1] == pytest.approx(found)


def test_residuals_are_the_rows_less_what_the_one_before_foretold() -> None:
    rows, rho = ar1(50, 0.7, 2, k=5), np.array([0.7, -0.3, 0.0, 0.98, 0.5])
    expected = [ar1_residual(row, before, rho) for row, before in zip(rows, [None, *rows[:-1]], strict=True)]
    assert memory.residuals(rows, rho) == pytest.approx(np.array(expected))
    assert memory.residuals(rows, np.zeros(5)) is rows


# --- whitening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(40, 12), (300, 8), (10, 20)])
def test_the_shrunk_covariance_is_the_formulas(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(n, k)) @ rng.normal(size=(k, k))
    rows[:, -1] = 2.0  # constant: at the floor
    assert whitening.shrunk(rows, 0.01) == pytest.approx(shrunk_covariance(rows, 0.01), rel=1e-9, abs=1e-12)


def test_the_whitener_makes_a_known_covariance_the_identity() -> None:
    rng = np.random.default_rng(3)
    k = 12
    root = rng.normal(size=(k, k))
    rows = rng.normal(size=(20_000, k)) @ root.T
    made = whitening.whitener(rows, np.eye(k)[0] * 1e-12 + np.full(k, 1e-9), 1e-9)
    assert np.triu(made, 1) == pytest.approx(np.zeros((k, k)), abs=1e-12)
    covariance = np.cov(rows.T)
    along = np.full(k, 1.0 / math.sqrt(k))
    covariance += np.trace(covariance) / k * np.outer(along, along)
    assert made @ covariance @ made.T == pytest.approx(np.eye(k), abs=0.03)


@pytest.mark.parametrize(("n", "k"), [(40, 64), (100, 64), (100, 5), (1000, 64)])
def test_moments_of_normal_rows_are_unbiased(n: int, k: int) -> None:
    # tr C and tr C² of a known C, over 100 windows, within 4 standard errors of their mean.
    sd = np.linspace(0.5, 1.5, k)
    rng = np.random.default_rng(k)
    found = []
    for _ in range(100):
        rows = rng.normal(size=(n, k)) * sd
        made = whitening.spread(rows - rows.mean(axis=0))
        found.append((made.trace, made.trace2))
    for values, truth in zip(np.array(found).T, (np.sum(sd**2), np.sum(sd**4)), strict=True):
        error = values.std(ddof=1) / math.sqrt(len(values))
        # trace2 is never below trace²/k, which draws it up where C is nearly the identity and n is small
        assert truth - 4.0 * error < values.mean() < truth + 4.0 * error + 0.02 * truth


def run_length(baseline: Baseline, rows: Any) -> int:
    """False alarms at a stated run length of 1,000; after each of them the detector begins anew."""
    detector = ChangeDetector(baseline, average_run_length=1000.0)
    alarms = start = 0
    while start < len(rows):
        done, event = detector.feed(rows, None, start)
        start += done
        if event:
            alarms += 1
            detector.reset()
    return alarms


def heavy(n: int, seed: int, kind: str) -> Any:
    rng = np.random.default_rng(seed)
    root = np.sqrt(centre(64))
    if kind == "t":
        noise = rng.standard_t(5, size=(n, 64)) * math.sqrt(3 / 5)
    else:
        noise = rng.normal(size=(n, 64)) * np.where(rng.random((n, 1)) < 0.01, 4.0, 1.0)
    return np.maximum(root + 0.015 * noise, 1e-6) ** 2


@pytest.mark.parametrize("kind", ["t", "outliers"])
def test_heavy_tails_do_not_shorten_the_run_length(kind: str) -> None:
    # What broke: outliers lifted the average of weight 0.3 over its limit one by one (512 false alarms in 60,000
    # rows). A stated run length of 1,000 allows 240 in 8 · 30,000 rows; how far a tail of t with 5 degrees goes
    # is the luck of a window (a third to five thirds of the rate by window), hence eight. At half of the stated
    # run length, 480 false alarms, more than 300 are all but certain.
    found = sum(
        run_length(Baseline.learn(heavy(2000, seed, kind)), heavy(30_000, 100 + seed, kind))
        for seed in range(8)
    )
    assert found <= 300


# --- windows that are hard to learn from --------------------------------------------------------------


def alternating(rng: Any) -> Any:
    return np.where(rng.random((200, 1)) < 0.5, *rng.dirichlet(np.ones(8), 2))


HARD = {
    # What broke: the first raised ZeroDivisionError (a trace of 0), the second LinAlgError (a correlation of 1
    # without scatter).
    "constant": lambda rng: np.tile(rng.dirichlet(np.ones(8)), (200, 1)),
    "two states": alternating,
    "constant components": lambda rng: np.c_[np.zeros((200, 3)), rng.dirichlet(np.full(8, 50.0), 200)],
    "two components": lambda rng: rng.dirichlet([50.0, 50.0], 200),
    "one component": lambda rng: rng.random((200, 1)) + 0.5,
    "twins": lambda rng: np.repeat(rng.dirichlet(np.full(8, 50.0), 200), 2, axis=1),
    "one-hot": lambda rng: np.eye(8)[rng.integers(0, 8, 200)],
    "one other row": lambda rng: np.where(np.arange(200)[:, None] == 100, *rng.dirichlet(np.ones(8), 2)),
    "300 components": lambda rng: rng.dirichlet(np.full(300, 5.0), 150),
    "nearly constant": lambda rng: np.full(8, 1.0) + 1e-9 * rng.normal(size=(200, 8)),
}


@pytest.mark.parametrize("kind", list(HARD))
@pytest.mark.filterwarnings("error")
def test_hard_windows_are_learned_and_are_quiet_on_themselves(kind: str, tmp_path: Path) -> None:
    rows = HARD[kind](np.random.default_rng(5))
    baseline = Baseline.learn(rows, created=0.0)
    baseline.save(tmp_path / "b")
    loaded = Baseline.load(tmp_path / "b")
    assert loaded == baseline
    detector = ChangeDetector(loaded)
    # A single row of another state is left out of what is learned, and so is a change.
    assert detector.run(rows) == (100 if kind == "one other row" else None)
    assert math.isfinite(detector.statistic)


@pytest.mark.parametrize("kind", ["constant", "nearly constant", "two states", "constant components"])
def test_a_state_that_leaves_a_steady_one_is_seen(kind: str) -> None:
    rows = HARD[kind](np.random.default_rng(5))
    other = np.tile(np.random.default_rng(9).dirichlet(np.ones(rows.shape[1])), (20, 1))
    found = ChangeDetector(Baseline.learn(rows)).run(np.concatenate([rows, other]))
    assert found is not None
    assert 200 <= found <= 205


def test_the_last_digits_of_a_steady_state_are_no_change() -> None:
    # FLOOR_RADIANS: 0.2 mrad of noise after a window without any.
    detector = ChangeDetector(Baseline.learn(HARD["constant"](np.random.default_rng(5))))
    at = np.sqrt(np.random.default_rng(5).dirichlet(np.ones(8)))
    rows = (at + 0.0001 / math.sqrt(8) * np.random.default_rng(6).normal(size=(5000, 8))) ** 2
    assert detector.run(rows) is None


def test_figures_that_cannot_be_learned_are_left_out() -> None:
    rows = batch(300, 1, 16)
    rows.columns["kappa_eff"][:] = 64.0
    rows.columns["phi"][:250] = np.nan
    rows.columns["avg_latency_ms"][::50] = -1.0
    rows.columns["error_rate"][:] = 1e200 * np.arange(300)
    made = Baseline.learn(rows).calibration
    assert made is not None
    assert sorted(made.signals) == ["basin_drift", "latency"]
    assert made.interval_s == 60.0
    assert made.signals["latency"].log


def test_bounds_of_means_hold_jointly() -> None:
    # 200 windows of 400 skewed rows, 16 signals: the truth is outside any of the 32 bounds in at most 5 %.
    rng = np.random.default_rng(2)
    law = np.clip((rng.exponential(size=4_000_000) - 1.0) / 3.0, -1.0, 1.0)
    truth, wrong = float(law.mean()), 0
    for _ in range(200):
        up, down = bounds.mean_bounds(np.clip((rng.exponential(size=(400, 16)) - 1.0) / 3.0, -1.0, 1.0), 16)
        wrong += bool((up < truth).any() or (-down > truth).any())
    assert wrong <= 18  # 10 expected at 5 %; more than 18 has a probability of 0.4 %


# --- held-out rows ------------------------------------------------------------------------------------


def doubted(make: Any, windows: int) -> int:
    found = 0
    for seed in range(windows):
        made = learning.calibrate(make(seed), {})
        assert made is not None
        assert made.kind == ("nominal" if made.doubts else "bounded")
        found += bool(made.doubts)
    return found


def around(noise: Any) -> Any:
    return 0.25 + 0.015 * noise


def test_sound_windows_are_not_doubted() -> None:
    # 150 of each: at a true rate of 1 %, more than 6 of 300 has a probability of 3 %.
    independent = doubted(lambda s: around(np.random.default_rng(s).normal(size=(400, 16))), 150)
    dependent = doubted(lambda s: around(ar1(400, 0.7, s, k=16)), 150)
    assert independent + dependent <= 6, (independent, dependent)


def walk(seed: int) -> Any:
    return around(np.cumsum(0.1 * np.random.default_rng(seed).normal(size=(2000, 16)), axis=0))


def drifting(seed: int) -> Any:
    """The mean wanders by as much as the noise, over some 300 rows."""
    return around(np.random.default_rng(seed).normal(size=(2000, 16)) + ar1(2000, 0.995, seed + 1000, k=16))


def ar2(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2000, 16))
    for t in range(2, 2000):
        rows[t] += 0.4 * rows[t - 1] + 0.5 * rows[t - 2]
    return around(rows)


@pytest.mark.parametrize("make", [walk, drifting, ar2])
def test_what_wanders_is_doubted(make: Any) -> None:
    # Power: at least 9 of 10 windows.
    assert doubted(make, 10) >= 9


# --- files --------------------------------------------------------------------------------------------

VERSION_1 = """{"version": 1, "geometry": "simplex", "dim": 2, "count": 200, "skipped": 3, "created": 7.0,
 "code_hash": "c0ffee", "basin": [0.6, 0.8], "variance": 0.01, "component_mean": [0.6, 0.79],
 "component_sd": [0.02, 0.03], "bands": {"basin_drift": {"mean": 0.1, "sd": 0.02, "low": 0.04, "high": 0.16,
 "constant": false, "autocorrelation": 0.0, "count": 200}}, "breakdown_share": 0.0, "drift_ceiling": 2.0,
 "notes": ["constant while healthy was learned: memory (200)"]}"""


def test_a_file_of_version_1_is_read_and_says_that_it_knows_no_changes(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(VERSION_1)
    baseline = Baseline.load(path)
    assert (baseline.version, baseline.calibration, baseline.basin) == (1, None, (0.6, 0.8))
    with pytest.raises(BaselineError, match="earlier version"):
        ChangeDetector(baseline)


def test_a_detector_of_a_loaded_baseline_is_the_same(tmp_path: Path) -> None:
    baseline = learned(300, 17, figures=True)
    baseline.save(tmp_path / "b.json")
    loaded = Baseline.load(tmp_path / "b.json")
    assert loaded == baseline
    assert loaded.version == 2
    one, other = np.zeros((50, 2)), np.zeros((50, 2))
    ChangeDetector(baseline).scan(batch(50, 3, 17), one)
    ChangeDetector(loaded).scan(batch(50, 3, 17), other)
    assert one.tobytes() == other.tobytes()


def spoilt(size: int, value: float) -> str:
    return base64.b64encode(np.full(size, value).astype("<f8").tobytes()).decode()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.update(center=c["center"][:-1]), "calibration"),
        (lambda c: c.update(scale=[*c["scale"], 1.0]), "calibration.scale"),
        (lambda c: c["scale"].__setitem__(0, 0.0), "calibration.scale"),
        (lambda c: c["scale"].__setitem__(0, -1.0), "calibration.scale"),
        (lambda c: c["scale"].__setitem__(0, None), "scale"),
        (lambda c: c.update(memory=[0.5]), "calibration.memory"),
        (lambda c: c.update(memory=[1.0] * 16), "calibration.memory"),
        (lambda c: c.update(whitener="not base64!"), "whitener"),
        (lambda c: c.update(whitener=c["whitener"][:-4]), "calibration.whitener"),
        (lambda c: c.update(whitener=spoilt(15, 1.0)), "calibration.whitener"),
        (lambda c: c.update(whitener=spoilt(136, math.nan)), "calibration.whitener"),
        (lambda c: c.update(whitener=spoilt(136, math.inf)), "calibration.whitener"),
        (lambda c: c.update(up=[]), "calibration.up"),
        (lambda c: c.update(down=c["down"] * 2), "calibration.down"),
        (lambda c: c["up"].__setitem__(3, 1.5), "calibration.up"),
        (lambda c: c.update(directions=[0.1, 0.1]), "calibration.directions"),
        (lambda c: c.update(directions=[0.1, 0.1, -2.0]), "directions"),
        (lambda c: c.update(inflation=[1.0] * 3), "calibration.inflation"),
        (lambda c: c.update(inflation=[1.0, 0.0, 1.0, 1.0]), "calibration.inflation"),
        (lambda c: c.update(trace=0.0), "calibration.trace"),
        (lambda c: c.update(trace2=-1.0), "calibration.trace2"),
        (lambda c: c.update(trace=1e50), "calibration.trace"),  # what broke: ZeroDivisionError in its tail
        (lambda c: c.update(trace2=2.0 * c["trace"] ** 2), "calibration.trace2"),
        (lambda c: c.update(excess4=-1.0), "calibration.excess4"),
        (lambda c: c.update(rows=0), "calibration.rows"),
        (lambda c: c.update(interval_s=-60.0), "calibration.interval_s"),
        (lambda c: c.update(kind="certain"), "kind"),
        (lambda c: c["tail"].update(scale=-1.0), "tail"),
        (lambda c: c["tail"].update(shape=5.0), "tail"),
        (lambda c: c["signals"].update(memory=c["signals"]["phi"]), "calibration.signals"),
        (lambda c: c["signals"].update(moon=c["signals"]["phi"]), "calibration.signals"),
        (lambda c: c["signals"]["phi"].update(scale=0.0), "signals.scale"),
        (lambda c: c["signals"]["phi"].update(memory=-1.0), "signals.memory"),
        (lambda c: c["signals"]["phi"].update(up=2.0), "signals.up"),
        (lambda c: c["signals"]["latency"].update(floor=0.0), "signals.floor"),
        (lambda c: c["signals"]["phi"].update(center=1e300), "signals.center"),
    ],
)
def test_a_tampered_calibration_is_refused(tmp_path: Path, edit: Any, says: str) -> None:
    # What would break: the loops look at no length and would read, or with a sixth figure write, out of bounds.
    path = tmp_path / "baseline.json"
    learned(300, 16, figures=True).save(path)
    data = json.loads(path.read_text())
    edit(data["calibration"])
    path.write_text(json.dumps(data))
    with pytest.raises(BaselineError, match=says) as caught:
        Baseline.load(path)
    assert "delete the file" in str(caught.value)


def test_a_signal_of_nan_is_refused() -> None:
    for fault in ("center", "scale", "memory", "up", "down"):
        fields = {"center": 0.0, "scale": 1.0, "memory": 0.0, "up": 0.1, "down": 0.1, fault: math.nan}
        with pytest.raises(BaselineError, match=r"calibration\.signals"):
            Signal(**fields)


def test_states_at_the_simplex_edge_are_learned() -> None:
    rows = states(300, 1, 16)
    rows[:, 0] = 0.0
    assert ChangeDetector(Baseline.learn(rows)).run(rows) is None


def test_whatever_is_changed_in_a_file_it_is_refused_or_can_be_used(tmp_path: Path) -> None:
    # 400 files with one to three numbers of the calibration replaced.
    rng = np.random.default_rng(1)
    path = tmp_path / "baseline.json"
    learned(300, 16, figures=True).save(path)
    source = path.read_text()
    rows = batch(40, 3, 16)
    outcome = {"refused": 0, "used": 0}
    for _ in range(400):
        data = json.loads(source)
        for _ in range(rng.integers(1, 4)):
            place = data["calibration"]
            while True:
                keys = list(place) if isinstance(place, dict) else range(len(place))
                key = keys[rng.integers(len(keys))]
                if not (isinstance(place[key], (dict, list)) and place[key]):
                    break
                place = place[key]
            if isinstance(place[key], float):
                place[key] = float(
                    rng.choice([0.0, -1.0, 1e-300, 1e-12, 1e-6, 0.5, 0.999, 2.0, 1e6, 1e50, 1e300])
                )
        path.write_text(json.dumps(data))
        try:
            loaded = Baseline.load(path)
        except BaselineError:
            outcome["refused"] += 1
            continue
        detector = ChangeDetector(loaded, float(rng.choice([10.0, 1e4, 1e15])))
        detector.scan(rows)
        assert np.isfinite([detector.statistic, detector.wealth, *detector.charts()]).all()
        outcome["used"] += 1
    assert min(outcome.values()) >= 50, outcome


# --- what a season does not take off ----------------------------------------------------------------------


@pytest.mark.parametrize("noisy_nights", [False, True])
def test_a_spread_that_follows_the_hour_is_doubted(noisy_nights: bool) -> None:
    # Six days at one snapshot a minute, a mean that goes round once a day; of noisy nights the spread is threefold.
    rng = np.random.default_rng(31)
    n, dim = 6 * 1440, 16
    turn = 2.0 * np.pi * np.arange(n) / 1440
    night = (np.arange(n) % 1440 < 480) & noisy_nights
    root = np.sqrt(np.full(dim, 1.0 / dim)) + 0.0 * turn[:, None]
    root[:, 0] += 0.02 * np.cos(turn)
    root[:, 1] += 0.02 * np.sin(turn)
    states = (root + rng.normal(0.0, np.where(night, 0.03, 0.01)[:, None], (n, dim))) ** 2
    heads = np.zeros(n, HEAD)
    heads["timestamp"] = 86_400.0 * 20_000 + 60.0 * np.arange(n)
    made = Baseline.learn(Batch.of_rows(heads, states, ("",))).calibration
    assert made is not None
    assert made.season is not None
    assert any("spread of the state follows the hour" in doubt for doubt in made.doubts) == noisy_nights
    assert (made.kind == "nominal") == noisy_nights, made.doubts
