"""How often the judge errs, on whole trials of simulated hosts, and how long its bootstrap takes.

    python -m benchmarks.judging [--trials N] [--json] [--only TEXT]

Each line is one kind of host and change, judged N times with seeds 0 to N - 1, and what of it is asked.
The hosts are those of the tests (`tests.heal.simulated`), where a short form of each line stands. The
limits are counts that 200 trials may show; with another N they grow in proportion. Exit 1 when one is
missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qigcore.fitness import RESAMPLES, Limits, Side, excesses
from tests.heal.simulated import World, judged

TRIALS = 200
PAIRS, DIM = 40, 64
BOOTSTRAP_MS = 20.0
ROUNDS = 25

FAULT: dict[str, Any] = {
    "phi": 0.04, "phi_sd": 0.004, "kappa": 1019.0, "kappa_sd": 8.0, "tilt": 0.05, "concentration": 4000.0,
}  # fmt: skip
BOTH = ("phi", "kappa")


@dataclass(frozen=True)
class Scenario:
    """One kind of trial. at_most, at_least: of how many per hundred trials a decision may or must be given;
    "accepted" counts as one."""

    name: str
    before: World
    after: World
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)

    def missed(self, found: Counter[str], trials: int) -> list[str]:
        """The limits that these counts do not keep."""
        return [
            *(
                f"{name} ≤ {part:g} %"
                for name, part in self.at_most.items()
                if found[name] > part / 100 * trials
            ),
            *(
                f"{name} ≥ {part:g} %"
                for name, part in self.at_least.items()
                if found[name] < part / 100 * trials
            ),
        ]


SAME = {"worse": 0.5, "accepted": 2.5}
NOISY = World(wall_noise=0.08)
SICK = World(**FAULT, wall_noise=0.08)
BOTH_ILL = World(**FAULT, wall_ms=30.0, wall_noise=0.08)
SLOW = World(wall_ms=30.0, wall_noise=0.08)
EDGE = World(phi=0.738, shared=0.3)
UNRULY = World(process_noise=0.03, waits=0.1)
UNLUCKY = World(unlucky=0.25)
PAYING = {"heals": BOTH, "prices": ("latency", "memory")}
EDGE_MS = 8.0  # where the healthy band of latency ends in these hosts, of 5 ms in the mean
LATENCY = {"observed": {"latency": 50.0}}

SCENARIOS = (
    Scenario("A/A, noise 8 %", NOISY, NOISY, at_most=SAME),
    Scenario("A/A, degraded host", SICK, SICK, at_most=SAME),
    Scenario("A/A, Φ just outside its band", EDGE, EDGE, at_most=SAME),
    Scenario("A/A, unruly machine", UNRULY, UNRULY, at_most=SAME),
    Scenario("A/A, a quarter of the processes 40 % slower", UNLUCKY, UNLUCKY, at_most=SAME),
    Scenario(
        "cure with a slowdown of 5 %, noise 8 %",
        SICK,
        World(wall_noise=0.08, wall_ms=5.25),
        at_most={"accepted": 5.0},
        claims={"heals": BOTH},
    ),
    Scenario("the same cure without it", SICK, NOISY, at_least={"accepted": 90.0}, claims={"heals": BOTH}),
    Scenario(
        "two faults, the first healed",
        BOTH_ILL,
        SLOW,
        at_least={"accepted": 90.0},
        claims={"heals": BOTH, "named": (*BOTH, "latency"), **LATENCY},
    ),
    Scenario(
        "two faults, then the second",
        SLOW,
        World(wall_ms=2.7, wall_noise=0.08),
        at_least={"accepted": 90.0},
        claims={"heals": ("latency",), "named": ("latency",), **LATENCY},
    ),
    Scenario("A/A, latency and memory may be paid", NOISY, NOISY, at_most=SAME, claims=PAYING),
    Scenario("A/A, the same, degraded host", SICK, SICK, at_most=SAME, claims=PAYING),
    Scenario(
        "cure that takes latency to the end of its band",
        SICK,
        World(wall_noise=0.08, wall_ms=EDGE_MS),
        at_most={"accepted": 5.0},
        claims=PAYING,
    ),
    Scenario(
        "cure with a slowdown of 5 % that may be paid",
        SICK,
        World(wall_noise=0.08, wall_ms=5.25),
        at_least={"accepted": 90.0},
        claims=PAYING,
    ),
)


def counted(scenario: Scenario, trials: int) -> Counter[str]:
    """The decisions of `trials` trials; "accepted" besides."""
    found: Counter[str] = Counter()
    for seed in range(trials):
        verdict, _ = judged(scenario.before, scenario.after, seed, **scenario.claims)
        found[verdict.decision] += 1
        found["accepted"] += verdict.accepted
    return found


def bootstrap() -> dict[str, float | None]:
    """Milliseconds of 10,000 resamples of 40 pairs and 6 metrics, warm: ours, and SciPy's of the differences.

    Ours resamples both sides, the drift of the mean basin of 64 components among them, and gives excesses;
    SciPy's resamples six columns of differences.
    """
    draw = np.random.default_rng(3)

    def side() -> Side:
        return Side(
            phi=draw.normal(0.77, 0.01, PAIRS),
            kappa=draw.normal(66.8, 2.1, PAIRS),
            basins=draw.dirichlet(np.full(DIM, 6.0), PAIRS),
            errors=draw.uniform(0, 0.01, PAIRS),
            latency=draw.lognormal(1.6, 0.1, PAIRS),
            memory=draw.normal(0, 0.1, PAIRS),
            blocks=np.arange(PAIRS) // 2,
        )

    bands = {"phi": (0.74, 0.80), "kappa": (60.0, 73.0), "errors": (0.0, 0.01), "latency": (4.0, 6.0)}
    limits = Limits(
        basin=np.full(DIM, DIM**-0.5),
        drift_limit=0.25,
        bands={**bands, "memory": (-0.3, 0.3)},
        service=("errors", "latency", "memory"),
    )
    before, after = side(), side()
    ours = _median_ms(lambda: excesses(before, after, limits, resamples=RESAMPLES))
    try:
        from scipy.stats import bootstrap as scipys
    except ImportError:
        return {"qigheal": ours, "SciPy": None}
    differences = draw.normal(size=(PAIRS, 6))

    def theirs() -> object:
        return scipys(
            (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=1
        )

    return {"qigheal": ours, "SciPy": _median_ms(theirs)}


def _median_ms(work: Callable[[], object]) -> float:
    work()
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--only", default="", help="only scenarios whose name holds this text")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows, ok = [], True
    columns = ("accepted", "equivalent", "worse", "inconclusive", "refused")
    for scenario in SCENARIOS:
        if given.only not in scenario.name:
            continue
        began = time.perf_counter()
        found = counted(scenario, given.trials)
        missed = scenario.missed(found, given.trials)
        ok = ok and not missed
        rows.append(
            {"trials": scenario.name, **{name: found[name] for name in columns}, "missed": missed}
            | {"seconds": round(time.perf_counter() - began, 1)}
        )
        if not given.json:
            counts = "  ".join(f"{found[name]:4d} {name}" for name in columns)
            print(f"{scenario.name:45} {counts}  {'missed: ' + ', '.join(missed) if missed else 'kept'}")
    took = bootstrap()
    ok = ok and (took["qigheal"] or 0.0) <= BOOTSTRAP_MS
    if given.json:
        print(json.dumps({"trials": given.trials, "scenarios": rows, "bootstrap_ms": took}, indent=2))
    else:
        told = ", ".join(
            f"{who} {ms:.1f} ms" if ms is not None else f"{who} absent" for who, ms in took.items()
        )
        print(f"{RESAMPLES} resamples of {PAIRS} pairs and 6 metrics: {told} (asked: {BOOTSTRAP_MS:g} ms)")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
