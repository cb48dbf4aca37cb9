"""Never more than the limit in any stretch of time, and nothing lost silently."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qigheal.alerts.limiting import admit, release
from qigheal.alerts.records import Alert, Limit
from qigheal.alerts.words import said

ALERT = Alert(key="k", kind="degraded", subject="service", severity="warning", title="t", at=0.0, service="s")


@given(
    st.lists(st.tuples(st.floats(0.0, 50.0), st.booleans()), max_size=80),
    st.integers(1, 5),
    st.floats(1.0, 100.0),
)
def test_no_stretch_has_more_and_each_is_told_or_counted(
    steps: list[tuple[float, bool]], most: int, within_s: float
) -> None:
    limit, now, came = Limit(), 1e9, 0
    out: list[tuple[float, Alert]] = []
    for after, comes in steps:
        now += after
        limit, freed = release(limit, now, most=most, within_s=within_s)
        out += [(now, freed)] if freed else []
        if comes:
            came += 1
            alert = replace(ALERT, key=str(came))
            limit, passed = admit(limit, alert, now, most=most, within_s=within_s)
            out += [(now, passed)] if passed else []
    for start, _ in out:
        assert sum(start <= at < start + within_s for at, _ in out) <= most
    assert sum(1 + alert.held_back for _, alert in out) + limit.held == came
    assert (limit.last is None) == (limit.held == 0)
    assert len({alert.key for _, alert in out}) == len(out)


def test_the_last_of_those_held_back_is_told_when_there_is_room() -> None:
    limit = Limit()
    for number in range(4):
        limit, _ = admit(limit, replace(ALERT, key=str(number)), 10.0, most=1, within_s=60.0)
    assert limit.held == 3
    limit, freed = release(limit, 69.9, most=1, within_s=60.0)
    assert freed is None
    limit, freed = release(limit, 70.0, most=1, within_s=60.0)
    assert freed is not None
    assert (freed.key, freed.held_back) == ("3", 2)
    assert "2 more alerts of this kind were held back" in said(freed)
    assert limit == Limit(times=(70.0,))


def test_a_clock_set_back_by_a_year_does_not_silence() -> None:
    limit, _ = admit(Limit(), ALERT, 1e9, most=1, within_s=3600.0)
    _, passed = admit(limit, ALERT, 1e9 - 3e7, most=1, within_s=3600.0)
    assert passed is not None
