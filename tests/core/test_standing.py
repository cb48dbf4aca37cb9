"""Which segments count where some stand for others: each row once, whatever was met before, whoever names whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qigcore.history.segment import Header
from qigcore.history.standing import Standing


def header(identity: int, *replaces: int) -> Header:
    return Header(identity, 3, "simplex", "exact", "host", 1, 0.0, 0.0, list(replaces))


def read(standing: Standing, *headers: Header) -> set[int]:
    return {each.segment for each in headers} - standing.left(headers)


def test_one_stands_for_those_that_it_names() -> None:
    assert read(Standing(), header(1), header(2), header(9, 1, 2), header(3)) == {9, 3}
    assert read(Standing(), header(9, 1, 2)) == {9}
    assert read(Standing(), header(2), header(9, 1, 2)) == {9}  # the removal of the others was cut short


def test_of_a_chain_the_last_stands_for_all() -> None:
    chain = [header(1), header(8, 1, 2), header(9, 8, 3), header(3), header(2), header(10, 9)]
    assert read(Standing(), *chain) == {10}
    assert read(Standing(), *reversed(chain)) == {10}


def test_who_met_one_of_them_goes_on_with_them() -> None:
    standing = Standing()
    assert read(standing, header(1), header(2)) == {1, 2}
    assert read(standing, header(1), header(2), header(3), header(9, 1, 2, 3)) == {1, 2, 3}
    assert read(standing, header(3), header(9, 1, 2, 3)) == {3}  # the replaced ones are being removed
    assert read(standing, header(9, 1, 2, 3), header(4)) == {4}
    assert read(standing, header(10, 9, 4), header(4)) == {4}
    assert read(standing, header(10, 9, 4), header(5), header(11, 5)) == {11}


def test_who_met_the_one_never_reads_the_others() -> None:
    standing = Standing()
    assert read(standing, header(9, 1, 2)) == {9}
    assert read(standing, header(9, 1, 2), header(1), header(2)) == {9}
    assert read(standing, header(10, 9, 3), header(9, 1, 2), header(3)) == {9, 3}


def test_one_that_was_passed_over_lets_those_below_it_stand() -> None:
    standing = Standing()
    assert read(standing, header(1)) == {1}
    # 20 took over 1 and 9; 9 had taken over 7 and 8, of which nothing was met.
    assert read(standing, header(1), header(7), header(8), header(9, 7, 8), header(20, 1, 9)) == {1, 9}


IDENTITIES = st.integers(1, 6)
HEADERS = st.lists(st.tuples(IDENTITIES, st.lists(IDENTITIES, max_size=4)), max_size=6)


@given(st.lists(HEADERS, max_size=3))
def test_headers_that_name_themselves_or_each_other_end_as_well(
    rounds: list[list[tuple[int, list[int]]]],
) -> None:
    standing = Standing()
    for headers in rounds:
        left = standing.left([header(identity, *replaces) for identity, replaces in headers])
        assert left <= set(range(1, 7))
