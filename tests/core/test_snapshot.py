import copy
import json
import math
import pickle
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

from qigcore.errors import InvalidSnapshot
from qigcore.recorder import GeometricSnapshot, Recorder
from qigcore.rows import REPAIRABLE
from tests.core.odd import FULL

NAN = math.nan


def test_a_snapshot_is_immutable():
    snapshot = GeometricSnapshot(**FULL)
    for name in ("phi", "basin_coords", "repaired", "anything"):
        with pytest.raises(AttributeError):
            setattr(snapshot, name, 0.5)
    state = snapshot.basin_coords
    with pytest.raises(ValueError, match="read-only"):
        state[0] = 5.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        state.flags.writeable = True
    with pytest.raises(TypeError, match="immutable"):
        snapshot.__init__(**FULL)
    assert snapshot.basin_coords.tolist() == FULL["basin_coords"]


def test_copies_and_pickles_are_equal():
    snapshot = GeometricSnapshot(
        **FULL | {"timestamp": 1.7e9 + 1 / 3, "confidence": None}, repaired=["phi", "agency"]
    )
    for other in (copy.copy(snapshot), copy.deepcopy(snapshot), pickle.loads(pickle.dumps(snapshot))):  # noqa: S301
        assert other == snapshot
        assert hash(other) == hash(snapshot)
    assert len({snapshot, copy.copy(snapshot), GeometricSnapshot(**FULL)}) == 2


@pytest.mark.parametrize("name", [*FULL, "basin_drift", "regime", "code_hash", "repaired"])
def test_snapshots_differ_where_one_field_does(name):
    other = {
        "basin_coords": [1.0, 2.0, 3.0, 5.0],
        "module_name": "x",
        "regime": "linear",
        "code_hash": "x",
        "repaired": ["phi"],
    }
    changed = GeometricSnapshot(
        **{**FULL, name: other.get(name, FULL.get(name, 1.0) / 2 if name not in other else None)}
    )
    assert changed != GeometricSnapshot(**FULL)
    assert GeometricSnapshot(**FULL) == GeometricSnapshot(**FULL)
    assert GeometricSnapshot(**FULL) != FULL


def test_zero_has_one_sign_for_equality():
    one, other = ({**FULL, "kappa_eff": zero, "basin_coords": [1.0, zero]} for zero in (0.0, -0.0))
    assert GeometricSnapshot(**one) == GeometricSnapshot(**other)
    assert hash(GeometricSnapshot(**one)) == hash(GeometricSnapshot(**other))


def test_a_snapshot_survives_json():
    recorder = Recorder(64, code_hash="abc")
    for i, basin in enumerate(np.random.default_rng(0).dirichlet(np.ones(64), 20)):
        snapshot = recorder.capture(
            phi=0.7 if i % 2 else NAN, kappa_eff=64.0, basin_coords=basin, surprise=0.1
        )
        text = json.dumps(snapshot.to_dict(), allow_nan=False)
        assert GeometricSnapshot.from_dict(json.loads(text)) == snapshot
        assert json.loads(text)["timestamp"].endswith("+00:00")


def test_a_file_of_the_earlier_modules_is_read():
    moment = datetime(2024, 1, 31, 13, 14, 15, 123456)  # noqa: DTZ001 - local time, as those files have it
    earlier = {
        "timestamp": moment.isoformat(),
        "phi": 0.72,
        "kappa_eff": 63.9,
        "basin_coords": [0.6, -0.8],
        "confidence": 0.9,
        "surprise": 0.1,
        "agency": NAN,
        "regime": "breakdown",
        "code_hash": "0123abcd",
        "module_name": "m",
        "error_rate": 0.0,
        "avg_latency_ms": 12,
        "memory_mb": 0,
        "unknown": {},
    }
    snapshot = GeometricSnapshot.from_dict(earlier)
    assert snapshot.timestamp == moment.timestamp()
    assert snapshot.basin_coords.tolist() == [0.6, -0.8]
    assert (snapshot.regime, snapshot.code_hash, snapshot.basin_drift, snapshot.repaired) == (
        "breakdown",
        "0123abcd",
        0.0,
        (),
    )
    assert math.isnan(snapshot.agency)
    assert snapshot.to_dict()["agency"] is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("timestamp", "soon", "Unix seconds or ISO 8601, from 0001-01-02 to 9999-12-30, got 'soon'"),
        ("phi", 1.2, "a finite number from 0 to 1, got 1.2"),
        ("phi", None, "a finite number from 0 to 1, got None"),
        ("kappa_eff", NAN, "a finite number, got nan"),
        ("basin_coords", [], "finite components, not all 0, got 0 components, all 0"),
        ("basin_coords", [0.0, 0.0], "finite components, not all 0, got 2 components, all 0"),
        ("basin_coords", [[1.0]], "finite components"),
        ("basin_coords", 5.0, "finite components"),
        ("basin_coords", [1.0, math.inf], "finite components, not all 0, got inf at position 1 of 2"),
        ("basin_drift", -1.0, "a finite number of at least 0, got -1.0"),
        ("memory_mb", math.inf, "a finite number of at least 0, got inf"),
        ("error_rate", 2, "a finite number from 0 to 1, got 2"),
        ("basin_coords", np.array(5.0), "finite components"),
        ("regime", np.ones(2), "one of linear, geometric, breakdown, got 2 components"),
        ("regime", "chaos", "one of linear, geometric, breakdown, got 'chaos'"),
        ("code_hash", 5, "text, got 5"),
        ("repaired", ["drift"], "names among phi, .*, got 'drift'"),
        ("repaired", [np.ones(2)], "names among phi, .*, got 2 components"),
        ("repaired", 5, "a list of names, got 5"),
        ("confidence", "high", "a finite number, got 'high'"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, message):
    with pytest.raises(InvalidSnapshot, match=f"^{field}: expected {message}"):
        GeometricSnapshot.from_dict({**FULL, field: value})


@pytest.mark.parametrize("fields", [None, 5, ["phi"]])
def test_what_is_no_mapping_is_refused(fields):
    with pytest.raises(InvalidSnapshot, match="fields: expected a mapping"):
        GeometricSnapshot.from_dict(fields)


@pytest.mark.parametrize("missing", ["timestamp", "phi", "kappa_eff", "basin_coords"])
def test_a_needed_field_that_is_missing_is_named(missing):
    with pytest.raises(InvalidSnapshot, match=f"^{missing}: expected a value, got nothing"):
        GeometricSnapshot.from_dict({key: value for key, value in FULL.items() if key != missing})


@pytest.mark.parametrize(("phi", "regime"), [(0.29, "linear"), (0.3, "geometric"), (0.8, "breakdown")])
def test_a_snapshot_without_a_regime_gets_that_of_its_phi(phi, regime):
    assert GeometricSnapshot(**{**FULL, "phi": phi}).regime == regime


def test_repr_is_short_and_says_what_was_repaired():
    snapshot = GeometricSnapshot(**{**FULL, "basin_coords": np.ones(64)}, repaired=("phi",))
    assert repr(snapshot) == (
        "GeometricSnapshot(2023-11-14T22:13:20.000+00:00, phi=0.7, kappa_eff=64, basin_drift=0, "
        "regime='geometric', dim=64, repaired=('phi',))"
    )
    assert (GeometricSnapshot.__module__, Recorder.__module__) == ("qigcore.recorder", "qigcore.recorder")


def test_every_flag_has_its_name():
    snapshot = GeometricSnapshot(**FULL, repaired=REPAIRABLE[::-1])
    assert snapshot.repaired == REPAIRABLE


def test_an_empty_shell_does_not_crash():
    code = (
        "from qigcore.recorder import GeometricSnapshot, Recorder\n"
        "shell = GeometricSnapshot.__new__(GeometricSnapshot)\n"
        "for read in (repr, hash, lambda s: s.basin_coords, lambda s: s.to_dict(), lambda s: s == s):\n"
        "    try: read(shell)\n"
        "    except Exception: pass\n"
        "Recorder.__new__(Recorder).record(0.5, 1.0, [1.0] * 64)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
