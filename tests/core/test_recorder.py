import gc
import math
import pickle
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore import geometry
from qigcore.errors import InvalidBasin, InvalidLimit
from qigcore.recorder import Recorder
from qigcore.rows import BIT, HEAD, METRICS, Batch

NAN = math.nan


def basins(n, dim=64, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(dim), n)


def recorded(n=1, dim=4, **keywords):
    recorder = Recorder(dim, **keywords)
    for i, basin in enumerate(basins(n, dim)):
        recorder.record(0.7, 64.0 + i, basin, 0.01, 5.0, 100.0)
    return recorder


# --- rows -------------------------------------------------------------------------------------------


def test_a_row_holds_what_was_reported():
    recorder = Recorder(code_hash="abc", module_name="chain")
    first, second = basins(2) * [[3.0], [1e5]]
    before = time.time()
    assert recorder.record(0.25, 64.0, first) == 0.0
    drift = recorder.record(0.85, -1.5, second, 0.25, 12.5, 300.0)
    after = time.time()
    assert drift == pytest.approx(geometry.distance(first, second), abs=1e-15)
    heads = recorder.heads(10)
    assert heads.dtype == HEAD
    fields = ["phi", "kappa_eff", "basin_drift", "error_rate", "avg_latency_ms", "memory_mb"]
    assert heads[fields].tolist() == [
        (0.25, 64.0, 0.0, 0.0, 0.0, 0.0),
        (0.85, -1.5, drift, 0.25, 12.5, 300.0),
    ]
    assert before - 1e-6 <= heads["timestamp"][0] <= heads["timestamp"][1] <= after
    assert heads["regime"].tolist() == [0, 2]
    assert heads[["repaired", "reserved"]].tolist() == [(0, 0)] * 2
    assert np.isnan([heads[name] for name in ("confidence", "surprise", "agency")]).all()
    assert [recorder.names[i] for i in heads["code"]] == ["abc", "abc"]
    assert [recorder.names[i] for i in heads["module"]] == ["chain", "chain"]
    assert recorder.names == ("", "abc", "chain")
    assert np.array_equal(recorder.basins(10), [first, second])
    assert recorder.invalid == {}


def test_the_c_layout_is_that_of_rows():
    # Every column set to its own value and read back through HEAD: a shifted offset would show.
    recorder = Recorder(dim=1, code_hash="code", module_name="module")
    recorder.capture(
        timestamp=1.5, phi=0.5, kappa_eff=3.0, basin_coords=[1.0], error_rate=0.25, avg_latency_ms=5.0,
        memory_mb=6.0, confidence=7.0, surprise=8.0, agency="no",
    )  # fmt: skip
    assert HEAD.itemsize == 88
    assert recorder.heads(1)[0].item()[:9] == (1.5, 0.5, 3.0, 0.0, 0.25, 5.0, 6.0, 7.0, 8.0)
    assert recorder.heads(1)[0].item()[10:] == (BIT["agency"], 1, 0, 1, 2)
    assert np.isnan(recorder.heads(1)["agency"])


@pytest.mark.parametrize(
    ("phi", "regime"), [(0.0, 0), (0.1999, 0), (0.2, 1), (0.8999, 1), (0.9, 2), (1.0, 2)]
)
def test_regime_bounds_are_settings(phi, regime):
    recorder = Recorder(2, linear_below=0.2, breakdown_from=0.9)
    recorder.record(phi, 1.0, [1, 1])
    assert recorder.heads(1)["regime"] == regime


def test_sphere_measures_angles_of_signed_states():
    recorder = Recorder(3, geometry="sphere")
    recorder.record(0.5, 1.0, [1.0, 0.0, 0.0])
    assert recorder.record(0.5, 1.0, [-2.0, 0.0, 0.0]) == math.pi
    assert recorder.record(0.5, 1.0, [0.0, -1e300, 0.0]) == pytest.approx(math.pi / 2, abs=1e-15)
    assert recorder.invalid == {}


@given(st.integers(1, 7), st.integers(0, 25), st.integers(0, 30))
def test_the_ring_keeps_the_newest_rows(capacity, n, count):
    recorder = recorded(n, capacity=capacity)
    everything = basins(n, 4) if n else np.empty((0, 4))
    kept = min(n, capacity, count)
    assert recorder.total == n
    assert recorder.heads(count)["kappa_eff"].tolist() == [64.0 + i for i in range(n - kept, n)]
    assert np.array_equal(recorder.basins(count), everything[n - kept :])


@given(st.integers(1, 7), st.integers(0, 25), st.integers(-5, 30), st.integers(-5, 30))
def test_rows_are_clipped_to_what_the_ring_holds(capacity, n, first, last):
    recorder = recorded(n, capacity=capacity)
    start, heads, states = recorder.rows(first, last)
    expected = [i for i in range(first, last) if max(0, n - capacity) <= i < n]
    assert heads["kappa_eff"].tolist() == [64.0 + i for i in expected]
    assert start == (expected[0] if expected else start)
    assert np.array_equal(states, basins(n, 4)[expected] if expected else np.empty((0, 4)))


def test_what_is_handed_out_is_a_copy():
    recorder = recorded(5)
    heads, states, reference = recorder.heads(5), recorder.basins(5), recorder.reference
    for array in (heads, states, reference):
        array.view(np.uint8)[:] = 0
    assert (recorder.heads(5)["phi"] == 0.7).all()
    assert np.array_equal(recorder.basins(5), basins(5, 4))
    assert recorder.reference.any()


def test_copies_outlive_the_recorder():
    recorder = recorded(5)
    heads, snapshot = recorder.heads(5), recorder.snapshot(4)
    state = snapshot.basin_coords
    del recorder, snapshot
    gc.collect()
    assert heads["kappa_eff"].tolist() == [64.0, 65.0, 66.0, 67.0, 68.0]
    assert np.array_equal(state, basins(5, 4)[4])


def test_rows_make_a_batch():
    recorder = Recorder(4, code_hash="abc")
    recorder.record(0.5, 1.0, [1, 2, 3, 4])
    _, heads, states = recorder.rows(0, 1)
    batch = Batch.of_rows(heads, states, recorder.names)
    assert batch.code_hash.tolist() == ["abc"]
    assert batch.basin_coords.tolist() == [[1, 2, 3, 4]]
    assert all(column in heads.dtype.names for column in METRICS.values())


def test_a_later_change_of_the_hosts_array_changes_nothing():
    recorder, basin = Recorder(4), np.ones(4)
    snapshot = recorder.capture(phi=0.5, kappa_eff=1.0, basin_coords=basin)
    basin[:] = 9.0
    assert recorder.basins(1)[0].tolist() == [1.0] * 4
    assert snapshot.basin_coords.tolist() == [1.0] * 4


# --- reference --------------------------------------------------------------------------------------


def test_the_first_good_state_is_the_reference():
    recorder = Recorder(4)
    assert recorder.reference is None
    assert recorder.record(0.5, 1.0, None) == 0.0
    assert recorder.reference is None
    assert recorder.record(0.5, 1.0, [4, 0, 0, 0]) == 0.0
    assert recorder.reference.tolist() == [1, 0, 0, 0]
    assert recorder.record(0.5, 1.0, [0, 1, 0, 0]) == math.pi


@pytest.mark.parametrize("n", [3, 12])
def test_setting_a_reference_measures_the_ring_again(n):
    recorder = recorded(n, capacity=5)
    reference = basins(1, 4, 9)[0]
    recorder.set_reference(reference)
    held = basins(n, 4)[-5:]
    assert recorder.heads(5)["basin_drift"] == pytest.approx(geometry.distances(held, reference), abs=1e-15)
    assert recorder.reference == pytest.approx(geometry.amplitudes(reference), abs=1e-16)
    assert recorder.record(0.5, 1.0, held[0]) == recorder.heads(5)["basin_drift"][-1]
    recorder.set_reference(None)
    oldest = recorder.basins(5)[0]
    assert recorder.heads(5)["basin_drift"] == pytest.approx(
        geometry.distances(recorder.basins(5), oldest), abs=1e-15
    )


def test_no_reference_is_taken_from_a_repaired_row():
    recorder = Recorder(4, capacity=3)
    recorder.record(0.5, 1.0, None)
    recorder.record(0.5, 1.0, [0, 0, 1, 1])
    recorder.set_reference(None)
    assert recorder.reference.tolist() == pytest.approx([0, 0, math.sqrt(0.5), math.sqrt(0.5)])
    empty = Recorder(4)
    empty.record(0.5, 1.0, None)
    empty.set_reference(None)
    assert empty.reference is None


@pytest.mark.parametrize(
    "bad", [[1, 2], [0, 0, 0, 0], [1, 1, 1, -1], [NAN, 1, 1, 1], "abcd", [[1, 1, 1, 1]], {}]
)
def test_a_bad_reference_is_refused_and_the_old_one_stays(bad):
    recorder = recorded(3)
    before = recorder.heads(3)
    with pytest.raises(
        InvalidBasin, match=r"^basin: expected 4 finite components that are a state of the simplex"
    ):
        recorder.set_reference(bad)
    assert recorder.heads(3).tobytes() == before.tobytes()
    assert recorder.reference.tolist() == geometry.amplitudes(basins(3, 4)[0]).tolist()


# --- calls ------------------------------------------------------------------------------------------


def test_a_wrong_call_is_a_type_error_and_stores_nothing():
    recorder = Recorder(2)
    for call in (
        lambda: recorder.record(0.5, 1.0),
        lambda: recorder.record(0.5, 1.0, [1, 1], 0.0, 0.0, 0.0, 0.0),
        lambda: recorder.record(0.5, 1.0, [1, 1], latency=3.0),
        lambda: recorder.capture({}, {}),
    ):
        with pytest.raises(TypeError):
            call()
    assert recorder.total == 0


def test_interrupts_pass_through():
    class Interrupted:
        def __float__(self):
            raise KeyboardInterrupt

        def __array__(self, dtype=None, copy=None):
            raise KeyboardInterrupt

    recorder = Recorder(2)
    for call in (
        lambda: recorder.record(Interrupted(), 1.0, [1, 1]),
        lambda: recorder.record(0.5, 1.0, Interrupted()),
        lambda: recorder.capture(phi=Interrupted()),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert recorder.total == 0


def test_warnings_as_errors_do_not_reach_the_host():
    # pytest runs with filterwarnings = error: conversions that only warn elsewhere raise here.
    recorder = Recorder(2)
    recorder.record(np.complex64(0.5), 1.0, np.array([1, 1], dtype=complex))
    recorder.record(0.5, 1.0, np.array([np.longdouble("1e400"), 1]))
    assert recorder.invalid == {"phi": 1, "basin_coords": 2}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dim": 0}, "dim and capacity"),
        ({"capacity": 0}, "dim and capacity"),
        ({"geometry": "plane"}, "^geometry: expected 'simplex' or 'sphere', got 'plane'"),
        ({"on_invalid": "ignore"}, "^on_invalid: expected 'repair' or 'raise', got 'ignore'"),
        ({"linear_below": 0.9}, "linear_below, breakdown_from"),
        ({"breakdown_from": 1.1}, "linear_below, breakdown_from"),
        ({"linear_below": NAN}, "linear_below, breakdown_from"),
    ],
)
def test_bad_settings_are_refused(keywords, message):
    with pytest.raises(InvalidLimit, match=message):
        Recorder(**keywords)


def test_the_settings_can_be_read():
    recorder = Recorder(8, 20, "sphere", 0.2, 0.9, "raise")
    names = (
        "dim",
        "capacity",
        "geometry",
        "linear_below",
        "breakdown_from",
        "on_invalid",
        "total",
        "each_row",
    )
    assert [getattr(recorder, name) for name in names] == [8, 20, "sphere", 0.2, 0.9, "raise", 0, None]
    with pytest.raises(AttributeError):
        recorder.total = 5
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(recorder)


def test_code_hash_is_of_the_rows_that_follow():
    recorder = recorded(1, code_hash="old")
    recorder.code_hash = "new"
    recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert [recorder.snapshot(i).code_hash for i in range(2)] == ["old", "new"]
    assert recorder.code_hash == "new"


def test_a_snapshot_outside_the_ring_is_an_index_error():
    recorder = recorded(8, capacity=5)
    assert recorder.snapshot(3).kappa_eff == 67.0
    for number in (2, 8, -1):
        with pytest.raises(IndexError, match=f"row {number}: the ring holds rows 3 to 7"):
            recorder.snapshot(number)


# --- series -----------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20), st.integers(-2, 30))
def test_a_series_is_its_column_with_gaps_where_values_were_repaired(capacity, oks, count):
    recorder = Recorder(2, capacity)
    for i, (good_phi, good_basin) in enumerate(oks):
        recorder.capture(
            phi=i / 100 if good_phi else NAN,
            kappa_eff=float(i),
            basin_coords=[1.0, i] if good_basin else None,
            surprise=0.5 if i % 3 else None,
            timestamp=float(i),
        )
    heads = recorder.heads(count)
    for column in ("timestamp", "phi", "kappa_eff", "basin_drift", "surprise", "memory_mb"):
        expected = np.where(heads["repaired"] & BIT.get(column, 0), NAN, heads[column])
        found = recorder.series(column, count)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


def test_what_has_no_series_is_named():
    recorder = recorded(3)
    for column in ("basin_coords", "regime", "mood", ""):
        with pytest.raises(ValueError, match="^column: expected one of timestamp, phi, .*, got '" + column):
            recorder.series(column, 3)
    with pytest.raises(TypeError):
        recorder.series(None, 3)


@pytest.mark.parametrize("field", ["code_hash", "module_name"])
def test_what_is_no_text_names_nothing(field):
    with pytest.raises(InvalidLimit, match=f"^{field}: expected text, got 5$"):
        Recorder(2, **{field: 5})


def test_a_masked_number_is_none_and_nobody_is_warned():
    recorder = Recorder(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for masked in (np.ma.masked, np.ma.array(0.7, mask=True)):
            recorder.record(masked, 1.0, [1, 1])
        recorder.record(np.ma.array(0.5), 1.0, [1, 1])
    assert recorder.heads(3)["repaired"].astype(bool).tolist() == [True, True, False]
