"""What is counted as rows go by follows from the rows alone, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qigcore.rows import BIT, HEAD, Array
from qigcore.rules import LOOK_BACK, absolute_rules, evaluate
from qigheal.integrations.metrics.judged import Judged, Latest

RULES = absolute_rules()


def heads(phis: list[float], latencies: list[float]) -> Array:
    made = np.zeros(len(phis), HEAD)
    made["timestamp"] = np.arange(len(phis))
    made["phi"] = phis
    made["kappa_eff"] = 64.0
    made["avg_latency_ms"] = latencies
    made["regime"] = 1
    return made


def counted(rows: Array) -> tuple[int, dict[str, int]]:
    """The slow way: what fires after each row, one prefix after the other."""
    fired = [{each.rule.kind for each in evaluate(rows[: at + 1], RULES)} for at in range(len(rows))]
    pairs = list(zip([set(), *fired], fired, strict=False))
    began = [kind for before, after in pairs for kind in after - before]
    return sum(bool(after) and not before for before, after in pairs), {k: began.count(k) for k in began}


runs = st.lists(
    st.tuples(st.sampled_from([0.75, 0.75, 0.3]), st.sampled_from([5.0, 3000.0]), st.integers(1, 14)),
    min_size=1,
    max_size=8,
)


@given(runs, st.lists(st.integers(0, 40), max_size=6))
def test_counts_do_not_depend_on_when_one_looks(
    kinds: list[tuple[float, float, int]], cuts: list[int]
) -> None:
    rows = heads(
        [phi for phi, _, count in kinds for _ in range(count)],
        [latency for _, latency, count in kinds for _ in range(count)],
    )
    judged = Judged()
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for start, end in pairwise(edges):
        judged.take(rows[start:end], RULES)
    degradations, alarms = counted(rows)
    assert judged.degradations == degradations
    assert {kind: count for kind, count in judged.alarms.items() if count} == alarms


def test_what_was_so_before_it_began_is_no_alarm() -> None:
    rows = heads([0.3] * 40, [5.0] * 40)
    judged = Judged()
    judged.begin_after(rows[: LOOK_BACK + 3])
    judged.take(rows[LOOK_BACK + 3 :], RULES)
    assert judged.degradations == 0
    judged.take(heads([0.75] * 40, [5.0] * 40), RULES)
    judged.take(rows[:20], RULES)
    assert judged.degradations == 1


def test_the_newest_figures_are_those_that_were_not_repaired() -> None:
    rows = heads([0.7, 0.8, 0.9], [1.0, 2.0, 3.0])
    rows["repaired"][2] = BIT["phi"]
    rows["repaired"][1] = BIT["avg_latency_ms"]
    latest = Latest()
    latest.note(rows)
    assert latest.since(0.0)["phi"] == 0.8
    assert latest.since(0.0)["latency"] == 3.0
    assert "phi" not in latest.since(1.5)
    latest.note(rows[:0])
    assert latest.since(0.0)["phi"] == 0.8
