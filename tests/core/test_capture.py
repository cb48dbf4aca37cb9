import math
import time
from collections import OrderedDict, defaultdict
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

import numpy as np
import pytest

from qigcore.errors import InvalidLimit, InvalidSnapshot
from qigcore.recorder import GeometricSnapshot, Recorder
from tests.core.odd import FULL, Hostile

NAN = math.nan


@pytest.mark.parametrize(
    "given_as",
    [
        dict,
        OrderedDict,
        MappingProxyType,
        lambda d: defaultdict(list, d),
        lambda d: {**d, "extra": object(), 5: 6},
    ],
)
def test_capture_takes_any_mapping(given_as):
    recorder = Recorder(4, code_hash="abc")
    given_fields = given_as(FULL)
    snapshot = recorder.capture(given_fields)
    expected = GeometricSnapshot(**FULL, code_hash="abc")
    assert snapshot == expected
    assert recorder.snapshot(0) == expected
    assert len(given_fields) in (len(FULL), len(FULL) + 2)  # a defaultdict has not grown


def test_capture_takes_keywords_alone_or_over_a_mapping():
    recorder = Recorder(4)
    assert recorder.capture(**FULL) == GeometricSnapshot(**FULL)
    assert recorder.capture(FULL, phi=0.1).phi == 0.1
    assert recorder.capture({"phi": 0.1}, **FULL).phi == 0.7


def test_only_three_fields_are_needed():
    recorder = Recorder(4, module_name="default")
    before = time.time()
    snapshot = recorder.capture(
        phi=0.7, kappa_eff=64.0, basin_coords=[1, 1, 1, 1], confidence=None, module_name=None, timestamp=None
    )
    assert before - 1e-6 <= snapshot.timestamp <= time.time()
    assert (snapshot.error_rate, snapshot.avg_latency_ms, snapshot.memory_mb) == (0.0, 0.0, 0.0)
    assert np.isnan([snapshot.confidence, snapshot.surprise, snapshot.agency]).all()
    assert snapshot.module_name == "default"
    assert snapshot.repaired == ()


class Unreadable:
    def get(self, name, default):
        raise OSError(name)


@pytest.mark.parametrize(
    "state", [dict, lambda: 5, lambda: "abc", lambda: [1, 2], lambda: None, Unreadable, Hostile]
)
def test_a_state_without_the_needed_fields_is_repaired(state):
    recorder = Recorder(4)
    snapshot = recorder.capture(state())
    assert snapshot.repaired == ("phi", "kappa_eff", "basin_coords")
    assert (snapshot.phi, snapshot.kappa_eff, snapshot.regime) == (0.0, 0.0, "linear")
    assert snapshot.basin_coords.tolist() == [0.25] * 4


def test_optional_figures_are_repaired_only_where_they_were_reported():
    recorder = Recorder(2)
    base = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1, 1]}
    first = recorder.capture(base, surprise="x")
    recorder.capture(base, confidence=0.9, surprise=0.2)
    second = recorder.capture(base, confidence=math.inf, surprise=NAN, agency=True)
    third = recorder.capture(base)
    assert (first.repaired, math.isnan(first.surprise)) == (("surprise",), True)
    assert second.repaired == ("confidence", "surprise", "agency")
    assert (second.confidence, second.surprise, math.isnan(second.agency)) == (0.9, 0.2, True)
    assert third.repaired == ()
    assert np.isnan([third.confidence, third.surprise, third.agency]).all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_key_that_cannot_be_compared(error):
    class Key:
        def __hash__(self):
            return hash("confidence")

        def __eq__(self, other):
            raise error

    state = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1, 1], Key(): 1}
    recorder = Recorder(2)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            recorder.capture(state)
        assert recorder.total == 0
    else:
        assert recorder.capture(state).repaired == ()


def test_timestamps():
    recorder = Recorder(2)
    base = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1, 1]}
    moment = datetime(2024, 5, 1, 12, 30, 0, 250000, tzinfo=timezone(timedelta(hours=2)))
    for given_as in (
        moment,
        moment.timestamp(),
        moment.isoformat(),
        moment.astimezone().replace(tzinfo=None),
        int(moment.timestamp()) + 0.25,
    ):
        assert recorder.capture(base, timestamp=given_as).timestamp == moment.timestamp()
    assert recorder.invalid == {}
    before = time.time() - 1e-6
    for bad in ("yesterday", NAN, math.inf, 1e18, -1e18, True, [], Hostile(), datetime.max):  # noqa: DTZ901
        assert before <= recorder.capture(base, timestamp=bad).timestamp <= time.time()
    assert recorder.invalid == {"timestamp": 9}


def test_module_names_are_kept_once_each():
    recorder = Recorder(2)
    base = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1, 1]}
    names = [
        "a",
        "b",
        "a",
        "",
        "Φ",
        str.__new__(type("Name", (str,), {"__hash__": None}), "b"),
        "\ud800",
        "?",
    ]
    assert [recorder.capture(base, module_name=name).module_name for name in names] == [
        "a",
        "b",
        "a",
        "",
        "Φ",
        "b",
        "?",
        "?",
    ]
    assert recorder.names == ("", "a", "b", "Φ", "?")
    for bad in (7, NAN, Hostile()):
        assert recorder.capture(base, module_name=bad).module_name == ""
    assert recorder.invalid == {"module_name": 3}


def test_a_module_per_request_fills_no_memory():
    # A host that names a request instead of a module: the names are bounded, in number and in length.
    recorder = Recorder(1, module_name="default")
    base = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1.0]}
    for i in range(4095):
        assert recorder.capture(base, module_name=str(i)).module_name == str(i)
    assert len(recorder.names) == 4097
    assert recorder.unflagged == 0
    for name in ("one more", "x" * 1_000_000):
        snapshot = recorder.capture(base, module_name=name)
        assert (snapshot.module_name, snapshot.repaired) == ("default", ())
    assert recorder.capture(base, module_name="4094").module_name == "4094"
    assert recorder.invalid == {"module_name": 2}
    assert recorder.unflagged == 2
    assert len(recorder.names) == 4097
    strict = Recorder(1, on_invalid="raise")
    with pytest.raises(InvalidSnapshot, match=r"module_name: expected text of at most 256 .* got 'xxx"):
        strict.capture(base, module_name="x" * 257)


def test_code_hashes_have_room_beside_any_number_of_modules():
    recorder = Recorder(1)
    base = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": [1.0]}
    for i in range(4096):
        recorder.capture(base, module_name=f"m{i}")
    for i in range(4096, 65_535):
        recorder.code_hash = f"c{i}"
        assert recorder.code_hash == f"c{i}"
    recorder.code_hash = "one more than 16 bits can count"
    assert recorder.code_hash == ""
    assert recorder.capture(base).code_hash == ""


@pytest.mark.parametrize("field", ["code_hash", "module_name"])
def test_a_name_of_the_settings_that_is_too_long_is_refused(field):
    with pytest.raises(InvalidLimit, match=f"^{field}: expected at most 256 characters, got 257"):
        Recorder(1, **{field: "x" * 257})
