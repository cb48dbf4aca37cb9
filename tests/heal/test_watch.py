from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st
from msgspec.structs import replace

from qigcore.rows import BIT, HEAD, Batch
from qigheal.errors import RepoError
from qigheal.healing.diagnosis import UNSEEN_ERRORS
from qigheal.healing.watch import watch
from qigheal.records import BandOf, Change, HealingPatch, Outcome, Target
from qigheal.settings import HealSettings

BASE, MERGE, LATER, UNRELATED = "a" * 40, "b" * 40, "c" * 40, "d" * 40
LINE = [BASE, MERGE, LATER]
SETTINGS = HealSettings(watch_snapshots=30, watch_deadline_s=3600.0)
MERGED_AT = 1000.0

TARGET = Target(
    geometry="simplex",
    basin=(1.0, 0.0),
    drift_limit=0.38,
    bands={
        "phi": BandOf(mean=0.77, sd=0.01, low=0.74, high=0.80),
        "kappa": BandOf(mean=66.8, sd=2.1, low=60.5, high=73.1),
        "basin_drift": BandOf(mean=0.29, sd=0.03, low=0.20, high=0.38),
        "errors": UNSEEN_ERRORS,
        "latency": BandOf(mean=5.0, sd=0.3, low=2.0, high=8.0),
        "memory": BandOf(mean=0.0, sd=0.05, low=-0.3, high=0.3),
    },
)
HEALTHY = {"phi": 0.77, "kappa": 66.8, "basin_drift": 0.29, "errors": 0.0, "latency": 5.0}
ILL = {"phi": 0.04, "kappa": 1019.0, "basin_drift": 0.1, "errors": 0.0, "latency": 5.0}


class Line:
    """BASE ← MERGE ← LATER, the target branch at `tip`."""

    def __init__(self, tip: str = MERGE) -> None:
        self.tip = tip

    def resolve(self, ref: str) -> str:
        if ref == "refs/heads/main":
            return self.tip
        found = [commit for commit in (*LINE, UNRELATED) if commit.startswith(ref)]
        if not found:
            raise RepoError(f"{ref}: no such commit")
        return found[0]

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        if UNRELATED in (ancestor, descendant):
            return ancestor == descendant
        return LINE.index(ancestor) <= LINE.index(descendant)


def a_change(heals: tuple[str, ...] = ("phi", "kappa"), before: dict[str, float] | None = None) -> Change:
    patch = HealingPatch(strategy="attention", tier="safe", base=BASE, diff="", rationale="", heals=heals)
    return Change(
        id="change",
        state="watching",
        patch=patch,
        verdict=None,
        branch="qigheal/x",
        target="main",
        opened_at=900.0,
        merge_commit=MERGE,
        merge_parent=BASE,
        merged_at=MERGED_AT,
        before=ILL if before is None else before,
    )


def live(count: int, code: str = MERGE, seed: int = 1, **changed: Any) -> Batch:
    """Snapshots of the healthy service, but for the columns given; those may be arrays."""
    draw = np.random.default_rng(seed)
    heads = np.zeros(count, HEAD)
    heads["timestamp"] = MERGED_AT + np.arange(count)
    heads["phi"] = 0.77 + 0.01 * draw.standard_normal(count)
    heads["kappa_eff"] = 66.8 + 2.1 * draw.standard_normal(count)
    heads["basin_drift"] = 0.29 + 0.03 * draw.standard_normal(count)
    heads["avg_latency_ms"] = 5.0 + 0.3 * draw.standard_normal(count)
    heads["memory_mb"] = 100.0
    heads["code"] = 1
    for name, value in changed.items():
        heads[name] = value
    return Batch.of_rows(heads, np.zeros((count, 2)), ("", code))


def judge(change: Change, *batches: Batch, now: float = MERGED_AT + 60, tip: str = MERGE) -> Outcome:
    batch = Batch.concat(batches, dim=2)
    return watch(change, batch, TARGET, Line(tip), now=now, settings=SETTINGS)


def noisy(mean: float, sd: float, count: int = 30, seed: int = 5) -> np.ndarray[Any, Any]:
    return mean + sd * np.random.default_rng(seed).standard_normal(count)


def test_recovery_is_confirmed() -> None:
    outcome = judge(a_change(), live(30))
    assert outcome.state == "confirmed"
    assert outcome.snapshots == 30
    assert outcome.within_snapshots == 10
    assert outcome.observed["phi"] == pytest.approx(0.77, abs=0.01)
    assert "Φ" in outcome.reason
    assert "κ" in outcome.reason


def test_recovery_counts_the_snapshots_it_took() -> None:
    phi = np.where(np.arange(30) < 4, 0.70, 0.77)
    # From the 11th snapshot the mean of ten is 0.7490, in the band from 0.74; at the 10th, 0.7420.
    phi[:4] = 0.66
    running = np.convolve(phi, np.ones(10) / 10, "valid")
    first = int(np.argmax(running >= 0.74)) + 10
    assert first > 10
    outcome = judge(a_change(), live(30, phi=phi))
    assert outcome.state == "confirmed"
    assert outcome.within_snapshots == first


@pytest.mark.parametrize("count", [0, 9, 29])
def test_too_few_snapshots_wait_until_the_deadline(count: int) -> None:
    assert judge(a_change(), live(count)).state == "waiting"
    assert judge(a_change(), live(count), now=MERGED_AT + 3600).state == "waiting"
    outcome = judge(a_change(), live(count), now=MERGED_AT + 3601)
    assert outcome.state == "unconfirmed"
    assert f"{count} of 30" in outcome.reason


def test_a_deploy_that_did_not_take_is_named() -> None:
    outcome = judge(a_change(), live(50, code=BASE), now=MERGED_AT + 9999)
    assert outcome.state == "unconfirmed"
    assert outcome.snapshots == 0
    assert BASE[:10] in outcome.reason


def test_only_snapshots_of_the_merge_itself_are_judged() -> None:
    # The old code, a stranger's, unknown, unnamed and moving names: all ill, none of them counts.
    strangers = [live(20, code=code, phi=0.04) for code in (BASE, UNRELATED, "e" * 40, "", "main", "bbbb")]
    outcome = judge(a_change(), *strangers, live(30))
    assert outcome.state == "confirmed"
    assert outcome.snapshots == 30
    assert judge(a_change(), *strangers).state == "waiting"


@pytest.mark.parametrize("length", [7, 8, 40])
def test_abbreviated_hashes_are_the_commit(length: int) -> None:
    assert judge(a_change(), live(30, code=MERGE[:length])).state == "confirmed"
    assert judge(a_change(), live(30, code=MERGE[:length].upper())).state == "confirmed"


def test_the_first_snapshots_decide_however_late_one_asks() -> None:
    early = judge(a_change(), live(30))
    turned = judge(a_change(), live(30), live(300, phi=0.1), now=MERGED_AT + 1e6)
    assert turned == early


HARM = {
    "phi": {"phi": noisy(0.70, 0.01)},
    "phi above": {"phi": noisy(0.84, 0.01)},
    "kappa": {"kappa_eff": noisy(85.0, 2.0)},
    "kappa below": {"kappa_eff": noisy(50.0, 2.0)},
    "drift": {"basin_drift": noisy(0.47, 0.03)},
    "errors": {"error_rate": noisy(0.02, 0.005)},
    "latency": {"avg_latency_ms": noisy(12.0, 1.0)},
}


@pytest.mark.parametrize("what", HARM)
def test_a_healthy_service_made_worse(what: str) -> None:
    outcome = judge(a_change((), before=HEALTHY), live(30, **HARM[what]))
    assert outcome.state == "worse", outcome.reason
    assert MERGE[:10] in outcome.reason
    assert outcome.within_snapshots is not None


SMALL = {
    "drift falls": {"basin_drift": noisy(0.05, 0.01)},
    "latency falls": {"avg_latency_ms": noisy(1.0, 0.1)},
    "latency under 1.5 times": {"avg_latency_ms": noisy(8.2, 0.3)},
    "one slow answer": {"avg_latency_ms": np.where(np.arange(30) == 3, 180.0, 5.0)},
    "kappa just outside, steadily": {"kappa_eff": 73.3},
    "drift at its edge, noisily": {"basin_drift": noisy(0.385, 0.06)},
}


@pytest.mark.parametrize("what", SMALL)
def test_what_is_no_harm(what: str) -> None:
    before = HEALTHY | {"latency": 6.0}
    outcome = judge(a_change(("phi",), before=before), live(30, **SMALL[what]))
    assert outcome.state == "confirmed", outcome.reason


def test_latency_is_compared_with_latency_before() -> None:
    slow = live(30, avg_latency_ms=noisy(12.0, 1.0))
    assert judge(a_change(("phi",), before=HEALTHY | {"latency": 11.0}), slow).state == "confirmed"
    assert judge(a_change(("phi",), before=HEALTHY | {"latency": 5.0}), slow).state == "worse"


def test_one_metric_healed_and_another_harmed_is_worse() -> None:
    outcome = judge(a_change(), live(30, error_rate=noisy(0.3, 0.05)))
    assert outcome.state == "worse"
    assert "error rate" in outcome.reason


def test_better_but_not_healed_is_neither() -> None:
    outcome = judge(a_change(), live(30, phi=noisy(0.5, 0.01), kappa_eff=noisy(150.0, 3.0)))
    assert outcome.state == "unconfirmed"
    assert outcome.within_snapshots is None
    assert "outside its healthy band" in outcome.reason


def test_as_ill_as_before_is_neither() -> None:
    ill = live(30, phi=noisy(0.04, 0.01), kappa_eff=noisy(1019.0, 20.0))
    assert judge(a_change(), ill).state == "unconfirmed"


def test_clear_harm_is_told_after_ten_snapshots_and_at_the_same_one_later() -> None:
    change = a_change((), before=HEALTHY)
    for count in (10, 17, 30, 60):
        outcome = judge(change, live(count, phi=0.3))
        assert outcome.state == "worse", count
        assert outcome.within_snapshots == 10
    assert judge(change, live(9, phi=0.3)).state == "waiting"


def test_a_cold_start_is_no_early_harm() -> None:
    phi = np.where(np.arange(20) < 7, 0.1, 0.77)
    assert judge(a_change((), before=HEALTHY), live(20, phi=phi)).state == "waiting"


def test_harm_is_told_at_the_deadline_from_what_there_is() -> None:
    slight = live(20, phi=noisy(0.72, 0.01, 20))
    change = a_change((), before=HEALTHY)
    assert judge(change, slight).state == "waiting"
    assert judge(change, slight, now=MERGED_AT + 3601).state == "worse"


def test_late_harm_counts_until_the_running_mean_left_the_band() -> None:
    phi = np.where(np.arange(30) < 15, 0.77, 0.50)
    outcome = judge(a_change((), before=HEALTHY), live(30, phi=phi))
    assert outcome.state == "worse"
    running = np.convolve(phi, np.ones(10) / 10, "valid")
    assert outcome.within_snapshots == int(np.argmax(running < 0.74)) + 10


def test_an_override_that_claims_nothing_is_confirmed_when_all_bands_hold() -> None:
    assert judge(a_change((), before=HEALTHY), live(30)).state == "confirmed"
    leaking = live(30, memory_mb=100.0 + 2.0 * np.arange(30))
    outcome = judge(a_change((), before=HEALTHY), leaking)
    assert outcome.state == "unconfirmed"
    assert "memory growth 2" in outcome.reason


def test_what_has_no_band_is_not_confirmed() -> None:
    bands = {name: band for name, band in TARGET.bands.items() if name != "phi"}
    target = Target(geometry="simplex", basin=(1.0, 0.0), drift_limit=0.38, bands=bands)
    outcome = watch(a_change(("phi",)), live(30), target, Line(), now=MERGED_AT, settings=SETTINGS)
    assert outcome.state == "unconfirmed"
    assert "no healthy band" in outcome.reason


def test_harm_with_other_commits_on_top_is_contested() -> None:
    harmed = live(30, phi=0.3)
    change = a_change((), before=HEALTHY)
    for outcome in (judge(change, harmed, live(1, code=LATER)), judge(change, harmed, tip=LATER)):
        assert outcome.state == "contested"
        assert "other commits" in outcome.reason
    assert judge(change, harmed, tip=UNRELATED).state == "worse"


def test_harm_that_shows_only_under_other_commits_is_contested() -> None:
    change = a_change((), before=HEALTHY)
    assert judge(change, live(3), live(30, code=LATER, phi=0.3)).state == "contested"
    assert judge(change, live(3), live(30, code=LATER)).state == "waiting"
    late = judge(change, live(3), live(30, code=LATER), now=MERGED_AT + 3601)
    assert late.state == "unconfirmed"
    assert "on top" in late.reason


def test_recovery_is_confirmed_with_other_commits_on_top() -> None:
    assert judge(a_change(), live(30), live(30, code=LATER, phi=0.3)).state == "confirmed"


def test_unmeasurable_is_worse_unless_it_was_before() -> None:
    flags = np.zeros(30, int)
    flags[12:16] = BIT["phi"]
    outcome = judge(a_change((), before=HEALTHY), live(30, repaired=flags))
    assert outcome.state == "worse"
    assert outcome.within_snapshots == 16
    flags[15] = 0
    assert judge(a_change((), before=HEALTHY), live(30, repaired=flags)).state == "confirmed"
    blind = {metric: value for metric, value in HEALTHY.items() if metric != "latency"}
    unseen = live(30, repaired=BIT["avg_latency_ms"], avg_latency_ms=0.0)
    assert judge(a_change((), before=blind), unseen).state == "confirmed"
    assert judge(a_change((), before=HEALTHY), unseen).state == "worse"


def test_repaired_values_enter_no_mean() -> None:
    flags = np.zeros(30, int)
    flags[::5] = BIT["phi"]
    outcome = judge(a_change(), live(30, repaired=flags, phi=np.where(flags > 0, 0.0, 0.77)))
    assert outcome.state == "confirmed"
    assert outcome.observed["phi"] == pytest.approx(0.77)


def test_what_was_not_merged_cannot_be_watched() -> None:
    change = a_change()
    unmerged = Change(
        **{name: getattr(change, name) for name in change.__struct_fields__} | {"merge_commit": ""}
    )
    with pytest.raises(ValueError, match="merged"):
        judge(unmerged, live(30))


def test_healthy_services_are_hardly_ever_called_worse() -> None:
    change = a_change((), before=HEALTHY)
    outcomes = [judge(change, live(30, seed=seed)).state for seed in range(300)]
    assert "worse" not in outcomes
    for seed in range(100):  # the same with neighbours that resemble one another
        assert judge(change, live(30, seed=seed, phi=0.77 + 0.01 * walk(0.9, seed))).state == "confirmed"


def walk(alike: float, seed: int, count: int = 30) -> np.ndarray[Any, Any]:
    """Noise of unit spread whose neighbours are correlated."""
    noise = np.random.default_rng(seed).standard_normal(count + 100)
    walked = np.zeros(count + 100)
    for i in range(1, count + 100):
        walked[i] = alike * walked[i - 1] + np.sqrt(1 - alike**2) * noise[i]
    return walked[100:]


@pytest.mark.parametrize("alike", [0.0, 0.8, 0.95])
def test_an_ill_service_that_nothing_changed_is_hardly_ever_called_worse(alike: float) -> None:
    """A standard error for independent snapshots would call 16 % of those with 0.8 worse, and take them back."""
    band = replace(TARGET.bands["phi"], autocorrelation=alike)
    target = replace(TARGET, bands={**TARGET.bands, "phi": band})
    states = []
    for seed in range(300):
        before = a_change((), before={**HEALTHY, "phi": 0.6 + 0.01 * float(walk(alike, seed).mean())})
        after = live(30, phi=0.6 + 0.01 * walk(alike, 1000 + seed))
        outcome = watch(before, after, target, Line(), now=MERGED_AT + 60, settings=SETTINGS)
        states.append(outcome.state)
    assert states.count("worse") <= 2

    harmed = live(30, phi=0.5 + 0.01 * walk(alike, 7))
    change = a_change((), before={**HEALTHY, "phi": 0.6})
    harm = watch(change, harmed, target, Line(), now=MERGED_AT + 60, settings=SETTINGS)
    assert harm.state == "worse", "real harm is seen all the same"


def test_harm_where_ancestry_cannot_be_told_is_for_a_person() -> None:
    class Shallow(Line):
        def is_ancestor(self, ancestor: str, descendant: str) -> bool:
            raise RepoError("a shallow clone")

    change, harmed = a_change((), before=HEALTHY), live(30, phi=0.3)
    for tip, state in ((LATER, "contested"), (MERGE, "worse")):
        outcome = watch(change, harmed, TARGET, Shallow(tip), now=MERGED_AT + 60, settings=SETTINGS)
        assert outcome.state == state


@given(st.floats(0.0, 0.74), st.floats(0.0, 0.5), st.integers(0, 1000))
@checks(max_examples=40, deadline=None)
def test_worse_stays_worse_when_it_is_worse_still(phi: float, further: float, seed: int) -> None:
    change = a_change((), before=HEALTHY)
    noise = noisy(0.0, 0.01, seed=seed)
    milder = judge(change, live(30, phi=phi + noise)).state
    harder = judge(change, live(30, phi=phi - further + noise)).state
    if milder == "worse":
        assert harder == "worse"
