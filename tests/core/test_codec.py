"""The codec's loops against their plain twins, and against everything that cannot be a packed column."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from qigcore import _codec, geometry
from tests import reference

Wholes = np.ndarray


@st.composite
def series(draw: st.DrawFn) -> Wholes:
    """Whole numbers [width, n]: noise of any size about any centre, walks, clocks, rare leaps, constants."""
    width, n = draw(st.sampled_from([1, 1, 2, 5, 20])), draw(st.integers(1, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = rng.normal(0, 2.0 ** draw(st.integers(-2, 40)), (width, n)).astype(np.int64)
    kind = draw(st.sampled_from(["noise", "walk", "clock", "leaps", "any"]))
    if kind == "walk":
        numbers = np.cumsum(numbers, axis=1)
    elif kind == "clock":
        numbers += draw(st.integers(-(2**40), 2**40)) * np.arange(n)
    elif kind == "leaps":
        numbers[rng.random((width, n)) < 0.05] = draw(st.sampled_from([2**63 - 1, -(2**63), 2**30, 0]))
    elif kind == "any":
        numbers = rng.integers(-(2**63), 2**63, (width, n))
    return numbers + draw(st.sampled_from([0, 5000, -(2**62), 2**63 - 1]))


@given(series())
@settings(max_examples=150, deadline=None)
def test_numbers_come_back_and_the_plain_reader_agrees(numbers: Wholes) -> None:
    width, n = numbers.shape
    body, planes = _codec.pack(numbers)
    assert _codec.layout(body, n, width) == (len(body), len(planes))
    assert np.array_equal(_codec.unpack(body, planes, n, width), numbers)
    assert reference.unpacked(body, planes, n, width) == numbers.tolist()


def test_numbers_take_about_their_entropy() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(1e6, 300, 1024).astype(np.int64)[None]  # 10.3 bits each
    assert len(_codec.pack(noise)[0]) < 1024 * 11.3 / 8
    assert len(_codec.pack(np.cumsum(noise, axis=1))[0]) < 1024 * 11.3 / 8
    noise[0, ::100] = 2**50
    assert len(_codec.pack(noise)[0]) < 1024 * 12.5 / 8
    body, planes = _codec.pack(np.full((64, 256), 123456))
    assert len(body) < 300
    assert planes == b""


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_floats_are_numbers_of_the_same_order(values: Wholes) -> None:
    numbers, dropped, alike = _codec.ordered(values)
    assert [[reference.ordered(x) >> dropped for x in column] for column in values.T] == numbers.tolist()
    assert _codec.unordered(numbers, dropped).tobytes() == values.tobytes()
    assert alike == (len({x.tobytes() for x in values.flat}) == 1)


def test_bits_that_no_value_has_are_dropped() -> None:
    assert _codec.ordered(np.array([[1.5, 2.0]], np.float32))[1] == 51
    assert _codec.ordered(np.zeros((3, 1)))[1:] == (0, True)
    assert _codec.ordered(np.array([[0.0], [-0.0]]))[1:] == (63, False)


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e10, 1e10)))
def test_times_are_microseconds_or_none(times: Wholes) -> None:
    whole = np.array([round(t * 1e6) / 1e6 for t in times.tolist()]) + 0.0
    numbers = _codec.micros(whole)
    if np.abs(whole).max() < 2**33:
        assert numbers.tolist() == [[round(t * 1e6) for t in whole.tolist()]]
        assert _codec.seconds(numbers).tobytes() == whole.tobytes()
    else:
        assert numbers is None
    if whole.tobytes() != times.tobytes():
        assert _codec.micros(times) is None


@st.composite
def basins(draw: st.DrawFn) -> tuple[Wholes, str]:
    """States [n, dim] of every shape, from one component to 300, at every scale that floats have."""
    kind = draw(st.sampled_from(["simplex", "sphere"]))
    n, dim = draw(st.integers(1, 20)), draw(st.integers(1, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["dirichlet", "one-hot", "still", "ramp"]))
    if shape == "dirichlet":
        states = rng.gamma(10.0 ** draw(st.integers(-3, 4)), 1.0, (n, dim)) + 1e-300
    elif shape == "one-hot":
        states = np.eye(dim)[rng.integers(0, dim, n)] + draw(st.sampled_from([0.0, 1e-12, 1e-9, 5e-5]))
    elif shape == "still":
        states = rng.random(dim) + rng.random((n, dim)) * 1e-5 + 1e-3
    else:
        states = 1.001 ** np.arange(dim) + np.zeros((n, 1))
    states = states / states.max() * draw(st.sampled_from([1.0, 1e-300, 1e300, 1e-320, 2.0**-1070]))
    if kind == "sphere":
        states = states * rng.choice([-1.0, 1.0], (n, dim))
    return states, kind


@given(basins())
@settings(max_examples=150, deadline=None)
def test_quantised_states_lie_within_their_bound(drawn: tuple[Wholes, str]) -> None:
    states, kind = drawn
    numbers = _codec.quantised(states, kind)
    if not states.any(axis=1).all():
        assert numbers is None
        return
    kept = _codec.states(numbers, kind)
    for row, (before, after) in enumerate(zip(states, kept, strict=True)):
        assert geometry.distance(before, after, kind) <= 1e-4
        assert after.tolist() == reference.state([int(q) for q in numbers[:, row]], kind)
        assert sum(int(q) ** 2 for q in numbers[:, row]) < 2**53  # so that any order of adding is exact


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [1.0, np.inf], [-1.0, 2.0]])
def test_what_is_no_state_is_not_quantised(bad: list[float]) -> None:
    matrix = np.array([[1.0, 2.0], bad, [2.0, 1.0]])
    assert _codec.quantised(matrix, "simplex") is None
    assert (_codec.quantised(matrix, "sphere") is None) == (bad[0] >= 0 or bad[0] != bad[0])


def test_a_state_without_weight_is_refused() -> None:
    for kind in ("simplex", "sphere"):
        with pytest.raises(ValueError, match="without weight"):
            _codec.states(np.array([[3, 0], [1, 0]]), kind)
        assert np.isfinite(_codec.states(np.full((3, 2), -(2**63)), kind)).all()


def test_arguments_that_are_no_numbers() -> None:
    for wrong in (np.zeros((2, 2)), np.zeros(2, np.int64), np.zeros((4, 4), np.int64)[::2]):
        for function in (_codec.pack, _codec.seconds):
            with pytest.raises(ValueError, match="expected a contiguous int64 array"):
                function(wrong)
    with pytest.raises(ValueError, match="expected numbers"):
        _codec.pack(np.zeros((0, 3), np.int64))
    with pytest.raises(ValueError, match="expected an array"):
        _codec.ordered(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="0 to 63"):
        _codec.unordered(np.zeros((1, 1), np.int64), 64)
    with pytest.raises(ValueError, match="geometry"):
        _codec.quantised(np.ones((1, 1)), "plane")
    for call in (lambda: _codec.layout(b"", 0, 1), lambda: _codec.unpack(b"", b"", 1, -1)):
        with pytest.raises(ValueError, match="above 0"):
            call()


@given(
    series(),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4),
    st.integers(-20, 20),
    st.sampled_from([(0, 0), (1, 0), (0, 1), (0, 10_000), (2**40, 0), (0, 2**60)]),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_numbers_or_an_error(
    numbers: Wholes, edits: list[tuple[int, int]], longer: int, claim: tuple[int, int]
) -> None:
    body, planes = _codec.pack(numbers)
    width, n = numbers.shape[0] + claim[0], numbers.shape[1] + claim[1]
    data = bytearray(body)
    for place, value in edits:
        data[place % len(data)] = value
    data = data[:longer] if longer < 0 else data + bytes(longer)
    with contextlib.suppress(ValueError):
        end, size = _codec.layout(bytes(data), n, width)
        assert 0 <= end <= len(data)
        assert _codec.unpack(bytes(data), bytes(size), n, width).shape == (width, n)
    with contextlib.suppress(ValueError):
        assert _codec.unpack(bytes(data), planes, n, width).shape == (width, n)


EXAMPLES = [
    ("00 03 00 00 04 00 0e 43 08", "", [[5, 7, 6, 9]]),
    ("01 04 00 00 0b 0b d0 07 da 07 40 03", "", [[1000, 2007, 3010]]),
    ("90 02 00 00 08 00 c8 00 00 a0 aa 01 00 00 00 0c 09 92 09", "", [[100] * 9 + [5000] + [101] * 6]),
    (
        "10 00 03 00 0b 00 20 50 80 3e 87 87 f3 40",
        "00 02 01 08 05 00 06 03 0c 0c 25 25 06 18 00 01",
        [[40, 41, 39, 44, 37, 40, 43, 38], [900, 1100, 700, 1300, 950, 800, 1000, 1010]],
    ),
]


@pytest.mark.parametrize(("body", "planes", "numbers"), EXAMPLES)
def test_the_examples_of_the_format_are_read_as_it_says(
    body: str, planes: str, numbers: list[list[int]]
) -> None:
    packed = bytes.fromhex(body), bytes.fromhex(planes)
    assert _codec.unpack(*packed, len(numbers[0]), len(numbers)).tolist() == numbers
    assert reference.unpacked(*packed, len(numbers[0]), len(numbers)) == numbers
