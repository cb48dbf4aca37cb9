"""The detection benchmark's streams have the statistics that they state, and the likelihoods."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.detection import digits, plan
from benchmarks.detection.autoregressive import Autoregressive
from benchmarks.detection.season import Seasonal
from benchmarks.detection.steady import Ramp, Steady, evidence
from benchmarks.detection.streams import (
    DAY,
    DIM,
    Change,
    Floats,
    centre,
    direction,
    inner,
    likeliest,
    moved,
)
from qigcore import geometry
from qigcore.rows import Batch


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("support", [8, 64])
@pytest.mark.parametrize("size", [0.05, 0.1, 0.2, 0.4])
def test_centre_moves_by_exactly_the_stated_distance_in_the_stated_components(
    size: float, support: int
) -> None:
    draw = rng(1)
    for _ in range(20):
        p0 = centre(draw)
        point, way = moved(draw, p0, size, support, 1e-4)
        assert geometry.distance(p0, point) == pytest.approx(size, abs=1e-12)
        assert np.count_nonzero(way) == support
        assert abs(way @ np.sqrt(p0)) < 1e-14


@pytest.mark.parametrize("c", [500.0, 2000.0])
def test_steady_rows_have_the_stated_centre_and_concentration(c: float) -> None:
    draw = rng(2)
    p0 = centre(draw)
    rows = Steady(p0, c).healthy(draw, 40_000).basins
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)
    deviation = (rows.mean(axis=0) - p0) / np.sqrt(p0 * (1.0 - p0) / (c + 1.0) / len(rows))
    assert np.abs(deviation).max() < 4.0
    # Var p_i = p_i (1 − p_i)/(c + 1); each of 64 ratios is known to about 1 %
    ratio = rows.var(axis=0) * (c + 1.0) / (p0 * (1.0 - p0))
    assert ratio.mean() == pytest.approx(1.0, abs=0.005)


def test_changed_rows_lie_around_the_moved_centre() -> None:
    draw = rng(3)
    world = Steady(centre(draw), 500.0)
    rows = world.changed(draw, Change("", "shift", 0.2, 8)).rows(draw, 0, 40_000, 0).basins
    assert geometry.distance(rows.mean(axis=0), world.p0) == pytest.approx(0.2, abs=0.003)


def test_spread_keeps_the_centre_and_doubles_the_variance() -> None:
    draw = rng(4)
    world = Steady(centre(draw), 500.0)
    rows = world.changed(draw, Change("", "spread", 2.0)).rows(draw, 0, 40_000, 0).basins
    ratio = rows.var(axis=0) / (world.p0 * (1.0 - world.p0)) * 251.0
    assert ratio.mean() == pytest.approx(1.0, abs=0.005)
    assert geometry.distance(rows.mean(axis=0), world.p0) < 0.004


def test_ramp_grows_linearly_and_then_stays() -> None:
    draw = rng(5)
    world = Steady(centre(draw), 500.0)
    ramp = world.changed(draw, Change("", "ramp", 0.2, over=1000))
    assert isinstance(ramp, Ramp)
    laws = ramp.law(np.array([0, 499, 999, 5000]))
    np.testing.assert_allclose(laws.sum(axis=1), 500.0, rtol=1e-12)
    np.testing.assert_allclose(geometry.distances(laws, world.p0), [0.0002, 0.1, 0.2, 0.2], atol=1e-12)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_autoregressive_rows_have_the_stated_autocorrelation_and_noise(rho: float) -> None:
    draw = rng(6)
    world = Autoregressive(inner(draw), 500.0, rho)
    v = world.noise(draw, 60_000)
    power = (v * v).sum()
    assert (v[1:] * v[:-1]).sum() / power == pytest.approx(rho, abs=0.01)
    assert (v[5:] * v[:-5]).sum() / power == pytest.approx(rho**5, abs=0.01)
    assert power / len(v) == pytest.approx(63.0 / 501.0, rel=0.02)
    first = np.array([world.noise(draw, 2) for _ in range(3000)])
    np.testing.assert_allclose((first**2).sum(axis=2).mean(axis=0), 63.0 / 501.0, rtol=0.02)
    rows = world.exp(v[:5000])
    assert rows.min() >= 0.0
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)
    exact = np.isclose(geometry.distances(rows, world.p0), np.linalg.norm(v[:5000], axis=1), rtol=1e-12)
    assert exact.mean() > 0.99  # the others were reflected at the edge


def test_autoregressive_shift_is_exact_and_log_undoes_exp() -> None:
    draw = rng(7)
    world = Autoregressive(inner(draw), 500.0, 0.9)
    shift = 0.2 * direction(draw, world.p0)
    moved_to = world.exp(shift[None])[0]
    assert geometry.distance(world.p0, moved_to) == pytest.approx(0.2, abs=1e-12)
    np.testing.assert_allclose(world.exp(world.log(moved_to[None])), moved_to[None], atol=1e-14)


def test_autoregressive_change_has_no_seam() -> None:
    """The noise goes on through the change: drawn anew there, its jump alone would give the change away."""
    draw = rng(18)
    world = Autoregressive(inner(draw), 500.0, 0.9)
    changed = world.changed(draw, Change("", "shift", 0.05))
    steps = np.zeros(20)
    for _ in range(400):
        v = world.log(changed.rows(draw, 10, 10, 0).basins)
        v[10:] -= changed.shift  # type: ignore[attr-defined]
        steps[1:] += (np.diff(v, axis=0) ** 2).sum(axis=1) / 400
    np.testing.assert_allclose(steps[1:], 0.2 * 63.0 / 501.0, rtol=0.05)  # E|v' − v|² = 2(1 − ρ)·variance


def test_season_is_a_circle_of_the_stated_radius_and_period() -> None:
    draw = rng(8)
    world = Seasonal.draw(draw, 500.0, 0.15)
    centres = world.centres(np.arange(2 * DAY))
    np.testing.assert_allclose(geometry.distances(centres, world.p0), 0.15, atol=1e-12)
    np.testing.assert_allclose(centres[:DAY], centres[DAY:], atol=1e-15)
    assert geometry.distance(centres[0], centres[DAY // 2]) == pytest.approx(0.30, abs=1e-12)
    steps = [geometry.distance(centres[i], centres[i + 1]) for i in range(0, DAY, 100)]
    np.testing.assert_allclose(steps, 2.0 * np.pi * 0.15 / DAY, rtol=0.01)
    rows = world.healthy(draw, 10 * DAY, start=DAY // 4).basins
    noon = rows.reshape(10, DAY, DIM)[:, :60].mean(axis=(0, 1))
    assert geometry.distance(noon, centres[DAY // 4 + 30]) < 0.02
    for size in (0.1, 0.2, 0.4):
        changed = world.changed(draw, Change("", "shift", size))
        away = world.centres(np.arange(0, DAY, 60), changed.shift)  # type: ignore[attr-defined]
        apart = [geometry.distance(p, q) for p, q in zip(away, centres[:DAY:60], strict=True)]
        np.testing.assert_allclose(apart, size, rtol=0.02)


def test_rows_with_times_are_given_as_a_batch() -> None:
    rows = Seasonal.draw(rng(9), 500.0, 0.15).healthy(rng(9), 100, start=50)
    batch = rows[10:].given()
    assert isinstance(batch, Batch)
    assert np.diff(batch.timestamp) == pytest.approx(60.0)
    assert (batch.timestamp[0] / 60.0) % DAY == 60
    assert batch.phi.mean() == pytest.approx(0.75, abs=0.01)
    assert isinstance(Steady(centre(rng(9)), 500.0).healthy(rng(9), 3).given(), np.ndarray)


def test_digits_report_what_the_demo_host_reports() -> None:
    known = digits.recorded()
    from digits.model import Model

    drawn = known.draw(3, 5)
    response = Model(known, digits.TEMPERATURE).respond(known.requests[drawn])
    expected = digits.healthy_table()[drawn].mean(axis=0)
    np.testing.assert_allclose(expected[:DIM], response.basin, atol=1e-7)
    assert expected[digits.PHI] == pytest.approx(response.phi, abs=1e-6)
    assert expected[digits.KAPPA] == pytest.approx(response.kappa, rel=1e-5)


def test_digits_change_as_stated() -> None:
    draw = rng(10)
    world = digits.Digits()
    healthy = world.healthy(draw, 200)
    mean = healthy.basins.mean(axis=0)
    drift = geometry.distances(healthy.basins, mean)
    assert drift.mean() == pytest.approx(0.29, abs=0.1)
    few = world.changed(draw, Change("", "mix")).rows(draw, 0, 50, 0)
    assert geometry.distances(few.basins, mean).mean() == pytest.approx(1.8, abs=0.1)
    slow = world.changed(draw, Change("", "mix", over=400)).rows(draw, 0, 400, 0)
    away = geometry.distances(slow.basins, mean)
    assert away[:40].mean() < 0.4
    assert away[-40:].mean() > 1.0
    noisy = world.changed(draw, Change("", "noise", 0.3, over=200)).rows(draw, 0, 300, 7)
    assert noisy.heads is not None
    assert np.diff(noisy.heads["timestamp"]) == pytest.approx(60.0)
    assert noisy.heads["phi"][-50:].mean() < healthy.given().phi.mean() - 0.05  # type: ignore[union-attr]
    for kind in ("blank", "permuted"):
        hurt = world.changed(draw, Change("", kind, 0.1)).rows(draw, 0, 200, 0)
        assert geometry.distance(hurt.basins.mean(axis=0), mean) > 0.04


# Likelihoods and the oracle


def likeliest_by_loops(ratios: Floats, first: Floats) -> list[float]:
    """ratios[k, t]: of row t when the change came at k < t; first[t]: of row t when it came with it."""
    n = len(first)
    return [
        max(first[k] + sum(ratios[k, t] for t in range(k + 1, last + 1)) for k in range(last + 1))
        for last in range(n)
    ]


def test_likeliest_time_of_a_change_is_that_of_the_loops() -> None:
    first, later = rng(11).normal(-0.5, 1.0, (2, 40))
    expected = likeliest_by_loops(np.tile(later, (40, 1)), first)
    np.testing.assert_allclose(likeliest(first, later), expected, atol=1e-12)


def test_ramp_statistic_is_that_of_the_loops() -> None:
    draw = rng(12)
    ramp = Ramp(Steady(centre(draw), 500.0), 0.2, np.zeros(DIM), 6)
    ramp = Ramp(ramp.world, 0.2, moved(draw, ramp.world.p0, 0.2, DIM, 1e-4)[1], 6)
    rows = ramp.rows(draw, 0, 20, 0)
    ages = ramp.law(np.arange(20))
    ratios = np.array(
        [[evidence(rows.basins[t : t + 1], 500.0 * ramp.world.p0, ages[max(0, t - k)])[0] for t in range(20)]
         for k in range(20)]
    )  # fmt: skip
    np.testing.assert_allclose(
        ramp.statistic(rows, 0), likeliest_by_loops(ratios, np.diag(ratios)), atol=1e-8
    )


@pytest.mark.parametrize("stream", [stream.name for stream in plan.STREAMS if stream.name != "digits"])
def test_mean_likelihood_ratio_is_one_in_health(stream: str) -> None:
    """E exp(log-likelihood ratio) = 1 under the healthy law: a wrong density, or a wrong constant, breaks it."""
    draw, world, _ = plan.seeded(plan.TUNING, plan.named(stream), 0)
    changed = world.changed(draw, Change("", "shift", 0.05))
    apart = 50  # rows: far enough for AR(1)
    rows = world.healthy(draw, 20_000, 0)
    ratio = np.exp([changed.statistic(rows[at : at + 1], at)[0] for at in range(0, len(rows), apart)])  # type: ignore[index]
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / math.sqrt(len(ratio))
