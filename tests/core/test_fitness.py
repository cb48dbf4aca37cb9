from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st
from msgspec.structs import replace

from qigcore._resample import resample
from qigcore.errors import TooLittleData
from qigcore.fitness import LARGE_PATCH, Fitness, Limits, Side, excesses, score, spread
from qigcore.geometry import amplitudes, frechet_mean
from tests import reference

DIM = 6
FLAT = np.full(DIM, 1 / DIM)
LIMITS = Limits(
    basin=np.sqrt(FLAT),
    drift_limit=0.3,
    bands={
        "phi": (0.74, 0.80),
        "kappa": (60.0, 72.0),
        "errors": (0.0, 0.01),
        "latency": (4.0, 6.0),
        "memory": (-0.3, 0.3),
    },
)
FEW = 500  # resamples, where the bounds are not what is tested


def leaning(by: float) -> npt.NDArray[np.float64]:
    weights = FLAT.copy()
    weights[0] += by
    return weights / weights.sum()


def side(pairs: int = 20, *, noise: int | None = None, **changed: Any) -> Side:
    """A healthy side, but for `changed`; with `noise` (a seed) its figures vary as a host's do."""
    figures = {"phi": 0.77, "kappa": 66.0, "errors": 0.0, "latency": 5.0, "memory": 0.0, **changed}
    basin = figures.pop("basin", FLAT)
    draw = np.random.default_rng(noise)
    vary = {"phi": 0.01, "kappa": 2.0}

    def column(name: str) -> npt.NDArray[np.float64]:
        noisy = draw.normal(0.0, vary.get(name, 0.0), pairs) if noise is not None else 0.0
        return np.full(pairs, float(figures[name])) + noisy

    basins = draw.dirichlet(500 * basin, pairs) if noise is not None else np.tile(basin, (pairs, 1))
    return Side(**{name: column(name) for name in figures}, basins=basins, blocks=np.arange(pairs) // 2)


def scored(before: Side, after: Side, limits: Limits = LIMITS, **asked: Any) -> Fitness:
    return score(before, after, limits, **{"resamples": FEW, **asked})


def test_doing_nothing_scores_055() -> None:
    found = scored(side(noise=1), side(noise=1))
    assert found.point == pytest.approx(0.55)
    assert found.components == {"phi": 0.5, "basin": 0.5, "service": 0.5, "quality": 1.0}


@pytest.mark.parametrize(
    ("fault", "service", "point"),
    [
        ({"phi": 0.04, "kappa": 1019.0}, (), 0.75),
        ({"phi": 0.04}, (), 0.75),
        ({"kappa": 1019.0}, (), 0.75),
        ({"basin": leaning(1.0)}, (), 0.70),
        ({"latency": 50.0}, ("latency",), 0.65),
        ({"errors": 0.2}, ("errors",), 0.65),
        ({"memory": 12.0}, ("memory",), 0.65),
        ({"phi": 0.04, "basin": leaning(1.0), "latency": 50.0}, ("latency",), 1.0),
        ({"latency": 50.0}, (), 0.55),  # a diagnosis that does not name it buys nothing with it
    ],
)
def test_what_each_cure_scores(fault: dict[str, Any], service: tuple[str, ...], point: float) -> None:
    limits = replace(LIMITS, service=service)
    cured = scored(side(**fault), side(), limits)
    assert cured.point == pytest.approx(point)
    assert scored(side(), side(**fault), limits).point == pytest.approx(0.55 - (point - 0.55))
    assert cured.low == pytest.approx(cured.point)
    assert cured.high == pytest.approx(cured.point)


def test_a_faster_service_is_no_fault() -> None:
    limits = replace(LIMITS, service=("latency", "errors", "memory"))
    assert excesses(side(latency=5.0), side(latency=0.1, memory=-9.0), limits, resamples=FEW).after == {
        "phi": 0.0,
        "kappa": 0.0,
        "basin_drift": 0.0,
        "errors": 0.0,
        "latency": 0.0,
        "memory": 0.0,
    }


def test_phi_above_its_band_is_as_far_out_as_below() -> None:
    found = excesses(side(phi=0.86), side(phi=0.68), LIMITS, resamples=FEW)
    assert found.before["phi"] == pytest.approx(2.0)
    assert found.after["phi"] == pytest.approx(2.0)


def test_a_smoother_basin_is_no_healthier_one() -> None:
    # Temperature up: single batches drift less, and their mean lies further away.
    healthy, hot = side(noise=3), side(noise=3, basin=leaning(1.0))
    hot = replace(hot, basins=0.1 * hot.basins + 0.9 * leaning(1.0))
    assert scored(healthy, hot).components["basin"] == 0.0
    assert scored(hot, healthy).components["basin"] == 1.0


def test_size_costs_up_to_a_tenth_of_a_tenth() -> None:
    points = [
        scored(side(), side(), lines=lines).point for lines in (0, LARGE_PATCH // 2, LARGE_PATCH, 10**6)
    ]
    assert points == pytest.approx([0.55, 0.545, 0.54, 0.54])


def test_chance_earns_no_full_gain() -> None:
    before, after = side(phi=0.7388), side()  # 0.04 half-widths outside
    assert scored(before, after).components["phi"] == pytest.approx(1.0)
    dull = scored(before, after, spread={"phi": 0.4})
    assert dull.components["phi"] == pytest.approx(0.55)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 0.7))
@checks(max_examples=25, deadline=None)
def test_the_score_never_rises_when_the_patched_side_worsens(one: float, other: float, before: float) -> None:
    nearer, further = sorted((one, other), key=lambda phi: abs(phi - 0.77))
    points = [scored(side(phi=before), side(phi=phi), resamples=4).point for phi in (nearer, further)]
    assert points[0] >= points[1] - 1e-12
    assert 0.0 <= points[1] <= points[0] <= 1.0


@pytest.mark.parametrize("pairs", [4, 7, 20])
def test_resampling_is_its_naive_twin(pairs: int) -> None:
    draw = np.random.default_rng(pairs)
    before, after = side(pairs, noise=1), side(pairs, noise=2, phi=0.5)
    blocks = before.blocks
    count = len(np.unique(blocks))
    rows = [np.stack([s.phi, s.kappa], axis=1) for s in (before, after)]
    units = [np.asarray(amplitudes(s.basins)) for s in (before, after)]
    target = np.asarray(amplitudes(draw.dirichlet(FLAT * 50)))
    seed = 2**62 + 12345
    sums = np.stack([[r[blocks == b].sum(axis=0) for b in range(count)] for r in rows], axis=1)
    summed = np.stack([[u[blocks == b].sum(axis=0) for b in range(count)] for u in units], axis=1)
    counts = np.bincount(blocks).astype(float)
    found = resample(sums, summed, counts, target, 5, seed)
    for r in range(5):
        expected = reference.resampled_sides(
            [x.tolist() for x in rows], [x.tolist() for x in units], blocks.tolist(), target.tolist(), r, seed
        )
        np.testing.assert_allclose(found[r], expected, rtol=1e-12, atol=1e-13)


def test_states_that_cancel_lie_as_far_as_can_be() -> None:
    units = np.zeros((2, 2, 3))
    units[0, :, 0], units[1, :, 0] = 1.0, -1.0
    found = resample(np.zeros((2, 2, 1)), units, np.ones(2), np.array([0.0, 1.0, 0.0]), 50, 3)
    assert not np.isnan(found).any()
    assert 2.0 in found[:, 0, -1]


def test_every_block_is_drawn_equally_often() -> None:
    sums = np.zeros((7, 2, 7))
    sums[np.arange(7), :, np.arange(7)] = 1.0
    found = resample(sums, np.ones((7, 2, 2)), np.ones(7), np.array([1.0, 0.0]), 20_000, 9)
    # 140,000 draws: a share of 1/7 has a standard error of 0.00094.
    np.testing.assert_allclose(found[:, 0, :7].mean(axis=0), 1 / 7, atol=0.004)


def test_same_seed_same_bits() -> None:
    before, after = side(noise=4, phi=0.70), side(noise=5, phi=0.72)
    one, again, other = (scored(before, after, seed=seed) for seed in (6, 6, 7))
    assert one == again
    assert one.point == other.point
    assert one.low != other.low


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
def test_the_chordal_mean_stays_near_karchers(geometry: Any) -> None:
    # The bound r³ / (6 cos r) of `excesses`, in amplitudes, on lopsided clouds where it matters.
    draw = np.random.default_rng(11)
    for share in (0.02, 0.1, 0.3):
        weights = (
            np.tile(FLAT, (40, 1))
            + share * (draw.random((40, 1)) ** 3) * np.eye(DIM)[draw.integers(0, 2, 40)]
        )
        units = np.asarray(amplitudes(weights, geometry))
        karcher = np.asarray(frechet_mean(weights, geometry=geometry))
        chordal = units.sum(axis=0) / np.linalg.norm(units.sum(axis=0))
        radius = float(np.max(2 * np.arcsin(np.linalg.norm(units - karcher, axis=1) / 2)))
        apart = 2 * math.asin(float(np.linalg.norm(chordal - karcher)) / 2)
        assert apart <= radius**3 / (6 * math.cos(radius)) + 1e-12


def test_drift_of_a_side_is_that_of_its_frechet_mean() -> None:
    noisy = side(40, noise=8, basin=leaning(1.0))
    found = excesses(noisy, side(40, noise=9), LIMITS, resamples=FEW)
    mean = np.asarray(frechet_mean(noisy.basins))
    away = 4 * math.asin(float(np.linalg.norm(mean - LIMITS.basin)) / 2)
    assert found.before["basin_drift"] == pytest.approx(away / 0.3 - 1, rel=1e-12)
    drawn = found.drawn["basin_drift"][0]
    assert drawn.mean() == pytest.approx(found.before["basin_drift"], abs=0.02)
    assert found.after["basin_drift"] == 0.0


def test_on_the_sphere_signed_states_are_scored() -> None:
    centre = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0]) / math.sqrt(2)
    limits = replace(LIMITS, basin=centre, geometry="sphere")
    away = replace(side(), basins=np.tile([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], (20, 1)))
    near = replace(side(), basins=np.tile([2.0, -2.0, 0.0, 0.0, 0.0, 0.0], (20, 1)))
    found = excesses(away, near, limits, resamples=FEW)
    assert found.before["basin_drift"] == pytest.approx(math.pi / 2 / 0.3 - 1)
    assert score(away, near, limits, resamples=FEW).point == pytest.approx(0.70)


def test_latency_is_averaged_geometrically() -> None:
    uneven = replace(side(), latency=np.where(np.arange(20) % 2, 50.0, 2.0))  # geometric mean 10
    found = excesses(uneven, side(), replace(LIMITS, service=("latency",)), resamples=FEW)
    assert found.before["latency"] == pytest.approx(4.0)


def test_the_lower_bound_errs_as_seldom_as_it_says() -> None:
    # Ten blocks, level 5 %: plain percentiles would err 8 % of the time, this may err 6.9 % at 3 sd.
    draw = np.random.default_rng(23)
    limits = replace(LIMITS, bands={"phi": (0.74, 0.80)})
    true = scored(side(phi=0.70), side(phi=0.72), limits).point
    wrong = 0
    for _ in range(1200):
        before, after = (
            replace(side(), phi=np.repeat(draw.normal(phi, 0.01, 10), 2)) for phi in (0.70, 0.72)
        )
        wrong += scored(before, after, limits, resamples=400).low > true
    assert wrong / 1200 < 0.069


def test_a_stricter_level_moves_both_bounds_outwards() -> None:
    before, after = side(noise=1, phi=0.70), side(noise=2, phi=0.72)
    loose, strict = (scored(before, after, level=level, resamples=4000) for level in (0.05, 0.005))
    assert strict.low < loose.low < loose.point < loose.high < strict.high


def test_degradation_has_the_standard_error_of_its_blocks() -> None:
    before, after = side(60, noise=1, phi=0.60), side(60, noise=2, phi=0.55)
    found = excesses(before, after, LIMITS, resamples=4000, seed=3).degradation("phi")
    per_block = (before.phi - after.phi).reshape(-1, 2).mean(axis=1) / 0.03
    assert found.value == pytest.approx(per_block.mean())
    assert found.stderr == pytest.approx(per_block.std(ddof=1) / math.sqrt(30), rel=0.05)
    assert found.freedom == 29
    assert excesses(side(), side(), LIMITS, resamples=FEW).degradation("phi").stderr == 0.0


def test_spread_is_what_identical_sides_differ_by() -> None:
    limits = replace(LIMITS, service=("latency",))
    one, other = side(400, noise=1), side(400, noise=2)
    found = spread(one, other, limits, pairs=100)
    assert found["phi"] == pytest.approx(math.sqrt(2) / math.sqrt(100) / 3, rel=0.15)  # κ and Φ alike
    assert found["service"] == 0.0
    assert 0.0 < found["basin"] < 0.1
    assert spread(side(1), side(1), limits, pairs=100) == {"phi": 0.0, "basin": 0.0, "service": 0.0}


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(TooLittleData, match="at least 2 blocks of pairs, got 1"):
        scored(side(2), side(2))
    with pytest.raises(ValueError, match=r"after.phi: expected shape \(20,\)"):
        scored(side(), side(22))
    with pytest.raises(ValueError, match=r"after.basins: expected shape \(20, 6\)"):
        scored(side(), replace(side(), basins=np.ones((20, 5))))
    with pytest.raises(ValueError, match=r"before.latency: expected values above 0"):
        scored(side(latency=0.0), side())
    with pytest.raises(ValueError, match="the same pairs"):
        scored(side(), replace(side(), blocks=np.arange(20) // 4))
