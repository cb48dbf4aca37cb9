"""The detection benchmark counts right, its oracle is one, and it runs. Nothing is judged here."""

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

from benchmarks.detection import measure, plan, report
from benchmarks.detection.beside import WINDOW, Discrepancy, candidates, exceedances
from benchmarks.detection.oracles import AlwaysFires, Oracle, limit
from benchmarks.detection.peers import Candidate, Ours, adwin_tuned, page_hinkley_tuned
from benchmarks.detection.steady import Steady
from benchmarks.detection.streams import (
    DIM,
    Change,
    Floats,
    Rows,
    centre,
)
from qigcore import geometry

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


def test_a_run_length_is_certain_only_where_its_interval_allows() -> None:
    def row(found: float | None, low: float, high: float | None, spread: float | None) -> dict[str, Any]:
        return {"run_length": found, "low": low, "high": high, "dispersion": spread}

    asked = {
        "yes": row(15_000, 12_000, 19_000, 1.0),
        "yes, within the error": row(15_000, 12_000, 19_000, 9.0),
        "no, within the error": row(9000, 7000, 11_000, 0.5),
        "NO": row(9000, 8500, 9500, 1.0),
        "too few rows": row(None, 5400, None, None),
    }
    for answer, figures in asked.items():
        assert report._reached(figures, 10_000.0) == answer


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
