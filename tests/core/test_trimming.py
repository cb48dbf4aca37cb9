"""What is left out of a learning window, and what is not; rates and powers at fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.calibration.trimming import Trimmed, trim
from tests.core.streams import around, away, centre_of, scalars


def clean(rng: np.random.Generator, n: int, rho: float = 0.0) -> Trimmed:
    return trim(around(rng, centre_of(rng), n, rho), scalars(rng, n, rho))


@pytest.mark.parametrize(("n", "windows"), [(100, 300), (300, 250), (2000, 100)])
def test_clean_independent_windows_are_hardly_ever_trimmed(n: int, windows: int) -> None:
    rng = np.random.default_rng(101)
    found = [clean(rng, n) for _ in range(windows)]
    assert all(each.steady for each in found)
    assert sum(int((~each.keep).sum()) for each in found) < 0.001 * n * windows
    assert sum(not each.keep.all() for each in found) < 0.02 * windows


@pytest.mark.parametrize(("n", "windows"), [(100, 200), (300, 150), (2000, 50)])
def test_autocorrelated_windows_are_rarely_trimmed_or_called_unsteady(n: int, windows: int) -> None:
    # The rates as measured, rounded up: a window of 100 with ρ = 0.9 is worth five independent rows.
    rng = np.random.default_rng(102)
    found = [clean(rng, n, 0.9) for _ in range(windows)]
    assert sum(int((~each.keep).sum()) for each in found) < 0.001 * n * windows
    assert sum(not each.steady for each in found) <= (0.04 * windows if n == 100 else 0)


@pytest.mark.parametrize("what", ["basin", "latency"])
@pytest.mark.parametrize("n", [300, 2000])
def test_an_incident_of_a_tenth_is_found(what: str, n: int) -> None:
    rng = np.random.default_rng(103)
    windows, found, lost = 60, 0, 0
    for _ in range(windows):
        centre, length = centre_of(rng), n // 10
        rows, others = around(rng, centre, n), scalars(rng, n)
        first = int(rng.integers(0, n - length + 1))
        incident = np.zeros(n, bool)
        incident[first : first + length] = True
        if what == "basin":
            rows[incident] = around(rng, away(rng, centre, 0.4), length)
        else:
            others["latency"][incident] *= 10.0
        left = trim(rows, others)
        found += left.steady and bool(np.mean(~left.keep[incident]) >= 0.95)
        lost += int((~left.keep[~incident]).sum())
    assert found >= 0.95 * windows
    assert lost <= 0.01 * (n - n // 10) * windows


def test_several_incidents_and_single_snapshots_are_named() -> None:
    rng = np.random.default_rng(104)
    centre = centre_of(rng)
    rows, others = around(rng, centre, 600), scalars(rng, 600)
    rows[100:130] = around(rng, away(rng, centre, 0.5), 30)
    others["latency"][400:440] *= 20.0
    others["phi"][500] = 0.1
    rows[550] = centre_of(rng)  # unrelated states are 1.3 apart
    left = trim(rows, others)
    expected = np.ones(600, bool)
    expected[[*range(100, 130), *range(400, 440), 500, 550]] = False
    assert left.steady
    assert int((left.keep != expected).sum()) <= 2
    assert not left.keep[[500, 550]].any()
    said = "\n".join(left.reasons)
    assert "rows 100 to 129" in said
    assert "latency stood apart" in said
    assert "1 snapshot left out, each by itself: Φ far out" in said


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("at_end", [False, True])
def test_two_states_are_no_one_state(share: float, at_end: bool) -> None:
    rng = np.random.default_rng(105)
    centre = centre_of(rng)
    rows, length = around(rng, centre, 300), int(300 * share)
    other = slice(300 - length, 300) if at_end else slice(0, length)
    rows[other] = around(rng, away(rng, centre, 0.4), length)
    left = trim(rows)
    assert not left.steady
    assert left.keep.all()
    assert left.reasons[0].startswith("the learning window is not one state: ")


@pytest.mark.parametrize("first", [0, 260])
def test_the_end_of_another_state_is_left_out(first: int) -> None:
    rng = np.random.default_rng(106)
    centre = centre_of(rng)
    rows = around(rng, centre, 300)
    rows[first : first + 40] = around(rng, away(rng, centre, 0.4), 40)
    left = trim(rows)
    assert left.steady
    assert np.flatnonzero(~left.keep) == pytest.approx(np.arange(first, first + 40))


def test_trimming_clean_data_does_not_shrink_its_spread() -> None:
    """Nothing of normal and of lognormal values; of Student's t with 5 degrees of freedom 1.2 % of the sd."""
    rng = np.random.default_rng(107)
    ratios: dict[str, list[float]] = {"normal": [], "t5": [], "lognormal": []}
    for _ in range(60):
        drawn = {
            "normal": rng.normal(0.0, 1.0, 300),
            "t5": rng.standard_t(5, 300),
            "lognormal": rng.lognormal(0.0, 0.7, 300),
        }
        for name, values in drawn.items():
            left = trim(np.empty((300, 0)), {"latency" if name == "lognormal" else name: values})
            ratios[name].append(values[left.keep].std() / values.std())
    assert min(ratios["normal"]) == 1.0
    assert min(ratios["lognormal"]) == 1.0
    assert np.mean(ratios["t5"]) > 0.98


def test_a_daily_season_is_no_incident() -> None:
    rng = np.random.default_rng(108)
    n = 3 * 288
    season = np.sin(2 * np.pi * np.arange(n) / 288)
    left = trim(around(rng, centre_of(rng), n), {"phi": 0.75 + 0.01 * (season + rng.normal(size=n))})
    assert left.steady
    assert left.keep.all()


def test_a_rare_kind_of_request_is_no_incident() -> None:
    """A tenth of the snapshots, scattered, are of another kind: healthy has two modes, and both are kept."""
    rng = np.random.default_rng(111)
    centre = centre_of(rng)
    rows, others = around(rng, centre, 400), scalars(rng, 400)
    rare = rng.random(400) < 0.1
    rows[rare] = around(rng, away(rng, centre, 0.6), int(rare.sum()))
    others["latency"][rare] *= 100.0
    left = trim(rows, others)
    assert left.steady
    assert left.keep.all()
    assert any("too many for a mishap: kept" in reason for reason in left.reasons)


@pytest.mark.parametrize(("outliers", "kept"), [(1, False), (2, False), (3, True), (20, True)])
def test_single_rows_that_come_back_belong_to_the_state(outliers: int, kept: bool) -> None:
    rng = np.random.default_rng(112)
    centre = centre_of(rng)
    rows = around(rng, centre, 500)
    rows[10 :: 500 // outliers][:outliers] = around(rng, away(rng, centre, 1.0), outliers)
    left = trim(rows, {})
    assert left.keep.all() == kept
    assert left.keep.sum() == (500 if kept else 500 - outliers)


def test_constants_and_last_digits_are_kept() -> None:
    rng = np.random.default_rng(109)
    flat = np.full(200, 0.75)
    flat[50] = 0.7501
    left = trim(np.tile(centre_of(rng), (200, 1)), {"phi": flat, "kappa": np.full(200, 64.0)})
    assert left.keep.all()
    assert left.steady


def test_what_is_not_usable_is_not_judged() -> None:
    rng = np.random.default_rng(110)
    rows, others = around(rng, centre_of(rng), 300), scalars(rng, 300)
    rows[::7] = np.nan
    others["latency"][::5] = np.inf
    others["phi"][:] = np.nan
    left = trim(rows, others)
    assert left.keep.all()
    assert left.steady
    assert trim(np.full((5, 3), np.nan)).keep.all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"amplitudes: expected shape \[n, dim\], got \[3\]"):
        trim(np.zeros(3))
    with pytest.raises(ValueError, match=r"scalars\['phi'\]: expected one value for each of 4 rows"):
        trim(np.zeros((4, 2)), {"phi": np.zeros(3)})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 200),
    wild=st.floats(0.0, 1.0),
    factor=st.sampled_from([0.25, 3.0, 1000.0]),
)
def test_a_fifth_at_most_and_no_unit_matters(seed: int, n: int, wild: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    latency = np.where(rng.random(n) < wild, 1e3, 50.0) * rng.lognormal(0.0, 0.3, n)
    left = trim(np.empty((n, 0)), {"latency": latency})
    assert left.keep.shape == (n,)
    assert (~left.keep).sum() <= 0.2 * n
    assert left.reasons or left.keep.all()
    again = trim(np.empty((n, 0)), {"latency": factor * latency})
    assert np.array_equal(again.keep, left.keep)
    assert again.steady == left.steady
