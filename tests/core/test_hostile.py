"""What nobody should hand to a recorder: it costs the host the field, never the request or the process."""

import array
import collections
import decimal
import fractions
import itertools
import math
import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timedelta, tzinfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore.errors import InvalidSnapshot
from qigcore.recorder import Recorder
from tests.core.odd import NOT_BASINS, NOT_NUMBERS

GOOD = {"phi": 0.7, "kappa_eff": 64.0, "error_rate": 0.01, "avg_latency_ms": 5.0, "memory_mb": 100.0}
BASE = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1.0, 2.0, 3.0, 4.0]}


def refused(recorder, call):
    """The error of a call that must leave no trace but a count."""
    before = recorder.total, recorder.heads(9).tobytes(), recorder.basins(9).tobytes()
    with pytest.raises(InvalidSnapshot) as caught:
        call()
    assert (recorder.total, recorder.heads(9).tobytes(), recorder.basins(9).tobytes()) == before
    assert len(str(caught.value)) < 250
    return caught.value.field


@pytest.mark.parametrize("odd", range(len(NOT_BASINS)))
def test_what_is_no_basin_is_refused_by_name(odd):
    recorder = Recorder(4, on_invalid="raise")
    recorder.record(0.5, 1.0, [1, 2, 3, 4])
    basin = NOT_BASINS[odd]
    assert refused(recorder, lambda: recorder.record(0.5, 1.0, basin)) == "basin_coords"
    assert refused(recorder, lambda: recorder.capture(BASE, basin_coords=basin)) == "basin_coords"
    assert recorder.invalid == {"basin_coords": 2}


@pytest.mark.parametrize("odd", range(len(NOT_NUMBERS)))
@pytest.mark.parametrize("field", GOOD)
def test_what_is_no_number_is_refused_by_name(field, odd):
    given_fields = {**GOOD, field: NOT_NUMBERS[odd]}
    recorder = Recorder(2, on_invalid="raise")
    assert refused(recorder, lambda: recorder.record(basin=[1, 1], **given_fields)) == field
    assert refused(recorder, lambda: recorder.capture(given_fields, basin_coords=[1, 1])) == field


class Tensor:
    """As a tensor on another device: it has a length and elements, and its `__array__` refuses."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return [1.0, 2.0, 3.0, 4.0][index]


class Copied(Tensor):
    def __init__(self, made):
        self.made = made

    def __array__(self, dtype=None, copy=None):
        return self.made


class Short(list):
    def __len__(self):
        return 4


class Endless(collections.abc.Sequence):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return 1.0

    def __iter__(self):
        return itertools.repeat(1.0)


class Length:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


class Loud(int):
    def __float__(self):
        raise ZeroDivisionError


SAME = [1.0, 2.0, 3.0, 4.0]
NESTED: list = []
NESTED.extend([NESTED] * 4)
MASK = np.ma.array(SAME, mask=[False] * 4)
KINDS = {
    "object array": (np.array([1, 2.0, fractions.Fraction(3), decimal.Decimal(4)], object), True),
    "object array with a gap": (np.array([1, 2, None, 4], object), False),
    "0-d": (np.array(3.0), False),
    "0-d object": (np.array(None, object), False),
    "unmasked": (MASK, True),
    "masked constant": (np.ma.masked, False),
    "list with a masked element": ([1.0, np.ma.masked, 3.0, 4.0], False),
    "matrix": (np.ones((1, 4)).view(np.matrix), False),
    "memoryview": (memoryview(np.array(SAME)), True),
    "strided memoryview": (memoryview(np.repeat(SAME, 2))[::2], True),
    "array.array of double": (array.array("d", SAME), True),
    "array.array of float": (array.array("f", SAME), True),
    "array.array of int": (array.array("i", [1, 2, 3, 4]), True),
    "array.array of text": (array.array("u", "abcd"), False),
    "bytearray": (bytearray(b"abcd"), False),
    "deque": (collections.deque(SAME), True),
    "UserList": (collections.UserList(SAME), True),
    "tuple": (tuple(SAME), True),
    "tensor elsewhere": (Tensor(), False),
    "tensor here": (Copied(np.array(SAME, "f4")), True),
    "tensor of another shape": (Copied(np.ones((2, 2))), False),
    "tensor that makes no array": (Copied(SAME), False),
    "bool array": (np.ones(4, bool), False),
    "one bool among floats": ([1.0, True, 3.0, 4.0], False),
    "list shorter than it says": (Short([1.0, 2.0]), False),
    "sequence without an end": (Endless(), False),
    "negative length": (Length(-1), False),
    "astronomic length": (Length(10**30), False),
    "a list in itself": (NESTED, False),
    "loud ints": ([Loud(1)] * 4, False),
    "signalling NaN": ([decimal.Decimal("sNaN")] * 4, False),
    "vast fractions": ([fractions.Fraction(10**400)] * 4, False),
    "a structure": (np.zeros(4, "f8,f8"), False),
    "bytes": (np.array([b"1"] * 4), False),
    "times": (np.ones(4, "m8[s]"), False),
    "a set": ({1.0, 2.0, 3.0, 4.0}, False),
    "keys": ({1.0: 0, 2.0: 0, 3.0: 0, 4.0: 0}.keys(), False),
    "a mapping": (dict(enumerate(SAME)), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_basin_of_any_kind_is_read_or_refused(kind):
    basin, usable = KINDS[kind]
    lenient, strict = Recorder(4), Recorder(4, on_invalid="raise")
    lenient.record(0.5, 1.0, basin)
    assert lenient.capture(BASE, basin_coords=basin).repaired == (() if usable else ("basin_coords",))
    assert lenient.basins(2).tolist() == [SAME if usable else [0.25] * 4] * 2
    if usable:
        strict.record(0.5, 1.0, basin)
        assert strict.basins(1)[0].tolist() == SAME
    else:
        assert refused(strict, lambda: strict.record(0.5, 1.0, basin)) == "basin_coords"


def test_memory_that_an_object_only_claims_to_have_is_not_read():
    # numpy believes an __array_interface__ whatever it says, and the process that served died of it.
    code = """
    import numpy as np
    from qigcore.errors import InvalidBasin, InvalidSnapshot
    from qigcore.recorder import GeometricSnapshot, Recorder

    class Claim:
        def __init__(self, **claim):
            self.__array_interface__ = {"data": b"1" * 32, "shape": (4,), "typestr": "<f8", "version": 3, **claim}
        def __len__(self):
            return 4

    claims = [
        Claim(typestr="|O"), Claim(strides=(800_000_000,)), Claim(data=(8, False)), Claim(data=(0, True)),
        Claim(shape=(-4,)), Claim(data=b"1"), Claim(),
    ]
    boxed = np.empty(4, object)
    for i in range(4):
        boxed[i] = claims[0]  # numpy itself would read the claim if it was handed a list of them
    for claim in [*claims, [Claim(typestr="|O", shape=())] * 4, tuple(claims[:4]), boxed]:
        lenient, strict = Recorder(4), Recorder(4, on_invalid="raise")
        lenient.record(claim, claim, claim)
        lenient.capture({"phi": 0.5, "kappa_eff": 1.0, "basin_coords": claim})
        assert lenient.invalid == {"phi": 1, "kappa_eff": 1, "basin_coords": 2}, lenient.invalid
        for call, error in (
            (lambda: strict.record(0.5, 1.0, claim), InvalidSnapshot),
            (lambda: strict.set_reference(claim), InvalidBasin),
            (lambda: GeometricSnapshot(timestamp=0, phi=0.5, kappa_eff=1.0, basin_coords=claim), InvalidSnapshot),
        ):
            try:
                call()
            except error:
                continue
            raise AssertionError(claim)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_hosts_buffer_is_let_go_of_before_anybody_is_told():
    # While a buffer is looked at, its owner cannot grow it: a BufferError in the host's own code.
    buffer = array.array("d", SAME)
    recorder = Recorder(4)
    recorder.each_row = lambda: buffer.append(5.0)
    recorder.record(0.5, 1.0, buffer)
    assert recorder.each_row is not None  # it would have been switched off
    assert len(buffer) == 5


@pytest.mark.parametrize("make", [np.ones, lambda n: np.ones(n, "f4"), lambda n: np.ones(n, ">f8")])
def test_an_array_that_another_thread_resizes(make):
    recorder = Recorder(64, capacity=2000)
    basin, going = make(64), True

    def resize():
        for size in itertools.cycle((64, 4096, 3, 64)):
            basin.resize(size, refcheck=False)
            if not going:
                return

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=resize)
    thread.start()
    try:
        for _ in range(2000):
            recorder.record(0.5, 1.0, basin)
    finally:
        going = False
        thread.join()
        sys.setswitchinterval(switch)
    flagged = recorder.heads(2000)["repaired"] != 0
    assert recorder.total == 2000
    # A shrunken array grows back with zeros: a state that was reported holds nothing but zeros and ones.
    assert np.isin(recorder.basins(2000)[~flagged], (0.0, 1.0)).all()


class Again:
    """Records while it is being converted."""

    def __init__(self, recorder):
        self.recorder = recorder

    def __float__(self):
        self.recorder.record(0.25, 2.0, [0, 0, 1, 1])
        return 0.5

    def __array__(self, dtype=None, copy=None):
        self.recorder.record(0.75, 3.0, [1, 1, 0, 0])
        return np.array(SAME)

    def get(self, name, default):
        self.recorder.record(0.1, 4.0, [1, 0, 0, 1])
        return BASE.get(name, default)


def test_recording_within_a_conversion():
    recorder = Recorder(4)
    again = Again(recorder)
    recorder.record(again, 1.0, again)
    assert recorder.heads(9)["phi"].tolist() == [0.25, 0.75, 0.5]
    assert recorder.basins(9)[-1].tolist() == SAME
    snapshot = recorder.capture(again)
    assert (snapshot.phi, snapshot.basin_coords.tolist()) == (0.5, SAME)
    assert recorder.snapshot(recorder.total - 1) == snapshot
    assert recorder.invalid == {}


class NoItems(dict):
    def __getitem__(self, name):
        raise RuntimeError(name)


class Shifting(collections.abc.Mapping):
    """A mapping that is another one each time it is asked."""

    def __init__(self):
        self.asked = 0

    def __getitem__(self, name):
        self.asked += 1
        if name == "phi":
            raise KeyError(name)
        return {"kappa_eff": 7.0, "basin_coords": SAME}[name]

    def __len__(self):
        return self.asked

    def __iter__(self):
        return iter([str(self.asked)])


def test_mappings_that_do_not_behave():
    recorder = Recorder(4)
    assert recorder.capture(NoItems(BASE)).repaired == ()
    snapshot = recorder.capture(Shifting())
    assert (snapshot.repaired, snapshot.kappa_eff) == (("phi",), 7.0)

    emptied = dict(BASE)

    class Clearing(float):
        def __del__(self):
            emptied.clear()

    emptied["phi"] = Clearing(0.5)
    # The mapping holds the only reference; what is read from it must outlive it.
    assert recorder.capture(emptied, basin_coords=SAME).phi == 0.5

    class Emptying:
        def __float__(self):
            emptied.clear()
            return 3.0

    emptied.update(BASE, kappa_eff=Emptying())
    assert recorder.capture(emptied).kappa_eff == 3.0
    assert emptied == {}


class Zone(tzinfo):
    def __init__(self, offset):
        self.offset = offset

    def utcoffset(self, moment):
        if isinstance(self.offset, Exception):
            raise self.offset
        return self.offset


class Moment(datetime):
    said = None

    def timestamp(self):
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def moment(said):
    made = Moment(2024, 1, 1)
    made.said = said
    return made


@pytest.mark.parametrize(
    "bad",
    [
        datetime(2024, 1, 1, tzinfo=Zone(RuntimeError())),
        datetime(2024, 1, 1, tzinfo=Zone(None)),
        datetime(2024, 1, 1, tzinfo=Zone("east")),
        datetime(2024, 1, 1, tzinfo=Zone(timedelta(hours=25))),
        datetime(1, 1, 1, tzinfo=Zone(timedelta(hours=23))),
        moment("soon"),
        moment(None),
        moment(math.nan),
        moment(OSError()),
        np.datetime64("2024-01-01"),
        datetime(2024, 1, 1).date(),  # noqa: DTZ001
        "2024-13-01",
        "2024-01-01T00:00:00+99:00",
        1.7e12,  # milliseconds
        10**400,
        [1.7e9],
    ],
)
def test_odd_moments(bad):
    recorder, strict = Recorder(4), Recorder(4, on_invalid="raise")
    before = recorder.capture(BASE).timestamp
    assert before <= recorder.capture(BASE, timestamp=bad).timestamp
    assert recorder.invalid == {"timestamp": 1}
    assert recorder.unflagged == 1
    assert refused(strict, lambda: strict.capture(BASE, timestamp=bad)) == "timestamp"


ODD = [*NOT_NUMBERS, *NOT_BASINS, *(basin for basin, _ in KINDS.values())]
anything = st.one_of(
    st.integers(0, len(ODD) - 1).map(ODD.__getitem__),  # by number: some of them cannot be shown
    st.floats(),
    st.integers(),
    st.text(max_size=5),
    st.lists(st.floats(0, 10), min_size=4, max_size=4),
)
fields = st.sampled_from(
    [*GOOD, "basin_coords", "confidence", "surprise", "agency", "timestamp", "module_name", "unknown"]
)


@given(st.lists(st.dictionaries(fields, anything), max_size=8))
def test_whatever_comes_a_row_is_usable_or_refused(states):
    lenient, strict = Recorder(4, capacity=3), Recorder(4, capacity=3, on_invalid="raise")
    refusals = 0
    for count, state in enumerate(states, 1):
        silent = lenient.unflagged
        snapshot = lenient.capture(state)
        assert lenient.total == count
        figures = lenient.heads(1)[0]
        assert all(math.isfinite(figures[name]) for name in (*GOOD, "timestamp", "basin_drift"))
        assert 0.0 <= figures["phi"] <= 1.0
        assert 0.0 <= figures["error_rate"] <= 1.0
        assert 0.0 <= figures["basin_drift"] <= math.pi
        assert (lenient.basins(1) >= 0.0).all()
        assert 0.0 < lenient.basins(1).max() < math.inf
        assert {"phi", "kappa_eff", "basin_coords"} - set(state) <= set(snapshot.repaired)
        if snapshot.repaired or lenient.unflagged > silent:
            assert refused(strict, lambda given_state=state: strict.capture(given_state)) in lenient.invalid
            refusals += 1
        else:
            assert strict.capture(state).repaired == ()
        assert strict.total == count - refusals
    if refusals:
        assert (strict.refusals[0].bit_count(), strict.refusals[1]) == (refusals, len(states))
    else:
        assert strict.refusals is None
