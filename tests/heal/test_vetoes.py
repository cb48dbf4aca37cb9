"""Vetoes that stand whatever the score: outputs that were right change, work is done out of turn."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.healing.judge.vetoes import standing
from qigheal.records import Trial
from tests.heal.simulated import World, judged

QUIET: dict[str, Any] = {"waits": 0.0, "wall_noise": 0.01}


def a_trial(named: tuple[str, ...] = ("errors",), **claims: Any) -> Trial:
    _, trial = judged(World(errors=0.2, **QUIET), World(errors=0.0, **QUIET), 3, named=named, **claims)
    return trial


def shown(trial: Trial, *, right: int, changed: int) -> Trial:
    """The first `right` answers of the unpatched side made no error, and `changed` of these came out otherwise."""
    pairs = [
        replace(
            pair,
            before=replace(pair.before, error_rate=0.0 if i < right else 0.2),
            after=replace(pair.after, output_digest="other" if i < changed else pair.before.output_digest),
        )
        for i, pair in enumerate(trial.pairs)
    ]
    return replace(trial, pairs=tuple(pairs))


def test_an_answer_that_was_right_must_stay() -> None:
    trial = a_trial()
    assert standing(shown(trial, right=10, changed=0)) == ([], [])
    [veto], _ = standing(shown(trial, right=10, changed=3))
    assert veto == "3 of 10 outputs differ where the unpatched code made no error"


@pytest.mark.parametrize(("named", "vetoed"), [(("latency",), True), (("memory",), True), (("phi",), False)])
def test_where_phi_is_to_be_healed_outputs_may_change(named: tuple[str, ...], vetoed: bool) -> None:
    trial = shown(a_trial(named), right=10, changed=10)
    assert bool(standing(trial)[0]) is vetoed


def test_a_strangers_patch_needs_an_answer_that_was_right() -> None:
    trial = shown(a_trial(), right=0, changed=0)
    assert standing(trial) == ([], [])
    stranger = replace(trial, patch=replace(trial.patch, tier="review"))
    vetoes, [doubt] = standing(stranger)
    assert not vetoes
    assert "errors in every answer" in doubt


def test_work_out_of_turn_is_seen() -> None:
    trial = a_trial(("latency",))
    quiet = replace(trial, pairs=tuple(_using(pair, 5.0, 5.0) for pair in trial.pairs))
    assert standing(quiet) == ([], [])
    busy = replace(trial, pairs=tuple(_using(pair, 5.0, 30.0) for pair in trial.pairs))
    [veto], _ = standing(busy)
    assert veto.startswith("it computes while it is not asked: 30.0 ms")


def test_a_host_that_always_uses_several_processors_may_go_on() -> None:
    trial = a_trial(("latency",))
    assert standing(replace(trial, pairs=tuple(_using(pair, 40.0, 42.0) for pair in trial.pairs))) == ([], [])


def _using(pair: Any, before_ms: float, after_ms: float) -> Any:
    return replace(
        pair,
        before=replace(pair.before, cpu_ms=before_ms, wall_ms=5.0),
        after=replace(pair.after, cpu_ms=after_ms, wall_ms=5.0),
    )
