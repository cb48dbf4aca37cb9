"""What recording a chain costs it, a step: the same run with and without self-healing, in turns.

    python -m benchmarks.bench_chain [--json] [--rounds N] [--instructions]

The chain does nothing but hand out a trajectory, so that all of the difference is ours. Beside it stands
prometheus_client's `Gauge.set`, which says how fast the machine is. asv follows the runs over the commits.
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from unittest.mock import patch

import numpy as np
from prometheus_client import CollectorRegistry, Gauge

from benchmarks import instructions
from benchmarks.timing import Group, Work, measure
from qigheal.integrations.qigchain import add_self_healing_to_chain

STEPS = 100
LIMIT_NS = 2000.0
"""A step may cost so much."""

LISTS, ARRAYS, ONE = "the basins lists", "the basins arrays", "runs of one step"


class Chain:
    """Its run is as good as free."""

    def __init__(self, steps: int, *, arrays: bool) -> None:
        rng = np.random.default_rng(0)
        basins = list(rng.normal(size=(steps, 64)))
        self.result: dict[str, Any] = {
            "success": True,
            "trajectory": [
                {
                    "step": number,
                    "name": f"step-{number % 5}",
                    "phi_before": 0.9,
                    "phi_after": 1.0,
                    "kappa_before": 8.0,
                    "kappa_after": 7.8,
                    "bures_distance": 0.1,
                    "basin_coords": basin if arrays else basin.tolist(),
                }
                for number, basin in enumerate(basins)
            ],
        }

    def run(self, initial_basin: object, context: object = None) -> dict[str, Any]:
        return self.result


class Plain(Chain):
    """A class of its own: the method of one that has a chain with self-healing is not what it was."""

    def run(self, initial_basin: object, context: object = None) -> dict[str, Any]:
        return self.result


def plain(steps: int = STEPS) -> Work:
    run = Plain(steps, arrays=False).run
    return lambda: run(None)


def recorded(steps: int = STEPS, *, arrays: bool = False) -> Work:
    chain = add_self_healing_to_chain(Chain(steps, arrays=arrays), code_hash="")
    run = chain.run
    for _ in range(400 // steps + 1):
        run(None)
    chain.self_healing.get_health()  # type: ignore[attr-defined]  # past what is done once
    return lambda: run(None)


def gauge() -> Work:
    call = Gauge("phi", "Integration", registry=CollectorRegistry()).set
    return lambda: call(0.75)


WORKS = f"""
def works():
    from benchmarks.bench_chain import ARRAYS, LISTS, gauge, plain, recorded
    return {{
        "nothing": lambda: None,
        "Gauge.set": gauge(),
        "plain": plain({STEPS}),
        LISTS: recorded({STEPS}),
        ARRAYS: recorded({STEPS}, arrays=True),
    }}

"""


def counted(calls: int = 50) -> dict[str, Any]:
    """Instructions a step over those of the same run without self-healing. Raises CallgrindError."""
    # All of that room but its works: `def` a second time counts.
    script = instructions.SCRIPT.replace("def repeat(", f"{WORKS}def repeat(")
    with patch.object(instructions, "SCRIPT", script):
        counts = {name: found.total() for name, found in instructions.count(calls).items()}
    each = {name: (counts[name] - counts["plain"]) // STEPS for name in (LISTS, ARRAYS)}
    return {
        "build": instructions.build(),
        "gauge_set": counts["Gauge.set"],
        "a_step": each,
        "ratio_to_gauge_set": {name: number / counts["Gauge.set"] for name, number in each.items()},
    }


class Runs:
    """For asv: 100 runs of 100 steps."""

    def setup(self) -> None:
        self.plain, self.lists, self.arrays = plain(), recorded(), recorded(arrays=True)

    def time_plain_10000_steps(self) -> None:
        for _ in range(100):
            self.plain()

    def time_lists_10000_steps(self) -> None:
        for _ in range(100):
            self.lists()

    def time_arrays_10000_steps(self) -> None:
        for _ in range(100):
            self.arrays()


def run(rounds: int) -> dict[str, Any]:
    """Nanoseconds a step over those of the same run without self-healing, and whether they keep to the limit.

    ns_a_run: what a run costs beside its steps.
    """
    group = Group("a run", "ns a run", "Gauge.set")
    group.add("Gauge.set", gauge)
    group.add("plain", plain)
    group.add(LISTS, recorded)
    group.add(ARRAYS, lambda: recorded(arrays=True))
    group.add(ONE, lambda: recorded(1))
    rows = {row["candidate"]: row["ns"] for row in measure(group, rounds)["rows"]}
    found = {name: (rows[name] - rows["plain"]) / STEPS for name in (LISTS, ARRAYS)}
    found[ONE] = rows[ONE] - rows["plain"]
    return {
        "steps": STEPS,
        "gauge_set_ns": rows["Gauge.set"],
        "limit_ns": LIMIT_NS,
        "ns_a_step": found,
        "ns_a_run": found[ONE] - found[LISTS],
        "ratio_to_gauge_set": {name: ns / rows["Gauge.set"] for name, ns in found.items()},
        "kept": max(found[LISTS], found[ARRAYS]) <= LIMIT_NS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--rounds", type=int, default=50, help="turns of each candidate")
    parser.add_argument(
        "--instructions", action="store_true", help="count them, with valgrind; no time is measured"
    )
    asked = parser.parse_args()
    if asked.instructions:
        print(json.dumps(counted(), indent=2))
        return
    found = run(asked.rounds)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name, ns in found["ns_a_step"].items():
        print(f"{name:20} {ns:7.0f} ns a step {found['ratio_to_gauge_set'][name]:6.2f}x Gauge.set")
    print(f"{'a run, beside its steps':20} {found['ns_a_run']:4.0f} ns")
    print(
        f"limit: {LIMIT_NS:.0f} ns a step in runs of {STEPS} steps: {'kept' if found['kept'] else 'NOT KEPT'}"
    )


if __name__ == "__main__":
    main()
