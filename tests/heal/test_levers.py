"""The search of levers, on a bench whose responses are formulas."""

from __future__ import annotations

import logging
import math
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from qigheal.errors import ProbeError
from qigheal.healing.strategies import builtin
from qigheal.healing.strategies.turning.attention import Attention
from qigheal.healing.strategies.turning.levers import STARTS
from qigheal.host import Lever
from qigheal.records import BandOf, Diagnosis, HealingPatch, Target
from qigheal.settings import HealSettings
from tests.heal.leverhost import FakeBench, FakeRepo, answer

MODEL = """\
# How widely to look around.
[attention]
temperature = 5  # kelvin, as it were
   other =  "left alone"   # with its odd spaces
"""
BANDS = {
    "phi": BandOf(mean=0.77, sd=0.01, low=0.74, high=0.80),
    "kappa": BandOf(mean=67.0, sd=2.0, low=61.0, high=73.0),
}
MORE_STARTS = 2 * (STARTS - 1)
Response = Callable[[dict[str, Any], int], tuple[float, float]]


def by_temperature(config: dict[str, Any], batch: int) -> tuple[float, float]:
    """Φ and κ of a host that is healthy at 0.85; the noise belongs to the requests."""
    away = math.log(config["attention"]["temperature"] / 0.85)
    noise = np.random.default_rng(batch).normal(scale=0.002)
    return 1 / (1 + 0.3 * math.exp(1.6 * away)) + noise, 67.0 * math.exp(1.5 * away) * (1 + noise)


def lever(name: str = "attention.temperature", **changed: Any) -> Lever:
    fields = {"strategy": "attention", "file": "model.toml", "key": name, "min": 0.05, "max": 20.0}
    return Lever(name=name, **(fields | changed))


def diagnosis(metrics: tuple[str, ...] = ("kappa", "phi"), bands: dict[str, BandOf] = BANDS) -> Diagnosis:
    target = Target(
        geometry="simplex", basin=tuple(np.sqrt([0.5, 0.3, 0.2])), drift_limit=0.4, bands=dict(bands)
    )
    return Diagnosis(
        metrics=metrics,
        findings=(),
        severity="critical",
        target=target,
        observed={},
        code_hash="c0ffee",
        healthy_code_hash="",
        since=None,
        snapshots=50,
    )


def propose(
    files: dict[str, str] | str = MODEL,
    response: Response = by_temperature,
    levers: Sequence[Lever] = (lever(),),
    found: Diagnosis | None = None,
    settings: HealSettings | None = None,
) -> tuple[list[HealingPatch], FakeBench]:
    repo = FakeRepo({"model.toml": files} if isinstance(files, str) else files)
    bench = FakeBench(repo, lambda config, batch: answer(batch, *response(config, batch)), levers)
    strategy = Attention(settings or HealSettings())
    return list(strategy.propose(found or diagnosis(), bench, repo)), bench  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["5", "0.2", "2", "30", "0.01", "1.1"])
def test_finds_the_healthy_value_wherever_the_fault_lies(fault: str) -> None:
    [patch], bench = propose(MODEL.replace("= 5", f"= {fault}"))
    assert patch.parameters["attention.temperature"] == pytest.approx(0.85, rel=0.01)
    assert len(bench.asked) <= HealSettings().search_evaluations + MORE_STARTS


def test_the_patch_changes_the_value_and_nothing_else() -> None:
    [patch], bench = propose()
    value = f"{patch.parameters['attention.temperature']:g}"
    assert bench.repo.patched[patch.diff] == {"model.toml": MODEL.replace("= 5 ", f"= {value} ")}
    assert (patch.strategy, patch.tier, patch.base) == ("attention", "safe", "c0ffee")
    assert patch.heals == ("kappa", "phi")
    assert patch.files == ("model.toml",)


def test_the_rationale_says_what_was_measured() -> None:
    [patch], bench = propose()
    assert f"attention.temperature from 5 to {patch.parameters['attention.temperature']:g}" in patch.rationale
    fresh = bench.asked[0][1][4:]
    before = np.mean([by_temperature({"attention": {"temperature": 5}}, batch)[0] for batch, _ in fresh])
    assert f"Φ {before:.4g} → 0.7" in patch.rationale
    assert "(healthy 61 to 73)" in patch.rationale
    assert patch.searched == sum(len(requests) for _, requests in bench.asked)


def test_candidates_share_their_requests_and_the_winner_meets_fresh_ones() -> None:
    _, bench = propose()
    (first_diff, first), *candidates, (_, confirming), _, _, _, _ = bench.asked
    assert first_diff is None
    assert all(requests == first[:4] for _, requests in candidates)
    assert confirming == first[4:]
    assert not set(confirming) & set(first[:4])


def test_the_same_input_gives_the_same_patch() -> None:
    assert propose()[0] == propose()[0]


def test_proposes_nothing_when_the_code_measures_healthy() -> None:
    patches, bench = propose(MODEL.replace("= 5", "= 0.83"))
    assert not patches
    assert len(bench.asked) == 1


def test_proposes_nothing_when_no_value_helps() -> None:
    patches, _ = propose(response=lambda config, batch: (0.3, 500.0))
    assert not patches


def test_proposes_nothing_for_a_mere_improvement() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return (0.30, 67.0) if config["attention"]["temperature"] == 5 else (0.40, 67.0)

    assert not propose(response=response)[0]


def test_proposes_nothing_that_helps_on_the_searched_requests_only() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return by_temperature(config if batch < 4 else {"attention": {"temperature": 5}}, batch)

    assert not propose(response=response)[0]


def test_the_winner_must_show_it_in_every_start() -> None:
    """A process may be healthy by luck, for as long as it lives, whatever the lever says."""

    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        # Batches are fresh in each start of the confirmation: the third start has no luck.
        return (0.77, 67.0) if config["attention"]["temperature"] != 5 and batch < 12 else (0.3, 300.0)

    patches, bench = propose(response=response)
    assert not patches
    *_, (present, again), (winner, confirming) = bench.asked
    assert present is None
    assert winner is not None
    assert again == confirming
    assert confirming[0][0] == 12


def test_the_present_values_must_be_far_in_every_start() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return (0.77, 67.0) if config["attention"]["temperature"] != 5 or batch >= 8 else (0.3, 300.0)

    assert not propose(response=response)[0]


def test_a_candidate_whose_probe_dies_is_no_candidate() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        if config["attention"]["temperature"] < 0.7:
            raise ProbeError("the probe died")
        return by_temperature(config, batch)

    [patch], _ = propose(response=response)
    assert patch.parameters["attention.temperature"] == pytest.approx(0.85, rel=0.02)


@pytest.mark.parametrize("dies_at", [lambda value: value == 5, lambda value: value != 5])
def test_proposes_nothing_when_one_side_cannot_be_measured(
    dies_at: Callable[[float], bool], caplog: pytest.LogCaptureFixture
) -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        if dies_at(config["attention"]["temperature"]):
            raise ProbeError("the probe died")
        return by_temperature(config, batch)

    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(response=response)[0]
    assert "the probe died" in caplog.text


@pytest.mark.parametrize("found", [diagnosis(("basin_drift",)), diagnosis(bands={})])
def test_proposes_nothing_for_what_it_cannot_heal(found: Diagnosis) -> None:
    patches, bench = propose(found=found)
    assert not patches
    assert not bench.asked


def test_a_constant_signal_is_not_aimed_at() -> None:
    [patch], _ = propose(found=diagnosis(("phi",), {"phi": BANDS["phi"]}))
    assert patch.heals == ("phi",)
    assert "κ" not in patch.rationale


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lever("gone", file="gone.toml"), "no such file"),
        (lever("attention.gone"), "attention.gone"),
        (lever("attention.temperature.deeper"), "attention.temperature.deeper"),
        (lever("other.temperature"), "other.temperature"),
        (lever("attention.other"), "expected a number"),
        (lever("attention.on"), "expected a number"),
        (lever("attention.huge"), "expected a number"),
        (lever("broken", file="broken.toml"), "cannot read"),
    ],
)
def test_a_lever_that_cannot_be_read_is_named_and_left_alone(
    broken: Lever, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"model.toml": MODEL + "on = true\nhuge = inf\n", "broken.toml": "not = = toml"}
    with caplog.at_level(logging.WARNING, "qigheal"):
        [patch], _ = propose(files, levers=[broken, lever()])
    assert list(patch.parameters) == ["attention.temperature"]
    assert broken.name in caplog.text
    assert said in caplog.text


def test_a_quoted_key_may_hold_a_dot() -> None:
    text = '[attention]\n"head.1" = 5.0\n'

    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return by_temperature({"attention": {"temperature": config["attention"]["head.1"]}}, batch)

    [patch], bench = propose(text, response, [lever('attention."head.1"')])
    value = patch.parameters['attention."head.1"']
    assert bench.repo.patched[patch.diff] == {"model.toml": text.replace("5.0", f"{value:g}")}


def test_levers_of_other_strategies_are_left_alone() -> None:
    patches, bench = propose(levers=[lever(strategy="basin")])
    assert not patches
    assert not bench.asked


def test_a_lever_of_whole_numbers_stays_whole() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return 0.77, 67.0 * config["neighbours"] / 12

    [patch], bench = propose(
        "neighbours = 300\n", response, [lever("neighbours", min=1, max=512)], diagnosis(("kappa",))
    )
    assert bench.repo.patched[patch.diff] == {"model.toml": "neighbours = 12\n"}


def test_several_levers_are_searched_together() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        phi, kappa = by_temperature(config, batch)
        return phi - 0.1 * abs(config["mixing"]["share"] - 0.4), kappa

    files = {"model.toml": MODEL, "mixing.toml": "[mixing]\nshare = 0.9  # of the second head\n"}
    levers = [lever(), lever("mixing.share", file="mixing.toml", min=0.0, max=1.0)]
    settings = HealSettings(search_evaluations=24)
    [patch], bench = propose(files, response, levers, settings=settings)
    assert patch == propose(files, response, levers, settings=settings)[0][0]
    assert set(patch.files) == {"model.toml", "mixing.toml"}
    assert len(bench.asked) <= 2 * 24 + MORE_STARTS
    config = tomllib.loads(bench.repo.patched[patch.diff]["model.toml"])
    assert config["attention"]["temperature"] == pytest.approx(0.85, rel=0.3)


@pytest.mark.parametrize("evaluations", [3, 4, 8])
def test_probe_starts_stay_within_the_settings(evaluations: int) -> None:
    _, bench = propose(settings=HealSettings(search_evaluations=evaluations, search_batches=2))
    assert len(bench.asked) <= evaluations + MORE_STARTS


def test_is_one_of_the_strategies_that_come_along() -> None:
    [attention] = [s for s in builtin(HealSettings()) if s.name == "attention"]
    assert attention.tier == "safe"
    assert set(attention.metrics) == {"phi", "kappa"}
