"""What a store and a host say beside the ledger: the evidence that the gates of the phases ask for.

Nothing here judges it, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qigcore.baseline import Baseline
from qigcore.history import History, SegmentInfo
from qigcore.rows import HEAD
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Drilled, DrillPlan, StoreEvidence, figures
from qigheal.health import trend_of
from qigheal.host import Manifest
from qigheal.host.refusals import refused_path
from qigheal.records import Diagnosis
from qigheal.repo import Repo
from qigheal.repo.git import FILE_MODES
from qigheal.settings import HealSettings, MonitorSettings
from qigheal.standing import Silence, silence

TRENDS = ("phi", "basin_drift", "latency", "errors")
WINDOW = 50
PAUSE = 1.5
"""Intervals between two snapshots from which on the ones that should lie between count as missing."""


def store_evidence(
    store: Path, *, now: float | None, host: Repo | None = None, hours_per_repair: float | None = None
) -> StoreEvidence:
    """Read the history and what lies beside it. Raises HistoryError without a store.

    now: Unix seconds, until which snapshots are expected of the service: once it has been silent for longer than
        is usual, the time since its last one is missing. None: until its last one, for a record that has ended.
    host: the service's repository; without it nobody knows which strategies apply, nor which drills were its own.
    hours_per_repair: what finding and mending one such fault takes a person, in hours, by the operator's
        word. Hours saved are this times the changes confirmed; what reviewing them and mending what was
        taken back cost is not known and not taken off. Without it there is no such figure: nothing that is
        recorded tells how long a person would have taken.
    """
    path = store / "baseline.json"
    baseline = Baseline.load(path) if path.exists() else None
    settings = MonitorSettings.load(store)
    with History.read_only(store) as history:
        segments = history.segments()
        recent = history.last(WINDOW)
        quiet = None if now is None else silence(recent.timestamp, segments, now)
        present, up = _shares(history, segments, settings.error_rate_max, quiet)
    return StoreEvidence(
        snapshots=sum(segment.rows for segment in segments),
        present_share=present,
        silent_s=None if quiet is None else quiet.age_s,
        baseline_learned=baseline is not None,
        trends_known=sum(trend_of(recent, metric, baseline).direction != "unknown" for metric in TRENDS),
        memory_mb=settings.history_size * (HEAD.itemsize + 8 * settings.dim) / 1e6,
        strategies=None if host is None else _wanted(store, applicable(host)),
        uptime_share=up,
        hours_saved=None if hours_per_repair is None else _confirmed(store) * hours_per_repair,
        drills=None if host is None else _drills(store, host),
    )


def applicable(repo: Repo) -> tuple[str, ...]:
    """The built-in strategies that have something to work on in what is checked out, in their order.

    attention, basin: a lever of theirs is declared, in a file that may be patched. errors: a call site is
    declared idempotent. latency, memory, errors: a Python file may be patched. revert: there is a commit
    before this one.
    """
    from qigheal.healing.strategies import builtin  # not for a process that serves, which names no host

    head = repo.head()
    manifest = Manifest.at(repo, head)
    open_to_patches = {
        path
        for path, entry in repo.entries(head).items()
        if entry.mode in FILE_MODES and refused_path(manifest, path) is None
    }
    levers = {lever.strategy for lever in manifest.levers if lever.file in open_to_patches}
    code = any(path.endswith(".py") for path in open_to_patches)
    has_work = {
        "attention": "attention" in levers,
        "basin": "basin" in levers,
        "latency": code,
        "errors": code and bool(manifest.sites.idempotent),
        "memory": code,
        "revert": bool(open_to_patches) and repo.has(f"{head}~1"),
    }
    names = [strategy.name for strategy in builtin(HealSettings())]
    return tuple(name for name in names if has_work.get(name, True))


def _wanted(store: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of these strategies, those that heal something that was diagnosed: no other is ever asked."""
    from qigheal.healing.strategies import builtin

    path = store / "ledger.db"
    entries = Ledger(path, read_only=True).entries("diagnosis") if path.exists() else ()
    diagnosed = {metric for entry in entries for metric in entry.read(Diagnosis).metrics}
    metrics = {strategy.name: strategy.metrics for strategy in builtin(HealSettings())}
    return tuple(name for name in names if diagnosed.intersection(metrics[name]))


def drills_on(ledger: Ledger, repo: Repo) -> int:
    """Drills that were performed on this repository: a branch of it holds the commit that they began from."""
    bases = {entry.subject: entry.read(DrillPlan).patch.base for entry in ledger.entries("drill")}
    ended = [bases[e.subject] for e in ledger.entries("drilled") if e.subject in bases and e.read(Drilled).ok]
    here = {base: repo.on_a_branch(base) for base in set(ended)}
    return sum(here[base] for base in ended)


def _drills(store: Path, repo: Repo) -> int:
    path = store / "ledger.db"
    return drills_on(Ledger(path, read_only=True), repo) if path.exists() else 0


def _confirmed(store: Path) -> int:
    path = store / "ledger.db"
    return figures(Ledger(path, read_only=True)).confirmed if path.exists() else 0


def _shares(
    history: History, segments: Sequence[SegmentInfo], error_rate_max: float, quiet: Silence | None
) -> tuple[float | None, float | None]:
    """Recorded snapshots over expected ones, and those of a service that was up; 0 to 1, None where no
    process wrote three.

    The interval is that of the processes, each by its own mean; missing is the time in which none of
    them wrote. So the pause of one of several workers is not seen, and that of the service is. A snapshot
    is of a service that was up when its error rate was measured and is at most `error_rate_max`: it came,
    and the service served. A service that answers badly or slowly is unwell and not down. Time in which no
    snapshot came is not up, whatever the reason, nor is a silence that lasts; before the first nothing is expected.
    """
    intervals = [(each.last - each.first) / (each.rows - 1) for each in segments if each.rows >= 3]
    intervals = [interval for interval in intervals if interval > 0]
    if not intervals:
        return None, None
    usual = float(np.median(intervals))
    read = list(history.scan(columns=("timestamp", "error_rate", "repaired")))
    if not read:
        return 0.0, 0.0  # rows were written, and damage hides them all
    times = np.sort(np.concatenate([batch.timestamp for batch in read]))
    serving = sum(
        int((batch.good("error_rate") & (batch.error_rate <= error_rate_max)).sum()) for batch in read
    )
    gaps = np.diff(times)
    if quiet is not None:
        gaps = np.append(gaps, quiet.age_s)
    missing = float(np.rint(gaps[gaps > PAUSE * usual] / usual - 1).sum())
    expected = len(times) + missing
    return len(times) / expected, serving / expected
