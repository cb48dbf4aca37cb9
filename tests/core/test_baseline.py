"""What is learned, from what, and that a file of it survives reading, copying and damage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.baseline import Band, Baseline
from qigcore.errors import BaselineError, InvalidLimit, TooLittleData
from qigcore.recorder import Recorder
from qigcore.rows import BIT, HEAD, Batch

DIM = 16


def window(n: int = 200, seed: int = 1, **columns: object) -> Batch:
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, HEAD)
    rows["timestamp"] = np.arange(n)
    rows["phi"] = 0.75 + rng.normal(0, 0.01, n)
    rows["kappa_eff"] = 66.0 + rng.normal(0, 2.0, n)
    rows["avg_latency_ms"] = 5.0 + rng.normal(0, 1.5, n)
    rows["memory_mb"] = 200.0
    rows["regime"] = 1
    rows["code"] = 1
    for name, value in columns.items():
        rows[name] = value
    return Batch.of_rows(rows, rng.dirichlet(np.full(DIM, 200.0), n), ("", "c0ffee00"))


def test_centre_and_spread() -> None:
    batch = window()
    baseline = Baseline.learn(batch, created=7.0)
    amplitudes = np.sqrt(batch.basin_coords / batch.basin_coords.sum(axis=1, keepdims=True))
    # Near states: the Fréchet mean is the normalised mean of the amplitudes to second order.
    chordal = amplitudes.mean(axis=0) / np.linalg.norm(amplitudes.mean(axis=0))
    assert np.array(baseline.basin) == pytest.approx(chordal, abs=1e-4)
    assert baseline.point == pytest.approx(np.array(baseline.basin) ** 2)
    assert np.array(baseline.component_mean) == pytest.approx(amplitudes.mean(axis=0))
    assert np.array(baseline.component_sd) == pytest.approx(amplitudes.std(axis=0, ddof=1))
    drifts = 2 * np.arccos(np.clip(amplitudes @ np.array(baseline.basin), -1, 1))
    assert baseline.bands["basin_drift"].mean == pytest.approx(drifts.mean(), abs=1e-6)
    assert baseline.variance == pytest.approx(np.mean(drifts**2), abs=1e-6)
    assert (baseline.count, baseline.skipped, baseline.created) == (200, 0, 7.0)
    assert baseline.code_hash == "c0ffee00"


def test_bands_are_three_sigma_with_floors() -> None:
    batch = window()
    bands = Baseline.learn(batch).bands
    phi = bands["phi"]
    assert phi.sd == pytest.approx(batch.phi.std(ddof=1))
    assert (phi.low, phi.high) == pytest.approx((phi.mean - 3 * phi.sd, phi.mean + 3 * phi.sd))
    kappa = bands["kappa"]
    assert kappa.high - kappa.mean == pytest.approx(3 * kappa.sd)
    assert bands["latency"].low == max(0.0, bands["latency"].mean - 3 * bands["latency"].sd)
    assert bands["errors"].constant
    assert (bands["errors"].low, bands["errors"].high) == pytest.approx((0.0, 0.006))
    assert (bands["memory"].mean, bands["memory"].low, bands["memory"].high) == pytest.approx(
        (0.0, -0.3, 0.3)
    )


@pytest.mark.parametrize(
    ("name", "column", "value", "half"),
    [
        ("phi", "phi", 0.6, 0.015),
        ("kappa", "kappa_eff", 50.0, 1.5),
        ("kappa", "kappa_eff", 0.5, 0.03),
        ("latency", "avg_latency_ms", 10.0, 6.0),
        ("latency", "avg_latency_ms", 0.01, 0.15),
        ("errors", "error_rate", 0.1, 0.006),
    ],
)
def test_a_steady_signal_gets_the_floor(name: str, column: str, value: float, half: float) -> None:
    band = Baseline.learn(window(**{column: value})).bands[name]
    assert band.constant
    assert band.autocorrelation == 0.0
    assert band.high == pytest.approx(value + half)
    assert band.low == pytest.approx(max(value - half, 0.0) if name != "kappa" else value - half)


def test_a_step_widens_no_band_of_growth() -> None:
    # A cache filled once while healthy was learned must not hide the leak that comes later.
    memory = np.random.default_rng(3).normal(0, 1.0, 200)
    before = Baseline.learn(window(memory_mb=memory)).bands["memory"]
    after = Baseline.learn(window(memory_mb=memory + 500.0 * (np.arange(200) >= 100))).bands["memory"]
    assert after.high == pytest.approx(before.high, rel=0.25)


@pytest.mark.parametrize(
    ("name", "column", "values", "largest"),
    [
        ("κ", "kappa_eff", 1e300 * (1 + np.arange(200) / 1e3), "1.2e+300"),
        ("κ", "kappa_eff", 1.7e308 * (-1.0) ** np.arange(200), "1.7e+308"),
        ("latency", "avg_latency_ms", 1e160, "1e+160"),
        ("memory", "memory_mb", 1.7e308 * (np.arange(200) % 2), "1.7e+308"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_of_values_too_large_nothing_is_learned_and_a_note_says_so(
    name: str, column: str, values: object, largest: str
) -> None:
    baseline = Baseline.learn(window(**{column: values}))
    assert len(baseline.bands) == 5
    assert f"{name} went up to {largest}: too large to learn a band from" in baseline.notes
    assert all(math.isfinite(band.low) and math.isfinite(band.high) for band in baseline.bands.values())
    largest_learned = Baseline.learn(window(**{column: 1e100 * (np.arange(200) % 2)}))
    assert len(largest_learned.bands) == 6


def test_bands_end_where_the_metric_ends() -> None:
    bands = Baseline.learn(window(phi=1.0, error_rate=0.999)).bands
    assert bands["phi"].high == 1.0
    assert bands["errors"].high == 1.0
    assert Baseline.learn(window(phi=0.001)).bands["phi"].low == 0.0


def test_autocorrelation_is_at_lag_one() -> None:
    rng = np.random.default_rng(4)
    values = np.zeros(2000)
    for i in range(1, 2000):
        values[i] = 0.8 * values[i - 1] + rng.normal(0, 0.6)
    bands = Baseline.learn(window(2000, kappa_eff=64 + values)).bands
    assert bands["kappa"].autocorrelation == pytest.approx(0.8, abs=0.05)
    assert abs(bands["phi"].autocorrelation) < 0.1


def test_repaired_values_teach_nothing() -> None:
    clean = window()
    spoilt = window()
    spoilt.columns["phi"][:20] = 0.0
    spoilt.columns["repaired"][:20] = BIT["phi"]
    spoilt.columns["basin_coords"][20:30] = 1.0
    spoilt.columns["repaired"][20:30] = BIT["basin_coords"]
    baseline = Baseline.learn(spoilt)
    assert (baseline.count, baseline.skipped) == (190, 30)
    expected = Baseline.learn(clean.take(np.r_[0:20, 30:200]))
    assert baseline.basin == expected.basin
    assert baseline.bands["phi"].count == 180
    assert baseline.bands["phi"].mean == pytest.approx(clean.phi[20:].mean())


def test_too_little_says_how_many_are_missing() -> None:
    with pytest.raises(TooLittleData, match="got 29 of 29: 1 more"):
        Baseline.learn(window(29))
    batch = window(100, repaired=BIT["basin_coords"])
    with pytest.raises(TooLittleData, match="got 0 of 100: 30 more"):
        Baseline.learn(batch)
    assert Baseline.learn(window(30)).count == 30


def test_a_metric_without_enough_values_has_no_band() -> None:
    baseline = Baseline.learn(window(100, repaired=[0] * 20 + [BIT["phi"]] * 80))
    assert "phi" not in baseline.bands
    assert "kappa" in baseline.bands
    assert any("Φ" in note and "20" in note for note in baseline.notes)


def test_basins_alone_give_a_drift_band_only() -> None:
    rows = np.random.default_rng(1).dirichlet(np.full(64, 500.0), 300)
    baseline = Baseline.learn(rows)
    assert set(baseline.bands) == {"basin_drift"}
    assert baseline.dim == 64
    assert baseline == Baseline.learn(rows.tolist(), created=baseline.created)
    rows[5] = np.nan
    rows[6] = 0.0
    assert (Baseline.learn(rows).count, Baseline.learn(rows).skipped) == (298, 2)


def test_snapshots_teach_the_same_as_the_batch_of_them() -> None:
    recorder = Recorder(dim=DIM, capacity=100, code_hash="c0ffee00")
    rng = np.random.default_rng(2)
    for i in range(60):
        recorder.record(
            math.nan if i == 7 else rng.normal(0.7, 0.02), 60.0 + i % 3, rng.dirichlet(np.full(DIM, 90.0))
        )
    _, heads, basins = recorder.rows(0, 60)
    batch = Batch.of_rows(heads, basins, recorder.names)
    snapshots = [recorder.snapshot(i) for i in range(60)]
    assert Baseline.learn(snapshots, created=1.0) == Baseline.learn(batch, created=1.0)
    assert Baseline.learn(snapshots).skipped == 1


def test_signed_states_need_the_sphere() -> None:
    rows = np.random.default_rng(1).normal(size=(100, 64)) * 0.05 + np.linspace(-1, 1, 64)
    with pytest.raises(TooLittleData, match="geometry='sphere'"):
        Baseline.learn(rows)
    baseline = Baseline.learn(rows, geometry="sphere")
    assert min(baseline.basin) < 0.0
    assert baseline.point == pytest.approx(np.array(baseline.basin))


def test_the_drift_limit_never_exceeds_the_ceiling() -> None:
    wild = np.random.default_rng(1).dirichlet(np.full(64, 0.2), 100)
    baseline = Baseline.learn(wild, drift_ceiling=1.0)
    assert baseline.bands["basin_drift"].high > 1.0
    assert baseline.drift_limit == 1.0
    assert any("ceiling" in note for note in baseline.notes)
    with pytest.raises(InvalidLimit, match="π"):
        Baseline.learn(wild, drift_ceiling=3.2)


def test_notes_name_the_absolute_limits_that_the_host_never_met() -> None:
    notes = Baseline.learn(
        window(
            phi=0.31,
            kappa_eff=7.8,
            error_rate=0.2,
            avg_latency_ms=3000.0,
            regime=2,
            memory_mb=2.0 * np.arange(200),
        )
    ).notes
    text = "\n".join(notes)
    assert "host never met Φ ≥ 0.65 (healthy mean 0.31)" in notes
    assert "host never met κ within 10 of 64.21 (healthy mean 7.8)" in notes
    assert "error rate ≤ 0.05" in text
    assert "latency ≤ 2000 ms" in text
    assert "100% of healthy snapshots lie in the breakdown regime: it is no finding here" in notes
    assert "memory grew 2 MB per snapshot" in text
    assert "constant while healthy was learned: Φ (0.31), κ (7.8)" in text
    rare = Baseline.learn(window(phi=[0.7] * 20 + [0.6] * 180)).notes
    assert any("met in 10% of healthy snapshots only: Φ ≥ 0.65" in note for note in rare)
    plain = Baseline.learn(window(regime=[2] * 10 + [1] * 190)).notes
    assert not [note for note in plain if "met" in note or "breakdown" in note]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["simplex", "sphere"]), st.floats(0.001, 1000.0))
def test_a_file_gives_back_what_was_saved_and_scale_is_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, geometry: Any, scale: float
) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.full(DIM, 30.0), 40)
    baseline = Baseline.learn(rows, geometry=geometry, created=1.0)
    path = tmp_path_factory.mktemp("baseline") / "baseline.json"
    baseline.save(path)
    assert Baseline.load(path) == baseline
    scaled = Baseline.learn(rows * scale, geometry=geometry, created=1.0)
    assert np.array(scaled.basin) == pytest.approx(np.array(baseline.basin), abs=1e-9)
    assert scaled.drift_limit == pytest.approx(baseline.drift_limit, abs=1e-9)


def test_saving_replaces_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    first, second = Baseline.learn(window(seed=1)), Baseline.learn(window(seed=2))
    first.save(path)
    with pytest.raises(FileExistsError):
        second.save(path, replace=False)
    assert Baseline.load(path) == first
    second.save(path)
    assert Baseline.load(path) == second
    assert [each.name for each in tmp_path.iterdir()] == ["baseline.json"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d.update(version=3), "version 3"),
        (lambda d: d.update(version=0), "version 0"),
        (lambda d: d.pop("bands"), "bands"),
        (lambda d: d.update(bands={}), "basin_drift"),
        (lambda d: d.update(dim=17), "17 components"),
        (lambda d: d["basin"].__setitem__(0, 0.9), "unit length"),
        (lambda d: d["basin"].__setitem__(0, -d["basin"][0]), "at least 0"),
        (lambda d: d["basin"].__setitem__(0, None), r"\$\.basin\[0\]"),
        (lambda d: d.update(geometry="torus"), "geometry"),
        (lambda d: d["bands"]["phi"].update(low=2.0), "bands.phi"),
        (lambda d: d.update(drift_ceiling=4.0), "drift_ceiling"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(tmp_path: Path, edit: Any, says: str) -> None:
    path = tmp_path / "baseline.json"
    Baseline.learn(window()).save(path)
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(BaselineError, match=says) as caught:
        Baseline.load(path)
    assert str(path) in str(caught.value)


def test_a_torn_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(BaselineError, match="No such file"):
        Baseline.load(path)
    Baseline.learn(window()).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BaselineError, match="delete the file"):
        Baseline.load(path)


def test_fields_added_later_do_not_stop_this_reader(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline = Baseline.learn(window())
    baseline.save(path)
    data = json.loads(path.read_text())
    data["colour"] = "green"
    path.write_text(json.dumps(data))
    assert Baseline.load(path) == baseline


def test_a_band_is_plain_data() -> None:
    band = Band(mean=1.0, sd=0.1, low=0.7, high=1.3, constant=False, autocorrelation=0.0, count=30)
    with pytest.raises(AttributeError):
        band.low = 0.0  # type: ignore[misc]


def test_a_hostile_file_is_refused_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"version": 1, "later": ' + "[" * 100_000)
    with pytest.raises(BaselineError, match="delete the file"):
        Baseline.load(path)
    Baseline.learn(np.random.default_rng(0).dirichlet(np.full(4, 50.0), 30)).save(path)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "basin": [1.3e154] * 4}))  # their squares overflow a sum
    with pytest.raises(BaselineError, match="unit length"):
        Baseline.load(path)
