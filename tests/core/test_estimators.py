"""Requests in, readings out: the four estimators against their formulas and their invariants."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qigcore import geometry
from qigcore._estimators import hashed_bin, mixed
from qigcore.errors import InvalidBasin
from qigcore.estimators import ClassEstimator, EventEstimator, StateEstimator, pooled_bins
from qigheal import GeometricHealthMonitor
from tests.core.odd import NOT_BASINS
from tests.reference import bin_of_text, exact_entropy, request_weights, softmax, splitmix

WORDS = ["GET /", "GET /users", "POST /users", "DELETE /users", "", "Φ", "日本", "a" * 300]


def rng(seed=0):
    return np.random.default_rng(seed)


def shares(n, low=0.0):
    element = st.floats(low, 1e6, allow_subnormal=False)
    return hnp.arrays(np.float64, n, elements=element).filter(lambda w: w.max() > 1e-3)


def fresh(kind, **settings):
    """An estimator, and 60 requests for it."""
    if kind == "event":
        return EventEstimator(**settings), [WORDS[i] for i in rng().integers(0, len(WORDS), 60)]
    if kind == "state":
        return StateEstimator(8, refresh=7, **settings), rng().normal(1.0, 1.0, (60, 8))
    if kind == "logits":
        return ClassEstimator(100, inputs="logits", **settings), rng().normal(0.0, 4.0, (60, 100))
    return ClassEstimator(10, **settings), rng().dirichlet(np.full(10, 0.3), 60)


KINDS = ("class", "logits", "event", "state")


# --- pooling ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
def test_the_mixer_is_splitmix(value):
    assert mixed(value) == splitmix(value)


def test_splitmix_gives_the_published_sequence():
    # The first outputs of the generator of that name from the seed 1234567.
    step = 0x9E3779B97F4A7C15
    outputs = [mixed((1234567 + i * step) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(2, 3000), st.integers(2, 80), st.integers(0, 2**64 - 1))
def test_each_bin_gets_as_many_classes_or_one_more(classes, dim, seed):
    bins = pooled_bins(classes, dim, seed)
    counts = np.bincount(bins, minlength=dim)
    assert len(bins) == classes
    assert len(counts) == dim
    if classes <= dim:
        assert bins.tolist() == list(range(classes))
    else:
        assert counts.max() - counts.min() <= 1


def test_pooling_parts_neighbours_and_depends_on_the_seed():
    bins = pooled_bins(1000)
    same = np.mean(bins[1:] == bins[:-1])
    assert same < 3 / 64  # 1/64 by chance
    assert np.mean(pooled_bins(1000, 64, 1) == bins) < 3 / 64
    # What pooled a history once must pool it so for ever.
    assert bins[:8].tolist() == [9, 41, 0, 13, 61, 56, 53, 13]


@given(shares(100), shares(100))
def test_pooling_never_enlarges_a_distance(p, q):
    estimator = ClassEstimator(100, memory=1, dim=16)
    pooled = [estimator.update(each).basin for each in (p, q)]
    assert geometry.distance(*pooled) <= geometry.distance(p, q) + 1e-13


# --- one answer -------------------------------------------------------------------------------------


@given(shares(10))
def test_a_probability_vector_is_its_own_basin(p):
    phi, kappa, basin = ClassEstimator(10, memory=1).update(p)
    assert basin[:10] == pytest.approx(p / p.sum(), abs=1e-15)
    assert not basin[10:].any()
    assert phi == pytest.approx(1 - exact_entropy(p) / math.log(10), abs=4e-15)
    assert kappa == pytest.approx(math.exp(exact_entropy(p)), rel=4e-15)
    assert 0.0 <= phi <= 1.0
    assert 1.0 <= kappa <= 10.0 * (1 + 1e-15)


@given(hnp.arrays(np.float64, 10, elements=st.floats(-200, 200)))
def test_logits_become_their_softmax(logits):
    phi, _, basin = ClassEstimator(10, inputs="logits", memory=1, dim=10).update(logits)
    expected = softmax(logits)
    assert basin == pytest.approx(expected, abs=4e-15)
    assert phi == pytest.approx(1 - exact_entropy(expected) / math.log(10), abs=1e-14)


@pytest.mark.parametrize(
    "logits", [[1e308, -1e308, 0.0], [-1e308] * 3, [0.0, -math.inf, -math.inf], [1000.0, 1000.0, 1.0]]
)
def test_logits_of_any_size(logits):
    phi, kappa, basin = ClassEstimator(3, inputs="logits", memory=1, dim=3).update(logits)
    assert basin.sum() == pytest.approx(1.0, abs=1e-15)
    assert 0.0 <= phi <= 1.0
    assert 1.0 <= kappa <= 3.0 + 1e-14


@given(shares(10), st.integers(-900, 900))
def test_the_scale_of_probabilities_does_not_matter(p, exponent):
    one, other = (ClassEstimator(10, memory=1).update(each) for each in (p, np.ldexp(p, exponent)))
    if np.array_equal(np.ldexp(np.ldexp(p, exponent), -exponent), p):
        assert one.basin == pytest.approx(other.basin, abs=1e-15)
        assert one[:2] == pytest.approx(other[:2], rel=1e-14, abs=1e-14)


@given(shares(10), st.permutations(range(10)))
def test_the_order_of_classes_does_not_matter(p, order):
    one, other = (ClassEstimator(10, memory=1, dim=10).update(each) for each in (p, p[order]))
    assert other.basin == pytest.approx(one.basin[order], abs=1e-15)
    assert one[:2] == pytest.approx(other[:2], rel=1e-14, abs=1e-14)


@given(hnp.arrays(np.float64, 10, elements=st.floats(-50, 50)), st.floats(-100, 100))
def test_a_shift_of_all_logits_does_not_matter(logits, shift):
    one, other = (
        ClassEstimator(10, inputs="logits", memory=1).update(each) for each in (logits, logits + shift)
    )
    assert one.basin == pytest.approx(other.basin, abs=1e-12)


def test_certain_and_undecided_answers_are_the_ends_of_the_range():
    estimator = ClassEstimator(1000, memory=1)
    assert estimator.update(np.eye(1000)[17])[:2] == (1.0, 1.0)
    phi, kappa, _ = estimator.update(np.ones(1000))
    assert phi == pytest.approx(0.0, abs=1e-14)
    assert kappa == pytest.approx(64.0, rel=1e-3)  # 1000 classes do not go evenly into 64 bins


# --- averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 5, 40, 10_000])
def test_an_average_is_of_the_stated_weights(memory):
    answers = rng().dirichlet(np.full(10, 0.3), 60)
    found = ClassEstimator(10, memory=memory, dim=10).update_many(answers)
    weights = request_weights(60, memory)
    assert sum(weights) == pytest.approx(1.0)
    assert found.basin[-1] == pytest.approx(weights @ answers, abs=1e-15)
    each = [1 - exact_entropy(answer) / math.log(10) for answer in answers]
    assert found.phi[-1] == pytest.approx(np.dot(weights, each), abs=1e-14)
    assert found.kappa[-1] == pytest.approx(math.exp(exact_entropy(found.basin[-1])), rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_requests_one_by_one_to_the_bit(kind):
    estimator, requests = fresh(kind, memory=9)
    other, parts = fresh(kind, memory=9)[0], fresh(kind, memory=9)[0]
    whole = estimator.update_many(requests)
    singly = [other.update(request) for request in requests]
    apart = [parts.update_many(requests[i : i + 13]) for i in range(0, 60, 13)]
    for field in ("phi", "kappa", "basin"):
        expected = getattr(whole, field)
        assert np.array_equal(expected, [getattr(each, field) for each in singly])
        assert np.array_equal(expected, np.concatenate([getattr(each, field) for each in apart]))


@pytest.mark.parametrize("kind", KINDS)
def test_basins_keep_their_mass_and_figures_their_range(kind):
    estimator, requests = fresh(kind, memory=20)
    for _ in range(50):
        found = estimator.update_many(requests)
        assert found.basin.sum(axis=1) == pytest.approx(1.0, abs=1e-14)
        assert (found.basin >= 0.0).all()
        assert ((found.phi >= 0.0) & (found.phi <= 1.0)).all()
        assert ((found.kappa >= 1.0) & (found.kappa <= max(estimator.dim, 8) + 1e-12)).all()


def test_shares_that_nobody_asks_for_any_more_do_not_end_as_denormal_numbers():
    estimator = EventEstimator(("a", "b"), memory=3, dim=8)
    estimator.update("a")
    for _ in range(2000):
        basin = estimator.update("b").basin
    assert basin.tolist() == [0.0, 1.0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_ready_after_as_many_requests_as_the_averages_reach_back(kind):
    estimator, requests = fresh(kind, memory=5)
    seen = []
    for request in requests[:6]:
        seen.append(estimator.ready)
        estimator.update(request)
    assert seen == [False] * 5 + [True]
    assert estimator.count == 6


def test_a_reading_is_nobodys_but_the_callers():
    estimator, requests = fresh("class")
    first = estimator.update(requests[0]).basin
    kept = first.copy()
    first[:] = 7.0
    assert estimator.update(requests[0]).basin == pytest.approx(kept)


# --- events -----------------------------------------------------------------------------------------


@given(st.text(), st.integers(0, 2**64 - 1), st.integers(2, 70))
def test_a_category_goes_where_its_hash_says(text, seed, dim):
    assert hashed_bin(text, seed, dim) == bin_of_text(text, seed, dim)


def test_hashes_are_the_same_in_every_process():
    here = [hashed_bin(word, 3, 64) for word in WORDS]
    code = f"from qigcore._estimators import hashed_bin; print([hashed_bin(w, 3, 64) for w in {WORDS!r}])"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
        )
        assert done.stdout.strip() == str(here)
    assert here == [44, 37, 23, 31, 40, 3, 17, 36]


def test_hashed_categories_spread_evenly():
    counts = np.bincount([hashed_bin(f"user-{i}", 0, 64) for i in range(64_000)], minlength=64)
    # Σ (n − 1000)²/1000 is χ² with 63 degrees of freedom: 99.99 % lie below 112.
    assert float(((counts - 1000.0) ** 2).sum() / 1000.0) < 112.0


def test_a_vocabulary_has_bins_of_its_own_and_one_for_the_rest():
    estimator = EventEstimator(("200", "404", "500"), memory=1)
    assert [int(np.argmax(estimator.update(each).basin)) for each in ("200", "500", "418", "")] == [
        0,
        2,
        63,
        63,
    ]
    wide = EventEstimator([f"route {i}" for i in range(630)], memory=1)
    hit = np.bincount([int(np.argmax(wide.update(f"route {i}").basin)) for i in range(630)], minlength=64)
    assert hit.tolist() == [10] * 63 + [0]


def test_events_are_a_histogram_of_the_stated_weights():
    estimator, events = fresh("event", memory=20)
    found = estimator.update_many(events)
    histogram = np.zeros(64)
    for weight, event in zip(request_weights(60, 20), events, strict=True):
        histogram[bin_of_text(event, 0, 64)] += weight
    assert found.basin[-1] == pytest.approx(histogram, abs=1e-15)
    assert found.phi[-1] == pytest.approx(1 - math.log(found.kappa[-1]) / math.log(64), abs=1e-14)


@pytest.mark.parametrize(
    ("vocabulary", "said"),
    [("abc", "one text"), ((), "at least one"), (("a", "a"), "different"), ((1, 2), "as text")],
)
def test_a_vocabulary_that_is_none_is_refused(vocabulary, said):
    with pytest.raises(ValueError, match=said):
        EventEstimator(vocabulary)


# --- what cannot be used ----------------------------------------------------------------------------

BAD = {
    "class": [
        *NOT_BASINS,
        np.full(10, np.nan),
        np.zeros(10),
        -np.eye(10)[0],
        np.full(10, np.inf),
        np.ones(11),
        np.ones((1, 10)),
    ],
    "logits": [*NOT_BASINS, np.full(100, np.nan), np.full(100, -np.inf), np.full(100, np.inf), np.ones(99)],
    "state": [
        *NOT_BASINS,
        np.full(8, np.nan),
        np.zeros(8),
        np.full(8, 1e101),
        np.ones(7),
        np.ma.masked_array(np.ones(8), [1] + [0] * 7),
    ],
    "event": [None, 200, b"GET", 1.5, np.str_("GET"), ["GET"], "\ud800", object()],
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_leaves_the_averages_alone(kind):
    estimator, requests = fresh(kind)
    twin, _ = fresh(kind)
    strict, _ = fresh(kind, on_invalid="raise")
    for each in (estimator, twin, strict):
        each.update(requests[0])
    for bad in BAD[kind]:
        phi, kappa, basin = estimator.update(bad)
        assert math.isnan(phi)
        assert math.isnan(kappa)
        assert np.isnan(basin).all()
        assert basin.shape == (estimator.dim,)
        with pytest.raises(InvalidBasin) as caught:
            strict.update(bad)
        assert len(str(caught.value)) < 250
        assert "expected" in str(caught.value)
    assert estimator.skipped == strict.skipped == len(BAD[kind])
    assert estimator.count == 1
    expected = twin.update_many(requests[1:])
    for each in (estimator, strict):
        found = each.update_many(requests[1:])
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("odd", range(len(NOT_BASINS)))
def test_what_is_no_basin_is_no_answer(odd):
    estimator = ClassEstimator(4, on_invalid="raise")
    with pytest.raises(InvalidBasin):
        estimator.update(NOT_BASINS[odd])
    assert (estimator.count, estimator.skipped) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_monitor_flags_what_could_not_be_used(kind):
    estimator, requests = fresh(kind)
    monitor = GeometricHealthMonitor(code_hash="", module_name=estimator.identity)
    monitor.record(*estimator.update(requests[0]), 0.0, 5.0, 100.0)
    monitor.record(*estimator.update(None), 0.0, 5.0, 100.0)
    good, bad = monitor.snapshots
    assert good.repaired == ()
    assert set(bad.repaired) == {"phi", "kappa_eff", "basin_coords"}
    assert good.module_name == estimator.identity


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ClassEstimator(1), "classes: expected 2"),
        (lambda: ClassEstimator(10, memory=0), "memory: expected 1"),
        (lambda: ClassEstimator(10, memory=9.5), "memory: expected a whole number"),
        (lambda: ClassEstimator(np.int64(10)), "classes: expected a whole number"),
        (lambda: StateEstimator(129), "components: expected 2 to 128"),
        (lambda: ClassEstimator(10, dim=1), "dim: expected 2"),
        (lambda: ClassEstimator(10, seed=-1), "seed: expected 0"),
        (lambda: ClassEstimator(10, inputs="scores"), "'logits', got 'scores'"),
        (lambda: ClassEstimator(10, on_invalid="repair"), "'raise', got 'repair'"),
        (lambda: EventEstimator(dim=0), "dim: expected 2"),
        (lambda: StateEstimator(1), "components: expected 2"),
        (lambda: StateEstimator(8, refresh=0), "refresh: expected 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_any_array_like_reads_the_same():
    p = np.round(rng().dirichlet(np.ones(10)) * 1000)
    expected = ClassEstimator(10).update(p)
    wide = np.zeros((10, 3))
    wide[:, 1] = p
    for other in (p.tolist(), p.astype("f4"), p.astype(">f8"), p.astype("i8"), wide[:, 1], p[::-1][::-1]):
        found = ClassEstimator(10).update(other)
        assert found[:2] == expected[:2]
        assert np.array_equal(found.basin, expected.basin)


def test_threads_lose_no_request():
    estimator, requests = fresh("class")
    workers = [threading.Thread(target=estimator.update_many, args=(list(requests) * 50,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert estimator.count == 4 * 50 * 60
    assert estimator.update(requests[0]).basin.sum() == pytest.approx(1.0, abs=1e-14)
