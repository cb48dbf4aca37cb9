"""The detection benchmark's streams are what they say, and its counting is right. Nothing is judged here."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from benchmarks.detection import digits, measure, plan, report
from benchmarks.detection.autoregressive import Autoregressive
from benchmarks.detection.beside import WINDOW, Discrepancy, candidates, exceedances
from benchmarks.detection.oracles import AlwaysFires, Oracle, limit
from benchmarks.detection.peers import Candidate, Ours, adwin_tuned, page_hinkley_tuned
from benchmarks.detection.season import Seasonal
from benchmarks.detection.steady import Ramp, Steady, evidence
from benchmarks.detection.streams import (
    DAY,
    DIM,
    Change,
    Floats,
    Rows,
    centre,
    direction,
    inner,
    likeliest,
    moved,
)
from qigcore import geometry
from qigcore.rows import Batch

SMALL = plan.Size(3, 3000, 4, 200, 0.5, 4, 5000)


class KnownNoise:
    """Stands in for ours: an EWMA of amplitudes about the learned mean, its T² held against a limit."""

    def __init__(self, learned: Rows, limit: float) -> None:
        units = geometry.amplitudes(learned.basins)
        self._mean, self._variance = units.mean(axis=0), float(units.var(axis=0).mean())
        self._limit = limit

    def alarms(self, rows: Rows) -> Iterator[int]:
        at = 0
        while at < len(rows):
            away = geometry.amplitudes(rows.basins[at:]) - self._mean
            smooth = lfilter([0.1], [1.0, -0.9], away, axis=0)
            over = (smooth**2).sum(axis=1) * 19.0 / (DIM * self._variance) > self._limit
            if not over.any():
                return
            at += int(over.argmax()) + 1
            yield at - 1


STAND_IN = Candidate("stand-in", KnownNoise, 1.0, (1.0, 10.0))


class Scripted:
    """Alarms at the rows it is told, whatever happens."""

    def __init__(self, *alarms: int) -> None:
        self._alarms = alarms

    def alarms(self, rows: Rows) -> Iterator[int]:
        yield from self._alarms


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Streams


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


def test_oracle_has_the_run_length_it_is_set_to() -> None:
    draw = rng(13)
    world = Steady(centre(draw), 500.0)
    changed = world.changed(draw, Change("", "shift", 0.05))
    level = limit(
        [changed.statistic(world.healthy(draw, 2000), 0) for _ in range(40)],  # type: ignore[misc]
        500.0,
    )
    alarms = sum(1 for _ in Oracle(changed, level, 0).alarms(world.healthy(draw, 80_000)))
    _, low, high = measure.run_length(80_000, alarms)
    assert low < 600.0
    assert high > 400.0


# Counting


def test_run_length_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw, covered = rng(14), 0
    for _ in range(2000):
        alarms = int(np.searchsorted(np.cumsum(draw.exponential(100.0, 60)), 1500.0))
        _, low, high = measure.run_length(1500, alarms)
        covered += low <= 100.0 <= high
    assert 0.945 <= covered / 2000 <= 0.985  # an exact interval for a count covers a little more than it says


def test_run_length_without_an_alarm_has_a_lower_end_only() -> None:
    length, low, high = measure.run_length(3000, 0)
    assert (length, high) == (math.inf, math.inf)
    assert low == pytest.approx(3000 / -math.log(0.025))


def test_always_fires_has_run_length_one() -> None:
    rows = Rows(np.zeros((500, DIM)))
    alarms = sum(1 for _ in AlwaysFires().alarms(rows))
    assert measure.run_length(500, alarms)[0] == 1.0
    assert measure.delay(AlwaysFires(), rows, 120) == (1.0, 120)


def test_delay_counts_from_the_first_changed_row() -> None:
    rows = Rows(np.zeros((500, DIM)))
    assert measure.delay(Scripted(3, 99, 100, 180), rows, 100) == (1.0, 2)
    assert measure.delay(Scripted(149), rows, 100) == (50.0, 0)
    assert measure.delay(Scripted(7), rows, 100) == (math.inf, 1)


def test_quantiles_count_unseen_changes_as_latest() -> None:
    assert measure.quantiles([4.0, 1.0, math.inf, 2.0, 3.0]) == (3.0, 1.0, math.inf)
    assert measure.quantiles([math.inf, 1.0, math.inf])[0] == math.inf


def test_restarted_detector_gives_all_alarms_whatever_stretches_it_is_shown() -> None:
    marks = np.sort(rng(15).choice(50_000, 60, replace=False))
    rows = Rows(np.zeros((50_000, 1)))
    rows.basins[marks] = 1.0

    class First:
        def run(self, basins: Any) -> int | None:
            return int(basins.argmax()) if basins.any() else None

    assert list(Ours(First()).alarms(rows)) == marks.tolist()


def test_dispersion_tells_unequal_streams() -> None:
    assert measure.dispersion(rng(16).poisson(5.0, 4000).tolist()) == pytest.approx(1.0, abs=0.1)
    assert measure.dispersion([0, 20, 0, 20]) > 5.0
    assert math.isnan(measure.dispersion([0, 0, 0]))


def test_tuning_finds_the_limit_and_stops_at_the_ends() -> None:
    assert measure.tuned(lambda knob: knob**2, 1.0, 100.0, 400.0) == pytest.approx(20.0, rel=0.02)
    assert measure.tuned(lambda _: math.inf, 1.0, 100.0, 400.0) == pytest.approx(1.0, rel=0.01)
    assert measure.tuned(lambda _: 1.0, 1.0, 100.0, 400.0) == pytest.approx(100.0, rel=0.01)


def test_windowed_statistic_read_in_chunks_alarms_as_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is filled anew after each alarm, also where a chunk ends meanwhile."""
    values = rng(17).normal(size=1200)
    values[:WINDOW] = 9.0  # before the window is full: no alarms

    def statistic(_: Discrepancy, rows: Rows) -> Floats:
        found = rows.basins[:, 0].copy()
        found[: WINDOW - 1] = np.nan
        return found

    monkeypatch.setattr(Discrepancy, "statistic", statistic)
    chunked = Discrepancy.__new__(Discrepancy)
    chunked._limit = 1.0
    whole = values.copy()
    whole[: WINDOW - 1] = np.nan
    assert list(chunked.alarms(Rows(values[:, None]))) == list(exceedances(whole, 1.0))


def test_river_detectors_are_back_in_their_learned_state_after_each_alarm() -> None:
    pytest.importorskip("river")
    draw = rng(19)
    world = Steady(centre(draw), 500.0)
    learned = world.healthy(draw, 1000)
    rows = world.changed(draw, Change("", "shift", 0.4)).rows(draw, 100, 400, 0)
    for detector in (adwin_tuned(learned, 10.0), page_hinkley_tuned(learned, 0.5)):
        alarms = list(detector.alarms(rows))
        assert len(alarms) > 3
        again = [at + alarms[0] + 1 for at in detector.alarms(rows[alarms[0] + 1 :])]
        assert again == alarms[1:]


@pytest.mark.parametrize(("python", "reason"), [("", "--frouros-python"), (sys.executable, "frouros")])
def test_a_python_without_frouros_is_absent_not_broken(python: str, reason: str) -> None:
    if python and importlib.util.find_spec("frouros"):
        pytest.skip("frouros is installed here")
    for candidate in candidates(python):
        with pytest.raises(ImportError, match=reason):
            candidate.learn(Rows(np.full((300, DIM), 1.0 / DIM)))


# The plan and the page


def test_judged_streams_are_reproducible_and_not_those_tuned_on() -> None:
    for stream in plan.STREAMS:
        again, judged, tuned = (
            plan.seeded(purpose, stream, 0)[2].basins[:5]
            for purpose in (plan.JUDGING, plan.JUDGING, plan.TUNING)
        )
        np.testing.assert_array_equal(again, judged)
        assert not np.isclose(judged, tuned).any()


def test_oracle_beats_a_calibrated_detector_and_both_keep_their_run_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "RUN_LENGTH", 300.0)
    stream = plan.Stream("tried", "", lambda draw: Steady(centre(draw), 500.0), plan.shifts(0.05, 0.1, 0.2))
    monkeypatch.setattr(plan, "STREAMS", (stream,))
    size = plan.Size(6, 5000, 10, 300, 1.0, 4, 5000)
    knob = plan.calibrated(stream, STAND_IN, size)
    levels = {change.name: plan.oracle_limit(stream, change, size) for change in stream.changes}
    assert None not in levels.values()
    worlds = [
        plan.judge(stream, number, size, [STAND_IN], {STAND_IN.name: knob}, levels)  # type: ignore[arg-type]
        for number in range(size.worlds)
    ]
    found = report.summary(stream, worlds, {STAND_IN.name: knob}, levels)  # type: ignore[arg-type]
    rows = {row["detector"]: row for row in found["rows"]}
    assert rows[plan.ALWAYS]["run_length"] == 1.0
    for name in (STAND_IN.name, plan.ORACLE):
        assert rows[name]["low"] < 400.0
        assert rows[name]["high"] > 200.0
    for change in stream.changes:
        stand_in, oracle, always = (
            rows[name]["delays"][change.name]["median"] for name in (STAND_IN.name, plan.ORACLE, plan.ALWAYS)
        )
        assert always == 1.0
        assert oracle <= stand_in
    assert (
        rows[plan.ORACLE]["delays"]["0.05 rad"]["median"]
        < 0.6 * rows[STAND_IN.name]["delays"]["0.05 rad"]["median"]
    )


def test_absent_detectors_are_named_with_the_reason() -> None:
    def missing(learned: Rows) -> Any:
        raise ImportError("No module named 'nowhere'")

    stream = plan.named("ar-0.5")
    found = plan.judge(stream, 0, SMALL, [Candidate("nobody", missing, 1.0)], {}, {})
    row = report.summary(stream, [found, found], {}, {})["rows"][0]
    assert row == {"detector": "nobody", "absent": "No module named 'nowhere'"}


@pytest.mark.parametrize(("median", "answer"), [(54.0, "yes"), (56.0, "NO"), (None, "NO")])
def test_page_says_where_what_was_asked_is_missed(median: float | None, answer: str) -> None:
    row = {
        "detector": report.OURS, "run_length": 9000.0, "low": 8000.0, "high": 9900.0, "rows": 9, "alarms": 1,
        "dispersion": 1.0, "early": [100, 0], "us_a_row": 1.0, "knob": None,
        "delays": {"0.05 rad": {"median": median, "p10": 1.0, "p90": None}},
    }  # fmt: skip
    found = {
        "machine": {"date": "2026-01-01", "cpu": "a processor", "cores": 2, "system": "Linux"},
        "versions": {"python": "3"}, "quick": False, "run_length": 10_000.0, "seconds": 60.0,
        "size": {"worlds": 2, "quiet": 100, "trials": 5, "horizon": 300}, "notes": {report.OURS: ""},
        "streams": [{
            "stream": "dirichlet-500", "about": "rows", "learned": [2000, 300], "rows": [row],
            "changes": [{"name": "0.05 rad", "kind": "shift", "size": 0.05}],
        }],
    }  # fmt: skip
    page = report.page(found)
    limits = {
        line.split("|")[1].strip(): line.split("|")[-2].strip()
        for line in page.splitlines()
        if "≤ 55" in line
    }
    assert limits == {"median delay, 0.05 rad": answer}
    assert "| run length, dirichlet-500" in page
    assert "NO" in next(line for line in page.splitlines() if "run length, dirichlet-500" in line)


def test_quick_mode_runs_end_to_end(tmp_path: Path) -> None:
    names = ["dirichlet-500", "ar-0.9", "digits"]
    argv = [sys.executable, "-m", "benchmarks.detection", "--quick", "--workers", "2", "--streams", *names]
    done = subprocess.run(
        [*argv, "--json", "--out", str(tmp_path / "page.md")],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True, timeout=250,
    )  # fmt: skip
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [stream["stream"] for stream in found["streams"]] == names
    for stream in found["streams"]:
        detectors = {row["detector"]: row for row in stream["rows"]}
        assert detectors[plan.ALWAYS]["run_length"] == 1.0
        assert plan.ORACLE in detectors or stream["stream"] == "digits"
        assert set(detectors[plan.ALWAYS]["delays"]) == {change["name"] for change in stream["changes"]}
    page = (tmp_path / "page.md").read_text()
    assert "A quick run" in page
    assert "## ar-0.9" in page
