"""Runs the fault corpus through the healer and prints what came of it.

    python -m tests.faults.efficacy [--only TEXT] [--jobs N] [--json FILE]

Each case gets a repository and a store of its own. The healer is told which commit was healthy, measures
it and the present one, and goes its way in phase 2 (it measures and opens nothing); what it accepts is
committed as a person would, and the next pass begins from there. Whether the host is then really healed
says the case's own check, on a checkout that the healer has not seen.

Exit 0 when the targets are reached: at least 85 % of the healable cases healed, nothing wrongly accepted,
no patch on a healthy host, median at most 90 s a fault. With --only, of those that were run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from qigheal.healing import phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.records import HealResult
from qigheal.settings import HealSettings
from tests.faults.corpus import Case, git, make

MODULES = ("attention", "basin", "latency", "latency_none", "errors", "memory", "revert")

HEALED_SHARE, MEDIAN_S = 0.85, 90.0


def cases(only: str = "") -> list[Case]:
    found = [case for name in MODULES for case in import_module(f"tests.faults.{name}").CASES]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), "two cases have one name"
    return [case for case in found if only in case.name]


@dataclass(frozen=True)
class Row:
    """What came of one case."""

    name: str
    strategy: str  # that should heal it; "" for none
    detected: bool
    proposed: tuple[str, ...]  # strategies of the patches measured, in order
    accepted: tuple[str, ...]
    healed: bool | None  # None: nothing was to be healed
    wrong: bool  # something was accepted that does not heal, or where nothing may be, or not without a person
    seconds: float
    why: tuple[str, ...]  # the last words on each patch
    for_person: tuple[str, ...] = ()  # strategies of those accepted that nothing but a person may merge

    @property
    def good(self) -> bool:
        return not self.wrong and self.healed is not False


def run(case: Case, settings: HealSettings | None = None) -> Row:
    """Make the case's host, heal it, and see what came of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qigheal-faults-") as name:
        host = Path(name, "host")
        healthy = make(case, host)
        results = []
        for number in range(case.passes):
            result = one_pass(host, Path(name, f"store{number}"), healthy, settings)
            results.append(result)
            if not any(verdict.accepted for verdict in result.verdicts):
                break
            apply(host, result)
        verdicts = [verdict for result in results for verdict in result.verdicts]
        patches = [patch for result in results for patch in result.patches]
        kept = [patch for patch, verdict in zip(patches, verdicts, strict=True) if verdict.accepted]
        accepted = tuple(patch.strategy for patch in kept)
        for_person = tuple(patch.strategy for patch in kept if patch.tier == "review")
        healed = case.healed(host) if case.healed is not None else None
        permitted = bool(healed) or (case.person and accepted == for_person)
        return Row(
            name=case.name,
            strategy=case.strategy,
            detected=results[0].triggered,
            proposed=tuple(patch.strategy for patch in patches),
            accepted=accepted,
            healed=healed,
            wrong=bool(accepted) and not permitted,
            for_person=for_person,
            seconds=time.monotonic() - began,
            why=tuple(verdict.reason for verdict in verdicts) or (results[0].message,),
        )


def run_named(name: str) -> Row:
    """`run` for another process: a case's check is a function, which does not travel."""
    [case] = [case for case in cases() if case.name == name]
    began = time.monotonic()
    try:
        return run(case)
    except Exception as error:  # one case that breaks must not hide the others
        return Row(
            name=name,
            strategy=case.strategy,
            detected=False,
            proposed=(),
            accepted=(),
            healed=False,
            wrong=False,
            seconds=time.monotonic() - began,
            why=(f"{type(error).__name__}: {error}",),
        )


def one_pass(host: Path, store: Path, healthy: str, settings: HealSettings | None) -> HealResult:
    store.mkdir()
    engine = SelfHealingEngine(host=host, store=store, settings=settings)
    phases.override(engine.ledger, 2, "corpus", "to measure and open nothing", time.time())
    return engine.check_and_heal(healthy=healthy)


def apply(host: Path, result: HealResult) -> None:
    [patch] = [p for p, v in zip(result.patches, result.verdicts, strict=True) if v.accepted]
    (host.parent / "accepted.diff").write_text(patch.diff)
    git(host, "apply", "--index", str(host.parent / "accepted.diff"))
    git(host, "commit", "-q", "-m", f"{patch.strategy}: {patch.rationale}")


def table(rows: Sequence[Row]) -> str:
    said = {None: "", True: "yes", False: "NO"}
    lines = [
        f"{'case':34} {'detected':>8} {'proposed':28} {'accepted':20} {'healed':>6} {'wrong':>5} {'seconds':>7}"
    ]
    for row in rows:
        proposed, accepted = " ".join(row.proposed) or "-", " ".join(row.accepted) or "-"
        wrong = "YES" if row.wrong else ""
        lines.append(
            f"{row.name:34} {said[row.detected]:>8} {proposed[:28]:28} {accepted[:20]:20} "
            f"{said[row.healed]:>6} {wrong:>5} {row.seconds:7.1f}"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> tuple[str, bool]:
    """The figures asked for, and whether they are reached."""
    healable = [row for row in rows if row.healed is not None]
    healed = sum(row.good for row in healable)
    wrong = sum(row.wrong for row in rows)
    median = statistics.median(row.seconds for row in healable) if healable else 0.0
    text = (
        f"{healed} of {len(healable)} faults healed, {wrong} wrongly accepted, "
        f"{len(rows) - len(healable)} cases where nothing may merge; {sum(bool(row.for_person) for row in rows)} with "
        f"a patch for a person to merge; median {median:.0f} s a fault"
    )
    return text, wrong == 0 and healed >= HEALED_SHARE * len(healable) and median <= MEDIAN_S


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.efficacy")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--jobs", type=int, default=1, help="cases at a time; times are those of a busy machine"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    asked = parser.parse_args(arguments)
    chosen = cases(asked.only)
    if not chosen:
        parser.error(f"no case is called anything like {asked.only!r}")
    rows: list[Row] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for row in pool.map(run_named, [case.name for case in chosen]):
            rows.append(row)
            print(table([row]).splitlines()[1], flush=True)
            if not row.good:
                print(f"    {'; '.join(row.why)}", flush=True)
    text, reached = summary(rows)
    print(f"\n{table(rows)}\n\n{text}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
