"""The change detector beside its naive twin, row by row; what its alarms say; and what cannot break it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore._detectors import EVENTS
from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector
from qigcore.recorder import Recorder
from qigcore.rows import BIT, Batch
from tests.core.healthy import batch, learned, moved, states
from tests.detector_twin import Twin

RUN_LENGTH = 1000.0


class Heard(ChangeDetector):
    """Keeps what an alarm told the loops, so that the twin is told the same."""

    def shifted(self, mean: Any, rows: float, noise: float) -> None:
        self.told = (np.array(mean), rows, noise)
        super().shifted(mean, rows, noise)


def nasty(n: int, dim: int, geometry: str, figures: bool = False) -> Batch:
    """Health, a weak shift, health, a strong one, health; between them rows that are no states, at odd scales."""
    rng = np.random.default_rng(dim)
    made = batch(n, 5, dim, basins=states(n, 5, dim, geometry))
    basins = made.columns["basin_coords"]
    size = {"simplex": (np.array([3.0, 0.2]), np.array([40.0, 0.01])), "sphere": (-1.0, 5.0)}[geometry]
    third = n // 5
    basins[third : third + 30, :2] *= size[0]
    basins[3 * third : 3 * third + 40, :2] *= size[1]
    made.columns["phi"][3 * third : 3 * third + 40] -= 0.2
    basins *= rng.choice([1e-300, 1e-12, 1.0, 7.0, 1e250], n)[:, None]
    for row, bad in ((3, np.nan), (4, np.inf), (40, 0.0), (41, -1.0 if geometry == "simplex" else np.nan)):
        basins[row] = bad
    basins[77, 0] = -np.inf
    basins[78] = 5e-324 * (np.arange(dim) % 2)
    flagged = rng.integers(0, n, (6, 12))
    for rows, name in zip(
        flagged,
        ("phi", "kappa_eff", "basin_coords", "avg_latency_ms", "error_rate", "memory_mb"),
        strict=True,
    ):
        made.columns["repaired"][rows] |= BIT[name]
    made.columns["avg_latency_ms"][100] = -3.0
    made.columns["kappa_eff"][101] = np.nan
    made.columns["phi"][102] = np.inf
    made.columns["kappa_eff"][103] = 1.7e308
    return made


def beside(detector: Heard, rows: Batch, heads: bool) -> tuple[int, int, int]:
    """Hold the detector against its twin at every row; returns alarms, confirmations, recoveries."""
    twin = Twin(detector.baseline, detector.average_run_length)
    basins, figures = rows.basin_coords, rows.heads() if heads else None
    count = dict.fromkeys(EVENTS, 0)
    for i in range(len(basins)):
        if i == 150:
            detector.interrupted()
            twin.follows()
        trace = np.zeros((1, 2))
        one = None if figures is None else figures[i : i + 1]
        was = detector.alarmed
        events = twin.step(basins[i], None if figures is None else figures[i])
        found = detector.taken(basins[i : i + 1], one, trace)
        assert (detector.alarmed, detector.confirmed) == (twin.alarmed, twin.confirmed), i
        assert trace[0] == pytest.approx([twin.statistic, twin.wealth], rel=1e-9, abs=1e-12), i
        assert detector.charts() == pytest.approx(twin.charts, rel=1e-9, abs=1e-12), i
        assert bool(found) == bool(events), (i, events, found)
        for name in events:
            count[name] += 1
        if detector.alarmed and not was:
            twin.shifted(*detector.told)
        assert (detector.current is not None) == detector.alarmed
    return count["fast"], count["sure"], count["recovered"]


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
@pytest.mark.parametrize("dim", [2, 15, 16, 17, 64, 100])
def test_each_row_is_as_the_twin_says(geometry: str, dim: int) -> None:
    baseline = learned(300, dim, geometry)
    detector = Heard(baseline, RUN_LENGTH)
    rows = nasty(400, dim, geometry)
    fast, sure, recovered = beside(detector, rows, heads=False)
    assert fast >= 1
    assert sure >= 1
    assert recovered >= 1
    states_good = 6  # those that `nasty` spoils, of which the denormal one is a state
    assert detector.skipped == states_good - 1


@pytest.mark.parametrize("dim", [2, 17, 64])
def test_each_row_with_figures_is_as_the_twin_says(dim: int) -> None:
    detector = Heard(learned(300, dim, figures=True), RUN_LENGTH)
    assert len(detector.baseline.calibration.signals) == 5
    fast, sure, recovered = beside(detector, nasty(400, dim, "simplex"), heads=True)
    assert min(fast, sure, recovered) >= 1


def test_autocorrelated_rows_are_as_the_twin_says() -> None:
    rows = np.abs(wandering(700, 3))
    baseline = Baseline.learn(rows[:400])
    assert baseline.calibration is not None
    assert baseline.calibration.memory
    later = batch(300, 3, 16, basins=rows[400:])
    later.columns["basin_coords"][120:160, 0] *= 3.0
    later.columns["basin_coords"][130] = np.nan
    beside(Heard(baseline, RUN_LENGTH), later, heads=False)


def wandering(n: int, seed: int, dim: int = 16, rho: float = 0.8) -> Any:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, dim))
    for t in range(1, n):
        rows[t] = rho * rows[t - 1] + np.sqrt(1 - rho * rho) * rows[t]
    return 1.0 + 0.05 * rows


# --- one stream, however it comes ---------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 400), max_size=6).map(sorted))
@settings(max_examples=25, deadline=None)
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    rows = nasty(400, 17, "simplex")
    whole = ChangeDetector(learned(300, 17, figures=True), RUN_LENGTH)
    parts = ChangeDetector(learned(300, 17, figures=True), RUN_LENGTH)
    one, pieces = np.zeros((400, 2)), np.zeros((400, 2))
    expected = whole.scan(rows, one)
    found = []
    for low, high in zip([0, *cuts], [*cuts, 400], strict=True):
        found += parts.scan(rows.take(slice(low, high)), pieces[low:high])
    assert found == expected
    assert pieces.tobytes() == one.tobytes()


def test_updates_are_what_a_scan_finds() -> None:
    rows = nasty(400, 16, "simplex").basin_coords
    scanned, updated = (ChangeDetector(learned(300, 16), RUN_LENGTH) for _ in range(2))
    trace = np.zeros((400, 2))
    events = scanned.scan(rows, trace)
    alarms = [event.alarm for event in events if event.kind == "alarm"]
    assert len(alarms) >= 2
    found = []
    for row, (statistic, wealth) in zip(rows, trace, strict=True):
        alarm = updated.update(row)
        if alarm is not None:
            found.append(alarm)
        assert (updated.statistic, updated.wealth) == (statistic, wealth)
    assert found == alarms
    assert (updated.rows, updated.skipped) == (scanned.rows, scanned.skipped) == (400, 5)


def test_snapshots_are_read_as_the_rows_of_a_batch() -> None:
    rows = batch(200, 9, 16)
    rows.columns["phi"][100:] -= 0.05
    recorder = Recorder(dim=16, capacity=300)
    for i in range(200):
        recorder.record(
            float(rows.phi[i]),
            float(rows.kappa_eff[i]) if i % 17 else float("nan"),
            rows.basin_coords[i] if i % 23 else np.zeros(16),
            float(rows.error_rate[i]),
            float(rows.avg_latency_ms[i]),
            0.0,
        )
    baseline = learned(300, 16, figures=True)
    one, many = ChangeDetector(baseline, RUN_LENGTH), ChangeDetector(baseline, RUN_LENGTH)
    snapshots = [recorder.snapshot(i) for i in range(200)]
    events = many.scan(Batch.of_snapshots(snapshots, 16))
    found = [alarm for alarm in map(one.update, snapshots) if alarm is not None]
    assert found == [event.alarm for event in events if event.kind == "alarm"]
    assert found
    assert (one.wealth, one.statistic, one.skipped) == (many.wealth, many.statistic, many.skipped)


BITS = """
import hashlib
import numpy as np
from qigcore._geometry import INSTRUCTIONS
from qigcore.detectors import ChangeDetector
from tests.core.healthy import learned
from tests.core.test_detectors import bits
print(INSTRUCTIONS, bits())
"""


def bits() -> str:
    """A digest of the traces and events over several sizes, of baselines that travelled as bytes."""
    digest = hashlib.sha256()
    for dim in (2, 17, 64):
        # Learning uses BLAS, which may differ: one frozen calibration for all.
        for geometry in ("simplex", "sphere"):
            detector = ChangeDetector(plain_baseline(dim, geometry), 100.0)
            trace = np.zeros((200, 2))
            rows = nasty(200, dim, geometry)
            taken, start = [], 0
            while start < 200:
                done, event = detector.feed(rows.basin_coords, None, start, trace)
                start += done
                taken.append((start, event))
            digest.update(trace.tobytes() + repr(taken).encode())
    return digest.hexdigest()


def plain_baseline(dim: int, geometry: str) -> Baseline:
    import msgspec

    made = learned(300, dim, geometry)
    assert made.calibration is not None
    rng = np.random.default_rng(dim)
    matrix = np.tril(rng.normal(0.0, 1.0, (dim, dim))) + 40.0 * np.eye(dim)
    root = np.sqrt(np.full(dim, 1.0 / dim))
    calibration = msgspec.structs.replace(
        made.calibration,
        figures=None,
        figure_whitener=(),
        whitener=matrix[np.tril_indices(dim)].tobytes(),
        center=tuple(root.tolist()),
        scale=(0.02,) * dim,
        memory=tuple(np.linspace(0.1, 0.6, dim).tolist()),
        trace=float(dim),
        trace2=float(dim),
        excess4=1.0,
        inflation=(1.0,) * 4,
        tail=None,
        up=(0.01,) * dim,
        down=(0.01,) * dim,
        directions=(0.05,) * 3,
        signals={},
    )
    return msgspec.structs.replace(made, basin=tuple(root.tolist()), calibration=calibration)


def test_plain_instructions_give_the_same_bits() -> None:
    found = {}
    for how in ("plain", ""):
        environment = {
            **os.environ,
            "QIGHEAL_SIMD": how,
            "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        instructions, digest = done.stdout.split()
        found[instructions] = digest
    if len(found) < 2:
        pytest.skip("this processor has plain instructions only")
    assert len(set(found.values())) == 1, found


def test_reset_forgets_all() -> None:
    rows = nasty(200, 16, "simplex").basin_coords
    detector = ChangeDetector(learned(300, 16), RUN_LENGTH)
    first, again = np.zeros((200, 2)), np.zeros((200, 2))
    events = detector.scan(rows, first)
    detector.reset()
    assert (detector.rows, detector.skipped, detector.current, detector.wealth) == (0, 0, None, 0.0)
    assert detector.scan(rows, again) == events
    assert again.tobytes() == first.tobytes()
    assert detector.run(rows) == next(event.row for event in events if event.kind == "alarm")
    assert detector.rows == 0


# --- what alarms say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 8])
def test_the_components_that_moved_are_named(components: int) -> None:
    # Power: of 20 changes of 0.3 rad, at least 18 put a moved component first; a random choice 0 to 3.
    detector = ChangeDetector(learned(2000))
    right, near = 0, 0
    for seed in range(20):
        at, chosen = moved(0.3, components, seed)
        detector.reset()
        events = detector.scan(np.concatenate([states(200, seed), states(60, 100 + seed, at=at)]))
        alarms = [event.alarm for event in events if event.kind == "alarm" and event.row >= 200]
        assert len(alarms) == 1
        alarm = alarms[0]
        shares = alarm.components
        assert sum(share.share for share in shares) <= 1.0 + 1e-12
        assert [s.share for s in shares] == sorted((s.share for s in shares), reverse=True)
        right += shares[0].index in chosen
        near += abs(alarm.onset - 200) <= 3
        assert alarm.delay == alarm.row - alarm.onset + 1
    assert right >= 18
    assert near >= 18


def test_one_alarm_a_change_confirmed_recovered_and_armed_again() -> None:
    at, _ = moved(0.3, 8)
    baseline = learned(2000)
    assert baseline.calibration is not None
    assert baseline.calibration.kind == "bounded"
    detector = ChangeDetector(baseline)
    parts = [states(300, 1), states(150, 2, at=at), states(300, 3), states(150, 4, at=at), states(300, 5)]
    events = detector.scan(np.concatenate(parts))
    assert [event.kind for event in events] == ["alarm", "confirmed", "recovered"] * 2
    for (alarm, confirmed, recovered), onset, end in zip(
        (events[:3], events[3:]), (300, 750), (450, 900), strict=True
    ):
        assert (alarm.alarm.severity, alarm.alarm.kind) == ("warning", "nominal")
        assert (confirmed.alarm.severity, confirmed.alarm.kind) == ("critical", "bounded")
        # What would break: looking for the second onset in rows of the first change.
        assert alarm.alarm.onset == pytest.approx(onset, abs=3)
        assert end <= recovered.row <= end + 40
        assert recovered.alarm == confirmed.alarm
    assert detector.current is None
    assert not detector.alarmed


def test_current_is_the_confirmed_alarm() -> None:
    at, _ = moved(0.3, 8)
    detector = ChangeDetector(learned(2000))
    detector.scan(states(100, 1))
    first = None
    for row in states(60, 2, at=at):
        alarm = detector.update(row)
        if alarm is not None:
            assert first is None
            first = alarm
            assert detector.current == alarm
    assert first is not None
    current = detector.current
    assert current is not None
    assert (current.row, current.severity, current.kind) == (first.row, "critical", "bounded")


def test_a_baseline_of_snapshots_takes_basins_alone() -> None:
    # What broke: a mean of no values, 0/0, which a host that turns warnings into errors would have raised.
    detector = ChangeDetector(learned(300, 16, figures=True))
    events = detector.scan(states(100, 3, 16, at=moved(0.6, 2, dim=16)[0]))
    assert [event.kind for event in events][:1] == ["alarm"]
    assert {moved.metric for moved in events[0].alarm.metrics} <= {"basin_drift"}


def test_an_onset_is_found_in_figures_alone() -> None:
    # What broke: rows without a usable state were counted as none, and the first of 512 was the onset.
    rows = batch(400, 21, 16)
    rows.columns["basin_coords"][:] = np.nan
    rows.columns["phi"][300:] -= 0.03
    alarm = next(
        e.alarm for e in ChangeDetector(learned(300, 16, figures=True)).scan(rows) if e.kind == "alarm"
    )
    assert alarm.row > 300
    assert alarm.onset == pytest.approx(300, abs=5)
    assert [moved.metric for moved in alarm.metrics] == ["phi"]
    assert alarm.onset_timestamp == 60.0 * alarm.onset
    assert (alarm.test, alarm.components) == ("bets", ())
