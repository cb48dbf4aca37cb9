"""Centroids, and readings of embeddings: made up ones, and real ones.

tests/core/embedded/minilm.npz holds embeddings by all-MiniLM-L6-v2 of paragraphs from Python's own docstrings, made by
`python -m benchmarks.embeddings --freeze`, in int8.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore import geometry
from qigcore._estimators import INSTRUCTIONS, Centroids, unit_rows
from qigcore.errors import InvalidBasin, TooLittleData
from qigcore.estimators import EmbeddingEstimator
from qigcore.estimators.fitting import clustered
from qigheal import GeometricHealthMonitor
from tests.reference import exact_entropy, request_weights, soft_assignment

REAL = Path(__file__).parent / "embedded" / "minilm.npz"


def rng(seed=0):
    return np.random.default_rng(seed)


def blobs(n=300, k=6, dim=12, spread=0.2, seed=0):
    """Rows around k directions at right angles, and which each is of."""
    which = rng(seed).integers(0, k, n)
    return np.eye(dim)[which] + spread * rng(seed + 1).normal(size=(n, dim)) / math.sqrt(dim), which


@pytest.fixture(scope="module")
def real():
    with np.load(REAL) as found:
        largest = float(found["largest"])
        return {
            kind: found[kind].astype("f4") * np.float32(largest / 127)
            for kind in found.files
            if kind != "largest"
        }


@pytest.fixture(scope="module")
def fitted(real):
    return EmbeddingEstimator.fit(real["fitted"], memory=200)


# --- one embedding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 7, 64, 65, 384, 1000])
@pytest.mark.parametrize("k", [2, 63, 64, 65, 130])
def test_cosines_are_within_the_stated_error(dim, k):
    rows, others = (unit_rows(rng(seed).normal(size=(n, dim)))[0] for seed, n in ((0, 20), (1, k)))
    found = Centroids(others).cosines(rows)
    assert found == pytest.approx(rows.astype(float) @ others.astype(float).T, abs=4e-6)
    assert np.abs((rows.astype(float) ** 2).sum(axis=1) - 1.0).max() < 2e-7


@pytest.mark.parametrize("k", [2, 10, 64, 100])
def test_one_reading_is_the_soft_assignment(k):
    definition = EmbeddingEstimator.fit(rng().normal(size=(10 * k, 24)), centroids=k, memory=1).definition
    estimator = EmbeddingEstimator(definition)
    for row in rng(1).normal(size=(10, 24)):
        phi, kappa, basin = estimator.update(row)
        expected = soft_assignment(row, definition.rows, definition.temperature)
        assert basin == pytest.approx(expected, abs=1e-4)
        assert phi == pytest.approx(1 - exact_entropy(basin) / math.log(k), abs=1e-13)
        assert kappa == pytest.approx(math.exp(exact_entropy(basin)), rel=1e-13)


def test_averages_begin_as_those_of_the_embeddings_fitted_to():
    rows, _ = blobs()
    estimator = EmbeddingEstimator.fit(rows, centroids=6, memory=50)
    assert estimator.ready
    single = EmbeddingEstimator.fit(rows, centroids=6, memory=1).update_many(rows[:40])
    start = np.array(estimator.definition.start)
    weights = [(1 - 2 / 51) ** 40] + [2 / 51 * (1 - 2 / 51) ** (39 - i) for i in range(40)]
    assert estimator.update_many(rows[:40]).basin[-1] == pytest.approx(
        weights @ np.vstack([start, single.basin])
    )
    assert request_weights(200, 50)[-41:][1:] == pytest.approx(weights[1:])


@given(st.integers(0, 9), st.integers(-140, 120))
def test_the_length_of_an_embedding_does_not_matter(row, exponent):
    rows, _ = blobs(60, 3, 8)
    definition = EmbeddingEstimator.fit(rows, centroids=3).definition
    for kind in ("f8", "f4"):
        given_row = rows[row].astype(kind)
        one, other = (
            EmbeddingEstimator(definition).update(each) for each in (given_row, np.ldexp(given_row, exponent))
        )
        assert other.basin == pytest.approx(one.basin, abs=1e-6)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e200, 1.7e308])
def test_lengths_from_denormal_to_huge(scale):
    definition = EmbeddingEstimator.fit(blobs(60, 3, 8)[0], centroids=3).definition
    expected = EmbeddingEstimator(definition).update([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    found = EmbeddingEstimator(definition).update([scale, scale, 0, 0, 0, 0, 0, 0])
    assert np.array_equal(found.basin, expected.basin)


def test_float32_and_float64_of_the_same_numbers_give_the_same_bits(real, fitted):
    rows = real["fresh"][:50]
    narrow, wide = (
        EmbeddingEstimator(fitted.definition).update_many(each) for each in (rows, rows.astype("f8"))
    )
    assert all(np.array_equal(a, b) for a, b in zip(narrow, wide, strict=True))


BAD = [None, "text", np.full(384, np.nan), np.zeros(384), np.ones(383), np.ones((1, 384)), np.full(384, 1j)]


@pytest.mark.parametrize("bad", range(len(BAD)))
def test_what_is_no_embedding_leaves_the_averages_alone(bad, fitted):
    lenient = EmbeddingEstimator(fitted.definition)
    strict = EmbeddingEstimator(fitted.definition, on_invalid="raise")
    one_bad = np.ones(384)
    one_bad[383] = math.inf
    for each in (BAD[bad], one_bad):
        assert math.isnan(lenient.update(each).phi)
        with pytest.raises(InvalidBasin, match="expected"):
            strict.update(each)
    assert lenient.skipped == strict.skipped == 2
    assert lenient.count == strict.count == 0


# --- fitting ----------------------------------------------------------------------------------------


def test_directions_that_lie_apart_are_found():
    rows, which = blobs(600, 6, 12)
    clusters = clustered(unit_rows(rows)[0], 6, 0)
    assert len({(a, b) for a, b in zip(which, clusters.labels, strict=True)}) == 6
    means = np.array([rows[clusters.labels == i].sum(axis=0) for i in range(6)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs((clusters.centroids * means).sum(axis=1) - 1.0).max() < 1e-3


def test_clusters_are_a_fixed_point_of_k_means(real):
    units = unit_rows(real["fitted"])[0]
    clusters = clustered(units, 64, 0)
    cosines = units.astype(float) @ clusters.centroids.astype(float).T
    assert cosines[np.arange(len(units)), clusters.labels] == pytest.approx(cosines.max(axis=1), abs=1e-5)
    for i in range(64):
        total = units[clusters.labels == i].astype(float).sum(axis=0)
        assert clusters.lengths[i] == pytest.approx(np.linalg.norm(total))
        assert clusters.centroids[i] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)


def test_k_means_is_better_than_its_seeds_alone(real):
    # On this data 64 rows drawn at random have a mean cosine of 0.46 to the nearest.
    units = unit_rows(real["fitted"])[0]
    near = Centroids(clustered(units, 64, 0).centroids).cosines(units).max(axis=1).mean()
    drawn = Centroids(units[rng().permutation(len(units))[:64]]).cosines(units).max(axis=1).mean()
    assert near > drawn + 0.12


@pytest.mark.parametrize("plain", [False, True])
def test_a_fit_and_its_readings_are_the_same_bits_in_every_process(plain, real, fitted):
    code = f"""
import numpy as np
from qigcore._estimators import INSTRUCTIONS
from qigcore.estimators import EmbeddingEstimator
with np.load({str(REAL)!r}) as found:
    unit = np.float32(float(found["largest"]) / 127)
    rows, fresh = (found[kind].astype("f4") * unit for kind in ("fitted", "fresh"))
estimator = EmbeddingEstimator.fit(rows, memory=200)
print(INSTRUCTIONS, estimator.fingerprint, estimator.update_many(fresh).basin.tobytes().hex())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    if plain:
        environment["QIGHEAL_SIMD"] = "plain"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    instructions, fingerprint, bits = done.stdout.split()
    assert instructions == ("plain" if plain else INSTRUCTIONS)
    assert fingerprint == fitted.fingerprint
    assert (
        bytes.fromhex(bits)
        == EmbeddingEstimator(fitted.definition).update_many(real["fresh"]).basin.tobytes()
    )


def test_rows_that_cannot_be_used_are_skipped_and_counted():
    rows, _ = blobs(100, 3, 8)
    spoiled = np.insert(rows, [0, 50, 100], [[np.nan] * 8, [0.0] * 8, [1.0] * 7 + [np.inf]], axis=0)
    one, other = (EmbeddingEstimator.fit(each, centroids=3).definition for each in (rows, spoiled))
    assert (one.skipped, other.skipped) == (0, 3)
    assert one.fitted == other.fitted == 100
    assert (one.centroids, one.temperature, one.start) == (other.centroids, other.temperature, other.start)


def test_copies_are_no_centroids_of_their_own():
    with pytest.raises(TooLittleData, match="ask for at most 3"):
        EmbeddingEstimator.fit(np.repeat(np.eye(8)[:3], 20, axis=0), centroids=4)
    definition = EmbeddingEstimator.fit(np.repeat(np.eye(8)[:3], 20, axis=0), centroids=3).definition
    assert sorted(definition.rows.argmax(axis=1).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        (
            np.ones((639, 8)),
            TooLittleData,
            "need 640 usable embeddings, got 639 of 639: give more, or ask for 63",
        ),
        (np.full((700, 8), np.nan), TooLittleData, "got 0 of 700"),
        (np.ones(8), InvalidBasin, r"shape \[n, dim\]"),
        (np.ones((700, 1)), InvalidBasin, "dim at least 2"),
        ([["a"] * 8] * 700, InvalidBasin, "array of numbers|embeddings of shape"),
        ([[1.0], [1.0, 2.0]], InvalidBasin, "array of numbers"),
    ],
)
def test_what_nothing_can_be_fitted_to_is_refused(rows, error, said):
    with pytest.raises(error, match=said):
        EmbeddingEstimator.fit(rows)


# --- real ones --------------------------------------------------------------------------------------


def test_the_temperature_gives_fresh_traffic_the_stated_level(real, fitted):
    # Were rows not taken out of their own clusters, fresh traffic would lie near 0.65.
    assert fitted.definition.start_phi == pytest.approx(0.75, abs=1e-5)
    single = EmbeddingEstimator.fit(real["fitted"], memory=1).update_many(real["fresh"])
    assert single.phi.mean() == pytest.approx(0.75, abs=0.035)
    assert sum(fitted.definition.start) == 1.0


def served(definition, traffic, snapshots, seed, monitor):
    """`snapshots` records of 200 requests each, drawn with replacement; how many were unhealthy."""
    estimator, generator, unhealthy = EmbeddingEstimator(definition), rng(seed), 0
    for _ in range(snapshots):
        found = estimator.update_many(traffic[generator.integers(len(traffic), size=200)])
        monitor.record(found.phi[-1], found.kappa[-1], found.basin[-1])
        unhealthy += monitor.check_health().severity != "normal"
    return unhealthy


@pytest.fixture
def learned(real, fitted):
    monitor = GeometricHealthMonitor(code_hash="")
    served(fitted.definition, real["fresh"], 300, 0, monitor)
    assert monitor.baseline is not None
    return monitor


def test_healthy_traffic_stays_healthy(real, fitted, learned):
    assert served(fitted.definition, real["fresh"], 200, 1, learned) == 0


@pytest.mark.parametrize("kind", ["other_modules", "first_three_words"])
def test_other_traffic_is_seen_within_five_snapshots(kind, real, fitted, learned):
    assert served(fitted.definition, real[kind], 5, 1, learned) >= 1
    served(fitted.definition, real[kind], 10, 2, learned)
    report = learned.check_health()
    assert report.severity == "critical"
    assert any("basin drift" in issue for issue in report.issues)


def test_words_in_random_order_are_not_told_from_sentences(real, fitted, learned):
    # No virtue: an embedding hardly sees the order, so an estimator over it cannot.
    served(fitted.definition, real["words_in_random_order"], 30, 1, learned)
    assert not any("basin drift" in issue for issue in learned.check_health().issues)


def test_the_drift_of_another_traffic_is_in_the_basin_itself(real, fitted):
    once = EmbeddingEstimator.fit(real["fitted"], memory=1)
    means = {kind: once.update_many(rows).basin.mean(axis=0) for kind, rows in real.items()}
    start = np.array(fitted.definition.start)
    drift = {kind: geometry.distance(start, mean) for kind, mean in means.items()}
    assert drift["fresh"] < 0.4
    assert drift["other_modules"] > 0.8
    assert drift["first_three_words"] > drift["fresh"] + 0.1
