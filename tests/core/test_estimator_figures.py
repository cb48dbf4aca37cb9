"""Φ and κ of a distribution and of a covariance, and the state estimator that streams one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qigcore.errors import InvalidBasin
from qigcore.estimators import (
    StateEstimator,
    concentration,
    effective_states,
    shrunk_correlation,
    total_correlation,
)
from tests.reference import exact_entropy, request_weights, unexplained


def rng(seed=0):
    return np.random.default_rng(seed)


def equal_correlation(n, r):
    return np.full((n, n), r) + (1.0 - r) * np.eye(n)


def correlations(n=5):
    """Correlation matrices of random loadings, none of them singular."""
    loadings = hnp.arrays(np.float64, (n, n), elements=st.floats(-2, 2))
    covariances = loadings.map(lambda a: a @ a.T + 0.05 * np.eye(n))
    return covariances.map(lambda c: c / np.sqrt(np.outer(np.diag(c), np.diag(c))))


# --- of a distribution ------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float64, 7, elements=st.floats(0, 1e6, allow_subnormal=False)).filter(
        lambda w: w.max() > 1e-3
    )
)
def test_figures_of_a_distribution(weights):
    entropy = exact_entropy(weights)
    assert concentration(weights) == pytest.approx(1 - entropy / math.log(7), abs=4e-15)
    assert effective_states(weights) == pytest.approx(math.exp(entropy), rel=4e-15)
    assert 0.0 <= concentration(weights) <= 1.0
    assert 1.0 <= effective_states(weights) <= 7.0


@given(st.integers(2, 500), st.integers(-1060, 1000))
def test_equal_states_count_as_many_as_there_are(n, exponent):
    weights = np.full(n, math.ldexp(1.0, exponent))
    assert effective_states(weights) == pytest.approx(n, rel=1e-13)
    assert concentration(weights) == pytest.approx(0.0, abs=1e-13)
    assert concentration([*weights, 0.0]) > 0.0


@pytest.mark.parametrize(
    "weights", [[], [1.0], [[0.5, 0.5]], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan], ["a", "b"]]
)
def test_what_is_no_distribution_is_refused(weights):
    with pytest.raises(InvalidBasin, match="expected"):
        concentration(weights)


# --- of a correlation matrix ------------------------------------------------------------------------


@given(correlations())
def test_total_correlation_is_what_the_components_explain_of_one_another(matrix):
    phi, kappa = total_correlation(matrix)
    assert phi == pytest.approx(1.0 - unexplained(matrix), abs=1e-9)
    assert 0.0 <= phi <= 1.0
    assert 1.0 <= kappa <= 5.0


@given(st.floats(-0.999, 0.999))
def test_two_components_have_the_square_of_their_correlation(r):
    assert total_correlation([[1.0, r], [r, 1.0]])[0] == pytest.approx(r * r, abs=1e-12)


@given(correlations(), st.permutations(range(5)))
def test_the_order_of_components_does_not_matter(matrix, order):
    assert total_correlation(matrix[np.ix_(order, order)]) == pytest.approx(
        total_correlation(matrix), abs=1e-9
    )


def test_ends_of_the_range():
    assert total_correlation(np.eye(64)) == pytest.approx((0.0, 64.0), abs=1e-12)
    phi, kappa = total_correlation(np.ones((64, 64)))
    assert phi == pytest.approx(1.0, abs=1e-10)
    assert kappa == pytest.approx(1.0, abs=1e-10)
    assert total_correlation(np.ones((1, 1))) == (0.0, 1.0)


@given(st.floats(0.0, 0.98), st.floats(0.001, 0.01))
def test_phi_rises_with_a_common_cause(r, more):
    assert (
        total_correlation(equal_correlation(6, r + more))[0] > total_correlation(equal_correlation(6, r))[0]
    )


@given(correlations(), hnp.arrays(np.float64, 5, elements=st.floats(1e-3, 1e3)))
def test_the_unit_of_a_component_does_not_matter(matrix, units):
    scaled = matrix * np.outer(units, units)
    one, other = shrunk_correlation(matrix, 100.0), shrunk_correlation(scaled, 100.0)
    assert one.matrix == pytest.approx(other.matrix, abs=1e-12)
    assert one.shrinkage == pytest.approx(other.shrinkage, abs=1e-12)


@given(correlations(), st.floats(1.0, 1e6), st.floats(1.01, 100))
def test_more_samples_shrink_less(matrix, samples, factor):
    few, many = (shrunk_correlation(matrix, n) for n in (samples, samples * factor))
    assert 0.0 <= many.shrinkage <= few.shrinkage <= 1.0
    assert total_correlation(few.matrix)[0] <= total_correlation(many.matrix)[0] + 1e-12


def test_noise_is_taken_for_noise():
    # Without shrinkage, 100 samples of 64 independent components have a Φ of 0.35.
    matrix = np.cov(rng().normal(size=(100, 64)), rowvar=False)
    raw = matrix / np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
    assert total_correlation(raw)[0] > 0.3
    shrunk = shrunk_correlation(matrix, 100.0)
    assert shrunk.shrinkage > 0.9
    assert total_correlation(shrunk.matrix)[0] < 0.01


def test_constant_components_are_left_out():
    covariance = np.diag([1.0, 0.0, 2.0])
    covariance[0, 2] = covariance[2, 0] = 0.7
    assert shrunk_correlation(covariance, 1e9).matrix == pytest.approx(
        equal_correlation(2, 0.7 / math.sqrt(2))
    )
    assert shrunk_correlation(np.diag([1.0, 1e-30]), 100.0, mean=[0.0, 1.0]).matrix.shape == (1, 1)
    assert shrunk_correlation(np.zeros((3, 3)), 100.0).matrix.shape == (0, 0)


@pytest.mark.parametrize("covariance", [np.ones(3), np.ones((2, 3)), np.full((2, 2), np.nan), -np.eye(2)])
def test_what_is_no_covariance_is_refused(covariance):
    with pytest.raises(ValueError, match="covariance: expected"):
        shrunk_correlation(covariance, 10.0)


# --- streamed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [10, 40, 1000])
def test_a_streamed_covariance_is_that_of_the_weights(memory):
    states = rng().normal(3.0, 1.0, (60, 5)) @ rng(1).normal(size=(5, 5)) + 100.0
    estimator = StateEstimator(5, memory=memory, refresh=60)
    last = estimator.update_many(states)
    weights = np.array(request_weights(60, memory))
    mean = weights @ states
    centred = states - mean
    covariance = (weights[:, None] * centred).T @ centred
    samples = 1.0 / float(weights @ weights)
    expected = total_correlation(shrunk_correlation(covariance, samples, mean=mean).matrix)
    assert (last.phi[-1], last.kappa[-1]) == pytest.approx(expected, rel=1e-9)
    shares = states**2 / (states**2).sum(axis=1, keepdims=True)
    assert last.basin[-1][:5] == pytest.approx(weights @ shares, abs=1e-14)


def test_an_offset_of_a_million_sds_changes_nothing():
    # Covariances as differences of raw moments would lose twelve digits here.
    states = rng().normal(size=(500, 4)) @ rng(1).normal(size=(4, 4))
    near, far = (
        StateEstimator(4, memory=100, refresh=500).update_many(states + offset) for offset in (0.0, 1e6)
    )
    assert far.phi[-1] == pytest.approx(near.phi[-1], abs=1e-7)


def test_figures_are_renewed_as_often_as_stated():
    found = StateEstimator(4, memory=50, refresh=20).update_many(rng().normal(size=(100, 4)))
    changed = 2 + np.flatnonzero(np.diff(found.kappa))
    assert set(changed) <= {20, 40, 60, 80, 100}
    assert found.phi[0] == 0.0
    assert 1.0 <= found.kappa[0] <= 4.0


def test_a_common_cause_that_appears_raises_phi_and_lowers_kappa():
    estimator = StateEstimator(16, memory=300, refresh=1)
    apart = rng().normal(size=(1500, 16))
    together = apart + 2.0 * rng(1).normal(size=(1500, 1))
    before, after = estimator.update_many(apart), estimator.update_many(together)
    assert before.phi[-1] < 0.05
    assert before.kappa[-1] > 14.0
    assert after.phi[-1] > 0.6
    assert after.kappa[-1] < 8.0


@given(hnp.arrays(np.float64, (12, 3), elements=st.floats(-1e100, 1e100)))
def test_states_of_any_size_give_figures_in_range(states):
    found = StateEstimator(3, memory=4, refresh=1).update_many(states[np.abs(states).max(axis=1) > 0.0])
    assert ((found.phi >= 0.0) & (found.phi <= 1.0)).all()
    assert ((found.kappa >= 1.0) & (found.kappa <= 3.0 + 1e-12)).all()
    assert found.basin.sum(axis=1) == pytest.approx(1.0, abs=1e-14)
