import decimal
import fractions
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore.errors import InvalidSnapshot
from qigcore.recorder import Recorder
from qigcore.rows import BIT
from tests.core.odd import NOT_BASINS, NOT_NUMBERS, Hostile
from tests.reference import ListRecorder

NAN = math.nan
GOOD = {"phi": 0.7, "kappa_eff": 64.0, "error_rate": 0.01, "avg_latency_ms": 5.0, "memory_mb": 100.0}


class Temperature:
    def __float__(self):
        return 0.5


class Vast:
    """A sequence of 10⁹ components that knows whether it was unpacked."""

    asked = False

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        self.asked = True
        raise IndexError


class Half(float):
    """A float that answers otherwise when asked."""

    def __float__(self):
        return 0.25


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (1, 1.0),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int8(1), 1.0),
        (np.longdouble(0.5), 0.5),
        (np.array(0.5), 0.5),
        (decimal.Decimal("0.5"), 0.5),
        (fractions.Fraction(1, 2), 0.5),
        (Temperature(), 0.5),
        (Half(0.5), 0.5),
        (-0.0, 0.0),
    ],
)
def test_every_kind_of_real_number_is_one(value, stored):
    recorder = Recorder(2)
    recorder.record(value, value, [1, 1], value, value, value)
    row = recorder.heads(1)[0]
    assert [row[name] for name in GOOD] == [stored] * 5
    assert row["repaired"] == 0


@pytest.mark.parametrize("odd", range(len(NOT_NUMBERS)))
@pytest.mark.parametrize("field", ["phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb"])
def test_what_is_no_number_holds_the_last_good_one(field, odd):
    given = {**GOOD, field: NOT_NUMBERS[odd]}
    recorder = Recorder(2)
    for _ in range(2):  # before any good value, it is 0
        recorder.record(basin=[1, 1], **given)
    recorder.record(basin=[1, 1], **GOOD)
    recorder.record(basin=[1, 1], **given)
    heads = recorder.heads(4)
    assert heads[field].tolist() == [0.0, 0.0, GOOD[field], GOOD[field]]
    assert heads["repaired"].tolist() == [BIT[field], BIT[field], 0, BIT[field]]
    for name in GOOD.keys() - {field}:
        assert (heads[name] == GOOD[name]).all()
    assert recorder.invalid == {field: 3}


@pytest.mark.parametrize("odd", range(len(NOT_BASINS)))
def test_what_is_no_basin_holds_the_last_good_one(odd):
    basin = NOT_BASINS[odd]
    recorder = Recorder(4, capacity=3)
    recorder.record(0.5, 1.0, basin)
    assert recorder.basins(1)[0].tolist() == [0.25] * 4  # before any: uniform
    recorder.record(0.5, 1.0, [1, 0, 0, 0])
    recorder.record(0.5, 1.0, [0, 2, 0, 0])
    for _ in range(5):  # longer than the ring remembers
        assert recorder.record(0.5, 1.0, basin) == math.pi
    assert recorder.basins(3).tolist() == [[0, 2, 0, 0]] * 3
    assert recorder.heads(3)["repaired"].tolist() == [BIT["basin_coords"]] * 3
    assert recorder.invalid == {"basin_coords": 6}


@pytest.mark.parametrize("on_invalid", ["repair", "raise"])
def test_a_basin_that_claims_more_than_memory_holds_is_not_unpacked(on_invalid):
    # A range of 10⁹ took 8 GB, and the host was killed for it.
    recorder = Recorder(4, on_invalid=on_invalid)
    vast = Vast()
    if on_invalid == "repair":
        recorder.record(0.5, 1.0, vast)
    else:
        with pytest.raises(InvalidSnapshot, match=r"got Vast of 1000000000$"):
            recorder.record(0.5, 1.0, vast)
    assert recorder.invalid == {"basin_coords": 1}
    assert not vast.asked


def test_every_kind_of_real_vector_is_a_basin():
    wide = np.zeros((4, 3))
    wide[:, 1] = [1, 2, 3, 4]
    unaligned = np.frombuffer(b"\0" + np.arange(1.0, 5.0).tobytes(), np.uint8)[1:].view(np.float64)
    frozen = np.arange(1.0, 5.0)
    frozen.flags.writeable = False
    kinds = [
        [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4], (1.0, 2.0, 3, 4.0), np.arange(1, 5), np.arange(1, 5, dtype="f4"),
        np.arange(1, 5, dtype=">f8"), np.arange(1, 5, dtype="f2"), np.arange(1, 5, dtype=np.longdouble), wide[:, 1],
        np.arange(4.0, 0.0, -1.0)[::-1], np.arange(1.0, 5.0, dtype="f4")[::1], unaligned, frozen, range(1, 5),
        memoryview(np.arange(1.0, 5.0)), np.ma.arange(1.0, 5.0), [fractions.Fraction(i) for i in range(1, 5)],
        [np.float32(i) for i in range(1, 5)], [decimal.Decimal(1), 2, 3.0, np.int8(4)],
    ]  # fmt: skip
    recorder = Recorder(4)
    for basin in kinds:
        assert recorder.record(0.5, 1.0, basin) == 0.0
    assert recorder.basins(len(kinds)).tolist() == [[1, 2, 3, 4]] * len(kinds)
    assert recorder.invalid == {}


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-160, 1.0, 1e160, 1.7e308])
def test_any_positive_scale_is_a_state(scale):
    recorder = Recorder(64)
    recorder.record(0.5, 1.0, np.ones(64))
    assert recorder.record(0.5, 1.0, np.full(64, scale)) < 1e-15
    assert recorder.basins(1)[0].tolist() == [scale] * 64
    assert recorder.invalid == {}


def test_what_is_out_of_range_is_clipped_and_flagged_and_not_remembered():
    recorder = Recorder(2)
    for phi, errors in ((0.6, 0.1), (1.5, -0.5), (NAN, NAN), (-1e300, 1e300), (1 + 2**-52, 2.0)):
        recorder.record(phi, 1.0, [1, 1], errors)
    heads = recorder.heads(5)
    assert heads["phi"].tolist() == [0.6, 1.0, 0.6, 0.0, 1.0]
    assert heads["error_rate"].tolist() == [0.1, 0.0, 0.1, 1.0, 1.0]
    assert heads["repaired"].tolist() == [0] + [BIT["phi"] | BIT["error_rate"]] * 4
    assert heads["regime"].tolist() == [1, 2, 1, 0, 2]


def test_latency_and_memory_cannot_be_negative():
    recorder = Recorder(2)
    recorder.record(0.5, 1.0, [1, 1], 0.0, 7.0, 70.0)
    recorder.record(0.5, 1.0, [1, 1], 0.0, -1.0, -1.0)
    assert recorder.heads(1)[["avg_latency_ms", "memory_mb"]].tolist() == [(7.0, 70.0)]
    assert recorder.invalid == {"avg_latency_ms": 1, "memory_mb": 1}


numbers = st.one_of(st.floats(0, 1), st.floats(), st.sampled_from([0.0, 1.0, -0.0, 1e308, NAN]))
states = st.one_of(
    st.lists(st.floats(0, 10).map(lambda x: round(x, 3)), min_size=3, max_size=3),
    st.lists(numbers, min_size=2, max_size=4),
)


@given(
    st.integers(1, 4), st.lists(st.tuples(numbers, numbers, states, numbers, numbers, numbers), max_size=12)
)
def test_the_ring_is_that_of_the_naive_twin(capacity, calls):
    recorder, twin = Recorder(3, capacity), ListRecorder(3, capacity)
    for phi, kappa, basin, *service in calls:
        given_basin = np.array(basin) if len(basin) % 2 else basin
        assert recorder.record(phi, kappa, given_basin, *service) == pytest.approx(
            twin.record(phi, kappa, basin, *service), abs=4e-15
        )
    heads, states = recorder.heads(99), recorder.basins(99)
    assert len(heads) == len(states) == len(twin.rows)
    for head, state, row in zip(heads, states, twin.rows, strict=True):
        assert state.tolist() == row.pop("basin")
        assert head["basin_drift"] == pytest.approx(row.pop("basin_drift"), abs=4e-15)
        assert {name: head[name] for name in row} == row
    assert recorder.invalid == twin.invalid


# --- on_invalid="raise" -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phi": 1.5}, "phi: expected a number from 0 to 1, got 1.5"),
        ({"phi": True}, "phi: expected a number from 0 to 1, got True"),
        ({"phi": "high"}, "phi: expected a number from 0 to 1, got 'high'"),
        ({"kappa_eff": NAN}, "kappa_eff: expected a finite number, got nan"),
        ({"kappa_eff": Hostile}, "kappa_eff: expected a finite number, got Hostile"),
        ({"error_rate": -0.1}, "error_rate: expected a number from 0 to 1, got -0.1"),
        ({"avg_latency_ms": -1}, "avg_latency_ms: expected a finite number of at least 0, got -1"),
        ({"memory_mb": math.inf}, "memory_mb: expected a finite number of at least 0, got inf"),
        (
            {"basin": [1, 2]},
            "basin_coords: expected 4 finite non-negative weights, not all 0, got 2 components",
        ),
        ({"basin": [1, 2, NAN, 4]}, "basin_coords: .* got nan at position 2 of 4"),
        ({"basin": [1, -2, 3, 4]}, "basin_coords: .* got -2 at position 1 of 4"),
        ({"basin": np.zeros(4)}, "basin_coords: .* got 4 components, all 0"),
        ({"basin": np.ones((2, 4))}, r"basin_coords: .* got an array of float64, shape \[2, 4\]"),
        ({"basin": None}, "basin_coords: .* got None"),
        ({"basin": ["a"] * 4}, "basin_coords: .* got 'a' at position 0 of 4"),
        ({"basin": (1, 2, [3], 4)}, "basin_coords: .* got list at position 2 of 4"),
        ({"basin": [1.0, True, 2.0, 3.0]}, "basin_coords: .* got True at position 1 of 4"),
        ({"basin": np.array(["a"] * 4)}, r"basin_coords: .* got an array of <U1, shape \[4\]"),
        ({"basin": Hostile}, "basin_coords: .* got Hostile"),
        ({"phi": 10**400}, r"phi: .*, got 1000000.*\.\.\.$"),
    ],
)
def test_raise_names_the_field_and_stores_nothing(change, message):
    change = {name: value() if value is Hostile else value for name, value in change.items()}
    recorder = Recorder(4, capacity=1, on_invalid="raise")
    recorder.record(basin=[1, 2, 3, 4], **GOOD)
    before = recorder.heads(1).tobytes(), recorder.basins(1).tobytes()
    with pytest.raises(InvalidSnapshot, match=f"^{message}") as caught:
        recorder.record(**{"basin": [4, 3, 2, 1], **GOOD, **change})
    field = next(iter(change)).replace("basin", "basin_coords")
    assert caught.value.field == field
    with pytest.raises(InvalidSnapshot, match=f"^{message}"):
        recorder.capture(**{"basin_coords": change.get("basin", [4, 3, 2, 1]), **GOOD, **change})
    assert recorder.total == 1
    assert (recorder.heads(1).tobytes(), recorder.basins(1).tobytes()) == before
    assert recorder.invalid == {field: 2}


def test_a_refused_first_state_is_no_reference():
    recorder = Recorder(2, on_invalid="raise")
    with pytest.raises(InvalidSnapshot, match="phi"):
        recorder.record(NAN, 1.0, [1, 0])
    assert recorder.reference is None
    assert recorder.record(0.5, 1.0, [0, 1]) == 0.0


def test_raise_covers_what_only_capture_takes():
    recorder = Recorder(2, on_invalid="raise")
    good = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1, 1]}
    cases = [
        ("confidence", "a finite number"),
        ("agency", "a finite number"),
        ("module_name", "text"),
        ("timestamp", "Unix"),
    ]
    for field, expected in cases:
        with pytest.raises(InvalidSnapshot, match=f"^{field}: expected {expected}.*, got nan"):
            recorder.capture(good, **{field: NAN})
    for field in good:
        with pytest.raises(InvalidSnapshot, match=f"^{field}: expected .*, got nothing$"):
            recorder.capture({key: value for key, value in good.items() if key != field})
    assert recorder.total == 0
