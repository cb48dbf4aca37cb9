"""The loops that a baseline is learned with: beside exact sums and LAPACK, and the same bits however they run."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore._detectors import gram, lagged, squared_pairs, whiten, whitener_of
from qigcore.calibration import whitening
from qigcore.calibration.medians import median
from tests import reference

EPS = 2.0**-52


def crooked(n: int, k: int, seed: int = 0) -> Any:
    """Rows far from 0 whose columns differ in scale by 1e6."""
    rng = np.random.default_rng(seed)
    return 1e3 + rng.normal(size=(n, k)) * np.logspace(-3, 3, k)


def spread_out(k: int, condition: float, seed: int = 0) -> Any:
    """A covariance [k, k] with eigenvalues from 1 down to 1/condition."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(k, k)))[0]
    made = (basis * np.logspace(0.0, -np.log10(condition), k)) @ basis.T
    return (made + made.T) / 2.0


# --- products over a window -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 1), (5, 8), (127, 9), (128, 7), (129, 16), (300, 13)])
def test_a_gram_matrix_is_the_exact_one(n: int, k: int) -> None:
    rows = crooked(n, k)
    mean = rows.mean(axis=0) if n else np.zeros(k)
    found, size = gram(rows, mean), reference.exact_gram(np.abs(rows - mean), np.zeros(k))
    # Two roundings of each term's factors and product, and at most 128 + n/128 additions of positive sizes.
    assert (np.abs(found - reference.exact_gram(rows, mean)) <= (131 + n / 128) * EPS / 2 * size).all()
    assert found.tobytes() == found.T.tobytes()
    assert gram(rows - mean).tobytes() == found.tobytes()


@given(st.integers(0, 200), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_place_of_a_column_does_not_show_in_the_bits(n: int, k: int, random: Any) -> None:
    rows, order = crooked(n, k, n), np.array(random.sample(range(k), k))
    assert gram(rows[:, order]).tobytes() == gram(rows)[np.ix_(order, order)].tobytes()
    # Nor what is beside it: a tile at the edge is as any other.
    assert gram(rows[:, : k // 2]).tobytes() == gram(rows)[: k // 2, : k // 2].tobytes()


@pytest.mark.parametrize("k", [1, 2, 7, 8, 21])
def test_squared_pairs_are_the_sums_of_their_terms(k: int) -> None:
    rows = crooked(40, k)
    mean, inverse = rows.mean(axis=0), 1.0 / rows.std(axis=0)
    assert squared_pairs(rows, mean, inverse) == pytest.approx(
        reference.squared_pairs(rows, mean, inverse), rel=1e-14
    )


def test_squared_pairs_do_not_cancel_beside_a_large_component() -> None:
    # What broke elsewhere: (Σ s²)² − Σ s⁴ is 0 here, the small terms being lost in 1e32.
    rows = np.array([[1e8, 1e-4, 2e-4]])
    assert squared_pairs(rows, np.zeros(3), np.ones(3)) == pytest.approx(5e8, rel=1e-14)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_lagged_products_are_the_sums_of_their_terms(n: int) -> None:
    rows = crooked(n, 11)
    before, after = np.full(11, 1e3), np.linspace(999.0, 1001.0, 11)
    expected = [reference.lagged(rows[:, i].tolist(), before[i], after[i]) for i in range(11)]
    lag, power = lagged(rows, before, after)
    size = np.abs(rows - after).max(initial=1.0) ** 2 * 50
    assert np.abs(lag - [each for each, _ in expected]).max() <= 50 * EPS * size
    assert power == pytest.approx([each for _, each in expected], rel=1e-14)


# --- factors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 64, 256])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_a_whitener_makes_its_covariance_the_identity(k: int, condition: float) -> None:
    covariance = spread_out(k, condition)
    found = whitener_of(covariance)
    assert not np.triu(found, 1).any()
    assert np.abs(found @ covariance @ found.T - np.eye(k)).max() <= 4 * k * EPS * condition
    expected = np.linalg.inv(np.linalg.cholesky(covariance))
    assert np.abs(found - expected).max() <= 4 * k * EPS * condition * np.abs(expected).max()


def test_a_whitener_reads_one_triangle() -> None:
    covariance = spread_out(9, 100.0)
    assert whitener_of(np.tril(covariance)).tobytes() == whitener_of(covariance).tobytes()


@pytest.mark.parametrize("at", [0, 3, 8])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_what_is_not_positive_definite_is_refused(at: int, value: float) -> None:
    covariance = np.eye(9)
    covariance[at, at] = value
    with pytest.raises(ValueError, match=rf"positive definite matrix, got one whose first {at + 1} rows"):
        whitener_of(covariance)


@pytest.mark.parametrize("k", [1, 5, 16, 17, 64])
def test_rows_are_whitened(k: int) -> None:
    rows, mean = crooked(30, k), np.full(k, 1e3)
    matrix = whitener_of(spread_out(k, 100.0))
    found = whiten(rows, mean, matrix)
    size = np.abs(rows - mean) @ np.abs(matrix).T
    assert (np.abs(found - (rows - mean) @ matrix.T) <= (k + 2) * EPS * size).all()
    inside = rows.copy()
    assert whiten(inside, mean, matrix, inside) is not None
    assert inside.tobytes() == found.tobytes()
    assert np.isnan(whiten(np.full((1, k), np.nan), None, matrix)).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    rows, two = np.zeros((4, 3)), np.zeros(2)
    for call in (
        lambda: gram(two),
        lambda: gram(rows, two),
        lambda: squared_pairs(rows, two, np.zeros(3)),
        lambda: squared_pairs(rows, np.zeros(3), two),
        lambda: lagged(rows, np.zeros(3), two),
        lambda: lagged(rows, two, np.zeros(3)),
        lambda: whitener_of(rows),
        lambda: whiten(rows, two, np.eye(3)),
        lambda: whiten(rows, None, np.eye(4)),
        lambda: whiten(rows, None, np.eye(3), np.zeros((3, 3))),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


# --- what is learned ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(100, 5), (203, 64), (1000, 20)])
def test_each_fold_is_whitened_by_the_others(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(n, k)) @ rng.normal(size=(k, k)) / 50.0 + np.linspace(-1.0, 1.0, n)[:, None]
    center = rng.normal(size=k)
    matrix, found = whitening.rounded(rows, center, 1e-3)
    assert matrix == pytest.approx(whitening.whitener(rows, center, 1e-3), rel=1e-9, abs=1e-9)
    made = []
    for fold in np.array_split(np.arange(n), whitening.FOLDS):
        others = whitening.whitener(np.delete(rows, fold, axis=0), center, 1e-3)
        made.append((rows[fold] - rows.mean(axis=0)) @ others.T)
    expected = np.concatenate(made)
    expected -= expected.mean(axis=0)
    assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max()


@given(st.lists(st.lists(st.floats(allow_nan=True, width=32), min_size=2, max_size=2), max_size=12))
def test_medians_are_numpys(rows: list[list[float]]) -> None:
    values = np.array(rows).reshape(-1, 2)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's of an empty slice
        expected = np.median(values, axis=0)
        assert np.array_equal(median(values), expected, equal_nan=True)


LEARN = """
import hashlib, sys
import msgspec, numpy as np
from qigcore.baseline import Baseline
from tests.core.healthy import batch
made = [Baseline.learn(batch(n, 3), created=0.0) for n in (300, 2000)]
print(hashlib.sha256(msgspec.json.encode(made)).hexdigest(), "numpy.ma" in sys.modules)
"""


def test_what_is_learned_depends_on_no_threads_and_no_instruction_set() -> None:
    found = []
    for changed in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}, {"QIGHEAL_SIMD": "plain"}):
        environment = {**os.environ, **changed, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", LEARN], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert len(set(found)) == 1
    assert found[0].split()[1] == "False"  # a megabyte that the serving process would keep
