"""What a change detector refuses: rates, rows, tables, and threads; and that nothing breaks it."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from qigcore._detectors import Core
from qigcore.baseline import Baseline
from qigcore.detectors import ChangeDetector, _tables
from qigcore.errors import BaselineError, DetectorBusy, InvalidBasin, InvalidLimit
from tests.core.healthy import batch, learned, states

# --- settings -----------------------------------------------------------------------------------------


def test_the_rate_in_time_is_the_rate_in_snapshots() -> None:
    timed = learned(300, 16, figures=True)  # a snapshot a minute
    assert ChangeDetector(timed, false_alarm_every="30d").average_run_length == 30 * 1440
    assert ChangeDetector(timed, false_alarm_every="30d", interval_s=30).average_run_length == 60 * 1440
    assert ChangeDetector(timed, horizon="1w", alpha=0.1).average_run_length == pytest.approx(7 * 14400)
    assert ChangeDetector(timed, horizon=500, alpha=0.05).average_run_length == pytest.approx(10_000)
    assert ChangeDetector(timed).average_run_length == 10_000
    # What broke: NumPy's integers were refused.
    assert ChangeDetector(timed, np.int64(500)).average_run_length == 500
    assert ChangeDetector(timed, horizon=np.int32(500), alpha=np.float32(0.5)).average_run_length == 1000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"average_run_length": 9.9}, "10 to 1e15"),
        ({"average_run_length": float("nan")}, "got nan"),
        ({"average_run_length": True}, "got True"),
        ({"average_run_length": "30d"}, "got '30d'"),
        ({"average_run_length": 10**5000}, "10 to 1e15"),
        ({"average_run_length": 100.0, "false_alarm_every": "1d"}, "one of"),
        ({"horizon": 100}, "together with alpha"),
        ({"alpha": 0.1}, "together with alpha"),
        ({"horizon": 100, "alpha": 1.0}, "alpha"),
        ({"horizon": 100, "alpha": float("nan")}, "alpha"),
        ({"horizon": 0, "alpha": 0.1}, "horizon"),
        ({"horizon": 10**400, "alpha": 0.1}, "horizon"),
        ({"horizon": True, "alpha": 0.1}, "horizon"),
        ({"false_alarm_every": "30 moons"}, "false_alarm_every"),
        ({"false_alarm_every": "30d"}, "interval_s"),
        ({"false_alarm_every": "30d", "interval_s": 0.0}, "interval_s"),
        ({"false_alarm_every": "30d", "interval_s": float("inf")}, "interval_s"),
    ],
)
def test_rates_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidLimit, match=says):
        ChangeDetector(learned(300, 16), **settings)


@pytest.mark.parametrize("rows", [30, 99])
def test_too_short_a_window_says_how_many_snapshots_are_missing(rows: int) -> None:
    baseline = Baseline.learn(states(rows, 1, 16))
    assert baseline.calibration is None
    with pytest.raises(BaselineError, match=f"{100 - rows} fewer than"):
        ChangeDetector(baseline)


# --- what cannot break it -----------------------------------------------------------------------------


def test_other_dtypes_orders_and_places_are_read_alike() -> None:
    rows = states(5, 3, 16)
    expected = ChangeDetector(learned(300, 16))
    for row in rows:
        expected.update(row)
    shifted = np.zeros(rows.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(rows.shape)
    shifted[:] = rows
    assert not shifted.flags.aligned
    frozen = rows.copy()
    frozen.flags.writeable = False
    for other in (
        rows.astype(">f8"),  # what broke: read as if in the machine's order
        shifted,
        frozen,
        np.asfortranarray(rows),
        rows[::-1][::-1],
        rows.astype(object),
        np.repeat(rows, 2, axis=1)[:, ::2],
        rows.view(type("Sub", (np.ndarray,), {})),
        rows.astype(np.longdouble),
    ):
        single, many = ChangeDetector(learned(300, 16)), ChangeDetector(learned(300, 16))
        for row in other:
            single.update(row)
        many.scan(other)
        assert single.statistic == many.statistic == expected.statistic
        assert single.wealth == many.wealth == expected.wealth
    listed = ChangeDetector(learned(300, 16))
    for row in rows:
        listed.update(row.tolist())
    assert listed.wealth == expected.wealth


@pytest.mark.parametrize(
    "row",
    [
        np.ones(15),
        np.ones((1, 16)),
        3.0,
        None,
        "x" * 16,
        ["a"] * 16,
        [[1.0]] * 16,
        {},
        [1j] * 16,
    ],
)
def test_rows_of_another_shape_change_nothing(row: Any) -> None:
    detector = ChangeDetector(learned(300, 16))
    detector.update(states(1, 3, 16)[0])
    before = (detector.rows, detector.statistic, detector.wealth)
    with pytest.raises((InvalidBasin, TypeError)):
        detector.update(row)
    assert (detector.rows, detector.statistic, detector.wealth) == before


def test_arrays_of_another_shape_are_refused_before_the_loops_read_them() -> None:
    detector = ChangeDetector(learned(300, 16, figures=True))
    rows = batch(20, 3, 16)
    basins, heads = rows.basin_coords, rows.heads()
    for shape in ((19, 2), (20, 1), (0, 2), (20, 3)):
        with pytest.raises(ValueError, match="trace"):
            detector.feed(basins, heads, 0, np.zeros(shape))
    for wrong in (heads[:-1], np.zeros((20, 0), heads.dtype), np.zeros(20), [0.0] * 20):
        with pytest.raises(ValueError, match="heads"):
            detector.feed(basins, wrong)  # type: ignore[arg-type]
    for wrong in (basins[:, :-1], basins[0], np.zeros((2, 2, 16))):
        with pytest.raises(InvalidBasin):
            detector.feed(wrong, None)
    with pytest.raises(ValueError, match="mean"):
        detector.shifted(np.zeros(16), 1, 1.0)
    assert detector.rows == 0
    assert detector.feed(basins, heads, 25) == (0, 0)
    assert detector.feed(basins, heads, -5) == (20, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("basin", np.zeros(15)),
        ("center", np.zeros(15)),
        ("memory", np.zeros(3)),
        ("bands", np.zeros(16)),
        ("bounds", np.zeros(16)),
        ("weight", np.zeros(0)),
        ("limits", (1.0,) * 3),
        ("directions", (0.0,) * 3),
        ("season", (np.zeros((24, 16)), 86400.0)),
        ("slots", 0),
        ("figures", [(-1, 4, False, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.1)] * 6),
    ],
)
def test_tables_of_another_size_are_refused(name: str, value: Any) -> None:
    baseline = learned(300, 16)
    assert baseline.calibration is not None
    tables = _tables(baseline, baseline.calibration, 1000.0)
    Core(tables)
    with pytest.raises(ValueError, match="expected"):
        Core({**tables, name: value})


def test_a_detector_is_not_copied_by_its_addresses() -> None:
    detector = ChangeDetector(learned(300, 16))
    for how in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            how(detector)


def test_a_snapshot_may_call_the_detector_that_reads_it() -> None:
    detector = ChangeDetector(learned(300, 16, figures=True))

    class Odd:
        phi = kappa_eff = error_rate = avg_latency_ms = memory_mb = 0.5
        repaired = ()
        basin_coords = states(1, 3, 16)[0]

        @property
        def timestamp(self) -> float:
            detector.update(self.basin_coords)
            return 1.0

    for _ in range(5):
        detector.update(Odd())
    assert detector.rows == 10


@pytest.mark.parametrize(
    "fault",
    [
        {"timestamp": None},
        {"phi": "high"},
        {"repaired": ("nothing",)},
        {"repaired": 3},
        {"basin_coords": np.ones(15)},
        {"kappa_eff": 10**400},
    ],
)
def test_a_snapshot_that_is_none_raises_and_changes_nothing(fault: dict[str, Any]) -> None:
    detector = ChangeDetector(learned(300, 16, figures=True))
    fields = {"timestamp": 0.0, "repaired": (), "basin_coords": states(1, 3, 16)[0]}
    fields |= dict.fromkeys(("phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb"), 0.5)
    with pytest.raises((TypeError, KeyError, OverflowError, InvalidBasin)):
        detector.update(type("Odd", (), {**fields, **fault})())
    assert detector.rows == 0


def test_a_second_thread_is_told_and_mixes_nothing_in() -> None:
    rows = states(60_000, 3, 64)
    detector, alone = ChangeDetector(learned(300), 1e12), ChangeDetector(learned(300), 1e12)
    alone.scan(rows)
    feeding = threading.Thread(target=detector.scan, args=(rows,))
    refused = 0
    feeding.start()
    while feeding.is_alive():
        try:
            if 0 < detector.rows < 50_000:  # well inside, so that none of these rows is ever taken
                for call in (lambda: detector.update(rows[0]), detector.reset, detector.interrupted):
                    with pytest.raises(DetectorBusy, match="another thread"):
                        call()
                    refused += 1
        finally:
            feeding.join(0.0005)
    assert refused
    assert (detector.rows, detector.statistic, detector.wealth) == (alone.rows, alone.statistic, alone.wealth)


def test_rows_that_change_while_they_are_read_do_not_poison_the_sums() -> None:
    # What would break: the check sees a state, the sums see the NaN that is written after it, and keep it.
    rows = states(40_000, 3, 64)
    detector = ChangeDetector(learned(300), 1e12)
    done = threading.Event()

    def spoil() -> None:
        while not done.is_set():
            rows[::7, 3] = np.nan
            rows[::7, 3] = 0.01

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        for _ in range(3):
            detector.scan(rows)
    finally:
        done.set()
        thread.join()
    assert np.isfinite([detector.statistic, *detector.charts()]).all()
