"""The basin's levers, on a bench whose basins are formulas."""

from __future__ import annotations

import logging
import math
import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qigcore.geometry import amplitudes, distance, exp_map, frechet_mean, frechet_variance
from qigheal.healing.strategies import builtin
from qigheal.healing.strategies.turning.basin import Basin
from qigheal.healing.strategies.turning.levers import STARTS
from qigheal.host import Lever
from qigheal.records import BandOf, Diagnosis, HealingPatch, Target
from qigheal.settings import Geometry, HealSettings
from tests.heal.leverhost import FakeBench, FakeRepo, answer

DIM = 8
HEALTHY = np.linspace(1.0, 2.0, DIM)
LIMIT = 0.3
NOISE = 0.02  # of each component's amplitude, between batches: a spread of about 0.1 rad
MORE_STARTS = 2 * (STARTS - 1)
Way = Callable[[dict[str, Any]], tuple[float, float]]


def basin_at(away: float, spread: float, batch: int, geometry: Geometry = "simplex") -> tuple[float, ...]:
    """A batch's basin: `away` radians from health in a fixed direction, and noise of the batch itself."""
    start = np.asarray(amplitudes(HEALTHY, geometry))
    straight = (-1.0) ** np.arange(DIM)
    way = straight - (straight @ start) * start
    chance = np.random.default_rng(batch).normal(scale=2 * NOISE * spread, size=DIM)
    chance -= (chance @ start) * start
    step = away * way / np.linalg.norm(way) + chance
    reached = exp_map(HEALTHY, step, geometry)
    return tuple(reached**2 if geometry == "simplex" else reached)


def diagnosis(
    metrics: tuple[str, ...] = ("basin_drift",), *, geometry: Geometry = "simplex", learned: bool = True
) -> Diagnosis:
    healthy = [basin_at(0.0, 1.0, batch, geometry) for batch in range(300)]
    spread = math.sqrt(frechet_variance(healthy, geometry=geometry))
    band = BandOf(mean=0.97 * spread, sd=0.24 * spread, low=0.0, high=LIMIT)
    target = Target(
        geometry=geometry,
        basin=tuple(np.asarray(amplitudes(HEALTHY, geometry))),
        drift_limit=LIMIT,
        bands={"basin_drift": band} if learned else {},
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


def lever(key: str = "heat", low: float = 0.2, high: float = 20.0, **changed: Any) -> Lever:
    fields = {"strategy": "basin", "file": "model.toml", "min": low, "max": high}
    return Lever(name=key, key=key, **(fields | changed))


def propose(
    text: str,
    way: Way,
    *levers: Lever,
    found: Diagnosis | None = None,
    geometry: Geometry = "simplex",
    settings: HealSettings | None = None,
) -> tuple[list[HealingPatch], FakeBench]:
    repo = FakeRepo({"model.toml": text})
    bench = FakeBench(
        repo,
        lambda config, batch: answer(batch, 0.75, 64.0, basin_at(*way(config), batch, geometry)),
        levers or (lever(),),
    )
    strategy = Basin(settings or HealSettings())
    found = found or diagnosis(geometry=geometry)
    return list(strategy.propose(found, bench, repo)), bench  # type: ignore[arg-type]


def by_heat(config: dict[str, Any]) -> tuple[float, float]:
    return 0.4 * math.log(config["heat"] / 2.0), 1.0


@pytest.mark.parametrize("geometry", ["simplex", "sphere"])
@pytest.mark.parametrize("fault", ["11.0", "0.3", "25.0", "0.15"])
def test_finds_the_healthy_value_wherever_the_fault_lies(fault: str, geometry: Geometry) -> None:
    [patch], bench = propose(f"heat = {fault}  # of the model\n", by_heat, geometry=geometry)
    assert patch.parameters["heat"] == pytest.approx(2.0, rel=0.15)
    assert (patch.strategy, patch.tier, patch.heals) == ("basin", "safe", ("basin_drift",))
    value = f"{patch.parameters['heat']:g}"
    [written] = [f["model.toml"] for diff, f in bench.repo.patched.items() if diff == patch.diff]
    assert tomllib.loads(written)["heat"] == float(value)
    assert written.endswith("  # of the model\n")
    assert len(bench.asked) <= HealSettings().search_evaluations + MORE_STARTS


def test_the_rationale_says_how_far_it_was_and_how_far_it_is() -> None:
    [patch], bench = propose("heat = 11.0\n", by_heat)
    fresh = bench.asked[0][1][4:]
    before = [basin_at(*by_heat({"heat": 11.0}), batch) for batch, _ in fresh]
    measured = distance(frechet_mean(before) ** 2, HEALTHY)
    assert f"drift {measured:.4g} → 0.0" in patch.rationale
    assert "(healthy up to 0.3 rad)" in patch.rationale
    assert patch.searched == sum(len(requests) for _, requests in bench.asked)


def anchor(drift: float) -> Way:
    """A pull of strength s leaves the part 1 - s of drift and spread."""
    return lambda config: ((1 - config["anchor"]) * drift, 1 - config["anchor"])


@pytest.mark.parametrize("drift", [0.45, 0.7, 1.0])
def test_an_anchor_pulls_no_harder_than_it_must(drift: float) -> None:
    [patch], _ = propose("anchor = 0.0\n", anchor(drift), lever("anchor", 0.0, 1.0))
    left = 1 - patch.parameters["anchor"]
    assert left * drift < 0.8 * LIMIT
    assert left > 0.12  # the judge calls less than 0.1 of the spread a collapse


def test_a_pull_that_holds_the_basin_still_is_not_proposed() -> None:
    patches, bench = propose("anchor = 0\n", anchor(1.2), lever("anchor", 0, 1))
    assert not patches
    assert len(bench.asked) > 1


def test_another_lever_is_preferred_to_the_anchor() -> None:
    def way(config: dict[str, Any]) -> tuple[float, float]:
        left = 1 - config["anchor"]
        return left * by_heat(config)[0], left

    levers = (lever(), lever("anchor", 0.0, 1.0))
    [patch], _ = propose("heat = 15.0\nanchor = 0.0\n", way, *levers)
    assert patch.parameters["heat"] == pytest.approx(2.0, rel=0.5)
    assert patch.parameters["anchor"] < 0.6


def test_two_levers_that_pull_the_same_way_are_searched_together() -> None:
    def way(config: dict[str, Any]) -> tuple[float, float]:
        return by_heat(config)[0] + 0.5 * (config["tilt"] - 0.3), 1.0

    levers = (lever(), lever("tilt", -1.0, 1.0))
    [patch], bench = propose("heat = 15.0\ntilt = 0.9\n", way, *levers)
    assert abs(way(dict(patch.parameters))[0]) < LIMIT / 3
    assert len(bench.asked) <= 2 * HealSettings().search_evaluations + MORE_STARTS
    assert patch == propose("heat = 15.0\ntilt = 0.9\n", way, *levers)[0][0]


def test_a_lever_of_whole_numbers_stays_whole() -> None:
    [patch], bench = propose(
        "hops = 12\n", lambda config: (0.1 * (config["hops"] - 3), 1.0), lever("hops", 0, 14)
    )
    assert bench.repo.patched[patch.diff] == {"model.toml": "hops = 3\n"}


def test_proposes_nothing_where_the_mean_lies_inside_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Single batches lie further off than where the service is: chance is no drift."""
    with caplog.at_level(logging.INFO, "qigheal"):
        patches, bench = propose("heat = 2.5\n", lambda config: (by_heat(config)[0], 4.0))
    assert not patches
    assert len(bench.asked) == 1
    assert "as healthy" in caplog.text


@pytest.mark.parametrize("evaluations", [3, 8])
def test_probe_starts_stay_within_the_settings(evaluations: int) -> None:
    _, bench = propose("heat = 11.0\n", by_heat, settings=HealSettings(search_evaluations=evaluations))
    assert len(bench.asked) <= evaluations + MORE_STARTS


def test_proposes_nothing_when_no_value_helps() -> None:
    assert not propose("heat = 11.0\n", lambda config: (1.0, 1.0))[0]


def test_only_its_own_levers_and_metric_concern_it() -> None:
    patches, bench = propose("heat = 11.0\n", by_heat, lever(strategy="attention"))
    assert not patches
    assert not bench.asked
    patches, bench = propose("heat = 11.0\n", by_heat, found=diagnosis(("phi",)))
    assert not patches
    assert not bench.asked


def test_a_baseline_that_never_varied_says_nothing_of_spread() -> None:
    [patch], _ = propose("heat = 11.0\n", by_heat, found=diagnosis(learned=False))
    assert patch.parameters["heat"] == pytest.approx(2.0, rel=0.15)


def test_is_asked_after_attention() -> None:
    names = [strategy.name for strategy in builtin(HealSettings())]
    assert names.index("attention") < names.index("basin") < names.index("revert")
