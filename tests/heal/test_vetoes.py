"""Vetoes that stand whatever the score: outputs that were right change, work is done out of turn."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.healing.judge.vetoes import SHOWN, reserved, standing
from qigheal.records import Trial
from tests.heal.simulated import World, judged

QUIET: dict[str, Any] = {"waits": 0.0, "wall_noise": 0.01}


def a_trial(named: tuple[str, ...] = ("errors",), **claims: Any) -> Trial:
    _, trial = judged(World(errors=0.2, **QUIET), World(errors=0.0, **QUIET), 3, named=named, **claims)
    # The simulated diff is of a TOML file, which alone would need a person where errors are healed.
    return replace(trial, loosens=())


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


def without_digests(trial: Trial) -> Trial:
    pairs = tuple(
        replace(
            pair,
            before=replace(pair.before, output_digest=None),
            after=replace(pair.after, output_digest=None),
        )
        for pair in trial.pairs
    )
    return replace(trial, pairs=pairs)


def answering_at_random(trial: Trial) -> Trial:
    control = tuple(
        replace(pair, after=replace(pair.after, output_digest="another")) for pair in trial.control
    )
    return replace(trial, control=control)


def by_request(trial: Trial, *, answered: int, changed: int = 0, differs: int = 0) -> Trial:
    """Of each batch `answered` requests made no error; in the first `differs` pairs `changed` came out otherwise."""
    pairs = tuple(
        replace(pair, answered=answered, changed=changed if i < differs else 0)
        for i, pair in enumerate(trial.pairs)
    )
    return replace(trial, pairs=pairs)


SERVICE_ALONE = [("errors",), ("latency",), ("memory",), ("errors", "memory")]


@pytest.mark.parametrize("heals", SERVICE_ALONE)
def test_a_patch_of_the_service_alone_needs_a_person_where_nothing_shows_that_answers_stay(
    heals: tuple[str, ...],
) -> None:
    trial = a_trial(heals, heals=heals)
    enough = shown(trial, right=SHOWN, changed=0)
    assert reserved(enough) == ()
    for unsure, why in (
        (without_digests(enough), "no output_digest is reported"),
        (answering_at_random(enough), "answers one request in two ways"),
        (shown(trial, right=0, changed=0), "0 of 80 answers show"),
        (shown(trial, right=SHOWN - 1, changed=0), f"and {SHOWN} are needed"),
    ):
        [reason] = reserved(unsure)
        assert why in reason
        assert standing(unsure) == ([], [])  # it may be right, and a person can tell


def test_answers_that_a_change_of_phi_is_to_change_need_no_person() -> None:
    trial = shown(a_trial(("phi", "latency"), heals=("phi", "latency")), right=80, changed=80)
    assert reserved(trial) == ()
    # What heals latency alone has no such reason, whatever else is unwell.
    [reason] = reserved(replace(trial, patch=replace(trial.patch, heals=("latency",))))
    assert reason == "80 of 80 outputs differ where the unpatched code made no error"


def test_equal_outputs_that_are_claimed_are_shown_or_vetoed_and_need_no_person_besides() -> None:
    trial = shown(a_trial(("latency",), heals=("latency",), same_output=True), right=80, changed=0)
    assert reserved(trial) == ()
    assert standing(without_digests(trial))[0]


def test_requests_show_what_batches_with_an_error_in_each_cannot() -> None:
    trial = shown(a_trial(heals=("errors",)), right=0, changed=0)
    assert reserved(trial)
    each = by_request(trial, answered=17)
    assert reserved(each) == ()
    assert standing(replace(each, patch=replace(each.patch, tier="review"))) == ([], [])
    [veto], _ = standing(by_request(trial, answered=17, changed=1, differs=2))
    assert veto == "2 of 80 outputs differ where the unpatched code made no error"
    # So lists of another length than the other side's are counted, too.
    for answered, told in ((17, True), (1, False)):
        unlike = by_request(trial, answered=answered, changed=answered, differs=2)
        [veto], _ = standing(unlike)
        assert veto.startswith("2 of 80 outputs differ where the unpatched code made no error")
        assert ("not of one length" in veto) is told
        assert ("not of one length" in reserved(unlike)[0]) is told
    assert reserved(by_request(trial, answered=0)) == reserved(trial)


def test_requests_that_the_same_code_answers_otherwise_show_nothing() -> None:
    trial = by_request(a_trial(heals=("errors",)), answered=17, changed=1, differs=2)
    control = tuple(replace(pair, answered=17, changed=1) for pair in trial.control)
    random = replace(trial, control=control)
    assert standing(random) == ([], [])
    assert "in two ways" in reserved(random)[0]


def test_requests_that_fail_now_and_then_are_not_answered_in_two_ways() -> None:
    trial = by_request(shown(a_trial(heals=("errors",)), right=0, changed=0), answered=17)
    flaky = tuple(
        replace(pair, answered=17, after=replace(pair.after, output_digest="other errors"))
        for pair in trial.control
    )
    assert reserved(replace(trial, control=flaky)) == ()
    told_of_none = tuple(replace(pair, answered=None) for pair in flaky)
    assert "in two ways" in reserved(replace(trial, control=told_of_none))[0]


def test_a_digest_that_stays_though_fewer_requests_fail_says_nothing() -> None:
    trial = shown(a_trial(heals=("errors",)), right=0, changed=0)
    assert reserved(trial)
    alike = tuple(replace(pair, after=replace(pair.after, error_rate=0.2)) for pair in trial.pairs)
    assert reserved(replace(trial, pairs=alike)) == ()  # all of the batch came out as it was, its errors too


def test_what_a_patch_takes_away_comes_first_among_the_reasons() -> None:
    trial = replace(
        shown(a_trial(heals=("errors",)), right=80, changed=0), loosens=("a raise is taken away",)
    )
    assert reserved(trial) == ("a raise is taken away",)
    assert reserved(without_digests(trial))[0] == "a raise is taken away"


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
