import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qigcore import geometry
from qigcore.errors import InvalidBasin, TooLittleData
from tests.reference import exact_distance, gradient_mean

GEOMETRIES = ("simplex", "sphere")


def rng(seed=0):
    return np.random.default_rng(seed)


def states(kind, n, dim=64, seed=0, concentration=1.0):
    if kind == "simplex":
        return rng(seed).dirichlet(np.full(dim, concentration), n)
    return rng(seed).normal(size=(n, dim))


def weights(dim=8, low=0.0):
    element = st.floats(low, 1e6, allow_subnormal=False)
    return hnp.arrays(np.float64, dim, elements=element).filter(lambda w: w.max() > 1e-3)


def vectors(dim=8):
    return hnp.arrays(np.float64, dim, elements=st.floats(-1e6, 1e6)).filter(lambda v: np.abs(v).max() > 1e-3)


def any_states(count):
    """A geometry with `count` of its states."""
    return st.one_of(
        st.tuples(st.just("simplex"), *[weights()] * count),
        st.tuples(st.just("sphere"), *[vectors()] * count),
    )


# --- distance ---------------------------------------------------------------------------------------


def test_known_distances():
    assert geometry.distance([1, 0], [0, 1]) == math.pi
    assert geometry.distance([1, 0], [1, 1]) == pytest.approx(math.pi / 2, abs=1e-15)
    assert geometry.distance([1, 0], [0, 1], "sphere") == pytest.approx(math.pi / 2, abs=1e-15)
    assert geometry.distance([3, 4], [-6, -8], "sphere") == math.pi


@given(any_states(2))
def test_distance_is_symmetric_in_range_and_zero_from_a_state_to_itself(drawn):
    kind, p, q = drawn
    there = geometry.distance(p, q, kind)
    assert there == geometry.distance(q, p, kind)
    assert 0.0 <= there <= math.pi
    assert geometry.distance(p, p, kind) == 0.0


@given(any_states(3))
def test_triangle_inequality(drawn):
    kind, p, q, r = drawn
    direct = geometry.distance(p, r, kind)
    assert direct <= geometry.distance(p, q, kind) + geometry.distance(q, r, kind) + 4e-15


@given(any_states(2), st.integers(-1060, 1000), st.integers(-1060, 1000))
def test_scale_does_not_matter_from_denormal_to_huge(drawn, scale_p, scale_q):
    kind, p, q = drawn
    moved = [np.ldexp(state, scale) for state, scale in ((p, scale_p), (q, scale_q))]
    assume(
        all(
            np.array_equal(np.ldexp(m, -s), o)
            for m, s, o in zip(moved, (scale_p, scale_q), (p, q), strict=True)
        )
    )
    assert geometry.distance(*moved, kind) == pytest.approx(geometry.distance(p, q, kind), rel=0, abs=2e-15)


def test_weights_whose_sum_overflows_are_a_legal_scale():
    huge = np.full(64, 1.7e308)
    assert geometry.distance(huge, np.full(64, 5e-324)) == 0.0
    assert geometry.distance(huge, -huge, "sphere") == math.pi


def test_negative_zero_is_a_weight():
    assert geometry.distance([-0.0, 1.0], [0.0, 2.0]) == 0.0


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_any_array_like_gives_the_distance_of_the_plain_one(kind):
    p, q = np.round(states(kind, 2) * 1000)
    expected = geometry.distance(p, q, kind)
    wide = np.zeros((64, 3))
    wide[:, 1] = q
    unaligned = np.frombuffer(b"\0" + q.tobytes(), np.uint8)[1:].view(np.float64)
    for other in (
        q.tolist(),
        q.astype("f4"),
        q.astype(">f8"),
        q.astype("i8"),
        wide[:, 1],
        unaligned,
        q[::-1][::-1],
    ):
        assert geometry.distance(p, other, kind) == expected
    assert geometry.distances(np.array([q, q])[:, ::-1], p[::-1], kind) == pytest.approx(
        [expected] * 2, abs=2e-15
    )


def test_no_rows_are_no_distances():
    assert geometry.distances(np.empty((0, 4)), np.ones(4)).shape == (0,)
    assert geometry.distance_matrix(np.empty((0, 4))).shape == (0, 0)
    assert geometry.amplitudes(np.empty((0, 4))).shape == (0, 4)


def test_threads_get_the_answers_of_one():
    rows, q = states("simplex", 2000), states("simplex", 1, seed=9)[0]
    expected = geometry.distances(rows, q)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: geometry.distances(rows, q), range(16)):
            assert np.array_equal(found, expected)


def test_refused_states_leave_no_memory_behind():
    bad = np.full(5000, -1.0)

    def refuse():
        for _ in range(50):
            with pytest.raises(InvalidBasin):
                geometry.distance(bad, bad)

    refuse()
    tracemalloc.start()
    refuse()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 50_000


BAD = [
    ([1.0, math.nan], "finite components, got nan at position 1"),
    ([math.inf, 1.0], "finite components, got inf at position 0"),
    ([0.0, 0.0], "other than 0, got zeros only"),
    ([1.0, -1e-300], "non-negative weights, got -1e-300 at position 1; signed states"),
    ([[1.0, 2.0]], r"shape \[dim\], got shape \[1, 2\]"),
    (["0.5", "0.5"], "real numbers, got an array of <U3"),
    ([1j, 0], "real numbers, got an array of complex128"),
    ([True, False], "real numbers, got an array of bool"),
    ([[1.0], [1.0, 2.0]], "array of numbers, got list"),
    (None, "real numbers, got an array of object"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_what_is_no_state_is_refused_by_name(bad, message):
    good = [1.0, 1.0]
    with pytest.raises(InvalidBasin, match=f"^p: expected .*{message}"):
        geometry.distance(bad, good)
    with pytest.raises(InvalidBasin, match=f"^q: expected .*{message}"):
        geometry.distances([good], bad)
    with pytest.raises(InvalidBasin, match=f"^p: expected .*{message}"):
        geometry.geodesic(bad, good, 0.5)
    for function in (geometry.log_map, geometry.exp_map, geometry.contributions):
        with pytest.raises(InvalidBasin, match=f"^p: expected .*{message}"):
            function(bad, good)


def test_no_components_are_no_state():
    with pytest.raises(InvalidBasin, match=r"^p: expected at least one component, got none"):
        geometry.distance([], [])


def test_a_refused_row_is_named():
    rows = np.ones((5, 3))
    rows[3, 2] = np.nan
    for function in (geometry.amplitudes, geometry.distance_matrix, geometry.frechet_mean):
        with pytest.raises(InvalidBasin, match=r"^rows\[3\]: expected finite"):
            function(rows)
    with pytest.raises(InvalidBasin, match=r"^rows\[3\]: expected finite"):
        geometry.distances(rows, np.ones(3))


def test_lengths_must_agree():
    for function in (geometry.distance, geometry.log_map, geometry.contributions):
        with pytest.raises(InvalidBasin, match="p and q: expected as many components in both, got 2 and 3"):
            function([1, 1], [1, 1, 1])
    with pytest.raises(InvalidBasin, match="rows and q"):
        geometry.distances([[1, 1]], [1, 1, 1])


def test_an_unknown_geometry_is_refused_everywhere():
    calls = [
        lambda: geometry.distance([1], [1], "plane"),
        lambda: geometry.amplitudes([1.0], "plane"),
        lambda: geometry.from_amplitudes([1.0], "plane"),
        lambda: geometry.frechet_mean([[1.0]], None, "plane"),
        lambda: geometry.geodesic([1.0], [1.0], 0.5, "plane"),
        lambda: geometry.exp_map([1.0], [0.0], "plane"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected 'simplex' or 'sphere', got 'plane'"):
            call()


# --- amplitudes and paths ---------------------------------------------------------------------------


@given(any_states(1))
def test_amplitudes_are_unit_vectors_and_lead_back(drawn):
    kind, p = drawn
    unit = geometry.amplitudes(p, kind)
    assert np.linalg.norm(unit) == pytest.approx(1.0, abs=4e-16)
    back = geometry.from_amplitudes(unit, kind)
    total = p.sum() if kind == "simplex" else np.linalg.norm(p)
    assert back == pytest.approx(p / total, rel=2e-15, abs=1e-300)
    assert np.array_equal(geometry.amplitudes([p, p], kind), [unit, unit])


@given(any_states(2), st.floats(0, 1))
def test_a_geodesic_divides_the_distance(drawn, t):
    kind, p, q = drawn
    whole = geometry.distance(p, q, kind)
    assume(whole < math.pi - 1e-6)
    unit = geometry.geodesic(p, q, t, kind)
    assert np.linalg.norm(unit) == pytest.approx(1.0, abs=1e-14)
    assert kind == "sphere" or unit.min() >= 0.0
    point = geometry.from_amplitudes(unit, kind)
    assert geometry.distance(p, point, kind) == pytest.approx(t * whole, abs=1e-13)
    assert geometry.distance(point, q, kind) == pytest.approx((1 - t) * whole, abs=1e-13)
    assert np.abs(unit - geometry.geodesic(q, p, 1 - t, kind)).max() < 1e-14


@given(any_states(2))
def test_log_leads_exp_to_the_other_state(drawn):
    kind, p, q = drawn
    whole = geometry.distance(p, q, kind)
    assume(whole < math.pi - 1e-6)
    tangent = geometry.log_map(p, q, kind)
    assert np.linalg.norm(tangent) == pytest.approx(whole, abs=1e-14)
    assert abs(tangent @ geometry.amplitudes(p, kind)) < 1e-14
    assert np.abs(geometry.exp_map(p, tangent, kind) - geometry.amplitudes(q, kind)).max() < 1e-13


@pytest.mark.parametrize("kind", ["simplex", "sphere"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 3.0, 7.0])
def test_log_leads_exp_to_the_same_state_at_another_scale(kind, scale):
    rows = np.random.default_rng(0).uniform(0.1, 1.1, (200, 3))
    for p in rows:
        reached = geometry.exp_map(p, geometry.log_map(p, scale * p, kind), kind)
        assert np.abs(reached - geometry.amplitudes(p, kind)).max() < 2e-15


def test_a_short_vector_that_is_not_tangent_is_refused():
    with pytest.raises(InvalidBasin, match="expected a tangent vector"):
        geometry.exp_map([1.0, 1.0], [1e-12, 1e-12], "sphere")


def test_tiny_steps_keep_their_digits():
    p = states("sphere", 1)[0]
    q = p + 1e-12 * states("sphere", 1, seed=1)[0]
    tangent = geometry.log_map(p, q, "sphere")
    assert np.linalg.norm(tangent) == pytest.approx(exact_distance(p, q, "sphere"), rel=1e-4)
    assert np.array_equal(geometry.exp_map(p, np.zeros(64), "sphere"), geometry.amplitudes(p, "sphere"))
    assert not geometry.log_map(p, p, "sphere").any()


def test_paths_that_do_not_exist_are_refused():
    x = np.array([1.0, 0.0])
    for call in (lambda: geometry.geodesic(x, -x, 0.5, "sphere"), lambda: geometry.log_map(x, -x, "sphere")):
        with pytest.raises(InvalidBasin, match="antipodes"):
            call()
    with pytest.raises(InvalidBasin, match=r"^v: expected a tangent vector at p"):
        geometry.exp_map(x, x)
    with pytest.raises(InvalidBasin, match=r"^v: expected 2 finite components"):
        geometry.exp_map(x, [0.0, math.inf])
    with pytest.raises(InvalidBasin, match=r"^v: expected a way that stays on the simplex.* position 1"):
        geometry.exp_map(x, [0.0, -1.0])
    assert geometry.exp_map(x, [0.0, -1.0], "sphere") == pytest.approx([math.cos(1), -math.sin(1)])
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^t: expected a fraction"):
            geometry.geodesic(x, [1.0, 1.0], t)


# --- means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("concentration", [0.2, 5.0, 500.0])
def test_frechet_mean_is_the_karcher_mean_of_the_naive_twin(kind, concentration):
    rows = states(kind, 12, 6, 3, concentration)
    if kind == "sphere":
        rows = rows / concentration + [3, 0, 0, 0, 0, 0]
    shares = rng(4).uniform(0.1, 5.0, 12)
    units = geometry.amplitudes(rows, kind)
    assert geometry.frechet_mean(rows, shares, kind) == pytest.approx(gradient_mean(units, shares), abs=1e-12)
    equal = geometry.frechet_mean(rows, geometry=kind)
    assert equal == pytest.approx(gradient_mean(units, np.ones(12)), abs=1e-12)
    chordal = units.mean(axis=0) / np.linalg.norm(units.mean(axis=0))
    if concentration == 0.2 and kind == "simplex":
        assert np.abs(equal - chordal).max() > 1e-3  # the shortcut is another point


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_log_maps_at_the_mean_cancel(kind):
    rows = states(kind, 300, 64, concentration=2.0) + (0.5 if kind == "sphere" else 0)
    mean = geometry.from_amplitudes(geometry.frechet_mean(rows, None, kind), kind)
    pull = np.mean([geometry.log_map(mean, row, kind) for row in rows], axis=0)
    assert np.linalg.norm(pull) < 1e-14


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("n", [7, 8, 255, 256, 257, 1003])
def test_a_mean_of_many_has_the_same_bits_however_the_rows_lie(kind, n):
    """Rows are taken in eights and summed by 256: no row is lost or counted twice where these end."""
    rows = states(kind, n, 12, 6, 20.0) + (30.0 if kind == "sphere" else 0.0)
    mean = geometry.frechet_mean(rows, None, kind)
    units = geometry.amplitudes(rows, kind)
    assert mean == pytest.approx(gradient_mean(units, np.ones(n), 40), abs=1e-11)
    for same in (rows.tolist(), np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        assert np.array_equal(geometry.frechet_mean(same, None, kind), mean)
    assert geometry.frechet_mean(rows, np.ones(n), kind) == pytest.approx(mean, abs=1e-15)
    scaled = rows * np.where(np.arange(n) % 9 == 4, 2.0**-1000, 1.0)[:, None]  # through the exact rescaling
    assert np.array_equal(geometry.frechet_mean(scaled, None, kind), mean)


def test_a_mean_names_the_row_that_is_no_state_and_leaves_out_those_of_no_weight():
    rows = states("sphere", 300, 5, 7, 3.0) + 20.0
    for place in (0, 7, 8, 131, 299):
        bad = rows.copy()
        bad[place] = 0.0
        with pytest.raises(InvalidBasin, match=rf"^rows\[{place}\]: expected at least one component other"):
            geometry.frechet_mean(bad, None, "sphere")
    mean = geometry.frechet_mean(rows[1:], None, "sphere")
    opposite = np.vstack([-mean, rows[1:]])
    shares = np.r_[0.0, np.ones(299)]
    assert geometry.frechet_mean(opposite, shares, "sphere") == pytest.approx(mean, abs=1e-15)
    with pytest.raises(InvalidBasin, match="rows: expected an array of numbers, got list"):
        geometry.frechet_mean([[1.0], [1.0, 2.0]])


@given(st.permutations(range(8)), st.integers(0, 5))
def test_a_mean_depends_on_neither_order_nor_on_how_weights_are_spelt(order, seed):
    rows = states("simplex", 8, 5, seed)
    shares = rng(seed).integers(0, 4, 8) + (np.arange(8) == 0)
    expected = geometry.frechet_mean(rows, shares)
    assert geometry.frechet_mean(rows[order], 1e300 * shares[order]) == pytest.approx(expected, abs=1e-13)
    repeated = np.repeat(rows, shares, axis=0)
    assert geometry.frechet_mean(repeated) == pytest.approx(expected, abs=1e-13)


@given(any_states(2))
def test_the_mean_of_two_is_halfway(drawn):
    kind, p, q = drawn
    assume(geometry.distance(p, q, kind) < 3.0)
    middle = geometry.geodesic(p, q, 0.5, kind)
    assert geometry.frechet_mean([p, q], None, kind) == pytest.approx(middle, abs=1e-12)


def test_the_mean_of_one_state_is_itself():
    p = states("simplex", 1)[0]
    assert geometry.frechet_mean([p, 7 * p]) == pytest.approx(geometry.amplitudes(p), abs=1e-15)
    assert geometry.frechet_variance([p, 7 * p]) < 1e-30


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_variance_is_least_at_the_mean(kind):
    rows = states(kind, 30, 6, concentration=3.0) + (2.0 if kind == "sphere" else 0)
    least = geometry.frechet_variance(rows, geometry=kind)
    mean = geometry.frechet_mean(rows, None, kind)
    assert geometry.frechet_variance(rows, mean, kind) == least
    radians = geometry.distances(rows, geometry.from_amplitudes(mean, kind), kind)
    assert least == pytest.approx(np.mean(radians**2), rel=1e-14)
    for seed in range(20):
        other = (
            np.abs(mean + 0.05 * rng(seed).normal(size=6))
            if kind == "simplex"
            else mean + 0.05 * rng(seed).normal(size=6)
        )
        assert (
            geometry.frechet_variance(
                rows, geometry.amplitudes(geometry.from_amplitudes(other, kind), kind), kind
            )
            > least
        )


def test_means_that_do_not_exist_are_refused():
    with pytest.raises(TooLittleData, match="at least one row"):
        geometry.frechet_mean(np.empty((0, 3)))
    with pytest.raises(TooLittleData, match="at least one row"):
        geometry.frechet_variance(np.empty((0, 3)), [1.0, 0.0, 0.0])
    for around in (
        [[1.0, 0.0], [-1.0, 0.0]],
        [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]],
        np.vstack([np.eye(3), -np.eye(3)]),
    ):
        with pytest.raises(InvalidBasin, match="all round it"):
            geometry.frechet_mean(around, None, "sphere")
    with pytest.raises(InvalidBasin, match="shape \\[n, dim\\]"):
        geometry.frechet_mean([1.0, 2.0])
    for bad in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan]):
        with pytest.raises(InvalidBasin, match=r"^weights: expected"):
            geometry.frechet_mean([[1.0, 2.0], [2.0, 1.0]], bad)


# --- contributions ----------------------------------------------------------------------------------


@given(any_states(2))
def test_contributions_are_shares(drawn):
    kind, p, q = drawn
    shares = geometry.contributions(p, q, kind)
    assert shares.min() >= 0.0
    assert np.array_equal(shares, geometry.contributions(q, p, kind))
    if geometry.distance(p, q, kind) > 0.0:
        assert shares.sum() == pytest.approx(1.0, abs=1e-14)
    assert not geometry.contributions(p, p, kind).any()


def test_contributions_name_the_components_that_moved():
    p = states("simplex", 1, concentration=50.0)[0]
    q = p.copy()
    q[7] *= 3.0
    assert int(geometry.contributions(p, q).argmax()) == 7
    assert geometry.contributions([1, 0, 0], [0, 1, 0]) == pytest.approx([0.5, 0.5, 0.0])
