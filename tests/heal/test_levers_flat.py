"""Where the response is flat, a lever goes no further than it must."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qigheal.errors import RepoError
from qigheal.healing.strategies.turning.attention import Attention
from qigheal.healing.strategies.turning.choosing import ALIKE, chosen
from qigheal.healing.strategies.turning.search import Axis, Point, Residuals
from qigheal.settings import HealSettings
from tests.heal.leverhost import FakeBench, FakeRepo, answer
from tests.heal.test_levers import MODEL, Response, diagnosis, lever, propose

AXIS = Axis(0.0, 1.0)
HEALTHY = "5afe" * 10


def tried(bench: FakeBench) -> list[float]:
    """The temperatures that the search measured, the present one aside."""
    found = {diff: bench.repo.patched[diff]["model.toml"] for diff, _ in bench.asked if diff is not None}
    return [tomllib.loads(text)["attention"]["temperature"] for text in found.values()]


def flat(low: float, high: float, noise: float = 0.0) -> Response:
    """Healthy between two temperatures, and no better anywhere in between but by the luck of a process."""

    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        temperature = config["attention"]["temperature"]
        if not low <= temperature <= high:
            return 0.3, 500.0
        luck = np.random.default_rng((batch, round(1e6 * temperature))).normal(scale=noise)
        return 0.775 + luck, 67.0

    return response


class Remembers(FakeRepo):
    """Also has an earlier commit, with another value of the lever."""

    earlier = MODEL.replace("= 5 ", "= 0.4 ")

    def resolve(self, ref: str) -> str:
        if not HEALTHY.startswith(ref):
            raise RepoError(f"there is no commit {ref}")
        return HEALTHY

    def read(self, commit: str, path: str) -> bytes:
        return self.earlier.encode() if commit == HEALTHY else super().read(commit, path)


def turned(response: Response, healthy: str) -> tuple[float, FakeBench]:
    repo = Remembers({"model.toml": MODEL})
    bench = FakeBench(repo, lambda config, batch: answer(batch, *response(config, batch)), [lever()])
    found = replace(diagnosis(), healthy_code_hash=healthy)
    [patch] = Attention(HealSettings()).propose(found, bench, repo)  # type: ignore[arg-type]
    return patch.parameters["attention.temperature"], bench


@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_it_stays_as_near_to_the_present_value_as_it_may(noise: float) -> None:
    [patch], bench = propose(response=flat(0.05, 3.0, noise))
    near = [value for value in tried(bench) if value <= 3.0]
    assert patch.parameters["attention.temperature"] == max(near)
    assert min(near) < 0.1, "the search has been at the end of the range"


@pytest.mark.parametrize("noise", [0.0, 0.004])
@pytest.mark.parametrize("name", [HEALTHY, HEALTHY[:9]])
def test_it_returns_to_where_it_was_in_health(noise: float, name: str) -> None:
    value, bench = turned(flat(0.05, 3.0, noise), name)
    assert value == min(tried(bench), key=lambda one: abs(math.log(one / 0.4)))


@pytest.mark.parametrize("name", ["", "main", "0123456789", "--all", HEALTHY + "~1"])
def test_a_commit_that_is_not_known_says_nothing(name: str) -> None:
    value, bench = turned(flat(0.05, 3.0), name)
    assert value == max(one for one in tried(bench) if one <= 3.0)


def test_a_branch_that_looks_like_a_commit_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remembers, "resolve", lambda self, ref: HEALTHY)
    value, bench = turned(flat(0.05, 3.0), "abcdef1")
    assert value == max(one for one in tried(bench) if one <= 3.0)


@pytest.mark.parametrize("edge", ["low", "high"])
def test_an_optimum_at_the_end_of_the_range_is_found_there(edge: str) -> None:
    """Each step towards the end is better, so that none of them is as good as the last."""

    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        temperature = config["attention"]["temperature"]
        steps = math.log(temperature / 0.05 if edge == "low" else 20.0 / temperature)
        noise = np.random.default_rng(batch).normal(scale=0.002)
        return 0.765 - 0.1 * steps + noise, 67.0

    [patch], bench = propose(response=response)
    best = min(tried(bench)) if edge == "low" else max(tried(bench))
    assert patch.parameters["attention.temperature"] == best
    assert 0.05 <= best < 0.06 or 17 < best <= 20.0


def test_levers_that_change_nothing_are_hardly_turned() -> None:
    def response(config: dict[str, Any], batch: int) -> tuple[float, float]:
        return flat(0.05, 3.0)({"attention": {"temperature": config["attention"]["temperature"]}}, batch)

    files = {"model.toml": MODEL, "mixing.toml": "[mixing]\nshare = 0.9\n"}
    levers = [lever(), lever("mixing.share", file="mixing.toml", min=0.0, max=1.0)]
    [patch], bench = propose(files, response, levers)
    axes = [Axis(0.05, 20.0), Axis(0.0, 1.0)]

    def away(values: Mapping[str, float]) -> float:
        at = (values["attention.temperature"], values["mixing.share"])
        home = (5.0, 0.9)
        return math.dist(*([a.position(x) for a, x in zip(axes, p, strict=True)] for p in (at, home)))

    measured = []
    for diff, _ in bench.asked:
        texts = bench.repo.patched[diff]
        config = tomllib.loads(texts["model.toml"]) | tomllib.loads(texts["mixing.toml"])
        if config["attention"]["temperature"] <= 3.0:
            pair = config["attention"]["temperature"], config["mixing"]["share"]
            measured.append(dict(zip(("attention.temperature", "mixing.share"), pair, strict=True)))
    assert away(patch.parameters) == min(map(away, measured))


def pick(losses: dict[float, list[float]], home: float, eligible: tuple[float, ...] = ()) -> float:
    """The choice among settings of which each answer's loss is given; the loss of all is their mean."""
    residuals: dict[Point, Residuals | None] = {(x,): np.array([np.mean(all_)]) for x, all_ in losses.items()}

    def without(point: Point) -> list[float]:
        of = losses[point[0]]
        if len(of) == 1:
            return []
        return [float(np.mean([*of[:i], *of[i + 1 :]])) for i in range(len(of))]

    fits = eligible or tuple(losses)
    return chosen(residuals, lambda point: point[0] in fits, [AXIS], (home,), without)[0]


def test_only_what_chance_may_explain_counts_as_alike() -> None:
    shared = [0.1, 0.5, 0.3, 0.7]  # noise of the requests, which all candidates answer
    worse = [one + 2 * ALIKE for one in shared]
    assert pick({0.1: shared, 0.8: worse}, home=0.9) == 0.1
    assert pick({0.1: shared, 0.8: [one + ALIKE / 2 for one in shared]}, home=0.9) == 0.8
    own = [0.9, 0.1, 0.9, 0.1]  # of mean 0.5 as well as the next, but for a noise of its own
    assert pick({0.1: [one - 0.1 for one in shared], 0.8: own}, home=0.9) == 0.8
    assert pick({0.1: [one - 0.1 for one in shared], 0.8: [one + 2 for one in own]}, home=0.9) == 0.1


def test_what_would_not_do_is_not_chosen_though_it_is_nearer() -> None:
    same = [0.2, 0.2, 0.2, 0.2]
    assert pick({0.1: same, 0.5: same, 0.8: same}, home=0.9, eligible=(0.1, 0.5)) == 0.5


@pytest.mark.parametrize("count", [1, 2])
def test_few_answers_tell_nothing_of_their_noise(count: int) -> None:
    best, other = [0.1, 0.5][:count], [0.9, 0.2][:count]
    assert pick({0.1: best, 0.8: other}, home=0.9) == 0.1


def test_a_setting_that_could_not_be_measured_is_none() -> None:
    residuals: dict[Point, Residuals | None] = {(0.1,): np.array([0.2]), (0.9,): None}
    assert chosen(residuals, lambda _: True, [AXIS], (0.9,), lambda _: []) == (0.1,)
