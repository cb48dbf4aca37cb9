"""What no score outweighs: vetoes, and effects that show only after many answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.healing import judge
from qigheal.records import Answer, Trial
from qigheal.settings import HealSettings
from tests.heal.judgedworlds import BOTH, LEAK, QUIET, SETTINGS, cured, guard, with_after
from tests.heal.simulated import World, judged, patch


@pytest.fixture(scope="module")
def healed() -> Trial:
    return cured()


def test_a_constant_phi_is_vetoed(healed: Trial) -> None:
    verdict = judge.verdict(with_after(healed, phi=0.77), SETTINGS)
    assert verdict.decision == "refused"
    assert "Φ no longer varies" in verdict.vetoes[0]


def test_a_constant_basin_is_vetoed(healed: Trial) -> None:
    verdict = judge.verdict(with_after(healed, basin=healed.pairs[0].after.basin), SETTINGS)
    assert verdict.decision == "refused"
    assert "the basin no longer varies" in verdict.vetoes[0]


def test_a_signal_that_is_steady_when_healthy_may_be_steady(healed: Trial) -> None:
    bands = healed.target.bands
    steady = replace(healed.target, bands={**bands, "phi": replace(bands["phi"], sd=0.0)})
    verdict = judge.verdict(with_after(replace(healed, target=steady), phi=0.77), SETTINGS)
    assert verdict.accepted


def digests(trial: Trial, before: str | None, after: str | None, control: str | None) -> Trial:
    def told(answer: Answer, digest: str | None) -> Answer:
        return replace(answer, output_digest=digest)

    return replace(
        trial,
        patch=patch(heals=BOTH, same_output=True),
        pairs=tuple(
            replace(pair, before=told(pair.before, before), after=told(pair.after, after))
            for pair in trial.pairs
        ),
        control=tuple(
            replace(pair, before=told(pair.before, before), after=told(pair.after, control))
            for pair in trial.control
        ),
    )


@pytest.mark.parametrize(
    ("before", "after", "control", "veto"),
    [
        ("x", "x", "x", ""),
        ("x", "y", "x", "80 of 80 outputs differ"),
        ("x", "x", "z", "answers one request in two ways"),
        (None, None, None, "reports no output_digest"),
    ],
)
def test_outputs_must_be_equal_where_the_patch_says_so(
    healed: Trial, before: str | None, after: str | None, control: str | None, veto: str
) -> None:
    verdict = judge.verdict(digests(healed, before, after, control), SETTINGS)
    assert verdict.accepted is not bool(veto)
    assert veto in " ".join(verdict.vetoes)


@pytest.mark.parametrize(
    ("trial", "decision", "said"),
    [
        (
            {"refusals": ("Makefile: decides how the code is built",)},
            "refused",
            "the patch is refused: Makefile",
        ),
        (
            {"tests_passed": False, "tests_output": "..\n2 failed"},
            "refused",
            "tests fail with the patch: 2 failed",
        ),
        ({"tests_passed": False}, "refused", "they print nothing"),
        ({"problems": ("patched code: hangs",), "failed_side": "after"}, "refused", "patched code: hangs"),
        ({"problems": ("unpatched code: hangs",), "failed_side": "before"}, "inconclusive", "incomplete"),
        ({"problems": ("no bubblewrap",)}, "inconclusive", "no bubblewrap"),
    ],
)
def test_what_no_measurement_can_change(
    healed: Trial, trial: dict[str, Any], decision: str, said: str
) -> None:
    spoiled = replace(healed, **trial)
    verdict = judge.verdict(spoiled, SETTINGS)
    assert verdict.decision == decision
    assert not verdict.accepted
    assert said in verdict.reason
    assert verdict.fitness is None
    assert not judge.needs_more(spoiled, SETTINGS)


# Effects that take longer than a start


def filling(most_mb: float) -> World:
    return World(leak_mb=0.8, leak_most_mb=most_mb, **QUIET)


def test_a_bound_that_takes_forty_answers_shows() -> None:
    verdict, _ = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    assert verdict.accepted, verdict.reason
    assert verdict.fitness is not None
    assert verdict.fitness.components["service"] == 1.0
    assert verdict.pairs == 8 * 50
    # Told to need no longer than usual, the same patch shows nothing: no start ever sees it full.
    verdict, _ = judged(filling(math.inf), filling(28.0), 1, settings=HealSettings(max_pairs=80), **LEAK)
    assert not verdict.accepted


def test_what_a_patch_costs_once_its_bound_is_reached_counts_whole() -> None:
    _, trial = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    first = {number: next(i for i, p in enumerate(trial.pairs) if p.round == number) for number in range(8)}
    slower = tuple(
        replace(pair, after=replace(pair.after, wall_ms=1.2 * pair.after.wall_ms))
        if i - first[pair.round] >= 40
        else pair
        for i, pair in enumerate(trial.pairs)
    )
    verdict = judge.verdict(replace(trial, pairs=slower), SETTINGS)
    assert not verdict.accepted
    assert guard(verdict, "latency").estimate == pytest.approx(0.2, abs=0.03)


def test_failures_before_the_bound_is_reached_count_too() -> None:
    _, trial = judged(filling(math.inf), filling(28.0), 1, batches_needed=40, **LEAK)
    first = {number: next(i for i, p in enumerate(trial.pairs) if p.round == number) for number in range(8)}
    failing = tuple(
        replace(pair, after=replace(pair.after, error_rate=0.05)) if i - first[pair.round] < 30 else pair
        for i, pair in enumerate(trial.pairs)
    )
    verdict = judge.verdict(replace(trial, pairs=failing), SETTINGS)
    assert not verdict.accepted
    assert guard(verdict, "errors").estimate == pytest.approx(0.03, abs=0.001)
