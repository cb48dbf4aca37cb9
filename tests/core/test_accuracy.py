"""Distances beside 60 digits, on each instruction set, by every way to the same distance."""

import hashlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from qigcore import _geometry, geometry
from qigcore.errors import InvalidBasin
from qigcore.recorder import Recorder
from tests.reference import exact_distance

GEOMETRIES = ("simplex", "sphere")
DIMS = (2, 3, 64, 65, 1000)
PI = math.pi
# The ends, the places where the formula changes (π/3, 2π/3) from both sides, and between.
ANGLES = [
    0.0,
    1e-16,
    1e-12,
    1e-8,
    1e-4,
    0.1,
    1.0,
    PI / 3 - 1e-9,
    PI / 3 + 1e-9,
    PI / 2,
    2.0,
    2 * PI / 3 - 1e-9,
]
ANGLES += [2 * PI / 3 + 1e-9, 2.5, 3.0, PI - 1e-4, PI - 1e-8, PI - 1e-12, PI]


def at_angle(kind, dim, angle, rng):
    """Two states about `angle` apart, at scales of their own; how far exactly, their 60 digits say."""
    if kind == "sphere":
        a, b = rng.normal(size=(2, dim))
        a /= np.linalg.norm(a)
        b -= b @ a * a
        q = math.cos(angle) * a + math.sin(angle) / np.linalg.norm(b) * b
        return 7.3 * a, 1e-5 * q
    left = np.arange(dim) < (dim + 1) // 2
    weights = rng.dirichlet(np.ones(dim))
    p, other = (np.where(side, weights, 0.0) / weights[side].sum() for side in (left, ~left))
    return 7.3 * p, 1e-5 * (math.cos(angle / 2) * np.sqrt(p) + math.sin(angle / 2) * np.sqrt(other)) ** 2


def awkward(kind, dim, rng):
    """Pairs of states that have broken formulas: one-hot, disjoint, denormal, huge, equal components, near ones."""
    p, q = rng.dirichlet(np.ones(dim), 2) if kind == "simplex" else rng.normal(size=(2, dim))
    first, last, ones = np.eye(dim)[0], np.eye(dim)[-1], np.ones(dim)
    tiny = np.where(np.arange(dim) % 3 == 0, 1.0, 1e-310 * np.arange(dim))
    pairs = [
        (first, last),
        (first, first),
        (first, ones),
        (first, p),
        (0.7 * ones, q),
        (0.1 * ones, last),
        (tiny, p),
    ]
    pairs += [
        (5e-324 * ones, q),
        (1e-310 * np.abs(p), p),
        (1e308 * (p / np.abs(p).max()), 1e-300 * q),
        (1e-290 * p, 1e290 * q),
    ]
    pairs += [(np.ldexp(p, -1022), q), (p, np.ldexp(np.abs(q), -1060)), (p**20, q**21)]
    pairs += [(p, p * (1 + size * rng.normal(size=dim) / 9)) for size in 10.0 ** np.arange(-16, 0, 3)]
    if kind == "sphere":
        pairs += [(p, -p), (ones, -0.3 * ones), (first, -first), (0.7 * ones, -last)]
        pairs += [(p, -p * (1 + size * rng.normal(size=dim) / 9)) for size in 10.0 ** np.arange(-16, 0, 3)]
    return pairs


def pairs_of(kind, dim):
    rng = np.random.default_rng(dim)
    return [at_angle(kind, dim, angle, rng) for angle in ANGLES] + awkward(kind, dim, rng)


def measured(kind, dim):
    return np.array([geometry.distance(p, q, kind) for p, q in pairs_of(kind, dim)])


# --- beside 60 digits -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("dim", DIMS)
def test_distance_is_within_2e_15_of_sixty_digits(kind, dim):
    # What broke: arccos of a dot product is off by 1e-8 near 0; one running sum loses digits over many terms.
    exact = [exact_distance(p, q, kind) for p, q in pairs_of(kind, dim)]
    assert np.abs(measured(kind, dim) - exact).max() <= 2e-15
    if dim > 2:  # the sweep does cover the range
        assert max(np.diff(sorted(exact))) < 1.0


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_the_error_does_not_grow_with_dim(kind):
    # What would break: sums of many equal terms, whose rounding errors all point one way.
    dim = 40_000
    ones, last = np.full(dim, 0.7), np.eye(1, dim, dim - 1)[0]
    stairs = np.where(np.arange(dim) % 2, 0.3, 0.1)
    for p, q in ((ones, last), (ones, stairs), (stairs, last)):
        assert geometry.distance(p, q, kind) == pytest.approx(exact_distance(p, q, kind), rel=0, abs=2e-15)


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("dim", DIMS)
def test_every_way_to_a_distance_gives_the_same_bits(kind, dim):
    pairs = pairs_of(kind, dim)
    rows = np.array([p for p, _ in pairs])
    for q in (pairs[0][1], pairs[-1][1]):
        single = [geometry.distance(row, q, kind) for row in rows]
        assert [geometry.distance(q, row, kind) for row in rows] == single
        assert geometry.distances(rows, q, kind).tolist() == single
        recorder = Recorder(dim, len(rows) + 3, kind)
        recorder.set_reference(q)
        assert [recorder.record(0.5, 1.0, row) for row in rows] == single
        recorder.set_reference(rows[3])
        recorder.set_reference(q)
        assert recorder.heads(len(rows))["basin_drift"].tolist() == single
    matrix = geometry.distance_matrix(rows, kind)
    assert matrix.tolist() == [geometry.distances(rows, row, kind).tolist() for row in rows]
    assert not matrix.diagonal().any()


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_a_row_is_measured_the_same_wherever_it_stands(kind):
    # Rows go through in eights: the rest, and eights with a row of odd scale, take another way.
    rng = np.random.default_rng(5)
    rows = rng.dirichlet(np.ones(64), 53) if kind == "simplex" else rng.normal(size=(53, 64))
    q = rows[20].copy()
    rows[9], rows[30] = 5e-324, 1e308
    rows[11, 3:60] = 0.0
    expected = geometry.distances(rows, q, kind)
    for count in range(1, 53):
        assert np.array_equal(geometry.distances(rows[:count], q, kind), expected[:count])
        assert np.array_equal(geometry.distances(rows[count:], q, kind), expected[count:])
    order = rng.permutation(53)
    assert np.array_equal(geometry.distances(rows[order], q, kind), expected[order])
    for bad in (0, 13, 20, 52):
        with pytest.raises(InvalidBasin, match=rf"^rows\[{bad}\]: expected finite"):
            geometry.distances(np.where(np.arange(53)[:, None] == bad, np.nan, rows), q, kind)


# --- roots ------------------------------------------------------------------------------------------


def roots(weights):
    """Square roots of numbers below 1 as the kernels take them, exactly.

    Beside 2^200, which is alone in its sum, the amplitude of x is √x · 2^-100 without any rounding. The
    numbers stand where AVX2 takes Newton's way: in the second half of each eight but the last.
    """
    rows = np.zeros((-(-len(weights) // 4), 16))
    rows[:, 0] = 2.0**200
    rows[:, 4:8].flat[: len(weights)] = weights
    return np.ldexp(geometry.amplitudes(rows)[:, 4:8].ravel()[: len(weights)], 100)


def hard_roots(most):
    """All x of 53 bits with t² − x·2^b = k for |k| <= `most` and t halfway between two doubles.

    Their roots lie nearer to halfway than any others, within k/2t². By t² = k modulo 2^b, which has four
    solutions for k = 1 modulo 8 and none for other odd k; each bit of b decides between two (Hensel).
    """
    found = []
    for k in range(1 - 8 * (most // 8), most, 8):
        solutions = {1, 3, 5, 7}
        for bits in range(4, 56):
            lifted = {s + half for s in solutions for half in (0, 2 ** (bits - 1))}
            solutions = {s for s in lifted if (s * s - k) % 2**bits == 0}
            if bits < 54:
                continue
            for t in (s + turn * 2**bits for s in solutions for turn in (0, 1)):
                x = (t * t - k) >> bits
                if 2**53 <= t < 2**54 and 2**52 <= x < 2**53:
                    found.append(x * 2.0 ** (bits - 108))
    return np.array(found)


def test_roots_nearest_to_halfway_are_rounded_correctly():
    # What would break: Newton's steps alone miss the last bit of one root in some thousand.
    hard = hard_roots(3000)
    assert len(hard) > 900
    for exponent in (0, -2, -300, -840, -1000):
        weights = np.ldexp(hard, exponent)
        assert np.array_equal(roots(weights), np.sqrt(weights))


def test_roots_of_any_size_are_rounded_correctly():
    rng = np.random.default_rng(3)
    edges = 2.0**-900 * (1 + np.arange(-4, 5) * 2.0**-52)
    for weights in (
        rng.uniform(0.0, 1.0, 100_000),
        np.ldexp(rng.uniform(0.5, 1.0, 100_000), rng.integers(-898, 0, 100_000)),
        np.ldexp(rng.uniform(0.5, 1.0, 10_000), rng.integers(-1074, -880, 10_000)),
        np.concatenate([edges, [0.0, 1.0, -0.0, 5e-324, 2.0**-1022, 3 * 2.0**-1074, 1 - 2.0**-53]]),
    ):
        assert np.array_equal(roots(weights), np.sqrt(weights))


@pytest.mark.parametrize("position", range(64))
def test_one_bad_weight_is_seen_wherever_it_stands(position):
    for bad, said in (
        (-1e-300, "non-negative"),
        (-5e-324, "non-negative"),
        (math.nan, "finite"),
        (math.inf, "finite"),
    ):
        weights = np.full(64, 0.1)
        weights[position] = bad
        with pytest.raises(InvalidBasin, match=rf"^p: expected {said}.* at position {position}"):
            geometry.distance(weights, np.ones(64))


# --- instruction sets -------------------------------------------------------------------------------


def prints():
    """Digests of what every kernel gives on all of the states here, by name."""
    found = {"instructions": _geometry.INSTRUCTIONS}
    for kind in GEOMETRIES:
        for dim in DIMS:
            pairs = pairs_of(kind, dim)
            rows = np.array([p for p, _ in pairs])
            near = rows[: len(ANGLES)]
            for name, values in {
                "distance": measured(kind, dim),
                "distances": geometry.distances(rows, pairs[1][1], kind),
                "distance_matrix": geometry.distance_matrix(rows, kind),
                "amplitudes": geometry.amplitudes(rows, kind),
                "frechet_mean": geometry.frechet_mean(near + np.abs(near).sum(), geometry=kind),
                "frechet_mean of many": geometry.frechet_mean(
                    np.random.default_rng(dim).dirichlet(np.full(dim, 2.0), 300), geometry=kind
                ),
            }.items():
                found[f"{name} {kind} {dim}"] = hashlib.sha256(values.tobytes()).hexdigest()
    return found


@pytest.mark.skipif(_geometry.INSTRUCTIONS == "plain", reason="this processor has one set of instructions")
def test_plain_instructions_give_the_same_bits():
    code = "import json; from tests.core import test_accuracy as t; print(json.dumps(t.prints()))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "QIGHEAL_SIMD": "plain", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(answer.stdout) == {**prints(), "instructions": "plain"}
