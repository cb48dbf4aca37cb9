"""A chain with self-healing: what is recorded of it, what it says, and what it costs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import bench_chain
from qigcore.history import History
from qigheal.integrations.qigchain import (
    add_self_healing_to_chain,
)
from tests.chains import (
    BASIN,
    Chain,
    Result,
    classes_as_before,  # noqa: F401  # by being here it is around every test
    heads,
    monitored,
    step,
)


def test_each_step_becomes_one_snapshot() -> None:
    result = Result([step(0), step(1, phi_after=0.8, basin_coords=-BASIN)])
    chain = monitored(Chain([result]))
    assert chain.run(BASIN) is result
    snapshots = list(chain.self_healing.monitor.snapshots)
    assert [s.module_name for s in snapshots] == ["project-0", "project-1"]
    assert [s.phi for s in snapshots] == [1.0, 0.8]
    assert [s.kappa_eff for s in snapshots] == [7.8, 7.8]
    assert snapshots[1].basin_drift == pytest.approx(math.pi)
    assert [s.avg_latency_ms for s in snapshots] == [2.0, 2.0]
    assert {s.memory_mb for s in snapshots} == {100.0}
    assert {s.repaired for s in snapshots} == {()}
    assert snapshots[0].timestamp <= snapshots[1].timestamp
    chain.self_healing.remove()


def test_a_step_that_is_no_mapping_has_nothing_of_the_step_before() -> None:
    chain = monitored(Chain([Result([step(duration_ms=5000.0), None])]))
    chain.run(BASIN)
    good, odd = chain.self_healing.monitor.snapshots
    assert good.avg_latency_ms == 5000.0
    assert odd.avg_latency_ms < 2500.0
    assert odd.repaired == ("phi", "kappa_eff", "basin_coords")
    chain.self_healing.remove()


def test_a_run_without_durations_of_its_own_shares_its_wall_time_among_its_steps() -> None:
    steps = [{k: v for k, v in step(i).items() if k != "duration_ms"} for i in range(4)]
    chain = monitored(Chain())
    chain.self_healing._runs.returned(Result(steps), 1000.0, 0.4)
    batch = heads(chain)
    assert batch.avg_latency_ms.tolist() == pytest.approx([100.0] * 4)
    assert batch.timestamp.tolist() == pytest.approx([1000.1, 1000.2, 1000.3, 1000.4])
    chain.self_healing.remove()


def test_results_may_be_mappings_and_memory_is_the_process_own() -> None:
    chain = add_self_healing_to_chain(Chain([{"success": True, "trajectory": (step(),)}]), code_hash="")
    chain.run(BASIN)
    assert heads(chain).memory_mb[0] > 5.0
    assert chain.self_healing.counts.odd_runs == 0
    chain.self_healing.remove()


def test_a_failure_counts_and_the_exception_passes_untouched() -> None:
    error = KeyError("collapsed")
    chain = monitored(Chain([Result([step()]), error, Result([step()], success=False), Result([step()])]))
    chain.run(BASIN)
    with pytest.raises(KeyError) as raised:
        chain.run(BASIN)
    assert raised.value is error
    chain.run(BASIN)
    chain.run(BASIN)
    assert heads(chain).error_rate.tolist() == pytest.approx([0.0, 1 / 2, 2 / 3, 2 / 4])
    assert [s.repaired for s in chain.self_healing.monitor.snapshots][1] == (
        "phi",
        "kappa_eff",
        "basin_coords",
    )
    counts = chain.self_healing.counts
    assert (counts.runs, counts.failed, counts.steps) == (4, 2, 4)
    chain.self_healing.remove()


def test_a_chain_that_only_raises_is_not_silently_healthy() -> None:
    chain = monitored(Chain([ValueError("no")] * 20))
    for _ in range(20):
        with pytest.raises(ValueError, match="no"):
            chain.run(BASIN)
    health = chain.self_healing.get_health()
    assert health["severity"] == "critical"
    assert any("error rate" in issue for issue in health["issues"])
    chain.self_healing.remove()


def test_health_says_that_nothing_is_known_yet() -> None:
    chain = monitored(Chain())
    for snapshots in range(12):
        health = chain.self_healing.get_health()
        assert (health["healthy"], health["severity"], health["issues"]) == (True, "normal", [])
        assert health["state"] == ("learning" if snapshots < 10 else "absolute")
        assert any("learning" in note for note in health["notes"]) == (snapshots < 10)
        chain.answers = [Result([step(phi_after=0.75, kappa_after=64.0)])]
        chain.run(BASIN)
    chain.self_healing.remove()


def test_a_chain_whose_first_runs_raise_is_not_healthy_while_learning() -> None:
    chain = monitored(Chain([ValueError("no")] * 3))
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            chain.run(BASIN)
    health = chain.self_healing.get_health()
    assert (health["healthy"], health["severity"], health["state"]) == (False, "warning", "learning")
    assert health["issues"] == ["learning: 3 of 10 snapshots, error rate 1"]
    assert health["metrics"]["error_rate"] == 1.0
    chain.self_healing.remove()


def test_an_interruption_is_no_failure_of_the_chain() -> None:
    chain = monitored(Chain([KeyboardInterrupt()]))
    with pytest.raises(KeyboardInterrupt):
        chain.run(BASIN)
    assert chain.self_healing.counts.runs == 0
    chain.self_healing.remove()


def generator() -> Iterator[dict[str, Any]]:
    yield step()


class Broken:
    @property
    def trajectory(self) -> Any:
        raise RuntimeError("not computed")


ODD: list[tuple[Any, int, int, int]] = [
    # result, snapshots, runs and steps counted as odd
    (None, 1, 1, 0),
    (Result(None), 1, 1, 0),
    (Result([]), 1, 0, 0),
    (Result("steps"), 1, 1, 0),
    (Result(7), 1, 1, 0),
    (Result(generator()), 1, 1, 0),
    (Broken(), 1, 1, 0),
    (Result([None, 3, "step", step()]), 4, 0, 3),
    (Result([{}]), 1, 0, 0),
    (Result([step(phi_after=math.nan), step(kappa_after="8"), step(basin_coords=[1.0, 2.0])]), 3, 0, 0),
    (Result([step(name=7, basin_coords=None, duration_ms=math.inf)]), 1, 0, 0),
    (Result([step()], success=np.array([True, False])), 1, 1, 0),
    ({"trajectory": [step()], "success": None}, 1, 0, 0),
]


@pytest.mark.parametrize(("result", "snapshots", "runs", "steps"), ODD)
def test_an_odd_result_passes_through_and_is_counted(
    result: Any, snapshots: int, runs: int, steps: int
) -> None:
    chain = monitored(Chain([{}, {}]))
    chain.answers = [result or Result(None)] if result is not None else []
    watcher = chain.self_healing._runs
    if result is None:
        watcher.returned(None, 0.0, 0.1)
    else:
        assert chain.run(BASIN) is result
    counts = chain.self_healing.counts
    assert (len(chain.self_healing.monitor.snapshots), counts.odd_runs, counts.odd_steps) == (
        snapshots, runs, steps
    )  # fmt: skip
    assert counts.lost == 0
    chain.self_healing.remove()


def test_a_trajectory_that_can_be_read_only_once_is_left_to_the_caller() -> None:
    chain = monitored(Chain([Result(generator())]))
    assert list(chain.run(BASIN).trajectory) == [step()]
    chain.self_healing.remove()


def test_repaired_steps_are_flagged() -> None:
    chain = monitored(Chain([Result([step(), step(phi_after=math.nan), {"phi_after": 0.5}])]))
    chain.run(BASIN)
    flags = [s.repaired for s in chain.self_healing.monitor.snapshots]
    assert flags == [(), ("phi",), ("kappa_eff", "basin_coords")]
    assert chain.self_healing.monitor.invalid == {"phi": 1, "kappa_eff": 1, "basin_coords": 1}
    chain.self_healing.remove()


def test_refused_steps_do_not_reach_the_chain() -> None:
    chain = monitored(Chain([Result([step(), step(phi_after=2.0)]), KeyError("no")]), on_invalid="raise")
    chain.run(BASIN)
    assert (chain.self_healing.counts.steps, chain.self_healing.counts.lost) == (1, 1)
    with pytest.raises(KeyError, match="no"):
        chain.run(BASIN)
    assert (chain.self_healing.counts.steps, chain.self_healing.counts.lost) == (1, 2)
    chain.self_healing.remove()


class Shrinking(list[Any]):
    """Says that it has steps, and has none."""

    def __getitem__(self, place: Any) -> Any:
        raise IndexError("gone")


def test_a_result_that_breaks_its_reading_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    chain = monitored(Chain([Result(Shrinking([1])) for _ in range(3)]))
    for _ in range(3):
        chain.run(BASIN)
    assert chain.self_healing.counts.lost == 3
    assert [record.getMessage() for record in caplog.records] == [
        "a chain's result could not be recorded; the chain goes on"
    ]
    chain.self_healing.remove()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(
    ANYTHING
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("phi_after", "kappa_after", "basin_coords", "name", "duration_ms"),
            ANYTHING | st.just(BASIN) | st.floats(),
        ),
    ),
    max_size=5,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"success": ANYTHING, "trajectory": ANYTHING | STEPS, "final_phi": ANYTHING}
    )
)
@settings(max_examples=200)
def test_no_result_breaks_a_run(result: dict[str, Any]) -> None:
    chain = monitored(Chain([result]))
    assert chain.run(BASIN) is result
    counts, trajectory = chain.self_healing.counts, result.get("trajectory")
    assert counts.lost == 0
    assert counts.steps == (len(trajectory) if isinstance(trajectory, list) and trajectory else 1)
    assert len(chain.self_healing.monitor.snapshots) == counts.steps
    chain.self_healing.remove()


def test_a_million_steps() -> None:
    one = step()
    chain = monitored(Chain([Result([one] * 1_000_000)]), false_alarm_every=None)
    chain.run(BASIN)
    assert chain.self_healing.counts.steps == 1_000_000
    assert len(chain.self_healing.monitor.snapshots) == 1000
    chain.self_healing.remove()


def test_a_run_longer_than_the_ring_is_stored_whole(tmp_path: Path) -> None:
    chain = monitored(Chain([Result([step(i) for i in range(700)])]), store=tmp_path / "s", history_size=100)
    chain.run(BASIN)
    healing = chain.self_healing
    healing.remove()
    assert (healing.counts.lost, healing.monitor.losses) == (0, 0)
    with History.read_only(tmp_path / "s") as history:
        stored = history.last(1000)
    assert len(stored) == 700
    assert np.all(np.diff(stored.timestamp) >= 0)
    assert stored.module_name.tolist() == [f"project-{i % 3}" for i in range(700)]


def test_a_steady_chain_at_full_phi_becomes_healthy_and_a_change_is_seen() -> None:
    rng = np.random.default_rng(1)

    def runs(count: int, **other: Any) -> None:
        for _ in range(count):
            basin = BASIN + rng.normal(scale=0.05, size=64)
            chain.answers = [Result([step(0, basin_coords=basin, **other)])]
            chain.run(BASIN)

    chain = monitored(Chain())
    runs(200)
    early = chain.self_healing.get_health()
    assert not early["healthy"]
    assert any("κ" in issue for issue in early["issues"])
    assert any("breakdown" in issue for issue in early["issues"])
    runs(150)
    learned = chain.self_healing.get_health()
    assert (learned["healthy"], learned["severity"], learned["issues"]) == (True, "normal", [])
    assert learned["metrics"]["breakdown_count"] == 10
    runs(20, phi_after=0.8)
    changed = chain.self_healing.get_health()
    assert not changed["healthy"]
    assert any("Φ" in issue for issue in changed["issues"])
    chain.self_healing.remove()


def test_health_and_trends_are_plain_and_have_the_earlier_keys() -> None:
    chain = monitored(Chain())
    assert chain.self_healing.get_health()["metrics"]["phi"] is None  # JSON has no NaN
    for number in range(60):
        chain.answers = [Result([step(phi_after=1.0 - number / 100)])]
        chain.run(BASIN)
    health, trends = chain.self_healing.get_health(), chain.self_healing.get_trends()
    assert set(health) == {"healthy", "severity", "issues", "metrics", "state", "notes"}
    assert set(health["metrics"]) == {"phi", "basin_drift", "breakdown_count", "error_rate", "latency_ms"}
    assert set(trends) == {"phi", "basin_drift", "latency", "errors"}
    assert set(trends["phi"]) == {"direction", "slope", "recent_avg"}
    assert trends["phi"]["direction"] == "degrading"
    assert trends["phi"]["slope"] == pytest.approx(-0.01)
    assert json.loads(json.dumps([health, trends], allow_nan=False)) == [health, trends]
    chain.self_healing.remove()


def test_the_page_about_chains_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "chain.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/chain.md", "exec"), {})  # noqa: S102
    assert "'healthy': True" in capsys.readouterr().out


@pytest.mark.alone
def test_a_step_costs_a_few_gauges() -> None:
    # Counted in the same run: 2.5 where basins are arrays, 3.4 where they are lists.
    found = bench_chain.run(rounds=10)["ratio_to_gauge_set"]
    assert found[bench_chain.LISTS] <= 7.0, found
    assert found[bench_chain.ARRAYS] <= 6.0, found


def test_nothing_heavy_is_loaded_by_a_serving_chain() -> None:
    code = (
        "import sys, json\nfrom qigheal.integrations.qigchain import add_self_healing_to_chain\n"
        "class C:\n    def run(self, b): return {'trajectory': []}\n"
        "add_self_healing_to_chain(C(), code_hash='').run(1)\n"
        "print(json.dumps(sorted(m.split('.')[0] for m in sys.modules) "
        "+ [m for m in sys.modules if m.startswith('qigheal.healing')]))"
    )
    import subprocess

    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    loaded = set(json.loads(said.stdout))
    assert not loaded & {"numba", "scipy", "libcst", "typer", "rich", "sqlite3", "qigheal.healing"}
